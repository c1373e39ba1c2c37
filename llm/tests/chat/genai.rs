//! The names of the GenAI conventions: metrics by the switch, attributes, content.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use throughline::telemetry::{GenAiNames, LABELS, LabelSource, Semconv, Telemetry};
use throughline::testing::{Recorder, SpanData};
use throughline_llm::catalogue;
use throughline_llm::genai::served;
use throughline_llm::openai::{DONE, Delta, Usage, chunk, usage_chunk};
use throughline_llm::providers::OpenAiConfig;

use super::upstream::{Act, Upstream};
use super::{STREAMED, ask, ask_with, config, plain, read, request, stream_of};

const ANSWER: &str = r#"{"id":"c-9","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":"Hello ann@example.com"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":100,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":64,"cache_write_tokens":24},"completion_tokens_details":{"reasoning_tokens":12}}}"#;
const MODEL: (&str, &str) = ("gen_ai_request_model", "gpt-4o-mini");

fn following(semconv: Semconv) -> Recorder {
    Recorder::of(Telemetry::builder().semconv(semconv))
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == key)
        .map(|attribute| attribute.value.to_string())
}

fn chat_span(recorder: &Recorder) -> SpanData {
    recorder.spans().into_iter().find(|span| span.name.starts_with("chat ")).expect("a call has a span")
}

async fn one_call(recorder: &Recorder, answer: &str) {
    let upstream = Upstream::start(vec![Act::json(200, "", answer)]).await;
    plain(&ask(upstream.base_url.clone()), &recorder.context()).await.unwrap();
}

/// The names of the `gen_ai_client` families on the page.
fn client_families(recorder: &Recorder) -> BTreeSet<String> {
    let page = recorder.sink().render();
    let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE gen_ai_client_"));
    names.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

const OLD: [&str; 4] = [
    "operation_duration_seconds",
    "operation_time_per_output_chunk_seconds",
    "operation_time_to_first_chunk_seconds",
    "token_usage",
];
const NEW: [&str; 8] = [
    "inference_duration_seconds",
    "inference_time_per_output_chunk_seconds",
    "inference_time_to_first_chunk_seconds",
    "inference_usage_cache_read_input_tokens",
    "inference_usage_cache_write_input_tokens",
    "inference_usage_input_tokens",
    "inference_usage_output_tokens",
    "inference_usage_reasoning_output_tokens",
];

#[tokio::test]
async fn the_names_are_those_that_the_instance_follows() {
    let old: BTreeSet<_> = OLD.iter().map(|name| (*name).to_owned()).collect();
    let new: BTreeSet<_> = NEW.iter().map(|name| (*name).to_owned()).collect();
    let both = old.union(&new).cloned().collect();
    for (names, expected) in
        [(GenAiNames::V1_41, &old), (GenAiNames::Latest, &new), (GenAiNames::Both, &both)]
    {
        let recorder = following(Semconv::default().named(names));
        one_call(&recorder, ANSWER).await;
        assert_eq!(client_families(&recorder), *expected, "{names:?}");
    }
}

#[tokio::test]
async fn one_workflow_reports_to_each_instance_by_the_names_of_that_one() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let ask = ask(upstream.base_url.clone());
    let (old, new) = (Recorder::new(), following(Semconv::default().named(GenAiNames::Latest)));
    plain(&ask, &old.context()).await.unwrap();
    plain(&ask, &new.context()).await.unwrap();
    assert_eq!((client_families(&old).len(), client_families(&new).len()), (OLD.len(), NEW.len()));
}

#[tokio::test]
async fn tokens_are_counted_by_type_in_both_namings() {
    let recorder = following(Semconv::default().named(GenAiNames::Both));
    one_call(&recorder, ANSWER).await;
    let usage = |kind| {
        let labels = [
            ("gen_ai_token_type", kind),
            MODEL,
            ("gen_ai_provider_name", "openai"),
            ("gen_ai_operation_name", "chat"),
        ];
        recorder.metric("gen_ai_client_token_usage_sum", &labels)
    };
    assert_eq!((usage("input"), usage("output")), (Some(100.0), Some(20.0)));
    let counted = |what: &str| {
        recorder.metric(
            &format!("gen_ai_client_inference_usage_{what}_tokens_total"),
            &[MODEL, ("gen_ai_token_modality", "unknown")],
        )
    };
    assert_eq!((counted("input"), counted("output")), (Some(100.0), Some(20.0)));
    assert_eq!((counted("cache_read_input"), counted("reasoning_output")), (Some(64.0), Some(12.0)));
    assert_eq!(counted("cache_write_input"), Some(24.0));
    for family in ["operation", "inference"] {
        let name = format!("gen_ai_client_{family}_duration_seconds_count");
        assert_eq!(recorder.metric(&name, &[("error_type", "")]), Some(1.0));
    }
}

