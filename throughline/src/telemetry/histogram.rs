//! A distribution that many threads record at once, without a lock.
//!
//! An observation is two additions in the thread's own stripe: to the count of its bucket, and to the sum. The
//! number of all observations is not kept; a page adds up the buckets, so that the two agree in every scrape.
//!
//! By hand, because the histograms with exemplars that are to be had take a lock per observation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::TraceId;

use super::stripes::Stripes;

/// A distribution.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Cells>);

#[derive(Debug)]
struct Cells {
    bounds: &'static [f64],
    /// The same, if they are seconds, in nanoseconds. Histograms with the same bounds share them, so that they stay in the
    /// processor's cache.
    nanos: Arc<[u64]>,
    /// The sums, then the counts: one per bound, and one for what is beyond the last.
    figures: Stripes,
    /// One per count. Only runs that are sampled take these locks.
    exemplars: Box<[Mutex<Option<Exemplar>>]>,
}

/// Where the sum stands among the figures.
const SUM: usize = 0;
/// Where the sum of whole nanoseconds stands.
const NANOS: usize = 1;
/// Where the first count stands.
const FIRST: usize = 2;

/// The trace of an observation, and its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub(super) trace: TraceId,
    pub(super) value: f64,
}

/// What a page shows of one bucket.
pub(super) struct Count {
    /// Infinite for the last one.
    pub(super) bound: f64,
    /// In this bucket alone.
    pub(super) count: u64,
    pub(super) exemplar: Option<Exemplar>,
}

// === impl Histogram ===

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        debug_assert!(bounds.is_sorted(), "the bounds of a histogram ascend");
        let exemplars: Box<[_]> = (0..=bounds.len()).map(|_| Mutex::default()).collect();
        let (nanos, figures) = (in_nanoseconds(bounds), Stripes::new(FIRST + exemplars.len()));
        Self(Arc::new(Cells { bounds, nanos, figures, exemplars }))
    }

    /// Records `value`, with the trace it belongs to when that trace is sampled. A negative or non-finite
    /// one is ignored: the sum could not take it back.
    #[inline]
    pub fn observe(&self, value: f64, trace: Option<TraceId>) {
        if countable(value) {
            self.put(value, trace);
        }
    }

    #[inline]
    fn put(&self, value: f64, trace: Option<TraceId>) {
        let cells = &*self.0;
        let at = first(cells.bounds, |bound| value <= *bound);
        // A scrape between the two additions sees the one without the other, as any two metrics.
        let own = cells.figures.own();
        own.add(FIRST + at, 1);
        own.add_fraction(SUM, value);
        cells.show(at, value, trace);
    }

    /// Records how long something took, in seconds.
    #[inline]
    pub fn observe_time(&self, time: Duration, trace: Option<TraceId>) {
        self.observe_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), trace);
    }

    /// Records so many nanoseconds, in seconds: whole numbers are added up faster, and without rounding.
    #[inline]
    pub(super) fn observe_nanos(&self, nanos: u64, trace: Option<TraceId>) {
        let cells = &*self.0;
        let at = first(&cells.nanos, |bound| nanos <= *bound);
        let own = cells.figures.own();
        own.add(FIRST + at, 1);
        own.add(NANOS, nanos);
        if trace.is_some() {
            cells.show(at, seconds(nanos), trace);
        }
    }

    /// Records so many times at once, in seconds, which took `nanos` nanoseconds together and each belong into the first bucket.
    pub(super) fn observe_first(&self, times: u64, nanos: u64) {
        let own = self.0.figures.own();
        own.add(FIRST, times);
        own.add(NANOS, nanos);
    }

    /// The bound of the first bucket, if there is one.
    pub(super) fn first_bound(&self) -> Option<Duration> {
        self.0.nanos.first().map(|nanos| Duration::from_nanos(*nanos))
    }

    pub(super) fn sum(&self) -> f64 {
        self.0.figures.sum_of_fractions(SUM) + seconds(self.0.figures.sum(NANOS))
    }

    /// The buckets in ascending order.
    pub(super) fn counts(&self) -> Vec<Count> {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.0.exemplars.iter().zip(bounds).enumerate();
        let count = |(at, (exemplar, bound)): (usize, (&Mutex<_>, f64))| Count {
            bound,
            count: self.0.figures.sum(FIRST + at),
            exemplar: *lock(exemplar),
        };
        counts.map(count).collect()
    }
}

// === impl Cells ===

impl Cells {
    /// Keeps `trace` as the exemplar of a bucket.
    fn show(&self, at: usize, value: f64, trace: Option<TraceId>) {
        if let Some(trace) = trace {
            *lock(&self.exemplars[at]) = Some(Exemplar { trace, value });
        }
    }
}

/// The bucket whose bound is the first that `fits`. A walk and no bisection: what is so fast that the search matters lands
/// in the first buckets, and the processor foresees the end of a walk but must wait for every step of a bisection.
#[inline]
fn first<B>(bounds: &[B], fits: impl FnMut(&B) -> bool) -> usize {
    bounds.iter().position(fits).unwrap_or(bounds.len())
}

