use throughline::workflow;

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

async fn double(n: usize) -> throughline::Result<usize> {
    Ok(n * 2)
}

fn main() {
    let _ = workflow("count", count) >> double;
}
