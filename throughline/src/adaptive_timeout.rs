//! Bounds how long a workflow may take by what it takes lately: a quantile of live latency times a factor,
//! between a floor and a ceiling.
//!
//! Use it where no fixed limit is right for long: a model that is fast at night and slow at noon, many
//! upstreams that nobody has measured. It stands where a timeout stands, around one attempt. It shadows first:
//! until it has samples enough, or for as long as it is told, only the ceiling is enforced, and what the
//! learned limit would have cut is counted (`would_have_timed_out`).
//!
//! A run that timed out has no latency but a lower bound. It counts as twice its limit, so that it lies above
//! the quantile, where its true place does not matter: the estimate is that of the uncut latencies while no
//! more than `1 - quantile` of the runs are cut, and that is also the bound on the share of good runs that a
//! steady service loses. When a service has become slower for good, more are cut, the quantile is theirs, and
//! the limit doubles until it fits: the exponential back-off that Karn and Partridge (1987) and RFC 6298
//! give TCP, as its samples are cut as well. When it has become faster, the limit follows within a window.
//! Where more than `1 - quantile` of the runs hang, the limit goes to the ceiling.
//!
//! ```
//! use std::time::Duration;
//! use throughline::{AdaptiveTimeoutConfig, Context, Kind, workflow};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = workflow("model", |millis: u64| async move {
//!     tokio::time::sleep(Duration::from_millis(millis)).await;
//!     Ok(millis)
//! });
//! let config = AdaptiveTimeoutConfig::new("model", Duration::from_millis(50), Duration::from_secs(30))?;
//! let flow = model.adaptive_timeout(config.min_samples(10)?);
//! for _ in 0..10 {
//!     flow.run(200, &Context::new()).await?;
//! }
//! assert_eq!(flow.stage().stats().limit.as_millis(), 401, "twice what 95 % of the runs take");
//! assert_eq!(flow.run(5_000, &Context::new()).await.unwrap_err().kind(), Kind::Timeout);
//! # Ok(()) }
//! ```
//!
//! Do not use it where the time depends on the input more than on the service (a long answer, a big file):
//! it would cut the big ones. For an output that is a stream it bounds and learns the time to the first item.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::attempt::{answered, waited_in_vain};
use crate::context::{Context, until};
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::latency::Latency;
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::{Attribute, End, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<AdaptiveTimeoutOutcome, AdaptiveTimeoutEvent>(
    "adaptive_timeout",
    &[
        Attribute::double("throughline.adaptive_timeout.limit_seconds", "The limit that was learned"),
        Attribute::double("throughline.adaptive_timeout.enforced_seconds", "The limit that held"),
    ],
);

labels! {
    /// How a guarded run ended.
    #[non_exhaustive]
    pub enum AdaptiveTimeoutOutcome {
        /// It answered in time.
        Success = "success",
        /// It failed by itself, an inner timeout included.
        InnerError = "inner_error",
        /// The caller went away.
        Cancelled = "cancelled",
        /// It was dropped at the limit.
        Timeout = "timeout",
    }
}

labels! {
    /// What can happen while a guarded run is under way.
    #[non_exhaustive]
    pub enum AdaptiveTimeoutEvent {
        /// The learned limit passed and was not enforced.
        WouldHaveTimedOut = "would_have_timed_out",
    }
}

/// The longest ceiling or window: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// How much longer than its limit a run that was cut counts as.
const CUT: u32 = 2;

/// How a limit is learned, and what bounds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `adaptive_timeout`"]
pub struct AdaptiveTimeoutConfig {
    operation: String,
    floor: Duration,
    ceiling: Duration,
    quantile: f64,
    factor: f64,
    min_samples: u64,
    window: Duration,
    shadow: bool,
}

/// Bounds a workflow by its own latency. Made by [`Workflow::adaptive_timeout`].
pub struct AdaptiveTimeout<P> {
    inner: P,
    config: AdaptiveTimeoutConfig,
    shadow: AtomicBool,
    latency: Latency,
    outcomes: PerLabel<AdaptiveTimeoutOutcome>,
    events: PerLabel<AdaptiveTimeoutEvent>,
}

/// What an [`AdaptiveTimeout`] has seen and learned, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AdaptiveTimeoutStats {
    /// Runs that answered in time.
    pub successes: u64,
    /// Runs that were dropped at the limit.
    pub timeouts: u64,
    /// Runs that failed by themselves.
    pub inner_errors: u64,
    /// Runs whose caller went away.
    pub cancelled: u64,
    /// Runs that the learned limit would have cut, had it been enforced.
    pub would_have_timed_out: u64,
    /// The learned limit, or the ceiling while there are too few samples.
    pub limit: Duration,
    /// What is enforced: the limit, or in shadow the ceiling.
    pub enforced: Duration,
    /// The samples that count now.
    pub samples: u64,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Bounds the workflow by what it takes lately.
    pub fn adaptive_timeout(self, config: AdaptiveTimeoutConfig) -> Workflow<Observed<AdaptiveTimeout<P>>> {
        Workflow::from_stage(AdaptiveTimeout {
            inner: self.into_inner(),
            shadow: AtomicBool::new(config.shadow),
            latency: Latency::new(config.window, config.min_samples),
            config,
            outcomes: PerLabel::default(),
            events: PerLabel::default(),
        })
    }
}

