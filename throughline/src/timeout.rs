//! Bounds how long a workflow may take.
//!
//! At `limit` the work is asked to stop, through [`Context::cancelled`]; it may still answer within
//! `grace`, or give up with [`Kind::Cancelled`]. At `limit + grace` it is dropped. Where there is no
//! answer, the caller gets [`Kind::Timeout`]. For an output that is a stream, the limit is that of the whole
//! stream, and its first item and the pauses between items can have limits of their own.
//!
//! Use it around every call that leaves the process. In a stack of wrappers it stands innermost, around
//! one attempt, and again near the outside, around everything.
//!
//! ```
//! use std::time::Duration;
//! use throughline::{Context, Kind, TimeoutConfig, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let never = workflow("never", |(): ()| std::future::pending::<throughline::Result<()>>());
//! let bounded = never.timeout(TimeoutConfig::new("never", Duration::from_millis(10))?);
//!
//! let error = bounded.run((), &Context::new()).await.unwrap_err();
//! assert_eq!(error.kind(), Kind::Timeout);
//! assert_eq!(error.to_string(), "no answer within 10ms");
//! assert_eq!(bounded.stage().stats().timeouts, 1);
//! # Ok(()) }
//! ```
//!
//! Do not use it to bound work that blocks its thread: nothing can interrupt that. Use
//! [`Workflow::timeout_detached`], which lets the caller go while the work runs on.

mod config;
mod detached;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::attempt::waited_in_vain;
use crate::context::{Context, until};
use crate::error::{Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::{StreamEnding, StreamLimit, Streaming, first};
use crate::telemetry::{
    Counter, Deferred, End, Family, Histogram, Observed, Outcome as _, PerLabel, Rate, Registry, Reported,
    Run, Sink, Stage, WORK_SECONDS,
};
use crate::workflow::Workflow;
pub use config::TimeoutConfig;
pub use detached::Detached;

pub(crate) static REPORTED: Reported = Reported::new::<TimeoutOutcome, TimeoutEvent>("timeout", &[]);

static SUCCESSES: Family =
    Family::counter("timeout_successes", "Runs that answered, in time or within the grace", &["operation"]);
static FAILURES: Family = Family::counter(
    "timeout_failures",
    "Runs dropped because limit and grace were over, or that gave up when they were asked to stop",
    &["operation"],
);
static EXECUTION: Family = Family::histogram(
    "timeout_execution_seconds",
    "How long a guarded run took, in seconds, unless its caller went away",
    &["operation"],
    WORK_SECONDS,
);
static RATE: Family = Family::rate(
    "timeout_rate",
    "Share of answered or timed out runs that timed out, last five minutes in this process",
    &["operation"],
);

pub(crate) static FAMILIES: &[&Family] = &[&SUCCESSES, &FAILURES, &EXECUTION, &RATE];

labels! {
    /// How a guarded run ended.
    #[non_exhaustive]
    pub enum TimeoutOutcome {
        /// It answered within the limit.
        Success = "success",
        /// It failed by itself, an inner timeout included.
        InnerError = "inner_error",
        /// The caller went away.
        Cancelled = "cancelled",
        /// It answered after the limit.
        Late = "late",
        /// It was dropped because limit and grace were over, or gave up when it was asked to stop.
        Timeout = "timeout",
    }
}

labels! {
    /// What can happen while a guarded run is under way.
    #[non_exhaustive]
    pub enum TimeoutEvent {
        /// The limit passed and the work was asked to stop.
        StopRequested = "stop_requested",
        /// The work held its thread beyond limit and grace and answered all the same.
        Overrun = "overrun",
        /// A stream gave no first item in time.
        NoFirstItem = "no_first_item",
        /// A stream paused for too long between two items.
        Stalled = "stalled",
        /// A stream was not complete when limit and grace were over.
        Incomplete = "incomplete",
    }
}

/// The limits that a run has left on its stream, as the errors that they fail it with.
#[derive(Debug, Default)]
pub struct StreamLimits {
    total: Option<Error>,
    between: Option<Error>,
}

/// Bounds a workflow in time. Made by [`Workflow::timeout`].
pub struct Timeout<P> {
    inner: P,
    config: TimeoutConfig,
    outcomes: PerLabel<TimeoutOutcome>,
}

/// What a [`Timeout`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TimeoutStats {
    /// Runs that answered within the limit.
    pub successes: u64,
    /// Runs that answered after it.
    pub late: u64,
    /// Runs that were dropped because limit and grace were over, or gave up when they were asked to.
    pub timeouts: u64,
    /// Runs that failed by themselves.
    pub inner_errors: u64,
    /// Runs whose caller went away.
    pub cancelled: u64,
}

