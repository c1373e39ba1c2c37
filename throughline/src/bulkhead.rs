//! Bounds how many runs are under way at once, and how many wait for a place.
//!
//! Up to `max_concurrent` runs are under way; the next stand in line, first come first served, up to the
//! length of the `queue`, and no longer than `max_wait`. Whoever finds the line full, or has waited too long,
//! fails with [`Kind::Rejected`]: not with [`Kind::Timeout`], because the work was never begun, so that it can
//! be done elsewhere at no risk. A wait also ends at the deadline (with [`Kind::Timeout`]) and when the
//! work is asked to stop. A place is held until the answer is there, or its stream has ended.
//!
//! Use it around each dependency that may become slow, so that a slow one holds only its own places and not
//! every worker. It stands inside retry, so that a sleeping retry holds no place, and outside the rate
//! limit and the timeout of one attempt, so that a wait is not counted as the dependency's. Workflows that
//! use one dependency share one [`Compartment`].
//!
//! ```
//! use throughline::{BulkheadConfig, Context, Kind, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let report = workflow("report", |(): ()| std::future::pending::<throughline::Result<()>>());
//! let bounded = report.bulkhead(BulkheadConfig::new("report", 1)?);
//!
//! let cx = Context::new();
//! let (mut first, second) = (Box::pin(bounded.run((), &cx)), bounded.run((), &cx));
//! assert!(futures_util::poll!(&mut first).is_pending());
//! let error = second.await.unwrap_err();
//! assert_eq!(error.kind(), Kind::Rejected);
//! assert_eq!(error.to_string(), "1 runs are under way and 0 wait, no more are allowed");
//! # Ok(()) }
//! ```
//!
//! Do not use it to stay under a provider's rate: that is [`Workflow::rate_limit`]. And where the right number
//! is not known or changes, [`Workflow::shed`] finds it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::{End, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<BulkheadOutcome, BulkheadEvent>("bulkhead", &[]);

labels! {
    /// How a run in a bulkhead ended.
    #[non_exhaustive]
    pub enum BulkheadOutcome {
        /// It answered.
        Success = "success",
        /// It was let in and failed.
        Error = "error",
        /// The caller went away, or it was asked to stop while it waited.
        Cancelled = "cancelled",
        /// It was not let in.
        Rejected = "rejected",
    }
}

labels! {
    /// What can happen to a run in a bulkhead.
    #[non_exhaustive]
    pub enum BulkheadEvent {
        /// It had to wait.
        Queued = "queued",
        /// It was refused because the line was full.
        RejectedFull = "rejected_full",
        /// It was refused because it had waited too long.
        RejectedWait = "rejected_wait",
        /// Its deadline passed while it waited.
        RejectedDeadline = "rejected_deadline",
    }
}

/// The longest wait: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How many runs may be under way and wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `bulkhead`"]
pub struct BulkheadConfig {
    operation: String,
    max_concurrent: usize,
    queue: usize,
    max_wait: Duration,
}

/// The places that one or several workflows share. Clones are the same places.
#[derive(Clone)]
pub struct Compartment(Arc<Places>);

struct Places {
    config: BulkheadConfig,
    free: Arc<Semaphore>,
    in_use: Level,
    queued: Level,
}

