//! Undoes what was done when a later step fails.
//!
//! [`Workflow::undo`] gives a step its way back, [`Workflow::saga`] goes that way: on an error, a panic or a
//! drop it runs the compensation of every completed step, the last completed first, each with its own limit
//! and attempts, on a context without deadline that is not stopped with the caller. On an error or panic it
//! waits for them, however near the deadline, before it returns. Dropped, it leaves them to a task:
//! [`Saga::settled`] waits for it.
//!
//! Use it for steps that change something elsewhere. It belongs around the steps' own timeouts and retries;
//! whatever runs *several* steps again (a retry, a fallback, a hedge) belongs around a saga of them.
//!
//! ```
//! use throughline::{Context, Error, Kind, SagaConfig, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let reserve = workflow("reserve", |order: u64| async move { Ok(order) });
//! let release = workflow("release", |_order: u64| async move { Ok(()) });
//! let ship = workflow("ship", |_: u64| async { Err::<(), _>(Error::new(Kind::Upstream, "no courier")) });
//!
//! let order = (reserve.undo(release) >> ship).saga(SagaConfig::new("order"));
//! let error = order.run(7, &Context::new()).await.unwrap_err();
//! assert_eq!(error.to_string(), "no courier");
//! assert_eq!(order.stage().stats().steps_undone, 1);
//! # Ok(()) }
//! ```
//!
//! A step that was still under way is not undone, though its action may have happened: give action and
//! compensation one idempotency key ([`saga_key`]), and write compensations that may run for nothing.
//! A saga within a saga that succeeds hands its steps out, as one. A stream counts as success from its first
//! item on; nothing is undone after that.
//!
//! Do not use it for what one database transaction can do: others see a saga's steps before it is over.

mod journal;
mod undoing;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::attempt::answered;
use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::{BoxFuture, Primitive};
use crate::stream::Streaming;
use crate::telemetry::{Counter, End, Label as _, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::{Workflow, join};
use journal::{Bounds, Compensation};
use undoing::{Tell, Undoing};

pub(crate) static REPORTED: Reported = Reported::new::<SagaOutcome, SagaEvent>("saga", &[]);

pub(crate) use journal::Journal;
pub use undoing::settled;

labels! {
    /// How a saga ended.
    #[non_exhaustive]
    pub enum SagaOutcome {
        /// It answered, and what it did stays done.
        Success = "success",
        /// It failed with nothing to undo, or its stream failed later.
        Error = "error",
        /// It failed, and every step was undone.
        Compensated = "compensated",
        /// It failed, and a step could not be undone.
        CompensationFailed = "compensation_failed",
        /// The caller went away. What was done is undone after that.
        Cancelled = "cancelled",
    }
}

labels! {
    /// What can happen while a saga undoes its steps, also after its run has ended.
    #[non_exhaustive]
    pub enum SagaEvent {
        /// A step was undone.
        StepUndone = "step_undone",
        /// A compensation failed and is tried again.
        CompensationRetried = "compensation_retried",
        /// A step could not be undone: somebody has to look.
        CompensationFailed = "compensation_failed",
    }
}

/// The longest limit of one attempt, or pause between two.
const LONGEST: Duration = Duration::from_secs(60 * 60);
const MOST_ATTEMPTS: u32 = 100;

/// How a saga undoes its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `saga`"]
pub struct SagaConfig {
    operation: String,
    bounds: Bounds,
}

/// Undoes what was done when a later step fails. Made by [`Workflow::saga`].
pub struct Saga<P> {
    inner: P,
    config: SagaConfig,
    counts: Arc<Counts>,
    tracker: TaskTracker,
}

/// A step of a saga with its compensation. Made by [`Workflow::undo`].
pub struct Undo<P, U> {
    inner: P,
    compensation: Arc<U>,
}

/// What a [`Saga`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SagaStats {
    /// Runs that succeeded.
    pub successes: u64,
    /// Runs that failed with nothing to undo.
    pub errors: u64,
    /// Runs that failed and were undone.
    pub compensated: u64,
    /// Runs that failed and could not be undone wholly.
    pub compensation_failed: u64,
    /// Runs whose caller went away.
    pub cancelled: u64,
    /// Steps that were undone, those of dropped runs included.
    pub steps_undone: u64,
    /// Steps that could not be undone, those of dropped runs included.
    pub steps_not_undone: u64,
}

#[derive(Debug, Default)]
struct Counts {
    outcomes: PerLabel<SagaOutcome>,
    events: PerLabel<SagaEvent>,
}

/// A run of a saga. When it is dropped while its journal is open, its steps are undone.
struct Open<'a, P: Primitive> {
    saga: &'a Saga<P>,
    cx: &'a Context,
    journal: Journal,
    handle: Handle,
    /// Empty once the run has come to its end.
    counters: Option<Counters>,
}

