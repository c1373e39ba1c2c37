use throughline::workflow;

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

async fn shout(text: String) -> throughline::Result<String> {
    Ok(text.to_uppercase())
}

fn main() {
    let _ = (workflow("count", count) | workflow("shout", shout)).quorum("either", 1);
}
