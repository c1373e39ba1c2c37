//! How do I cut the slowest answers?
//!
//! A model answers in about a second, and one answer in fifty takes ten times as long for no reason of the
//! question's own. A hedge learns how long answers take, and asks a second time when one takes longer than
//! 95 % of them. The table shows what that does to the slow answers and what it costs. The clock is paused,
//! so the hour takes no time.
//!
//! ```text
//! cargo run -p throughline --example hedge
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use throughline::{Context, HedgeConfig, HedgeDelay, Primitive, Workflow, workflow};
use tokio::time::{Instant, sleep};

const QUESTIONS: usize = 2_000;

/// Answers in 0.8 to 1.2 s, and two times in a hundred in ten times that.
fn model() -> Workflow<impl Primitive<In = (), Out = ()>> {
    let random = Mutex::new(fastrand::Rng::with_seed(1));
    workflow("model", move |(): ()| {
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        let usual = 0.8 + 0.4 * random.f64();
        let takes = if random.f64() < 0.02 { 10.0 * usual } else { usual };
        drop(random);
        async move {
            sleep(Duration::from_secs_f64(takes)).await;
            Ok(())
        }
    })
}

/// How long the answers take, in order.
async fn ask<P: Primitive<In = (), Out = ()>>(flow: &Workflow<P>) -> throughline::Result<Vec<Duration>> {
    let cx = Context::new();
    let mut took = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let start = Instant::now();
        flow.run((), &cx).await?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let without = ask(&model()).await?;

    let delay = HedgeDelay::percentile(0.95, Duration::from_millis(200), Duration::from_secs(5))?
        .window(Duration::from_secs(300))?;
    let hedged = model().hedge(HedgeConfig::for_idempotent_work("model", delay));
    let with = ask(&hedged).await?;
    let stats = hedged.stage().stats();

    let at = |took: &[Duration], thousandth: usize| took[took.len() * thousandth / 1_000].as_secs_f64();
    println!("                 p50      p99    p99.9");
    for (name, took) in [("without a hedge", &without), ("with a hedge", &with)] {
        println!("{name:<15} {:>4.1} s {:>6.1} s {:>6.1} s", at(took, 500), at(took, 990), at(took, 999));
    }
    let extra = stats.extra_attempts as f64 / QUESTIONS as f64;
    println!("{:.1} % more calls; a hedge waits {:.2} s", 100.0 * extra, stats.delay.as_secs_f64());
    println!("dropped attempts had run for {:.1} s", stats.wasted.as_secs_f64());

    assert!(at(&without, 990) > 8.0);
    assert!(at(&with, 990) < 2.5, "the slow ones are asked again");
    assert!((at(&with, 500) - at(&without, 500)).abs() < 0.05, "the others do not notice");
    assert!(extra < 0.1, "for less than a tenth more calls");
    Ok(())
}