#[tokio::test]
async fn tokens_put_into_a_cache_have_the_attribute_of_the_naming_also_in_a_stream() {
    let usage = r#"data: {"choices":[],"usage":{"input_tokens":12,"output_tokens":2,"cache_read_input_tokens":64,"cache_creation_input_tokens":24}}"#;
    let events = format!("{usage}\n\n");
    for (names, expected) in [
        (GenAiNames::V1_41, [Some("24"), None]),
        (GenAiNames::Latest, [None, Some("24")]),
        (GenAiNames::Both, [Some("24"), Some("24")]),
    ] {
        let recorder = following(Semconv::default().named(names));
        let told = |recorder: &Recorder| {
            let span = chat_span(recorder);
            ["cache_creation", "cache_write"]
                .map(|what| attribute(&span, &format!("gen_ai.usage.{what}.input_tokens")))
        };
        one_call(&recorder, ANSWER).await;
        assert_eq!(told(&recorder).each_ref().map(Option::as_deref), expected, "{names:?}");
        let recorder = following(Semconv::default().named(names));
        let word = chunk("c-1", "m-2", 1, Delta::Content("a"));
        let upstream = Upstream::start(Act::stream(&[&word, events.as_bytes(), DONE])).await;
        read(stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap()).await;
        assert_eq!(told(&recorder).each_ref().map(Option::as_deref), expected, "{names:?}, streamed");
        let input = attribute(&chat_span(&recorder), "gen_ai.usage.input_tokens");
        assert_eq!(input.as_deref(), Some("100"), "Anthropic's cache counts come on top");
    }
}

