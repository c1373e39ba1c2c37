//! Tries again when an attempt has failed and another may succeed.
//!
//! An error is retried when it says that this may help ([`Error::is_retryable`]) and the configured
//! predicate agrees. Between attempts it waits by a [`Backoff`], at least as long as the failing side asked
//! for ([`Error::retry_after`]). It gives up when the attempts are used up, when a wait would not end before
//! the deadline or is asked to be longer than an hour, and when the shared [`Budget`] is empty. The caller then
//! gets the last error.
//!
//! Use it around calls that fail now and then and may be repeated without harm. It stands around a circuit
//! breaker, a limit on concurrency and a timeout of one attempt, so that each attempt passes them anew, and
//! inside a timeout of the whole. Work can read which attempt it is from [`Context::attempt`].
//!
//! ```
//! use throughline::{Backoff, Context, Error, Kind, RetryConfig, workflow_with};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let moody = workflow_with("moody", |question: String, cx: Context| async move {
//!     match cx.attempt() {
//!         1 | 2 => Err(Error::new(Kind::Upstream, "the model answered 503")),
//!         _ => Ok(format!("{question} 42")),
//!     }
//! });
//! let flow = moody.retry(RetryConfig::new("ask").max_attempts(3)?.backoff(Backoff::default()));
//!
//! assert_eq!(flow.run("meaning?".to_owned(), &Context::new()).await?, "meaning? 42");
//! assert_eq!(flow.stage().stats().recovered, 1);
//! # Ok(()) }
//! ```
//!
//! Do not retry in every layer: three layers of three attempts are 27 calls. Do not retry what must happen
//! once, such as a payment, unless the called side recognises repetitions.
//!
//! # Streams
//! An attempt has succeeded when its first item has come; what fails after that is not retried.

mod backoff;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::attempt::answered;
use crate::budget::Budget;
use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::{
    Attribute, End, Label as _, Observed, PerLabel, Registry, Reported, Run, Sink, Stage,
};
use crate::workflow::Workflow;
pub use backoff::{Backoff, Delays, Jitter};

pub(crate) static REPORTED: Reported = Reported::new::<RetryOutcome, RetryEvent>(
    "retry",
    &[
        Attribute::int("throughline.retry.attempts", "How many attempts were made"),
        Attribute::string("throughline.retry.gave_up", "Why no other attempt was made: one of the events"),
    ],
);

labels! {
    /// How a run with retries ended.
    #[non_exhaustive]
    pub enum RetryOutcome {
        /// The first attempt succeeded.
        Success = "success",
        /// A later attempt succeeded.
        Recovered = "recovered",
        /// No attempt succeeded.
        Error = "error",
        /// The caller went away, or asked the work to stop.
        Cancelled = "cancelled",
    }
}

labels! {
    /// What can happen while a run with retries is under way. All but the first two say why it gave up.
    #[non_exhaustive]
    pub enum RetryEvent {
        /// An attempt failed and another begins.
        Retry = "retry",
        /// A later attempt succeeded.
        Recovered = "recovered",
        /// The last of the allowed attempts failed.
        Exhausted = "exhausted",
        /// The error does not allow another attempt, or the predicate does not.
        NotRetryable = "not_retryable",
        /// The wait before the next attempt would not end before the deadline or the total limit, or the
        /// failing side has asked for one of more than an hour.
        NoTimeLeft = "no_time_left",
        /// The shared budget has no token left.
        BudgetExhausted = "budget_exhausted",
    }
}

/// The longest wait that a failing side can ask for: what it says must not hold up a run for ever.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);

/// When to try again, and how often. Pass it to [`Workflow::retry`].
#[derive(Clone)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `retry`"]
pub struct RetryConfig {
    operation: String,
    max_attempts: u32,
    backoff: Backoff,
    seed: Option<u64>,
    total_limit: Option<Duration>,
    retry_if: Option<Arc<Predicate>>,
    budget: Option<Budget>,
}

type Predicate = dyn Fn(&Error) -> bool + Send + Sync;

/// Tries a workflow again when it fails. Made by [`Workflow::retry`].
pub struct Retry<P> {
    inner: P,
    config: RetryConfig,
    /// Runs that have drawn delays, where they are drawn from a seed.
    seeded: AtomicU64,
    outcomes: PerLabel<RetryOutcome>,
    events: PerLabel<RetryEvent>,
}

