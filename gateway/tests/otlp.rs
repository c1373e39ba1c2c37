//! The trace of a request, as a receiver of OTLP gets it: one per request, with the right parents.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
mod receiver;

use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::BodyExt as _;
use process::upstream::{Seen, Step, answer, piece, stream_end, stream_head};
use process::{Answer, Gateway, Launch, Upstream, chat};
use receiver::Receiver;
use serde_json::Value;
use tokio::net::TcpStream;

const KEY: &str = "sk-upstream-5f1c";
const PROMPT: &str = "s3cret question";
const COMPLETION: &str = r#"{"choices":[{"message":{"content":"s3cret answer"}}],"usage":{"prompt_tokens":12,"completion_tokens":3}}"#;
const CONTENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"s3cret answer\"}}]}\n\n";
const END: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";

const MODELS: &str = r#"
[models.auto]
default_route = "cheap"
rules = [{ route = "dear", when = { prompt_chars_at_least = 50 } }]
cache = { ttl = "1h" }
timeout = { limit = "1h" }
[models.auto.routes.cheap]
provider = "up"
model = "gpt-4o-mini"
timeout = { limit = "1h" }
[models.auto.routes.dear]
provider = "up"
model = "gpt-4o"

[models.hasty]
timeout = { limit = "50ms" }
[models.hasty.routes.only]
provider = "up"
model = "gpt-4o-mini"

[models.guarded]
default_route = "cheap"
fallback = ["dear"]
[models.guarded.routes.cheap]
provider = "up"
model = "gpt-4o-mini"
retry = { attempts = 2, first_delay = "1ms", longest_delay = "1ms" }
circuit_breaker = { failure_rate = 1.0, min_calls = 3, open_for = "1h" }
[models.guarded.routes.dear]
provider = "up"
model = "gpt-4o"

[models.hedged.routes.only]
provider = "up"
model = "gpt-4o-mini"
hedge = { after = "30ms" }

[models.inside.routes.only]
provider = "sim"
model = "tiny"
"#;

struct Scene {
    gateway: Gateway,
    receiver: Receiver,
    upstream: Upstream,
}

/// What the provider does, by a word in the request and, where that is `once`, only the first time.
fn script() -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static {
    let once = AtomicBool::new(true);
    move |seen| {
        let has = |word: &str| String::from_utf8_lossy(&seen.body).contains(word);
        match has("once") && !once.swap(false, Ordering::SeqCst) {
            true => act(|word| word == "\"stream\"" && has(word)),
            false => act(has),
        }
    }
}

