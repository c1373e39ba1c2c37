//! One kept answer for who wants a stream and for who wants it plain, as clients see it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::time::Duration;

use http_body_util::BodyExt as _;
use process::upstream::{Seen, answer, piece, stream_end, stream_head};
use process::{Answer, Gateway, Launch, Step, Upstream, chat};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What 1,000 tokens in and 100 out cost at gpt-4o-mini.
const COST: f64 = 0.000_21;

fn calls() -> Value {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "look", "arguments": "{\"city\": \"Rome\"}"}});
    json!([call("a"), call("b")])
}

/// Two choices: one says something, the other calls tools.
fn whole() -> Value {
    let choice = |index: u64, content: Value, finish: &str| {
        json!({"index": index, "message": {"role": "assistant", "content": content}, "logprobs": null,
            "finish_reason": finish})
    };
    let mut choices = [choice(0, json!("Ciao  bella Roma"), "length"), choice(1, Value::Null, "tool_calls")];
    choices[1]["message"]["tool_calls"] = calls();
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "gpt-4o-mini",
        "system_fingerprint": "fp", "choices": choices, "usage": used()})
}

fn used() -> Value {
    json!({"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100})
}

fn event(choices: &Value, usage: &Value) -> String {
    let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "gpt-4o-mini",
        "system_fingerprint": "fp", "choices": choices, "usage": usage});
    format!("data: {chunk}\n\n")
}

/// The same as a provider streams it, with the choices between each other.
fn events() -> Vec<String> {
    let says = |index: u64, delta: Value| {
        event(&json!([{"index": index, "delta": delta, "finish_reason": null}]), &Value::Null)
    };
    let ends = |index: u64, why: &str| {
        event(&json!([{"index": index, "delta": {}, "finish_reason": why}]), &Value::Null)
    };
    let mut events = vec![
        says(0, json!({"role": "assistant", "content": ""})),
        says(1, json!({"role": "assistant", "content": null})),
        says(0, json!({"content": "Ciao "})),
    ];
    for (at, id) in ["a", "b"].into_iter().enumerate() {
        let begins =
            json!({"index": at, "id": id, "type": "function", "function": {"name": "look", "arguments": ""}});
        events.push(says(1, json!({"tool_calls": [begins]})));
        for part in ["{\"city\":", " \"Rome\"}"] {
            events.push(says(1, json!({"tool_calls": [{"index": at, "function": {"arguments": part}}]})));
        }
    }
    events.extend([says(0, json!({"content": " bella Roma"})), ends(1, "tool_calls"), ends(0, "length")]);
    events.extend([event(&json!([]), &used()), "data: [DONE]\n\n".to_owned()]);
    events
}

/// Answers in the form that is asked for.
fn script(seen: &Seen) -> Vec<Step> {
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    if body["stream"] != true {
        return answer("200 OK", "", &whole().to_string());
    }
    let pieces = events();
    let mut steps = vec![stream_head()];
    steps.extend(pieces.iter().map(|event| piece(event)));
    steps.push(stream_end());
    steps
}

async fn gateway(upstream: &Upstream, cache: &str) -> Gateway {
    gateway_to(upstream, "gpt-4o-mini", cache).await
}

async fn gateway_to(upstream: &Upstream, model: &str, cache: &str) -> Gateway {
    let config = format!(
        "[providers.up.openai]\nbase_url = \"http://{}/v1\"\n[models.auto]\ncache = {{ ttl = \"1h\"{cache} }}\n\
         [models.auto.routes.only]\nprovider = \"up\"\nmodel = \"{model}\"\n",
        upstream.address
    );
    Launch::serve(&config).start().await
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Plain,
    Stream,
    StreamWithUsage,
}

impl Form {
    const ALL: [Self; 3] = [Self::Plain, Self::Stream, Self::StreamWithUsage];