/// A number and the highest it has been.
#[derive(Debug, Default)]
struct Level {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A place that is taken.
struct Slot {
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

/// A place in the line.
struct Queued<'a>(&'a Level);

/// Bounds how many runs of a workflow are under way. Made by [`Workflow::bulkhead`].
pub struct Bulkhead<P> {
    inner: P,
    compartment: Compartment,
    outcomes: PerLabel<BulkheadOutcome>,
}

/// What a [`Bulkhead`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadStats {
    /// Runs that answered.
    pub successes: u64,
    /// Runs that were let in and failed.
    pub errors: u64,
    /// Runs whose caller went away, or that were asked to stop while they waited.
    pub cancelled: u64,
    /// Runs that were not let in.
    pub rejected: u64,
    /// Places taken now, by all workflows that share them.
    pub in_use: usize,
    /// Runs that wait now, of all workflows that share the places.
    pub queued: usize,
    /// The most places that were ever taken at once.
    pub most_in_use: usize,
    /// The most runs that ever waited at once.
    pub most_queued: usize,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Bounds how many runs are under way: by places of its own (give a [`BulkheadConfig`]), or by those that it
    /// shares (give a [`&Compartment`](Compartment)).
    ///
    /// # Cancellation
    /// Dropping a run gives back its place, or its place in the line, at once.
    pub fn bulkhead(self, compartment: impl Into<Compartment>) -> Workflow<Observed<Bulkhead<P>>> {
        let (inner, compartment) = (self.into_inner(), compartment.into());
        Workflow::from_stage(Bulkhead { inner, compartment, outcomes: PerLabel::default() })
    }
}

// === impl BulkheadConfig ===

impl BulkheadConfig {
    /// Lets `max_concurrent` runs of `operation` be under way, and none wait.
    ///
    /// # Errors
    /// When `max_concurrent` is zero or more than a million.
    pub fn new(operation: impl Into<String>, max_concurrent: usize) -> Result<Self, ConfigError> {
        if !(1..=1_000_000).contains(&max_concurrent) {
            return Err(ConfigError::refused("bulkhead max_concurrent", max_concurrent, "from 1 to 1000000"));
        }
        Ok(Self { operation: operation.into(), max_concurrent, queue: 0, max_wait: Duration::from_secs(10) })
    }

    /// How many runs may wait for a place. Default: 0.
    pub fn queue(mut self, length: usize) -> Self {
        self.queue = length;
        self
    }

    /// How long a run may wait. Default: 10s.
    ///
    /// # Errors
    /// When it is zero (a queue of 0 has nobody wait) or longer than a day.
    pub fn max_wait(mut self, wait: Duration) -> Result<Self, ConfigError> {
        if wait.is_zero() || wait > LONGEST {
            let allowed = format_args!("more than 0s and at most {LONGEST:?}");
            return Err(ConfigError::refused("bulkhead max_wait", wait, allowed));
        }
        self.max_wait = wait;
        Ok(self)
    }
}

// === impl Compartment ===

impl Compartment {
    /// Free places, all of them.
    #[must_use]
    pub fn new(config: BulkheadConfig) -> Self {
        Self(Arc::new(Places {
            free: Arc::new(Semaphore::new(config.max_concurrent)),
            config,
            in_use: Level::default(),
            queued: Level::default(),
        }))
    }

    /// Places taken now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.in_use.now()
    }

    /// Runs that wait now.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.queued.now()
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> Slot {
        self.0.in_use.up(usize::MAX);
        Slot { places: Arc::clone(&self.0), _permit: permit }
    }

    /// A place, now or after a wait; with the event that says why there is none.
    async fn enter(
        &self,
        cx: &Context,
        queued: impl FnOnce(),
    ) -> Result<Slot, (Option<BulkheadEvent>, Error)> {
        let BulkheadConfig { max_concurrent, queue, max_wait, .. } = self.0.config;
        // Tokio's semaphore is fair: a permit that somebody waits for is not free.
        if let Ok(permit) = Arc::clone(&self.0.free).try_acquire_owned() {
            return Ok(self.slot(permit));
        }
        let Some(in_line) = Queued::stand(&self.0.queued, queue) else {
            let text = format!("{max_concurrent} runs are under way and {queue} wait, no more are allowed");
            return Err((Some(BulkheadEvent::RejectedFull), Error::new(Kind::Rejected, text)));
        };
        queued();
        let wait = timeout(max_wait, Arc::clone(&self.0.free).acquire_owned());
        let permit = cx.while_wanted(wait).await.map_err(|error| {
            // The target was not asked: a breaker around this must not take it for its failure.
            let text = format!("no place became free before the deadline, {max_concurrent} are taken");
            match error.kind() {
                Kind::Timeout => {
                    let refused = Error::new(Kind::Rejected, text).because(error);
                    (Some(BulkheadEvent::RejectedDeadline), refused)
                }
                _ => (None, error),
            }
        })?;
        drop(in_line);
        match permit {
            Ok(permit) => Ok(self.slot(permit.expect("the semaphore is never closed"))),
            Err(_) => {
                let text = format!("no place became free within {max_wait:?}, {max_concurrent} are taken");
                Err((Some(BulkheadEvent::RejectedWait), Error::new(Kind::Rejected, text)))
            }
        }
    }
}

