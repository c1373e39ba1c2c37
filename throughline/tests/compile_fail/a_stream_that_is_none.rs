use throughline::{Context, workflow_stream};

async fn words(text: String, _cx: Context) -> throughline::Result<Vec<String>> {
    Ok(text.split(' ').map(str::to_owned).collect())
}

fn main() {
    let _ = workflow_stream("words", words);
}
