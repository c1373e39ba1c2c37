use throughline::workflow;

async fn parse(text: String) -> throughline::Result<u64> {
    let n: u64 = text.parse()?;
    Ok(n)
}

fn main() {
    let _ = workflow("parse", parse);
}
