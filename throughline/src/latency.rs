//! A decaying estimate of latency quantiles.
//!
//! Samples go into two histograms: one of this generation, and one of this and the generation before.
//! When a generation is over, the first takes the place of the second and starts anew, so that a sample
//! counts for half a window at least and for a whole one at most. The histograms are HDR histograms
//! (Gil Tene) with two significant digits, so an answer is at most 0.8 % too high; the rotation is the
//! one of tower's `hedge`, with one histogram less to add up.
//!
//! What was cut short (a timed out call, the loser of a race) has no latency, but a lower bound. Leaving
//! it out would pull the quantile down with every cut. It is counted where its bound lies at or above
//! the quantile: wherever its true place is, it is on the same side, so the quantile is what it would be
//! without the cut (the argument of Kaplan and Meier, 1958, for observations censored on the right).

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// The longest latency that is told from longer ones, in microseconds: a day.
const LONGEST: u64 = 24 * 60 * 60 * 1_000_000;
/// A remembered answer serves until this share of the samples is new.
const FRESH: u64 = 16;

/// Latencies of the last while, and their quantiles. Recording and asking take well under a microsecond.
pub(crate) struct Latency {
    generation: Duration,
    min_samples: u64,
    samples: Mutex<Samples>,
}

struct Samples {
    /// This generation and the one before.
    all: Histogram<u32>,
    /// This generation.
    recent: Histogram<u32>,
    since: Option<Instant>,
    answer: Option<Answer>,
}

/// A quantile that was looked up, which takes a walk over the histogram.
#[derive(Clone, Copy)]
struct Answer {
    quantile: f64,
    value: Duration,
    samples: u64,
}

// === impl Latency ===

impl Latency {
    /// Forgets a sample after `window` at the latest, and answers from `min_samples` on.
    pub(crate) fn new(window: Duration, min_samples: u64) -> Self {
        let samples = Samples { all: empty(), recent: empty(), since: None, answer: None };
        Self { generation: window / 2, min_samples: min_samples.max(1), samples: Mutex::new(samples) }
    }

    /// Counts work that took `latency`.
    pub(crate) fn record(&self, latency: Duration, now: Instant) {
        let mut samples = self.at(now);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        samples.all.saturating_record(micros);
        samples.recent.saturating_record(micros);
    }

    /// Counts work that was cut short after `at_least`, where that is no less than the quantile `q`. Says
    /// whether it was counted.
    pub(crate) fn record_cut(&self, at_least: Duration, q: f64, now: Instant) -> bool {
        let counts = self.quantile(q, now).is_some_and(|value| at_least >= value);
        if counts {
            self.record(at_least, now);
        }
        counts
    }

    /// The latency that the share `q` of the work does not exceed; `None` before there are samples enough.
    /// The newest sixteenth of the samples may be left out.
    pub(crate) fn quantile(&self, q: f64, now: Instant) -> Option<Duration> {
        let mut samples = self.at(now);
        let count = samples.all.len();
        if count < self.min_samples {
            return None;
        }
        let fresh = |answer: &Answer| answer.quantile == q && (count - answer.samples) * FRESH < count;
        if let Some(answer) = samples.answer.filter(fresh) {
            return Some(answer.value);
        }
        let value = Duration::from_micros(samples.all.value_at_quantile(q));
        samples.answer = Some(Answer { quantile: q, value, samples: count });
        Some(value)
    }

    /// The samples that count now.
    pub(crate) fn count(&self, now: Instant) -> u64 {
        self.at(now).all.len()
    }

    fn at(&self, now: Instant) -> MutexGuard<'_, Samples> {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.rotate(now, self.generation);
        samples
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency").field("min_samples", &self.min_samples).finish_non_exhaustive()
    }
}

// === impl Samples ===

impl Samples {
    fn rotate(&mut self, now: Instant, generation: Duration) {
        let since = *self.since.get_or_insert(now);
        let age = now.saturating_duration_since(since);
        if age < generation {
            return;
        }
        if age < generation * 2 {
            std::mem::swap(&mut self.all, &mut self.recent);
            self.since = Some(since + generation);
        } else {
            self.all.reset();
            self.since = Some(now);
        }
        self.recent.reset();
        self.answer = None;
    }
}

