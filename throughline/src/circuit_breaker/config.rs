//! When a circuit opens, for how long, and what closes it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::rules::{Rules, Undecided};
use super::window::{Extent, Window};
use crate::error::{ConfigError, Error, Kind, Result};

/// The most calls that a window, a minimum or a row can ask for.
const MOST_CALLS: u32 = 100_000;
const MOST_TRIALS: u32 = 10_000;
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest of every time: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const TIMES: &str = "from 0.001 s to 86400 s";
const RATES: &str = "above 0 and at most 1";

/// What an error says about the target that was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is not well.
    Failure,
    /// It is well, for it answered.
    Success,
    /// Nothing.
    Ignored,
}

/// When a circuit opens, for how long, and what closes it.
#[derive(Clone)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `circuit_breaker`"]
pub struct CircuitBreakerConfig {
    pub(super) circuit: String,
    pub(super) rules: Rules,
    pub(super) slow_after: Duration,
    pub(super) count_slow_drops: bool,
    pub(super) judge: Arc<dyn Fn(&Error) -> Verdict + Send + Sync>,
    pub(super) seed: Option<u64>,
}

// === impl Verdict ===

impl Verdict {
    /// What an error says unless [`CircuitBreakerConfig::judge`] says otherwise.
    ///
    /// [`Kind::Timeout`] and [`Kind::Upstream`] are failures, and so are passing faults of our own side
    /// ([`Kind::Store`], a retryable [`Kind::Internal`]). Ignored are errors of the caller, of another
    /// circuit, and every limit ([`Kind::RateLimited`], [`Kind::Rejected`]), ours or the target's: who is
    /// asked to go slower is not down, and no calls at all would waste what the limit still allows.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            Kind::Timeout | Kind::Upstream => Self::Failure,
            Kind::Store | Kind::Internal if error.is_retryable() => Self::Failure,
            Kind::Store
            | Kind::Internal
            | Kind::InvalidInput
            | Kind::Cancelled
            | Kind::CircuitOpen
            | Kind::RateLimited
            | Kind::Rejected => Self::Ignored,
        }
    }
}

// === impl CircuitBreakerConfig ===

impl CircuitBreakerConfig {
    /// Describes the circuit called `circuit`: the name of the target, from code or configuration. It becomes
    /// the `circuit` and the `operation` label.
    pub fn new(circuit: impl Into<String>) -> Self {
        let rules = Rules {
            window: Window::count(100),
            min_calls: 20,
            failure_rate: 0.5,
            slow_rate: 1.0,
            trials: 5,
            open_for: Duration::from_secs(10),
            growth: 2.0,
            max_open_for: Duration::from_secs(300),
            jitter: 0.1,
            half_open_wait: Duration::from_secs(600),
            undecided: Undecided::Reopen,
        };
        Self {
            circuit: circuit.into(),
            rules,
            slow_after: Duration::from_secs(60),
            count_slow_drops: true,
            judge: Arc::new(Verdict::of),
            seed: None,
        }
    }

    /// Judges by these calls. Default: the last 100.
    ///
    /// # Errors
    /// When it is for no calls or more than 100,000, or for less than a millisecond or more than a day.
    pub fn window(mut self, window: Window) -> Result<Self, ConfigError> {
        match window.extent() {
            Extent::Count(calls) | Extent::Consecutive(calls) => bounded("window", calls, MOST_CALLS)?,
            Extent::Time(time) => timed("window", time)?,
        }
        self.rules.window = window;
        Ok(self)
    }

    /// Opens only when the window holds at least `calls`. With a window of fewer calls, a full window is
    /// enough. Default: 20.
    ///
    /// # Errors
    /// When it is 0 or more than 100,000.
    pub fn min_calls(mut self, calls: u32) -> Result<Self, ConfigError> {
        bounded("minimum of calls", calls, MOST_CALLS)?;
        self.rules.min_calls = calls;
        Ok(self)
    }

    /// Opens when this share of calls fails, or more. Default: 0.5.
    ///
    /// # Errors
    /// When it is not a number, not above 0, or above 1.
    pub fn failure_rate(mut self, rate: f64) -> Result<Self, ConfigError> {
        self.rules.failure_rate = share("failure rate", rate)?;
        Ok(self)
    }

    /// Opens when this share of calls is slow, or more. Default: 1.
    ///
    /// # Errors
    /// When it is not a number, not above 0, or above 1.
    pub fn slow_rate(mut self, rate: f64) -> Result<Self, ConfigError> {
        self.rules.slow_rate = share("slow rate", rate)?;
        Ok(self)
    }

