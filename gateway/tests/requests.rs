//! What clients may send, what they are told when they may not, and what the headers of an answer say.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::time::Duration;

use http::Method;
use process::client::{chat, raw, rest};
use process::{Answer, Gateway, Launch, prompt_config, until};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const CHAT: &str = "/v1/chat/completions";

const TIGHT: &str = r#"
[server]
max_body = "16KiB"
max_json_depth = 8
max_messages = 3
header_timeout = "400ms"
"#;

/// A gateway with tight limits.
async fn strict() -> Gateway {
    Launch::serve(&prompt_config(TIGHT)).start().await
}

/// No model has been asked and nothing has been decided, looked up or paid.
async fn nothing_was_done(gateway: &Gateway) {
    let page = gateway.scrape().await;
    for family in
        ["router_decisions_total", "cache_outcomes_total", "llm_cost_usd_total", "llm_unpriced_calls_total"]
    {
        assert_eq!(page.sum(family, &[]).unwrap_or_default(), 0.0, "{family}");
    }
    let runs = "throughline_primitive_duration_seconds_count";
    let stages = page.sum_by(runs, "primitive");
    assert_eq!(stages.keys().filter(|stage| *stage != "gateway").collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(page.sum("gateway_in_flight_requests", &[]), Some(0.0));
}

async fn still_serves(gateway: &Gateway) {
    assert_eq!(gateway.ask(chat("auto", "Which day is it?")).await.text(), "Tuesday, as far as I know.");
}

#[tokio::test]
async fn a_body_that_is_no_chat_request_is_refused_and_changes_nothing() {
    let gateway = strict().await;
    let message = json!({ "role": "user", "content": "s3cret" });
    let deep = format!(r#"{{"model":"auto","messages":[],"x":{}}}"#, "[".repeat(8) + &"]".repeat(8));
    for (body, code, param) in [
        ("not json".to_owned(), "invalid_json", None),
        (String::new(), "invalid_json", None),
        ("{\"model\":".to_owned(), "invalid_json", None),
        ("[]".to_owned(), "invalid_request", None),
        (json!({ "messages": [message] }).to_string(), "invalid_request", Some("model")),
        (json!({ "model": 4, "messages": [message] }).to_string(), "invalid_request", Some("model")),
        (json!({ "model": "auto" }).to_string(), "invalid_request", Some("messages")),
        (json!({ "model": "auto", "messages": [] }).to_string(), "invalid_request", Some("messages")),
        (json!({ "model": "auto", "messages": "hi" }).to_string(), "invalid_request", Some("messages")),
        (
            json!({ "model": "auto", "messages": [message, message, message, message] }).to_string(),
            "too_many_messages",
            Some("messages"),
        ),
        (
            json!({ "model": "auto", "messages": [message], "stream": "yes" }).to_string(),
            "invalid_request",
            Some("stream"),
        ),
        (
            r#"{"model":"auto","model":"b","messages":[{"content":"s3cret"}]}"#.to_owned(),
            "invalid_request",
            Some("model"),
        ),
        (deep, "too_deep", None),
    ] {
        let answer = gateway.ask(&body).await;
        let error = answer.error();
        assert_eq!(
            (answer.status, error["code"].as_str(), error["param"].as_str()),
            (400, Some(code), param),
            "{body}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(!error["message"].to_string().contains("s3cret"), "{error}");
        assert_eq!(
            (answer.header("x-throughline-attempts"), answer.header("x-throughline-route")),
            (Some("0"), None)
        );
    }
    nothing_was_done(&gateway).await;
    assert_eq!(gateway.metric("gateway_requests_total", &[("route", CHAT), ("code", "400")]).await, 13.0);
    still_serves(&gateway).await;
}

#[tokio::test]
async fn the_place_of_the_mistake_is_told() {
    let gateway = strict().await;
    let message = |error: Value| error["message"].as_str().unwrap().to_owned();
    assert_eq!(message(gateway.ask("").await.error()), "the body is not valid JSON at line 1, column 1");
    let answer = gateway.ask("{\n  \"model\": oops }").await;
    assert_eq!(message(answer.error()), "the body is not valid JSON at line 2, column 12");
    let answer = gateway.send(Method::POST, CHAT, &b"{\"model\": \"\xff\"}"[..]).await;
    assert_eq!(message(answer.error()), "the body is not valid JSON at line 1, column 12");
    let answer = gateway.ask(chat("gpt-9", "hi")).await;
    assert_eq!((answer.status, answer.error()["code"].as_str()), (404, Some("model_not_found")));
    assert!(message(answer.error()).starts_with("the model `gpt-9` does not exist"), "{answer:?}");
    nothing_was_done(&gateway).await;
}

#[tokio::test]
async fn a_key_sent_as_the_name_of_a_model_is_not_echoed_and_is_counted() {
    let gateway = strict().await;
    let key = ["sk-proj-", &"a1B2c3D4e5F6g7H8".repeat(6)].concat();
    let answer = gateway.ask(chat(&key, "hi")).await;
    let message = answer.error()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("the model `[REDACTED:API_KEY]` does not exist"), "{message}");
    assert!(gateway.metric("redactions_total", &[("kind", "api_key")]).await >= 1.0);
    let log = gateway.stop().await.stderr;
    assert!(!log.contains(&key[..40]), "{log}");
}

#[tokio::test]
async fn a_body_is_accepted_up_to_the_limit_and_not_beyond() {
    let gateway = strict().await;
    let frame = chat("auto", "").to_string().len();
    let of_length = |bytes: usize| chat("auto", &"x".repeat(bytes - frame)).to_string();
    assert_eq!(gateway.ask(of_length(16 << 10)).await.status, 200);
    let answer = gateway.ask(of_length((16 << 10) + 1)).await;
    assert_eq!((answer.status, answer.error()["code"].as_str()), (413, Some("request_too_large")));
    assert_eq!(
        answer.error()["message"],
        "the body is larger than 16384 bytes, which is the most that is accepted"
    );

    let chunk = format!("2000\r\n{}\r\n", "x".repeat(0x2000));
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    let said = raw(gateway.address, (head + &chunk.repeat(3) + "0\r\n\r\n").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent() {
    let gateway = strict().await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: 999999\r\n\r\n");
    let said = raw(gateway.address, head.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413 ") && said.contains("request_too_large"), "{said}");
    nothing_was_done(&gateway).await;
}

#[tokio::test]
async fn a_wrong_method_or_path_is_told_what_there_is() {
    let gateway = strict().await;
    let valid = chat("auto", "hi").to_string();
    for (method, path, status, code) in [
        (Method::GET, CHAT, 405, "wrong_method"),
        (Method::DELETE, CHAT, 405, "wrong_method"),
        (Method::PUT, CHAT, 405, "wrong_method"),
        (Method::from_bytes(b"BREW").unwrap(), CHAT, 405, "wrong_method"),
        (Method::POST, "/v1/models", 405, "wrong_method"),
        (Method::POST, "/healthz", 405, "wrong_method"),
        (Method::POST, "/readyz", 405, "wrong_method"),
        (Method::POST, "/", 404, "unknown_path"),
        (Method::POST, "/v1/chat/completions/", 404, "unknown_path"),
        (Method::POST, "//v1/chat/completions", 404, "unknown_path"),
        (Method::POST, "/v1/chat/../chat/completions", 404, "unknown_path"),
        (Method::GET, "/metrics", 404, "unknown_path"),
        (Method::GET, "/debug/pprof", 404, "unknown_path"),
    ] {
        let answer = gateway.send(method.clone(), path, valid.clone()).await;
        let error = answer.error();
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{method} {path}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path}: {answer:?}");
    }
    nothing_was_done(&gateway).await;
    assert_eq!(gateway.metric("gateway_requests_total", &[("route", "other")]).await, 13.0);
}

#[tokio::test]
async fn what_is_no_proper_http_is_refused_and_nothing_behind_it_is_served() {
    let gateway = strict().await;
    let body = chat("auto", "smuggled").to_string();
    let smuggled = format!("POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let post = |headers: &str| format!("POST {CHAT} HTTP/1.1\r\nhost: h\r\n{headers}\r\n");
    for (name, request, status) in [
        ("two lengths", post("content-length: 2\r\ncontent-length: 3\r\n") + "{}", 400),
        ("a length that is none", post("content-length: +2\r\n") + "{}", 400),
        ("an encoding that is not chunked", post("transfer-encoding: gzip\r\n") + "{}", 400),
        ("a folded header", post("x-a: 1\r\n  2\r\ncontent-length: 2\r\n") + "{}", 400),
        ("a space before the colon", post("content-length : 2\r\n") + "{}", 400),
        ("a zero byte in a header", post("x-a: \0\r\ncontent-length: 2\r\n") + "{}", 400),
        ("no HTTP at all", "HELO gateway\r\n\r\n".to_owned(), 400),
        ("a head that is too large", post(&format!("x-a: {}\r\n", "a".repeat(200_000))), 431),
        ("too many headers", post(&"x-a: 1\r\n".repeat(150)), 431),
        ("an address that is too long", format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(65_600)), 414),
    ] {
        let said = raw(gateway.address, (request + &smuggled).as_bytes()).await;
        assert!(said.is_empty() || said.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {said}");
        assert!(said.matches("HTTP/1.1").count() <= 1, "{name}: {said}");
    }
    nothing_was_done(&gateway).await;
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_length_beside_an_encoding_ends_the_connection_after_one_answer() {
    // RFC 9112, 6.3: such a request may be an attempt at smuggling; the encoding counts and the connection ends.
    let gateway = strict().await;
    let body = chat("auto", "hi").to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for headers in
        ["content-length: 4\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"]
    {
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: h\r\n{headers}\r\n\r\n{chunked}GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n"
        );
        let said = raw(gateway.address, request.as_bytes()).await;
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
        assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("Tuesday"), "{said}");
    }
    assert_eq!(gateway.metric("gateway_requests_total", &[("route", "/v1/models")]).await, 0.0);
}

#[tokio::test]
async fn a_client_that_dribbles_its_head_is_cut_off() {
    let gateway = strict().await;
    let (mut reader, mut writer) = TcpStream::connect(gateway.address).await.unwrap().into_split();
    let dribbling = tokio::spawn(async move {
        let mut sent = 0;
        for byte in b"POST /v1/chat/completions HTTP/1.1\r\nx-a: ".iter().chain(std::iter::repeat(&b'a')) {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            sent += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sent
    });
    let said = tokio::time::timeout(process::PATIENCE, async {
        let mut said = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut said).await;
        String::from_utf8(said).unwrap()
    });
    let said = said.await.expect("the connection is closed while the client still sends");
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
    assert!(dribbling.await.unwrap() > 1, "the client was sending when it was cut off");
    nothing_was_done(&gateway).await;
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_request() {
    let gateway = strict().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{{\"model\":\"auto\",");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    until("the request to end", async || {
        (gateway.metric("gateway_in_flight_requests", &[]).await == 0.0).then_some(())
    })
    .await;
    nothing_was_done(&gateway).await;
    still_serves(&gateway).await;
}

const TWO_ROUTES: &str = r#"
[prices.sim]
input = 1000.0
output = 2000.0
source = "this test"
date = "2026-11-22"

[models.auto]
default_route = "short"
rules = [{ route = "long", when = { prompt_chars_at_least = 20 } }]
route_header = "x-route"
cache = { ttl = "1h" }
[models.auto.routes.short]
provider = "sim"
model = "sim"
[models.auto.routes.long]
provider = "sim"
model = "unpriced"
"#;

fn told(answer: &Answer) -> [Option<&str>; 4] {
    ["x-throughline-route", "x-throughline-cache", "x-throughline-attempts", "x-throughline-cost-usd"]
        .map(|name| answer.header(name))
}

#[tokio::test]
async fn headers_tell_route_cache_attempts_and_cost() {
    let gateway = Launch::serve(&format!("{}\n{TWO_ROUTES}", process::PROMPT_PROVIDER)).start().await;
    let short = chat("auto", "four");
    // 4 characters and a message are 4 tokens, 26 characters of answer are 7.
    let usage = gateway.ask(&short).await.json()["usage"].clone();
    assert_eq!((usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()), (Some(4), Some(7)));
    let other = gateway.ask(chat("auto", "five")).await;
    assert_eq!(told(&other), [Some("short"), Some("miss"), Some("1"), Some("0.018000000")]);
    let hit = gateway.ask(&short).await;
    assert_eq!(told(&hit), [None, Some("hit"), Some("0"), Some("0.000000000")]);
    let long = gateway.ask(chat("auto", &"long ".repeat(10))).await;
    assert_eq!(
        told(&long),
        [Some("long"), Some("miss"), Some("1"), None],
        "an unknown cost is not shown as 0"
    );
    let forced = gateway.ask_with(&[("x-route", "long")], chat("auto", "six")).await;
    assert_eq!(told(&forced)[0], Some("long"));
    let unknown = gateway.ask_with(&[("x-route", "none")], chat("auto", "seven")).await;
    assert_eq!(told(&unknown)[0], Some("short"), "an unknown route is the default one");
    let mut streamed = chat("auto", "eight");
    streamed["stream"] = true.into();
    let streamed = gateway.ask(streamed).await;
    assert_eq!(told(&streamed), [Some("short"), Some("miss"), Some("1"), None]);
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
}

#[tokio::test]
async fn a_web_page_of_another_machine_cannot_spend_money() {
    let gateway = strict().await;
    for origin in
        ["http://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example"]
    {
        let answer = gateway.ask_with(&[("origin", origin)], chat("auto", "hi")).await;
        assert_eq!((answer.status, &answer.error()["code"]), (403, &"foreign_origin".into()), "{origin}");
    }
    for origin in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:5173"] {
        assert_eq!(gateway.ask_with(&[("origin", origin)], chat("auto", "hi")).await.status, 200, "{origin}");
    }
    gateway.settles("gateway_requests_total", &[("code", "403")], 4.0).await;
}

#[tokio::test]
async fn a_cached_answer_never_stands_in_for_another_route() {
    let by_metadata =
        TWO_ROUTES.replace("prompt_chars_at_least = 20", "metadata = { name = \"tier\", equals = \"gold\" }");
    let gateway = Launch::serve(&format!("{}\n{by_metadata}", process::PROMPT_PROVIDER)).start().await;
    let plain = chat("auto", "same");
    let mut gold = plain.clone();
    gold["metadata"] = serde_json::json!({ "tier": "gold" });
    for _ in 0..2 {
        let answers = [
            gateway.ask(&plain).await,
            gateway.ask_with(&[("x-route", "long")], &plain).await,
            gateway.ask_with(&[("x-route", "")], &plain).await,
            gateway.ask(&gold).await,
        ];
        for answer in answers {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    gateway.settles("cache_misses_total", &[], 4.0).await;
    gateway.settles("cache_hits_total", &[], 4.0).await;
    gateway.settles("router_decisions_total", &[("route", "long")], 2.0).await;
}

#[tokio::test]
async fn a_request_has_an_id_and_a_trace_of_its_own() {
    let gateway = strict().await;
    let one = gateway.ask_with(&[("x-request-id", "order-66")], chat("auto", "hi")).await;
    assert_eq!(one.header("x-request-id"), Some("order-66"));
    let (two, refused) = (gateway.ask(chat("auto", "hi")).await, gateway.ask("no").await);
    let long = gateway.ask_with(&[("x-request-id", &"x".repeat(200))], chat("auto", "hi")).await;
    let mut ids = Vec::new();
    for answer in [&two, &refused, &long] {
        let id = answer.header("x-request-id").unwrap();
        assert!((16..=64).contains(&id.len()), "{id}");
        ids.push(id);
    }
    for answer in [&one, &two, &refused, &long] {
        let trace = answer.header("x-throughline-trace-id").unwrap();
        assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{trace}");
        ids.push(trace);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 7, "no two are alike: {ids:?}");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let continued = gateway.ask_with(&[("traceparent", parent)], chat("auto", "hi")).await;
    assert_eq!(continued.header("x-throughline-trace-id"), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
}