fn empty() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST, 2).expect("a microsecond to a day in two digits is a range")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn near(value: Option<Duration>, expected: Duration) -> bool {
        value.is_some_and(|value| value >= expected && value <= expected.mul_f64(1.008))
    }

    #[test]
    fn says_nothing_before_it_has_samples_enough() {
        let (latency, now) = (Latency::new(WINDOW, 3), Instant::now());
        latency.record(millis(10), now);
        latency.record(millis(20), now);
        assert_eq!(latency.quantile(0.5, now), None);
        latency.record(millis(30), now);
        assert!(near(latency.quantile(0.5, now), millis(20)));
        assert!(near(latency.quantile(0.99, now), millis(30)), "another quantile is looked up anew");
    }

    #[test]
    fn forgets_a_sample_after_half_a_window_at_least_and_a_window_at_most() {
        let (latency, start) = (Latency::new(WINDOW, 1), Instant::now());
        latency.record(millis(10), start);
        assert_eq!(latency.count(start + secs(59)), 1, "it was recorded at the start of its generation");
        assert_eq!(latency.count(start + secs(60)), 0);

        let latency = Latency::new(WINDOW, 1);
        latency.record(millis(10), start);
        latency.record(millis(20), start + secs(29));
        assert_eq!(latency.count(start + secs(59)), 2);
        assert_eq!(latency.count(start + secs(60)), 0);
    }

    #[test]
    fn starts_anew_after_a_long_silence() {
        let (latency, start) = (Latency::new(WINDOW, 1), Instant::now());
        latency.record(secs(10), start);
        latency.record(millis(10), start + secs(1_000));
        assert!(near(latency.quantile(0.99, start + secs(1_000)), millis(10)));
    }

    #[test]
    fn a_cut_below_the_quantile_does_not_count() {
        let (latency, now) = (Latency::new(WINDOW, 1), Instant::now());
        assert!(!latency.record_cut(secs(1), 0.5, now), "nothing is known yet");
        latency.record(millis(100), now);
        assert!(!latency.record_cut(millis(50), 0.5, now));
        assert!(latency.record_cut(millis(200), 0.5, now));
        assert_eq!(latency.count(now), 2);
    }

    #[test]
    fn takes_what_is_out_of_range_as_its_ends() {
        let (latency, now) = (Latency::new(WINDOW, 1), Instant::now());
        latency.record(Duration::ZERO, now);
        assert_eq!(latency.quantile(0.5, now), Some(Duration::ZERO));
        latency.record(Duration::MAX, now);
        assert!(latency.quantile(0.99, now).is_some_and(|value| value >= secs(24 * 60 * 60)));
    }

    proptest! {
        /// Against sorting what the window holds, with each second's samples of one generation.
        #[test]
        fn agrees_with_sorting(samples in prop::collection::vec((1_u64..100_000, 0_u64..4_000), 1..200), q in 0.01..0.999) {
            let (latency, start) = (Latency::new(WINDOW, 1), Instant::now());
            let mut kept: Vec<(u64, u64)> = Vec::new();
            let (mut at, mut generation) = (0, None);
            for (millis, pause) in samples {
                at += pause;
                // The model of the rotation: generations follow one another from the first sample on, and
                // from the first one after a silence of two.
                let began = *generation.get_or_insert(at);
                if at - began >= 60_000 {
                    generation = Some(at);
                    kept.clear();
                } else if at - began >= 30_000 {
                    generation = Some(began + 30_000);
                    kept.retain(|(when, _)| *when >= began);
                }
                kept.push((at, millis));
                latency.record(Duration::from_millis(millis), start + Duration::from_millis(at));
            }
            let mut sorted: Vec<u64> = kept.iter().map(|(_, millis)| *millis).collect();
            sorted.sort_unstable();
            let share = |(before, _): &(usize, &u64)| (before + 1) as f64 >= q * sorted.len() as f64;
            let expected = Duration::from_millis(*sorted.iter().enumerate().find(share).expect("q is below 1").1);
            let now = start + Duration::from_millis(at);
            prop_assert_eq!(latency.count(now), sorted.len() as u64);
            let value = latency.quantile(q, now);
            prop_assert!(near(value, expected), "{:?} for {:?}", value, expected);
        }
    }
}
