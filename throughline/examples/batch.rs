//! How do I run 100 prompts, 8 at a time?
//!
//! `each` runs a workflow once for every input of a list and keeps the order. A bound says how many run at
//! once, and `settle` keeps what worked where some prompts fail. What is wrapped around the workflow counts
//! for each prompt: here a timeout.
//!
//! ```text
//! cargo run -p throughline --example batch
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::time::Duration;

use throughline::{Context, Kind, ParallelConfig, TimeoutConfig, workflow};
use tokio::time::{Instant, sleep};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = workflow("model", |prompt: String| async move {
        // Some prompts are too hard.
        let seconds = if prompt.ends_with("00") || prompt.ends_with('5') { 30 } else { 1 };
        sleep(Duration::from_secs(seconds)).await;
        Ok(format!("answer to {prompt}"))
    });
    let one = model.timeout(TimeoutConfig::new("model", Duration::from_secs(5))?);
    let batch = one.each(ParallelConfig::new("batch").max_concurrent(8)?.settle());

    let prompts: Vec<String> = (0..100).map(|n| format!("prompt {n:02}")).collect();
    let start = Instant::now();
    let results = batch.run(prompts, &Context::new()).await?;

    let answered = results.iter().filter(|result| result.is_ok()).count();
    println!("{answered} of {} prompts in {:.0} s", results.len(), start.elapsed().as_secs_f64());
    for (n, result) in results.iter().enumerate() {
        if let Err(error) = result {
            println!("prompt {n:02}: {error}");
        }
    }

    assert_eq!(results[42].as_ref().map(String::as_str).ok(), Some("answer to prompt 42"));
    assert_eq!(results[15].as_ref().err().map(throughline::Error::kind), Some(Kind::Timeout));
    assert_eq!(answered, 89);
    assert!(start.elapsed() < Duration::from_secs(25), "one after the other it would be {} s", 89 + 11 * 5);
    Ok(())
}
