//! A ratio over the last five minutes, for the two rate gauges.
//!
//! A ratio over a process's whole life cannot show change: after a bad hour it never recovers. This
//! one forgets, in steps of thirty seconds.

use std::sync::Mutex;
use std::time::Duration;

use super::clock::Tick;

const SLOT: Duration = Duration::from_secs(30);
const SLOTS: usize = 10;

/// Counts events and the share of them that had a property, over a sliding five minutes.
#[derive(Debug)]
pub(super) struct Window(Mutex<Option<Slots>>);

#[derive(Debug)]
struct Slots {
    start: Tick,
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    epoch: u64,
    hits: u64,
    total: u64,
}

// === impl Window ===

impl Window {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Counts one event at `now`.
    pub(super) fn record(&self, now: Tick, hit: bool) {
        let mut guard = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let window = guard.get_or_insert_with(|| Slots { start: now, slots: [Slot::default(); SLOTS] });
        let epoch = window.epoch(now);
        let slot = &mut window.slots[index(epoch)];
        if slot.epoch != epoch {
            *slot = Slot { epoch, hits: 0, total: 0 };
        }
        slot.total += 1;
        slot.hits += u64::from(hit);
    }

    /// The share of hits, 0 to 1; `None` when nothing happened in the last five minutes.
    pub(super) fn ratio(&self, now: Tick) -> Option<f64> {
        let guard = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let window = guard.as_ref()?;
        let newest = window.epoch(now);
        let live = window.slots.iter().filter(|slot| newest.saturating_sub(slot.epoch) < SLOTS as u64);
        let (hits, total) = live.fold((0, 0), |(h, t), slot| (h + slot.hits, t + slot.total));
        (total > 0).then(|| hits as f64 / total as f64)
    }
}

// === impl Slots ===

impl Slots {
    /// Starts at `SLOTS`, so that the zeroed slots of a new window are out of date.
    fn epoch(&self, now: Tick) -> u64 {
        now.since(self.start).as_secs() / SLOT.as_secs() + SLOTS as u64
    }
}

fn index(epoch: u64) -> usize {
    usize::try_from(epoch % SLOTS as u64).expect("a remainder of ten fits")
}

#[cfg(test)]
mod tests {
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
    async fn a_reader_that_read_the_clock_a_moment_earlier_is_no_problem() {
        let window = Window::new();
        window.record(Clock::Tokio.now(), false);
        let earlier = Clock::Tokio.now();
        tokio::time::advance(SLOT).await;
        window.record(Clock::Tokio.now(), true);
        assert_eq!(window.ratio(earlier), Some(0.5));
    }
}
