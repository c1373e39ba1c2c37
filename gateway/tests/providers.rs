//! What reaches a provider over HTTP, and what comes back from it: every byte of both.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::sync::Arc;

use http_body_util::BodyExt as _;
use process::upstream::{self, Seen, Step, answer, piece, stream_end, stream_head};
use process::{Gateway, Launch, Upstream, chat};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

const KEY: &str = "sk-upstream-5f1c";
const COMPLETION: &str = "{\n \"choices\" : [{\"message\": {\"content\": \"gr\\u00fcn\"}, \"index\":0 }],\t\
     \"big\": 12345678901234567890123, \"usage\": {\"prompt_tokens\": 1000, \"completion_tokens\": 100} , \
     \"system_fingerprint\":null}";

const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";

/// A gateway whose model `auto` asks `upstream`.
async fn gateway(upstream: &Upstream) -> Gateway {
    Launch::serve(&upstream.config()).env("UPSTREAM_KEY", KEY).start().await
}

fn streamed(prompt: &str) -> Value {
    let mut body = chat("auto", prompt);
    body["stream"] = true.into();
    body
}

#[tokio::test]
async fn a_request_reaches_the_provider_byte_for_byte_except_for_the_model() {
    let upstream = Upstream::start(|_| answer("200 OK", "", COMPLETION)).await;
    let gateway = gateway(&upstream).await;
    let body = |model: &str| {
        format!(
            "{{ \"temperature\" :1.0e-10,\"model\": \"{model}\" , \"seed\":123456789012345678901234567890, \
             \"x_unknown\": {{\"b\":1,\"a\":[0.10000000000000000555, null]}}, \r\n\"messages\":\
             [{{\"role\":\"user\",\"content\":\"\\u0068i \\ud83d\\ude00\",\"name\":\"n\"}}]}}\n"
        )
    };
    let answer = gateway.ask(body("auto")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.seen()[0].body, body("gpt-4o-mini"));
    assert_eq!(answer.body, COMPLETION, "and the answer comes back as it was");
    assert_eq!(
        answer.header("x-throughline-cost-usd"),
        Some("0.000210000"),
        "1000 x 0.15 and 100 x 0.60 per million"
    );
}

