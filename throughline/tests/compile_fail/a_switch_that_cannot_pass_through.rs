use throughline::{SwitchConfig, workflow};

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

fn main() {
    let config = SwitchConfig::new("kind").on(|text: &String, _| text.len());
    let _ = config.case(1_usize, workflow("count", count)).pass_through();
}
