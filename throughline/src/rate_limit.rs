//! Keeps a workflow within so many requests, and so many units such as tokens, in a time.
//!
//! A run takes a request and the units it is estimated to use from an [`Allowance`], both or none. When there
//! is no room it fails with [`Kind::RateLimited`] and the exact time after which there is, or waits for that
//! time. When its real use is known the estimate is settled: less is given back, more is owed.
//! What an upstream says itself ([`Kind::RateLimited`] with a retry-after) pauses the allowance until then.
//!
//! Use it where a provider limits an account: the provider counts refused requests, too. It stands inside
//! retry and hedge, so that every attempt pays, and outside the timeout of one attempt. Workflows that use
//! one account share clones of one allowance. In any span of time what passes is at most the span's share of
//! the quota plus the burst; [`Quota`] says what that means for a fixed window.
//!
//! ```
//! use throughline::{Allowance, Context, Kind, Quota, RateLimitConfig, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let count = workflow("count", |text: String| async move { Ok(text.len() as u64) });
//! let account = Allowance::of_both(Quota::per_minute(500)?, Quota::per_minute(1_000)?);
//! let config = RateLimitConfig::new("count", &account)
//!     .estimate(|text: &String| 300 + text.len() as u64)
//!     .actual(|used: &u64| Some(*used));
//! let limited = count.rate_limit(config);
//!
//! let cx = Context::new();
//! for _ in 0..10 {
//!     limited.run("hello".into(), &cx).await?;
//! }
//! assert!(account.units_left() >= Some(950), "the estimates were given back");
//! let refused = limited.run("x".repeat(699), &cx).await.unwrap_err();
//! assert_eq!(refused.kind(), Kind::RateLimited);
//! assert!(refused.retry_after() <= Some(std::time::Duration::from_secs(3)));
//! # Ok(()) }
//! ```
//!
//! Do not use it to protect a server whose capacity is not known as a rate: how many may be at work at once
//! is for [`Workflow::bulkhead`] or [`Workflow::shed`]. Replicas that each have an allowance of the whole
//! account exceed it together: give each its share.

mod allowance;
mod gcra;
mod quota;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

pub use self::allowance::{Allowance, Reservation};
use self::allowance::{By, Refusal};
pub use self::quota::Quota;
use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::{StreamEnding, Streaming};
use crate::telemetry::{Deferred, End, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<RateLimitOutcome, RateLimitEvent>("rate_limit", &[]);

labels! {
    /// How a run under a rate limit ended.
    #[non_exhaustive]
    pub enum RateLimitOutcome {
        /// It answered.
        Success = "success",
        /// It was made and failed.
        Error = "error",
        /// The caller went away, or it was asked to stop while it waited.
        Cancelled = "cancelled",
        /// It was not made: there was no room, or none in time.
        Limited = "limited",
    }
}

labels! {
    /// What can happen to a run under a rate limit.
    #[non_exhaustive]
    pub enum RateLimitEvent {
        /// It had to wait.
        Waited = "waited",
        /// It was refused because its turn did not come in time.
        WaitedTooLong = "waited_too_long",
        /// It was refused for want of requests.
        LimitedByRequests = "limited_by_requests",
        /// It was refused for want of units.
        LimitedByUnits = "limited_by_units",
        /// It was refused because the upstream wants to be left alone.
        LimitedByUpstream = "limited_by_upstream",
        /// It was refused because it needs more than can ever pass at once.
        TooLarge = "too_large",
        /// The upstream refused it and said for how long: everything is paused until then.
        Paused = "paused",
    }
}

/// The longest wait: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a run may cost, and how long it waits for it.
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `rate_limit`"]
pub struct RateLimitConfig<In, Out> {
    operation: String,
    allowance: Allowance,
    max_wait: Duration,
    learn: bool,
    estimate: Arc<dyn Fn(&In) -> u64 + Send + Sync>,
    settle: Settle<Out>,
}

type Settle<Out> = Arc<dyn Fn(&mut Out, Reservation) + Send + Sync>;

/// Keeps a workflow within a rate. Made by [`Workflow::rate_limit`].
pub struct RateLimit<P: Primitive> {
    inner: P,
    config: RateLimitConfig<P::In, P::Out>,
    outcomes: PerLabel<RateLimitOutcome>,
}

/// What a [`RateLimit`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitStats {
    /// Runs that answered.
    pub successes: u64,
    /// Runs that were made and failed.
    pub errors: u64,
    /// Runs whose caller went away, or that were asked to stop while they waited.
    pub cancelled: u64,
    /// Runs that were not made for want of room.
    pub limited: u64,
    /// Runs that wait now, of all workflows that share the allowance.
    pub waiting: u64,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Keeps the workflow within a rate.
    ///
    /// # Cancellation
    /// A run that is dropped while it waits has taken nothing. Once it is made it counts, as it does upstream:
    /// if it is dropped or fails, by the estimate.
    pub fn rate_limit(self, config: RateLimitConfig<P::In, P::Out>) -> Workflow<Observed<RateLimit<P>>> {
        Workflow::from_stage(RateLimit { inner: self.into_inner(), config, outcomes: PerLabel::default() })
    }
}

