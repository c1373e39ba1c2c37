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

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{KeyValue, TraceId};

use super::clock::Tick;
use super::family::{Family, WORK_SECONDS};
use super::label::{Label, Outcome};
use super::registry::{Counter, Gauge, Histogram, Registry};
use super::sink::Sink;
use crate::context::Context;
use crate::error::Result;
use crate::graph::Node;
use crate::primitive::Primitive;

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

/// The work of a primitive, run and reported by [`Observed`].
pub trait Stage: Send + Sync + Sized {
    /// What it takes.
    type In: Send;
    /// What it gives.
    type Out: Send;
    /// How a run can end.
    type Outcome: Outcome;
    /// What can happen inside a run.
    type Event: Label;
    /// Handles to the series that belong to this primitive alone.
    type Signals: Send + Sync;
    /// What a run writes down for its end, in [`Run::note`].
    type Note: Default + Send;

    /// The `primitive` label, and the first word of the span's name.
    const PRIMITIVE: &'static str;
    /// The kind of span.
    const SPAN_KIND: SpanKind = SpanKind::Internal;
    /// Whether a run is a call to another service, whose time is not ours.
    const UPSTREAM: bool = false;

    /// The `operation` label: from configuration, never from a request.
    fn operation(&self) -> &str;

    /// The span's name, `{primitive} {operation}` if not overridden. From configuration as well.
    fn span_name(&self) -> Cow<'static, str> {
        format!("{} {}", Self::PRIMITIVE, self.operation()).into()
    }

    /// Resolves the series that belong to this primitive alone, at zero.
    fn declare(&self, registry: &Registry) -> Self::Signals;

    /// Does the work.
    fn run(
        &self,
        input: Self::In,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> impl Future<Output = Result<Self::Out>> + Send;

    /// Called once at the end of every run, whether it returned or was dropped, with telemetry on or off.
    fn ended(&self, end: &End<'_, Self>);

    /// This stage and what it holds.
    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, self.operation())
    }

    /// Creates the series of the stages it holds.
    fn bind(&self, sink: &Sink) {
        let _ = sink;
    }
}

/// A stage that reports. Every primitive ends up as one.
pub struct Observed<S: Stage>(Arc<Core<S>>);

struct Core<S: Stage> {
    stage: S,
    binding: ArcSwapOption<Binding<S>>,
}

/// The handles of one stage in one telemetry instance.
struct Binding<S: Stage> {
    sink: u64,
    span_name: Cow<'static, str>,
    registry_handles: Handles,
    signals: S::Signals,
}

struct Handles {
    in_flight: Gauge,
    durations: Vec<std::sync::OnceLock<Histogram>>,
    events: Vec<Counter>,
}

/// One run of a stage, as the stage sees it.
pub struct Run<'a, S: Stage> {
    core: &'a Arc<Core<S>>,
    cx: &'a Context,
    open: Option<Open<S>>,
    /// What [`Stage::ended`] will want to know.
    pub note: S::Note,
}

/// A run that ends later than the stage returns: when a stream is through, or is dropped.
#[must_use = "dropping it ends the run as cancelled"]
pub struct Deferred<S: Stage> {
    core: Arc<Core<S>>,
    cx: Context,
    open: Option<Open<S>>,
    /// What [`Stage::ended`] will want to know.
    pub note: S::Note,
}

/// What is to be settled when a run ends.
struct Open<S: Stage> {
    outcome: Option<S::Outcome>,
    live: Option<Live<S>>,
}

/// What only exists while telemetry is on.
struct Live<S: Stage> {
    binding: Arc<Binding<S>>,
    started: Tick,
    outside: Duration,
    /// Since when the run has been outside, while it is.
    left: Option<Tick>,
    span: Option<opentelemetry_sdk::trace::Span>,
}

/// How a run ended.
pub struct End<'a, S: Stage> {
    /// The outcome.
    pub outcome: S::Outcome,
    /// What the run wrote down.
    pub note: &'a S::Note,
    /// What telemetry knows; `None` when it is off.
    pub seen: Option<Seen<'a, S>>,
}

/// What telemetry knows of a run that has ended.
pub struct Seen<'a, S: Stage> {
    /// The series of the stage.
    pub signals: &'a S::Signals,
    /// When it ended.
    pub at: Tick,
    /// From start to end.
    pub elapsed: Duration,
    /// [`Seen::elapsed`] without what ran inside [`Run::outside`].
    pub own: Duration,
    /// The trace, if it is sampled: for exemplars.
    pub trace: Option<TraceId>,
    /// The context that the run was given.
    pub cx: &'a Context,
}

// === impl Observed ===

