//! What limit an adaptive timeout learns: in simulations on a virtual clock, and case by case.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use throughline::testing::{Recorder, Script, Turn};
use throughline::{
    AdaptiveTimeoutConfig, Context, Error, ItemStream, Kind, Primitive, Result, Workflow, workflow,
    workflow_stream, workflow_with,
};
use tokio::time::{Instant, sleep, timeout};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(floor: u64, ceiling: u64) -> AdaptiveTimeoutConfig {
    AdaptiveTimeoutConfig::new("model", millis(floor), millis(ceiling)).unwrap()
}

/// Takes as many milliseconds as it is told and gives them back.
fn sleeper() -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("sleeper", |time: u64| async move {
        sleep(millis(time)).await;
        Ok(time)
    })
}

// === simulations ===

/// ln of latency has this deviation.
const SIGMA: f64 = 0.5;
/// exp(1.6449 * SIGMA): the 95th percentile in medians.
const Q95: f64 = 2.276;

thread_local! {
    static RANDOM: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::with_seed(0));
}

fn seed(seed: u64) {
    RANDOM.with_borrow_mut(|random| *random = fastrand::Rng::with_seed(seed));
}

/// A lognormal latency with this median, by Box and Muller.
fn lognormal(median: f64) -> Duration {
    let (a, b) = RANDOM.with_borrow_mut(|random| (random.f64(), random.f64()));
    let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    Duration::from_secs_f64(median * (SIGMA * normal).exp())
}

/// A service whose latency is lognormal with a median in seconds that can be changed.
fn service() -> (Workflow<impl Primitive<In = f64, Out = ()>>, Context) {
    let work = workflow("service", |median: f64| async move {
        sleep(lognormal(median)).await;
        Ok(())
    });
    (work, Context::new())
}

/// Calls one after the other; how many timed out, and the limits after each.
async fn calls<P: Primitive<In = f64, Out = ()>>(
    flow: &Workflow<throughline::telemetry::Observed<throughline::AdaptiveTimeout<P>>>,
    cx: &Context,
    n: usize,
    median: f64,
) -> (usize, Vec<f64>) {
    let mut killed = 0;
    let mut limits = Vec::with_capacity(n);
    for _ in 0..n {
        killed += usize::from(flow.run(median, cx).await.is_err());
        limits.push(flow.stage().stats().limit.as_secs_f64());
    }
    (killed, limits)
}

fn within(limit: f64, share: f64, truth: f64) -> bool {
    (limit / truth - 1.0).abs() <= share
}

#[tokio::test(start_paused = true)]
async fn probe() {
    for s in 0..20 {
        seed(s);
        let (work, cx) = service();
        let flow = work.adaptive_timeout(config(1, 30_000));
        let truth = 2.0 * Q95 * 0.1;
        let (killed, limits) = calls(&flow, &cx, 6_000, 0.1).await;
        let dev = |from: usize| limits[from..].iter().map(|l| (l / truth - 1.0).abs()).fold(0.0, f64::max);
        let first = limits.iter().position(|l| *l < 29.0).unwrap();
        print!(
            "seed {s} killed {killed} first {first} dev0 {:.3} dev500 {:.3} dev1000 {:.3} ",
            dev(first),
            dev(500),
            dev(1000)
        );
        let truth = truth * 4.0;
        let (killed, limits) = calls(&flow, &cx, 4_000, 0.4).await;
        let first = limits.iter().position(|l| *l >= truth / 2.0).unwrap();
        let fit = limits.iter().rposition(|l| !within(*l, 0.15, truth)).unwrap();
        let max = limits.iter().fold(0.0f64, |a, b| a.max(*b)) / truth;
        print!(" up: killed {killed} first {first} fit {fit} max {max:.2}");
        let truth = truth / 4.0;
        let (killed, limits) = calls(&flow, &cx, 6_000, 0.1).await;
        let fit = limits.iter().rposition(|l| !within(*l, 0.15, truth)).unwrap();
        println!(" down: killed {killed} fit {fit}");
    }
}