// === impl AdaptiveTimeoutConfig ===

impl AdaptiveTimeoutConfig {
    /// Learns a limit for the runs of `operation`, never below `floor` nor above `ceiling`.
    ///
    /// # Errors
    /// When `floor` is zero or above `ceiling`, or `ceiling` is longer than a day.
    pub fn new(
        operation: impl Into<String>,
        floor: Duration,
        ceiling: Duration,
    ) -> Result<Self, ConfigError> {
        if ceiling > LONGEST {
            return Err(ConfigError::refused("adaptive timeout ceiling", ceiling, "at most 24h"));
        }
        if floor.is_zero() || floor > ceiling {
            let allowed = format!("more than 0s and at most the ceiling, {ceiling:?}");
            return Err(ConfigError::refused("adaptive timeout floor", floor, allowed));
        }
        Ok(Self {
            operation: operation.into(),
            floor,
            ceiling,
            quantile: 0.95,
            factor: 2.0,
            min_samples: 50,
            window: Duration::from_secs(300),
            shadow: false,
        })
    }

    /// The quantile of latency that the limit is a multiple of. More than the share of runs that hang should
    /// lie above it. Default: 0.95.
    ///
    /// # Errors
    /// When `quantile` is not between 0.5 and 0.999.
    pub fn quantile(mut self, quantile: f64) -> Result<Self, ConfigError> {
        if !(0.5..=0.999).contains(&quantile) {
            return Err(ConfigError::refused("adaptive timeout quantile", quantile, "from 0.5 to 0.999"));
        }
        self.quantile = quantile;
        Ok(self)
    }

    /// The limit in quantiles: with less than 1, the limit would cut what it learns from. Default: 2.
    ///
    /// # Errors
    /// When `factor` is not between 1 and 100.
    pub fn factor(mut self, factor: f64) -> Result<Self, ConfigError> {
        if !(1.0..=100.0).contains(&factor) {
            return Err(ConfigError::refused("adaptive timeout factor", factor, "from 1 to 100"));
        }
        self.factor = factor;
        Ok(self)
    }

    /// How many samples the limit takes to be believed; before that only the ceiling is enforced. Default: 50.
    ///
    /// # Errors
    /// When `samples` is zero.
    pub fn min_samples(mut self, samples: u64) -> Result<Self, ConfigError> {
        if samples == 0 {
            return Err(ConfigError::refused("adaptive timeout min_samples", samples, "at least 1"));
        }
        self.min_samples = samples;
        Ok(self)
    }

    /// How long a sample counts at most; at least it counts for half of this. Default: 300s.
    ///
    /// # Errors
    /// When `window` is zero or longer than a day.
    pub fn window(mut self, window: Duration) -> Result<Self, ConfigError> {
        if window.is_zero() || window > LONGEST {
            return Err(ConfigError::refused(
                "adaptive timeout window",
                window,
                "more than 0s and at most 24h",
            ));
        }
        self.window = window;
        Ok(self)
    }

    /// Enforces only the ceiling, and counts what the learned limit would have cut, until
    /// [`AdaptiveTimeout::set_shadow`] says otherwise. Default: only until there are samples enough.
    pub fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }
}

// === impl AdaptiveTimeout ===

impl<P> AdaptiveTimeout<P> {
    /// What it has seen and learned so far.
    #[must_use]
    pub fn stats(&self) -> AdaptiveTimeoutStats {
        let now = Instant::now();
        let limit = self.limit(now);
        AdaptiveTimeoutStats {
            successes: self.outcomes.get(AdaptiveTimeoutOutcome::Success),
            timeouts: self.outcomes.get(AdaptiveTimeoutOutcome::Timeout),
            inner_errors: self.outcomes.get(AdaptiveTimeoutOutcome::InnerError),
            cancelled: self.outcomes.get(AdaptiveTimeoutOutcome::Cancelled),
            would_have_timed_out: self.events.get(AdaptiveTimeoutEvent::WouldHaveTimedOut),
            limit,
            enforced: if self.is_shadow() { self.config.ceiling } else { limit },
            samples: self.latency.count(now),
        }
    }