/// Handles to the families of [`Timeout`].
#[derive(Debug)]
pub struct TimeoutSignals {
    successes: Counter,
    failures: Counter,
    execution: Histogram,
    rate: Rate,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Bounds the workflow in time.
    pub fn timeout(self, config: TimeoutConfig) -> Workflow<Observed<Timeout<P>>> {
        let inner = self.into_inner();
        Workflow::from_stage(Timeout { inner, config, outcomes: PerLabel::default() })
    }

    /// As [`Workflow::timeout`], with the work in a task of its own, so that the caller is let go on time
    /// even while the work blocks its thread. Needs a runtime with several threads to be of use.
    ///
    /// # Cancellation
    /// The task is aborted at its next await; work that blocks runs on until then.
    pub fn timeout_detached(self, config: TimeoutConfig) -> Workflow<Observed<Timeout<Detached<P>>>> {
        let inner = Detached(Arc::new(self.into_inner()));
        Workflow::from_stage(Timeout { inner, config, outcomes: PerLabel::default() })
    }
}

// === impl Timeout ===

impl<P> Timeout<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> TimeoutStats {
        TimeoutStats {
            successes: self.outcomes.get(TimeoutOutcome::Success),
            late: self.outcomes.get(TimeoutOutcome::Late),
            timeouts: self.outcomes.get(TimeoutOutcome::Timeout),
            inner_errors: self.outcomes.get(TimeoutOutcome::InnerError),
            cancelled: self.outcomes.get(TimeoutOutcome::Cancelled),
        }
    }

    /// Leaves the limits on a stream that count from now on.
    fn limit(&self, stream: &mut dyn Streaming, start: Instant) -> StreamLimits {
        let TimeoutConfig { limit, grace, between_items, .. } = self.config;
        let error = |text| Error::new(Kind::Timeout, text);
        let total = error(format!("the stream was not complete within {:?}", limit + grace));
        stream.limit(StreamLimit::until(start + limit + grace, total.clone()));
        let between = between_items.map(|pause| {
            let error = error(format!("the stream gave nothing for {pause:?}"));
            stream.limit(StreamLimit::between(pause, error.clone()));
            error
        });
        StreamLimits { total: Some(total), between }
    }

    /// The bounds it enforces.
    pub fn config(&self) -> &TimeoutConfig {
        &self.config
    }
}

impl TimeoutStats {
    /// Every run that has ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.successes + self.late + self.timeouts + self.inner_errors + self.cancelled
    }

    /// The share of answered or timed out runs that timed out, 0 to 1; `None` before the first.
    #[must_use]
    pub fn timeout_rate(&self) -> Option<f64> {
        let decided = self.successes + self.late + self.timeouts;
        (decided > 0).then(|| self.timeouts as f64 / decided as f64)
    }
}

impl<P: Primitive> Timeout<P> {
    /// Runs the work, and where it gives a stream, waits for the first item; `late` is the error for one that
    /// does not come by a moment.
    async fn begin(&self, input: P::In, cx: &Context, late: Option<(Instant, &Error)>) -> Result<P::Out> {
        let from_the_start = late.filter(|_| cx.expects_stream());
        let mut output = in_time(self.inner.execute(input, cx), from_the_start).await?;
        if let Some(stream) = self.inner.stream(&mut output) {
            in_time(first(stream), late).await?;
        }
        Ok(output)
    }
}

