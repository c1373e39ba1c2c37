//! Stops calling what is down, and finds out by itself when it is back.
//!
//! While the circuit is closed, calls go through and are counted. When a share of them fails, or is slow, it
//! opens and refuses calls with [`Kind::CircuitOpen`], which costs nobody any time. After a while it is
//! half-open: a few trials go through, and decide whether it closes or opens again, for longer.
//!
//! Use it around every target that can be down while others are not. In a stack of wrappers it stands around
//! one attempt's timeout and inside retry and fallback: every attempt is an observation, and the refusal is not
//! worth another try here but a reason to go elsewhere. Workflows that call the same target share a [`Circuit`].
//!
//! ```
//! use std::time::Duration;
//! use throughline::circuit_breaker::{CircuitState, Window};
//! use throughline::{Circuit, CircuitBreakerConfig, Context, Error, Kind, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let circuit = Circuit::new(
//!     CircuitBreakerConfig::new("model").window(Window::consecutive(2))?.open_for(Duration::from_secs(5))?,
//! );
//! let down = workflow("model", |(): ()| async { Err::<(), _>(Error::new(Kind::Upstream, "503")) });
//! let flow = down.circuit_breaker(&circuit);
//!
//! for _ in 0..2 {
//!     assert_eq!(flow.run((), &Context::new()).await.unwrap_err().kind(), Kind::Upstream);
//! }
//! let error = flow.run((), &Context::new()).await.unwrap_err();
//! assert_eq!((error.kind(), circuit.state()), (Kind::CircuitOpen, CircuitState::Open));
//! assert!(error.to_string().ends_with("after 2 failures"), "{error}");
//! assert!(!error.is_retryable() && error.retry_after().is_some());
//! # Ok(()) }
//! ```
//!
//! Do not let targets that fail apart share one circuit: the sick one takes the others along. And do not use
//! it in place of a timeout: a call that hangs is no observation until something ends it.

mod circuit;
mod config;
mod gate;
mod machine;
mod rules;
#[cfg(test)]
mod tests;
mod window;

use std::cell::OnceCell;
use std::fmt;
use std::time::Duration;

pub use circuit::{Circuit, CircuitBreakerStats};
pub use config::{CircuitBreakerConfig, Verdict};
pub use machine::{CircuitCall, CircuitState};
pub use rules::Undecided;
pub use window::Window;

use circuit::Permit;
use machine::{Ended, Refusal, Settled};

use crate::attempt::answered;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::{StreamEnding, Streaming};
use crate::telemetry::{
    Attribute, Counter, Deferred, End, Family, Label as _, Observed, Outcome, Registry, Reported, Run, Sink,
    Stage,
};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<CircuitBreakerOutcome, CircuitBreakerEvent>(
    "circuit_breaker",
    &[Attribute::string("throughline.circuit_breaker.state", "The state of the circuit that refused")],
);

static CALLS: Family = Family::counter(
    "circuit_breaker_calls",
    "Calls by what they were to the circuit; none while it is disabled",
    &["circuit", "outcome"],
);

pub(crate) static FAMILIES: &[&Family] =
    &[&circuit::STATE, &circuit::TRANSITIONS, &CALLS, &circuit::TIME_IN_STATE];

labels! {
    /// How a guarded run ended.
    #[non_exhaustive]
    pub enum CircuitBreakerOutcome {
        /// It answered.
        Success = "success",
        /// It failed by itself.
        Error = "error",
        /// The caller went away.
        Cancelled = "cancelled",
        /// It was refused.
        Rejected = "rejected",
    }
}

labels! {
    /// What a guarded run can bring about.
    #[non_exhaustive]
    pub enum CircuitBreakerEvent {
        /// The circuit would have opened, but was told to count only.
        WouldOpen = "would_open",
    }
}

/// Guards a workflow by a circuit. Made by [`Workflow::circuit_breaker`].
pub struct CircuitBreaker<P> {
    inner: P,
    circuit: Circuit,
}

/// Handles to the series of calls in [`CircuitBreaker`].
#[derive(Debug)]
pub struct CircuitBreakerSignals(Vec<Counter>);

/// What a run of [`CircuitBreaker`] knows of its call.
#[derive(Debug, Default)]
pub struct CircuitBreakerNote {
    permit: Option<Permit>,
    /// When the first item of a stream had come.
    first: Option<Duration>,
    settled: OnceCell<Settled>,
}

