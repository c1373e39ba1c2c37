//! One run of a stage: what it writes down while it is under way, and that it is settled however it ends.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Tick;
use super::delivery::Event;
use super::label::{Label as _, Outcome as _};
use super::observed::{Binding, Core};
use super::registry::Counter;
use super::span::{Outline, Span};
use super::stage::Stage;
use super::tracer::{Opened, Tracer};
use crate::context::Context;
use crate::error::{Kind, Result};
use crate::stream::{StreamEnding, Streaming};

/// One run of a stage, as the stage sees it.
pub struct Run<'a, S: Stage> {
    core: &'a Arc<Core<S>>,
    cx: &'a Context,
    /// `None` when telemetry is off.
    binding: Option<&'a Binding<S::Signals>>,
    open: Open<S::Outcome>,
    /// What [`Stage::ended`] will want to know.
    pub note: S::Note,
}

/// A run that ends later than the stage returns: when a stream is through, or is dropped.
#[must_use = "dropping it ends the run as cancelled"]
pub struct Deferred<S: Stage> {
    core: Arc<Core<S>>,
    cx: Context,
    open: Open<S::Outcome>,
    /// What [`Stage::ended`] will want to know.
    pub note: S::Note,
}

/// What is to be settled when a run ends. It stays where it is until then: moving it costs as much as counting.
pub(super) struct Open<O> {
    pub(super) settled: bool,
    pub(super) outcome: Option<O>,
    pub(super) live: Option<Live>,
}

/// What only exists while telemetry is on.
pub(super) struct Live {
    pub(super) started: Tick,
    pub(super) outside: Duration,
    /// Since when the run has been outside, while it is.
    pub(super) left: Option<Tick>,
    pub(super) span: Option<Span>,
}

// === impl Run ===

impl<'a, S: Stage> Run<'a, S> {
    /// Starts a run, and makes the context for what is inside where a span was opened.
    #[inline]
    pub(super) fn start(core: &'a Arc<Core<S>>, cx: &'a Context) -> (Self, Option<Box<Context>>) {
        let binding = core.binding(cx.sink());
        let (live, inner) = match binding {
            Some(binding) => {
                let (live, inner) = binding.handles.begin(binding.outline.as_ref(), cx);
                (Some(live), inner)
            }
            None => (None, None),
        };
        let open = Open { settled: false, outcome: None, live };
        (Self { core, cx, binding, open, note: S::Note::default() }, inner)
    }

    /// Says how the run ends. Without it the outcome follows from the result.
    pub fn outcome(&mut self, outcome: S::Outcome) {
        self.open.outcome = Some(outcome);
    }

    /// Counts something that happened inside the run.
    pub fn event(&mut self, event: S::Event) {
        if let Some(binding) = self.binding {
            binding.handles.events[event.index()].inc();
        }
    }

    /// Puts an attribute on the span, if there is one: `throughline.{primitive}.{what}`, unless a convention names it.
    pub fn attribute(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(span) = self.live().and_then(|live| live.span.as_mut()) {
            span.set(key, value.into());
        }
    }

    /// Whether there is a span to put attributes on: what is costly to find out need not be found out for nothing.
    #[must_use]
    pub fn records(&self) -> bool {
        self.open.live.as_ref().is_some_and(|live| live.span.is_some())
    }

    /// Whether an event with content would go anywhere: that the instance records some, and that the span is sent.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.open.tells(self.cx)
    }

    /// Sends an event of the span, with attributes that may have structure. It leaves as a log record.
    pub fn tell(&self, name: &'static str, attributes: Vec<(Cow<'static, str>, serde_json::Value)>) {
        self.open.tell(self.cx, name, attributes);
    }

    /// The series of the stage, unless telemetry is off.
    pub fn signals(&mut self) -> Option<&S::Signals> {
        self.binding.map(|binding| &binding.signals)
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

    /// Lets the run end later than the stage returns. The caller must hold on to what it gets. What is left is not this stage's
    /// own work: it counts as [`Run::outside`].
    pub fn defer(&mut self) -> Deferred<S> {
        let clock = self.cx.clock();
        if let Some(live) = self.live() {
            live.left = Some(clock.now());
        }
        Deferred {
            core: Arc::clone(self.core),
            cx: self.cx.clone(),
            open: std::mem::replace(&mut self.open, Open { settled: true, outcome: None, live: None }),
            note: std::mem::take(&mut self.note),
        }
    }

    /// The count of `event`, for what happens when the run may be over; `None` when telemetry is off.
    pub fn counter(&self, event: S::Event) -> Option<Counter> {
        self.binding.map(|binding| binding.handles.events[event.index()].clone())
    }

    /// Leaves the run open until `stream` has ended, unless the stage has deferred it already.
    pub(super) fn ends_with(&mut self, stream: &mut dyn Streaming) {
        if !self.open.settled {
            let deferred = self.defer();
            stream.on_end(Box::new(move |ending| deferred.end_with(ending)));
        }
    }

    fn live(&mut self) -> Option<&mut Live> {
        self.open.live.as_mut()
    }

    #[inline]
    pub(super) fn returned<T>(&mut self, result: &Result<T>) {
        let fallback = if result.is_ok() { S::Outcome::SUCCESS } else { S::Outcome::ERROR };
        let outcome = self.open.outcome.unwrap_or(fallback);
        self.end(outcome, result.as_ref().err().map(|error| error.kind().as_str()));
    }

    fn end(&mut self, outcome: S::Outcome, error_type: Option<&'static str>) {
        self.core.end(self.cx, self.binding, &mut self.open, &self.note, outcome, error_type);
    }
}