// === impl RateLimitConfig ===

impl<In, Out> RateLimitConfig<In, Out> {
    /// Has the runs of `operation` take from an allowance: one of their own (give a [`Quota`] of requests), or one
    /// that they share (give an [`&Allowance`](Allowance)).
    pub fn new(operation: impl Into<String>, allowance: impl Into<Allowance>) -> Self {
        Self {
            operation: operation.into(),
            allowance: allowance.into(),
            max_wait: Duration::ZERO,
            learn: true,
            estimate: Arc::new(|_| 1),
            settle: Arc::new(|_, _| {}),
        }
    }

    /// Units that a run reserves. With an estimate of 0 a run passes unless something is owed, and is paid for
    /// afterwards. Default: 1.
    pub fn estimate(mut self, units: impl Fn(&In) -> u64 + Send + Sync + 'static) -> Self {
        self.estimate = Arc::new(units);
        self
    }

    /// Units that an answer has really used, where it tells. Default: as estimated.
    pub fn actual(self, units: impl Fn(&Out) -> Option<u64> + Send + Sync + 'static) -> Self {
        self.settle_with(move |output, reservation| {
            if let Some(units) = units(output) {
                reservation.settle(units);
            }
        })
    }

    /// As [`RateLimitConfig::actual`], for an answer that tells later, such as a stream: keep the reservation
    /// and call [`Reservation::settle`] when it is known. Default: as estimated.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use throughline::{ItemStream, Quota, RateLimitConfig, Streaming as _};
    ///
    /// # fn main() -> Result<(), throughline::ConfigError> {
    /// let config = RateLimitConfig::new("chat", Quota::per_minute(500)?).settle_with(
    ///     |words: &mut ItemStream<String>, reservation| {
    ///         let used = Arc::new(AtomicU64::new(0));
    ///         let count = Arc::clone(&used);
    ///         words.on_item(move |_| _ = count.fetch_add(1, Ordering::Relaxed));
    ///         words.on_end(Box::new(move |_| reservation.settle(used.load(Ordering::Relaxed))));
    ///     },
    /// );
    /// # let _: RateLimitConfig<String, _> = config;
    /// # Ok(()) }
    /// ```
    pub fn settle_with(mut self, settle: impl Fn(&mut Out, Reservation) + Send + Sync + 'static) -> Self {
        self.settle = Arc::new(settle);
        self
    }

    /// How long a run may wait for room instead of being refused. Waiters take their turns in the order they
    /// came, but one who may not wait can overtake them. Default: 0s.
    ///
    /// # Errors
    /// When it is longer than a day.
    pub fn max_wait(mut self, wait: Duration) -> Result<Self, ConfigError> {
        if wait > LONGEST {
            return Err(ConfigError::refused(
                "rate limit max_wait",
                wait,
                format_args!("at most {LONGEST:?}"),
            ));
        }
        self.max_wait = wait;
        Ok(self)
    }

    /// Whether an inner [`Kind::RateLimited`] with a retry-after pauses the allowance until then. Turn it off
    /// where the workflow inside has a rate limit of its own that is not about this account. Default: true.
    pub fn learn(mut self, learn: bool) -> Self {
        self.learn = learn;
        self
    }
}

/// Clones take from the same allowance.
impl<In, Out> Clone for RateLimitConfig<In, Out> {
    fn clone(&self) -> Self {
        let Self { operation, allowance, max_wait, learn, estimate, settle } = self;
        Self {
            operation: operation.clone(),
            allowance: allowance.clone(),
            max_wait: *max_wait,
            learn: *learn,
            estimate: Arc::clone(estimate),
            settle: Arc::clone(settle),
        }
    }
}

impl<In, Out> fmt::Debug for RateLimitConfig<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, allowance, max_wait, .. } = self;
        write!(f, "RateLimitConfig({operation}, {allowance:?}, max_wait {max_wait:?})")
    }
}

// === impl RateLimit ===

