use throughline::{RetryConfig, workflow};

struct Question(String);

async fn ask(question: Question) -> throughline::Result<String> {
    Ok(question.0)
}

fn main() {
    let _ = workflow("ask", ask).retry(RetryConfig::new("ask"));
}