impl<S: Stage> Observed<S> {
    /// Has `stage` run and reported.
    pub fn new(stage: S) -> Self {
        Self(Arc::new(Core { stage, binding: ArcSwapOption::empty() }))
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
        let result = self.0.stage.run(input, inner.as_ref().unwrap_or(cx), &mut run).await;
        run.returned(&result);
        result
    }

    fn describe(&self) -> Node {
        self.0.stage.describe()
    }

    fn bind(&self, sink: &Sink) {
        if let Some(registry) = sink.registry() {
            self.0.binding(sink.id(), registry);
        }
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
    /// The handles for the telemetry instance `sink`, resolved at its first run there.
    fn binding(&self, sink: u64, registry: &Registry) -> Arc<Binding<S>> {
        if let Some(binding) = self.binding.load().as_ref().filter(|binding| binding.sink == sink) {
            return Arc::clone(binding);
        }
        let binding = Arc::new(Binding {
            sink,
            span_name: self.stage.span_name(),
            registry_handles: Handles::resolve::<S>(registry, self.stage.operation()),
            signals: self.stage.declare(registry),
        });
        self.binding.store(Some(Arc::clone(&binding)));
        binding
    }

    fn end(
        &self,
        cx: &Context,
        open: Open<S>,
        note: &S::Note,
        outcome: S::Outcome,
        error_type: Option<&'static str>,
    ) {
        let Some(mut live) = open.live else {
            self.stage.ended(&End { outcome, note, seen: None });
            return;
        };
        let at = cx.clock().now();
        let elapsed = at.since(live.started);
        let trace = live.span.as_ref().map(|span| span.span_context().trace_id());
        live.binding.registry_handles.ended(cx, self, outcome, elapsed, trace);
        if S::UPSTREAM {
            cx.add_upstream_time(elapsed);
        }
        let outside = live.outside + live.left.map_or(Duration::ZERO, |left| at.since(left));
        let own = elapsed.saturating_sub(outside);
        let seen = Seen { signals: &live.binding.signals, at, elapsed, own, trace, cx };
        self.stage.ended(&End { outcome, note, seen: Some(seen) });
        if let Some(span) = live.span.as_mut() {
            close(span, outcome.as_str(), error_type);
        }
    }
}

fn close(span: &mut opentelemetry_sdk::trace::Span, outcome: &'static str, error_type: Option<&'static str>) {
    span.set_attribute(KeyValue::new("throughline.outcome", outcome));
    match error_type {
        Some(kind) => {
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(kind));
        }
        None => span.set_status(Status::Ok),
    }
    span.end();
}

// === impl Handles ===

impl Handles {
    fn resolve<S: Stage>(registry: &Registry, operation: &str) -> Self {
        let event = |event: &S::Event| registry.counter(&EVENTS, &[S::PRIMITIVE, operation, event.as_str()]);
        Self {
            in_flight: registry.gauge(&IN_FLIGHT, &[S::PRIMITIVE, operation]),
            durations: S::Outcome::ALL.iter().map(|_| std::sync::OnceLock::new()).collect(),
            events: S::Event::ALL.iter().map(event).collect(),
        }
    }

    fn ended<S: Stage>(
        &self,
        cx: &Context,
        core: &Core<S>,
        outcome: S::Outcome,
        elapsed: Duration,
        trace: Option<TraceId>,
    ) {
        self.in_flight.dec();
        let histogram = self.durations[outcome.index()].get_or_init(|| {
            let registry = cx.sink().registry().expect("a live run has a registry");
            registry.histogram(&DURATION, &[S::PRIMITIVE, core.stage.operation(), outcome.as_str()])
        });
        histogram.observe(elapsed.as_secs_f64(), trace);
    }
}

// === impl Run ===

impl<'a, S: Stage> Run<'a, S> {
    /// Starts a run, and makes the context for what is inside where a span was opened.
    fn start(core: &'a Arc<Core<S>>, cx: &'a Context) -> (Self, Option<Context>) {
        let sink = cx.sink();
        let Some(registry) = sink.registry() else {
            return (
                Self { core, cx, open: Some(Open { outcome: None, live: None }), note: S::Note::default() },
                None,
            );
        };
        let binding = core.binding(sink.id(), registry);
        let (span, inner) = match open_span::<S>(sink, &binding, cx) {
            Some((span, inner)) => (span, Some(inner)),
            None => (None, None),
        };
        binding.registry_handles.in_flight.inc();
        let started = sink.clock().now();
        let live = Live { binding, started, outside: Duration::ZERO, left: None, span };
        (
            Self { core, cx, open: Some(Open { outcome: None, live: Some(live) }), note: S::Note::default() },
            inner,
        )
    }

