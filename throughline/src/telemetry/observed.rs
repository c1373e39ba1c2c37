//! The only code that times, counts and opens spans.
//!
//! A [`Stage`] does the work of a primitive; [`Observed`] runs it. Every stage gets, without a line of
//! its own, a span, and the three generic families: how long it took by outcome, how many are in flight,
//! and its events. Series of its own it declares in [`Stage::declare`] and moves in [`Stage::ended`].
//!
//! When telemetry is off nothing is timed. When a trace is not sampled no span is built.
//!
//! # Cancellation
//! A run that is dropped before it returns ends with the outcome `cancelled`.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::TraceId;
use opentelemetry::trace::SpanContext;

use super::clock::Tick;
use super::family::{Family, WORK_SECONDS};
use super::histogram::Histogram;
use super::label::Label;
use super::per_sink::PerSink;
use super::registry::{Counter, Gauge, Registry};
use super::run::{Live, Open, Run, open_span, recordable};
use super::sink::Sink;
use super::span::{Outline, Span};
use super::stage::{End, Seen, Stage};
use crate::context::Context;
use crate::error::Result;
use crate::graph::Node;
use crate::primitive::Primitive;
use crate::stream::Streaming;

static DURATION: Family = Family::histogram(
    "throughline_primitive_duration_seconds",
    "How long a run of a primitive took, in seconds",
    &["primitive", "operation", "outcome"],
    WORK_SECONDS,
);
static IN_FLIGHT: Family = Family::gauge(
    "throughline_primitive_in_flight",
    "Runs of a primitive that have started and not ended",
    &["primitive", "operation"],
);
static EVENTS: Family = Family::counter(
    "throughline_primitive_events",
    "What happened inside runs of a primitive",
    &["primitive", "operation", "event"],
);

pub(super) static FAMILIES: &[&Family] = &[&DURATION, &IN_FLIGHT, &EVENTS];

/// A stage that reports. Every primitive ends up as one.
pub struct Observed<S: Stage>(Arc<Core<S>>);

pub(super) struct Core<S: Stage> {
    pub(super) stage: S,
    bindings: PerSink<Binding<S::Signals>>,
}

/// The handles of one stage in one telemetry instance. What follows is generic over as little as it needs: a long
/// chain has a type of stage for every step, and each would be compiled by itself.
pub(super) struct Binding<Signals> {
    /// Of its spans, if there are to be any.
    pub(super) outline: Option<Arc<Outline>>,
    pub(super) handles: Handles,
    pub(super) signals: Signals,
}

pub(super) struct Handles {
    pub(super) in_flight: Gauge,
    durations: Vec<OnceLock<Histogram>>,
    pub(super) events: Vec<Counter>,
    primitive: &'static str,
    operation: Box<str>,
}

/// How a run has ended, apart from its type.
#[derive(Clone, Copy)]
struct Ending {
    /// Which of the outcomes of its stage it is.
    index: usize,
    outcome: &'static str,
    error_type: Option<&'static str>,
}

/// What is known of a run that has ended.
struct Measured {
    at: Tick,
    elapsed: Duration,
    own: Duration,
    trace: Option<TraceId>,
}

// === impl Observed ===

impl<S: Stage> Observed<S> {
    /// Has `stage` run and reported.
    pub fn new(stage: S) -> Self {
        Self(Arc::new(Core { stage, bindings: PerSink::new() }))
    }

    /// The stage.
    pub fn stage(&self) -> &S {
        &self.0.stage
    }
}

impl<S: Stage> Primitive for Observed<S> {
    type In = S::In;
    type Out = S::Out;

    async fn execute(&self, input: S::In, cx: &Context) -> Result<S::Out> {
        let (mut run, inner) = Run::start(&self.0, cx);
        let mut result = self.0.stage.run(input, inner.as_deref().unwrap_or(cx), &mut run).await;
        if S::STREAMS
            && let Ok(output) = &mut result
            && let Some(stream) = self.0.stage.stream(output)
        {
            run.ends_with(stream);
        }
        run.returned(&result);
        result
    }

    fn stream<'a>(&self, output: &'a mut S::Out) -> Option<&'a mut dyn Streaming> {
        self.0.stage.stream(output)
    }

    fn describe(&self) -> Node {
        self.0.stage.describe()
    }

    fn bind(&self, sink: &Sink) {
        self.0.binding(sink);
        self.0.stage.bind(sink);
    }
}

impl<S: Stage> Clone for Observed<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Stage + fmt::Debug> fmt::Debug for Observed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.stage.fmt(f)
    }
}

// === impl Core ===

