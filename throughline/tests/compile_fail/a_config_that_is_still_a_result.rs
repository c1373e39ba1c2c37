use std::time::Duration;
use throughline::{TimeoutConfig, workflow};

async fn shout(text: String) -> throughline::Result<String> {
    Ok(text.to_uppercase())
}

fn main() {
    let _ = workflow("shout", shout).timeout(TimeoutConfig::new("shout", Duration::from_secs(1)));
}