fn act(has: impl Fn(&str) -> bool) -> Vec<Step> {
    match () {
        () if has("cheap breaks") && !has("\"gpt-4o\"") => answer("503 No", "", "{}"),
        () if has("hang") && has("\"stream\"") => vec![stream_head(), piece(CONTENT), Step::Hold],
        () if has("hang") => vec![Step::Hold],
        () if has("fail") => answer("503 No", "", r#"{"error":{"message":"s3cret reason"}}"#),
        () if has("\"stream\"") => vec![stream_head(), piece(CONTENT), piece(END), stream_end()],
        () => answer("200 OK", "", COMPLETION),
    }
}

async fn scene(receiver: Receiver, protocol: &str) -> Scene {
    scene_with(receiver, protocol, "false").await
}

/// With content captured as the standard's variable says.
async fn scene_with(receiver: Receiver, protocol: &str, capture: &str) -> Scene {
    let upstream = Upstream::start(script()).await;
    let provider = upstream.config();
    let provider = provider.split("[models").next().unwrap();
    let gateway = Launch::serve(&format!("{provider}\n{}\n{MODELS}", process::PROMPT_PROVIDER))
        .env("UPSTREAM_KEY", KEY)
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", capture)
        .start()
        .await;
    Scene { gateway, receiver, upstream }
}

async fn grpc() -> Scene {
    scene(Receiver::grpc().await, "grpc").await
}

fn trace_id(answer: &Answer) -> &str {
    answer.header("x-throughline-trace-id").unwrap()
}

fn streamed(prompt: &str) -> Value {
    let mut body = chat("auto", prompt);
    body["stream"] = true.into();
    body
}

const MISS: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow auto (ok)
    INTERNAL timeout auto (ok)
      INTERNAL cache auto (ok)
        INTERNAL router auto (ok)
          INTERNAL timeout auto/cheap (ok)
            CLIENT chat gpt-4o-mini (ok)
              CLIENT POST (ok)
";

const HIT: &str = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow auto (ok)
    INTERNAL timeout auto (ok)
      INTERNAL cache auto (ok)
";

impl Scene {
    /// No text of a message, no answer and no key is in anything that was sent.
    fn kept_secrets(&self) {
        let dump = self.receiver.dump();
        assert!(dump.contains("invoke_workflow") && dump.contains("gen_ai.usage.input_tokens"));
        for secret in ["s3cret", "Tuesday", KEY, "sk-client", "session=1"] {
            assert!(!dump.contains(secret), "{secret} is in {dump}");
        }
    }

    /// A miss and a hit, seen whole.
    async fn shows_a_miss_and_a_hit(&self) {
        let headers = [("authorization", "Bearer sk-client"), ("cookie", "session=1")];
        let miss = self.gateway.ask_with(&headers, chat("auto", PROMPT)).await;
        let trace = self.receiver.trace(trace_id(&miss)).await;
        assert_eq!(trace.tree(), MISS);
        assert_eq!(trace.remote_parent(), "");
        let hit = self.gateway.ask_with(&headers, chat("auto", PROMPT)).await;
        let hit_trace = self.receiver.trace(trace_id(&hit)).await;
        assert_eq!(hit_trace.tree(), HIT);
        assert_eq!(hit_trace.attributes("cache auto")["throughline.cache.outcome"], "hit");

        let server = trace.attributes("POST /v1/chat/completions");
        assert_eq!(server["http.request.method"], "POST");
        assert_eq!(server["http.route"], "/v1/chat/completions");
        assert_eq!((&*server["url.path"], &*server["url.scheme"]), ("/v1/chat/completions", "http"));
        assert_eq!(server["http.response.status_code"], "200");
        let workflow = trace.attributes("invoke_workflow auto");
        assert_eq!(workflow["gen_ai.operation.name"], "invoke_workflow");
        assert_eq!(workflow["gen_ai.workflow.name"], "auto");
        assert_eq!(trace.attributes("cache auto")["throughline.cache.outcome"], "miss");
        let router = trace.attributes("router auto");
        assert_eq!(router["throughline.router.route"], "cheap");
        assert_eq!(router["throughline.router.reason"], "routing_function");
        let chat = trace.attributes("chat gpt-4o-mini");
        assert_eq!(chat["gen_ai.operation.name"], "chat");
        assert_eq!(chat["gen_ai.provider.name"], "openai");
        assert_eq!(chat["gen_ai.request.model"], "gpt-4o-mini");
        assert_eq!((&*chat["gen_ai.usage.input_tokens"], &*chat["gen_ai.usage.output_tokens"]), ("12", "3"));
        assert!(!chat.contains_key("gen_ai.request.stream"), "said only of streams");
        let call = trace.attributes("POST");
        assert_eq!(call["http.request.method"], "POST");
        assert_eq!(call["server.address"], "127.0.0.1");
        assert_eq!(call["http.response.status_code"], "200");
        self.kept_secrets();
    }
}

#[tokio::test]
async fn a_miss_and_a_hit_over_grpc() {
    let scene = grpc().await;
    scene.shows_a_miss_and_a_hit().await;
    assert_eq!(scene.receiver.ids().len(), 2, "one trace per request");
    let dump = scene.receiver.dump();
    assert!(dump.contains("service.name") && dump.contains("service.version"), "{dump}");
}

#[tokio::test]
async fn a_miss_and_a_hit_over_http() {
    scene(Receiver::http().await, "http/protobuf").await.shows_a_miss_and_a_hit().await;
}

#[tokio::test]
async fn a_routed_request_and_a_provider_inside() {
    let scene = grpc().await;
    let answer = scene.gateway.ask(chat("auto", &PROMPT.repeat(9))).await;
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    let expected = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow auto (ok)
    INTERNAL timeout auto (ok)
      INTERNAL cache auto (ok)
        INTERNAL router auto (ok)
          CLIENT chat gpt-4o (ok)
            CLIENT POST (ok)
";
    assert_eq!(trace.tree(), expected);
    assert_eq!(trace.attributes("router auto")["throughline.router.route"], "dear");

    let answer = scene.gateway.ask(chat("inside", PROMPT)).await;
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    let expected = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow inside (ok)
    INTERNAL router inside (ok)
      CLIENT chat tiny (ok)
";
    assert_eq!(trace.tree(), expected);
    assert_eq!(trace.attributes("chat tiny")["gen_ai.provider.name"], "simulated");
}

#[tokio::test]
async fn a_timeout_and_a_failure_are_errors_all_the_way_up() {
    let scene = grpc().await;
    let answer = scene.gateway.ask(chat("hasty", "s3cret: please hang")).await;
    assert_eq!(answer.status, 504);
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    let expected = "\
SERVER POST /v1/chat/completions (error: 504)
  INTERNAL invoke_workflow hasty (error: timeout)
    INTERNAL timeout hasty (error: timeout)
      INTERNAL router hasty (error: cancelled)
        CLIENT chat gpt-4o-mini (error: cancelled)
          CLIENT POST (error: cancelled)
";
    assert_eq!(trace.tree(), expected);
    assert_eq!(trace.attributes("timeout hasty")["throughline.outcome"], "timeout");
    assert_eq!(trace.attributes("POST /v1/chat/completions")["error.type"], "504");

    let answer = scene.gateway.ask(chat("hasty", "s3cret: please fail")).await;
    assert_eq!(answer.status, 502);
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    assert_eq!(
        trace.tree(),
        expected.replace("504", "502").replace("timeout)", "upstream)").replace("cancelled", "upstream")
    );
    assert_eq!(trace.attributes("POST")["http.response.status_code"], "503");
    assert!(!scene.receiver.dump().contains("s3cret"));
}

#[tokio::test]
async fn a_streamed_answer_ends_its_spans_with_its_last_byte() {
    let scene = grpc().await;
    let answer = scene.gateway.ask(streamed(PROMPT)).await;
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    assert_eq!(trace.tree(), MISS);
    assert_eq!(trace.attributes("cache auto")["throughline.cache.outcome"], "miss");
    let chat = trace.attributes("chat gpt-4o-mini");
    assert_eq!(chat["gen_ai.request.stream"], "true");
    assert_eq!((&*chat["gen_ai.usage.input_tokens"], &*chat["gen_ai.usage.output_tokens"]), ("12", "3"));
    scene.kept_secrets();
}

#[tokio::test]
async fn a_client_that_leaves_is_seen_in_its_trace() {
    let scene = grpc().await;
    let stream = scene.gateway.open(streamed("s3cret: please hang")).await;
    let id = stream.headers()["x-throughline-trace-id"].to_str().unwrap().to_owned();
    let mut body = stream.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let trace = scene.receiver.trace(&id).await;
    let expected = MISS
        .lines()
        .map(|line| {
            if line.ends_with("CLIENT POST (ok)") {
                line.to_owned()
            } else {
                line.replace("(ok)", "(error: cancelled)")
            }
        })
        .map(|line| line + "\n")
        .collect::<String>();
    assert_eq!(trace.tree(), expected, "the provider had begun to answer; nobody has heard the end");

    let known = scene.receiver.ids();
    let body = chat("auto", "hang").to_string();
    let length = body.len();
    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}");
    let mut client = TcpStream::connect(scene.gateway.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes()).await.unwrap();
    scene.upstream.sees(2).await;
    drop(client);
    let id = process::until("another trace", async || {
        scene.receiver.ids().into_iter().find(|id| !known.contains(id))
    })
    .await;
    assert_eq!(scene.receiver.trace(&id).await.tree(), MISS.replace("(ok)", "(error: cancelled)"));
}

