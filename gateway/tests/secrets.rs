//! Secrets of every kind in everything that clients and providers say, and none of them in what the gateway tells others:
//! metrics, spans, logs, errors.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
mod receiver;

use std::fs;

use http::Method;
use process::client::{self, Answer, request, send};
use process::upstream::{Seen, Step, answer, piece, stream_end, stream_head};
use process::{Gateway, Launch, Upstream, chat, until};
use receiver::Receiver;
use serde_json::{Value, json};

const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":10,"completion_tokens":2}}"#;

/// A secret as it is written somewhere, and the part of it that must be found nowhere else.
#[derive(Clone, Debug)]
struct Secret {
    written: String,
    needle: String,
}

/// Where secrets are put. Those of one place are like no other's, so that a leak tells where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Prompt,
    System,
    Model,
    Path,
    Query,
    RequestId,
    Authorization,
    ApiKeyHeader,
    UserAgent,
    TraceParent,
    TraceState,
    Baggage,
    RouteHeader,
    Failure,
    FailureHeader,
    Refusal,
    RefusalType,
    RefusalParam,
    RefusalCode,
    LongRefusal,
    StreamError,
    Garbage,
    StreamGarbage,
}

const PLACES: [Place; 23] = [
    Place::Prompt,
    Place::System,
    Place::Model,
    Place::Path,
    Place::Query,
    Place::RequestId,
    Place::Authorization,
    Place::ApiKeyHeader,
    Place::UserAgent,
    Place::TraceParent,
    Place::TraceState,
    Place::Baggage,
    Place::RouteHeader,
    Place::Failure,
    Place::FailureHeader,
    Place::Refusal,
    Place::RefusalType,
    Place::RefusalParam,
    Place::RefusalCode,
    Place::LongRefusal,
    Place::StreamError,
    Place::Garbage,
    Place::StreamGarbage,
];

// === impl Place ===

impl Place {
    /// A secret of each kind, put together here so that no scanner takes this file for a leak.
    fn secrets(self) -> Vec<Secret> {
        let n = self as usize;
        let tail = format!("a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8{n:04}");
        let letters: String =
            format!("{n:03}").bytes().map(|digit| char::from(digit - b'0' + b'B')).collect();
        let mut secrets = vec![
            whole(format!("ann.lee{n}@mail.example.org")),
            whole(format!("+44 20 7644 {}", 7000 + n)),
            whole(card(n)),
            whole(iban(n)),
            whole(format!("460-89-{}", 9000 + n)),
            whole(format!("86.121.97.{}", 20 + n)),
            whole(format!("2001:db8::8a2e:370:{}", 7300 + n)),
            whole(["sk-proj-", &tail].concat()),
            whole(["sk-ant-api03-", &tail].concat()),
            whole(["gsk_", &tail, &tail[..12]].concat()),
            whole(["AKIA", "IOSFODNN7EXAM", &letters].concat()),
            whole(["AIza", "eB6veWzSmA3y_nXL_cPZKcuzPrR2BIm", &format!("{n:04}")].concat()),
            whole(["ghp_", &tail[..32], &format!("{n:04}")].concat()),
            whole(["xoxb-", "825266588433-22822179", &format!("{n:05}"), "-MYUSRuMibw"].concat()),
            whole(["sk_live_", &tail].concat()),
            whole(jwt(n)),
        ];
        let password = format!("Tr0ub4dor{n:03}x");
        secrets.push(Secret { written: format!("password={password}"), needle: password.clone() });
        let url = format!("postgres://ann:{password}9@db:5432/orders");
        secrets.push(Secret { written: url, needle: format!("{password}9") });
        let body = format!("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj{n:04}");
        let (begin, end) =
            (["-----BEGIN PRIVATE ", "KEY-----"].concat(), ["-----END PRIVATE ", "KEY-----"].concat());
        secrets.push(Secret { written: format!("{begin}\\n{body}\\n{end}"), needle: body });
        secrets
    }

