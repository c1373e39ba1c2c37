//! The clock that every duration in a metric comes from.
//!
//! Two clock reads are most of what observing a stage costs, so the default reads the processor's
//! time-stamp counter (about 11 ns here against 28 ns for the operating system's clock). Tests choose
//! [`Clock::Tokio`], which stands still and moves with tokio's paused time.

use std::sync::LazyLock;
use std::time::Duration;

/// Counts without a unit: only a difference is turned into time, once, at the end of what is measured.
static COUNTER: LazyLock<quanta::Clock> = LazyLock::new(quanta::Clock::new);

/// Where the time comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// Monotonic, by the processor's time-stamp counter where it is reliable. The default.
    #[default]
    Monotonic,
    /// Tokio's clock, which tests can pause and move.
    Tokio,
}

/// A point in time of one [`Clock`].
#[derive(Clone, Copy, Debug)]
pub struct Tick(At);

/// What time of day it was at one point of the counter: read once for a trace, so that none of its spans seems to begin
/// before the one around it, and so that a span need not ask the operating system twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    counter: u64,
    /// Nanoseconds since 1970; 0 where nothing was read.
    time: u64,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// A reading of [`COUNTER`].
    Monotonic(u64),
    Tokio(tokio::time::Instant),
}

// === impl Clock ===

impl Clock {
    /// The time now.
    #[must_use]
    #[inline]
    pub fn now(self) -> Tick {
        Tick(match self {
            Self::Monotonic => At::Monotonic(COUNTER.raw()),
            Self::Tokio => At::Tokio(tokios()),
        })
    }
}

/// Out of the way, so that code which asks for the time stays in few lines of the processor's cache.
#[cold]
#[inline(never)]
fn tokios() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

// === impl Anchor ===

impl Anchor {
    pub(crate) const NONE: Self = Self { counter: 0, time: 0 };

    /// This one, or one that is read now, at `tick`.
    pub(super) fn or_at(self, tick: Tick) -> Self {
        match tick.0 {
            At::Monotonic(counter) if self.time == 0 => Self { counter, time: time_of_day() },
            _ => self,
        }
    }

    /// Nanoseconds since 1970 at `tick`. A paused clock says nothing of the day: for it, it is now.
    pub(super) fn time_of(self, tick: Tick) -> u64 {
        match tick.0 {
            At::Monotonic(counter) if self.time != 0 => {
                self.time.saturating_add(COUNTER.delta_as_nanos(self.counter, counter))
            }
            _ => time_of_day(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a date is meant: spans say when they were")]
fn time_of_day() -> u64 {
    super::span::nanoseconds(std::time::SystemTime::now())
}

// === impl Tick ===

impl Tick {
    /// The clock that it comes from.
    #[must_use]
    pub fn clock(self) -> Clock {
        match self.0 {
            At::Monotonic(_) => Clock::Monotonic,
            At::Tokio(_) => Clock::Tokio,
        }
    }

    /// How long ago it was, by the clock that it comes from.
    pub(crate) fn elapsed(self) -> Duration {
        self.clock().now().since(self)
    }

    /// How long after `earlier` this is; zero when it is not later or comes from another clock.
    #[must_use]
    #[inline]
    pub fn since(self, earlier: Tick) -> Duration {
        match (self.0, earlier.0) {
            (At::Monotonic(now), At::Monotonic(then)) => COUNTER.delta(then, now),
            (At::Tokio(now), At::Tokio(then)) => now.saturating_duration_since(then),
            _ => Duration::ZERO,
        }
    }

    /// What the processor's counter said; `None` by other clocks.
    pub(super) fn counter(self) -> Option<u64> {
        match self.0 {
            At::Monotonic(counter) => Some(counter),
            At::Tokio(_) => None,
        }
    }

    /// When the counter said `counter`; by other clocks the same as before.
    pub(super) fn at_counter(self, counter: u64) -> Self {
        match self.0 {
            At::Monotonic(_) => Self(At::Monotonic(counter)),
            At::Tokio(_) => self,
        }
    }

    /// As [`Tick::since`], in nanoseconds.
    #[inline]
    pub(super) fn nanos_since(self, earlier: Tick) -> u64 {
        match (self.0, earlier.0) {
            (At::Monotonic(now), At::Monotonic(then)) => COUNTER.delta_as_nanos(then, now),
            _ => u64::try_from(self.since(earlier).as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The time `wait` after this one, on the same clock. On the processor's counter
    /// it is exact to a millionth.
    #[must_use]
    pub fn after(self, wait: Duration) -> Tick {
        Tick(match self.0 {
            At::Monotonic(now) => At::Monotonic(now.saturating_add(counts(wait))),
            At::Tokio(now) => At::Tokio(now + wait),
        })
    }
}

/// A copy of [`COUNTER`], which says the same.
pub(super) fn counter() -> quanta::Clock {
    COUNTER.clone()
}

/// How long [`COUNTER`] takes for so many counts, in nanoseconds.
pub(super) fn nanos_of(counts: u64) -> u64 {
    COUNTER.delta_as_nanos(0, counts)
}

/// How far [`COUNTER`] gets in `time`.
pub(super) fn counts(time: Duration) -> u64 {
    const MANY: u64 = 1 << 40;
    let counts = time.as_nanos() * u128::from(MANY) / u128::from(COUNTER.delta_as_nanos(0, MANY).max(1));
    u64::try_from(counts).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_moves_with_paused_time() {
        let start = Clock::Tokio.now();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(Clock::Tokio.now().since(start), Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_tick_is_later_by_what_was_asked_for() {
        let hour = Duration::from_secs(3600);
        for clock in [Clock::Monotonic, Clock::Tokio] {
            let start = clock.now();
            let later = start.after(hour).since(start);
            assert!(later.abs_diff(hour) <= hour / 1_000_000, "{clock:?}: {later:?}");
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the operating system's clock is what this is held against"
    )]
    fn the_counter_is_as_fast_as_the_operating_systems_clock() {
        let (start, begun) = (Clock::Monotonic.now(), std::time::Instant::now());
        while begun.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (counted, passed) = (Clock::Monotonic.now().since(start), begun.elapsed());
        assert!(counted.abs_diff(passed) < passed / 2, "{counted:?} counted in {passed:?}");
    }

    #[test]
    fn the_time_of_day_follows_the_counter_from_where_it_was_read() {
        let first = Clock::Monotonic.now();
        let anchor = Anchor::NONE.or_at(first);
        let later = first.after(Duration::from_secs(2));
        let passed = anchor.time_of(later) - anchor.time_of(first);
        assert!(passed.abs_diff(2_000_000_000) < 10_000, "{passed}");
        assert_eq!(anchor.or_at(later).time_of(first), anchor.time_of(first), "read once");
        let minute = Duration::from_secs(60).as_nanos();
        assert!(u128::from(anchor.time_of(first).abs_diff(time_of_day())) < minute);
    }

    #[test]
    fn time_never_runs_backwards() {
        let later = Clock::Monotonic.now();
        let (a, b) = (Clock::Monotonic.now(), Clock::Tokio.now());
        assert_eq!(later.since(a), Duration::ZERO);
        assert_eq!(a.since(b), Duration::ZERO);
    }
}
