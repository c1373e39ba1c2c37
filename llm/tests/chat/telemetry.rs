//! What is seen of a call: spans, their attributes, and what it cost.

use futures_util::StreamExt as _;
use opentelemetry::trace::{SpanKind, Status};
use throughline::testing::{Recorder, SpanData};
use throughline_llm::openai::{DONE, Delta, Usage, chunk, usage_chunk};

use super::upstream::{Act, Upstream};
use super::{MODEL, STREAMED, ask, ask_with, config, plain, read, request, stream_of};

const ANSWER: &str = r#"{"choices":[{"message":{"content":"Hello"}}],"usage":{"prompt_tokens":1000000,"completion_tokens":500000}}"#;
const COST: &str = "llm_cost_usd_total";
const UNPRICED: &str = "llm_unpriced_calls_total";
const RUNS: &str = "throughline_primitive_duration_seconds_count";

/// The attributes of a span, without the outcome that every span has.
fn attributes(span: &SpanData) -> Vec<String> {
    let shown = |attribute: &opentelemetry::KeyValue| format!("{}={}", attribute.key, attribute.value);
    span.attributes.iter().map(shown).filter(|shown| !shown.starts_with("throughline.outcome")).collect()
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("there is no span {name}"))
}

/// How often the stage `chat` ended like this.
fn ended(recorder: &Recorder, outcome: &str) -> Option<f64> {
    recorder.metric(RUNS, &[("primitive", "chat"), ("operation", "main/gpt-4o-mini"), ("outcome", outcome)])
}

fn counted(recorder: &Recorder, name: &str, model: &str) -> Option<f64> {
    recorder.metric(name, &[("provider", "main"), ("model", model)])
}

fn word() -> Vec<u8> {
    chunk("c", "m", 1, Delta::Content("a")).to_vec()
}

fn tokens() -> Vec<u8> {
    usage_chunk("c", "m", 1, &Usage::new(1_000_000, 500_000)).to_vec()
}

#[tokio::test]
async fn a_call_is_a_chat_span_with_its_http_attempt_inside() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let recorder = Recorder::new();
    plain(&ask(upstream.base_url.clone()), &recorder.context()).await.unwrap();

    let spans = recorder.spans();
    assert_eq!(spans.len(), 2);
    let (chat, attempt) = (named(&spans, "chat gpt-4o-mini"), named(&spans, "POST"));
    assert_eq!((&chat.span_kind, &attempt.span_kind), (&SpanKind::Client, &SpanKind::Client));
    assert_eq!(attempt.parent_span_id, chat.span_context.span_id());
    assert_eq!(attempt.span_context.trace_id(), chat.span_context.trace_id());
    assert_eq!((&chat.status, &attempt.status), (&Status::Ok, &Status::Ok));
    assert_eq!(
        attributes(chat),
        [
            "gen_ai.operation.name=chat",
            "gen_ai.provider.name=openai",
            "gen_ai.request.model=gpt-4o-mini",
            "server.address=127.0.0.1",
            &format!("server.port={}", upstream.port()),
            "gen_ai.usage.input_tokens=1000000",
            "gen_ai.usage.output_tokens=500000",
        ]
    );
    assert_eq!(
        attributes(attempt),
        [
            "http.request.method=POST",
            "server.address=127.0.0.1",
            &format!("server.port={}", upstream.port()),
            &format!("url.full={}/chat/completions", upstream.base_url),
            "http.response.status_code=200",
        ]
    );
}

#[tokio::test]
async fn the_span_of_a_streamed_call_ends_with_the_stream_and_knows_its_usage() {
    let upstream = Upstream::start(Act::stream(&[&word(), &tokens(), DONE])).await;
    let recorder = Recorder::new();
    let stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap();
    assert!(recorder.spans().iter().all(|span| span.name == "POST"), "the call goes on");
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[("primitive", "chat")]), Some(1.0));

    read(stream).await;
    let spans = recorder.spans();
    let chat = named(&spans, "chat gpt-4o-mini");
    assert_eq!(named(&spans, "POST").parent_span_id, chat.span_context.span_id());
    let attributes = attributes(chat);
    for expected in [
        "gen_ai.request.stream=true",
        "gen_ai.usage.input_tokens=1000000",
        "gen_ai.usage.output_tokens=500000",
    ] {
        assert!(
            attributes.iter().any(|attribute| attribute == expected),
            "{expected} is not in {attributes:?}"
        );
    }
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[("primitive", "chat")]), Some(0.0));
    assert_eq!(ended(&recorder, "success"), Some(1.0));
}

