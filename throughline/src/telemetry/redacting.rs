//! The last step before spans leave the process: what is secret in them is taken out.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use opentelemetry::trace::{SpanContext, Status, TraceState};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

use super::registry::Registry;
use crate::redact::Redactor;

/// Redacts spans. One that cannot be redacted does not come back.
#[derive(Debug)]
pub(super) struct Redacting {
    redactor: Redactor,
}

// === impl Redacting ===

impl Redacting {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { redactor: Redactor::standard().counted(registry) }
    }

    /// `span` without what is secret in it; `None` when that could not be found out.
    pub(super) fn span(&self, span: SpanData) -> Option<SpanData> {
        catch_unwind(AssertUnwindSafe(|| redact(&self.redactor, span))).ok()
    }
}

fn redact(redactor: &Redactor, mut span: SpanData) -> SpanData {
    words(redactor, &mut span.name);
    attributes(redactor, &mut span.attributes);
    for event in &mut span.events.events {
        words(redactor, &mut event.name);
        attributes(redactor, &mut event.attributes);
    }
    for link in &mut span.links.links {
        attributes(redactor, &mut link.attributes);
        trace_state(redactor, &mut link.span_context);
    }
    trace_state(redactor, &mut span.span_context);
    if let Status::Error { description } = &mut span.status {
        words(redactor, description);
    }
    span
}

/// A client's `tracestate` travels in every span. One that holds something secret is left out as a whole: its entries belong
/// to others, who take them as they are or not at all.
fn trace_state(redactor: &Redactor, context: &mut SpanContext) {
    let header = context.trace_state().header();
    let secret = |entry: &str| {
        let (key, value) = entry.split_once('=').unwrap_or(("", entry));
        matches!(redactor.value(key, value), Cow::Owned(_)) || matches!(redactor.text(key), Cow::Owned(_))
    };
    if header.split(',').any(secret) {
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        *context = SpanContext::new(trace, span, flags, context.is_remote(), TraceState::NONE);
    }
}

fn words(redactor: &Redactor, text: &mut Cow<'static, str>) {
    if let Cow::Owned(clean) = redactor.text(text) {
        *text = clean.into();
    }
}

fn attributes(redactor: &Redactor, attributes: &mut [KeyValue]) {
    for KeyValue { key, value, .. } in attributes {
        let clean = |text: &mut StringValue| {
            if let Cow::Owned(clean) = redactor.document(key.as_str(), text.as_str()) {
                *text = clean.into();
            }
        };
        match value {
            Value::String(text) => clean(text),
            Value::Array(Array::String(texts)) => texts.iter_mut().for_each(clean),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, SpanKind, TraceFlags, TraceId};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;
    use crate::telemetry::Telemetry;

    fn span() -> SpanData {
        let now = std::time::SystemTime::UNIX_EPOCH;
        let mut events = SpanEvents::default();
        let said = vec![KeyValue::new("exception.message", "of bob@example.com")];
        events.events.push(opentelemetry::trace::Event::new("failed for eve@example.com", now, said, 0));
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: opentelemetry::SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            name: "chat ann@example.com".into(),
            start_time: now,
            end_time: now,
            attributes: vec![
                KeyValue::new("http.request.header.authorization", "anything"),
                KeyValue::new("gen_ai.usage.input_tokens", 7),
                KeyValue::new(
                    "list",
                    Value::Array(Array::String(vec!["ann@example.com".into(), "fine".into()])),
                ),
            ],
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: Status::error("no answer for ann@example.com"),
            instrumentation_scope: opentelemetry::InstrumentationScope::default(),
        }
    }

    fn with_state(state: &str) -> SpanData {
        let (trace, own) = (TraceId::from(7), SpanId::from(9));
        let state = state.parse().unwrap();
        SpanData { span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, state), ..span() }
    }

    #[test]
    fn a_trace_state_that_holds_a_secret_is_left_out_and_the_ids_stay() {
        let redactor = Redactor::standard();
        for secret in ["vendor=ann@example.com", "fine=1,session-token=abc"] {
            let sent = redact(&redactor, with_state(secret)).span_context;
            assert_eq!(sent.trace_state().header(), "", "{secret}");
            assert_eq!((sent.trace_id(), sent.span_id()), (TraceId::from(7), SpanId::from(9)));
            assert!(sent.is_sampled());
        }
        let kept = redact(&redactor, with_state("vendor=opaque,other=2")).span_context;
        assert_eq!(kept.trace_state().header(), "vendor=opaque,other=2");
    }

    #[test]
    fn nothing_secret_is_left_in_any_part_of_a_span() {
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let redactor = Redactor::standard().counted(telemetry.sink().registry().unwrap());
        let sent = redact(&redactor, span());
        let whole = format!("{sent:?}");
        assert!(!whole.contains("example.com") && !whole.contains("anything"), "{whole}");
        assert_eq!(sent.attributes[1], KeyValue::new("gen_ai.usage.input_tokens", 7));
        assert!(telemetry.sink().render().contains("redactions_total{kind=\"email\"} 5"));
    }
}