/// The counts of events, by index; `None` without telemetry.
type Counters = [Option<Counter>; 3];

/// The way back from one completed step.
struct Back<U: Primitive> {
    compensation: Arc<U>,
    output: U::In,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Says how to undo this step: `compensation` is given a copy of the step's output, and what it returns
    /// is dropped. Once it has succeeded it does not run again for that step.
    ///
    /// # Errors
    /// A run outside any saga is refused with [`Kind::Internal`], before the step begins.
    pub fn undo<U, Other>(self, compensation: Workflow<U, Other>) -> Workflow<Undo<P, U>>
    where
        P: Primitive<Out: Clone>,
        U: Primitive<In = P::Out>,
    {
        let compensation = Arc::new(compensation.into_inner());
        join(Undo { inner: self.into_inner(), compensation })
    }

    /// Undoes the steps inside, where they have an [`undo`](Workflow::undo), when the workflow fails.
    ///
    /// # Errors
    /// That of the workflow. Where steps could not be undone it is fatal, and their errors stand in
    /// [`Error::also`]. A panic inside becomes an error of [`Kind::Internal`]. Outside a tokio runtime a run
    /// is refused before it begins.
    ///
    /// # Cancellation
    /// The completed steps are undone in a task of the runtime that the run began in.
    pub fn saga(self, config: SagaConfig) -> Workflow<Observed<Saga<P>>> {
        let inner = self.into_inner();
        Workflow::from_stage(Saga { inner, config, counts: Arc::default(), tracker: undoing::tracker() })
    }
}

/// An idempotency key for `step`: the same in every attempt of the step and of its compensation, another in
/// every run of the saga. `None` outside a saga.
#[must_use]
pub fn saga_key(cx: &Context, step: &str) -> Option<String> {
    cx.journal().map(|journal| format!("{:032x}-{step}", journal.id()))
}

// === impl SagaConfig ===

impl SagaConfig {
    /// A saga called `operation` with the default bounds.
    pub fn new(operation: impl Into<String>) -> Self {
        let (limit, pause) = (Duration::from_secs(10), Duration::from_millis(100));
        Self { operation: operation.into(), bounds: Bounds { limit, attempts: 3, pause } }
    }

    /// How long one attempt at a compensation may take. Default: 10s.
    ///
    /// # Errors
    /// When `limit` is zero or longer than an hour.
    pub fn limit(mut self, limit: Duration) -> Result<Self, ConfigError> {
        if limit.is_zero() || limit > LONGEST {
            return Err(ConfigError::refused("saga limit", limit, "more than 0s and at most 3600s"));
        }
        self.bounds.limit = limit;
        Ok(self)
    }

    /// How often a compensation is tried while its error is worth another try. Default: 3.
    ///
    /// # Errors
    /// When `attempts` is zero or more than 100.
    pub fn max_attempts(mut self, attempts: u32) -> Result<Self, ConfigError> {
        if !(1..=MOST_ATTEMPTS).contains(&attempts) {
            return Err(ConfigError::refused("saga max_attempts", attempts, "from 1 to 100"));
        }
        self.bounds.attempts = attempts;
        Ok(self)
    }

    /// How long to wait before another attempt; a failing side that asks for more gets it, up to the limit of
    /// one attempt. Default: 100ms.
    ///
    /// # Errors
    /// When `pause` is longer than an hour.
    pub fn pause(mut self, pause: Duration) -> Result<Self, ConfigError> {
        if pause > LONGEST {
            return Err(ConfigError::refused("saga pause", pause, "at most 3600s"));
        }
        self.bounds.pause = pause;
        Ok(self)
    }
}

// === impl Saga ===

impl<P> Saga<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> SagaStats {
        let Counts { outcomes, events } = &*self.counts;
        SagaStats {
            successes: outcomes.get(SagaOutcome::Success),
            errors: outcomes.get(SagaOutcome::Error),
            compensated: outcomes.get(SagaOutcome::Compensated),
            compensation_failed: outcomes.get(SagaOutcome::CompensationFailed),
            cancelled: outcomes.get(SagaOutcome::Cancelled),
            steps_undone: events.get(SagaEvent::StepUndone),
            steps_not_undone: events.get(SagaEvent::CompensationFailed),
        }
    }

    /// Waits until this saga is not undoing anything. See [`settled`] for all sagas of the process.
    pub async fn settled(&self) {
        self.tracker.wait().await;
    }
}

