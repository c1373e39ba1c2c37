//! Whether audits show more wrong answers than the threshold was learned for.
//!
//! A share of what was compared says little while that is little, so what counts is the lower confidence bound of it, by the same
//! Clopper and Pearson as [`learn`](super::learn) takes the upper one of: above the stated share, more is wrong than was promised,
//! and not by chance. Whoever looks after every comparison finds that by chance some day; so there are a few looks, each at twice
//! as many comparisons as the one before, which share what may go wrong (Bonferroni). After the last one it begins anew, so that
//! what has changed since shows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use throughline::telemetry::Tick;

use super::compare::Verdict;
use super::learn::lower_bound;

/// The first look is at so many comparisons, and the last one at so many.
const FIRST: u64 = 8;
const LAST: u64 = 1024;
const LOOKS: u32 = (LAST / FIRST).ilog2() + 1;
/// Of all looks together.
const CONFIDENCE: f64 = 0.95;
/// What was said is not said again for so long.
const QUIET: Duration = Duration::from_secs(3600);

/// What audits have shown so far.
pub(super) struct Tally {
    max_error: Option<f64>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    compared: u64,
    different: u64,
    said: Option<Tick>,
}

/// More than `max_error` of the answers are wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Excess {
    pub(super) compared: u64,
    pub(super) different: u64,
    /// The lower bound of the share that is different.
    pub(super) at_least: f64,
    pub(super) max_error: f64,
}

// === impl Tally ===

impl Tally {
    /// Without a stated share there is nothing to exceed.
    pub(super) fn new(max_error: Option<f64>) -> Self {
        Self { max_error, seen: Mutex::default() }
    }

    /// Takes in a comparison, and says when that makes them too many.
    pub(super) fn note(&self, verdict: Verdict, now: Tick) -> Option<Excess> {
        let max_error = self.max_error?;
        let is_different = match verdict {
            Verdict::Same | Verdict::Alike => false,
            Verdict::Different => true,
            // Nothing was compared.
            Verdict::Unknown => return None,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.compared += 1;
        seen.different += u64::from(is_different);
        let (compared, different) = (seen.compared, seen.different);
        if compared < FIRST || !compared.is_power_of_two() {
            return None;
        }
        let each = 1.0 - (1.0 - CONFIDENCE) / f64::from(LOOKS);
        let at_least = lower_bound(different, compared, each);
        let is_shown = at_least > max_error;
        if is_shown || compared >= LAST {
            (seen.compared, seen.different) = (0, 0);
        }
        if !is_shown || seen.said.is_some_and(|said| now.since(said) < QUIET) {
            return None;
        }
        seen.said = Some(now);
        Some(Excess { compared, different, at_least, max_error })
    }
}

#[cfg(test)]
mod tests {
    use throughline::Clock;

    use super::*;

    fn now() -> Tick {
        Clock::Monotonic.now()
    }

    /// What is said of so many comparisons, of which one in `every` is different.
    fn said(tally: &Tally, count: u64, every: u64, now: Tick) -> Vec<Excess> {
        let verdict = |n: u64| if n % every == every - 1 { Verdict::Different } else { Verdict::Same };
        (0..count).filter_map(|n| tally.note(verdict(n), now)).collect()
    }

    #[test]
    fn answers_that_all_differ_are_told_of_soon_and_once_an_hour() {
        let tally = Tally::new(Some(0.05));
        let begun = now();
        let first = said(&tally, 8, 1, begun);
        assert_eq!(first.len(), 1);
        assert_eq!((first[0].compared, first[0].different, first[0].max_error), (8, 8, 0.05));
        // The eighth root of 0.05 / 8.
        assert!((first[0].at_least - 0.530_3).abs() < 1e-3, "{first:?}");
        assert_eq!(said(&tally, 2000, 1, begun.after(QUIET / 2)), []);
        assert_eq!(said(&tally, 8, 1, begun.after(QUIET * 2)).len(), 1);
    }

    #[test]
    fn as_many_as_were_promised_are_not_told_of() {
        let tally = Tally::new(Some(0.05));
        assert_eq!(said(&tally, 10_000, 20, now()), []);
        assert_eq!(said(&Tally::new(None), 10_000, 1, now()), [], "nothing was promised");
    }

    #[test]
    fn twice_as_many_as_were_promised_are_told_of_in_time() {
        let told = said(&Tally::new(Some(0.05)), 1024, 10, now());
        assert_eq!(told.len(), 1);
        assert!((64..=1024).contains(&told[0].compared), "{told:?}");
    }

    #[test]
    fn what_could_not_be_compared_says_nothing() {
        let tally = Tally::new(Some(0.05));
        for _ in 0..100 {
            assert_eq!(tally.note(Verdict::Unknown, now()), None);
        }
        assert_eq!(said(&tally, 7, 1, now()), [], "there are seven");
    }

    #[test]
    fn a_threshold_that_holds_is_rarely_spoken_of() {
        let mut random = fastrand::Rng::with_seed(11);
        let sets = 400;
        let mut told = 0;
        for _ in 0..sets {
            let tally = Tally::new(Some(0.05));
            let verdict = |random: &mut fastrand::Rng| {
                if random.f64() < 0.05 { Verdict::Different } else { Verdict::Same }
            };
            told += u32::from((0..LAST).any(|_| tally.note(verdict(&mut random), now()).is_some()));
        }
        // 5 % of 400 are 20; three standard deviations are 13.
        assert!(told <= 33, "{told} of {sets}");
    }
}
