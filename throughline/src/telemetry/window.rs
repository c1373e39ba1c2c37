//! A ratio over the last five minutes, for the two rate gauges.
//!
//! A ratio over a process's whole life cannot show change: after a bad hour it never recovers. This
//! one forgets, in steps of thirty seconds.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::clock::Tick;
use super::stripes::Stripes;

const SLOT_NANOS: u64 = 30_000_000_000;
const SLOTS: usize = 10;

/// One event of a slot; one that had the property is counted in the upper half as well.
const EVENT: u64 = 1;
const HIT: u64 = 1 << 32;

/// Counts events and the share of them that had a property, over a sliding five minutes.
#[derive(Debug)]
pub(super) struct Window {
    start: OnceLock<Tick>,
    /// Two numbers a slot: which thirty seconds it is of, and what happened in them.
    slots: Stripes,
    /// Held by threads that share their numbers.
    shared: Mutex<()>,
}

// === impl Window ===

impl Window {
    pub(super) fn new() -> Self {
        Self { start: OnceLock::new(), slots: Stripes::new(2 * SLOTS), shared: Mutex::new(()) }
    }

    /// Counts one event at `now`.
    pub(super) fn record(&self, now: Tick, hit: bool) {
        let epoch = epoch(*self.start.get_or_init(|| now), now);
        let (own, at) = (self.slots.own(), 2 * index(epoch));
        let ((of, shared), (counts, _)) = (own.number(at), own.number(at + 1));
        let _alone = shared.then(|| self.shared.lock().unwrap_or_else(PoisonError::into_inner));
        if of.load(Ordering::Relaxed) != epoch {
            counts.store(0, Ordering::Relaxed);
            // Who sees the new thirty seconds sees that nothing of the old ones is counted in them.
            of.store(epoch, Ordering::Release);
        }
        let more = EVENT + if hit { HIT } else { 0 };
        counts.store(counts.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// The share of hits, 0 to 1; `None` when nothing happened in the last five minutes.
    pub(super) fn ratio(&self, now: Tick) -> Option<f64> {
        let newest = epoch(*self.start.get()?, now);
        let (mut hits, mut total) = (0, 0);
        for slot in 0..SLOTS {
            for (of, counts) in self.slots.all(2 * slot).zip(self.slots.all(2 * slot + 1)) {
                if newest.saturating_sub(of.load(Ordering::Acquire)) < SLOTS as u64 {
                    let counts = counts.load(Ordering::Relaxed);
                    (hits, total) = (hits + counts / HIT, total + counts % HIT);
                }
            }
        }
        (total > 0).then(|| hits as f64 / total as f64)
    }
}

/// Starts at `SLOTS`, so that slots in which nothing has happened yet are out of date.
fn epoch(start: Tick, now: Tick) -> u64 {
    now.nanos_since(start) / SLOT_NANOS + SLOTS as u64
}

fn index(epoch: u64) -> usize {
    usize::try_from(epoch % SLOTS as u64).expect("a remainder of ten fits")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Clock;

    #[tokio::test(start_paused = true)]
    async fn forgets_what_is_older_than_five_minutes() {
        let window = Window::new();
        let clock = Clock::Tokio;
        assert_eq!(window.ratio(clock.now()), None, "nothing happened yet");

        window.record(clock.now(), true);
        window.record(clock.now(), false);
        assert_eq!(window.ratio(clock.now()), Some(0.5));

        tokio::time::advance(Duration::from_secs(240)).await;
        window.record(clock.now(), false);
        window.record(clock.now(), false);
        assert_eq!(window.ratio(clock.now()), Some(0.25));

        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(window.ratio(clock.now()), Some(0.0), "the first two have left the window");

        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(window.ratio(clock.now()), None, "silence is not a rate of zero");
    }

    #[tokio::test(start_paused = true)]
    async fn what_many_threads_record_is_counted_once() {
        const EACH: usize = 5_000;
        let (window, now) = (Window::new(), Clock::Tokio.now());
        std::thread::scope(|scope| {
            for thread in 0..24 {
                let window = &window;
                scope.spawn(move || (0..EACH).for_each(|_| window.record(now, thread % 4 == 0)));
            }
        });
        assert_eq!(window.ratio(now), Some(0.25));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_read_the_clock_a_moment_earlier_is_no_problem() {
        let window = Window::new();
        window.record(Clock::Tokio.now(), false);
        let earlier = Clock::Tokio.now();
        tokio::time::advance(Duration::from_nanos(SLOT_NANOS)).await;
        window.record(Clock::Tokio.now(), true);
        assert_eq!(window.ratio(earlier), Some(0.5));
    }
}