    fn ask(self, prompt: &str) -> Value {
        let mut body = chat("auto", prompt);
        (body["n"], body["seed"]) = (2.into(), 1.into());
        if self != Self::Plain {
            body["stream"] = true.into();
        }
        if self == Self::StreamWithUsage {
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    }
}

/// What a client makes of an answer: as [`whole`], with `usage` only where it was told.
fn made(form: Form, answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    if form == Form::Plain {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        return answer.json();
    }
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = std::str::from_utf8(&answer.body).unwrap();
    let events: Vec<&str> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let mut made = whole();
    made.as_object_mut().unwrap().remove("usage");
    for choice in made["choices"].as_array_mut().unwrap() {
        choice["message"] = json!({"role": null, "content": null});
        choice["finish_reason"] = Value::Null;
    }
    for chunk in chunks {
        let chunk: Value = serde_json::from_str(chunk).unwrap();
        assert_eq!((&chunk["id"], &chunk["object"]), (&json!("chatcmpl-1"), &json!("chat.completion.chunk")));
        if !chunk["usage"].is_null() {
            assert_eq!(chunk["choices"], json!([]), "usage has a chunk of its own");
            assert_eq!(made.get("usage"), None, "and is told once");
            made["usage"] = chunk["usage"].clone();
        }
        for choice in chunk["choices"].as_array().unwrap() {
            add(&mut made["choices"][usize::try_from(choice["index"].as_u64().unwrap()).unwrap()], choice);
        }
    }
    made
}

/// Adds the part of a choice that a chunk holds.
fn add(whole: &mut Value, part: &Value) {
    let (message, delta) = (&mut whole["message"], &part["delta"]);
    if delta["role"].is_string() {
        message["role"] = delta["role"].clone();
    }
    if let Some(text) = delta["content"].as_str() {
        message["content"] = format!("{}{text}", message["content"].as_str().unwrap_or_default()).into();
    }
    for call in delta["tool_calls"].as_array().into_iter().flatten() {
        let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        if message["tool_calls"].is_null() {
            message["tool_calls"] = json!([]);
        }
        let calls = message["tool_calls"].as_array_mut().unwrap();
        if calls.len() == index {
            calls.push(json!({"id": call["id"], "type": "function",
                "function": {"name": call["function"]["name"], "arguments": ""}}));
        }
        let arguments = &mut calls[index]["function"]["arguments"];
        let more = call["function"]["arguments"].as_str().unwrap();
        *arguments = format!("{}{more}", arguments.as_str().unwrap()).into();
    }
    if part["finish_reason"].is_string() {
        whole["finish_reason"] = part["finish_reason"].clone();
    }
}

/// [`whole`] as a client of this form has it.
fn expected(form: Form, made: &Value) -> Value {
    let mut expected = whole();
    if form == Form::Stream {
        expected.as_object_mut().unwrap().remove("usage");
    } else {
        // The counts are the provider's; where it was asked on the client's behalf, zero details are added.
        expected["usage"] = made["usage"].clone();
        for (name, count) in used().as_object().unwrap() {
            assert_eq!(made["usage"][name], *count, "{name}");
        }
    }
    expected
}

fn near(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() < 1e-9
}

async fn four_combinations(cache: &str) {
    let upstream = Upstream::start(script).await;
    let gateway = gateway(&upstream, cache).await;
    let (mut asked, mut hits) = (0, 0);
    for first in Form::ALL {
        let prompt = format!("first {first:?}");
        let answer = gateway.ask(first.ask(&prompt)).await;
        asked += 1;
        assert_eq!(answer.header("x-throughline-cache"), Some("miss"));
        let had = made(first, &answer);
        assert_eq!(had, expected(first, &had), "{first:?}");
        gateway.settles(STORED.0, STORED.1, f64::from(asked)).await;
        for then in Form::ALL {
            let answer = gateway.ask(then.ask(&prompt)).await;
            hits += 1;
            let had = made(then, &answer);
            assert_eq!(had, expected(then, &had), "{first:?} then {then:?}");
            assert_eq!(answer.header("x-throughline-cache"), Some("hit"), "{first:?} then {then:?}");
            assert!(answer.header("age").is_some());
            assert_eq!(answer.header("x-throughline-attempts"), Some("0"));
            assert_eq!(answer.header("x-throughline-cost-usd"), Some("0.000000000"));
            let scrape = gateway.scrape().await;
            let sum = |name: &str| scrape.sum(name, &[]).unwrap_or_default();
            assert!(
                near(sum("cache_cost_savings_usd_total"), COST * f64::from(hits)),
                "{first:?} then {then:?}"
            );
            assert!(near(sum("llm_cost_usd_total"), COST * f64::from(asked)));
            assert!(near(sum("router_cost_usd_total"), COST * f64::from(asked)));
            assert_eq!(
                (sum("cache_hits_total"), sum("cache_misses_total")),
                (f64::from(hits), f64::from(asked))
            );
            assert_eq!(upstream.seen().len(), usize::try_from(asked).unwrap());
        }
    }
    assert_eq!(gateway.metric("llm_unpriced_calls_total", &[]).await, 0.0);
}

const STORED: (&str, &[(&str, &str)]) =
    ("throughline_primitive_events_total", &[("primitive", "cache"), ("event", "stored")]);

#[tokio::test]
async fn an_answer_is_the_same_in_every_form_costs_once_and_saves_each_time() {
    four_combinations("").await;
}

#[tokio::test]
async fn a_paced_answer_is_the_same_too() {
    four_combinations(", replay = { chunks_per_second = 2000 }").await;
}

/// A provider whose answers end with this usage, and whose streams say these beside their first piece and at their end.
async fn saying(usage: Value, [first, last]: [Value; 2]) -> Upstream {
    Upstream::start(move |seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        if body["stream"] != true {
            let choice = json!({"index": 0, "message": {"role": "assistant", "content": "Ciao"}, "finish_reason": "stop"});
            return answer("200 OK", "", &json!({"choices": [choice], "usage": usage}).to_string());
        }
        let says = |delta: Value, finish: Value, usage: &Value| {
            piece(&event(&json!([{"index": 0, "delta": delta, "finish_reason": finish}]), usage))
        };
        vec![
            stream_head(),
            says(json!({"role": "assistant"}), Value::Null, &first),
            says(json!({"content": "Ciao"}), Value::Null, &Value::Null),
            says(json!({}), json!("stop"), &Value::Null),
            piece(&event(&json!([]), &last)),
            piece("data: [DONE]\n\n"),
            stream_end(),
        ]
    })
    .await
}