    /// All of them in one text.
    fn text(self) -> String {
        self.secrets().iter().map(|secret| format!("see {}, please; ", secret.written)).collect()
    }
}

fn whole(written: String) -> Secret {
    Secret { needle: written.clone(), written }
}

fn card(n: usize) -> String {
    let digits = format!("401288888888{n:03}");
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(digit - b'0')) {
            (0, digit @ 5..) => 2 * digit - 9,
            (0, digit) => 2 * digit,
            (_, digit) => digit,
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

fn iban(n: usize) -> String {
    let account = format!("WEST123456{:08}", 98_765_000 + n);
    let rest = format!("{account}GB00").bytes().fold(0_u64, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u64::from(byte - b'0')) % 97,
        letter => (rest * 100 + u64::from(letter - b'A') + 10) % 97,
    });
    format!("GB{:02}{account}", 98 - rest)
}

fn jwt(n: usize) -> String {
    let payload = ["eyJzdWIiOiIx", ["MjM0", "MjM1", "MjM2", "MjM3"][n % 4], "In0"].concat();
    format!("{}.{payload}.c2lnbmF0dXJl{n:04}", ["eyJhbGciOiJI", "UzI1NiJ9"].concat())
}

/// What a provider answers, by the model that is asked for.
fn provider(seen: &Seen) -> Vec<Step> {
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    let streamed = body["stream"] == true;
    let failure =
        |place: Place| json!({ "error": { "message": place.text(), "type": "server_error" } }).to_string();
    match body["model"].as_str().unwrap() {
        "failing" => {
            let keys = Place::FailureHeader.secrets();
            let headers: String = keys
                .iter()
                .map(|secret| format!("x-debug: {}\r\nset-cookie: a={}\r\n", secret.written, secret.written))
                .collect();
            answer("503 Service Unavailable", &headers, &failure(Place::Failure))
        }
        "refusing" => {
            let of = |place: Place| place.text();
            let error = json!({ "error": {
                "message": of(Place::Refusal), "type": of(Place::RefusalType), "param": of(Place::RefusalParam), "code": of(Place::RefusalCode),
            } });
            answer("400 Bad Request", "", &error.to_string())
        }
        // Each secret may stand where the message is cut.
        "refusing-long" => {
            let at: usize = body["metadata"]["at"].as_str().unwrap().parse().unwrap();
            let secret = &Place::LongRefusal.secrets()[at];
            let message = format!("{} {}", "x".repeat(1024 - secret.written.len() / 2), secret.written);
            answer("400 Bad Request", "", &json!({ "error": { "message": message } }).to_string())
        }
        "breaking" if streamed => vec![
            stream_head(),
            piece(CONTENT),
            piece(&format!("data: {}\n\n", failure(Place::StreamError))),
            stream_end(),
        ],
        "garbage" if streamed => vec![
            stream_head(),
            piece(CONTENT),
            piece(&format!(
                "event: {}\ndata: {}\n\n",
                Place::StreamGarbage.text(),
                Place::StreamGarbage.text()
            )),
            Step::Close,
        ],
        "breaking" | "garbage" => answer("200 OK", "", &Place::Garbage.text()),
        _ if streamed => vec![stream_head(), piece(CONTENT), piece(DONE), stream_end()],
        _ => answer("200 OK", "", COMPLETION),
    }
}

const MODELS: [&str; 5] = ["good", "failing", "refusing", "breaking", "garbage"];

fn config(upstream: &Upstream, log: &str) -> String {
    let mut config = format!(
        "[log]\nfile = \"{log}\"\naccess = true\nmax_repeats = 1000000\n\
         [providers.up.openai]\nbase_url = \"http://{}/v1\"\napi_key = \"env:UPSTREAM_KEY\"\n",
        upstream.address
    );
    for model in MODELS.iter().chain(&["refusing-long"]) {
        config += &format!(
            "[models.{model}]\ncache = {{ ttl = \"1h\" }}\ntimeout = {{ limit = \"10s\" }}\nroute_header = \"x-route\"\n\
             default_route = \"only\"\nfallback = [\"spare\"]\n\
             [models.{model}.routes.only]\nprovider = \"up\"\nmodel = \"{model}\"\n\
             retry = {{ attempts = 2, first_delay = \"1ms\", longest_delay = \"1ms\" }}\n\
             circuit_breaker = {{ }}\n\
             [models.{model}.routes.spare]\nprovider = \"up\"\nmodel = \"{model}\"\n"
        );
    }
    config
}