#[tokio::test]
async fn no_header_of_a_client_reaches_the_provider() {
    let upstream =
        Upstream::start(|_| answer("200 OK", "set-cookie: a=b\r\nserver: them\r\n", COMPLETION)).await;
    let gateway = gateway(&upstream).await;
    let headers = [
        ("authorization", "Bearer sk-client"),
        ("cookie", "session=1"),
        ("baggage", "user=1"),
        ("x-api-key", "sk-client"),
        ("openai-organization", "org-1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("user-agent", "curl"),
        ("accept", "text/html"),
    ];
    let answer = gateway.ask_with(&headers, chat("auto", "hi")).await;
    let Seen { head, .. } = &upstream.seen()[0];
    let (line, headers) = head.split_once("\r\n").unwrap();
    assert_eq!(line, "POST /v1/chat/completions HTTP/1.1");
    let mut headers: Vec<_> = headers.trim_end().lines().collect();
    headers.sort_unstable();
    let (host, length) =
        (format!("host: {}", upstream.address), format!("content-length: {}", upstream.seen()[0].body.len()));
    let agent = concat!("user-agent: throughline/", env!("CARGO_PKG_VERSION"));
    let key = format!("authorization: Bearer {KEY}");
    assert_eq!(
        headers,
        ["accept: application/json", &key, &length, "content-type: application/json", &host, agent]
    );
    assert_eq!(
        (answer.header("set-cookie"), answer.header("server")),
        (None, None),
        "nor the other way round"
    );
}

#[tokio::test]
async fn a_refusal_by_the_provider_is_passed_on() {
    let body = r#"{"error":{"message":"tools[0] has no name","type":"invalid_request_error","param":"tools","code":"bad_tool","internal":"x"}}"#;
    for status in [400, 404, 413, 415, 422] {
        let upstream = Upstream::start(move |_| answer(&format!("{status} No"), "", body)).await;
        let gateway = gateway(&upstream).await;
        let answer = gateway.ask(chat("auto", "hi")).await;
        let error = answer.error();
        assert_eq!(answer.status, status);
        let expected = json!({ "message": "tools[0] has no name", "type": "invalid_request_error", "param": "tools", "code": "bad_tool" });
        assert_eq!(error, expected);
        assert_eq!(answer.header("x-throughline-attempts"), Some("1"));
        assert_eq!(gateway.metric("gateway_requests_total", &[("code", &status.to_string())]).await, 1.0);
    }
}

#[tokio::test]
async fn a_failure_of_the_provider_does_not_show_what_it_said() {
    let said = r#"{"error":{"message":"Incorrect API key sk-upstream-5f1c of org-secret","code":"invalid_api_key"}}"#;
    for (status, expected) in
        [("401 Unauthorized", 502), ("403 Forbidden", 502), ("500 Oops", 502), ("302 Found", 502)]
    {
        let upstream =
            Upstream::start(move |_| answer(status, "location: http://127.0.0.1:9/\r\n", said)).await;
        let gateway = gateway(&upstream).await;
        let answer = gateway.ask(chat("auto", "hi")).await;
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (expected, Some("upstream_error")),
            "{status}"
        );
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains("secret") && !text.contains("sk-") && text.contains(&status[..3]), "{text}");
        assert_eq!(upstream.seen().len(), 1, "it is not tried again");
        let ended = gateway.stop().await;
        assert!(
            !ended.stderr.contains("sk-upstream") && !ended.stderr.contains("org-secret"),
            "{}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn a_rate_limit_keeps_its_retry_after() {
    let upstream = Upstream::start(|_| answer("429 Too Many Requests", "retry-after: 17\r\n", "{}")).await;
    let gateway = gateway(&upstream).await;
    for body in [chat("auto", "hi"), streamed("hi")] {
        let answer = gateway.ask(body).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("17")));
        assert_eq!(answer.error()["type"], "rate_limit_error");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_the_providers_fault() {
    for body in ["<html>", "{}", "", r#"{"choices":null}"#] {
        let upstream = Upstream::start(move |_| answer("200 OK", "", body)).await;
        let answer = gateway(&upstream).await.ask(chat("auto", "hi")).await;
        assert_eq!((answer.status, answer.error()["code"].as_str()), (502, Some("upstream_error")), "{body}");
    }
    let cut = Upstream::start(|_| {
        vec![Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".into()), Step::Close]
    })
    .await;
    assert_eq!(gateway(&cut).await.ask(chat("auto", "hi")).await.status, 502);
    let mute = Upstream::start(|_| vec![Step::Close]).await;
    assert_eq!(gateway(&mute).await.ask(chat("auto", "hi")).await.status, 502);
}

const EVENTS: [&str; 5] = [
    ": a comment\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}],\"big\":12345678901234567890123}\n\n",
    "event: message\r\nid: 7\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\r\n\r\n",
    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: [DONE]\n\n",
];
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100}}\n\n";

#[tokio::test]
async fn a_stream_is_passed_on_byte_for_byte() {
    let upstream = Upstream::start(|_| {
        // Cut where no event ends.
        let whole = EVENTS.concat();
        let (one, rest) = whole.split_at(20);
        let (two, three) = rest.split_at(whole.len() / 2);
        vec![stream_head(), piece(one), piece(two), piece(three), stream_end()]
    })
    .await;
    let gateway = gateway(&upstream).await;
    let answer = gateway.ask(streamed("hi")).await;
    assert_eq!(answer.body, EVENTS.concat());
    assert!(upstream.seen()[0].head.contains("accept: text/event-stream\r\n"), "{:?}", upstream.seen()[0]);
    gateway.settles("llm_unpriced_calls_total", &[], 1.0).await;
}