impl<P: Primitive> Stage for Saga<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = SagaOutcome;
    type Event = SagaEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "saga";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let mut open = Open::begin(self, cx, run)?;
        let inner = cx.with_journal(open.journal.clone());
        let result = AssertUnwindSafe(answered(&self.inner, input, &inner)).catch_unwind().await;
        let error = match result {
            Ok(Ok(output)) => {
                open.commit();
                return Ok(output);
            }
            Ok(Err(error)) => error,
            Err(_) => Error::new(Kind::Internal, "a step of the saga panicked"),
        };
        let Some(undone) = open.undo() else { return Err(error) };
        // The time of their calls is booked on a context of their own.
        let failures = cx.elsewhere(undone).await.unwrap_or_else(|gone| {
            vec![Error::new(Kind::Internal, "the runtime ended before every step was undone").because(gone)]
        });
        if failures.is_empty() {
            run.outcome(SagaOutcome::Compensated);
            return Err(error);
        }
        run.outcome(SagaOutcome::CompensationFailed);
        Err(failures.into_iter().fold(error.fatal(), Error::and))
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.counts.outcomes.inc(end.outcome);
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, &self.config.operation).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P> fmt::Debug for Saga<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        write!(f, "Saga({}, {} steps undone, ", self.config.operation, stats.steps_undone)?;
        write!(f, "{} not undone)", stats.steps_not_undone)
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for SagaOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}

// === impl Open ===

impl<'a, P: Primitive> Open<'a, P> {
    fn begin(saga: &'a Saga<P>, cx: &'a Context, run: &mut Run<'_, Saga<P>>) -> Result<Self> {
        let handle = Handle::try_current().map_err(|gone| {
            let what = "a saga runs in a tokio runtime only: without one it could not undo anything";
            Error::new(Kind::Internal, what).because(gone)
        })?;
        let journal = Journal::open(saga.config.bounds, cx.journal().cloned());
        let counters = [SagaEvent::StepUndone, SagaEvent::CompensationRetried, SagaEvent::CompensationFailed]
            .map(|event| run.counter(event));
        Ok(Self { saga, cx, journal, handle, counters: Some(counters) })
    }

    /// The run has succeeded: nothing is to be undone.
    fn commit(&mut self) {
        self.counters = None;
        self.journal.commit();
    }

    /// Starts to undo what is completed, unless the run has come to its end already.
    fn undo(&mut self) -> Option<JoinHandle<Vec<Error>>> {
        let counters = self.counters.take()?;
        let undoing = self.undoing(counters);
        let (late, outer) = (undoing.clone(), self.journal.outer().cloned());
        let late = move |entries| drop(late.clone().start(entries, outer.as_ref()));
        let entries = self.journal.fail(Arc::new(late));
        (!entries.is_empty()).then(|| undoing.start(entries, self.journal.outer()))
    }

    fn undoing(&self, counters: Counters) -> Undoing {
        let counts = Arc::clone(&self.saga.counts);
        let tell: Tell = Arc::new(move |event: SagaEvent| {
            counts.events.inc(event);
            if let Some(counter) = &counters[event.index()] {
                counter.inc();
            }
        });
        Undoing {
            operation: self.saga.config.operation.clone(),
            cx: self.cx.detach().with_journal(self.journal.refusing()),
            handle: self.handle.clone(),
            tracker: self.saga.tracker.clone(),
            tell,
        }
    }
}

impl<P: Primitive> Drop for Open<'_, P> {
    fn drop(&mut self) {
        drop(self.undo());
    }
}

// === impl Undo ===

impl<P, U> Primitive for Undo<P, U>
where
    P: Primitive<Out: Clone>,
    U: Primitive<In = P::Out>,
{
    type In = P::In;
    type Out = P::Out;

    async fn execute(&self, input: P::In, cx: &Context) -> Result<P::Out> {
        let Some(journal) = cx.journal().filter(|journal| journal.takes_entries()) else {
            let what =
                "a step with `undo` stands outside any saga: call `saga` on the workflow that holds it";
            return Err(Error::new(Kind::Internal, what));
        };
        let output = self.inner.execute(input, cx).await?;
        let compensation = Arc::clone(&self.compensation);
        journal.completed(Box::new(Back { compensation, output: output.clone() }));
        Ok(output)
    }

    fn describe(&self) -> Node {
        Node::leaf("undo", "").holding(self.inner.describe()).holding(self.compensation.describe().by("undo"))
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
        self.compensation.bind(sink);
    }
}

impl<P: Clone, U> Clone for Undo<P, U> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), compensation: Arc::clone(&self.compensation) }
    }
}

impl<P, U: Primitive> fmt::Debug for Undo<P, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Undo({})", self.compensation.describe().operation())
    }
}

// === impl Back ===

impl<U: Primitive<In: Clone>> Compensation for Back<U> {
    fn name(&self) -> String {
        self.compensation.describe().title()
    }

    fn attempt(&mut self, cx: Context) -> BoxFuture<'static, Result<()>> {
        let (compensation, output) = (Arc::clone(&self.compensation), self.output.clone());
        Box::pin(async move { compensation.execute(output, &cx).await.map(drop) })
    }
}
