use throughline::{Context, workflow};

struct Token(u64);

async fn value(token: Token) -> throughline::Result<u64> {
    Ok(token.0)
}

fn main() {
    let flow = workflow("a", value) | workflow("b", value);
    let _ = flow.run(Token(1), &Context::new());
}
