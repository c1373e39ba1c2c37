//! The last step before spans leave the process: what is secret in them is taken out.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use opentelemetry::trace::{SpanContext, Status, TraceState};
use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::registry::Registry;
use super::span::{Outline, Record};
use crate::redact::Redactor;

/// So many texts are remembered as harmless.
const REMEMBERED: usize = 1 << 10;
/// Longer ones are not: they hardly come twice.
const LONGEST_REMEMBERED: usize = 96;

/// Redacts spans. One that cannot be redacted does not come back.
#[derive(Debug)]
pub(super) struct Redacting {
    redactor: Redactor,
    harmless: Harmless,
}

/// Attributes in which nothing was found. Nearly all of them come with every request: the names of models, routes and
/// operations.
///
/// Every attribute has one place, which it shares with others: who comes later has it. Finding one takes one comparison,
/// whatever a caller sends.
#[derive(Debug)]
struct Harmless(Box<[Option<Box<Attribute>>]>);

#[derive(Debug)]
struct Attribute {
    key: Box<str>,
    text: Box<str>,
}

// === impl Redacting ===

impl Redacting {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { redactor: Redactor::standard().counted(registry), harmless: Harmless::new() }
    }

    /// `span` without what is secret in it; `None` when that could not be found out.
    pub(super) fn span(&mut self, mut span: Box<Record>) -> Option<Box<Record>> {
        catch_unwind(AssertUnwindSafe(|| self.redact(&mut span))).ok()?;
        Some(span)
    }

    fn redact(&mut self, span: &mut Record) {
        self.outline(&mut span.outline);
        self.attributes(&mut span.attributes);
        for event in &mut span.events.events {
            self.words(&mut event.name);
            self.attributes(&mut event.attributes);
        }
        for link in &mut span.links.links {
            self.attributes(&mut link.attributes);
            trace_state(&self.redactor, &mut link.span_context);
        }
        trace_state(&self.redactor, &mut span.context);
        if let Status::Error { description } = &mut span.status {
            self.words(description);
        }
    }

    /// Looked at once if there is nothing in it, and for every span otherwise: redactions are counted.
    fn outline(&mut self, outline: &mut Arc<Outline>) {
        if outline.harmless.get().is_some() {
            return;
        }
        let mut found = false;
        let clean = outline.changed(|outline| {
            found |= self.words(&mut outline.name);
            found |= self.attributes(&mut outline.attributes);
        });
        if found {
            *outline = clean;
        } else {
            outline.harmless.get_or_init(|| ());
        }
    }

    /// Whether anything was taken out of `text`.
    fn words(&mut self, text: &mut Cow<'static, str>) -> bool {
        let clean = self.cleaned("", text);
        let found = clean.is_some();
        clean.into_iter().for_each(|clean| *text = clean.into());
        found
    }

    /// Whether anything was taken out of one of `attributes`.
    fn attributes(&mut self, attributes: &mut [KeyValue]) -> bool {
        let mut found = false;
        for KeyValue { key, value, .. } in attributes {
            let mut clean = |text: &mut StringValue| {
                if let Some(clean) = self.cleaned(key.as_str(), text.as_str()) {
                    *text = clean.into();
                    found = true;
                }
            };
            match value {
                Value::String(text) => clean(text),
                Value::Array(Array::String(texts)) => texts.iter_mut().for_each(clean),
                _ => {}
            }
        }
        found
    }

    /// What to write under `key` in the place of `text`, if anything has to be.
    fn cleaned(&mut self, key: &str, text: &str) -> Option<String> {
        if self.harmless.has(key, text) {
            return None;
        }
        match self.redactor.document(key, text) {
            Cow::Owned(clean) => Some(clean),
            Cow::Borrowed(_) => {
                self.harmless.remember(key, text);
                None
            }
        }
    }
}

// === impl Harmless ===

impl Harmless {
    fn new() -> Self {
        Self(std::iter::repeat_with(|| None).take(REMEMBERED).collect())
    }

    fn has(&self, key: &str, text: &str) -> bool {
        let known = (text.len() <= LONGEST_REMEMBERED).then(|| self.0[place(key, text)].as_deref());
        known.flatten().is_some_and(|known| *known.text == *text && *known.key == *key)
    }

    fn remember(&mut self, key: &str, text: &str) {
        if key.len().max(text.len()) <= LONGEST_REMEMBERED {
            self.0[place(key, text)] = Some(Box::new(Attribute { key: key.into(), text: text.into() }));
        }
    }
}

