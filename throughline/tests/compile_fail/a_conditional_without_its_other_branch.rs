use throughline::{ConditionalConfig, conditional, workflow};

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

fn main() {
    let long = |text: &String, _: &throughline::Context| text.len() > 80;
    let _ = conditional(ConditionalConfig::new("long", long, workflow("count", count)));
}
