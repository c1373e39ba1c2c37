//! Opens spans, and says which are recorded.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt as _, TraceFlags, TraceState,
};
use opentelemetry::{KeyValue, SpanId, TraceId};
use opentelemetry_sdk::trace::{SdkTracer, SpanLinks};

use super::clock::{Anchor, Tick};
use super::delivery::{Head, Intake, Limits, Undecided};
use super::span::{Outline, Place, Record, Span};
use crate::context::Context;

/// Where spans of stages come from.
pub(super) enum Tracer {
    /// Ours, as long as no processor of the program's own wants to see spans of the SDK.
    Own(Own),
    Sdk(SdkTracer),
}

pub(super) struct Own {
    /// `None` where there is nobody to deliver to.
    pub(super) intake: Option<Arc<Intake>>,
    pub(super) head: Head,
    pub(super) limits: Limits,
    pub(super) undecided: Option<Arc<Undecided>>,
}

/// What a stage that has begun is told: the span, if it is recorded, and what is inside of it stands where.
pub(super) struct Opened {
    pub(super) span: Option<Span>,
    pub(super) context: SpanContext,
    pub(super) anchor: Anchor,
}

// === impl Tracer ===

impl Tracer {
    /// What every span of a stage has.
    pub(super) fn outline(
        &self,
        name: Cow<'static, str>,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
    ) -> Arc<Outline> {
        let most = match self {
            Self::Own(own) => own.limits.attributes,
            // It counts them itself.
            Self::Sdk(_) => u32::MAX,
        };
        Arc::new(Outline::new(name, kind, attributes, most))
    }

    /// Opens a span under the one that is open in `cx`.
    pub(super) fn open(&self, outline: &Arc<Outline>, cx: &Context, started: Tick) -> Option<Opened> {
        match self {
            Self::Own(own) => own.open(outline, cx, started),
            Self::Sdk(tracer) => Some(sdk(tracer, outline, cx)),
        }
    }

    /// Takes a span that has ended.
    pub(super) fn ended(&self, record: Box<Record>) {
        if let Self::Own(Own { intake: Some(intake), .. }) = self {
            intake.ended(record);
        }
    }
}

// === impl Own ===

impl Own {
    fn open(&self, outline: &Arc<Outline>, cx: &Context, started: Tick) -> Option<Opened> {
        if self.intake.as_ref().is_some_and(|intake| intake.is_closed()) {
            return None;
        }
        let parent = cx.span();
        let (trace, state, flags) = match parent.is_valid() {
            true => (parent.trace_id(), parent.trace_state().clone(), parent.trace_flags()),
            false => (new_trace(), TraceState::NONE, TraceFlags::default()),
        };
        let sampled = self.head.samples(parent, trace);
        let recorded = sampled || self.undecided.as_ref().is_some_and(|held| held.takes(parent, trace));
        let flags = if recorded { flags.with_sampled(sampled) } else { TraceFlags::default() };
        let context = SpanContext::new(trace, new_span(), flags, false, state);
        if !recorded {
            return Some(Opened { span: None, context, anchor: Anchor::NONE });
        }
        let anchor = cx.anchor().or_at(started);
        let place = Place { context: context.clone(), parent, anchor, started };
        let mut record = Record::begin(outline, place, self.limits.attributes);
        if let Some(caller) = cx.link() {
            record.links = self.linked(caller);
        }
        Some(Opened { span: Some(Span::Own(record)), context, anchor })
    }

    fn linked(&self, caller: &SpanContext) -> SpanLinks {
        let mut links = SpanLinks::default();
        match self.limits.links {
            0 => links.dropped_count = 1,
            _ => links.links.push(Link::with_context(caller.clone())),
        }
        links
    }
}

fn new_trace() -> TraceId {
    loop {
        let id = TraceId::from(fastrand::u128(..));
        if id != TraceId::INVALID {
            return id;
        }
    }
}

fn new_span() -> SpanId {
    loop {
        let id = SpanId::from(fastrand::u64(..));
        if id != SpanId::INVALID {
            return id;
        }
    }
}

fn sdk(tracer: &SdkTracer, outline: &Outline, cx: &Context) -> Opened {
    let parent = cx.span();
    let mut under = opentelemetry::Context::new();
    if parent.is_valid() {
        under = under.with_remote_span_context(parent.clone());
    }
    let mut builder = SpanBuilder::from_name(outline.name.clone())
        .with_kind(outline.kind.clone())
        .with_attributes(outline.attributes.iter().cloned());
    if let Some(caller) = cx.link() {
        builder = builder.with_links(vec![Link::with_context(caller.clone())]);
    }
    let span = builder.start_with_context(tracer, &under);
    let context = span.span_context().clone();
    let span = span.is_recording().then(|| Span::Sdk(Box::new(span)));
    Opened { span, context, anchor: Anchor::NONE }
}