fn streamed_by(model: &str, prompt: &str) -> [Value; 2] {
    let (whole, mut stream) = (chat(model, prompt), chat(model, prompt));
    stream["stream"] = true.into();
    [whole, stream]
}

#[tokio::test]
async fn attempts_are_seen_under_their_retry() {
    for body in streamed_by("guarded", "s3cret: fail once") {
        let scene = grpc().await;
        let answer = scene.gateway.ask(body).await;
        assert_eq!(answer.status, 200);
        let trace = scene.receiver.trace(trace_id(&answer)).await;
        let expected = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow guarded (ok)
    INTERNAL router guarded (ok)
      INTERNAL fallback guarded/cheap (ok)
        INTERNAL retry guarded/cheap (ok)
          INTERNAL circuit_breaker guarded/cheap (error: upstream)
            CLIENT chat gpt-4o-mini (error: upstream)
              CLIENT POST (error: upstream)
          INTERNAL circuit_breaker guarded/cheap (ok)
            CLIENT chat gpt-4o-mini (ok)
              CLIENT POST (ok)
";
        assert_eq!(trace.tree(), expected);
        let retry = trace.attributes("retry guarded/cheap");
        assert_eq!(retry["throughline.outcome"], "recovered");
        assert_eq!(retry["throughline.retry.attempts"], "2");
        assert_eq!(scene.receiver.ids().len(), 1, "one trace for all attempts");
        assert!(!scene.receiver.dump().contains("s3cret"));
    }
}