#[tokio::test]
async fn usage_is_asked_for_in_a_stream_and_hidden_from_who_did_not_ask() {
    let upstream = Upstream::start(|_| {
        vec![stream_head(), piece(&EVENTS[..4].concat()), piece(USAGE), piece(EVENTS[4]), stream_end()]
    })
    .await;
    let gateway = gateway(&upstream).await;
    let answer = gateway.ask(r#"{"model":"auto","stream":true,"messages":[{"content":"hi"}]}"#).await;
    assert_eq!(answer.body, EVENTS.concat());
    assert_eq!(
        upstream.seen()[0].body,
        r#"{"stream_options":{"include_usage":true},"model":"gpt-4o-mini","stream":true,"messages":[{"content":"hi"}]}"#
    );
    gateway.settles("llm_cost_usd_total", &[("provider", "up"), ("model", "gpt-4o-mini")], 0.000_21).await;
    let mut asked = streamed("hi");
    asked["stream_options"] = json!({ "include_usage": true });
    let shown = gateway.ask(asked).await;
    assert!(String::from_utf8_lossy(&shown.body).contains(USAGE));
}

#[tokio::test]
async fn events_are_forwarded_as_they_come() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let upstream = Upstream::start(move |_| {
        let mut steps = vec![stream_head()];
        for event in EVENTS {
            steps.extend([Step::Wait(Arc::clone(&gate)), piece(event)]);
        }
        steps.push(stream_end());
        steps
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut body = gateway.open(streamed("hi")).await.into_body();
    for event in EVENTS {
        // The provider says nothing more until this event has arrived here.
        permits.add_permits(1);
        let frame = tokio::time::timeout(process::PATIENCE, body.frame()).await.expect("it is not held back");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_and_without_done() {
    let hello = EVENTS[1];
    let endings = [
        ("cut", vec![Step::Close]),
        ("ended early", vec![stream_end()]),
        (
            "an error of its own",
            vec![piece("data: {\"error\":{\"message\":\"overloaded\"}}\n\n"), stream_end()],
        ),
    ];
    for (name, ending) in endings {
        let script = [vec![stream_head(), piece(hello)], ending].concat();
        let upstream = Upstream::start(move |_| script.clone()).await;
        let gateway = gateway(&upstream).await;
        let answer = gateway.ask(streamed("hi")).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let last = text.strip_prefix(hello).unwrap_or_else(|| panic!("{name}: {text}"));
        let last = last.trim_end().rsplit("\n\n").next().unwrap();
        let event: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(event["error"]["code"], "upstream_error", "{name}: {text}");
        assert!(!text.contains("[DONE]"), "{name}: {text}");
        let failed = [("primitive", "gateway"), ("outcome", "error")];
        gateway.settles("throughline_primitive_duration_seconds_count", &failed, 1.0).await;
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_a_502_that_names_no_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Launch::serve(&upstream::config(free)).env("UPSTREAM_KEY", KEY).start().await;
    let answer = gateway.ask(chat("auto", "hi")).await;
    assert_eq!((answer.status, answer.error()["code"].as_str()), (502, Some("upstream_error")));
    assert!(!String::from_utf8_lossy(&answer.body).contains("127.0.0.1"), "{answer:?}");
}

/// A gateway with limits on streams, in front of a provider that takes these steps.
async fn limited(limits: &str, steps: fn() -> Vec<Step>) -> (Upstream, Gateway) {
    let upstream = Upstream::start(move |_| steps()).await;
    let limits = format!("[models.auto]\ntimeout = {{ limit = \"1h\", {limits} }}\n[models.auto.routes");
    let config = upstream.config().replacen("[models.auto.routes", &limits, 1);
    let gateway = Launch::serve(&config).env("UPSTREAM_KEY", KEY).start().await;
    (upstream, gateway)
}

#[tokio::test]
async fn a_first_token_that_does_not_come_is_an_error_with_a_status() {
    let silent: [fn() -> Vec<Step>; 2] =
        [|| vec![Step::Hold], || vec![stream_head(), piece(ROLE), Step::Hold]];
    for steps in silent {
        let (upstream, gateway) = limited("first_token = \"80ms\"", steps).await;
        let answer = gateway.ask(streamed("hi")).await;
        assert_eq!(
            (answer.status, answer.error()["message"].as_str()),
            (504, Some("no first item within 80ms"))
        );
        gateway.settles("timeout_failures_total", &[("operation", "auto")], 1.0).await;
        process::until("the call to be let go", async || (upstream.hung_up() == 1).then_some(())).await;
    }
}

#[tokio::test]
async fn a_stream_that_stalls_ends_with_an_error_event() {
    let (_upstream, gateway) =
        limited("between_chunks = \"80ms\"", || vec![stream_head(), piece(CONTENT), Step::Hold]).await;
    let answer = gateway.ask(streamed("hi")).await;
    assert_eq!(answer.status, 200);
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(body.starts_with(CONTENT), "{body}");
    assert!(body.contains("the stream gave nothing for 80ms") && !body.contains("[DONE]"), "{body}");
    gateway.settles("timeout_failures_total", &[("operation", "auto")], 1.0).await;
    let stalled = [("primitive", "timeout"), ("event", "stalled")];
    assert_eq!(gateway.metric("throughline_primitive_events_total", &stalled).await, 1.0);
}
