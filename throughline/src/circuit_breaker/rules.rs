//! What a circuit goes by: when windows and trials are bad, and how long it stays open then.

use std::fmt;
use std::time::Duration;

use super::window::{Extent, Tally, Window};

/// What to do when trials do not come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undecided {
    /// Open again, for longer.
    Reopen,
    /// Close.
    Close,
}

/// What a circuit goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) window: Window,
    pub(super) min_calls: u32,
    pub(super) failure_rate: f64,
    pub(super) slow_rate: f64,
    pub(super) trials: u32,
    pub(super) open_for: Duration,
    pub(super) growth: f64,
    pub(super) max_open_for: Duration,
    pub(super) jitter: f64,
    pub(super) half_open_wait: Duration,
    pub(super) undecided: Undecided,
}

/// Why the circuit opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Failures(u32),
    Slow(u32),
    FailedOrSlow(u32),
    NoEnd(Duration),
    Hand,
}

/// What trials have shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    Open(Cause),
    Close,
    Wait,
}

// === impl Rules ===

impl Rules {
    /// Whether the rates of a window mean something yet.
    fn enough(&self, tally: Tally) -> bool {
        match self.window.extent() {
            Extent::Count(calls) => tally.calls >= self.min_calls.min(calls),
            Extent::Time(_) => tally.calls >= self.min_calls,
            Extent::Consecutive(_) => false,
        }
    }

    /// Why a window makes the circuit open, if it does. A rate equal to its limit is too high.
    pub(super) fn excess(&self, tally: Tally) -> Option<Cause> {
        match self.window.extent() {
            Extent::Consecutive(calls) => (tally.calls >= calls).then(|| in_a_row(tally)),
            _ if self.enough(tally) => self.too_many(tally, tally.calls),
            _ => None,
        }
    }

    /// The share of failures and of slow calls in a window.
    pub(super) fn rates(&self, tally: Tally) -> Option<(f64, f64)> {
        let share = |bad: u32| f64::from(bad) / f64::from(tally.calls);
        self.enough(tally).then(|| (share(tally.failures), share(tally.slow)))
    }

    fn too_many(&self, tally: Tally, of: u32) -> Option<Cause> {
        let reaches = |bad: u32, rate: f64| bad > 0 && f64::from(bad) / f64::from(of) >= rate;
        if reaches(tally.failures, self.failure_rate) {
            Some(Cause::Failures(tally.failures))
        } else {
            reaches(tally.slow, self.slow_rate).then_some(Cause::Slow(tally.slow))
        }
    }

    /// What trials have shown, as soon as those still to come cannot change it.
    pub(super) fn decide(&self, ended: Tally) -> Decision {
        let left = self.trials - ended.calls;
        if let Extent::Consecutive(_) = self.window.extent() {
            return match (ended.failures + ended.slow, left) {
                (0, 0) => Decision::Close,
                (0, _) => Decision::Wait,
                _ => Decision::Open(in_a_row(ended)),
            };
        }
        if let Some(cause) = self.too_many(ended, self.trials) {
            return Decision::Open(cause);
        }
        let at_worst = Tally { calls: self.trials, failures: ended.failures + left, slow: ended.slow + left };
        if self.too_many(at_worst, self.trials).is_none() { Decision::Close } else { Decision::Wait }
    }

    /// How long to stay open after so many trips before this one; `chance` is from 0 to 1.
    pub(super) fn pause(&self, trips: u32, chance: f64) -> Duration {
        let grown = self.open_for.as_secs_f64() * self.growth.powi(i32::try_from(trips).unwrap_or(i32::MAX));
        let cap = self.max_open_for.max(self.open_for).as_secs_f64();
        let spread = 1.0 + self.jitter * (2.0 * chance - 1.0);
        Duration::from_secs_f64((grown.min(cap) * spread).min(cap))
    }
}

fn in_a_row(tally: Tally) -> Cause {
    if tally.failures == tally.calls {
        Cause::Failures(tally.failures)
    } else {
        Cause::FailedOrSlow(tally.calls)
    }
}

// === impl Cause ===

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        match *self {
            Self::Failures(count) => write!(f, "after {count} failure{}", plural(count)),
            Self::Slow(count) => write!(f, "after {count} slow call{}", plural(count)),
            Self::FailedOrSlow(count) => write!(f, "after {count} failed or slow call{}", plural(count)),
            Self::NoEnd(wait) => write!(f, "after no trial ended within {wait:?}"),
            Self::Hand => f.write_str("since it was opened by hand"),
        }
    }
}