    /// A call that takes longer than this is slow. Where the answer is a stream, its first item counts.
    /// Default: 60s.
    ///
    /// # Errors
    /// When it is less than a millisecond or more than a day.
    pub fn slow_after(mut self, time: Duration) -> Result<Self, ConfigError> {
        timed("slow limit", time)?;
        self.slow_after = time;
        Ok(self)
    }

    /// Whether a call that is dropped, or gives up because it was asked to stop, is a slow failure when it
    /// has been slow by then. Without it an outer timeout hides a target that hangs. Default: true.
    pub fn count_slow_drops(mut self, count: bool) -> Self {
        self.count_slow_drops = count;
        self
    }

    /// Says what an error is to the circuit. Default: [`Verdict::of`].
    pub fn judge(mut self, judge: impl Fn(&Error) -> Verdict + Send + Sync + 'static) -> Self {
        self.judge = Arc::new(judge);
        self
    }

    /// Lets this many calls through when half-open, and decides when they have ended, by the same rates; or
    /// earlier, when the rest of them cannot change the decision. Default: 5.
    ///
    /// # Errors
    /// When it is 0 or more than 10,000.
    pub fn trials(mut self, trials: u32) -> Result<Self, ConfigError> {
        bounded("number of trials", trials, MOST_TRIALS)?;
        self.rules.trials = trials;
        Ok(self)
    }

    /// Gives up on trials when some are under way and none has ended for this long. They are late then.
    /// Default: 600s, and opens again.
    ///
    /// # Errors
    /// When it is less than a millisecond or more than a day.
    pub fn half_open_wait(mut self, wait: Duration, undecided: Undecided) -> Result<Self, ConfigError> {
        timed("half-open wait", wait)?;
        (self.rules.half_open_wait, self.rules.undecided) = (wait, undecided);
        Ok(self)
    }

    /// Stays open this long at the first time. Default: 10s.
    ///
    /// # Errors
    /// When it is less than a millisecond or more than a day.
    pub fn open_for(mut self, time: Duration) -> Result<Self, ConfigError> {
        timed("open time", time)?;
        self.rules.open_for = time;
        Ok(self)
    }

    /// Stays open this many times longer each time, unless it has been closed in between for as long as it
    /// was open last. Default: 2.
    ///
    /// # Errors
    /// When it is not a number, less than 1 or more than 10.
    pub fn growth(mut self, factor: f64) -> Result<Self, ConfigError> {
        if !(1.0..=10.0).contains(&factor) {
            return Err(refused("growth", factor, "from 1 to 10"));
        }
        self.rules.growth = factor;
        Ok(self)
    }

    /// Never stays open longer than this; a limit below [`CircuitBreakerConfig::open_for`] counts as that.
    /// Default: 300s.
    ///
    /// # Errors
    /// When it is less than a millisecond or more than a day.
    pub fn max_open_for(mut self, time: Duration) -> Result<Self, ConfigError> {
        timed("longest open time", time)?;
        self.rules.max_open_for = time;
        Ok(self)
    }

    /// Spreads the open time by this share to either side, so that several processes do not come back at
    /// once. Default: 0.1.
    ///
    /// # Errors
    /// When it is not a number, negative or more than 0.5.
    pub fn jitter(mut self, share: f64) -> Result<Self, ConfigError> {
        if !(0.0..=0.5).contains(&share) {
            return Err(refused("jitter", share, "from 0 to 0.5"));
        }
        self.rules.jitter = share;
        Ok(self)
    }

    /// Makes the jitter the same every time, for tests. Default: by chance.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

fn bounded(field: &str, given: u32, most: u32) -> Result<(), ConfigError> {
    if given == 0 || given > most {
        return Err(refused(field, given, format_args!("from 1 to {most}")));
    }
    Ok(())
}

fn timed(field: &str, given: Duration) -> Result<(), ConfigError> {
    if given < SHORTEST || given > LONGEST {
        return Err(refused(field, format_args!("{:?} s", given.as_secs_f64()), TIMES));
    }
    Ok(())
}

fn share(field: &str, given: f64) -> Result<f64, ConfigError> {
    if given > 0.0 && given <= 1.0 {
        return Ok(given);
    }
    Err(refused(field, given, RATES))
}

fn refused(field: &str, given: impl fmt::Debug, allowed: impl fmt::Display) -> ConfigError {
    ConfigError::refused(&format!("circuit {field}"), given, allowed)
}

impl fmt::Debug for CircuitBreakerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerConfig")
            .field("circuit", &self.circuit)
            .field("rules", &self.rules)
            .field("slow_after", &self.slow_after)
            .field("count_slow_drops", &self.count_slow_drops)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
