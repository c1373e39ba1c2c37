//! How many requests at once can the model server take?
//!
//! Nobody has told: it batches twelve at a time and lets the others wait. Two hundred callers keep asking. Without
//! a limit each answer takes many times as long as it should; with one, answers come nearly as fast as from
//! an idle server, of which hardly less gets done, and the others know at once that they have to come back.
//!
//! ```text
//! cargo run -p throughline --example shed
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use throughline::{Boxed, Context, Result, ShedConfig, Workflow, workflow};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

const UNLOADED: Duration = Duration::from_millis(200);

fn model_server() -> Workflow<Boxed<(), ()>> {
    let places = Arc::new(Semaphore::new(12));
    workflow("model", move |(): ()| {
        let places = Arc::clone(&places);
        async move {
            let _place = places.acquire().await;
            sleep(UNLOADED).await;
            Ok(())
        }
    })
    .boxed()
}

/// Answers in a second, and the mean time that one took, once things have settled.
async fn load(flow: Workflow<Boxed<(), ()>>) -> (f64, Duration) {
    let (answers, millis) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begin = Instant::now() + Duration::from_secs(20);
    let end = begin + Duration::from_secs(40);
    let callers = (0..200_u64).map(|caller| {
        let (flow, answers, millis) = (flow.clone(), Arc::clone(&answers), Arc::clone(&millis));
        tokio::spawn(async move {
            let cx = Context::new();
            while Instant::now() < end {
                let start = Instant::now();
                match flow.run((), &cx).await {
                    Ok(()) if start >= begin => {
                        answers.fetch_add(1, Ordering::Relaxed);
                        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                        millis.fetch_add(took, Ordering::Relaxed);
                    }
                    Ok(()) => {}
                    Err(_) => sleep(Duration::from_millis(500 + caller)).await,
                }
            }
        })
    });
    join_all(callers.collect::<Vec<_>>()).await;
    let answers = answers.load(Ordering::Relaxed);
    (answers as f64 / 40.0, Duration::from_millis(millis.load(Ordering::Relaxed) / answers.max(1)))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (all, slow) = load(model_server()).await;
    println!("without a limit: {all:.0} answers a second, each after {slow:?}");
    assert!(slow > 10 * UNLOADED);

    let shed = model_server().shed(ShedConfig::new("model"));
    let (most, fast) = load(shed.clone().boxed()).await;
    println!("with one: {most:.0} answers a second, each after {fast:?}; {:?}", shed.stage());
    assert!(fast < 2 * UNLOADED, "{fast:?}");
    assert!(most > 0.8 * all, "{most} of {all}");
    Ok(())
}