impl<S: Stage> Drop for Run<'_, S> {
    #[inline]
    fn drop(&mut self) {
        if !self.open.settled {
            let (outcome, error_type) = dropped::<S>();
            self.end(outcome, Some(error_type));
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

/// Whether a span under the one that is open now may be sampled, or held until it is known.
#[inline]
pub(super) fn recordable(cx: &Context) -> bool {
    let parent = cx.span();
    parent.is_sampled()
        || !parent.is_valid()
        || match parent.is_remote() {
            true => !cx.sink().follows_parent(),
            false => cx.sink().undecided().is_some_and(|held| held.holds(parent.trace_id())),
        }
}

/// The span, if it is recorded, and the context for what is inside: the stages inside a root that the sampler
/// declined must learn of it. Boxed, so that a run without a span does not carry its size.
#[inline(never)]
pub(super) fn open_span(
    tracer: &Tracer,
    outline: &Arc<Outline>,
    cx: &Context,
    started: Tick,
) -> (Option<Span>, Option<Box<Context>>) {
    match tracer.open(outline, cx, started) {
        Some(Opened { span, context, anchor }) => (span, Some(Box::new(cx.with_span(context, anchor)))),
        None => (None, None),
    }
}

// === impl Open ===

impl<O> Open<O> {
    fn span(&self) -> Option<&Span> {
        self.live.as_ref().and_then(|live| live.span.as_ref())
    }

    fn tells(&self, cx: &Context) -> bool {
        self.span().is_some_and(|span| span.events(cx.sink()).is_some())
    }

    fn tell(
        &self,
        cx: &Context,
        name: &'static str,
        attributes: Vec<(Cow<'static, str>, serde_json::Value)>,
    ) {
        if let Some((events, span)) = self.span().and_then(|span| span.events(cx.sink())) {
            events.push(Event::now(name, span, attributes));
        }
    }
}

// === impl Deferred ===

impl<S: Stage> Deferred<S> {
    /// Ends the run. `error_type` is a kind from a closed set, such as [`Kind::as_str`](crate::Kind::as_str).
    pub fn end(mut self, outcome: S::Outcome, error_type: Option<&'static str>) {
        self.settle(outcome, error_type);
    }

    /// Counts something that happened inside the run.
    pub fn event(&mut self, event: S::Event) {
        if let Some(binding) = self.core.binding(self.cx.sink()) {
            binding.handles.events[event.index()].inc();
        }
    }

    fn end_with(mut self, ending: &StreamEnding) {
        let said = self.open.outcome;
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

    /// As [`Run::records`].
    #[must_use]
    pub fn records(&self) -> bool {
        self.open.live.as_ref().is_some_and(|live| live.span.is_some())
    }

    /// Puts an attribute on the span, if there is one.
    pub fn attribute(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        let span = self.open.live.as_mut().and_then(|live| live.span.as_mut());
        if let Some(span) = span {
            span.set(key, value.into());
        }
    }

    /// Whether an event with content would go anywhere: that the instance records some, and that the span is sent.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.open.tells(&self.cx)
    }

    /// Sends an event of the span, with attributes that may have structure. It leaves as a log record.
    pub fn tell(&self, name: &'static str, attributes: Vec<(Cow<'static, str>, serde_json::Value)>) {
        self.open.tell(&self.cx, name, attributes);
    }

    fn settle(&mut self, outcome: S::Outcome, error_type: Option<&'static str>) {
        let binding = self.core.binding(self.cx.sink());
        self.core.end(&self.cx, binding, &mut self.open, &self.note, outcome, error_type);
    }
}

impl<S: Stage> Drop for Deferred<S> {
    fn drop(&mut self) {
        let (outcome, error_type) = dropped::<S>();
        self.settle(outcome, Some(error_type));
    }
}
