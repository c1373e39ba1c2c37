//! A span while it is open, and what is written down of it.
//!
//! A [`Record`] is all that a span of a stage needs: what is the same for every run of the stage stands in a [`Outline`]
//! that the runs share, and the rest is written where it stays until it is encoded. Spans of the SDK are for processors
//! that the program brought along, which must be given such; when they end they are turned into records.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanContext, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, Value};
use opentelemetry_sdk::trace::{Span as SdkSpan, SpanData, SpanEvents, SpanLinks};

use super::clock::{Anchor, Tick};
use super::delivery::Events;
use super::sink::Sink;
use super::spare;

/// What spans are said to be made by.
pub(super) const SCOPE: &str = "throughline";
/// How a run ended, from the closed set of its stage.
const OUTCOME: &str = "throughline.outcome";
const ERROR_TYPE: &str = "error.type";
/// A record that is kept for another span has room for so many attributes at most.
pub(super) const ROOM_KEPT: usize = 16;

/// A span that is open.
pub(super) enum Span {
    Own(Box<Record>),
    Sdk(Box<SdkSpan>),
}

/// What is the same for every span of a stage.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) name: Cow<'static, str>,
    pub(super) kind: SpanKind,
    pub(super) attributes: Vec<KeyValue>,
    /// Attributes that a span may not hold.
    dropped: u32,
    /// Set when it is known that nothing secret is in it.
    pub(super) harmless: OnceLock<()>,
    /// As an exporter writes it: only of one that may leave the process.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only OTLP writes bytes"))]
    pub(super) written: OnceLock<Box<[u8]>>,
}

/// Several of them. Each stays where it is from its beginning to its end.
pub(super) type Records = Vec<Box<Record>>;

/// What is written down of a span.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) outline: Arc<Outline>,
    pub(super) context: SpanContext,
    pub(super) parent: SpanId,
    pub(super) parent_is_remote: bool,
    anchor: Anchor,
    /// Nanoseconds since 1970, and so is the end.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<KeyValue>,
    /// Of a closed set, and therefore apart from the attributes, which may be anything.
    outcome: Option<&'static str>,
    error: Option<&'static str>,
    pub(super) status: Status,
    pub(super) dropped: u32,
    /// So many attributes more may be added.
    room: u32,
    pub(super) events: SpanEvents,
    pub(super) links: SpanLinks,
}

/// Where a span stands: what does not follow from its stage.
pub(super) struct Place<'a> {
    pub(super) context: SpanContext,
    pub(super) parent: &'a SpanContext,
    pub(super) anchor: Anchor,
    pub(super) started: Tick,
}

// === impl Span ===

impl Span {
    pub(super) fn context(&self) -> &SpanContext {
        match self {
            Self::Own(record) => &record.context,
            Self::Sdk(span) => span.span_context(),
        }
    }

    /// Where an event of it is to be put, with its context: of a span that is sent, for an event must not be all that
    /// is left of a trace.
    pub(super) fn events<'a>(&self, sink: &'a Sink) -> Option<(&'a Events, SpanContext)> {
        let context = self.context();
        sink.events().filter(|_| context.is_sampled()).map(|events| (events, context.clone()))
    }

    pub(super) fn set(&mut self, key: &'static str, value: Value) {
        match self {
            Self::Own(record) => record.set(key, value),
            Self::Sdk(span) => span.set_attribute(KeyValue::new(key, value)),
        }
    }

    /// Ends it. What comes back is still to be handed on; the SDK does so by itself.
    pub(super) fn close(
        self,
        at: Tick,
        outcome: &'static str,
        error_type: Option<&'static str>,
    ) -> Option<Box<Record>> {
        match self {
            Self::Own(mut record) => {
                record.close(at, outcome, error_type);
                Some(record)
            }
            Self::Sdk(mut span) => {
                span.set_attribute(KeyValue::new(OUTCOME, outcome));
                if let Some(kind) = error_type {
                    span.set_attribute(KeyValue::new(ERROR_TYPE, kind));
                }
                span.set_status(error_type.map_or(Status::Ok, Status::error));
                span.end();
                None
            }
        }
    }
}

// === impl Outline ===

impl Outline {
    /// With as many `attributes` as a span may hold.
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        mut attributes: Vec<KeyValue>,
        most: u32,
    ) -> Self {
        let dropped = attributes.len().saturating_sub(most as usize);
        attributes.truncate(most as usize);
        let dropped = u32::try_from(dropped).unwrap_or(u32::MAX);
        let (harmless, written) = (OnceLock::new(), OnceLock::new());
        Self { name: name.into(), kind, attributes, dropped, harmless, written }
    }

    /// The same with another name and other attributes, of which nothing is known yet.
    pub(super) fn changed(&self, change: impl FnOnce(&mut Self)) -> Arc<Self> {
        let mut changed = Self::new(self.name.clone(), self.kind.clone(), self.attributes.clone(), u32::MAX);
        change(&mut changed);
        Arc::new(changed)
    }
}

// === impl Record ===

