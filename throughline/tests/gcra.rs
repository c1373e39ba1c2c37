//! The rate algorithm against a simple exact model: a bucket whose level is worked out anew from its history.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(dead_code, unreachable_pub, reason = "the algorithm's own file, of which a test needs a part")]

mod sync {
    pub(crate) use std::sync::{Mutex, atomic};
}
#[path = "../src/rate_limit/gcra.rs"]
mod gcra;

use gcra::{Gcra, Refused, Taken};
use proptest::prelude::*;

/// Nanoseconds a unit takes.
const UNIT: u64 = 1_000;

/// What was taken, and what of it turned out to be used.
#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    used: u64,
}

/// When a bucket that has known all of this from the start will be empty.
fn empty_at(history: &[Entry]) -> u64 {
    history.iter().fold(0, |empty: u64, entry| empty.max(entry.at) + entry.used * UNIT)
}

/// Whether every span of time saw at most its share of the rate, and the burst, and what was owed in it.
fn check_windows(history: &[Entry], burst: u64, owed: u64) -> Result<(), TestCaseError> {
    for first in history {
        for last in history.iter().filter(|last| last.at >= first.at) {
            let within = |entry: &&Entry| (first.at..=last.at).contains(&entry.at);
            let used: u64 = history.iter().filter(within).map(|entry| entry.used).sum();
            let most = (last.at - first.at) + (burst + owed) * UNIT;
            prop_assert!(used * UNIT <= most, "{used} units from {} to {}", first.at, last.at);
        }
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Act {
    /// Time passes.
    Pass(u64),
    Take(u64),
    /// One of the open reservations turns out to have used so many units.
    Settle(usize, u64),
}

fn acts(most_units: u64, most_used: u64) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..8 * UNIT).prop_map(Act::Pass),
        (0..=most_units).prop_map(Act::Take),
        (0..8_usize, 0..=most_used).prop_map(|(which, used)| Act::Settle(which, used)),
    ];
    prop::collection::vec(act, 1..120)
}

/// Plays acts on the real thing and keeps the history; with what was used beyond what was reserved.
fn play(burst: u64, acts: &[Act], settle_all: bool) -> Result<(Vec<Entry>, u64), TestCaseError> {
    let gcra = Gcra::new(UNIT, burst);
    let (mut now, mut owed) = (0, 0);
    let mut history: Vec<Entry> = Vec::new();
    let mut open: Vec<(usize, Taken, u64)> = Vec::new();
    for act in acts {
        match *act {
            Act::Pass(time) => now += time,
            Act::Take(units) => match gcra.take(now, units) {
                Ok(taken) => {
                    open.push((history.len(), taken, units));
                    history.push(Entry { at: now, used: units });
                    let ahead = empty_at(&history).saturating_sub(now);
                    prop_assert!(ahead <= burst * UNIT, "the exact bucket would have refused");
                }
                Err(refused) => prop_assert_eq!(refused == Refused::Never, units > burst),
            },
            Act::Settle(which, used) if !open.is_empty() => {
                let (entry, taken, units) = open.swap_remove(which % open.len());
                let used = if settle_all { used } else { used.min(units) };
                gcra.settle(taken, now, used);
                owed += used.saturating_sub(units);
                history[entry].used = used;
            }
            Act::Settle(..) => {}
        }
        let left = (burst * UNIT).saturating_sub(empty_at(&history).saturating_sub(now)) / UNIT;
        prop_assert!(gcra.available(now) <= left, "more is left than in the exact bucket");
    }
    Ok((history, owed))
}

