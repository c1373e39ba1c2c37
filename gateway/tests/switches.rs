//! Observability switched off and on again: the gateway answers the same.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::net::{SocketAddr, TcpListener};

use process::upstream::{Seen, answer};
use process::{Answer, Gateway, Launch, PROMPT_PROVIDER, Step, Upstream, chat, client};
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

const OFF: [(&str, &str); 7] = [
    ("ENABLE_OBSERVABILITY", "false"),
    ("ENABLE_OBSERVABILITY", " FALSE "),
    ("ENABLE_OBSERVABILITY", "0"),
    ("ENABLE_APM", "false"),
    ("ENABLE_APM", "no"),
    ("OTEL_SDK_DISABLED", "true"),
    ("OTEL_SDK_DISABLED", "TRUE"),
];

/// Values that switch nothing.
const UNCLEAR: [(&str, &str); 3] =
    [("ENABLE_OBSERVABILITY", "perhaps"), ("ENABLE_APM", "nein"), ("OTEL_SDK_DISABLED", "1")];

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

const COMPLETION: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1764201600,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#;

/// In one piece, so that it comes in one: what came together is passed on together.
const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 134\r\n\r\n\
    data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n\
    data: [DONE]\n\n";

fn provider(seen: &Seen) -> Vec<Step> {
    let asked = String::from_utf8_lossy(&seen.body).into_owned();
    match () {
        () if asked.contains("fail") => answer("503 No", "retry-after: 120\r\n", "{}"),
        () if asked.contains("wrong") => answer("400 No", "", r#"{"error":{"message":"too long"}}"#),
        () if asked.contains("\"stream\"") => vec![Step::Send(STREAM.into())],
        () => answer("200 OK", "", COMPLETION),
    }
}

/// Every byte that comes back for `bodies`, but for those of the date: with an id and a trace that the client has
/// chosen, nothing else differs from one answer to the next.
async fn every_byte(gateway: &Gateway, bodies: &[&str]) -> Vec<String> {
    let mut answers = Vec::new();
    for body in bodies {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx-request-id: order-66\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let said = client::raw(gateway.address, request.as_bytes()).await;
        let (before, rest) = said.split_once("date: ").expect("an answer has a date");
        let (_, after) = rest.split_once("\r\n").expect("a header has an end");
        answers.push(format!("{before}date: ~\r\n{after}"));
    }
    answers
}

#[tokio::test]
async fn not_a_byte_of_an_answer_depends_on_the_switches() {
    const BODIES: [&str; 7] = [
        r#"{"model":"auto","messages":[{"role":"user","content":"hello"}]}"#,
        r#"{"model":"auto","messages":[{"role":"user","content":"hello"}]}"#,
        r#"{"model":"auto","stream":true,"messages":[{"role":"user","content":"hello again"}]}"#,
        r#"{"model":"auto","messages":[{"role":"user","content":"fail"}]}"#,
        r#"{"model":"auto","messages":[{"role":"user","content":"wrong"}]}"#,
        r#"{"model":"none","messages":[{"role":"user","content":"hello"}]}"#,
        "no json",
    ];
    let upstream = Upstream::start(provider).await;
    let config = format!(
        "{}retry = {{ attempts = 2, first_delay = \"1ms\", longest_delay = \"1ms\" }}\n\
         [models.auto.cache]\nttl = \"1h\"\n",
        upstream.config()
    );
    let start = async |variables: &[(&str, &str)]| {
        let launch = Launch::serve(&config).env("UPSTREAM_KEY", "k");
        variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start().await
    };
    let traced = [("OTEL_TRACES_EXPORTER", "console")];
    let expected = every_byte(&start(&traced).await, &BODIES).await;
    assert!(expected[0].contains("x-request-id: order-66\r\n"), "{}", expected[0]);
    assert!(expected[0].contains("x-throughline-trace-id: 4bf92f3577b34da6a3ce929d0e0e4736\r\n"));
    assert!(expected[1].contains("x-throughline-cache: hit\r\n"), "{}", expected[1]);
    let status = |answer: &String| answer.split(' ').nth(1).map(str::to_owned);
    let statuses: Vec<_> = expected.iter().filter_map(status).collect();
    assert_eq!(statuses, ["200", "200", "200", "502", "400", "404", "400"]);
    for switch in OFF.into_iter().chain(UNCLEAR) {
        let found = every_byte(&start(&[switch, traced[0]]).await, &BODIES).await;
        assert_eq!(found, expected, "{switch:?}");
    }
    assert_eq!(every_byte(&start(&[]).await, &BODIES).await, expected, "nor on where spans go");
}

#[tokio::test]
async fn a_switch_that_says_neither_is_a_warning_and_switches_nothing() {
    for (name, value) in UNCLEAR {
        let gateway = launch().env(name, value).start().await;
        assert!(gateway.metrics.is_some(), "{name}={value}");
        let ended = gateway.stop().await;
        let said: Vec<_> = ended.stderr.lines().filter(|line| line.contains(name)).collect();
        assert_eq!(said.len(), 1, "{}", ended.stderr);
        assert!(said[0].contains("WARN") && said[0].contains("is not true or false: ignored"), "{}", said[0]);
    }
}

/// The ports that the process `pid` listens on.
#[cfg(target_os = "linux")]
fn listening(pid: u32) -> Vec<u16> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (_, port) = fields[1].rsplit_once(':').unwrap();
            if fields[3] == "0A" && sockets.iter().any(|inode| inode == fields[9]) {
                ports.push(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    ports
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn off_it_listens_for_requests_and_for_nothing_else() {
    let on = launch().start().await;
    let expected = [on.address.port(), on.metrics.unwrap().port()];
    let mut found = listening(on.pid());
    found.sort_unstable_by_key(|port| expected.iter().position(|other| other == port));
    assert_eq!(found, expected, "what this test looks at is there");
    for (name, value) in OFF {
        let off = launch().env(name, value).start().await;
        assert_eq!(listening(off.pid()), [off.address.port()], "{name}={value}");
    }
}

#[tokio::test]
async fn it_can_be_switched_on_again() {
    for (name, value) in [
        ("ENABLE_OBSERVABILITY", "true"),
        ("ENABLE_APM", "1"),
        ("OTEL_SDK_DISABLED", "false"),
        ("OTEL_SDK_DISABLED", "0"),
        ("ENABLE_OBSERVABILITY", ""),
    ] {
        let gateway = launch().env(name, value).start().await;
        everything(&gateway).await;
        assert_eq!(gateway.metric("cache_hits_total", &[("operation", "auto")]).await, 3.0, "{name}={value}");
    }
    let mut gateway = launch().env("ENABLE_OBSERVABILITY", "false").start().await;
    let off = everything(&gateway).await;
    gateway = launch().start().await;
    assert_eq!(everything(&gateway).await, off, "the same program, started again without the variable");
    assert!(gateway.metric("gateway_requests_total", &[]).await > 0.0);
    let overruled = launch().env("ENABLE_OBSERVABILITY", "true").env("ENABLE_APM", "false").start().await;
    assert!(overruled.metrics.is_some(), "ENABLE_OBSERVABILITY decides");
}