#[tokio::test]
async fn unknown_usage_is_not_zero_tokens() {
    for usage in ["null", r#"{"prompt_tokens":10}"#, r#"{"input_tokens":10,"cache_read_input_tokens":5}"#] {
        let unknown = |recorder: &Recorder| {
            let tokens = recorder.metric("gen_ai_client_token_usage_count", &[]);
            assert_eq!(tokens, Some(0.0), "nothing was recorded of {usage}");
            assert_eq!(recorder.metric("llm_unpriced_calls_total", &[]), Some(1.0), "{usage}");
            assert_eq!(recorder.metric("llm_cost_usd_total", &[]), Some(0.0), "{usage}");
            assert_eq!(attribute(&chat_span(recorder), "gen_ai.usage.input_tokens"), None, "{usage}");
        };
        let recorder = Recorder::new();
        one_call(&recorder, &format!(r#"{{"choices":[{{}}],"usage":{usage}}}"#)).await;
        unknown(&recorder);
        let recorder = Recorder::new();
        let word = chunk("c-1", "m-2", 1, Delta::Content("a"));
        let last = format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n");
        let upstream = Upstream::start(Act::stream(&[&word, last.as_bytes(), DONE])).await;
        read(stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap()).await;
        unknown(&recorder);
    }
}

#[tokio::test]
async fn a_count_from_the_middle_of_a_stream_is_not_one_of_its_end() {
    let says = |usage: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}],\"usage\":{usage}}}\n\n")
    };
    let counted = says(r#"{"prompt_tokens":10,"completion_tokens":1}"#);
    for (last, unpriced) in [(says("null"), 1.0), (says(r#"{"completion_tokens":2}"#), 0.0)] {
        let recorder = Recorder::new();
        let upstream = Upstream::start(Act::stream(&[counted.as_bytes(), last.as_bytes(), DONE])).await;
        read(stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap()).await;
        assert_eq!(recorder.metric("llm_unpriced_calls_total", &[]), Some(unpriced), "{last}");
    }
}

#[tokio::test]
async fn what_is_kept_for_an_hour_is_among_what_is_put_into_the_cache() {
    let recorder = following(Semconv::default().named(GenAiNames::Both));
    let usage = r#"{"input_tokens":12,"output_tokens":2,"cache_creation_input_tokens":24,
        "cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":20}}"#;
    one_call(&recorder, &format!(r#"{{"choices":[{{}}],"usage":{usage}}}"#)).await;
    let written = recorder.metric("gen_ai_client_inference_usage_cache_write_input_tokens_total", &[MODEL]);
    assert_eq!(written, Some(24.0));
    let told = attribute(&chat_span(&recorder), "gen_ai.usage.cache_creation.input_tokens");
    assert_eq!(told.as_deref(), Some("24"));
}

#[tokio::test]
async fn a_failure_is_told_by_its_kind() {
    let upstream = Upstream::start(vec![Act::json(429, "", "{}")]).await;
    let recorder = following(Semconv::default().named(GenAiNames::Both));
    plain(&ask(upstream.base_url.clone()), &recorder.context()).await.unwrap_err();
    for family in ["operation", "inference"] {
        let name = format!("gen_ai_client_{family}_duration_seconds_count");
        assert_eq!(recorder.metric(&name, &[("error_type", "rate_limited"), MODEL]), Some(1.0), "{family}");
        assert_eq!(recorder.metric(&name, &[("error_type", "")]), Some(0.0), "{family}");
    }
    let dropped = ask("http://127.0.0.1:1/v1".to_owned());
    let cx = recorder.context();
    drop(tokio::time::timeout(Duration::ZERO, dropped.run(request(super::PLAIN), &cx)).await);
    let cancelled = [("error_type", "cancelled")];
    let upstream = [("error_type", "upstream")];
    let count = |labels: &[_]| {
        recorder.metric("gen_ai_client_operation_duration_seconds_count", labels).unwrap_or(0.0)
    };
    assert_eq!(count(&cancelled) + count(&upstream), 1.0, "dropped, or refused at once");
}

#[tokio::test]
async fn a_stream_tells_when_its_chunks_came() {
    let word = || chunk("c-1", "m-2", 1, Delta::Content("a")).to_vec();
    let stop = chunk("c-1", "m-2", 1, Delta::Stop).to_vec();
    let tokens = usage_chunk("c-1", "m-2", 1, &Usage::new(7, 2)).to_vec();
    let upstream = Upstream::start(Act::stream(&[&word(), &word(), &stop, &tokens, DONE])).await;
    let recorder = Recorder::new();
    read(stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap()).await;
    let count = |name: &str| {
        recorder.metric(&format!("gen_ai_client_operation_{name}_seconds_count"), &[MODEL]).unwrap()
    };
    assert_eq!(count("time_to_first_chunk"), 1.0);
    assert!(count("time_per_output_chunk") >= 1.0, "what arrives together is one chunk");
    let span = chat_span(&recorder);
    assert!(attribute(&span, "gen_ai.response.time_to_first_chunk").is_some());
    assert_eq!(attribute(&span, "gen_ai.response.id").as_deref(), Some("c-1"));
    assert_eq!(attribute(&span, "gen_ai.response.model").as_deref(), Some("m-2"));
    assert_eq!(attribute(&span, "gen_ai.response.finish_reasons").as_deref(), Some("[\"stop\"]"));
    assert_eq!(attribute(&span, "gen_ai.usage.output_tokens").as_deref(), Some("2"));
}

#[tokio::test]
async fn a_stream_that_broke_off_finished_with_an_error() {
    let upstream = Upstream::start(Act::stream(&[&chunk("c-1", "m-2", 1, Delta::Content("a"))])).await;
    let recorder = Recorder::new();
    read(stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap()).await;
    let span = chat_span(&recorder);
    assert_eq!(attribute(&span, "gen_ai.response.finish_reasons").as_deref(), Some("[\"error\"]"));
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("upstream"));
    let failed = [("error_type", "upstream")];
    assert_eq!(recorder.metric("gen_ai_client_operation_duration_seconds_count", &failed), Some(1.0));
}

#[tokio::test]
async fn the_answers_own_words_are_attributes_and_never_labels() {
    let recorder = Recorder::new();
    one_call(&recorder, ANSWER).await;
    let span = chat_span(&recorder);
    assert_eq!(attribute(&span, "gen_ai.response.id").as_deref(), Some("c-9"));
    assert_eq!(attribute(&span, "gen_ai.response.model").as_deref(), Some("gpt-4o-mini-2024-07-18"));
    assert_eq!(attribute(&span, "gen_ai.usage.cache_read.input_tokens").as_deref(), Some("64"));
    assert_eq!(attribute(&span, "gen_ai.usage.reasoning.output_tokens").as_deref(), Some("12"));
    assert!(!recorder.sink().render().contains("2024-07-18"));
}

#[tokio::test]
async fn a_provider_is_called_as_it_was_named() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let named =
        OpenAiConfig { provider_name: Some("ollama".to_owned()), ..config(upstream.base_url.clone()) };
    let recorder = Recorder::new();
    plain(&ask_with(named, "llama"), &recorder.context()).await.unwrap();
    assert_eq!(attribute(&chat_span(&recorder), "gen_ai.provider.name").as_deref(), Some("ollama"));
    let labels = [("gen_ai_provider_name", "ollama"), ("gen_ai_request_model", "llama")];
    assert_eq!(recorder.metric("gen_ai_client_operation_duration_seconds_count", &labels), Some(1.0));
}