/// What a [`Retry`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryStats {
    /// Runs whose first attempt succeeded.
    pub successes: u64,
    /// Runs of which a later attempt succeeded.
    pub recovered: u64,
    /// Runs of which no attempt succeeded.
    pub errors: u64,
    /// Runs whose caller went away or asked them to stop.
    pub cancelled: u64,
    /// Attempts beyond the first of their run.
    pub retries: u64,
}

impl<P: Primitive<In: Clone>, Shape> Workflow<P, Shape> {
    /// Tries the workflow again when it fails. Every attempt gets a copy of the input.
    ///
    /// # Errors
    /// A run returns the error of its last attempt, or [`Kind::Cancelled`] because of it when the work is
    /// asked to stop between two attempts.
    ///
    /// # Cancellation
    /// Dropping a run that waits between attempts gives its token back to the budget.
    ///
    /// # Panics
    /// A panic of an attempt is not retried.
    pub fn retry(self, config: RetryConfig) -> Workflow<Observed<Retry<P>>> {
        Workflow::from_stage(Retry {
            inner: self.into_inner(),
            config,
            seeded: AtomicU64::new(0),
            outcomes: PerLabel::default(),
            events: PerLabel::default(),
        })
    }
}

// === impl RetryConfig ===

impl RetryConfig {
    /// Retries the runs of `operation`.
    pub fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            max_attempts: 3,
            backoff: Backoff::default(),
            seed: None,
            total_limit: None,
            retry_if: None,
            budget: None,
        }
    }

    /// How many attempts a run has, the first included. Default: 3.
    ///
    /// # Errors
    /// When `attempts` is 0.
    pub fn max_attempts(mut self, attempts: u32) -> Result<Self, ConfigError> {
        if attempts == 0 {
            return Err(ConfigError::refused(
                "retry max attempts",
                attempts,
                "1 or more; the first attempt counts, so 1 means no retry",
            ));
        }
        self.max_attempts = attempts;
        Ok(self)
    }

    /// How long to wait between attempts. Default: 100ms, doubling up to 10s, with full jitter.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Draws the delays of the first run from `seed`, those of the next from the number after it, and so
    /// on. Default: unpredictable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long all attempts and waits of a run may take together. Attempts see it as their deadline; one
    /// that is under way is not dropped: that takes a timeout. Default: no limit.
    ///
    /// # Errors
    /// When `limit` is zero.
    pub fn total_limit(mut self, limit: Duration) -> Result<Self, ConfigError> {
        if limit.is_zero() {
            return Err(ConfigError::refused("retry total limit", format_args!("0s"), "more than that"));
        }
        self.total_limit = Some(limit);
        Ok(self)
    }

    /// Retries only errors that `predicate` agrees to as well. It is not asked about those that do not allow
    /// another attempt, nor about [`Kind::Cancelled`] and [`Kind::CircuitOpen`], which are never retried.
    /// Default: agrees to all.
    pub fn retry_if(mut self, predicate: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.retry_if = Some(Arc::new(predicate));
        self
    }

    /// Pays for every further attempt from `budget`, and counts successes there. Default: none.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    fn may_retry(&self, error: &Error) -> bool {
        error.is_retryable()
            && !matches!(error.kind(), Kind::Cancelled | Kind::CircuitOpen)
            && self.retry_if.as_ref().is_none_or(|agrees| agrees(error))
    }
}

impl fmt::Debug for RetryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, max_attempts, backoff, total_limit, budget, .. } = self;
        write!(f, "RetryConfig({operation}, max attempts {max_attempts}, {backoff:?}, ")?;
        write!(f, "total limit {total_limit:?}, {budget:?})")
    }
}

// === impl Retry ===

impl<P> Retry<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> RetryStats {
        RetryStats {
            successes: self.outcomes.get(RetryOutcome::Success),
            recovered: self.outcomes.get(RetryOutcome::Recovered),
            errors: self.outcomes.get(RetryOutcome::Error),
            cancelled: self.outcomes.get(RetryOutcome::Cancelled),
            retries: self.events.get(RetryEvent::Retry),
        }
    }

    fn delays(&self) -> Delays {
        let seed =
            self.config.seed.map(|seed| seed.wrapping_add(self.seeded.fetch_add(1, Ordering::Relaxed)));
        self.config.backoff.delays(seed.unwrap_or_else(|| fastrand::u64(..)))
    }
}

impl RetryStats {
    /// Every run that has ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.successes + self.recovered + self.errors + self.cancelled
    }
}