impl<P: Primitive> RateLimit<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> RateLimitStats {
        RateLimitStats {
            successes: self.outcomes.get(RateLimitOutcome::Success),
            errors: self.outcomes.get(RateLimitOutcome::Error),
            cancelled: self.outcomes.get(RateLimitOutcome::Cancelled),
            limited: self.outcomes.get(RateLimitOutcome::Limited),
            waiting: self.config.allowance.waiting(),
        }
    }

    /// What it takes from.
    #[must_use]
    pub fn allowance(&self) -> &Allowance {
        &self.config.allowance
    }

    /// Takes what a run of `units` needs, as soon as there is room.
    async fn admit(&self, units: u64, cx: &Context, run: &mut Run<'_, Self>) -> Result<Reservation> {
        let RateLimitConfig { allowance, max_wait, .. } = &self.config;
        let refusal = if max_wait.is_zero() || allowance.waiting() == 0 {
            match allowance.take(units) {
                Ok(reservation) => return Ok(reservation),
                Err(refusal) => Some(refusal),
            }
        } else {
            allowance.refusal(units)
        };
        let end = Instant::now() + *max_wait;
        if let Some(refusal) = refusal {
            in_time(refusal, end, cx).map_err(|refusal| refuse(refusal, units, run))?;
        }
        run.event(RateLimitEvent::Waited);
        let error = match cx.while_wanted(timeout_at(end, self.turn(units, end, cx))).await {
            Ok(Ok(taken)) => return taken.map_err(|refusal| refuse(refusal, units, run)),
            Ok(Err(_)) => Error::new(Kind::RateLimited, format!("no turn within {max_wait:?}")),
            // The target was not asked: a breaker around this must not take it for its failure.
            Err(late) if late.kind() == Kind::Timeout => {
                Error::new(Kind::RateLimited, "no turn before the deadline").because(late)
            }
            Err(stopped) => return Err(stopped),
        };
        run.event(RateLimitEvent::WaitedTooLong);
        let wait = allowance.refusal(units).and_then(|refusal| refusal.wait);
        Err(wait.into_iter().fold(error, Error::with_retry_after))
    }

    /// Waits for its turn, and then for room. Nothing is taken before that, so that one who goes away leaves
    /// no gap that those behind would have to wait for.
    async fn turn(&self, units: u64, end: Instant, cx: &Context) -> Result<Reservation, Refusal> {
        let allowance = &self.config.allowance;
        let _waiter = allowance.0.wait();
        let _turn = allowance.0.line.lock().await;
        loop {
            let refusal = match allowance.take(units) {
                Ok(reservation) => return Ok(reservation),
                Err(refusal) => refusal,
            };
            let wait = in_time(refusal, end, cx)?;
            tokio::select! {
                () = sleep(wait) => {}
                () = allowance.0.room.notified() => {}
            }
        }
    }

    /// Pauses everything when the upstream says that it is too much.
    fn hear(&self, error: &Error) -> bool {
        let time = error.retry_after().filter(|_| self.config.learn && error.kind() == Kind::RateLimited);
        time.inspect(|time| self.config.allowance.pause(*time)).is_some()
    }
}

/// How long to wait, if that is in time.
fn in_time(refusal: Refusal, end: Instant, cx: &Context) -> Result<Duration, Refusal> {
    let now = Instant::now();
    let fits = |wait: &Duration| now.checked_add(*wait).is_some_and(|then| then <= end) && cx.fits(*wait);
    refusal.wait.filter(fits).ok_or(refusal)
}

fn refuse<P: Primitive>(refusal: Refusal, units: u64, run: &mut Run<'_, RateLimit<P>>) -> Error {
    let (event, limit) = match refusal.by {
        By::Requests(quota) => (RateLimitEvent::LimitedByRequests, quota.of("requests")),
        By::Units(quota) if refusal.wait.is_none() => {
            run.event(RateLimitEvent::TooLarge);
            let burst = quota.most_at_once();
            let text = format!("{units} units are more than can ever pass: {burst} at once, raise the burst");
            return Error::new(Kind::RateLimited, text).fatal();
        }
        By::Units(quota) => (RateLimitEvent::LimitedByUnits, quota.of("units")),
        By::Upstream => (RateLimitEvent::LimitedByUpstream, "the upstream said so".to_owned()),
    };
    run.event(event);
    let wait = refusal.wait.unwrap_or_default();
    Error::new(Kind::RateLimited, format!("rate limited for another {wait:?}: {limit}"))
        .with_retry_after(wait)
}

impl<P: Primitive> Stage for RateLimit<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = RateLimitOutcome;
    type Event = RateLimitEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "rate_limit";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let units = (self.config.estimate)(&input);
        let reservation = match self.admit(units, cx, run).await {
            Ok(reservation) => reservation,
            Err(error) => {
                let stopped = error.kind() == Kind::Cancelled;
                run.outcome(if stopped { RateLimitOutcome::Cancelled } else { RateLimitOutcome::Limited });
                return Err(error);
            }
        };
        match self.inner.execute(input, cx).await {
            Ok(mut output) => {
                (self.config.settle)(&mut output, reservation);
                Ok(output)
            }
            Err(error) => {
                if self.hear(&error) {
                    run.event(RateLimitEvent::Paused);
                }
                Err(error)
            }
        }
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.outcomes.inc(end.outcome);
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, &self.config.operation).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn stream_ended(&self, ending: &StreamEnding, run: &mut Deferred<Self>) -> Option<RateLimitOutcome> {
        if let StreamEnding::Failed(error) = ending
            && self.hear(error)
        {
            run.event(RateLimitEvent::Paused);
        }
        None
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P: Primitive> fmt::Debug for RateLimit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateLimitConfig { operation, allowance, .. } = &self.config;
        write!(f, "RateLimit({operation}, {allowance:?}, {} limited)", self.stats().limited)
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for RateLimitOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}