#[tokio::test]
async fn content_is_on_the_span_only_when_asked_for_and_without_secrets() {
    let said = |recorder: &Recorder, key: &str| attribute(&chat_span(recorder), key);
    let silent = Recorder::new();
    one_call(&silent, ANSWER).await;
    assert_eq!(said(&silent, "gen_ai.input.messages"), None);
    assert_eq!(said(&silent, "gen_ai.output.messages"), None);

    let telling = following(Semconv::default().with_content(true));
    one_call(&telling, ANSWER).await;
    let asked: Value = serde_json::from_str(&said(&telling, "gen_ai.input.messages").unwrap()).unwrap();
    assert_eq!(asked, serde_json::json!([{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]));
    let answered: Value = serde_json::from_str(&said(&telling, "gen_ai.output.messages").unwrap()).unwrap();
    assert_eq!(answered[0]["parts"][0]["content"], "Hello [REDACTED:EMAIL]");
    assert_eq!(answered[0]["finish_reason"], "stop");
}

#[tokio::test]
async fn the_content_of_a_stream_is_put_together() {
    let upstream = Upstream::start(Act::stream(&[
        &chunk("c", "m", 1, Delta::Content("to ann@exa")),
        &chunk("c", "m", 1, Delta::Content("mple.com")),
        &chunk("c", "m", 1, Delta::Stop),
        DONE,
    ]))
    .await;
    let recorder = following(Semconv::default().with_content(true));
    read(stream_of(&ask(upstream.base_url.clone()), STREAMED, &recorder.context()).await.unwrap()).await;
    let said = attribute(&chat_span(&recorder), "gen_ai.output.messages").unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said[0]["parts"][0]["content"], "to [REDACTED:EMAIL]");
}

#[tokio::test]
async fn a_served_model_is_measured_as_its_clients_see_it() {
    let events =
        [&chunk("c", "m", 1, Delta::Content("a"))[..], &usage_chunk("c", "m", 1, &Usage::new(3, 5)), DONE];
    let upstream = Upstream::start(Act::stream(&events)).await;
    let recorder = Recorder::new();
    let model = served("fast", ask(upstream.base_url.clone()));
    model.bind(recorder.sink());
    let labels = [
        ("gen_ai_provider_name", "throughline"),
        ("gen_ai_request_model", "fast"),
        ("gen_ai_operation_name", "chat"),
    ];
    let count = |what: &str| recorder.metric(&format!("gen_ai_server_{what}_seconds_count"), &labels);
    assert_eq!(count("time_to_first_token"), Some(0.0), "every series exists before the first request");

    let cx = recorder.context();
    let throughline_llm::Answer::Stream(stream) = model.run(request(STREAMED), &cx).await.unwrap() else {
        panic!()
    };
    assert_eq!(count("request_duration"), Some(0.0), "it goes on");
    assert!(stream.filter_map(|event| async { event.ok() }).count().await > 0);
    assert_eq!(count("request_duration"), Some(1.0));
    assert_eq!((count("time_to_first_token"), count("time_per_output_token")), (Some(1.0), Some(1.0)));

    let broken = Upstream::start(vec![Act::json(503, "", "")]).await;
    let model = served("fast", ask(broken.base_url.clone()));
    model.run(request(super::PLAIN), &cx).await.unwrap_err();
    let failed = [("error_type", "upstream"), ("gen_ai_request_model", "fast")];
    assert_eq!(recorder.metric("gen_ai_server_request_duration_seconds_count", &failed), Some(1.0));
}

#[tokio::test]
async fn what_is_seen_is_in_the_catalogue() {
    let recorder = following(Semconv::default().named(GenAiNames::Both).with_content(true));
    one_call(&recorder, ANSWER).await;
    let families: Vec<_> =
        throughline::telemetry::catalogue().into_iter().chain(catalogue::families()).collect();
    for sample in recorder.scrape().samples() {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.name.strip_suffix(end));
        let family = families
            .iter()
            .find(|family| family.exposed_name() == sample.name || Some(&*family.exposed_name()) == base);
        let family = family.unwrap_or_else(|| panic!("{} is not in the catalogue", sample.name));
        let labels: BTreeSet<&str> =
            sample.labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
        assert_eq!(labels, family.labels().iter().copied().collect(), "{}", sample.name);
    }
    for span in recorder.spans() {
        let primitive = if span.name == "POST" { "http" } else { "chat" };
        let reported =
            catalogue::primitives().into_iter().find(|reported| reported.primitive() == primitive).unwrap();
        for attribute in &span.attributes {
            let name = attribute.key.as_str();
            let known = reported.attributes().iter().chain(throughline::telemetry::COMMON_ATTRIBUTES);
            assert!(
                known.into_iter().any(|known| known.name() == name),
                "{name} of {} is not declared",
                span.name
            );
        }
    }
    for family in catalogue::families() {
        for label in family.labels() {
            let own = LabelSource::find(catalogue::LABELS, family, label);
            assert!(
                own.or(LabelSource::find(LABELS, family, label)).is_some(),
                "{label} of {}",
                family.exposed_name()
            );
        }
    }
}
