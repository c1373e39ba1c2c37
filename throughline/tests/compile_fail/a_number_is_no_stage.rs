use throughline::workflow;

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

fn main() {
    let _ = workflow("count", count) >> 42;
}