/// Errors that clients were told, whole and in streams.
#[derive(Default)]
struct Told {
    errors: String,
    answers: usize,
}

impl Told {
    fn take(&mut self, answer: &Answer) {
        self.answers += 1;
        let body = String::from_utf8_lossy(&answer.body);
        if answer.status >= 400 {
            self.errors += &body;
            self.errors.push('\n');
        }
        for event in body.split("\n\n").filter(|event| event.contains("\"error\"")) {
            self.errors += event;
            self.errors.push('\n');
        }
    }
}

fn body(model: &str, place: usize, streamed: bool) -> Value {
    let mut body = chat(model, &format!("{place} {}", Place::Prompt.text()));
    body["messages"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({ "role": "system", "content": Place::System.text() }));
    body["user"] = Place::System.secrets()[0].written.clone().into();
    body["stream"] = streamed.into();
    body
}

/// Every way through the gateway, with secrets in everything that is said.
async fn everything(gateway: &Gateway) -> Told {
    let mut told = Told::default();
    let trace = |n: usize| format!("00-{n:032x}-{n:016x}-01");
    let headers = |n: usize| -> Vec<(&'static str, String)> {
        let one = |place: Place| {
            let secrets = place.secrets();
            secrets[n % secrets.len()].written.clone()
        };
        vec![
            ("authorization", format!("Bearer {}", one(Place::Authorization))),
            ("x-api-key", one(Place::ApiKeyHeader)),
            ("x-request-id", one(Place::RequestId)),
            ("user-agent", one(Place::UserAgent)),
            (
                "traceparent",
                if n.is_multiple_of(2) {
                    trace(n + 1)
                } else {
                    format!("00-{}-1-01", one(Place::TraceParent))
                },
            ),
            ("tracestate", format!("vendor={}", one(Place::TraceState))),
            ("baggage", format!("user={},key={}", one(Place::Baggage), one(Place::Baggage))),
            ("x-route", if n.is_multiple_of(3) { one(Place::RouteHeader) } else { "only".to_owned() }),
        ]
    };
    let kinds = Place::Prompt.secrets().len();
    for model in MODELS {
        for streamed in [false, true] {
            for n in 0..kinds {
                let headers = headers(n);
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                told.take(&gateway.ask_with(&headers, body(model, n, streamed)).await);
                if n == 0 {
                    // From the cache, where there is something in it.
                    told.take(&gateway.ask_with(&headers, body(model, n, streamed)).await);
                }
            }
        }
    }
    for n in 0..kinds {
        let model = &Place::Model.secrets()[n].written;
        told.take(&gateway.ask_with(&[("x-request-id", "fine")], body(model, n, n % 2 == 0)).await);
        let mut long = body("refusing-long", n, false);
        long["metadata"] = json!({ "at": n.to_string() });
        told.take(&gateway.ask(long).await);
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let (path, query) = (&Place::Path.secrets()[n].written, &Place::Query.secrets()[n].written);
        for (path, query) in [
            (path.replace([' ', '\\'], "-"), query.replace([' ', '\\'], "-")),
            (escaped(path), escaped(query)),
        ] {
            for path in [format!("/v1/models/{path}"), format!("/{path}"), "/v1/chat/completions".to_owned()]
            {
                let uri = format!("{path}?key={query}&token={query}");
                told.take(&send(&client::client(), request(Method::GET, gateway.address, &uri, "")).await);
            }
        }
        told.take(
            &gateway.ask(format!("{{\"model\": \"good\", \"messages\": {}", Place::Prompt.text())).await,
        );
        told.take(&gateway.ask(json!({ "model": "good", "messages": Place::Prompt.text() })).await);
    }
    told
}

