//! Spans that stages make themselves say what those of the SDK say, which are made where a processor wants to see them.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind, TraceState};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SimpleSpanProcessor, SpanData, SpanExporter};
use throughline::telemetry::{Telemetry, TelemetryBuilder};
use throughline::{
    Backoff, CacheConfig, Context, Error, FallbackConfig, JsonCaching, Kind, Memory, RetryConfig, workflow,
};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

type Set<'a> = &'a [(&'static str, &'static str)];

fn with(variables: Set<'_>) -> TelemetryBuilder {
    let variables = variables.to_vec();
    let env = move |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    Telemetry::builder().without_endpoint().local().from_variables(env)
}

/// Several primitives, of which some fail, within each other.
async fn work(cx: &Context) {
    let broken = workflow("broken", |_: u64| async { Err::<u64, _>(Error::new(Kind::Upstream, "503")) });
    let double = workflow("double", |n: u64| async move { Ok::<_, Error>(n * 2) });
    let tried = broken.retry(
        RetryConfig::new("again")
            .max_attempts(2)
            .unwrap()
            .backoff(Backoff::constant(Duration::from_millis(1)).unwrap()),
    );
    let saved = tried.fallback(FallbackConfig::new("rescue").then("second", double)).unwrap();
    let config = CacheConfig::new("answers", Duration::from_secs(60)).unwrap();
    let keyed = JsonCaching::keyed(|n: &u64, _, key| key.json(n));
    let flow = saved.cache(config, keyed, Memory::new(1 << 20).unwrap()).named("ask");
    for _ in 0..2 {
        assert_eq!(flow.run(4, cx).await.unwrap(), 8);
    }
}

/// Everything but ids and times, with the name of the parent, in the order in which spans ended.
fn told(spans: &[SpanData]) -> Vec<String> {
    let parent =
        |span: &SpanData| match spans.iter().find(|s| s.span_context.span_id() == span.parent_span_id) {
            Some(parent) => parent.name.to_string(),
            None if span.parent_span_id == SpanId::INVALID => "nothing".to_owned(),
            None => format!("{} remote {}", span.parent_span_id, span.parent_span_is_remote),
        };
    let links = |span: &SpanData| -> Vec<String> {
        span.links
            .links
            .iter()
            .map(|link| format!("{} {}", link.span_context.trace_id(), link.span_context.span_id()))
            .collect()
    };
    let all = spans.iter().map(|span| {
        format!(
            "{} {:?} under {}: {:?} and {} more, {:?} and {} more, {:?}, {:?}, {:?}, {}",
            span.name,
            span.span_kind,
            parent(span),
            span.attributes,
            span.dropped_attributes_count,
            links(span),
            span.links.dropped_count,
            span.status,
            span.span_context.trace_flags(),
            span.span_context.trace_state(),
            span.instrumentation_scope.name(),
        )
    });
    all.collect()
}

/// What `work` leaves, made by the SDK or not.
async fn spans(variables: Set<'_>, sdk: bool, context: impl Fn(&Telemetry) -> Context) -> Vec<SpanData> {
    let exported = Exported::default();
    let builder = with(variables);
    let telemetry = match sdk {
        true => builder.span_processor(SimpleSpanProcessor::new(exported.clone())).init(),
        false => builder.span_exporter("mine", exported.clone()).init(),
    };
    work(&context(&telemetry)).await;
    telemetry.shutdown(Duration::from_secs(30)).await;
    let spans = exported.0.lock().unwrap();
    spans.clone()
}

#[tokio::test]
async fn both_say_the_same_of_a_request_whoever_its_caller_is() {
    let new = |telemetry: &Telemetry| Context::builder().sink(telemetry.sink()).build();
    let continued = |telemetry: &Telemetry| {
        Context::builder().sink(telemetry.sink()).trace_parent(CALLER, Some("vendor=1,other=b")).build()
    };
    let linked = |telemetry: &Telemetry| {
        let caller = Context::builder().trace_parent(CALLER, None).build();
        Context::builder().sink(telemetry.sink()).link(caller.span().clone()).build()
    };
    let limits: [Set<'_>; 4] = [
        &[],
        &[("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1"), ("OTEL_SPAN_LINK_COUNT_LIMIT", "0")],
        &[("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2")],
        &[("OTEL_TRACES_SAMPLER", "always_off")],
    ];
    for variables in limits {
        let contexts: [&dyn Fn(&Telemetry) -> Context; 3] = [&new, &continued, &linked];
        for context in contexts {
            let (own, sdk) = (spans(variables, false, context).await, spans(variables, true, context).await);
            assert_eq!(told(&own), told(&sdk), "{variables:?}");
            let none = variables.iter().any(|(_, value)| *value == "always_off");
            assert_eq!(own.is_empty(), none, "{variables:?}");
        }
    }
}

#[tokio::test]
async fn ids_are_valid_and_of_one_trace_and_no_span_lies_outside_of_its_parent() {
    let new = |telemetry: &Telemetry| Context::builder().sink(telemetry.sink()).build();
    let begun = opentelemetry::time::now();
    let spans = spans(&[], false, new).await;
    let mut seen = std::collections::HashSet::new();
    for span in &spans {
        assert!(span.span_context.is_valid() && seen.insert(span.span_context.span_id()), "{span:?}");
        assert!(span.start_time <= span.end_time && !span.span_context.is_remote(), "{span:?}");
        assert_eq!(span.span_context.trace_state(), &TraceState::NONE);
        let Some(parent) = spans.iter().find(|s| s.span_context.span_id() == span.parent_span_id) else {
            continue;
        };
        assert_eq!(parent.span_context.trace_id(), span.span_context.trace_id());
        assert!(
            parent.start_time <= span.start_time && span.end_time <= parent.end_time,
            "{span:?} in {parent:?}"
        );
    }
    let roots = spans.iter().filter(|span| span.parent_span_id == SpanId::INVALID);
    assert_eq!(roots.clone().count(), 2, "a run each");
    let minute = Duration::from_secs(60);
    assert!(roots.clone().all(|root| root.start_time + minute > begun && root.start_time < begun + minute));
    assert!(roots.clone().all(|root| root.span_kind == SpanKind::Internal));
}
