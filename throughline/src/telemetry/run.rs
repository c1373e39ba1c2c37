//! One run of a stage: what it writes down while it is under way, and that it is settled however it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, SpanContext, TraceContextExt, Tracer};

use super::clock::Tick;
use super::label::{Label as _, Outcome as _};
use super::observed::{Binding, Core};
use super::sink::Sink;
use super::stage::Stage;
use crate::context::Context;
use crate::error::{Kind, Result};
use crate::stream::{StreamEnding, Streaming};

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
pub(super) struct Open<S: Stage> {
    pub(super) outcome: Option<S::Outcome>,
    pub(super) live: Option<Live<S>>,
}

/// What only exists while telemetry is on.
pub(super) struct Live<S: Stage> {
    pub(super) binding: Arc<Binding<S>>,
    pub(super) started: Tick,
    pub(super) outside: Duration,
    /// Since when the run has been outside, while it is.
    pub(super) left: Option<Tick>,
    pub(super) span: Option<opentelemetry_sdk::trace::Span>,
}

// === impl Run ===

impl<'a, S: Stage> Run<'a, S> {
    /// Starts a run, and makes the context for what is inside where a span was opened.
    pub(super) fn start(core: &'a Arc<Core<S>>, cx: &'a Context) -> (Self, Option<Context>) {
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
        binding.handles.in_flight.inc();
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
            live.binding.handles.events[event.index()].inc();
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

    /// Runs what is not this stage's own work: its time is taken off [`Seen::own`](super::Seen::own), also when the run is
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

    /// As [`Run::outside`], for a wait on another run's call to a service: see [`Context::elsewhere`].
    pub async fn upstream<F: Future>(&mut self, work: F) -> F::Output {
        let cx = self.cx;
        self.outside(cx.elsewhere(work)).await
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

    /// Leaves the run open until `stream` has ended, unless the stage has deferred it already.
    pub(super) fn ends_with(&mut self, stream: &mut dyn Streaming) {
        if self.open.is_some() {
            let deferred = self.defer();
            stream.on_end(Box::new(move |ending| deferred.end_with(ending)));
        }
    }

    fn live(&mut self) -> Option<&mut Live<S>> {
        self.open.as_mut().and_then(|open| open.live.as_mut())
    }

    pub(super) fn returned<T>(&mut self, result: &Result<T>) {
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
            let (outcome, error_type) = dropped::<S>();
            self.core.end(self.cx, open, &self.note, outcome, Some(error_type));
        }
    }
}

/// Why a run is dropped: by a panic inside it, or because its caller went away.
fn dropped<S: Stage>() -> (S::Outcome, &'static str) {
    match std::thread::panicking() {
        true => (S::Outcome::ERROR, Kind::Internal.as_str()),
        false => (S::Outcome::CANCELLED, Kind::Cancelled.as_str()),
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

    /// Counts something that happened inside the run.
    pub fn event(&mut self, event: S::Event) {
        if let Some(live) = self.open.as_mut().and_then(|open| open.live.as_mut()) {
            live.binding.handles.events[event.index()].inc();
        }
    }

    fn end_with(mut self, ending: &StreamEnding) {
        let said = self.open.as_ref().and_then(|open| open.outcome);
        let core = Arc::clone(&self.core);
        let outcome = core.stage.stream_ended(ending, &mut self);
        match ending {
            StreamEnding::Complete => self.end(outcome.or(said).unwrap_or(S::Outcome::SUCCESS), None),
            StreamEnding::Failed(error) => {
                self.end(outcome.unwrap_or(S::Outcome::ERROR), Some(error.kind().as_str()));
            }
            StreamEnding::Dropped => {
                self.end(outcome.unwrap_or(S::Outcome::CANCELLED), Some(Kind::Cancelled.as_str()));
            }
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
            let (outcome, error_type) = dropped::<S>();
            self.core.end(&self.cx, open, &self.note, outcome, Some(error_type));
        }
    }
}
