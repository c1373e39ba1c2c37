use throughline::{ConditionalConfig, workflow};

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

async fn shout(text: String) -> throughline::Result<String> {
    Ok(text.to_uppercase())
}

fn main() {
    let long = |text: &String, _: &throughline::Context| text.len() > 80;
    let _ = ConditionalConfig::new("long", long, workflow("count", count)).otherwise(workflow("shout", shout));
}
