//! Finds out how many runs at once a server takes, and refuses the rest at once.
//!
//! The limit grows while answers take about as long as those of an idle server, and shrinks when they take longer
//! than `tolerance` times that, or time out: additive increase and multiplicative decrease, after which the
//! shares of several clients become equal (Chiu and Jain, 1989). Above the limit a run fails with [`Kind::Rejected`] without a wait, so that what is let in is answered in time.
//! What counts as overload beside latency: [`Kind::Timeout`] and [`Kind::Rejected`] from inside, and callers that
//! go away long after the answer was due. Other errors say nothing about load and do not move the limit.
//! Of a stream the time to the first item counts; its place is held until it has ended.
//!
//! Use it in front of a server whose capacity is not known or changes: a model server of one's own, a
//! shared database. It stands where a bulkhead would: inside retry, outside the timeout of one attempt, which
//! it has to see.
//!
//! ```
//! use throughline::{Context, Kind, ShedConfig, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = workflow("model", |(): ()| std::future::pending::<throughline::Result<()>>());
//! let model = model.shed(ShedConfig::new("model").bounds(1, 500)?.initial(1)?);
//!
//! let cx = Context::new();
//! let (mut first, second) = (Box::pin(model.run((), &cx)), model.run((), &cx));
//! assert!(futures_util::poll!(&mut first).is_pending());
//! let error = second.await.unwrap_err();
//! assert_eq!(error.kind(), Kind::Rejected);
//! assert_eq!(error.to_string(), "1 runs are under way and no more than 1 are taken now");
//! assert_eq!(model.stage().stats().limit, 1);
//! # Ok(()) }
//! ```
//!
//! Do not use it where the capacity is known: a bulkhead says so and never errs. And not around runs that
//! differ in time by their nature (a word and a book): the median of a round has to mean something.

mod limit;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::limit::{Began, Limit};
use crate::attempt::answered;
use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::{StreamEnding, Streaming};
use crate::telemetry::{
    Deferred, End, Family, Gauge, Observed, PerLabel, Registry, Reported, Run, Sink, Stage,
};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<ShedOutcome, ShedEvent>("shed", &[]);

static LIMIT: Family = Family::gauge(
    "shed_limit",
    "Runs that may be under way at once, as found at the last run",
    &["operation"],
);

pub(crate) static FAMILIES: &[&Family] = &[&LIMIT];

labels! {
    /// How a run under an adaptive limit ended.
    #[non_exhaustive]
    pub enum ShedOutcome {
        /// It answered.
        Success = "success",
        /// It was let in and failed.
        Error = "error",
        /// The caller went away.
        Cancelled = "cancelled",
        /// It was not let in.
        Rejected = "rejected",
    }
}

labels! {
    /// What can happen to a run under an adaptive limit.
    #[non_exhaustive]
    pub enum ShedEvent {
        /// It failed in a way that says that the server has too much to do.
        Overload = "overload",
    }
}

/// How the limit is found.
#[derive(Clone)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `shed`"]
pub struct ShedConfig {
    operation: String,
    least: u32,
    initial: u32,
    most: u32,
    tolerance: f64,
    overload: Arc<dyn Fn(&Error) -> bool + Send + Sync>,
}

/// Bounds how many runs of a workflow are under way by what its server takes. Made by [`Workflow::shed`].
pub struct Shed<P> {
    inner: P,
    config: ShedConfig,
    load: Arc<Mutex<Load>>,
    outcomes: PerLabel<ShedOutcome>,
}

struct Load {
    limit: Limit,
    in_flight: usize,
    most_in_flight: usize,
}

/// A run that was let in. Dropped before it has told anything, its caller went away.
struct Slot {
    load: Arc<Mutex<Load>>,
    began: Began,
    start: Instant,
    told: bool,
}

/// What a [`Shed`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShedStats {
    /// Runs that answered.
    pub successes: u64,
    /// Runs that were let in and failed.
    pub errors: u64,
    /// Runs whose caller went away.
    pub cancelled: u64,
    /// Runs that were not let in.
    pub rejected: u64,
    /// Runs that may be under way now.
    pub limit: usize,
    /// Runs that are under way now.
    pub in_flight: usize,
    /// The most runs that were ever under way at once.
    pub most_in_flight: usize,
    /// How long the server takes when it is idle, as far as is known.
    pub unloaded: Option<Duration>,
}

/// Handles to the families of [`Shed`].
#[derive(Debug)]
pub struct ShedSignals {
    limit: Gauge,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Lets in as many runs at once as the workflow turns out to take.
    ///
    /// # Cancellation
    /// Dropping a run gives back its place. It counts as overload if it is dropped after twice the time that
    /// is tolerated, and says nothing otherwise.
    pub fn shed(self, config: ShedConfig) -> Workflow<Observed<Shed<P>>> {
        let limit = Limit::new(config.least, config.initial, config.most, config.tolerance);
        let load = Arc::new(Mutex::new(Load { limit, in_flight: 0, most_in_flight: 0 }));
        Workflow::from_stage(Shed { inner: self.into_inner(), config, load, outcomes: PerLabel::default() })
    }
}

// === impl ShedConfig ===

