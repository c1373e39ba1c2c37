//! Observability switched off and on again: the gateway answers the same.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::net::{SocketAddr, TcpListener};

use process::{Answer, Gateway, Launch, PROMPT_PROVIDER, chat};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const CONFIG: &str = r#"
[providers.broken.simulated]
latency = { p50 = "1ms", p99 = "1ms" }
faults = { error_rate = 1.0, error_status = 429 }

[providers.stuck.simulated]
faults = { hang_rate = 1.0 }

[models.auto]
default_route = "cheap"
baseline = "dear"
rules = [{ route = "dear", when = { prompt_chars_at_least = 100 } }]
cache = { ttl = "1h" }
timeout = { limit = "1h" }
[models.auto.routes.cheap]
provider = "sim"
model = "gpt-4o-mini"
[models.auto.routes.dear]
provider = "sim"
model = "gpt-4o"

[models.broken.routes.only]
provider = "broken"
model = "x"

[models.stuck]
timeout = { limit = "20ms" }
[models.stuck.routes.only]
provider = "stuck"
model = "x"
"#;

const OFF: [(&str, &str); 5] = [
    ("ENABLE_OBSERVABILITY", "false"),
    ("ENABLE_OBSERVABILITY", "0"),
    ("ENABLE_APM", "false"),
    ("OTEL_SDK_DISABLED", "true"),
    ("OTEL_SDK_DISABLED", "TRUE"),
];

fn launch() -> Launch {
    launch_with_metrics_on(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn launch_with_metrics_on(metrics: SocketAddr) -> Launch {
    Launch::serve_with_metrics_on(metrics, &format!("{PROMPT_PROVIDER}\n{CONFIG}"))
}

/// Everything in an answer that a client can see, without what differs from one answer to the next.
fn shown(answer: &Answer) -> String {
    let mut body = String::from_utf8(answer.body.to_vec()).unwrap();
    for name in ["\"id\":\"chatcmpl-sim-", "\"created\":"] {
        let pieces: Vec<_> = body.split(name).map(str::to_owned).collect();
        let rest =
            pieces[1..].iter().map(|piece| piece.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
        body = pieces[..1].iter().map(String::as_str).chain(rest).collect::<Vec<_>>().join(name);
    }
    let mut headers = answer.headers.clone();
    for name in ["date", "x-request-id", "x-throughline-trace-id"] {
        if let Some(value) = headers.get_mut(name) {
            let length = value.len();
            *value = "~".repeat(length).parse().unwrap();
        }
    }
    format!("{}\n{headers:?}\n{body}", answer.status)
}

/// One request of every kind.
async fn everything(gateway: &Gateway) -> Vec<String> {
    let mut shows = Vec::new();
    let mut streamed = chat("auto", "Which day is it?");
    streamed["stream"] = true.into();
    let mut with_usage = streamed.clone();
    with_usage["stream_options"] = json!({ "include_usage": true });
    let bodies: Vec<Value> = vec![
        chat("auto", "Which day is it?"),
        chat("auto", "Which day is it?"),
        chat("auto", &"Which day is it? ".repeat(10)),
        streamed,
        with_usage,
        chat("broken", "hi"),
        chat("stuck", "hi"),
        chat("none", "hi"),
        json!({ "model": "auto", "messages": [] }),
    ];
    for body in bodies {
        shows.push(shown(&gateway.ask(body).await));
    }
    for path in ["/v1/models", "/healthz", "/readyz", "/none"] {
        shows.push(shown(&gateway.send(http::Method::GET, path, "").await));
    }
    shows
}

#[tokio::test]
async fn every_answer_is_the_same_with_observability_off() {
    let gateway = launch().start().await;
    let expected = everything(&gateway).await;
    assert!(expected[1].contains("\"x-throughline-cache\": \"hit\""), "{}", expected[1]);
    for (name, value) in OFF {
        let gateway = launch().env(name, value).start().await;
        let found = everything(&gateway).await;
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "{name}={value}");
        }
    }
}

#[tokio::test]
async fn off_means_no_listener_no_spans_and_one_line_in_the_log() {
    for (name, value) in OFF {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let gateway = launch_with_metrics_on(free)
            .env(name, value)
            .env("OTEL_TRACES_EXPORTER", "console")
            .start()
            .await;
        assert_eq!(gateway.ask(chat("auto", "hi")).await.status, 200);
        assert!(gateway.stdout().ends_with("metrics off\n"), "{}", gateway.stdout());
        assert!(
            TcpStream::connect(free).await.is_err(),
            "{name}={value}: something listens on the metrics port"
        );
        let ended = gateway.stop().await;
        assert_eq!(ended.code, Some(0));
        let said: Vec<_> =
            ended.stderr.lines().filter(|line| line.contains("observability is off")).collect();
        assert_eq!(said.len(), 1, "{}", ended.stderr);
        assert!(said[0].contains(name) && said[0].contains("everything else works as usual"), "{}", said[0]);
        assert!(!ended.stderr.contains("span "), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn it_can_be_switched_on_again() {
    for (name, value) in [
        ("ENABLE_OBSERVABILITY", "true"),
        ("ENABLE_APM", "1"),
        ("OTEL_SDK_DISABLED", "false"),
        ("ENABLE_OBSERVABILITY", ""),
    ] {
        let gateway = launch().env(name, value).start().await;
        everything(&gateway).await;
        assert_eq!(gateway.metric("cache_hits_total", &[("operation", "auto")]).await, 1.0, "{name}={value}");
    }
    let overruled = launch().env("ENABLE_OBSERVABILITY", "true").env("ENABLE_APM", "false").start().await;
    assert!(overruled.metrics.is_some(), "ENABLE_OBSERVABILITY decides");
}
