//! The times between events that follow each other fast, such as the chunks of a stream.
//!
//! What comes at once is counted at once: a brief interval is one more, and so much longer, in two numbers beside the time
//! of the last event. A histogram would be fetched anew into the processor's cache for each of them.

use super::clock::{self, Tick};
use super::histogram::Histogram;

/// So many brief intervals are counted together, at most.
const TOGETHER: u32 = 1_024;

/// Measures from one event to the next, into histograms with the same bounds.
///
/// Brief intervals, which fall into the first bucket, are counted when a longer one or 1,024 of them have come, and when this
/// is dropped.
#[derive(Debug)]
pub struct Intervals {
    /// Beside what is read and written for every event, and not where all share it.
    counter: quanta::Clock,
    /// What the processor's counter said at the last event, if it is the clock.
    before: u64,
    /// In counts of it, and so is their sum. By other clocks none is brief.
    briefer_than: u64,
    sum: u64,
    brief: u32,
    /// The end of the last interval that was not brief.
    last: Tick,
    into: Box<[Histogram]>,
}

// === impl Intervals ===

impl Intervals {
    /// Begins at `first`, the time of the first event.
    #[must_use]
    pub fn from(first: Tick, into: Box<[Histogram]>) -> Self {
        let bound = into.first().and_then(Histogram::first_bound);
        debug_assert!(
            into.iter().all(|histogram| histogram.first_bound() == bound),
            "they have the same bounds"
        );
        let briefer_than = first.counter().and(bound).map_or(0, clock::counts);
        let before = first.counter().unwrap_or_default();
        Self { counter: clock::counter(), before, briefer_than, sum: 0, brief: 0, last: first, into }
    }

    /// An event has happened now.
    #[inline]
    pub fn mark(&mut self) {
        if !self.is_brief(self.counter.raw()) {
            self.count(self.last.clock().now());
        }
    }

    /// Takes down a brief interval.
    #[inline]
    fn is_brief(&mut self, counter: u64) -> bool {
        // After a step back, between two processors, it is none.
        let counts = counter.wrapping_sub(self.before);
        let is_brief = counts < self.briefer_than && self.brief < TOGETHER;
        if is_brief {
            self.before = counter;
            self.brief += 1;
            self.sum += counts;
        }
        is_brief
    }

    #[cold]
    #[inline(never)]
    fn count(&mut self, now: Tick) {
        self.count_brief();
        let nanos = now.nanos_since(self.last.at_counter(self.before));
        for histogram in &self.into {
            histogram.observe_nanos(nanos, None);
        }
        self.last = now;
        self.before = now.counter().unwrap_or_default();
    }

    fn count_brief(&mut self) {
        if self.brief > 0 {
            let nanos = clock::nanos_of(self.sum);
            for histogram in &self.into {
                histogram.observe_first(u64::from(self.brief), nanos);
            }
            (self.brief, self.sum) = (0, 0);
        }
    }
}

impl Drop for Intervals {
    fn drop(&mut self) {
        self.count_brief();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::clock::Clock;
    use super::*;

    const BOUNDS: &[f64] = &[0.01, 0.1];
    const MS: Duration = Duration::from_millis(1);

    fn mark_at(intervals: &mut Intervals, now: Tick) {
        if !now.counter().is_some_and(|counter| intervals.is_brief(counter)) {
            intervals.count(now);
        }
    }

    fn counted(histogram: &Histogram) -> [u64; 3] {
        let buckets: Vec<_> = histogram.counts().iter().map(|bucket| bucket.count).collect();
        buckets.try_into().expect("two bounds make three buckets")
    }

    #[test]
    fn every_interval_lands_in_its_bucket_and_their_sum_is_the_time_from_first_to_last() {
        for clock in [Clock::Monotonic, Clock::Tokio] {
            let both = [Histogram::new(BOUNDS), Histogram::new(BOUNDS)];
            let mut now = clock.now();
            let mut intervals = Intervals::from(now, both.clone().into());
            for milliseconds in [1, 9, 11, 2, 2, 200, 50] {
                now = now.after(milliseconds * MS);
                mark_at(&mut intervals, now);
            }
            drop(intervals);
            for histogram in both {
                assert_eq!(counted(&histogram), [4, 2, 1], "{clock:?}");
                assert!((histogram.sum() - 0.275).abs() < 1e-6, "{clock:?}: {}", histogram.sum());
            }
        }
    }

    #[test]
    fn brief_ones_wait_for_a_longer_one_for_many_or_for_the_end() {
        let histogram = Histogram::new(BOUNDS);
        let mut now = Clock::Monotonic.now();
        let mut intervals = Intervals::from(now, [histogram.clone()].into());
        let mut mark = |milliseconds: u32| {
            now = now.after(milliseconds * MS);
            mark_at(&mut intervals, now);
            counted(&histogram)
        };
        assert_eq!([mark(1), mark(1), mark(20), mark(1)], [[0; 3], [0; 3], [2, 1, 0], [2, 1, 0]]);
        (1..TOGETHER).for_each(|_| assert_eq!(mark(1), [2, 1, 0]));
        let most = u64::from(TOGETHER) + 3;
        assert_eq!([mark(1), mark(1)], [[most, 1, 0], [most, 1, 0]]);
        drop(intervals);
        assert_eq!(counted(&histogram), [most + 1, 1, 0]);
    }

    #[test]
    fn an_event_that_seems_to_come_before_the_last_one_came_at_once() {
        let histogram = Histogram::new(BOUNDS);
        let now = Clock::Monotonic.now().after(MS);
        let mut intervals = Intervals::from(now.after(MS), [histogram.clone()].into());
        mark_at(&mut intervals, now);
        assert_eq!((counted(&histogram), histogram.sum()), ([1, 0, 0], 0.0));
    }

    #[test]
    fn where_nobody_counts_nothing_happens() {
        let now = Clock::Monotonic.now();
        let mut intervals = Intervals::from(now, [].into());
        mark_at(&mut intervals, now.after(MS));
    }
}
