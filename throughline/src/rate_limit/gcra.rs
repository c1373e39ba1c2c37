//! The generic cell rate algorithm (ITU-T I.371, annex A, as virtual scheduling) on one atomic number, with
//! costs, and with settlement afterwards.
//!
//! The number is the *theoretical arrival time*: when the bucket will be empty again if nothing is added.
//! Something of cost `c` moves it to `max(it, now) + c`, and passes if that is at most the tolerance away from
//! now. So no window of time sees more than its length times the rate, plus the burst.
//!
//! **Settlement.** What was reserved and not used is given back only as far as it has not leaked out of the
//! bucket already: at most `until - now`, where `until` is the number right after the reservation, less all that
//! was given back since. Then the number is never lower than that of a bucket which had known the real use
//! from the start. For let `D` be what was taken since the reservation: the number stays at least `now + D`, and
//! the knowing bucket is at most there if it has been empty since; and if it has not, the gift is exact. Use
//! beyond the reservation is added in full.
//!
//! All times are nanoseconds on one clock of the caller's; one that goes back a little refuses more, never less.

use std::sync::PoisonError;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// One rate.
#[derive(Debug)]
pub(crate) struct Gcra {
    /// Nanoseconds that one unit takes to leak.
    interval: u64,
    /// How far the number may be ahead of now.
    tolerance: u64,
    arrival: AtomicU64,
    /// All that was ever given back. Changed under `giving`, after `arrival`, so that whoever sees a gift here
    /// sees it there.
    given: AtomicU64,
    giving: Mutex<()>,
}

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    cost: u64,
    until: u64,
    given: u64,
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is room after this many nanoseconds, if nobody else takes it.
    For(u64),
    /// It is more than the burst.
    Never,
}

// === impl Gcra ===

impl Gcra {
    /// One unit every `interval` nanoseconds, `burst` at once.
    pub(crate) fn new(interval: u64, burst: u64) -> Self {
        Self {
            interval,
            tolerance: interval.saturating_mul(burst),
            arrival: AtomicU64::new(0),
            given: AtomicU64::new(0),
            giving: Mutex::new(()),
        }
    }

    /// Takes `units`, or says how long there is no room for them.
    pub(crate) fn take(&self, now: u64, units: u64) -> Result<Taken, Refused> {
        let cost = self.cost(units)?;
        let given = self.given.load(Ordering::Acquire);
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let until = self.until(arrival, now, cost)?;
            match self.arrival.compare_exchange_weak(arrival, until, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken { cost, until, given }),
                Err(seen) => arrival = seen,
            }
        }
    }

    /// What [`Gcra::take`] would say now, without taking: nanoseconds to wait.
    pub(crate) fn wait(&self, now: u64, units: u64) -> Result<u64, Refused> {
        let cost = self.cost(units)?;
        match self.until(self.arrival.load(Ordering::Relaxed), now, cost) {
            Ok(_) => Ok(0),
            Err(Refused::For(wait)) => Ok(wait),
            Err(never) => Err(never),
        }
    }

    /// Replaces what was taken by the real use; whether there is more room now than before.
    pub(crate) fn settle(&self, taken: Taken, now: u64, units: u64) -> bool {
        let used = units.saturating_mul(self.interval);
        if used >= taken.cost {
            self.change(|arrival| arrival.saturating_add(used - taken.cost));
            return false;
        }
        self.give(|given| {
            let until = taken.until.saturating_sub(given.wrapping_sub(taken.given));
            (taken.cost - used).min(until.saturating_sub(now))
        })
    }

    /// Gives back what was taken a moment ago and not used at all.
    pub(crate) fn hand_back(&self, taken: Taken) {
        self.give(|_| taken.cost);
    }

    /// Units that would pass now.
    pub(crate) fn available(&self, now: u64) -> u64 {
        let ahead = self.arrival.load(Ordering::Relaxed).saturating_sub(now);
        self.tolerance.saturating_sub(ahead) / self.interval
    }

    fn cost(&self, units: u64) -> Result<u64, Refused> {
        units.checked_mul(self.interval).filter(|cost| *cost <= self.tolerance).ok_or(Refused::Never)
    }

    /// The number with `cost` added, if that is not too far ahead.
    fn until(&self, arrival: u64, now: u64, cost: u64) -> Result<u64, Refused> {
        let until = arrival.max(now).saturating_add(cost);
        match until.saturating_sub(now.saturating_add(self.tolerance)) {
            0 => Ok(until),
            wait => Err(Refused::For(wait)),
        }
    }

    fn give(&self, much: impl FnOnce(u64) -> u64) -> bool {
        let _one_at_a_time = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        let given = self.given.load(Ordering::Relaxed);
        let much = much(given);
        self.change(|arrival| arrival.saturating_sub(much));
        self.given.store(given.wrapping_add(much), Ordering::Release);
        much > 0
    }

    fn change(&self, change: impl Fn(u64) -> u64) {
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        while let Err(seen) =
            self.arrival.compare_exchange_weak(arrival, change(arrival), Ordering::Relaxed, Ordering::Relaxed)
        {
            arrival = seen;
        }
    }
}
