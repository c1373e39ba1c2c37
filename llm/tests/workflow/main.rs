//! Router, cache and timeout around chat with the simulated provider, under a paused clock.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod audit;
mod caching;
mod forms;
mod keys;
mod pricing;
mod semantic;
mod simulated;
mod together;

use std::sync::Arc;

use futures_util::StreamExt as _;
use throughline::telemetry::Observed;
use throughline::{Context, Result, Workflow};
use throughline_llm::openai::{ChatRequest, Limits};
use throughline_llm::simulated::SimulatedConfig;
use throughline_llm::{Answer, Chat, ChatConfig, ChatStream, Completion, PriceTable, chat, providers};

const PLAIN: &str = r#"{"model":"auto","messages":[{"role":"user","content":"Hi"}]}"#;
const STREAMED: &str = r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;

/// Asks `model` of a simulated provider.
fn ask(model: &str, config: SimulatedConfig) -> Workflow<Observed<Chat>> {
    let provider = Arc::new(providers::simulated(config));
    chat(ChatConfig::new("sim", model), provider, Arc::new(PriceTable::builtin()))
}

/// A simulation with some settings changed.
fn simulation(change: impl FnOnce(&mut SimulatedConfig)) -> SimulatedConfig {
    let mut config = SimulatedConfig::default();
    change(&mut config);
    config
}

fn request(body: &str) -> ChatRequest {
    ChatRequest::parse(body.to_owned().into(), &Limits::default()).unwrap()
}

fn whole(answer: Result<Answer>) -> Completion {
    match answer.unwrap() {
        Answer::Full(answer) => answer,
        other => panic!("{other:?} is not whole"),
    }
}

fn streamed(answer: Result<Answer>) -> ChatStream {
    match answer.unwrap() {
        Answer::Stream(stream) => stream,
        other => panic!("{other:?} is no stream"),
    }
}

/// Every byte of a stream that does not fail.
async fn drain(stream: ChatStream) -> String {
    let events: Vec<_> = stream.map(Result::unwrap).collect().await;
    String::from_utf8(events.concat()).unwrap()
}

/// What the last cache did for the request of `cx`.
fn cached(cx: &Context) -> throughline::CacheOutcome {
    *cx.state().get().expect("a cache was asked")
}