impl<S: Stage> Core<S> {
    /// The handles for the telemetry instance `sink`, resolved at its first run there; `None` when it is off.
    pub(super) fn binding(&self, sink: &Sink) -> Option<&Binding<S::Signals>> {
        let registry = sink.registry()?;
        let resolve = || Binding {
            outline: sink.tracer().map(|tracer| {
                tracer.outline(self.stage.span_name(), S::SPAN_KIND, self.stage.span_attributes())
            }),
            handles: Handles::resolve::<S::Outcome, S::Event>(registry, S::PRIMITIVE, self.stage.operation()),
            signals: self.stage.declare(registry),
        };
        Some(self.bindings.get_or_make(sink.id(), &resolve))
    }

    /// Settles a run, once: what comes after the first call does nothing.
    pub(super) fn end(
        &self,
        cx: &Context,
        binding: Option<&Binding<S::Signals>>,
        open: &mut Open<S::Outcome>,
        note: &S::Note,
        outcome: S::Outcome,
        error_type: Option<&'static str>,
    ) {
        if std::mem::replace(&mut open.settled, true) {
            return;
        }
        let (Some(binding), Some(live)) = (binding, &mut open.live) else {
            self.stage.ended(&End { outcome, note, seen: None });
            return;
        };
        let ending = Ending { index: outcome.index(), outcome: outcome.as_str(), error_type };
        let Measured { at, elapsed, own, trace } = binding.handles.measure(live, cx, ending);
        if S::UPSTREAM {
            cx.add_upstream_time(elapsed);
        }
        let events = &binding.handles.events;
        let seen = Seen { signals: &binding.signals, at, elapsed, own, trace, cx, events };
        self.stage.ended(&End { outcome, note, seen: Some(seen) });
        if let Some(span) = live.span.take() {
            close(span, cx.sink(), at, ending);
        }
    }
}

/// The trace to show beside a figure: one that is exported. What is undecided is so only at the end of its root.
#[inline]
fn exemplar(cx: &Context, span: &SpanContext, elapsed: Duration, failed: bool) -> Option<TraceId> {
    let id = span.trace_id();
    let exported = span.is_sampled()
        || (!cx.span().is_valid()
            && cx.sink().undecided().is_some_and(|held| held.verdict(id, failed, elapsed)));
    exported.then_some(id)
}

#[inline(never)]
fn close(span: Span, sink: &Sink, at: Tick, Ending { outcome, error_type, .. }: Ending) {
    if let (Some(record), Some(tracer)) = (span.close(at, outcome, error_type), sink.tracer()) {
        tracer.ended(record);
    }
}

// === impl Handles ===

impl Handles {
    fn resolve<O: Label, E: Label>(registry: &Registry, primitive: &'static str, operation: &str) -> Self {
        let event = |event: &E| registry.counter(&EVENTS, &[primitive, operation, event.as_str()]);
        Self {
            in_flight: registry.gauge(&IN_FLIGHT, &[primitive, operation]),
            durations: O::ALL.iter().map(|_| OnceLock::new()).collect(),
            events: E::ALL.iter().map(event).collect(),
            primitive,
            operation: operation.into(),
        }
    }

    /// Begins a run, and opens its span if it is to have one. It and [`Handles::measure`] are one piece of code for stages of
    /// all types: a request goes through a dozen of them, and finds it in the processor's cache.
    #[inline(never)]
    pub(super) fn begin(&self, outline: Option<&Arc<Outline>>, cx: &Context) -> (Live, Option<Box<Context>>) {
        // The clock first, here and at the end: right after an atomic addition it would wait for that.
        let started = cx.clock().now();
        let (span, inner) = match (cx.sink().tracer(), outline) {
            (Some(tracer), Some(outline)) if recordable(cx) => open_span(tracer, outline, cx, started),
            _ => (None, None),
        };
        self.in_flight.inc();
        (Live { started, outside: Duration::ZERO, left: None, span }, inner)
    }

    /// Counts a run that has ended.
    #[inline(never)]
    fn measure(&self, live: &Live, cx: &Context, ending: Ending) -> Measured {
        let at = cx.clock().now();
        let nanos = at.nanos_since(live.started);
        let elapsed = Duration::from_nanos(nanos);
        let span = live.span.as_ref().filter(|_| cx.sink().exemplars()).map(Span::context);
        let trace = span.and_then(|span| exemplar(cx, span, elapsed, ending.error_type.is_some()));
        self.in_flight.dec();
        let duration = self.durations[ending.index].get_or_init(|| self.duration(cx, ending.outcome));
        duration.observe_nanos(nanos, trace);
        let outside = match live.left {
            Some(left) => live.outside + at.since(left),
            None => live.outside,
        };
        Measured { at, elapsed, own: elapsed.saturating_sub(outside), trace }
    }

    #[cold]
    fn duration(&self, cx: &Context, outcome: &str) -> Histogram {
        let registry = cx.sink().registry().expect("a live run has a registry");
        registry.histogram(&DURATION, &[self.primitive, &self.operation, outcome])
    }
}
