//! What a primitive's file provides: the work, and what it means for the metrics.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, TraceId};

use super::clock::Tick;
use super::label::{Label, Outcome};
use super::registry::{Counter, Registry};
use super::run::{Deferred, Run};
use super::sink::Sink;
use crate::context::Context;
use crate::error::Result;
use crate::graph::Node;
use crate::stream::{StreamEnding, Streaming};

/// The work of a primitive, run and reported by [`Observed`](super::Observed).
pub trait Stage: Send + Sync + Sized + 'static {
    /// What it takes.
    type In: Send + 'static;
    /// What it gives.
    type Out: Send + 'static;
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
    /// Whether an output may hold a stream. A stage for which it cannot saves compile time by saying so.
    const STREAMS: bool = true;
    /// Whether a run is a call to another service, whose time is not ours.
    const UPSTREAM: bool = false;

    /// The `operation` label: from configuration, never from a request.
    fn operation(&self) -> &str;

    /// The span's name, `{primitive} {operation}` if not overridden. From configuration as well.
    fn span_name(&self) -> Cow<'static, str> {
        format!("{} {}", Self::PRIMITIVE, self.operation()).into()
    }

    /// Attributes that every span of this stage has from its start on, where a sampler can see them. From configuration
    /// as well.
    fn span_attributes(&self) -> Vec<KeyValue> {
        Vec::new()
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
    fn ended(&self, end: &End<'_, Self>) {
        let _ = end;
    }

    /// This stage and what it holds.
    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, self.operation())
    }

    /// The stream in an output, if there is one: the run ends with it. A stage that hands on what another
    /// has made asks that one.
    fn stream<'a>(&self, output: &'a mut Self::Out) -> Option<&'a mut dyn Streaming> {
        let _ = output;
        None
    }

    /// How a run ends whose stream has ended like this. Default: complete as [`Run::outcome`] said or as a
    /// success, failed as an error, dropped as cancelled.
    fn stream_ended(&self, ending: &StreamEnding, run: &mut Deferred<Self>) -> Option<Self::Outcome> {
        let _ = (ending, run);
        None
    }

    /// Creates the series of the stages it holds.
    fn bind(&self, sink: &Sink) {
        let _ = sink;
    }
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
    pub(super) events: &'a [Counter],
}

// === impl Seen ===

impl<S: Stage> Seen<'_, S> {
    /// Counts something that the end of the run has brought about.
    pub fn event(&self, event: S::Event) {
        self.events[event.index()].inc();
    }
}