impl Record {
    /// A span that begins, with no more than `most` attributes.
    pub(super) fn begin(outline: &Arc<Outline>, place: Place<'_>, most: u32) -> Box<Self> {
        match spare::taken() {
            Some(mut spare) => {
                let attributes = std::mem::take(&mut spare.attributes);
                *spare = Self::with(attributes, outline, place, most);
                spare
            }
            None => Box::new(Self::with(Vec::new(), outline, place, most)),
        }
    }

    fn with(attributes: Vec<KeyValue>, outline: &Arc<Outline>, place: Place<'_>, most: u32) -> Self {
        let Place { context, parent, anchor, started } = place;
        let held = u32::try_from(outline.attributes.len()).unwrap_or(u32::MAX);
        let start = anchor.time_of(started);
        Self {
            outline: Arc::clone(outline),
            context,
            parent: parent.span_id(),
            parent_is_remote: parent.is_valid() && parent.is_remote(),
            anchor,
            start,
            end: start,
            attributes,
            outcome: None,
            error: None,
            status: Status::Unset,
            dropped: outline.dropped,
            room: most.saturating_sub(held),
            events: SpanEvents::default(),
            links: SpanLinks::default(),
        }
    }

    /// Forgets what it was told. Room for many attributes is given back.
    pub(super) fn forget(&mut self) {
        self.attributes.clear();
        if self.attributes.capacity() > ROOM_KEPT {
            self.attributes = Vec::new();
        }
        (self.events, self.links) = (SpanEvents::default(), SpanLinks::default());
        (self.context, self.status) = (SpanContext::NONE, Status::Unset);
    }

    fn set(&mut self, key: &'static str, value: Value) {
        if self.takes_one_more() {
            if self.attributes.capacity() == 0 {
                self.attributes.reserve_exact(8);
            }
            self.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Says something of the closed sets whether there is room or not.
    #[cfg(test)]
    pub(super) fn say(&mut self, outcome: Option<&'static str>, error: Option<&'static str>) {
        (self.outcome, self.error) = (outcome, error);
    }

    fn close(&mut self, at: Tick, outcome: &'static str, error_type: Option<&'static str>) {
        self.end = self.anchor.time_of(at);
        if self.takes_one_more() {
            self.outcome = Some(outcome);
        }
        self.status = match error_type {
            Some(kind) => {
                if self.takes_one_more() {
                    self.error = Some(kind);
                }
                Status::error(kind)
            }
            None => Status::Ok,
        };
    }

    fn takes_one_more(&mut self) -> bool {
        let left = self.room.checked_sub(1);
        self.room = left.unwrap_or_default();
        self.dropped = self.dropped.saturating_add(u32::from(left.is_none()));
        left.is_some()
    }

    /// What the closed sets say: no text of anybody else.
    pub(super) fn closed(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let said =
            [self.outcome.map(|outcome| (OUTCOME, outcome)), self.error.map(|error| (ERROR_TYPE, error))];
        said.into_iter().flatten()
    }

    /// Has `cut` shorten what the closed sets say.
    pub(super) fn shorten_closed(&mut self, cut: impl Fn(&'static str) -> &'static str) {
        (self.outcome, self.error) = (self.outcome.map(&cut), self.error.map(&cut));
    }

    /// From start to end.
    pub(super) fn took(&self) -> Duration {
        Duration::from_nanos(self.end.saturating_sub(self.start))
    }

    /// All its attributes, in the order in which they were set.
    pub(super) fn all_attributes(&self) -> impl Iterator<Item = KeyValue> + '_ {
        let open = self.outline.attributes.iter().chain(&self.attributes).cloned();
        open.chain(self.closed().map(|(key, value)| KeyValue::new(key, value)))
    }

    /// As the SDK has it, for what knows nothing else.
    pub(super) fn into_data(self) -> SpanData {
        let attributes = self.all_attributes().collect();
        SpanData {
            span_context: self.context,
            parent_span_id: self.parent,
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.outline.kind.clone(),
            name: self.outline.name.clone(),
            start_time: moment(self.start),
            end_time: moment(self.end),
            attributes,
            dropped_attributes_count: self.dropped,
            events: self.events,
            links: self.links,
            status: self.status,
            instrumentation_scope: InstrumentationScope::builder(SCOPE).build(),
        }
    }
}

impl From<SpanData> for Record {
    fn from(span: SpanData) -> Self {
        Self {
            outline: Arc::new(Outline::new(span.name, span.span_kind, Vec::new(), 0)),
            context: span.span_context,
            parent: span.parent_span_id,
            parent_is_remote: span.parent_span_is_remote,
            anchor: Anchor::NONE,
            start: nanoseconds(span.start_time),
            end: nanoseconds(span.end_time),
            attributes: span.attributes,
            outcome: None,
            error: None,
            status: span.status,
            dropped: span.dropped_attributes_count,
            room: 0,
            events: span.events,
            links: span.links,
        }
    }
}

/// Nanoseconds since 1970.
pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn moment(nanoseconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}