/// Asks in every form for what was asked for in every form: each answer must have cost so much, or be counted as unpriced.
async fn counted(upstream: &Upstream, cost: Option<f64>) {
    let gateway = gateway_to(upstream, "claude-sonnet-4-6", "").await;
    let (mut asked, mut hits) = (0, 0);
    for first in Form::ALL {
        let prompt = format!("first {first:?}");
        assert_eq!(gateway.ask(first.ask(&prompt)).await.status, 200);
        asked += 1;
        gateway.settles(STORED.0, STORED.1, f64::from(asked)).await;
        for then in Form::ALL {
            let answer = gateway.ask(then.ask(&prompt)).await;
            hits += 1;
            assert_eq!(answer.header("x-throughline-cache"), Some("hit"), "{first:?} then {then:?}");
            let scrape = gateway.scrape().await;
            let sum = |name: &str| scrape.sum(name, &[]).unwrap_or_default();
            let (spent, saved) = (sum("llm_cost_usd_total"), sum("cache_cost_savings_usd_total"));
            let cost_known = cost.unwrap_or_default();
            assert!(near(spent, cost_known * f64::from(asked)), "{first:?} then {then:?}: {spent}");
            assert!(near(saved, cost_known * f64::from(hits)), "{first:?} then {then:?}: {saved}");
            let unpriced = if cost.is_some() { 0 } else { asked };
            assert!(near(sum("llm_unpriced_calls_total"), f64::from(unpriced)), "{first:?} then {then:?}");
            if then == Form::Plain && cost.is_some() {
                let usage = throughline_llm::openai::usage(&answer.body).expect("it is told");
                let table = throughline_llm::PriceTable::builtin();
                let shown = table.cost("claude-sonnet-4-6", &usage).unwrap();
                assert!(near(shown, cost_known), "{first:?} then {then:?}: {usage:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_provider_keeps_for_an_hour_costs_and_saves_the_same_in_every_form() {
    let read = json!({"input_tokens": 76, "cache_read_input_tokens": 1_024, "cache_creation_input_tokens": 1_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600}});
    let mut whole = read.clone();
    whole["output_tokens"] = 46.into();
    let cost = 76.0 * 3.0 + 1_024.0 * 0.3 + 400.0 * 3.75 + 600.0 * 6.0 + 46.0 * 15.0;
    let at_the_end = saying(whole.clone(), [Value::Null, whole.clone()]).await;
    counted(&at_the_end, Some(cost / 1e6)).await;
    let mut begun = read.clone();
    begun["output_tokens"] = 1.into();
    for start in [read, begun] {
        let in_parts = saying(whole.clone(), [start, json!({"output_tokens": 46})]).await;
        counted(&in_parts, Some(cost / 1e6)).await;
    }
}

#[tokio::test]
async fn who_does_not_say_what_was_written_is_unpriced_in_every_form() {
    let only_read = json!({"prompt_tokens": 1_000});
    counted(&saying(only_read.clone(), [Value::Null, only_read]).await, None).await;
}

#[tokio::test]
async fn a_wrong_detail_costs_no_count_in_any_form() {
    let usage = json!({"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 1_001},
        "completion_tokens_details": "none"});
    let cost = (1_000.0 * 3.0 + 100.0 * 15.0) / 1e6;
    counted(&saying(usage.clone(), [Value::Null, usage]).await, Some(cost)).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_answers_nobody() {
    let upstream = Upstream::start(|seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        match body["messages"][0]["content"].as_str().unwrap() {
            "broken" if body["stream"] == true => {
                vec![stream_head(), piece(&events()[..5].concat()), Step::Close]
            }
            "given up" if body["stream"] == true => {
                vec![stream_head(), piece(&events()[..5].concat()), Step::Hold]
            }
            _ => script(seen),
        }
    })
    .await;
    let gateway = gateway(&upstream, "").await;
    let broken = gateway.ask(Form::Stream.ask("broken")).await;
    assert!(!std::str::from_utf8(&broken.body).unwrap().contains("[DONE]"), "{broken:?}");
    let mut given_up = gateway.open(Form::Stream.ask("given up")).await;
    given_up.body_mut().frame().await.unwrap().unwrap();
    drop(given_up);
    process::until("the call to be given up", async || (upstream.hung_up() == 1).then_some(())).await;
    for prompt in ["broken", "given up"] {
        let answer = gateway.ask(Form::Plain.ask(prompt)).await;
        assert_eq!(answer.header("x-throughline-cache"), Some("miss"), "{prompt}");
        assert_eq!(answer.json(), whole());
    }
    assert_eq!(gateway.metric(STORED.0, STORED.1).await, 2.0, "only the plain ones are kept");
}

#[tokio::test]
async fn an_answer_that_is_none_is_asked_for_again() {
    let upstream = Upstream::start(|seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let (says, stream) = (body["messages"][0]["content"].as_str().unwrap(), body["stream"] == true);
        let choices = match says {
            "empty" => json!([]),
            _ => json!([{"index": 0, "message": {"content": "x"}, "delta": {"content": "x"}, "finish_reason": "content_filter"}]),
        };
        match stream {
            true => vec![stream_head(), piece(&event(&choices, &Value::Null)), piece("data: [DONE]\n\n"), stream_end()],
            false => answer("200 OK", "", &json!({"choices": choices, "usage": used()}).to_string()),
        }
    })
    .await;
    let gateway = gateway(&upstream, "").await;
    let mut asked = 0;
    for prompt in ["empty", "filtered"] {
        for form in [Form::Plain, Form::Stream, Form::Plain, Form::Stream] {
            let answer = gateway.ask(form.ask(prompt)).await;
            asked += 1;
            assert_eq!(answer.status, 200, "what a client makes of it is its own");
            assert_eq!(answer.header("x-throughline-cache"), Some("miss"), "{prompt} {form:?}");
            let refused = [("primitive", "cache"), ("event", "not_cacheable")];
            gateway.settles(STORED.0, &refused, f64::from(asked)).await;
        }
    }
    assert_eq!(upstream.seen().len(), 8);
    assert_eq!(gateway.metric(STORED.0, STORED.1).await, 0.0);
}

#[tokio::test]
async fn a_paced_answer_takes_its_time_and_ends_with_its_client() {
    let upstream = Upstream::start(script).await;
    let paced = gateway(&upstream, ", replay = { chunks_per_second = 20 }").await;
    paced.ask(Form::Stream.ask("hello")).await;
    paced.settles(STORED.0, STORED.1, 1.0).await;
    let (pauses, start) = (u32::try_from(events().len() - 3).unwrap(), Instant::now());
    paced.ask(Form::Stream.ask("hello")).await;
    assert!(start.elapsed() >= Duration::from_millis(50) * pauses, "{:?}", start.elapsed());

    let slow = gateway(&upstream, ", replay = { chunks_per_second = 1 }").await;
    slow.ask(Form::Plain.ask("hello")).await;
    let mut stream = slow.open(Form::Stream.ask("hello")).await;
    assert_eq!(stream.headers()["x-throughline-cache"], "hit");
    stream.body_mut().frame().await.unwrap().unwrap();
    let under_way = [("route", "/v1/chat/completions")];
    assert_eq!(slow.metric("gateway_in_flight_requests", &under_way).await, 1.0);
    drop(stream);
    slow.settles("gateway_in_flight_requests", &under_way, 0.0).await;
    assert_eq!(slow.metric("gateway_requests_total", &[("code", "499")]).await, 1.0);
}
