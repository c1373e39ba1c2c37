use throughline::{Context, workflow};

async fn count(text: String) -> throughline::Result<usize> {
    Ok(text.len())
}

async fn shout(text: String) -> throughline::Result<String> {
    Ok(text.to_uppercase())
}

fn main() {
    let flow = workflow("count", count) >> workflow("shout", shout);
    let _ = flow.run("text".to_owned(), &Context::new());
}