/// `bounds` in nanoseconds, the same ones for all who ask.
fn in_nanoseconds(bounds: &'static [f64]) -> Arc<[u64]> {
    type Converted = (&'static [f64], Arc<[u64]>);
    static KNOWN: Mutex<Vec<Converted>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, nanos)) = known.iter().find(|(of, _)| std::ptr::eq(*of, bounds)) {
        return Arc::clone(nanos);
    }
    let nanos: Arc<[u64]> = bounds.iter().map(|bound| nanoseconds(*bound)).collect();
    known.push((bounds, Arc::clone(&nanos)));
    nanos
}

#[expect(clippy::cast_possible_truncation, reason = "what is beyond is rounded to the end of the numbers")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

fn seconds(nanos: u64) -> f64 {
    // Exact up to a hundred days, and the nearest fraction from there.
    nanos as f64 / 1e9
}

/// Whether a metric that only grows can take `value`.
#[inline]
pub(super) fn countable(value: f64) -> bool {
    (0.0..f64::INFINITY).contains(&value)
}

fn lock(exemplar: &Mutex<Option<Exemplar>>) -> MutexGuard<'_, Option<Exemplar>> {
    exemplar.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Shape, catalogue};

    fn counts(histogram: &Histogram) -> Vec<u64> {
        histogram.counts().iter().map(|bucket| bucket.count).collect()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_exceeds_the_last_to_infinity() {
        let histogram = Histogram::new(&[0.5, 1.0, 2.0]);
        for value in [0.0, 0.5, 0.500_001, 1.0, 2.0, 2.1, 1e9] {
            histogram.observe(value, None);
        }
        assert_eq!(counts(&histogram), [2, 2, 1, 2]);
        assert_eq!(histogram.counts()[3].bound, f64::INFINITY);
    }

    #[test]
    fn a_time_lands_where_its_seconds_do_and_adds_up_exactly() {
        for bounds in [super::super::family::WORK_SECONDS, super::super::family::OWN_SECONDS] {
            let (times, values) = (Histogram::new(bounds), Histogram::new(bounds));
            let edges = bounds.iter().map(|bound| Duration::from_secs_f64(*bound));
            let around = edges.flat_map(|edge| [-1, 0, 1].map(|by| (edge, by)));
            let near = around.map(|(edge, by)| match by {
                -1 => edge - Duration::from_nanos(1),
                0 => edge,
                _ => edge + Duration::from_nanos(1),
            });
            for time in near {
                times.observe_time(time, None);
                values.observe(time.as_secs_f64(), None);
            }
            assert_eq!(counts(&times), counts(&values));
            assert!((times.sum() - values.sum()).abs() < 1e-9);
        }
        let tenths = Histogram::new(&[1.0]);
        (0..10).for_each(|_| tenths.observe_time(Duration::from_millis(100), Some(TraceId::from(1))));
        assert_eq!(tenths.sum(), 1.0);
        assert_eq!(tenths.counts()[0].exemplar.map(|exemplar| exemplar.value), Some(0.1));
    }

    #[test]
    fn ignores_what_a_sum_cannot_take_back() {
        let histogram = Histogram::new(&[1.0]);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE] {
            histogram.observe(value, Some(TraceId::from(1)));
        }
        assert_eq!(counts(&histogram), [0, 0]);
        assert_eq!(histogram.sum(), 0.0);
        assert!(histogram.counts().iter().all(|bucket| bucket.exemplar.is_none()));
    }

    #[test]
    fn keeps_the_last_sampled_trace_of_every_bucket() {
        let histogram = Histogram::new(&[1.0]);
        for (value, trace) in [(0.5, Some(1)), (0.75, Some(2)), (0.25, None), (3.0, Some(3))] {
            histogram.observe(value, trace.map(TraceId::from));
        }
        let kept: Vec<_> =
            histogram.counts().iter().map(|b| b.exemplar.map(|e| (e.trace, e.value))).collect();
        assert_eq!(kept, [Some((TraceId::from(2), 0.75)), Some((TraceId::from(3), 3.0))]);
    }

    #[test]
    fn loses_nothing_when_many_threads_observe() {
        const EACH: u64 = 20_000;
        let histogram = Histogram::new(&[1.0, 2.0, 3.0]);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let histogram = &histogram;
                scope.spawn(move || {
                    let trace = (thread == 0).then(|| TraceId::from(1));
                    (0..EACH).for_each(|_| histogram.observe(f64::from(thread) + 0.5, trace));
                });
            }
        });
        assert_eq!(counts(&histogram), [EACH; 4]);
        assert_eq!(histogram.sum(), 8.0 * EACH as f64, "halves add up without rounding");
        assert!(histogram.counts()[0].exemplar.is_some());
    }

    #[test]
    fn the_bounds_of_every_family_ascend() {
        for family in catalogue() {
            if let Shape::Histogram(bounds) = family.shape() {
                assert!(bounds.is_sorted_by(|a, b| a < b), "{family:?}");
            }
        }
    }
}