#[derive(Clone, Copy)]
enum How<'a> {
    Answered,
    Failed(&'a Error),
    Dropped,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Guards the workflow by a circuit: one of its own (give a [`CircuitBreakerConfig`]), or one that it shares
    /// (give a [`&Circuit`](Circuit)).
    ///
    /// An answer that is a stream counts when it has ended: as a failure when it fails, as ignored when its reader
    /// drops it. A trial counts at the first item already, so that a long answer does not hold up the decision.
    ///
    /// # Errors
    /// A run fails with [`Kind::CircuitOpen`] when it is refused, not retryable, with
    /// [`Error::retry_after`] where the circuit knows when it takes calls again.
    ///
    /// # Cancellation
    /// A run that is dropped counts as ignored, or as a slow failure when it has been slow by then (see
    /// [`CircuitBreakerConfig::count_slow_drops`]). A trial makes room for another.
    pub fn circuit_breaker(self, circuit: impl Into<Circuit>) -> Workflow<Observed<CircuitBreaker<P>>> {
        Workflow::from_stage(CircuitBreaker { inner: self.into_inner(), circuit: circuit.into() })
    }
}

// === impl CircuitBreaker ===

impl<P> CircuitBreaker<P> {
    /// The circuit.
    #[must_use]
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// What the circuit has seen so far, from other workflows too if it is shared.
    #[must_use]
    pub fn stats(&self) -> CircuitBreakerStats {
        self.circuit.stats()
    }

    /// Tells the circuit how the call ended, once.
    fn settle(&self, note: &CircuitBreakerNote, how: How<'_>) {
        if let Some(permit) = note.permit
            && note.settled.get().is_none()
        {
            let settled = self.circuit.finish(permit, |took| self.judge(how, took, note.first));
            note.settled.get_or_init(|| settled);
        }
    }

    fn judge(&self, how: How<'_>, took: Duration, first: Option<Duration>) -> Ended {
        let config = self.circuit.config();
        let slow = first.unwrap_or(took) > config.slow_after;
        let dropped = if config.count_slow_drops && first.is_none() && slow {
            Ended::Counts { failed: true, slow }
        } else {
            Ended::Ignored
        };
        match how {
            How::Answered => Ended::Counts { failed: false, slow },
            How::Dropped => dropped,
            How::Failed(error) => match (config.judge)(error) {
                Verdict::Failure => Ended::Counts { failed: true, slow },
                Verdict::Success => Ended::Counts { failed: false, slow },
                // It gave up because it was asked to stop.
                Verdict::Ignored if error.kind() == Kind::Cancelled => dropped,
                Verdict::Ignored => Ended::Ignored,
            },
        }
    }
}

impl<P: Primitive> Stage for CircuitBreaker<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = CircuitBreakerOutcome;
    type Event = CircuitBreakerEvent;
    type Signals = CircuitBreakerSignals;
    type Note = CircuitBreakerNote;

    const PRIMITIVE: &'static str = "circuit_breaker";

    fn operation(&self) -> &str {
        self.circuit.name()
    }

    fn declare(&self, registry: &Registry) -> CircuitBreakerSignals {
        self.circuit.shown_in(registry);
        let calls = |call: &CircuitCall| registry.counter(&CALLS, &[self.circuit.name(), call.as_str()]);
        CircuitBreakerSignals(CircuitCall::ALL.iter().map(calls).collect())
    }

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let permit = self.circuit.admit().map_err(|refusal| refuse(refusal, run))?;
        run.note.permit = Some(permit);
        let mut output = match answered(&self.inner, input, cx).await {
            Ok(output) => output,
            Err(error) => {
                self.settle(&run.note, How::Failed(&error));
                return Err(error);
            }
        };
        let is_stream = self.inner.stream(&mut output).is_some();
        if is_stream {
            run.note.first = Some(self.circuit.since(permit));
        }
        if !is_stream || permit.is_trial() {
            self.settle(&run.note, How::Answered);
        }
        Ok(output)
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.settle(end.note, How::Dropped);
        if let (Some(settled), Some(seen)) = (end.note.settled.get(), &end.seen) {
            if let Some(call) = settled.call {
                seen.signals.0[call.index()].inc();
            }
            if settled.would_open {
                seen.event(CircuitBreakerEvent::WouldOpen);
            }
        }
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, self.circuit.name()).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn stream_ended(&self, ending: &StreamEnding, run: &mut Deferred<Self>) -> Option<CircuitBreakerOutcome> {
        let how = match ending {
            StreamEnding::Complete => How::Answered,
            StreamEnding::Failed(error) => How::Failed(error),
            StreamEnding::Dropped => How::Dropped,
        };
        self.settle(&run.note, how);
        None
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

fn refuse<P: Primitive>(refusal: Refusal, run: &mut Run<'_, CircuitBreaker<P>>) -> Error {
    run.outcome(CircuitBreakerOutcome::Rejected);
    run.attribute("throughline.circuit_breaker.state", refusal.state().as_str());
    run.note.settled = Settled { call: Some(CircuitCall::Rejected), would_open: false }.into();
    refusal.into_error()
}

impl<P> fmt::Debug for CircuitBreaker<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CircuitBreaker({:?})", self.circuit)
    }
}

// === impl Outcome ===

impl Outcome for CircuitBreakerOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}