impl ShedConfig {
    /// Finds how many runs of `operation` are taken at once.
    pub fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            least: 1,
            initial: 10,
            most: 1_000,
            tolerance: 1.5,
            overload: Arc::new(|error| matches!(error.kind(), Kind::Timeout | Kind::Rejected)),
        }
    }

    /// The limit stays from `least` to `most`, and starts there. Default: 1 to 1000.
    ///
    /// # Errors
    /// When `least` is zero or more than `most`, or `most` is more than a million.
    pub fn bounds(mut self, least: u32, most: u32) -> Result<Self, ConfigError> {
        if least == 0 || least > most || most > 1_000_000 {
            return Err(ConfigError::new(format!(
                "shed bounds are {least} to {most}: they must be in order, from 1 to 1000000"
            )));
        }
        (self.least, self.most) = (least, most);
        self.initial = self.initial.clamp(least, most);
        Ok(self)
    }

    /// The limit to start with. Default: 10.
    ///
    /// # Errors
    /// When it is not within the bounds.
    pub fn initial(mut self, limit: u32) -> Result<Self, ConfigError> {
        if !(self.least..=self.most).contains(&limit) {
            let (least, most) = (self.least, self.most);
            let allowed = format_args!("from {least} to {most}, its bounds");
            return Err(ConfigError::refused("shed initial limit", limit, allowed));
        }
        self.initial = limit;
        Ok(self)
    }

    /// How many times the time of an idle server an answer may take before the limit is cut. Less keeps answers
    /// faster, more keeps a server busier whose times vary a lot. Default: 1.5.
    ///
    /// # Errors
    /// When it is not from 1.1 to 10.
    pub fn tolerance(mut self, times: f64) -> Result<Self, ConfigError> {
        if !(1.1..=10.0).contains(&times) {
            return Err(ConfigError::refused("shed tolerance", format_args!("{times}"), "from 1.1 to 10"));
        }
        self.tolerance = times;
        Ok(self)
    }

    /// Which errors say that the server has too much to do. Default: [`Kind::Timeout`] and
    /// [`Kind::Rejected`].
    pub fn overload(mut self, when: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.overload = Arc::new(when);
        self
    }
}

impl fmt::Debug for ShedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, least, initial, most, tolerance, .. } = self;
        write!(f, "ShedConfig({operation}, {initial} in {least} to {most}, tolerance {tolerance})")
    }
}

// === impl Shed ===

impl<P> Shed<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> ShedStats {
        let load = lock(&self.load);
        ShedStats {
            successes: self.outcomes.get(ShedOutcome::Success),
            errors: self.outcomes.get(ShedOutcome::Error),
            cancelled: self.outcomes.get(ShedOutcome::Cancelled),
            rejected: self.outcomes.get(ShedOutcome::Rejected),
            limit: load.limit.allowed(),
            in_flight: load.in_flight,
            most_in_flight: load.most_in_flight,
            unloaded: load.limit.baseline(),
        }
    }

    fn enter(&self) -> Result<Slot> {
        let mut load = lock(&self.load);
        let (busy, allowed) = (load.in_flight, load.limit.allowed());
        if busy >= allowed {
            let text = format!("{busy} runs are under way and no more than {allowed} are taken now");
            return Err(Error::new(Kind::Rejected, text));
        }
        load.in_flight += 1;
        load.most_in_flight = load.most_in_flight.max(load.in_flight);
        let began = load.limit.begin(busy + 1);
        drop(load);
        Ok(Slot { load: Arc::clone(&self.load), began, start: Instant::now(), told: false })
    }
}

fn lock(load: &Mutex<Load>) -> MutexGuard<'_, Load> {
    load.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Primitive> Stage for Shed<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = ShedOutcome;
    type Event = ShedEvent;
    type Signals = ShedSignals;
    type Note = ();

    const PRIMITIVE: &'static str = "shed";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, registry: &Registry) -> ShedSignals {
        ShedSignals { limit: registry.gauge(&LIMIT, &[&self.config.operation]) }
    }

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let mut slot = self.enter().inspect_err(|_| run.outcome(ShedOutcome::Rejected))?;
        let mut output = match answered(&self.inner, input, cx).await {
            Ok(output) => output,
            Err(error) => {
                let overload = (self.config.overload)(&error);
                if overload {
                    run.event(ShedEvent::Overload);
                }
                slot.failed(overload);
                return Err(error);
            }
        };
        slot.answered();
        if let Some(stream) = self.inner.stream(&mut output) {
            let overload = Arc::clone(&self.config.overload);
            stream.on_end(Box::new(move |ending| match ending {
                StreamEnding::Failed(error) => slot.failed(overload(error)),
                StreamEnding::Complete | StreamEnding::Dropped => drop(slot),
            }));
        }
        Ok(output)
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.outcomes.inc(end.outcome);
        if let Some(seen) = &end.seen {
            let limit = lock(&self.load).limit.allowed();
            seen.signals.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, &self.config.operation).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn stream_ended(&self, ending: &StreamEnding, run: &mut Deferred<Self>) -> Option<ShedOutcome> {
        if let StreamEnding::Failed(error) = ending
            && (self.config.overload)(error)
        {
            run.event(ShedEvent::Overload);
        }
        None
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P> fmt::Debug for Shed<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShedStats { in_flight, limit, rejected, .. } = self.stats();
        write!(f, "Shed({}, {in_flight} of {limit} under way, {rejected} rejected)", self.config.operation)
    }
}

// === impl Slot ===

impl Slot {
    fn answered(&mut self) {
        self.told = true;
        let latency = self.start.elapsed();
        lock(&self.load).limit.answered(self.began, latency);
    }

    fn failed(mut self, overload: bool) {
        self.told = true;
        if overload {
            lock(&self.load).limit.overloaded(self.began);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut load = lock(&self.load);
        load.in_flight -= 1;
        if !self.told {
            load.limit.left(self.began, self.start.elapsed());
        }
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for ShedOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}