proptest! {
    #[test]
    fn never_admits_more_than_rate_times_time_and_burst_in_any_window(
        burst in 1..10_u64,
        acts in acts(6, 0),
    ) {
        let takes: Vec<_> = acts.into_iter().filter(|act| !matches!(act, Act::Settle(..))).collect();
        let (history, _) = play(burst, &takes, false)?;
        check_windows(&history, burst, 0)?;
    }

    #[test]
    fn admits_exactly_what_the_exact_model_admits(
        burst in 1..10_u64,
        steps in prop::collection::vec((0..4 * UNIT, 0..6_u64), 1..100),
    ) {
        let gcra = Gcra::new(UNIT, burst);
        let (mut now, mut history) = (0, Vec::new());
        for (time, units) in steps {
            now += time;
            let empty = empty_at(&history).max(now) + units * UNIT;
            let wait = empty.saturating_sub(now + burst * UNIT);
            match gcra.take(now, units) {
                Ok(_) => {
                    prop_assert_eq!(wait, 0);
                    history.push(Entry { at: now, used: units });
                }
                Err(Refused::For(time)) => prop_assert_eq!(time, wait, "the wait is exact"),
                Err(Refused::Never) => prop_assert!(units > burst),
            }
        }
    }

    #[test]
    fn what_is_given_back_never_makes_more_room_than_real_use_allows(
        burst in 1..12_u64,
        acts in acts(6, 6),
    ) {
        let (history, _) = play(burst, &acts, false)?;
        check_windows(&history, burst, 0)?;
    }

    #[test]
    fn what_is_used_beyond_the_reservation_is_owed(burst in 1..12_u64, acts in acts(6, 12)) {
        let (history, owed) = play(burst, &acts, true)?;
        check_windows(&history, burst, owed)?;
    }

    #[test]
    fn a_busy_bucket_settles_to_the_unit(
        burst in 4..40_u64,
        uses in prop::collection::vec((1..4_u64, 0..4_u64), 1..12),
    ) {
        // Nobody lets it run empty in between, so that nothing has leaked that could not be given back.
        let gcra = Gcra::new(UNIT, burst * 4);
        gcra.take(0, burst * 2).unwrap();
        let mut history = vec![Entry { at: 0, used: burst * 2 }];
        for (units, used) in uses {
            let Ok(taken) = gcra.take(1, units) else { break };
            gcra.settle(taken, 1, used);
            history.push(Entry { at: 1, used });
        }
        let exact = (burst * 4 * UNIT).saturating_sub(empty_at(&history) - 1) / UNIT;
        prop_assert_eq!(gcra.available(1), exact);
    }

    #[test]
    fn time_that_goes_back_a_little_is_harmless(
        burst in 1..10_u64,
        steps in prop::collection::vec((0..4 * UNIT, 0..3 * UNIT, 1..4_u64), 1..100),
    ) {
        let gcra = Gcra::new(UNIT, burst);
        let (mut now, mut history) = (0_u64, Vec::new());
        for (time, back, units) in steps {
            now += time;
            let seen = now.saturating_sub(back);
            if gcra.take(seen, units).is_ok() {
                history.push(Entry { at: seen, used: units });
            }
        }
        check_windows(&history, burst, 0)?;
    }
}

#[test]
fn a_burst_passes_at_once_and_then_one_unit_in_each_interval() {
    let gcra = Gcra::new(UNIT, 3);
    for _ in 0..3 {
        gcra.take(0, 1).unwrap();
    }
    assert_eq!(gcra.take(0, 1), Err(Refused::For(UNIT)));
    assert_eq!(gcra.take(UNIT - 1, 1), Err(Refused::For(1)));
    assert!(gcra.take(UNIT, 1).is_ok());
    assert_eq!(gcra.take(UNIT, 1), Err(Refused::For(UNIT)));
}

#[test]
fn more_than_the_burst_never_passes_and_takes_nothing() {
    let gcra = Gcra::new(UNIT, 3);
    assert_eq!(gcra.take(1 << 40, 4), Err(Refused::Never));
    assert_eq!(gcra.take(0, u64::MAX), Err(Refused::Never));
    assert_eq!(gcra.available(0), 3);
}

#[test]
fn a_refused_one_takes_nothing() {
    let gcra = Gcra::new(UNIT, 3);
    gcra.take(0, 2).unwrap();
    assert_eq!(gcra.take(0, 2), Err(Refused::For(UNIT)));
    assert!(gcra.take(0, 1).is_ok());
}

#[test]
fn nothing_passes_while_something_is_owed() {
    let gcra = Gcra::new(UNIT, 3);
    let taken = gcra.take(0, 0).unwrap();
    assert!(!gcra.settle(taken, 0, 10));
    assert_eq!(gcra.take(0, 0), Err(Refused::For(7 * UNIT)));
    assert!(gcra.take(7 * UNIT, 0).is_ok());
}

#[test]
fn what_has_leaked_already_is_not_given_back() {
    let gcra = Gcra::new(UNIT, 10);
    let taken = gcra.take(0, 10).unwrap();
    gcra.take(9 * UNIT, 9).unwrap();
    assert!(gcra.settle(taken, 9 * UNIT, 0), "of the ten units one was still there");
    assert_eq!(gcra.available(9 * UNIT), 1, "nine were taken just now");
}

#[test]
fn what_others_gave_back_in_the_meantime_is_not_given_back_twice() {
    let gcra = Gcra::new(UNIT, 20);
    let (first, second) = (gcra.take(0, 10).unwrap(), gcra.take(0, 10).unwrap());
    assert!(gcra.settle(first, 0, 0));
    gcra.take(11 * UNIT, 4).unwrap();
    gcra.settle(second, 12 * UNIT, 0);
    assert_eq!(gcra.available(12 * UNIT), 17, "three of the four are still in it");
}

#[test]
fn numbers_at_the_end_of_the_range_do_not_wrap() {
    let gcra = Gcra::new(u64::MAX / 2, 2);
    let taken = gcra.take(u64::MAX - 5, 1);
    assert!(taken.is_ok());
    gcra.settle(taken.unwrap(), u64::MAX - 5, u64::MAX);
    assert_eq!(gcra.available(0), 0);
}
