//! Whose trace a request belongs to, and who learns of it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;
mod receiver;

use process::upstream::answer;
use process::{Gateway, Launch, Upstream, chat};
use receiver::Receiver;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":12,"completion_tokens":3}}"#;

/// A gateway, where its traces go, and a provider that is configured twice: as `up` and as `other`.
struct Scene {
    gateway: Gateway,
    receiver: Receiver,
    upstream: Upstream,
}

async fn scene(trace_context: &str, variables: &[(&str, &str)]) -> Scene {
    let upstream = Upstream::start(|_| answer("200 OK", "", COMPLETION)).await;
    let receiver = Receiver::grpc().await;
    let other = upstream.config();
    let other = other.split("[models").next().unwrap().replace("providers.up.", "providers.other.");
    let config = format!(
        "[trace_context]\n{trace_context}\n{}\n{other}\n\
         [models.second.routes.only]\nprovider = \"other\"\nmodel = \"gpt-4o-mini\"\n",
        upstream.config()
    );
    let mut launch = Launch::serve(&config)
        .env("UPSTREAM_KEY", "sk-upstream")
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50");
    for (name, value) in variables {
        launch = launch.env(name, value);
    }
    Scene { gateway: launch.start().await, receiver, upstream }
}

impl Scene {
    /// Asks with everything that a caller may say of itself; the id of the trace that came of it.
    async fn called(&self, model: &str, flags: &str) -> String {
        let parent = format!("00-{TRACE}-{SPAN}-{flags}");
        let headers = [
            ("traceparent", parent.as_str()),
            ("tracestate", "vendor=noted"),
            ("baggage", "who=baggage-of-the-caller"),
        ];
        let answer = self.gateway.ask_with(&headers, chat(model, "hi")).await;
        assert_eq!(answer.status, 200);
        answer.header("x-throughline-trace-id").unwrap().to_owned()
    }

    /// The headers about traces that came with the last call to a provider.
    fn forwarded(&self) -> Vec<String> {
        let seen = self.upstream.seen();
        let about = |line: &&str| {
            let name = line.split(':').next().unwrap();
            ["traceparent", "tracestate", "baggage"].iter().any(|other| name.eq_ignore_ascii_case(other))
        };
        seen.last().unwrap().head.lines().filter(about).map(str::to_owned).collect()
    }

    /// What was recorded by the time the gateway has ended.
    async fn ended(self) -> Receiver {
        assert_eq!(self.gateway.stop().await.code, Some(0));
        self.receiver
    }
}

#[tokio::test]
async fn a_caller_that_is_pointed_at_decides_neither_which_trace_it_is_nor_whether_it_is_recorded() {
    let scene = scene("inbound = \"link\"", &[]).await;
    let mut ids = Vec::new();
    for flags in ["01", "00"] {
        let id = scene.called("auto", flags).await;
        let trace = scene.receiver.trace(&id).await;
        assert_eq!(trace.remote_parent(), "", "it is a root");
        assert_eq!(trace.links(), [format!("{TRACE}-{SPAN} ")], "once, and without what was noted");
        assert_eq!(trace.state(), "");
        ids.push(id);
    }
    assert!(ids[0] != ids[1] && !ids.contains(&TRACE.to_owned()), "{ids:?}");
    let dump = scene.receiver.dump();
    assert!(!dump.contains("noted") && !dump.contains("baggage-of-the-caller"), "{dump}");
}

#[tokio::test]
async fn only_a_trusted_caller_can_have_its_request_recorded() {
    let sampler = [("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    for (inbound, recorded) in [("trust", true), ("link", false), ("ignore", false)] {
        let scene = scene(&format!("inbound = \"{inbound}\""), &sampler).await;
        scene.called("auto", "01").await;
        assert_eq!(scene.ended().await.ids().contains(&TRACE.to_owned()), recorded, "{inbound}");
    }
}

#[tokio::test]
async fn a_caller_that_is_ignored_leaves_no_mark() {
    let scene = scene("inbound = \"ignore\"", &[]).await;
    let id = scene.called("auto", "01").await;
    let trace = scene.receiver.trace(&id).await;
    assert_eq!((trace.remote_parent().as_str(), trace.links().len()), ("", 0));
    let dump = scene.receiver.dump();
    assert!(!dump.contains(TRACE) && !dump.contains("noted") && !dump.contains("baggage-of"), "{dump}");
}

#[tokio::test]
async fn a_trusted_caller_is_continued_with_what_vendors_noted_and_not_with_its_secrets() {
    let scene = scene("", &[]).await;
    assert_eq!(scene.called("auto", "01").await, TRACE, "on a loopback address that is the default");
    let trace = scene.receiver.trace(TRACE).await;
    assert_eq!(
        (trace.remote_parent().as_str(), trace.state(), trace.links().len()),
        (SPAN, "vendor=noted", 0)
    );
    assert!(!scene.receiver.dump().contains("baggage-of-the-caller"), "baggage is no attribute");

    let other = TRACE.replace('4', "5");
    let parent = format!("00-{other}-{SPAN}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=ann@example.com")];
    scene.gateway.ask_with(&headers, chat("auto", "hi")).await;
    assert_eq!(scene.receiver.trace(&other).await.state(), "");
    assert!(!scene.receiver.dump().contains("example.com"));
}

#[tokio::test]
async fn a_provider_learns_of_a_trace_when_it_is_named_and_of_nothing_else() {
    let scene = scene("forward_to = [\"up\"]", &[]).await;
    let id = scene.called("auto", "01").await;
    let forwarded = scene.forwarded();
    let call = scene.receiver.trace(&id).await.span_ids("POST");
    assert_eq!(forwarded, [format!("traceparent: 00-{TRACE}-{}-01", call[0])], "the attempt is the parent");
    scene.called("second", "01").await;
    assert_eq!(scene.forwarded(), [""; 0], "which is not in the list");
    scene.called("auto", "00").await;
    assert_eq!(scene.forwarded(), [format!("traceparent: 00-{TRACE}-{SPAN}-00")], "nothing was recorded");
}

#[tokio::test]
async fn no_provider_learns_of_a_trace_by_default() {
    let scene = scene("", &[]).await;
    for model in ["auto", "second"] {
        scene.called(model, "01").await;
        assert_eq!(scene.forwarded(), [""; 0], "{model}");
    }
}

#[tokio::test]
async fn without_the_propagator_a_trace_neither_comes_in_nor_goes_out() {
    for value in ["none", "baggage"] {
        let variables = [("OTEL_PROPAGATORS", value)];
        let scene = scene("inbound = \"trust\"\nforward_to = [\"up\"]", &variables).await;
        let id = scene.called("auto", "01").await;
        assert_ne!(id, TRACE, "{value}");
        assert_eq!(scene.receiver.trace(&id).await.remote_parent(), "");
        assert_eq!(scene.forwarded(), [""; 0], "{value}");
    }
}

#[tokio::test]
async fn traces_pass_through_when_observability_is_off() {
    let off = [("ENABLE_OBSERVABILITY", "false")];
    let scene = scene("forward_to = [\"up\"]", &off).await;
    assert_eq!(scene.called("auto", "01").await, TRACE);
    assert_eq!(scene.forwarded(), [format!("traceparent: 00-{TRACE}-{SPAN}-01")]);
    assert_eq!(scene.ended().await.ids(), [""; 0]);
}