#[tokio::test]
async fn a_failed_call_is_an_error_on_both_spans() {
    let upstream = Upstream::start(vec![Act::json(429, "", r#"{"error":{"message":"secret"}}"#)]).await;
    let recorder = Recorder::new();
    plain(&ask(upstream.base_url.clone()), &recorder.context()).await.unwrap_err();
    let spans = recorder.spans();
    for name in ["chat gpt-4o-mini", "POST"] {
        let span = named(&spans, name);
        assert_eq!(span.status, Status::error("rate_limited"));
        assert!(attributes(span).contains(&"error.type=rate_limited".to_owned()));
    }
    assert!(attributes(named(&spans, "POST")).contains(&"http.response.status_code=429".to_owned()));
    assert!(!format!("{spans:?}").contains("secret"));
    assert_eq!(counted(&recorder, UNPRICED, MODEL), Some(0.0), "there was no answer to price");
    assert_eq!(ended(&recorder, "error"), Some(1.0));
}

#[tokio::test]
async fn cost_is_counted_once_per_answer_whole_or_streamed() {
    let recorder = Recorder::new();
    let whole = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    plain(&ask(whole.base_url.clone()), &recorder.context()).await.unwrap();
    assert_eq!(counted(&recorder, COST, MODEL), Some(0.45));

    let streamed = Upstream::start(Act::stream(&[&word(), &tokens(), DONE])).await;
    let stream = stream_of(&ask(streamed.base_url.clone()), STREAMED, &recorder.context()).await.unwrap();
    assert_eq!(counted(&recorder, COST, MODEL), Some(0.45), "the stream is not over");
    read(stream).await;
    assert_eq!(counted(&recorder, COST, MODEL), Some(0.90));
    assert_eq!(counted(&recorder, UNPRICED, MODEL), Some(0.0));
}

#[tokio::test]
async fn an_answer_of_unknown_cost_is_unpriced_and_not_free() {
    let recorder = Recorder::new();
    let priced = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    plain(&ask_with(config(priced.base_url.clone()), "never-heard-of"), &recorder.context()).await.unwrap();
    assert_eq!(counted(&recorder, UNPRICED, "never-heard-of"), Some(1.0));
    assert_eq!(counted(&recorder, COST, "never-heard-of"), Some(0.0));

    let silent = Upstream::start(vec![Act::json(200, "", r#"{"choices":[{}]}"#)]).await;
    plain(&ask(silent.base_url.clone()), &recorder.context()).await.unwrap();
    assert_eq!(counted(&recorder, UNPRICED, MODEL), Some(1.0));
    assert_eq!(counted(&recorder, COST, MODEL), Some(0.0));
}

#[tokio::test]
async fn a_stream_that_is_dropped_half_way_counts_as_cancelled_and_keeps_what_it_cost() {
    let upstream = Upstream::start(vec![Act::stream_head(), Act::chunk([word(), tokens()].concat())]).await;
    let recorder = Recorder::new();
    let mut stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(ended(&recorder, "cancelled"), Some(1.0));
    assert_eq!(counted(&recorder, COST, MODEL), Some(0.45), "the provider had told the usage");
    let spans = recorder.spans();
    assert_eq!(named(&spans, "chat gpt-4o-mini").status, Status::error("cancelled"));
}

#[tokio::test]
async fn a_reader_that_leaves_with_the_last_event_has_not_cancelled() {
    let upstream = Upstream::start(vec![Act::stream_head(), Act::chunk([&word(), DONE].concat())]).await;
    let recorder = Recorder::new();
    let mut stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!((ended(&recorder, "success"), ended(&recorder, "cancelled")), (Some(1.0), None));
}

#[tokio::test]
async fn a_stream_that_fails_counts_as_an_error() {
    let upstream = Upstream::start(Act::stream(&[&word()])).await;
    let recorder = Recorder::new();
    read(stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap()).await;
    assert_eq!(ended(&recorder, "error"), Some(1.0));
    assert_eq!(counted(&recorder, UNPRICED, MODEL), Some(1.0));
    let spans = recorder.spans();
    assert_eq!(named(&spans, "chat gpt-4o-mini").status, Status::error("upstream"));
}

#[tokio::test]
async fn the_time_of_a_call_is_the_providers_and_not_ours() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let (recorder, ask) = (Recorder::new(), ask(upstream.base_url.clone()));
    let cx = recorder.context();
    ask.run(request(super::PLAIN), &cx).await.unwrap();
    let chat =
        recorder.metric("throughline_primitive_duration_seconds_sum", &[("primitive", "chat")]).unwrap();
    assert!((cx.upstream_time().as_secs_f64() - chat).abs() < 1e-6);
}

#[tokio::test]
async fn every_series_exists_before_the_first_call() {
    let recorder = Recorder::new();
    ask("http://127.0.0.1:1/v1".to_owned()).bind(recorder.sink());
    for name in [COST, UNPRICED] {
        assert_eq!(counted(&recorder, name, MODEL), Some(0.0), "{name}");
    }
    for primitive in ["chat", "http"] {
        let in_flight = recorder.metric("throughline_primitive_in_flight", &[("primitive", primitive)]);
        assert_eq!(in_flight, Some(0.0), "{primitive}");
    }
}
