//! Many requests, many connections, and many kinds of nonsense.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use process::client::{self, HttpClient};
use process::{Gateway, Launch, PROMPT_PROVIDER, chat};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CONFIG: &str = r#"
[server]
max_body = "4KiB"
max_json_depth = 10
max_messages = 5

[models.auto]
default_route = "cheap"
route_header = "x-route"
rules = [{ route = "dear", when = { metadata = { name = "tier", equals = "gold" } } }]
cache = { ttl = "1h", max_bytes = "1MiB" }
timeout = { limit = "1h" }
[models.auto.routes.cheap]
provider = "sim"
model = "gpt-4o-mini"
[models.auto.routes.dear]
provider = "sim"
model = "gpt-4o"
"#;

const HOSTILE: usize = 10_000;
const CLIENTS: usize = 16;

async fn gateway() -> Gateway {
    Launch::serve(&format!("{PROMPT_PROVIDER}\n{CONFIG}")).env("THROUGHLINE_LOG", "warn").start().await
}

/// The series on the page: names and labels, without the values.
async fn series(gateway: &Gateway) -> BTreeSet<String> {
    let page = gateway.scrape().await;
    page.samples().iter().map(|sample| format!("{} {:?}", sample.name, sample.labels)).collect()
}

fn word(random: &mut fastrand::Rng) -> String {
    let length = random.usize(1..24);
    std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
}

/// A body of every kind: valid, nearly valid and not at all.
fn body(random: &mut fastrand::Rng, kind: usize) -> String {
    let text = word(random);
    let mut valid = chat("auto", &text);
    match kind % 12 {
        0 => return text,
        1 => return String::new(),
        2 => return json!({ "model": text, "messages": [{ "content": "x" }] }).to_string(),
        3 => valid["stream"] = true.into(),
        4 => valid["metadata"] = json!({ "tier": "gold", word(random): text, "user_id": word(random) }),
        5 => valid["messages"] = json!([]),
        6 => valid["messages"] = vec![json!({ "role": text }); 6].into(),
        7 => valid["x"] = "x".repeat(5000).into(),
        8 => return format!("{{\"model\":\"auto\",\"x\":{}{}}}", "[".repeat(11), "]".repeat(11)),
        9 => valid["model"] = Value::from(random.u64(..)),
        10 => valid["messages"] = json!([{ "content": "the same" }]),
        _ => valid[word(random)] = text.into(),
    }
    valid["user"] = word(random).into();
    valid.to_string()
}

/// A request to the port of the metrics.
fn at_the_metrics(gateway: &Gateway, random: &mut fastrand::Rng) -> Request<Full<Bytes>> {
    let path = match random.usize(0..4) {
        0 => "/metrics".to_owned(),
        1 => "/readyz".to_owned(),
        2 => format!("/metrics?{}={}", word(random), word(random)),
        _ => format!("/{}/{}", word(random), word(random)),
    };
    let method =
        if random.bool() { Method::GET } else { Method::from_bytes(word(random).as_bytes()).unwrap() };
    let mut request = client::request(method, gateway.metrics.unwrap(), &path, word(random));
    request.headers_mut().insert("authorization", format!("Bearer {}", word(random)).parse().unwrap());
    request.headers_mut().insert("accept", word(random).parse().unwrap());
    request
}

/// Request number `number` of a hostile client.
fn hostile(gateway: &Gateway, number: usize) -> Request<Full<Bytes>> {
    let random = &mut fastrand::Rng::with_seed(number as u64);
    let (method, path) = match number % 11 {
        0 => (
            Method::from_bytes(word(random).to_uppercase().as_bytes()).unwrap(),
            "/v1/chat/completions".to_owned(),
        ),
        1 => (Method::POST, format!("/{}/{}?{}={}", word(random), word(random), word(random), word(random))),
        2 => (Method::GET, format!("/v1/models/{}", word(random))),
        3 => (Method::GET, format!("/v1/models?{}", word(random))),
        4 => return at_the_metrics(gateway, random),
        _ => (Method::POST, format!("/v1/chat/completions?{}", word(random))),
    };
    let mut request = client::request(method, gateway.address, &path, body(random, number / 11));
    let headers = request.headers_mut();
    for name in
        ["x-request-id", "x-route", "x-tenant", "x-user", "user-agent", "baggage", "tracestate", "host"]
    {
        if random.bool() {
            headers.insert(name, word(random).parse().unwrap());
        }
    }
    for (name, scheme) in [("authorization", "Bearer "), ("x-api-key", ""), ("proxy-authorization", "Basic ")]
    {
        if random.bool() {
            headers.insert(name, format!("{scheme}{}", word(random)).parse().unwrap());
        }
    }
    let parent = format!("00-{:032x}-{:016x}-01", random.u128(1..), random.u64(1..));
    headers.insert("traceparent", if random.bool() { parent } else { word(random) }.parse().unwrap());
    let name: http::HeaderName = format!("x-{}", word(random).to_lowercase()).parse().unwrap();
    headers.insert(name, word(random).parse().unwrap());
    request
}

