//! How does it begin? A workflow of five primitives, composed and observed, in less than 20 lines.
//!
//! The README and the front page of the documentation show these lines; `tests/first.rs` compares them.
//!
//! ```text
//! cargo run -p throughline --example first --features endpoint
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::time::Duration;
use throughline::telemetry::{Telemetry, Traces};
use throughline::{CacheConfig, FallbackConfig, JsonCaching, Memory, RetryConfig, TimeoutConfig, workflow};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = Telemetry::builder().traces(Traces::Console).init(); // metrics on 127.0.0.1:9464
    let small = workflow("small", |q: String| async move { Ok(format!("small model: {q}")) });
    let key = JsonCaching::keyed(|q: &String, _, key| Some(key.text(q)));
    let large = workflow("large", |q: String| async move { Ok(format!("large model: {q}")) })
        .timeout(TimeoutConfig::new("attempt", Duration::from_secs(20))?)
        .retry(RetryConfig::new("large").max_attempts(3)?)
        .cache(CacheConfig::new("answers", Duration::from_secs(600))?, key, Memory::new(1 << 20)?)
        .fallback(FallbackConfig::new("answer").then("small", small))?;
    let ask = (workflow("trim", |q: String| async move { Ok(q.trim().to_owned()) }) >> large).named("ask");
    println!("{}", ask.run(" why? ".to_owned(), &throughline::Context::new()).await?);
    println!("{}", telemetry.sink().render());
    Ok(())
}