    /// Enforces only the ceiling from now on, or the learned limit again. Runs under way keep theirs.
    pub fn set_shadow(&self, shadow: bool) {
        self.shadow.store(shadow, Ordering::Relaxed);
    }

    fn is_shadow(&self) -> bool {
        self.shadow.load(Ordering::Relaxed)
    }

    fn limit(&self, now: Instant) -> Duration {
        let AdaptiveTimeoutConfig { quantile, factor, floor, ceiling, .. } = self.config;
        let learned = self.latency.quantile(quantile, now);
        learned.map_or(ceiling, |value| value.mul_f64(factor).clamp(floor, ceiling))
    }

    /// A run that ended otherwise than by its answer or the limit.
    fn cut(&self, after: Duration, now: Instant) {
        self.latency.record_cut(after, self.config.quantile, now);
    }
}

impl<P: Primitive> AdaptiveTimeout<P> {
    fn timed_out(&self, enforced: Duration, now: Instant, run: &mut Run<'_, Self>) -> Error {
        self.latency.record(enforced * CUT, now);
        run.outcome(AdaptiveTimeoutOutcome::Timeout);
        let why = if enforced < self.config.ceiling { "as learned" } else { "the ceiling" };
        Error::new(Kind::Timeout, format!("no answer within {enforced:?}, {why}"))
    }

    /// The result of `work`, or `None` at the limit.
    async fn in_time<F: Future>(
        &self,
        mut work: Pin<&mut F>,
        start: Instant,
        (limit, enforced): (Duration, Duration),
        run: &mut Run<'_, Self>,
    ) -> Option<F::Output> {
        tokio::select! {
            biased;
            result = &mut work => return Some(result),
            () = until(Some(start + limit)) => {}
        }
        if limit >= enforced {
            return None;
        }
        self.events.inc(AdaptiveTimeoutEvent::WouldHaveTimedOut);
        run.event(AdaptiveTimeoutEvent::WouldHaveTimedOut);
        tokio::select! {
            biased;
            result = work => Some(result),
            () = until(Some(start + enforced)) => None,
        }
    }
}

impl<P: Primitive> Stage for AdaptiveTimeout<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = AdaptiveTimeoutOutcome;
    type Event = AdaptiveTimeoutEvent;
    type Signals = ();
    /// When the run started, while it is not known what it takes.
    type Note = Option<Instant>;

    const PRIMITIVE: &'static str = "adaptive_timeout";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let start = Instant::now();
        let limit = self.limit(start);
        let enforced = if self.is_shadow() { self.config.ceiling } else { limit };
        run.attribute("throughline.adaptive_timeout.limit_seconds", limit.as_secs_f64());
        run.attribute("throughline.adaptive_timeout.enforced_seconds", enforced.as_secs_f64());
        run.note = Some(start);

        let inner = cx.bounded(start + enforced);
        let work = pin!(answered(&self.inner, input, &inner));
        let result = self.in_time(work, start, (limit, enforced), run).await;
        run.note = None;
        let now = Instant::now();
        match result {
            Some(Ok(output)) => {
                self.latency.record(now - start, now);
                run.outcome(AdaptiveTimeoutOutcome::Success);
                Ok(output)
            }
            // A wait inside ended with the deadline that was set here.
            Some(Err(error)) if waited_in_vain(&error) && now - start >= enforced => {
                Err(self.timed_out(enforced, now, run).because(error))
            }
            Some(Err(error)) => {
                if error.kind() == Kind::Timeout {
                    self.cut(now - start, now);
                }
                Err(error)
            }
            None => {
                inner.stop();
                Err(self.timed_out(enforced, now, run))
            }
        }
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.outcomes.inc(end.outcome);
        if let Some(start) = *end.note {
            let now = Instant::now();
            self.cut(now - start, now);
        }
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

impl<P> fmt::Debug for AdaptiveTimeout<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AdaptiveTimeoutConfig { operation, floor, ceiling, .. } = &self.config;
        let AdaptiveTimeoutStats { limit, timeouts, samples, .. } = self.stats();
        let shadow = if self.is_shadow() { " in shadow" } else { "" };
        write!(f, "AdaptiveTimeout({operation}, limit {limit:?}{shadow} of {floor:?} to {ceiling:?}, ")?;
        write!(f, "{samples} samples, {timeouts} timed out)")
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for AdaptiveTimeoutOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::InnerError;
    const CANCELLED: Self = Self::Cancelled;
}