async fn send(gateway: &Arc<Gateway>, numbers: std::ops::Range<usize>) -> usize {
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        let (gateway, client) = (Arc::clone(gateway), client::client());
        let numbers = numbers.clone().skip(first).step_by(CLIENTS);
        clients.spawn(async move {
            let mut answered = 0;
            for number in numbers {
                answered += usize::from(answer(&client, hostile(&gateway, number)).await);
            }
            answered
        });
    }
    clients.join_all().await.into_iter().sum()
}

/// Whether a request was answered: one that is refused half-way may lose its connection instead.
async fn answer(client: &HttpClient, request: Request<Full<Bytes>>) -> bool {
    use http_body_util::BodyExt as _;
    match client.request(request).await {
        Ok(answer) => answer.into_body().collect().await.is_ok(),
        Err(_) => false,
    }
}

/// Asks once for everything that there is, and makes once every mistake that has an answer of its own.
async fn warm_up(gateway: &Arc<Gateway>) {
    for route in [None, Some("cheap"), Some("dear"), Some("none-of-them")] {
        let headers: Vec<_> = route.iter().map(|route| ("x-route", *route)).collect();
        for prompt in ["first", "first"] {
            gateway.ask_with(&headers, chat("auto", &format!("{prompt} {route:?}"))).await;
        }
        let mut streamed = chat("auto", &format!("streamed {route:?}"));
        streamed["stream"] = true.into();
        gateway.ask_with(&headers, streamed).await;
    }
    for kind in 0..12 {
        gateway.ask(body(&mut fastrand::Rng::with_seed(kind as u64), kind)).await;
    }
    for (method, path) in [
        (Method::GET, "/v1/models"),
        (Method::GET, "/v1/models/auto"),
        (Method::GET, "/v1/models/none"),
        (Method::GET, "/v1/chat/completions"),
        (Method::POST, "/healthz"),
        (Method::GET, "/readyz"),
        (Method::GET, "/nowhere"),
    ] {
        gateway.send(method, path, "").await;
    }
    // What two of them at once do to each other.
    send(gateway, 0..500).await;
}

#[tokio::test]
async fn ten_thousand_hostile_requests_add_no_series_and_remove_none() {
    let gateway = Arc::new(gateway().await);
    warm_up(&gateway).await;
    let before = series(&gateway).await;
    let answered = send(&gateway, 1000..1000 + HOSTILE).await;
    assert!(answered > HOSTILE * 9 / 10, "{answered} were answered");
    let after = series(&gateway).await;
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert_eq!(changed, Vec::<&String>::new());
    assert!(after.len() < 1200, "{} series", after.len());
    assert_eq!(gateway.metric("telemetry_series_overflow_total", &[]).await, 0.0);
    let counted = gateway.metric("gateway_requests_total", &[]).await;
    assert!(counted >= answered as f64 * 0.9, "{counted} of {answered}, a part of which went to the metrics");
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
    let log = Arc::into_inner(gateway).expect("all callers are gone").stop().await.stderr;
    assert_eq!(log, "", "hostile requests write nothing into the log");
}

async fn ask_on(stream: &mut TcpStream, body: &str) {
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.unwrap();
}

/// Reads up to the end of one answer of the prompt provider.
async fn answered_on(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    while !said.ends_with(b"}}}") {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_thousand_connections_are_served_at_once() {
    let gateway = gateway().await;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(TcpStream::connect(gateway.address).await.unwrap());
    }
    let all = tokio::time::timeout(process::PATIENCE, async {
        for round in 0..2 {
            for (number, stream) in streams.iter_mut().enumerate() {
                ask_on(stream, &chat("auto", &format!("{round} {number}")).to_string()).await;
            }
            for stream in &mut streams {
                let said = answered_on(stream).await;
                assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
            }
        }
    });
    all.await.expect("nobody waits for ever");
    assert_eq!(gateway.metric("gateway_requests_total", &[("code", "200")]).await, 2000.0);
}

#[tokio::test]
async fn five_hundred_silent_connections_do_not_keep_others_waiting() {
    let gateway = gateway().await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nx-a: ").await.unwrap();
        silent.push(stream);
    }
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), gateway.ask(chat("auto", "hi")));
    assert_eq!(answer.await.expect("it is not kept waiting").status, 200);
}