/// A multiplication a word: enough to spread what programs call things, and nobody gains by two that share a place.
fn place(key: &str, text: &str) -> usize {
    let mut mixed = text.len() as u64;
    for chunk in key.as_bytes().chunks(8).chain(text.as_bytes().chunks(8)) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mixed = (mixed.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    usize::try_from(mixed >> (64 - REMEMBERED.trailing_zeros())).expect("it is below their number")
}

/// A client's `tracestate` travels in every span. One that holds something secret is left out as a whole: its entries belong
/// to others, who take them as they are or not at all.
fn trace_state(redactor: &Redactor, context: &mut SpanContext) {
    if *context.trace_state() == TraceState::NONE {
        return;
    }
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

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, SpanKind, TraceFlags, TraceId};
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

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

    fn sent(redacting: &mut Redacting, span: SpanData) -> SpanData {
        redacting.span(Box::new(span.into())).unwrap().into_data()
    }

    fn redacting() -> Redacting {
        Redacting { redactor: Redactor::standard(), harmless: Harmless::new() }
    }

    fn with_state(state: &str) -> SpanData {
        let (trace, own) = (TraceId::from(7), SpanId::from(9));
        let state = state.parse().unwrap();
        SpanData { span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, state), ..span() }
    }

    #[test]
    fn a_trace_state_that_holds_a_secret_is_left_out_and_the_ids_stay() {
        let mut redacting = redacting();
        for secret in ["vendor=ann@example.com", "fine=1,session-token=abc"] {
            let sent = sent(&mut redacting, with_state(secret)).span_context;
            assert_eq!(sent.trace_state().header(), "", "{secret}");
            assert_eq!((sent.trace_id(), sent.span_id()), (TraceId::from(7), SpanId::from(9)));
            assert!(sent.is_sampled());
        }
        let kept = sent(&mut redacting, with_state("vendor=opaque,other=2")).span_context;
        assert_eq!(kept.trace_state().header(), "vendor=opaque,other=2");
    }

    #[test]
    fn nothing_secret_is_left_in_any_part_of_a_span() {
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let mut redacting = Redacting::new(telemetry.sink().registry().unwrap());
        for time in 1..=3 {
            let sent = sent(&mut redacting, span());
            let whole = format!("{sent:?}");
            assert!(!whole.contains("example.com") && !whole.contains("anything"), "{whole}");
            assert_eq!(sent.attributes[1], KeyValue::new("gen_ai.usage.input_tokens", 7));
            let counted = format!("redactions_total{{kind=\"email\"}} {}", 5 * time);
            assert!(telemetry.sink().render().contains(&counted));
        }
    }

    #[test]
    fn what_all_spans_of_a_stage_have_is_looked_at_once_if_it_is_harmless_and_counted_otherwise() {
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let mut redacting = Redacting::new(telemetry.sink().registry().unwrap());
        let said = |model: &'static str| vec![KeyValue::new("gen_ai.request.model", model)];
        for (model, harmless) in [("tulip-9", true), ("of ann@example.com", false)] {
            let record = Record::from(span());
            let outline = record.outline.changed(|outline| {
                outline.name = "chat".into();
                outline.attributes = said(model);
            });
            for _ in 0..2 {
                let mut span = Box::new(record.clone());
                span.outline = Arc::clone(&outline);
                let sent = redacting.span(span).unwrap();
                assert_eq!(Arc::ptr_eq(&sent.outline, &outline), harmless);
                assert_eq!(sent.outline.attributes == said(model), harmless, "{:?}", sent.outline);
            }
            assert_eq!(outline.harmless.get().is_some(), harmless);
        }
        let others = 4 * 4;
        let counted = format!("redactions_total{{kind=\"email\"}} {}", others + 2);
        assert!(telemetry.sink().render().contains(&counted), "{}", telemetry.sink().render());
    }

    #[test]
    fn what_is_harmless_under_one_key_is_not_so_under_another() {
        let mut redacting = redacting();
        for _ in 0..2 {
            assert_eq!(redacting.cleaned("gen_ai.request.model", "tulip-9"), None);
            assert_eq!(redacting.cleaned("password", "tulip-9").as_deref(), Some("[REDACTED:CREDENTIAL]"));
        }
        assert!(redacting.harmless.has("gen_ai.request.model", "tulip-9"));
        assert!(!redacting.harmless.has("password", "tulip-9"));
    }

    #[test]
    fn more_texts_than_are_remembered_are_each_judged_by_themselves() {
        let mut redacting = redacting();
        for number in 0..REMEMBERED * 50 {
            let text = format!("model-{}", number % (REMEMBERED * 5));
            assert_eq!(redacting.cleaned("gen_ai.request.model", &text), None);
            let address = format!("m{number}@example.com");
            assert_eq!(
                redacting.cleaned("gen_ai.request.model", &address).as_deref(),
                Some("[REDACTED:EMAIL]")
            );
        }
        let long = "a".repeat(LONGEST_REMEMBERED + 1);
        assert_eq!((redacting.cleaned("k", &long), redacting.harmless.has("k", &long)), (None, false));
    }
}
