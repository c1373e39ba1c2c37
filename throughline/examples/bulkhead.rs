//! How do I keep one slow dependency from taking all the workers?
//!
//! A service with 20 workers answers from a fast index and, for one request in five, from a report engine that
//! has become very slow. Soon every worker waits for a report and nobody asks the index any more. A bulkhead
//! gives the reports four places and a short line, so that the rest goes on.
//!
//! ```text
//! cargo run -p throughline --example bulkhead
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use throughline::{Boxed, BulkheadConfig, Context, Kind, Result, Workflow, workflow};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

fn dependency(name: &'static str, takes: Duration) -> Workflow<Boxed<(), ()>> {
    workflow(name, move |(): ()| async move {
        sleep(takes).await;
        Ok(())
    })
    .boxed()
}

/// How many of ten seconds' requests were answered from the index within a second.
async fn fast_answers(reports: Workflow<Boxed<(), ()>>) -> usize {
    let workers = Arc::new(Semaphore::new(20));
    let index = dependency("index", Duration::from_millis(50));
    let requests = (0..1_000_u64).map(|n| {
        let (workers, index, reports) = (Arc::clone(&workers), index.clone(), reports.clone());
        tokio::spawn(async move {
            sleep(Duration::from_millis(10 * n)).await;
            let (came, cx) = (Instant::now(), Context::new());
            let Ok(_worker) = workers.acquire().await else { return false };
            if n % 5 == 0 {
                if let Err(error) = reports.run((), &cx).await {
                    assert_eq!(error.kind(), Kind::Rejected, "told at once, not after half a minute");
                }
                return false;
            }
            index.run((), &cx).await.is_ok() && came.elapsed() < Duration::from_secs(1)
        })
    });
    let answers = join_all(requests.collect::<Vec<_>>()).await;
    answers.into_iter().filter(|fast| matches!(fast, Ok(true))).count()
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reports = || dependency("reports", Duration::from_secs(30));
    let without = fast_answers(reports()).await;

    let config = BulkheadConfig::new("reports", 4)?.queue(4).max_wait(Duration::from_millis(500))?;
    let bounded = reports().bulkhead(config);
    let with = fast_answers(bounded.clone().boxed()).await;

    println!("of 800 index requests {without} were fast without a bulkhead, and {with} with one");
    println!("{:?}", bounded.stage().stats());
    assert!(without < 200);
    assert_eq!(with, 800);
    assert_eq!(bounded.stage().stats().most_in_use, 4);
    Ok(())
}