impl<P: Primitive> Stage for Timeout<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = TimeoutOutcome;
    type Event = TimeoutEvent;
    type Signals = TimeoutSignals;
    type Note = StreamLimits;

    const PRIMITIVE: &'static str = "timeout";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, registry: &Registry) -> TimeoutSignals {
        let labels = [self.config.operation.as_str()];
        TimeoutSignals {
            successes: registry.counter(&SUCCESSES, &labels),
            failures: registry.counter(&FAILURES, &labels),
            execution: registry.histogram(&EXECUTION, &labels),
            rate: registry.rate(&RATE, &labels),
        }
    }

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let TimeoutConfig { limit, grace, first_item, .. } = self.config;
        let start = Instant::now();
        let inner = cx.bounded(start + limit + grace);
        let no_first_item = first_item.map(|limit| {
            (start + limit, Error::new(Kind::Timeout, format!("no first item within {limit:?}")))
        });
        let late = no_first_item.as_ref().map(|(end, error)| (*end, error));
        let mut work = pin!(self.begin(input, &inner, late));

        let (result, asked_to_stop) = tokio::select! {
            biased;
            result = &mut work => (Some(result), false),
            () = until(Some(start + limit)) => {
                inner.stop();
                run.event(TimeoutEvent::StopRequested);
                (within(start + limit + grace, work).await, true)
            }
        };
        let took = start.elapsed();
        match result {
            None => {
                run.outcome(TimeoutOutcome::Timeout);
                Err(Error::new(Kind::Timeout, format!("no answer within {:?}", limit + grace)))
            }
            // It gave up because it was asked to: the limit is why, and nobody else has cancelled.
            Some(Err(error)) if asked_to_stop && error.kind() == Kind::Cancelled && !cx.is_cancelled() => {
                run.outcome(TimeoutOutcome::Timeout);
                Err(Error::new(Kind::Timeout, format!("no answer within {limit:?}")).because(error))
            }
            // A wait inside ended with the deadline that was set here.
            Some(Err(error)) if waited_in_vain(&error) && took >= limit + grace => {
                run.outcome(TimeoutOutcome::Timeout);
                Err(Error::new(Kind::Timeout, format!("no answer within {:?}", limit + grace)).because(error))
            }
            Some(Err(error)) if late.is_some_and(|(_, late)| late.is(&error)) => {
                run.event(TimeoutEvent::NoFirstItem);
                run.outcome(TimeoutOutcome::Timeout);
                Err(error)
            }
            Some(Ok(mut value)) => {
                let late = asked_to_stop || took > limit;
                run.outcome(if late { TimeoutOutcome::Late } else { TimeoutOutcome::Success });
                if let Some(stream) = self.inner.stream(&mut value) {
                    run.note = self.limit(stream, start);
                }
                if took > limit + grace {
                    run.event(TimeoutEvent::Overrun);
                }
                Ok(value)
            }
            Some(Err(error)) => Err(error),
        }
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.outcomes.inc(end.outcome);
        let Some(seen) = &end.seen else { return };
        match end.outcome {
            TimeoutOutcome::Success | TimeoutOutcome::Late => {
                seen.signals.successes.inc();
                seen.signals.rate.record(seen.at, false);
            }
            TimeoutOutcome::Timeout => {
                seen.signals.failures.inc();
                seen.signals.rate.record(seen.at, true);
            }
            TimeoutOutcome::InnerError | TimeoutOutcome::Cancelled => {}
        }
        if end.outcome != TimeoutOutcome::CANCELLED {
            seen.signals.execution.observe_time(seen.elapsed, seen.trace);
        }
    }

    fn stream_ended(&self, ending: &StreamEnding, run: &mut Deferred<Self>) -> Option<TimeoutOutcome> {
        let StreamEnding::Failed(error) = ending else { return None };
        let is = |limit: &Option<Error>| limit.as_ref().is_some_and(|limit| limit.is(error));
        let event = match (is(&run.note.total), is(&run.note.between)) {
            (false, false) => return None,
            (true, _) => TimeoutEvent::Incomplete,
            (false, true) => TimeoutEvent::Stalled,
        };
        run.event(event);
        Some(TimeoutOutcome::Timeout)
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

async fn in_time<T>(work: impl Future<Output = Result<T>>, limit: Option<(Instant, &Error)>) -> Result<T> {
    match limit {
        Some((end, late)) => within(end, work).await.unwrap_or_else(|| Err(late.clone())),
        None => work.await,
    }
}

async fn within<F: Future>(end: Instant, work: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = work => Some(output),
        () = until(Some(end)) => None,
    }
}

impl<P> fmt::Debug for Timeout<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimeoutConfig { operation, limit, grace, .. } = &self.config;
        let stats = self.stats();
        write!(f, "Timeout({operation}, limit {limit:?}, grace {grace:?}, ")?;
        write!(f, "{} of {} timed out)", stats.timeouts, stats.total())
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for TimeoutOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::InnerError;
    const CANCELLED: Self = Self::Cancelled;
}
