//! How do I cap what a retry storm costs?
//!
//! A target answers a hundred requests a second, is down from the 20th to the 40th second, and works again.
//! The table shows how many calls reach it for each request, with retries that nothing limits and with
//! retries that a budget pays for. The clock is paused, so the minute takes no time.
//!
//! ```text
//! cargo run -p throughline --example retry_storm
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use throughline::{Budget, Context, Error, Kind, RetryConfig, workflow};
use tokio::time::{Instant, sleep};

const PER_SECOND: u32 = 100;
const SECONDS: u32 = 60;
const DOWN: std::ops::Range<u32> = 20..40;

/// Calls that reach the target: before it is down, while it is, and after.
type Calls = [u32; 3];

async fn calls(config: RetryConfig) -> Calls {
    let start = Instant::now();
    let reached: Arc<[AtomicU32; 3]> = Arc::default();
    let seen = Arc::clone(&reached);
    let target = workflow("target", move |(): ()| {
        let now = u32::try_from(start.elapsed().as_secs()).unwrap_or(u32::MAX);
        let phase = usize::from(now >= DOWN.start) + usize::from(now >= DOWN.end);
        seen[phase].fetch_add(1, Ordering::Relaxed);
        async move { if DOWN.contains(&now) { Err(Error::new(Kind::Upstream, "503")) } else { Ok(()) } }
    });

    let (flow, cx) = (target.retry(config), Context::new());
    let requests = (0..PER_SECOND * SECONDS).map(|n| {
        let (flow, cx) = (flow.clone(), cx.clone());
        async move {
            sleep(Duration::from_secs(n.into()) / PER_SECOND).await;
            // What a request that fails does is not the question here.
            drop(flow.run((), &cx).await);
        }
    });
    join_all(requests).await;
    [0, 1, 2].map(|phase| reached[phase].load(Ordering::Relaxed))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let budget = Budget::default();
    let without = calls(RetryConfig::new("target").max_attempts(4)?).await;
    let with = calls(RetryConfig::new("target").max_attempts(4)?.budget(&budget)).await;

    let requests = [20, 20, 20].map(|seconds| seconds * PER_SECOND);
    println!("calls per request   healthy   down   healthy again");
    for (name, calls) in [("without a budget", without), ("with a budget", with)] {
        let [before, down, after] = [0, 1, 2].map(|at| f64::from(calls[at]) / f64::from(requests[at]));
        println!("{name:<17} {before:>9.2} {down:>6.2} {after:>15.2}");
    }
    println!("\n{budget:?}");

    assert!(without[1] > requests[1] * 7 / 2, "almost four calls for each request");
    // A fifth of the 1000 successes of the window before, and the floor of three a second.
    let (earned, floor) = (1_000 / 5 + 20, 3 * (20 + 10));
    assert!(with[1] <= requests[1] + earned + floor, "{} calls", with[1]);
    Ok(())
}