#[tokio::test]
async fn a_fallback_is_seen_beside_what_failed_and_an_open_circuit_makes_no_call() {
    let scene = grpc().await;
    let [whole, stream] = streamed_by("guarded", "s3cret: cheap breaks");
    let answer = scene.gateway.ask(whole).await;
    assert_eq!(answer.header("x-throughline-fallback"), Some("dear"));
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    let failed = "          INTERNAL circuit_breaker guarded/cheap (error: upstream)
            CLIENT chat gpt-4o-mini (error: upstream)
              CLIENT POST (error: upstream)
";
    let refused = "          INTERNAL circuit_breaker guarded/cheap (error: circuit_open)\n";
    let tree = |kind: &str, attempts: &[&str]| {
        let attempts = attempts.concat();
        format!(
            "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow guarded (ok)
    INTERNAL router guarded (ok)
      INTERNAL fallback guarded/cheap (ok)
        INTERNAL retry guarded/cheap (error: {kind})
{attempts}        CLIENT chat gpt-4o (ok)
          CLIENT POST (ok)
"
        )
    };
    assert_eq!(trace.tree(), tree("upstream", &[failed, failed]));
    let fallback = trace.attributes("fallback guarded/cheap");
    assert_eq!(fallback["throughline.outcome"], "fallback");
    assert_eq!(fallback["throughline.fallback.answered_by"], "dear");
    assert_eq!(trace.attributes("retry guarded/cheap")["throughline.retry.gave_up"], "exhausted");
    assert_eq!(trace.attributes("router guarded")["throughline.router.route"], "cheap");

    // The third failure opens the circuit.
    let answer = scene.gateway.ask(stream.clone()).await;
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    assert_eq!(trace.tree(), tree("circuit_open", &[failed, refused]));
    let answer = scene.gateway.ask(stream).await;
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    assert_eq!(trace.tree(), tree("circuit_open", &[refused]));
    let circuit = trace.attributes("circuit_breaker guarded/cheap");
    assert_eq!(circuit["throughline.circuit_breaker.state"], "open");
    assert_eq!(scene.receiver.ids().len(), 3, "one trace per request");
    assert!(!scene.receiver.dump().contains("s3cret"));
}

