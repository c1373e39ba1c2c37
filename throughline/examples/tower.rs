//! How do I use this with tower?
//!
//! ```text
//! cargo run -p throughline --example tower --features tower
//! ```

use std::time::Duration;

use throughline::{Context, Error, TimeoutConfig, workflow, workflow_of_service};
use tower::limit::ConcurrencyLimit;
use tower::timeout::Timeout;
use tower::{ServiceExt, service_fn};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // A tower service with its middleware, as a part of a workflow.
    let lookup = service_fn(|city: String| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok::<_, Error>(format!("21 degrees in {city}"))
    });
    let weather = workflow_of_service("weather", ConcurrencyLimit::new(lookup, 8));
    let trim = workflow("trim", |city: String| async move { Ok(city.trim().to_owned()) });
    let flow = trim >> weather.timeout(TimeoutConfig::new("weather", Duration::from_secs(2))?);
    let answer = flow.clone().run(" Lisbon ".to_owned(), &Context::new()).await?;

    // The workflow as a tower service, in a stack of tower's. Each request has its context.
    let service = flow.into_service_with(|_city| Context::builder().workflow_id("weather").build());
    let stack = Timeout::new(service, Duration::from_secs(5));
    assert_eq!(stack.oneshot("Lisbon".to_owned()).await?, answer);

    #[expect(clippy::print_stdout, reason = "an example shows what happens")]
    {
        println!("{answer}");
    }
    Ok(())
}
