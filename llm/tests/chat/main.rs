//! The chat stage against a real server on loopback: what goes out, what comes back, what goes wrong, and
//! what is seen of it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod answers;
mod failures;
mod genai;
mod requests;
mod streams;
mod telemetry;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use throughline::telemetry::Observed;
use throughline::{Context, Error, Result, Workflow};
use throughline_llm::openai::{ChatRequest, Limits};
use throughline_llm::providers::{OpenAiConfig, openai};
use throughline_llm::{Answer, Chat, ChatConfig, ChatStream, Completion, HttpClient, PriceTable, chat};

const MODEL: &str = "gpt-4o-mini";
const PLAIN: &str = r#"{"model":"auto","messages":[{"role":"user","content":"Hi"}]}"#;
const STREAMED: &str = r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;

type Ask = Workflow<Observed<Chat>>;

fn config(base_url: String) -> OpenAiConfig {
    OpenAiConfig {
        name: "main".to_owned(),
        base_url,
        api_key: None,
        stream_usage: true,
        forwards_trace: false,
        provider_name: None,
    }
}

/// Asks `model` of the server at `config.base_url`.
fn ask_with(config: OpenAiConfig, model: &str) -> Ask {
    let provider = openai(config, HttpClient::new(Duration::from_secs(10))).unwrap();
    chat(ChatConfig::new("main", model), Arc::new(provider), Arc::new(PriceTable::builtin()))
}

fn ask(base_url: String) -> Ask {
    ask_with(config(base_url), MODEL)
}

fn request(body: &str) -> ChatRequest {
    ChatRequest::parse(body.to_owned().into(), &Limits::default()).unwrap()
}

/// Fails the test, in place of hanging, where `work` does not come to an end.
async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it comes to an end")
}

async fn plain(ask: &Ask, cx: &Context) -> Result<Completion> {
    match patiently(ask.run(request(PLAIN), cx)).await? {
        Answer::Full(answer) => Ok(answer),
        other => panic!("{other:?} is not whole"),
    }
}

async fn stream_of(ask: &Ask, body: &str, cx: &Context) -> Result<ChatStream> {
    match ask.run(request(body), cx).await? {
        Answer::Stream(stream) => Ok(stream),
        other => panic!("{other:?} is no stream"),
    }
}

/// Every byte of the stream, and the failure it ended with.
async fn read(mut stream: ChatStream) -> (String, Option<Error>) {
    let mut text = Vec::new();
    while let Some(events) = patiently(stream.next()).await {
        match events {
            Ok(events) => text.extend_from_slice(&events),
            Err(error) => {
                assert!(stream.next().await.is_none(), "a failure is the last item");
                return (String::from_utf8(text).unwrap(), Some(error));
            }
        }
    }
    (String::from_utf8(text).unwrap(), None)
}
