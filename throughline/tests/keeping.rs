//! Traces that the sampler declined and that turned out to be worth keeping.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use throughline::telemetry::{Clock, Telemetry, TelemetryBuilder};
use throughline::{Context, Error, FallbackConfig, Kind, Result, workflow, workflow_with};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Exported {
    /// The spans by name, after everything was delivered.
    async fn names(&self, telemetry: &Telemetry) -> Vec<String> {
        telemetry.shutdown(PATIENCE).await;
        self.0.lock().unwrap().iter().map(|span| span.name.to_string()).collect()
    }
}

fn sampler(name: &'static str) -> (TelemetryBuilder, Exported) {
    let exported = Exported::default();
    let env = move |variable: &str| (variable == "OTEL_TRACES_SAMPLER").then(|| name.to_owned());
    let builder = Telemetry::builder().without_endpoint().local().clock(Clock::Tokio).from_variables(env);
    (builder.span_exporter("mine", exported.clone()), exported)
}

/// Two stages, of which the first fails on 13 and on 14, and another way, which works on 14.
async fn flow(n: u64, cx: &Context) -> Result<Option<String>> {
    let failing = |n: u64, works: bool| if works { Ok(n) } else { Err(Error::new(Kind::Upstream, "503")) };
    let inner = workflow("inner", move |n: u64| async move { failing(n, n < 13) });
    let told = workflow_with("told", |_: u64, cx: Context| async move { Ok(cx.traceparent()) });
    let other = workflow("other", move |n: u64| async move { failing(n, n == 14).map(|_| None) });
    let whole = (inner >> told).fallback(FallbackConfig::new("rescue").then("other", other)).unwrap();
    whole.named("outer").run(n, cx).await
}

async fn run(telemetry: &Telemetry, n: u64) -> Result<Option<String>> {
    flow(n, &Context::builder().sink(telemetry.sink()).build()).await
}

fn exemplars(telemetry: &Telemetry) -> Vec<String> {
    let page = telemetry.sink().render();
    let ids =
        page.lines().filter_map(|line| Some(line.split_once("trace_id=\"")?.1.split_once('"')?.0.to_owned()));
    ids.collect()
}

#[tokio::test]
async fn a_trace_with_an_error_is_exported_whole_and_others_are_not() {
    let (builder, exported) = sampler("parentbased_always_off");
    let telemetry = builder.keep_errors(true).init();
    let told = run(&telemetry, 1).await;
    assert!(told.unwrap().unwrap().ends_with("-00"), "the flag says that it is not sampled");
    assert_eq!(exemplars(&telemetry), [""; 0]);
    assert_eq!(exported.names(&telemetry).await, [""; 0]);

    for (n, fails) in [(13, true), (14, false)] {
        let (builder, exported) = sampler("parentbased_always_off");
        let telemetry = builder.keep_errors(true).init();
        assert_eq!(run(&telemetry, n).await.is_err(), fails);
        let shown = exemplars(&telemetry);
        let names = exported.names(&telemetry).await;
        assert_eq!(names.len(), 4, "{names:?}");
        let spans = exported.0.lock().unwrap();
        let root = spans.last().unwrap();
        assert!(spans.iter().all(|span| span.span_context.trace_id() == root.span_context.trace_id()));
        assert!(spans.iter().all(|span| !span.span_context.is_sampled()));
        let why = root.attributes.iter().find(|pair| pair.key.as_str() == "throughline.sampling.kept");
        assert_eq!(why.unwrap().value.as_str(), "error");
        let id = root.span_context.trace_id().to_string();
        assert!(!shown.is_empty() && shown.iter().all(|shown| *shown == id), "{shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_takes_long_is_exported() {
    for (took, kept) in [(1900, 0), (2100, 1)] {
        let (builder, exported) = sampler("always_off");
        let telemetry = builder.keep_slower_than(Duration::from_secs(2)).init();
        let slow = workflow("slow", move |(): ()| async move {
            sleep(Duration::from_millis(took)).await;
            Ok(())
        });
        let cx = Context::builder().sink(telemetry.sink()).build();
        slow.run((), &cx).await.unwrap();
        assert_eq!(exemplars(&telemetry).len(), kept);
        assert_eq!(exported.names(&telemetry).await.len(), kept, "{took} ms");
    }
}

#[tokio::test]
async fn what_a_caller_declined_is_not_held() {
    let (builder, exported) = sampler("parentbased_always_off");
    let telemetry = builder.keep_errors(true).init();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let cx = Context::builder().sink(telemetry.sink()).trace_parent(parent, None).build();
    flow(13, &cx).await.unwrap_err();
    assert!(!telemetry.sink().render().contains("apm_declined_traces_total{outcome=\"kept_error\"} 1"));
    assert_eq!(exported.names(&telemetry).await, [""; 0]);
}

#[tokio::test]
async fn what_is_sampled_anyway_is_exported_once() {
    let (builder, exported) = sampler("parentbased_always_on");
    let telemetry = builder.keep_errors(true).init();
    run(&telemetry, 13).await.unwrap_err();
    assert!(!telemetry.sink().render().contains("apm_declined_traces"), "nothing is held at all");
    assert_eq!(exported.names(&telemetry).await.len(), 4);
}

#[tokio::test]
async fn nothing_is_held_unless_asked_for() {
    let (builder, exported) = sampler("parentbased_always_off");
    let telemetry = builder.init();
    run(&telemetry, 13).await.unwrap_err();
    assert_eq!(exemplars(&telemetry), [""; 0]);
    assert_eq!(exported.names(&telemetry).await, [""; 0]);
}