    /// Says how the run ends. Without it the outcome follows from the result.
    pub fn outcome(&mut self, outcome: S::Outcome) {
        if let Some(open) = &mut self.open {
            open.outcome = Some(outcome);
        }
    }

    /// Counts something that happened inside the run.
    pub fn event(&mut self, event: S::Event) {
        if let Some(live) = self.live() {
            live.binding.registry_handles.events[event.index()].inc();
        }
    }

    /// Puts an attribute on the span, if there is one.
    pub fn attribute(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(span) = self.live().and_then(|live| live.span.as_mut()) {
            span.set_attribute(KeyValue::new(key, value.into()));
        }
    }

    /// The series of the stage, unless telemetry is off.
    pub fn signals(&mut self) -> Option<&S::Signals> {
        self.live().map(|live| &live.binding.signals)
    }

    /// Runs what is not this stage's own work: its time is taken off [`Seen::own`], also when the run is
    /// dropped meanwhile.
    pub async fn outside<F: Future>(&mut self, work: F) -> F::Output {
        let clock = self.cx.clock();
        let Some(live) = self.live() else { return work.await };
        let left = clock.now();
        live.left = Some(left);
        let output = work.await;
        if let Some(live) = self.live() {
            live.left = None;
            live.outside += clock.now().since(left);
        }
        output
    }

    /// As [`Run::outside`], for a wait on another run's call to a service: that time is not ours either.
    pub async fn upstream<F: Future>(&mut self, work: F) -> F::Output {
        let before = self.live().map(|live| live.outside);
        let output = self.outside(work).await;
        if let (Some(before), Some(live)) = (before, self.live()) {
            let waited = live.outside - before;
            self.cx.add_upstream_time(waited);
        }
        output
    }

    /// Lets the run end later than the stage returns. The caller must hold on to what it gets.
    pub fn defer(&mut self) -> Deferred<S> {
        Deferred {
            core: Arc::clone(self.core),
            cx: self.cx.clone(),
            open: self.open.take(),
            note: std::mem::take(&mut self.note),
        }
    }

    fn live(&mut self) -> Option<&mut Live<S>> {
        self.open.as_mut().and_then(|open| open.live.as_mut())
    }

    fn returned<T>(&mut self, result: &Result<T>) {
        let Some(open) = self.open.take() else { return };
        let fallback = if result.is_ok() { S::Outcome::SUCCESS } else { S::Outcome::ERROR };
        let outcome = open.outcome.unwrap_or(fallback);
        self.core.end(
            self.cx,
            open,
            &self.note,
            outcome,
            result.as_ref().err().map(|error| error.kind().as_str()),
        );
    }
}

impl<S: Stage> Drop for Run<'_, S> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.core.end(self.cx, open, &self.note, S::Outcome::CANCELLED, Some("cancelled"));
        }
    }
}

/// `None`: the run has no span and the context stays as it is. A root that the sampler declined has no
/// span either, but the stages inside must learn of it.
fn open_span<S: Stage>(
    sink: &Sink,
    binding: &Binding<S>,
    cx: &Context,
) -> Option<(Option<opentelemetry_sdk::trace::Span>, Context)> {
    let tracer = sink.tracer()?;
    let parent = cx.span();
    if parent.is_valid() && !parent.is_sampled() {
        return None;
    }
    let mut under = opentelemetry::Context::new();
    if parent.is_valid() {
        under = under.with_remote_span_context(parent.clone());
    }
    let span = tracer
        .span_builder(binding.span_name.clone())
        .with_kind(S::SPAN_KIND)
        .start_with_context(tracer, &under);
    let context: SpanContext = span.span_context().clone();
    Some((span.is_recording().then_some(span), cx.with_span(context)))
}

// === impl Deferred ===

impl<S: Stage> Deferred<S> {
    /// Ends the run. `error_type` is a kind from a closed set, such as [`Kind::as_str`](crate::Kind::as_str).
    pub fn end(mut self, outcome: S::Outcome, error_type: Option<&'static str>) {
        if let Some(open) = self.open.take() {
            self.core.end(&self.cx, open, &self.note, outcome, error_type);
        }
    }

    /// Puts an attribute on the span, if there is one.
    pub fn attribute(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        let span = self.open.as_mut().and_then(|open| open.live.as_mut()?.span.as_mut());
        if let Some(span) = span {
            span.set_attribute(KeyValue::new(key, value.into()));
        }
    }
}

impl<S: Stage> Drop for Deferred<S> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.core.end(&self.cx, open, &self.note, S::Outcome::CANCELLED, Some("cancelled"));
        }
    }
}
