use throughline::workflow;

struct Token(u64);

async fn value(token: Token) -> throughline::Result<u64> {
    Ok(token.0)
}

fn main() {
    let _ = workflow("a", value) | workflow("b", value);
}
