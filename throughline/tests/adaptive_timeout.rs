//! What limit an adaptive timeout learns: in simulations on a virtual clock, and case by case.

#![allow(clippy::cast_possible_truncation, reason = "what a test counts is little")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use throughline::adaptive_timeout::AdaptiveTimeout;
use throughline::telemetry::Observed;
use throughline::testing::{Recorder, Script, Turn};
use throughline::{
    AdaptiveTimeoutConfig, ConfigError, Context, Error, ItemStream, Kind, Primitive, Result, Workflow,
    workflow, workflow_stream, workflow_with,
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
    static RANDOM: RefCell<fastrand::Rng> = const { RefCell::new(fastrand::Rng::with_seed(0)) };
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
    flow: &Workflow<Observed<AdaptiveTimeout<P>>>,
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

/// Whether `limit` is within this share of `truth`.
fn within(limit: f64, share: f64, truth: f64) -> bool {
    (limit / truth - 1.0).abs() <= share
}

#[tokio::test(start_paused = true)]
async fn finds_the_limit_of_a_steady_service_within_a_tenth_and_cuts_one_run_in_two_hundred_at_most() {
    for number in 0..20 {
        seed(number);
        let (work, cx) = service();
        let flow = work.adaptive_timeout(config(1, 30_000));
        let (killed, limits) = calls(&flow, &cx, 6_000, 0.1).await;
        let truth = 2.0 * Q95 * 0.1;
        assert!(limits[..49].iter().all(|limit| *limit == 30.0), "seed {number}: only the ceiling at first");
        let roughly = limits[49..].iter().all(|limit| within(*limit, 0.3, truth));
        assert!(roughly, "seed {number}: within 30 % from 50 samples on");
        let exactly = limits[1_000..].iter().all(|limit| within(*limit, 0.1, truth));
        assert!(exactly, "seed {number}: within 10 % from 1,000 samples on");
        assert!(killed <= 30, "seed {number}: {killed} of 6,000 runs were cut");
    }
}

#[tokio::test(start_paused = true)]
async fn lets_a_service_that_becomes_four_times_slower_answer_soon_and_fits_within_a_window() {
    for number in 0..20 {
        seed(number);
        let (work, cx) = service();
        let flow = work.adaptive_timeout(config(1, 30_000));
        calls(&flow, &cx, 3_000, 0.1).await;

        let truth = 2.0 * Q95 * 0.4;
        let samples = usize::try_from(flow.stage().stats().samples).unwrap();
        let window = |mean: f64| (300.0 / mean) as usize;
        let (killed, limits) = calls(&flow, &cx, 1_500, 0.4).await;
        // A twentieth of all samples has to be above the new quantile.
        let lets_answer = limits[samples / 5..].iter().all(|limit| *limit >= 0.5 * truth);
        assert!(lets_answer, "seed {number}: 95 % of the runs can answer after {} calls", samples / 5);
        let followed = limits[window(0.453)..].iter().all(|limit| within(*limit, 0.25, truth));
        assert!(followed, "seed {number}: within 25 % when the window has passed");
        assert!(limits.iter().all(|limit| *limit <= 1.5 * truth), "seed {number}: it does not shoot over");
        assert!(killed <= samples / 15, "seed {number}: {killed} runs were cut on the way");

        let truth = truth / 4.0;
        let (killed, limits) = calls(&flow, &cx, 4_000, 0.1).await;
        let followed = limits[window(0.113)..].iter().all(|limit| within(*limit, 0.15, truth));
        assert!(followed, "seed {number}: within 15 % when the window has passed");
        assert!(killed <= 20, "seed {number}: {killed} runs were cut on the way");
    }
}

#[tokio::test(start_paused = true)]
async fn runs_that_it_cuts_do_not_pull_the_limit_down_even_where_it_is_the_quantile_itself() {
    for number in 0..10 {
        seed(number);
        let (work, cx) = service();
        let flow = work.adaptive_timeout(config(1, 30_000).factor(1.0).unwrap());
        let (killed, limits) = calls(&flow, &cx, 6_000, 0.1).await;
        let stays =
            limits[1_000..].iter().all(|limit| *limit >= 0.9 * Q95 * 0.1 && *limit <= 2.1 * Q95 * 0.1);
        assert!(stays, "seed {number}: between the quantile and twice the quantile");
        assert!(killed <= 300, "seed {number}: {killed} of 6,000 runs were cut, a twentieth at most");
    }
}

// === case by case ===

/// Learns from `n` runs of 100 ms; the limit is then 201 ms, for the estimate's two digits.
async fn taught<P: Primitive<In = u64, Out = u64>>(
    work: Workflow<P>,
    config: AdaptiveTimeoutConfig,
    n: u64,
    cx: &Context,
) -> Workflow<Observed<AdaptiveTimeout<P>>> {
    let flow = work.adaptive_timeout(config.min_samples(n).unwrap());
    for _ in 0..n {
        flow.run(100, cx).await.unwrap();
    }
    flow
}

fn event(recorder: &Recorder, event: &str) -> Option<f64> {
    let labels = [("primitive", "adaptive_timeout"), ("event", event)];
    recorder.metric("throughline_primitive_events_total", &labels)
}

fn outcome(recorder: &Recorder, outcome: &str) -> Option<f64> {
    let labels = [("primitive", "adaptive_timeout"), ("operation", "model"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

#[test]
fn refuses_what_is_no_bound() {
    let new = |floor, ceiling| AdaptiveTimeoutConfig::new("model", floor, ceiling).unwrap_err().to_string();
    assert_eq!(
        new(Duration::ZERO, millis(10)),
        "adaptive timeout floor is 0ns: it must be more than 0s and at most the ceiling, 10ms"
    );
    assert_eq!(
        new(millis(11), millis(10)),
        "adaptive timeout floor is 11ms: it must be more than 0s and at most the ceiling, 10ms"
    );
    assert_eq!(
        new(millis(1), Duration::from_secs(86_401)),
        "adaptive timeout ceiling is 86401s: it must be at most 24h"
    );
    let refused = |refused: std::result::Result<_, ConfigError>| refused.unwrap_err().to_string();
    assert_eq!(
        refused(config(1, 10).quantile(f64::NAN)),
        "adaptive timeout quantile is NaN: it must be from 0.5 to 0.999"
    );
    assert_eq!(
        refused(config(1, 10).factor(0.9)),
        "adaptive timeout factor is 0.9: it must be from 1 to 100"
    );
    assert_eq!(
        refused(config(1, 10).min_samples(0)),
        "adaptive timeout min_samples is 0: it must be at least 1"
    );
    assert_eq!(
        refused(config(1, 10).window(Duration::ZERO)),
        "adaptive timeout window is 0ns: it must be more than 0s and at most 24h"
    );
}

#[tokio::test(start_paused = true)]
async fn enforces_only_the_ceiling_until_it_has_samples_enough() {
    let recorder = Recorder::new();
    let flow = sleeper().adaptive_timeout(config(10, 1_000).min_samples(3).unwrap());
    let cx = recorder.context();
    flow.run(10, &cx).await.unwrap();
    flow.run(10, &cx).await.unwrap();
    assert_eq!(flow.run(999, &cx).await.unwrap(), 999);
    let (start, error) = (Instant::now(), flow.run(5_000, &cx).await.unwrap_err());
    assert_eq!(
        (error.to_string().as_str(), start.elapsed()),
        ("no answer within 1s, the ceiling", millis(1_000))
    );
    assert_eq!(event(&recorder, "would_have_timed_out"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn drops_work_at_the_learned_limit_and_says_so() {
    let recorder = Recorder::new();
    let cx = recorder.context();
    let flow = taught(sleeper(), config(10, 1_000), 40, &cx).await;
    let limit = flow.stage().stats().limit;
    assert!(limit >= millis(200) && limit <= millis(202), "{limit:?}");
    assert_eq!(flow.run(199, &cx).await.unwrap(), 199);
    let (start, error) = (Instant::now(), flow.run(300, &cx).await.unwrap_err());
    assert_eq!(error.to_string(), format!("no answer within {limit:?}, as learned"));
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Timeout, true));
    // Timers have a resolution of a millisecond.
    assert!(start.elapsed() - limit <= millis(1), "{:?}", start.elapsed());
    assert_eq!((outcome(&recorder, "success"), outcome(&recorder, "timeout")), (Some(41.0), Some(1.0)));
    let stats = flow.stage().stats();
    assert_eq!((stats.successes, stats.timeouts, stats.samples), (41, 1, 42));
    let last = recorder.spans().into_iter().rfind(|span| span.name == "adaptive_timeout model").unwrap();
    let attribute =
        |name| last.attributes.iter().find(|at| at.key.as_str() == name).map(|at| at.value.clone());
    assert_eq!(attribute("throughline.adaptive_timeout.limit_seconds"), Some(limit.as_secs_f64().into()));
    assert_eq!(attribute("throughline.adaptive_timeout.enforced_seconds"), Some(limit.as_secs_f64().into()));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn in_shadow_it_counts_what_it_would_have_cut_and_cuts_nothing_below_the_ceiling() {
    let recorder = Recorder::new();
    let cx = recorder.context();
    let flow = taught(sleeper(), config(10, 1_000).shadow(), 50, &cx).await;
    assert_eq!(flow.run(300, &cx).await.unwrap(), 300);
    assert_eq!(flow.run(2_000, &cx).await.unwrap_err().to_string(), "no answer within 1s, the ceiling");
    assert_eq!(event(&recorder, "would_have_timed_out"), Some(2.0));
    let stats = flow.stage().stats();
    assert_eq!((stats.would_have_timed_out, stats.timeouts, stats.enforced), (2, 1, millis(1_000)));
    assert!(format!("{:?}", flow.stage()).contains(" in shadow of 10ms to 1s, 52 samples, 1 timed out"));

    flow.stage().set_shadow(false);
    let enforced = flow.stage().stats().enforced;
    assert!(enforced < millis(1_000));
    assert!(flow.run(999, &cx).await.is_err());
    assert_eq!(event(&recorder, "would_have_timed_out"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn stays_between_floor_and_ceiling() {
    let cx = Context::new();
    let flow = taught(sleeper(), config(500, 1_000), 10, &cx).await;
    assert_eq!(flow.stage().stats().limit, millis(500));
    let flow = taught(sleeper(), config(10, 150), 10, &cx).await;
    assert_eq!(flow.stage().stats().limit, millis(150));
}

#[tokio::test(start_paused = true)]
async fn goes_to_the_ceiling_where_everything_hangs() {
    let cx = Context::new();
    let flow = taught(sleeper(), config(10, 10_000), 10, &cx).await;
    for _ in 0..20 {
        flow.run(60_000, &cx).await.unwrap_err();
    }
    assert_eq!(flow.stage().stats().limit, millis(10_000));
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_work_teach_nothing() {
    let cx = Context::new();
    let fails = Script::<u64>::new("fails").then(Turn::fail(Error::new(Kind::Upstream, "503")));
    let flow = fails.workflow::<u64>().adaptive_timeout(config(10, 1_000).min_samples(1).unwrap());
    assert_eq!(flow.run(1, &cx).await.unwrap_err().to_string(), "503");
    let stats = flow.stage().stats();
    assert_eq!((stats.samples, stats.inner_errors, stats.limit), (0, 1, millis(1_000)));
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_caller_goes_away_counts_where_it_had_outlasted_the_quantile() {
    let recorder = Recorder::new();
    let cx = recorder.context();
    let flow = taught(sleeper(), config(10, 1_000), 10, &cx).await;
    assert!(timeout(millis(50), flow.run(5_000, &cx)).await.is_err());
    assert_eq!(flow.stage().stats().samples, 10, "after 50 ms nothing is known");
    assert!(timeout(millis(150), flow.run(5_000, &cx)).await.is_err());
    assert_eq!(flow.stage().stats().samples, 11);
    assert_eq!(flow.stage().stats().cancelled, 2);
    assert_eq!(outcome(&recorder, "cancelled"), Some(2.0));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn the_work_learns_its_deadline() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let work = workflow_with("work", move |_: u64, cx: Context| {
        log.lock().unwrap().push(cx.time_left().unwrap());
        async move {
            sleep(millis(100)).await;
            Ok(0)
        }
    });
    let flow = taught(work, config(10, 1_000), 2, &Context::new()).await;
    flow.run(0, &Context::new()).await.unwrap();
    assert_eq!(seen.lock().unwrap()[..2], [millis(1_000); 2]);
    assert_eq!(seen.lock().unwrap()[2], flow.stage().stats().limit);
}

#[tokio::test(start_paused = true)]
async fn of_a_stream_it_bounds_and_learns_the_first_item() {
    let recorder = Recorder::new();
    let cx = recorder.context();
    let tokens = workflow_stream("tokens", |first: u64, _: Context| async move {
        let items = stream::iter([first, 5_000]).then(|pause| async move {
            sleep(millis(pause)).await;
            Ok(pause)
        });
        Ok(ItemStream::new(items))
    });
    let flow = tokens.adaptive_timeout(config(10, 1_000).min_samples(2).unwrap());
    for _ in 0..2 {
        let items: Vec<Result<u64>> = flow.run(100, &cx).await.unwrap().collect().await;
        assert_eq!(items.len(), 2, "what comes after the first item may take its time");
    }
    assert!(flow.stage().stats().limit <= millis(202));
    assert_eq!(flow.run(400, &cx).await.unwrap_err().kind(), Kind::Timeout);
    drop(flow.run(100, &cx).await.unwrap());
    let stats = flow.stage().stats();
    assert_eq!((stats.successes, stats.timeouts, stats.cancelled), (2, 1, 1));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_inside_that_ends_with_the_deadline_is_a_timeout_of_ones_own() {
    let (recorder, start) = (Recorder::new(), Instant::now());
    let waits = workflow_with("waits", |(): (), cx: Context| async move {
        cx.while_wanted(std::future::pending::<()>()).await
    });
    let error = waits.adaptive_timeout(config(100, 300)).run((), &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, millis(300)));
    assert_eq!(error.to_string(), "no answer within 300ms, the ceiling");
    assert_eq!((outcome(&recorder, "timeout"), outcome(&recorder, "inner_error")), (Some(1.0), None));
}

/// Works in a way that always goes on at once: it gives way only when tokio makes it.
async fn busy() -> Result<()> {
    for _ in 0..500_000 {
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn work_that_never_waits_for_long_is_dropped_at_its_limit() {
    let flow = workflow("busy", |(): ()| busy()).adaptive_timeout(config(100, 300));
    let time = tokio::spawn(tokio::time::advance(millis(400)));
    assert_eq!(flow.run((), &Context::new()).await.unwrap_err().kind(), Kind::Timeout);
    time.await.unwrap();
}
