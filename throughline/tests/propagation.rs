//! Who calls, and what becomes of that: traces that are continued, traces that point at the caller, exemplars.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use opentelemetry::trace::SpanId;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use throughline::propagation::{self, Propagators};
use throughline::telemetry::{Status, Telemetry};
use throughline::testing::Recorder;
use throughline::{Context, Result, workflow};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn caller(flags: &str) -> opentelemetry::trace::SpanContext {
    propagation::trace_context([format!("00-{TRACE}-{CALLER}-{flags}")], ["vendor=1"]).unwrap()
}

async fn double(n: u64) -> Result<u64> {
    Ok(n * 2)
}

#[tokio::test]
async fn a_continued_trace_keeps_its_ids_and_what_vendors_noted() {
    let recorder = Recorder::new();
    let cx = Context::builder().sink(recorder.sink()).parent(caller("01")).build();
    workflow("double", double).named("outer").run(1, &cx).await.unwrap();
    let spans = recorder.spans();
    assert_eq!(spans.len(), 2);
    for span in &spans {
        assert_eq!(span.span_context.trace_id().to_string(), TRACE);
        assert_eq!(span.span_context.trace_state().header(), "vendor=1");
        assert!(span.links.links.is_empty());
    }
    let outer = spans.iter().find(|span| span.parent_span_id.to_string() == CALLER).unwrap();
    assert_eq!(outer.name, "invoke_workflow outer");
}

#[tokio::test]
async fn a_linked_trace_is_new_and_its_first_span_alone_points_at_the_caller() {
    for flags in ["00", "01"] {
        let recorder = Recorder::new();
        let cx = Context::builder().sink(recorder.sink()).link(caller(flags)).build();
        workflow("double", double).named("outer").run(1, &cx).await.unwrap();
        let spans = recorder.spans();
        assert_eq!(spans.len(), 2, "the caller's {flags} decides nothing");
        assert_eq!(spans[0].span_context.trace_id(), spans[1].span_context.trace_id());
        for span in &spans {
            assert_ne!(span.span_context.trace_id().to_string(), TRACE);
            assert_eq!(span.span_context.trace_state().header(), "");
            let linked: Vec<_> =
                span.links.links.iter().map(|link| link.span_context.span_id().to_string()).collect();
            let expected: &[&str] = if span.parent_span_id == SpanId::INVALID { &[CALLER] } else { &[] };
            assert_eq!(linked, expected, "{}", span.name);
        }
    }
}

#[tokio::test]
async fn work_that_is_detached_before_a_trace_begins_points_at_the_caller_as_well() {
    let recorder = Recorder::new();
    let cx = Context::builder().sink(recorder.sink()).link(caller("01")).build().detach();
    workflow("double", double).run(1, &cx).await.unwrap();
    assert_eq!(recorder.spans()[0].links.links.len(), 1);
}

#[tokio::test]
async fn a_trace_that_is_continued_points_at_nobody() {
    let recorder = Recorder::new();
    let cx = Context::builder().sink(recorder.sink()).parent(caller("01")).link(caller("01")).build();
    workflow("double", double).run(1, &cx).await.unwrap();
    assert!(recorder.spans()[0].links.links.is_empty());
}

#[derive(Debug)]
struct Nowhere;

impl SpanProcessor for Nowhere {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, _: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn told(variables: &'static [(&str, &str)]) -> Telemetry {
    let env =
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Telemetry::builder().without_endpoint().local().span_processor(Nowhere).from_variables(env).init()
}

#[tokio::test]
async fn exemplars_can_be_switched_off() {
    for (telemetry, shown) in [
        (told(&[]), true),
        (told(&[("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based")]), true),
        (told(&[("OTEL_METRICS_EXEMPLAR_FILTER", "always_on")]), true),
        (told(&[("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")]), false),
    ] {
        for flags in ["00", "01"] {
            let cx = Context::builder().sink(telemetry.sink()).parent(caller(flags)).build();
            workflow("double", double).run(1, &cx).await.unwrap();
            let found = telemetry.sink().render().contains(TRACE);
            assert_eq!(found, shown && flags == "01", "{flags}");
        }
    }
}

#[test]
fn the_environment_says_which_headers_are_read_also_when_nothing_is_recorded() {
    let both = Propagators::default();
    assert!(both.trace_context && both.baggage);
    assert_eq!(told(&[]).sink().propagators(), both);
    assert_eq!(told(&[("OTEL_PROPAGATORS", "none")]).sink().propagators(), Propagators::NONE);
    let off = told(&[("OTEL_PROPAGATORS", "baggage"), ("ENABLE_OBSERVABILITY", "false")]);
    assert_eq!(off.status(), Status::Disabled);
    assert_eq!((off.sink().propagators().trace_context, off.sink().propagators().baggage), (false, true));
}