#[tokio::test]
async fn both_attempts_are_seen_under_their_hedge() {
    let scene = grpc().await;
    let [whole, _] = streamed_by("hedged", "s3cret: hang once");
    let answer = scene.gateway.ask(whole).await;
    assert_eq!(answer.header("x-throughline-attempts"), Some("2"));
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    let tree = trace.tree();
    let head = "\
SERVER POST /v1/chat/completions (ok)
  INTERNAL invoke_workflow hedged (ok)
    INTERNAL router hedged (ok)
      INTERNAL hedge hedged/only (ok)
";
    let ended =
        |how: &str| format!("        CLIENT chat gpt-4o-mini ({how})\n          CLIENT POST ({how})\n");
    let (won, lost) = (ended("ok"), ended("error: cancelled"));
    let (one, other) = (format!("{head}{won}{lost}"), format!("{head}{lost}{won}"));
    assert!(tree == one || tree == other, "{tree}");
    assert_eq!(trace.attributes("hedge hedged/only")["throughline.hedge.won_by"], "hedge_1");
}

#[tokio::test]
async fn an_incoming_trace_is_continued_and_its_decision_kept() {
    let scene = grpc().await;
    let (id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    for (flags, prompt) in [("00", "unsampled"), ("01", "sampled")] {
        let traceparent = format!("00-{id}-{parent}-{flags}");
        let answer = scene.gateway.ask_with(&[("traceparent", &traceparent)], chat("auto", prompt)).await;
        assert_eq!(trace_id(&answer), id);
    }
    let trace = scene.receiver.trace(id).await;
    assert_eq!(trace.tree(), MISS, "the sampled one and nothing of the other");
    assert_eq!(trace.remote_parent(), parent);
    let answer = scene.gateway.ask_with(&[("traceparent", "00-nonsense-01")], chat("auto", "wrong")).await;
    assert_eq!(scene.receiver.trace(trace_id(&answer)).await.remote_parent(), "");
}

#[tokio::test]
async fn refused_requests_have_a_trace_without_a_workflow() {
    let scene = grpc().await;
    let answer = scene.gateway.ask("not json").await;
    let trace = scene.receiver.trace(trace_id(&answer)).await;
    assert_eq!(trace.tree(), "SERVER POST /v1/chat/completions (ok)\n");
    assert_eq!(trace.attributes("POST /v1/chat/completions")["http.response.status_code"], "400");
}

/// What a client says, with somebody's address in it.
const TOLD: &str = "tell ann@example.com";

impl Scene {
    /// The event of a plain call, of a streamed one and of one that failed, each in its span.
    async fn tells_of_calls_in_events(&self, on_spans: bool) {
        for (prompt, body) in [(TOLD, chat("auto", TOLD)), ("stream", streamed(&format!("stream {TOLD}")))] {
            let answer = self.gateway.ask(body).await;
            let trace = self.receiver.trace(trace_id(&answer)).await;
            let events = self.receiver.events(trace_id(&answer), 1).await;
            let [event] = &*events else { panic!("{prompt}: one call has one event, not {events:?}") };
            assert_eq!(event.name, "gen_ai.client.inference.operation.details");
            assert_eq!(std::slice::from_ref(&event.span), trace.span_ids("chat gpt-4o-mini"), "{prompt}");
            let of = |key: &str| event.attributes.get(key).cloned().unwrap_or_default();
            assert_eq!(of("gen_ai.operation.name"), "chat", "{prompt}");
            assert_eq!(of("gen_ai.request.model"), "gpt-4o-mini", "{prompt}");
            assert_eq!(of("gen_ai.usage.input_tokens"), 12, "{prompt}");
            let asked = of("gen_ai.input.messages");
            assert_eq!(asked[0]["role"], "user", "{prompt}: it has structure, {asked}");
            let text = asked[0]["parts"][0]["content"].as_str().unwrap();
            assert!(text.ends_with("tell [REDACTED:EMAIL]"), "{prompt}: {asked}");
            let answered = of("gen_ai.output.messages");
            assert_eq!(answered[0]["parts"][0]["content"], "s3cret answer", "{prompt}: {answered}");
            let span = trace.attributes("chat gpt-4o-mini");
            assert_eq!(span.contains_key("gen_ai.input.messages"), on_spans, "{prompt}");
            assert_eq!(span.contains_key("gen_ai.output.messages"), on_spans, "{prompt}");
        }
        let failed = self.gateway.ask(chat("hedged", "fail")).await;
        let calls = self.receiver.trace(trace_id(&failed)).await.span_ids("chat gpt-4o-mini");
        let events = self.receiver.events(trace_id(&failed), calls.len()).await;
        assert_eq!(events.len(), calls.len(), "one for each call, hedges included");
        assert_eq!(events[0].attributes["error.type"], "upstream");
        assert!(events[0].attributes.contains_key("gen_ai.input.messages"));
        assert!(!self.receiver.dump().contains("ann@example"), "{}", self.receiver.dump());
        let counted = self.receiver.count_events();
        self.gateway.settles("apm_events_exported_total", &[], f64::from(counted)).await;
    }
}

#[tokio::test]
async fn content_leaves_as_events_by_http_and_not_on_spans() {
    let scene = scene_with(Receiver::http().await, "http/protobuf", "EVENT_ONLY").await;
    scene.tells_of_calls_in_events(false).await;
}

#[tokio::test]
async fn content_leaves_as_events_and_on_spans_by_grpc() {
    let scene = scene_with(Receiver::grpc().await, "grpc", "SPAN_AND_EVENT").await;
    scene.tells_of_calls_in_events(true).await;
}

#[tokio::test]
async fn without_being_asked_for_no_event_leaves() {
    for capture in ["false", "SPAN_ONLY"] {
        let scene = scene_with(Receiver::http().await, "http/protobuf", capture).await;
        let answer = scene.gateway.ask(chat("auto", TOLD)).await;
        scene.receiver.trace(trace_id(&answer)).await;
        drop(scene.gateway.stop().await);
        assert!(scene.receiver.events(trace_id(&answer), 0).await.is_empty(), "{capture}");
    }
}

#[tokio::test]
async fn an_event_that_waits_leaves_before_the_program_ends() {
    let (receiver, upstream) = (Receiver::http().await, Upstream::start(script()).await);
    let gateway = events_of(&upstream, &receiver.endpoint(), &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]).await;
    let answer = gateway.ask(chat("auto", TOLD)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(receiver.count_events(), 0);
    drop(gateway.stop().await);
    assert_eq!(receiver.events(trace_id(&answer), 1).await.len(), 1);
}

#[tokio::test]
async fn events_that_nobody_takes_are_counted_and_no_request_notices() {
    let upstream = Upstream::start(script()).await;
    let patience = [("OTEL_BSP_EXPORT_TIMEOUT", "200"), ("OTEL_BSP_SCHEDULE_DELAY", "10")];
    let gateway = events_of(&upstream, "http://127.0.0.1:1", &patience).await;
    assert_eq!(gateway.ask(chat("auto", TOLD)).await.status, 200);
    gateway.settles("apm_events_dropped_total", &[("reason", "export_failed")], 1.0).await;
    let refused = [("signal", "logs"), ("error_type", "refused")];
    assert!(gateway.metric("apm_export_failures_total", &refused).await >= 1.0);
    assert_eq!(gateway.metric("apm_events_exported_total", &[]).await, 0.0);
}

/// A gateway that records content in events alone.
async fn events_of(upstream: &Upstream, endpoint: &str, more: &[(&str, &str)]) -> Gateway {
    let launch = Launch::serve(&upstream.config())
        .env("UPSTREAM_KEY", KEY)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "EVENT_ONLY");
    more.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start().await
}