impl From<&Compartment> for Compartment {
    fn from(compartment: &Compartment) -> Self {
        compartment.clone()
    }
}

impl From<BulkheadConfig> for Compartment {
    fn from(config: BulkheadConfig) -> Self {
        Self::new(config)
    }
}

impl fmt::Debug for Compartment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BulkheadConfig { operation, max_concurrent, queue, .. } = &self.0.config;
        let (busy, waiting) = (self.in_use(), self.queued());
        write!(f, "Compartment({operation}, {busy} of {max_concurrent} under way, {waiting} of {queue} wait)")
    }
}

// === impl Level ===

impl Level {
    fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// One more, unless that is above `limit`.
    fn up(&self, limit: usize) -> bool {
        let one_more = |now| (now < limit).then(|| now + 1);
        let before = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if let Ok(before) = before {
            self.most.fetch_max(before + 1, Ordering::Relaxed);
        }
        before.is_ok()
    }

    fn down(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Queued<'a> {
    fn stand(level: &'a Level, limit: usize) -> Option<Self> {
        level.up(limit).then(|| Self(level))
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

impl Drop for Slot {
    /// Counts down before the permit is given back, so that the count is never above the bound.
    fn drop(&mut self) {
        self.places.in_use.down();
    }
}

// === impl Bulkhead ===

impl<P> Bulkhead<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> BulkheadStats {
        let Places { in_use, queued, .. } = &*self.compartment.0;
        BulkheadStats {
            successes: self.outcomes.get(BulkheadOutcome::Success),
            errors: self.outcomes.get(BulkheadOutcome::Error),
            cancelled: self.outcomes.get(BulkheadOutcome::Cancelled),
            rejected: self.outcomes.get(BulkheadOutcome::Rejected),
            in_use: in_use.now(),
            queued: queued.now(),
            most_in_use: in_use.most(),
            most_queued: queued.most(),
        }
    }

    /// Its places.
    #[must_use]
    pub fn compartment(&self) -> &Compartment {
        &self.compartment
    }
}

impl<P: Primitive> Stage for Bulkhead<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = BulkheadOutcome;
    type Event = BulkheadEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "bulkhead";

    fn operation(&self) -> &str {
        &self.compartment.0.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let slot = match self.compartment.enter(cx, || run.event(BulkheadEvent::Queued)).await {
            Ok(slot) => slot,
            Err((event, error)) => {
                event.into_iter().for_each(|event| run.event(event));
                let stopped = error.kind() == Kind::Cancelled;
                run.outcome(if stopped { BulkheadOutcome::Cancelled } else { BulkheadOutcome::Rejected });
                return Err(error);
            }
        };
        let mut output = self.inner.execute(input, cx).await?;
        if let Some(stream) = self.inner.stream(&mut output) {
            stream.on_end(Box::new(move |_| drop(slot)));
        }
        Ok(output)
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.outcomes.inc(end.outcome);
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, self.operation()).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P> fmt::Debug for Bulkhead<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rejected = self.outcomes.get(BulkheadOutcome::Rejected);
        write!(f, "Bulkhead({:?}, {rejected} rejected)", self.compartment)
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for BulkheadOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}