impl<P: Primitive<In: Clone>> Retry<P> {
    async fn attempt(&self, input: P::In, cx: &Context, number: u32) -> Result<P::Out> {
        let own = (number != cx.attempt()).then(|| cx.with_attempt(number));
        answered(&self.inner, input, own.as_ref().unwrap_or(cx)).await
    }

    fn succeeded(&self, number: u32, run: &mut Run<'_, Self>) {
        if let Some(budget) = &self.config.budget {
            budget.deposit();
        }
        if number > 1 {
            run.event(RetryEvent::Recovered);
            run.outcome(RetryOutcome::Recovered);
        }
        run.attribute(ATTEMPTS, i64::from(number));
    }

    /// Waits for the next attempt and pays for it, or says why there is none.
    async fn pause(
        &self,
        number: u32,
        error: &Error,
        delays: &mut Option<Delays>,
        cx: &Context,
    ) -> Result<(), Stop> {
        if !self.config.may_retry(error) {
            return Err(Stop::GiveUp(RetryEvent::NotRetryable));
        }
        if number >= self.config.max_attempts {
            return Err(Stop::GiveUp(RetryEvent::Exhausted));
        }
        let delay = delays.get_or_insert_with(|| self.delays()).next().unwrap_or_default();
        let asked = error.retry_after().unwrap_or_default();
        let delay = delay.max(asked);
        if asked > LONGEST_ASKED || !cx.fits(delay) {
            return Err(Stop::GiveUp(RetryEvent::NoTimeLeft));
        }
        let token = match self.config.budget.as_ref().map(Budget::take) {
            Some(None) => return Err(Stop::GiveUp(RetryEvent::BudgetExhausted)),
            token => token.flatten(),
        };
        // It is the other side that is waited for, and no time of the program's own.
        match cx.elsewhere(cx.sleep(delay)).await {
            Ok(()) if !cx.is_cancelled() => {}
            Err(late) if late.kind() == Kind::Timeout => return Err(Stop::GiveUp(RetryEvent::NoTimeLeft)),
            _ => return Err(Stop::Asked),
        }
        if let Some(token) = token {
            token.spend();
        }
        Ok(())
    }

    fn failed(&self, number: u32, error: Error, stop: Stop, run: &mut Run<'_, Self>) -> Error {
        run.attribute(ATTEMPTS, i64::from(number));
        match stop {
            Stop::Asked => {
                run.outcome(RetryOutcome::Cancelled);
                let text = format!(
                    "the work was asked to stop after {number} of {} attempts",
                    self.config.max_attempts
                );
                Error::new(Kind::Cancelled, text).because(error)
            }
            Stop::GiveUp(why) => {
                if error.kind() == Kind::Cancelled {
                    run.outcome(RetryOutcome::Cancelled);
                }
                run.event(why);
                run.attribute("throughline.retry.gave_up", why.as_str());
                error
            }
        }
    }
}

/// Why there is no further attempt.
#[derive(Clone, Copy)]
enum Stop {
    /// The work was asked to stop.
    Asked,
    /// For a reason of its own.
    GiveUp(RetryEvent),
}

const ATTEMPTS: &str = "throughline.retry.attempts";

impl<P: Primitive<In: Clone>> Stage for Retry<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = RetryOutcome;
    type Event = RetryEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "retry";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let limited = self.config.total_limit.map(|limit| cx.with_time_limit(limit));
        let cx = limited.as_ref().unwrap_or(cx);
        let (mut kept, mut delays, mut number) = (Some(input), None, 1);
        loop {
            let input = if number < self.config.max_attempts { kept.clone() } else { kept.take() };
            let input = input.expect("only the last attempt takes what is kept");
            match self.attempt(input, cx, number).await {
                Ok(output) => {
                    self.succeeded(number, run);
                    return Ok(output);
                }
                Err(error) => {
                    if let Err(stop) = self.pause(number, &error, &mut delays, cx).await {
                        return Err(self.failed(number, error, stop, run));
                    }
                }
            }
            run.event(RetryEvent::Retry);
            self.events.inc(RetryEvent::Retry);
            number += 1;
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

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P> fmt::Debug for Retry<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RetryConfig { operation, max_attempts, .. } = &self.config;
        let stats = self.stats();
        write!(f, "Retry({operation}, max attempts {max_attempts}, ")?;
        write!(f, "{} of {} recovered)", stats.recovered, stats.total())
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for RetryOutcome {
    const SUCCESS: Self = Self::Success;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}
