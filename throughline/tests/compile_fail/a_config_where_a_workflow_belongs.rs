use throughline::{RetryConfig, workflow};

async fn shout(text: String) -> throughline::Result<String> {
    Ok(text.to_uppercase())
}

fn main() {
    let _ = workflow("shout", shout) >> RetryConfig::new("shout");
}