/// Everything in `text` that must not be there.
fn leaks(sink: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for place in PLACES {
        for Secret { needle, .. } in place.secrets() {
            if let Some(at) = text.find(&needle) {
                let from = text.floor_char_boundary(at.saturating_sub(100));
                let to = text.ceil_char_boundary((at + 100).min(text.len()));
                found.push(format!("{sink} shows {needle:?} of {place:?}: …{}…", &text[from..to]));
            }
        }
    }
    found
}

/// What /metrics says in the format that `accept` asks for.
async fn page(gateway: &Gateway, accept: &str) -> String {
    let mut scrape = request(Method::GET, gateway.metrics.unwrap(), "/metrics", "");
    scrape.headers_mut().insert("accept", accept.parse().unwrap());
    String::from_utf8(send(&client::client(), scrape).await.body.to_vec()).unwrap()
}

async fn leaks_nothing(level: &str) {
    let upstream = Upstream::start(provider).await;
    let receiver = Receiver::http().await;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let key = ["sk-proj-", "oWn0K3yOfTh1sGat3way0123456789abcdefXYZ"].concat();
    let gateway = Launch::serve(&config(&upstream, log.to_str().unwrap()))
        .env("UPSTREAM_KEY", &key)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "100000")
        .env("THROUGHLINE_LOG", level)
        .env("RUST_BACKTRACE", "1")
        .start()
        .await;
    let told = everything(&gateway).await;
    let text = page(&gateway, "text/plain").await;
    let openmetrics = page(&gateway, "application/openmetrics-text;version=1.0.0").await;
    let ended = gateway.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let log = fs::read_to_string(log).unwrap();
    until("the spans", async || (receiver.ids().len() > 100).then_some(())).await;
    let spans = receiver.dump();

    let sinks = [
        ("/metrics as text", &text),
        ("/metrics as OpenMetrics", &openmetrics),
        ("the spans", &spans),
        ("the log", &log),
        ("standard error", &ended.stderr),
        ("the errors", &told.errors),
    ];
    let found: Vec<_> = sinks.iter().flat_map(|(sink, text)| leaks(sink, text)).collect();
    assert!(found.is_empty(), "{} leaks at level {level}:\n{}", found.len(), found.join("\n"));
    for (sink, text) in sinks {
        assert!(!text.contains(&key[8..]), "{sink} shows the key for the provider");
    }

    // It was all there to be leaked, and something was taken out at each sink that repeats words of others.
    let seen = upstream.seen();
    assert!(seen.len() > 100 && told.answers > 200, "{} requests, {} answers", seen.len(), told.answers);
    let card = &Place::Prompt.secrets()[2].needle;
    assert!(
        seen.iter().any(|seen| String::from_utf8_lossy(&seen.body).contains(card)),
        "prompts arrive whole"
    );
    assert!(log.contains("[REDACTED:") && told.errors.contains("[REDACTED:"));
    for kind in ["email", "phone", "card", "iban", "ssn", "ip", "api_key", "cloud_key", "jwt", "private_key"]
    {
        let count =
            text.lines().find_map(|line| line.strip_prefix(&format!("redactions_total{{kind=\"{kind}\"}} ")));
        assert!(count.is_some_and(|count| count != "0"), "nothing of kind {kind} was taken out");
    }
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn no_secret_of_a_client_or_a_provider_is_in_metrics_spans_logs_or_errors() {
    leaks_nothing("info").await;
}

#[tokio::test]
async fn nor_is_one_when_everything_is_logged_that_there_is() {
    leaks_nothing("trace").await;
}

#[test]
fn every_secret_is_known_as_one_and_every_needle_is_in_what_is_written() {
    let redactor = throughline::redact::Redactor::standard();
    for secret in PLACES.into_iter().flat_map(Place::secrets) {
        assert!(secret.written.contains(&secret.needle));
        let left = redactor.text(&secret.written).into_owned();
        assert!(!left.contains(&secret.needle), "{left}");
    }
}
