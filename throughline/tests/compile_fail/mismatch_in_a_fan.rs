use throughline::workflow;

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

async fn double(n: u64) -> throughline::Result<u64> {
    Ok(n * 2)
}

fn main() {
    let _ = workflow("count", count) | workflow("double", double);
}
