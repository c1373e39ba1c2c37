//! Clients that go away, ports that are taken, and the end of the process.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use process::client::{chat, get, rest};
use process::upstream::{Step, answer, piece, stream_end, stream_head};
use process::{Gateway, Launch, Upstream, prompt_config, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

const COMPLETION: &str = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const LIMITS: &str = "cache = { ttl = \"1h\" }\ntimeout = { limit = \"1h\" }\n";

async fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    let config = upstream
        .config()
        .replace("[models.auto.routes", &format!("[models.auto]\n{LIMITS}[models.auto.routes"));
    Launch::serve(&format!("{more}\n{config}")).env("UPSTREAM_KEY", "sk-1").start().await
}

/// Sends a chat request on a connection of its own, to be dropped at will.
async fn connect_and_ask(address: SocketAddr, body: &Value) -> TcpStream {
    let (mut stream, body) = (TcpStream::connect(address).await.unwrap(), body.to_string());
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

fn streamed() -> Value {
    let mut body = chat("auto", "hi");
    body["stream"] = true.into();
    body
}

/// The provider, which would have gone on for ever, was let go at once and everything is accounted for.
async fn was_let_go(upstream: &Upstream, gateway: &Gateway, since: Instant) {
    until("the call to be cancelled", async || (upstream.hung_up() == 1).then_some(())).await;
    assert!(since.elapsed() < Duration::from_secs(2), "100 ms are promised, it took {:?}", since.elapsed());
    gateway
        .settles("gateway_requests_total", &[("route", "/v1/chat/completions"), ("code", "499")], 1.0)
        .await;
    let page = gateway.scrape().await;
    assert_eq!(page.sum("gateway_requests_total", &[]), Some(1.0), "it is counted once");
    let runs = |labels: &[(&str, &str)]| page.sum("throughline_primitive_duration_seconds_count", labels);
    assert_eq!(runs(&[("primitive", "gateway"), ("outcome", "cancelled")]), Some(1.0));
    assert_eq!(runs(&[("primitive", "chat"), ("outcome", "cancelled")]), Some(1.0));
    assert_eq!(page.sum("throughline_primitive_in_flight", &[]), Some(0.0));
    assert_eq!(page.sum("gateway_in_flight_requests", &[]), Some(0.0));
    assert_eq!(page.sum("timeout_failures_total", &[]), Some(0.0), "nobody was late");
}

#[tokio::test]
async fn a_client_that_leaves_takes_the_call_to_the_provider_with_it() {
    let upstream = Upstream::start(|_| vec![Step::Hold]).await;
    let gateway = gateway(&upstream, "").await;
    let client = connect_and_ask(gateway.address, &chat("auto", "hi")).await;
    upstream.sees(1).await;
    drop(client);
    was_let_go(&upstream, &gateway, Instant::now()).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_it_at_the_provider() {
    let upstream = Upstream::start(|_| vec![stream_head(), piece(EVENT), Step::Hold]).await;
    let gateway = gateway(&upstream, "").await;
    let mut client = connect_and_ask(gateway.address, &streamed()).await;
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("Hi") {
        assert!(client.read_buf(&mut said).await.unwrap() > 0);
    }
    drop(client);
    was_let_go(&upstream, &gateway, Instant::now()).await;
}

#[tokio::test]
async fn requests_in_flight_are_answered_before_the_end_and_spans_are_delivered() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let upstream = Upstream::start(move |seen| {
        let wait = Step::Wait(Arc::clone(&gate));
        if seen.head.contains("text/event-stream") {
            return vec![stream_head(), piece(EVENT), wait, piece("data: [DONE]\n\n"), stream_end()];
        }
        [vec![wait], answer("200 OK", "", COMPLETION)].concat()
    })
    .await;
    let gateway = Launch::serve(&upstream.config())
        .env("UPSTREAM_KEY", "sk-1")
        .env("OTEL_TRACES_EXPORTER", "console")
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000")
        .start()
        .await;
    let address = gateway.address;
    let mut plain = connect_and_ask(address, &chat("auto", "hi")).await;
    let mut stream = connect_and_ask(address, &streamed()).await;
    upstream.sees(2).await;
    gateway.terminate();
    until("new connections to be refused", async || TcpStream::connect(address).await.err()).await;
    permits.add_permits(2);
    let (plain, stream) = (rest(&mut plain).await, rest(&mut stream).await);
    assert!(plain.starts_with("HTTP/1.1 200 ") && plain.ends_with(COMPLETION), "{plain}");
    assert!(stream.starts_with("HTTP/1.1 200 ") && stream.contains("[DONE]"), "{stream}");
    let ended = gateway.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let spans = ended.stderr.lines().filter(|line| line.starts_with("span POST /v1/chat/completions "));
    assert_eq!(spans.count(), 2, "{}", ended.stderr);
    assert!(!ended.stderr.contains("cut off") && !ended.stderr.contains("WARN"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_request_that_outlives_the_drain_timeout_is_cut_off_and_the_end_is_still_orderly() {
    let upstream = Upstream::start(|_| vec![Step::Hold]).await;
    let gateway = gateway(&upstream, "[server]\ndrain_timeout = \"100ms\"").await;
    let mut client = connect_and_ask(gateway.address, &chat("auto", "hi")).await;
    upstream.sees(1).await;
    let ended = gateway.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the drain timeout passed with requests still in flight"),
        "{}",
        ended.stderr
    );
    assert_eq!(rest(&mut client).await, "");
    until("the call to be cancelled", async || (upstream.hung_up() == 1).then_some(())).await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let gateway = Launch::serve(&prompt_config("[server]\ndrain_timeout = \"1h\"")).start().await;
    let silent = TcpStream::connect(gateway.address).await.unwrap();
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
    let ended = gateway.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    drop(silent);
}

#[tokio::test]
async fn a_taken_port_for_the_gateway_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = Launch::new(&[
        "serve",
        "--config",
        "c.toml",
        "--listen",
        &address,
        "--metrics-listen",
        "127.0.0.1:0",
    ]);
    let ended = serve.file("c.toml", &prompt_config("")).finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with(&format!("cannot listen on {address}: ")), "{last}");
    assert!(last.ends_with("; choose another with --listen"), "{last}");
}

#[tokio::test]
async fn a_taken_port_for_metrics_degrades_telemetry_and_nothing_else_until_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let gateway = Launch::serve_with_metrics_on(address, &prompt_config("")).start().await;
    assert_eq!(gateway.metrics, None);
    assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
    let ready = gateway.send(Method::GET, "/readyz", "").await;
    assert_eq!(ready.status, 200, "it takes requests");
    let ready = ready.json();
    assert_eq!(ready["status"], "degraded");
    let part = &ready["degraded"][0];
    assert_eq!(part["part"], "metrics");
    assert!(humantime::parse_rfc3339(part["since"].as_str().unwrap()).is_ok(), "{part}");
    let reason = part["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(&format!("metrics port {address}: ")) && reason.contains("in use"),
        "{reason}"
    );
    let said = || gateway.log().matches("telemetry is degraded").count();
    until("a line in the log", async || (said() > 0).then_some(())).await;
    assert_eq!(said(), 1, "it is said once: {}", gateway.log());

    drop(taken);
    let ready = json!({ "status": "ready", "degraded": [] });
    until("metrics to be served", async || {
        (gateway.send(Method::GET, "/readyz", "").await.json() == ready).then_some(())
    })
    .await;
    let page = String::from_utf8(get(address, "/metrics").await.body.to_vec()).unwrap();
    assert!(page.contains("apm_init_success{signal=\"metrics\"} 1\n"), "{page}");
    assert!(
        page.contains("gateway_requests_total{route=\"/v1/chat/completions\",code=\"200\"} 1\n"),
        "{page}"
    );
}

#[tokio::test]
async fn a_receiver_of_traces_that_is_gone_costs_nobody_an_answer() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let gateway = Launch::serve(&prompt_config(""))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{nobody}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_BSP_SCHEDULE_DELAY", "10")
            .start()
            .await;
        assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
        let lost = async || {
            (gateway.metric("apm_export_failures_total", &[("signal", "traces")]).await > 0.0).then_some(())
        };
        until("the loss to be counted", lost).await;
        assert_eq!(gateway.ask(chat("auto", "again")).await.status, 200);
        let said = || gateway.log().matches("spans do not reach").count();
        until("a line in the log", async || (said() > 0).then_some(())).await;
        assert_eq!(said(), 1, "{}", gateway.log());
        let ready = gateway.send(Method::GET, "/readyz", "").await;
        assert_eq!((ready.status, &ready.json()["status"]), (200, &"degraded".into()), "{}", ready.text());
        let reason = format!("spans do not reach {nobody}: it refused the connection");
        assert_eq!(ready.json()["degraded"][0]["reason"], reason.as_str());
        assert_eq!(gateway.stop().await.code, Some(0));
    }
}
