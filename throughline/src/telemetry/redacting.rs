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
    context(redactor, &mut span.span_context);
    attributes(redactor, &mut span.attributes);
    for event in &mut span.events.events {
        words(redactor, &mut event.name);
        attributes(redactor, &mut event.attributes);
    }
    for link in &mut span.links.links {
        context(redactor, &mut link.span_context);
        attributes(redactor, &mut link.attributes);
    }
    if let Status::Error { description } = &mut span.status {
        words(redactor, description);
    }
    span
}

/// Vendors' notes are a caller's words. What is left of them would no longer be what a vendor wrote: they go as a whole.
fn context(redactor: &Redactor, span: &mut SpanContext) {
    let state = span.trace_state().header();
    if let Cow::Owned(_) = redactor.text(&state) {
        *span = SpanContext::new(
            span.trace_id(),
            span.span_id(),
            span.trace_flags(),
            span.is_remote(),
            TraceState::NONE,
        );
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
            if let Cow::Owned(clean) = redactor.value(key.as_str(), text.as_str()) {
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
    use opentelemetry::trace::{Link, SpanKind, TraceFlags};
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

    /// A caller whose `tracestate` is `vendor=STATE`.
    fn caller(state: &str) -> SpanContext {
        let state = TraceState::from_key_value([("vendor", state)]).unwrap();
        SpanContext::new(7.into(), 8.into(), TraceFlags::SAMPLED, true, state)
    }

    #[test]
    fn the_notes_of_vendors_go_when_there_is_something_in_them() {
        let redactor = Redactor::standard();
        let of = |state: &str| {
            let mut said = span();
            said.span_context = caller(state);
            said.links.links.push(Link::with_context(caller(state)));
            let sent = redact(&redactor, said);
            [sent.span_context, sent.links.links[0].span_context.clone()]
        };
        for sent in of("ann@example.com") {
            assert_eq!((sent.trace_state().header().as_str(), sent.trace_id()), ("", 7.into()));
            assert!(sent.is_valid() && sent.is_sampled() && sent.is_remote());
        }
        assert_eq!(of("t61rcWkgMzE").map(|sent| sent.trace_state().header()), ["vendor=t61rcWkgMzE"; 2]);
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
