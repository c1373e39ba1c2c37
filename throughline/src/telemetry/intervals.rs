//! The times between events that follow each other fast, such as the chunks of a stream.
//!
//! What comes at once is counted at once: a brief interval is one more, and so much longer, in two numbers beside the time
//! of the last event. A histogram would be fetched anew into the processor's cache for each of them.

use super::clock::{self, Clock, Tick};
use super::histogram::Histogram;

/// So many brief intervals wait to be counted together.
const AT_ONCE: u64 = 256;

/// Measures from one event to the next, into histograms with the same bounds.
///
/// Brief intervals, which fall into the first bucket, are counted when a longer one or 256 of them have come, and when this
/// is dropped.
#[derive(Debug)]
pub struct Intervals {
    clock: Clock,
    last: Tick,
    /// In counts of the clock, and so is their sum.
    briefer_than: u64,
    brief: u64,
    sum: u64,
    into: Box<[Histogram]>,
}

// === impl Intervals ===

impl Intervals {
    /// Begins at `first`, the time of the first event.
    #[must_use]
    pub fn from(first: Tick, clock: Clock, into: Box<[Histogram]>) -> Self {
        let briefer_than = into.first().and_then(Histogram::first_bound).map_or(0, clock::counts);
        Self { clock, last: first, briefer_than, brief: 0, sum: 0, into }
    }

    /// An event has happened now.
    #[inline]
    pub fn mark(&mut self) {
        self.mark_at(self.clock.now());
    }

    #[inline]
    fn mark_at(&mut self, now: Tick) {
        match now.counts_since(self.last) {
            Some(counts) if counts < self.briefer_than && self.brief < AT_ONCE => {
                self.brief += 1;
                self.sum += counts;
            }
            _ => self.count(now),
        }
        self.last = now;
    }

    #[inline(never)]
    fn count(&mut self, now: Tick) {
        self.count_brief();
        for histogram in &self.into {
            histogram.observe_nanos(now.nanos_since(self.last), None);
        }
    }

    fn count_brief(&mut self) {
        for histogram in &self.into {
            histogram.observe_first(self.brief, clock::nanos_of(self.sum));
        }
        (self.brief, self.sum) = (0, 0);
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

    use super::*;

    const BOUNDS: &[f64] = &[0.01, 0.1];
    const MS: Duration = Duration::from_millis(1);

    fn counted(histogram: &Histogram) -> [u64; 3] {
        let buckets: Vec<_> = histogram.counts().iter().map(|bucket| bucket.count).collect();
        buckets.try_into().expect("two bounds make three buckets")
    }

    #[test]
    fn every_interval_lands_in_its_bucket_and_their_sum_is_the_time_from_first_to_last() {
        for clock in [Clock::Monotonic, Clock::Tokio] {
            let both = [Histogram::new(BOUNDS), Histogram::new(BOUNDS)];
            let mut now = clock.now();
            let mut intervals = Intervals::from(now, clock, both.clone().into());
            for milliseconds in [1, 9, 11, 2, 2, 200, 50] {
                now = now.after(milliseconds * MS);
                intervals.mark_at(now);
            }
            drop(intervals);
            for histogram in both {
                assert_eq!(counted(&histogram), [4, 2, 1], "{clock:?}");
                assert!((histogram.sum() - 0.275).abs() < 1e-6, "{clock:?}: {}", histogram.sum());
            }
        }
    }

    #[test]
    fn brief_ones_wait_for_a_longer_one_or_for_many() {
        let histogram = Histogram::new(BOUNDS);
        let mut now = Clock::Monotonic.now();
        let mut intervals = Intervals::from(now, Clock::Monotonic, [histogram.clone()].into());
        let mut mark = |milliseconds: u32| {
            now = now.after(milliseconds * MS);
            intervals.mark_at(now);
            counted(&histogram)
        };
        assert_eq!([mark(1), mark(1), mark(20), mark(1)], [[0; 3], [0; 3], [2, 1, 0], [2, 1, 0]]);
        (1..AT_ONCE).for_each(|_| assert_eq!(mark(1), [2, 1, 0]));
        assert_eq!(mark(1), [2 + AT_ONCE + 1, 1, 0]);
    }

    #[test]
    fn where_nobody_counts_nothing_happens() {
        let now = Clock::Monotonic.now();
        let mut intervals = Intervals::from(now, Clock::Monotonic, [].into());
        intervals.mark_at(now.after(MS));
    }
}
