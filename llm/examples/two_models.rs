//! What do two models say, asked at the same time, and how does that look in a trace?
//!
//! One question goes to two models of a provider that speaks OpenAI's dialect. Both calls are in one trace, side
//! by side, which goes where `OTEL_EXPORTER_OTLP_ENDPOINT` says if `OTEL_TRACES_EXPORTER` is `otlp`:
//!
//! ```text
//! export OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 UPSTREAM_KEY=…
//! cargo run -p throughline-llm --example two_models -- https://api.openai.com/v1 'How long is a river?'
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use throughline::telemetry::Telemetry;
use throughline::{Context, Kind, ParallelConfig, parallel, workflow_with};
use throughline_llm::openai::{ChatRequest, Limits};
use throughline_llm::providers::{OpenAiConfig, openai};
use throughline_llm::{Answer, ChatConfig, HttpClient, PriceTable, chat};

const MODELS: [&str; 2] = ["gpt-4o", "gpt-4o-mini"];

/// A request with this question, which no model is named in yet. Says which trace it is in.
fn request(question: &str, cx: &Context) -> throughline::Result<ChatRequest> {
    if let Some(id) = cx.trace_id() {
        println!("trace {id}");
    }
    let message = serde_json::json!({ "role": "user", "content": question });
    let body = serde_json::json!({ "model": "any", "messages": [message] }).to_string();
    ChatRequest::parse(Bytes::from(body), &Limits::default())
        .map_err(|error| throughline::Error::new(Kind::InvalidInput, "not a question").because(error))
}

async fn ask(base_url: String, question: String) -> Result<(), Box<dyn Error>> {
    let client = HttpClient::new(Duration::from_secs(10));
    let api_key = std::env::var("UPSTREAM_KEY").ok().map(Into::into);
    let config = OpenAiConfig {
        name: "up".to_owned(),
        base_url,
        api_key,
        stream_usage: true,
        forwards_trace: false,
        provider_name: None,
    };
    let (provider, prices) = (Arc::new(openai(config, client)?), Arc::new(PriceTable::builtin()));
    let branch = |model| chat(ChatConfig::new("up", model), Arc::clone(&provider), Arc::clone(&prices));
    let both = parallel(ParallelConfig::new("both"), MODELS.map(branch).into())?;
    let prepare = workflow_with("prepare", |question: String, cx| async move { request(&question, &cx) });
    let flow = (prepare >> both).named("two_models");

    for (model, answer) in MODELS.iter().zip(flow.run(question, &Context::new()).await?) {
        let Answer::Full(answer) = answer else { return Err("a stream, which was not asked for".into()) };
        let usage = answer.usage.ok_or("no usage in the answer")?;
        println!("{model}: {} tokens read, {} written", usage.prompt_tokens, usage.completion_tokens);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(base_url), Some(question)) = (args.next(), args.next()) else {
        return Err("two arguments are needed: the address of a provider, and a question".into());
    };
    let telemetry = Telemetry::builder().without_endpoint().service_name("two_models").from_env().init();
    let outcome = ask(base_url, question).await;
    // A backend that is busy may take its time; what has not gone out by then is lost.
    telemetry.shutdown(Duration::from_secs(30)).await;
    outcome
}
