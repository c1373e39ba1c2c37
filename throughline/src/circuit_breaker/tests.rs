//! The rules of the state machine, one test each, after those that Resilience4j and failsafe-go document.

mod model;

use std::time::Duration;

use super::machine::{CircuitCall, CircuitState, Ended, Machine, Refusal, STATES, Settled, Snapshot, Ticket};
use super::rules::Undecided;
use super::window::{Record, Tally, Window};
use super::{Circuit, CircuitBreakerConfig};
use crate::telemetry::Label as _;

const OK: Ended = Ended::Counts { failed: false, slow: false };
const FAILED: Ended = Ended::Counts { failed: true, slow: false };
const SLOW: Ended = Ended::Counts { failed: false, slow: true };
const SLOW_FAILED: Ended = Ended::Counts { failed: true, slow: true };

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A window of ten calls, five of them needed, half of them too many; three trials; open for 10 s, no jitter.
fn config() -> CircuitBreakerConfig {
    let config = CircuitBreakerConfig::new("target").window(Window::count(10)).unwrap();
    let config = config.min_calls(5).unwrap().trials(3).unwrap();
    config.open_for(secs(10)).unwrap().jitter(0.0).unwrap()
}

fn consecutive(calls: u32) -> CircuitBreakerConfig {
    config().window(Window::consecutive(calls)).unwrap()
}

struct Rig {
    machine: Machine,
    now: Duration,
}

impl Rig {
    #[expect(clippy::needless_pass_by_value, reason = "a configuration is made where it is used")]
    fn new(config: CircuitBreakerConfig) -> Self {
        Self { machine: Machine::new(config.rules, config.seed.unwrap_or(1)), now: Duration::ZERO }
    }

    fn open(config: CircuitBreakerConfig) -> Self {
        let mut rig = Self::new(config);
        rig.set(CircuitState::Open);
        rig
    }

    fn half_open(config: CircuitBreakerConfig) -> Self {
        let mut rig = Self::new(config);
        rig.set(CircuitState::HalfOpen);
        rig
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn set(&mut self, state: CircuitState) {
        self.machine.set(self.now, state);
    }

    fn admit(&mut self) -> Result<Ticket, Refusal> {
        self.machine.admit(self.now)
    }

    fn finish(&mut self, ticket: Ticket, ended: Ended) -> Settled {
        self.machine.finish(self.now, ticket, ended)
    }

    /// One call, begun and ended now.
    fn call(&mut self, ended: Ended) -> Settled {
        let ticket = self.admit().unwrap();
        self.finish(ticket, ended)
    }

    fn calls(&mut self, calls: &[Ended]) {
        for ended in calls {
            self.call(*ended);
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        self.machine.snapshot(self.now)
    }

    fn state(&mut self) -> CircuitState {
        self.snapshot().state
    }

    fn total(&mut self, call: CircuitCall) -> u64 {
        self.snapshot().totals.calls[call.index()]
    }

    /// How long it stays open when it opens now.
    fn pause_of_a_trip(&mut self) -> Duration {
        while self.state() == CircuitState::Closed || self.state() == CircuitState::HalfOpen {
            self.call(FAILED);
        }
        self.snapshot().open_left.unwrap()
    }

    /// Waits until it is half-open and closes it.
    fn recover(&mut self) {
        let left = self.snapshot().open_left.unwrap();
        self.pass(left);
        self.calls(&[OK, OK]);
        assert_eq!(self.state(), CircuitState::Closed);
    }
}

// === windows ===

fn tally(calls: u32, failures: u32, slow: u32) -> Tally {
    Tally { calls, failures, slow }
}

#[test]
fn a_count_window_forgets_the_oldest_call_when_it_is_full() {
    let mut record = Record::new(Window::count(3));
    assert_eq!(record.tally(secs(0)), tally(0, 0, 0));
    for (failed, slow) in [(true, true), (true, false), (false, false)] {
        record.add(secs(0), failed, slow);
    }
    assert_eq!(record.tally(secs(0)), tally(3, 2, 1));
    record.add(secs(0), false, false);
    assert_eq!(record.tally(secs(0)), tally(3, 1, 0), "the slow failure is gone");
    record.add(secs(0), false, true);
    assert_eq!(record.tally(secs(0)), tally(3, 0, 1), "the other failure is gone");
}

#[test]
fn running_sums_stay_right_however_often_the_ring_wraps_around() {
    let mut record = Record::new(Window::count(7));
    let call = |n: u32| (n.is_multiple_of(3), n.is_multiple_of(5));
    for n in 0..1_000 {
        record.add(secs(0), call(n).0, call(n).1);
        let last = || (n.saturating_sub(6)..=n).map(call);
        let count = |flag: fn(&(bool, bool)) -> bool| u32::try_from(last().filter(flag).count()).unwrap();
        assert_eq!(record.tally(secs(0)), tally(count(|_| true), count(|c| c.0), count(|c| c.1)), "{n}");
    }
}

#[test]
fn a_window_of_one_call_knows_the_last_one() {
    let mut record = Record::new(Window::count(1));
    record.add(secs(0), true, false);
    record.add(secs(0), false, true);
    assert_eq!(record.tally(secs(0)), tally(1, 0, 1));
}

#[test]
fn a_time_window_forgets_a_tenth_at_a_time() {
    let mut record = Record::new(Window::time(secs(10)));
    record.add(millis(999), true, false);
    record.add(millis(1_000), false, true);
    assert_eq!(record.tally(millis(9_999)), tally(2, 1, 1));
    assert_eq!(record.tally(millis(10_000)), tally(1, 0, 1), "the first tenth has left");
    assert_eq!(record.tally(millis(10_999)), tally(1, 0, 1));
    assert_eq!(record.tally(millis(11_000)), tally(0, 0, 0));
}

#[test]
fn a_part_of_a_time_window_is_used_anew_after_a_long_silence() {
    let mut record = Record::new(Window::time(secs(10)));
    record.add(millis(500), true, true);
    // The same place in the ring, a thousand windows later.
    record.add(secs(10_000), false, false);
    assert_eq!(record.tally(secs(10_000)), tally(1, 0, 0));
}

#[test]
fn the_shortest_time_window_works() {
    let mut record = Record::new(Window::time(millis(1)));
    record.add(secs(1), true, false);
    assert_eq!(record.tally(secs(1)), tally(1, 1, 0));
    assert_eq!(record.tally(secs(1) + millis(1)), tally(0, 0, 0));
}

#[test]
fn a_consecutive_window_starts_over_with_a_good_call() {
    let mut record = Record::new(Window::consecutive(3));
    record.add(secs(0), true, false);
    record.add(secs(0), false, true);
    assert_eq!(record.tally(secs(0)), tally(2, 1, 1));
    record.add(secs(0), false, false);
    assert_eq!(record.tally(secs(0)), tally(0, 0, 0));
}

// === closed ===

#[test]
fn below_the_minimum_of_calls_it_never_opens() {
    let mut rig = Rig::new(config());
    rig.calls(&[FAILED; 4]);
    assert_eq!(rig.state(), CircuitState::Closed);
    assert_eq!(rig.snapshot().rates, None, "four calls are no rate");
    rig.call(FAILED);
    assert_eq!(rig.state(), CircuitState::Open);
}

#[test]
fn a_failure_rate_equal_to_the_limit_opens() {
    for (failures, of, rate) in [(5, 10, 0.5), (1, 10, 0.1), (3, 10, 0.3), (7, 10, 0.7), (10, 10, 1.0)] {
        let config = config().min_calls(of).unwrap().failure_rate(rate).unwrap();
        let mut rig = Rig::new(config);
        rig.calls(&vec![OK; (of - failures) as usize]);
        rig.calls(&vec![FAILED; (failures - 1) as usize]);
        assert_eq!(rig.state(), CircuitState::Closed, "{rate}");
        rig.call(FAILED);
        assert_eq!(rig.state(), CircuitState::Open, "{rate}");
    }
}

#[test]
fn a_failure_rate_below_the_limit_does_not_open() {
    let mut rig = Rig::new(config());
    for _ in 0..100 {
        rig.calls(&[OK, OK, FAILED]);
    }
    assert_eq!(rig.state(), CircuitState::Closed);
    assert_eq!(rig.snapshot().rates.map(|(failures, _)| failures < 0.5), Some(true));
}

#[test]
fn a_success_can_be_the_call_that_makes_up_the_minimum() {
    let mut rig = Rig::new(config());
    rig.calls(&[FAILED, FAILED, FAILED, FAILED, OK]);
    assert_eq!(rig.state(), CircuitState::Open, "80 % of five");
}

#[test]
fn a_full_window_is_enough_when_it_is_smaller_than_the_minimum() {
    let mut rig = Rig::new(config().min_calls(1_000).unwrap());
    rig.calls(&[FAILED; 9]);
    assert_eq!(rig.state(), CircuitState::Closed);
    rig.call(FAILED);
    assert_eq!(rig.state(), CircuitState::Open);
}

#[test]
fn the_minimum_holds_for_a_time_window_however_long_it_runs() {
    let mut rig = Rig::new(config().window(Window::time(secs(10))).unwrap());
    for _ in 0..100 {
        rig.call(FAILED);
        rig.pass(secs(3));
    }
    assert_eq!(rig.state(), CircuitState::Closed, "never five within ten seconds");
    rig.pass(secs(10));
    rig.calls(&[FAILED; 4]);
    assert_eq!(rig.state(), CircuitState::Closed);
    rig.pass(secs(10));
    rig.calls(&[FAILED; 5]);
    assert_eq!(rig.state(), CircuitState::Open);
}

#[test]
fn failures_that_left_the_window_do_not_count() {
    let mut rig = Rig::new(config().min_calls(10).unwrap());
    rig.calls(&[FAILED; 4]);
    rig.calls(&[OK; 10]);
    rig.calls(&[FAILED; 4]);
    assert_eq!(rig.snapshot().rates, Some((0.4, 0.0)));
    assert_eq!(rig.state(), CircuitState::Closed);
}

#[test]
fn slow_calls_open_at_their_own_rate() {
    let mut rig = Rig::new(config().slow_rate(0.6).unwrap());
    rig.calls(&[OK, OK, SLOW, SLOW, SLOW]);
    assert_eq!(rig.state(), CircuitState::Open);
    let refusal = rig.admit().unwrap_err();
    assert_eq!(refusal.into_error().to_string(), "circuit open for another 10.0s after 3 slow calls");
}

#[test]
fn a_slow_rate_of_one_opens_only_when_every_call_is_slow() {
    let mut rig = Rig::new(config());
    rig.call(OK);
    rig.calls(&[SLOW; 9]);
    assert_eq!(rig.state(), CircuitState::Closed, "nine of ten");
    rig.call(SLOW);
    assert_eq!(rig.state(), CircuitState::Open, "ten of ten");
}

#[test]
fn a_slow_failure_counts_in_both_rates() {
    let mut rig = Rig::new(config().slow_rate(0.8).unwrap());
    rig.calls(&[OK, OK, OK, SLOW_FAILED, SLOW]);
    assert_eq!(rig.snapshot().rates, Some((0.2, 0.4)));
    assert_eq!(rig.total(CircuitCall::SlowFailure), 1);
    assert_eq!(rig.total(CircuitCall::Failure), 0);
    rig.calls(&[SLOW_FAILED; 3]);
    assert_eq!(rig.state(), CircuitState::Open, "four of eight have failed");
}

#[test]
fn ignored_calls_count_as_nothing() {
    let mut rig = Rig::new(config());
    rig.calls(&[FAILED; 4]);
    rig.calls(&[Ended::Ignored; 50]);
    assert_eq!(rig.state(), CircuitState::Closed, "they are not among the five that are needed");
    rig.call(FAILED);
    assert_eq!(rig.state(), CircuitState::Open, "and they have pushed nothing out of the window");
    assert_eq!(rig.total(CircuitCall::Ignored), 50);
}

#[test]
fn failures_in_a_row_open() {
    let mut rig = Rig::new(consecutive(3));
    rig.calls(&[FAILED, FAILED, OK, FAILED, FAILED, Ended::Ignored]);
    assert_eq!(rig.state(), CircuitState::Closed);
    assert_eq!(rig.snapshot().rates, None);
    rig.call(FAILED);
    assert_eq!(rig.state(), CircuitState::Open, "an ignored call does not break the row");
}

#[test]
fn slow_calls_belong_to_the_row() {
    let mut rig = Rig::new(consecutive(3));
    rig.calls(&[SLOW, FAILED, SLOW]);
    let refusal = rig.admit().unwrap_err();
    assert_eq!(
        refusal.into_error().to_string(),
        "circuit open for another 10.0s after 3 failed or slow calls"
    );
}

#[test]
fn it_begins_with_an_empty_window_after_it_has_closed() {
    let mut rig = Rig::open(config());
    rig.recover();
    rig.calls(&[FAILED; 4]);
    assert_eq!(rig.state(), CircuitState::Closed, "neither trials nor calls of the time before count");
}

// === open ===

#[test]
fn an_open_circuit_refuses_until_its_time_is_over() {
    let mut rig = Rig::new(config());
    rig.calls(&[FAILED; 5]);
    rig.pass(millis(5_800));
    let error = rig.admit().unwrap_err().into_error();
    assert_eq!(error.to_string(), "circuit open for another 4.2s after 5 failures");
    assert_eq!(error.retry_after(), Some(millis(4_200)));
    assert!(!error.is_retryable());
    rig.pass(millis(4_199));
    assert!(rig.admit().is_err());
    assert_eq!(rig.total(CircuitCall::Rejected), 2);
    rig.pass(millis(1));
    assert!(rig.admit().is_ok());
}

#[test]
fn an_open_circuit_is_half_open_when_its_time_is_over_even_if_no_call_comes() {
    let mut rig = Rig::open(config());
    rig.pass(secs(35));
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    let time = rig.snapshot().totals.time;
    assert_eq!(time[CircuitState::Open.index()], secs(10));
    assert_eq!(time[CircuitState::HalfOpen.index()], secs(25), "since it was due, not since it was seen");
}

#[test]
fn the_open_time_grows_with_every_trip_and_is_capped() {
    let mut rig = Rig::new(config().growth(3.0).unwrap().max_open_for(secs(60)).unwrap());
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let pause = rig.pause_of_a_trip();
        pauses.push(pause);
        rig.pass(pause);
    }
    assert_eq!(pauses, [secs(10), secs(30), secs(60), secs(60), secs(60)]);
}

#[test]
fn the_open_time_stays_the_same_without_growth() {
    let mut rig = Rig::new(config().growth(1.0).unwrap());
    for _ in 0..3 {
        let pause = rig.pause_of_a_trip();
        assert_eq!(pause, secs(10));
        rig.pass(pause);
    }
}

#[test]
fn a_cap_below_the_open_time_counts_as_the_open_time() {
    let mut rig = Rig::new(config().max_open_for(secs(1)).unwrap());
    assert_eq!(rig.pause_of_a_trip(), secs(10));
}

#[test]
fn a_circuit_that_opens_soon_after_closing_goes_on_growing() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.pause_of_a_trip(), secs(10));
    rig.recover();
    rig.pass(millis(9_999));
    assert_eq!(rig.pause_of_a_trip(), secs(20));
}

#[test]
fn the_open_time_starts_over_after_the_circuit_was_closed_for_as_long() {
    let mut rig = Rig::new(config());
    assert_eq!(rig.pause_of_a_trip(), secs(10));
    rig.recover();
    rig.pass(secs(10));
    assert_eq!(rig.pause_of_a_trip(), secs(10));
}

#[test]
fn no_number_of_trips_overflows_the_open_time() {
    let mut rig = Rig::new(config().growth(10.0).unwrap());
    for _ in 0..2_000 {
        let pause = rig.pause_of_a_trip();
        assert!(pause <= secs(300));
        rig.pass(pause);
    }
    assert_eq!(rig.pause_of_a_trip(), secs(300));
}

#[test]
fn jitter_spreads_the_open_time_and_never_passes_the_cap() {
    let pauses = |seed: u64| -> Vec<Duration> {
        let config = config().jitter(0.5).unwrap().max_open_for(secs(20)).unwrap().seed(seed);
        let mut rig = Rig::new(config);
        (0..50)
            .map(|_| {
                let pause = rig.pause_of_a_trip();
                rig.pass(pause);
                pause
            })
            .collect()
    };
    let first = pauses(7);
    assert!(first[0] >= secs(5) && first[0] <= secs(15), "{:?}", first[0]);
    assert!(first.iter().all(|pause| *pause >= secs(5) && *pause <= secs(20)), "{first:?}");
    assert!(first.iter().any(|pause| *pause < secs(19)), "the cap takes nothing off the spread: {first:?}");
    assert_eq!(first, pauses(7), "a seed makes it the same every time");
    assert_ne!(first, pauses(8));
}

// === half-open ===

#[test]
fn half_open_lets_no_more_than_the_trials_through_at_once() {
    let mut rig = Rig::half_open(config());
    let tickets: Vec<_> = (0..3).map(|_| rig.admit().unwrap()).collect();
    assert!(tickets.iter().all(|ticket| ticket.trial));
    let refusal = rig.admit().unwrap_err();
    assert_eq!(refusal, Refusal::HalfOpen { trials: 3 });
    let error = refusal.into_error();
    assert_eq!(error.to_string(), "circuit half-open with all 3 trials taken");
    assert_eq!(error.retry_after(), None, "nobody knows");
    assert_eq!(rig.snapshot().trials_out, 3);
}

#[test]
fn a_trial_that_has_counted_makes_no_room_for_a_fourth() {
    let mut rig = Rig::half_open(config().failure_rate(1.0).unwrap());
    let (first, _second, _third) = (rig.admit().unwrap(), rig.admit().unwrap(), rig.admit().unwrap());
    rig.finish(first, FAILED);
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    assert!(rig.admit().is_err());
}

#[test]
fn good_trials_close() {
    let mut rig = Rig::half_open(config().trials(2).unwrap());
    rig.call(OK);
    assert_eq!(rig.state(), CircuitState::HalfOpen, "a failure of the second would be half of them");
    rig.call(OK);
    assert_eq!(rig.state(), CircuitState::Closed);
}

#[test]
fn a_single_trial_decides_when_there_is_one() {
    for (ended, state) in
        [(OK, CircuitState::Closed), (FAILED, CircuitState::Open), (SLOW, CircuitState::Open)]
    {
        let mut rig = Rig::half_open(config().trials(1).unwrap());
        rig.call(ended);
        assert_eq!(rig.state(), state);
    }
}

#[test]
fn trials_reopen_at_the_failure_rate_and_not_below() {
    let four = || config().trials(4).unwrap();
    let mut rig = Rig::half_open(four());
    rig.calls(&[FAILED, OK, OK]);
    assert_eq!(rig.state(), CircuitState::HalfOpen, "it is undecided");
    rig.call(FAILED);
    assert_eq!(rig.state(), CircuitState::Open, "two of four are equal to the limit");

    let mut rig = Rig::half_open(four());
    rig.calls(&[FAILED, OK, OK, OK]);
    assert_eq!(rig.state(), CircuitState::Closed);
}

#[test]
fn trials_reopen_early_when_the_rest_cannot_save_them() {
    let mut rig = Rig::half_open(config().trials(10).unwrap());
    rig.calls(&[FAILED; 4]);
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    rig.call(FAILED);
    assert_eq!(rig.state(), CircuitState::Open, "five of ten, with five still to come");
}

#[test]
fn trials_close_early_when_the_rest_cannot_spoil_them() {
    let mut rig = Rig::half_open(config().trials(10).unwrap());
    rig.calls(&[OK; 5]);
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    rig.call(OK);
    assert_eq!(rig.state(), CircuitState::Closed, "four failures of ten would be below half");
}

#[test]
fn slow_trials_reopen_at_the_slow_rate() {
    let mut rig = Rig::half_open(config().slow_rate(0.6).unwrap());
    rig.calls(&[SLOW, SLOW]);
    assert_eq!(rig.state(), CircuitState::Open, "two of three");
    let error = rig.admit().unwrap_err().into_error();
    assert_eq!(error.to_string(), "circuit open for another 10.0s after 2 slow calls");
}

#[test]
fn an_ignored_trial_hands_its_place_to_another() {
    let mut rig = Rig::half_open(config().trials(1).unwrap());
    for _ in 0..10 {
        assert_eq!(rig.call(Ended::Ignored).call, Some(CircuitCall::Ignored));
        assert_eq!(rig.state(), CircuitState::HalfOpen);
        assert_eq!(rig.snapshot().trials_out, 0);
    }
    rig.call(OK);
    assert_eq!(rig.state(), CircuitState::Closed);
}

#[test]
fn with_a_consecutive_window_one_bad_trial_reopens_and_all_must_be_good_to_close() {
    let mut rig = Rig::half_open(consecutive(5));
    rig.calls(&[OK, OK]);
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    rig.call(OK);
    assert_eq!(rig.state(), CircuitState::Closed);
    for bad in [FAILED, SLOW] {
        let mut rig = Rig::half_open(consecutive(5));
        rig.call(bad);
        assert_eq!(rig.state(), CircuitState::Open);
    }
}

#[test]
fn trials_that_do_not_end_reopen_for_longer() {
    let waits = config().half_open_wait(secs(30), Undecided::Reopen).unwrap();
    let mut rig = Rig::open(waits);
    rig.pass(secs(10));
    let stuck = rig.admit().unwrap();
    rig.pass(secs(30) - millis(1));
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    rig.pass(millis(1));
    let error = rig.admit().unwrap_err().into_error();
    assert_eq!(error.to_string(), "circuit open for another 20.0s after no trial ended within 30s");
    assert_eq!(rig.finish(stuck, OK).call, Some(CircuitCall::Late));
    assert_eq!(rig.state(), CircuitState::Open);
}

#[test]
fn trials_that_do_not_end_close_where_that_is_configured() {
    let mut rig = Rig::half_open(config().half_open_wait(secs(30), Undecided::Close).unwrap());
    let _stuck = rig.admit().unwrap();
    rig.pass(secs(30));
    assert_eq!(rig.state(), CircuitState::Closed);
}

#[test]
fn the_wait_in_half_open_is_one_for_trials_under_way() {
    let mut rig = Rig::half_open(config().half_open_wait(secs(30), Undecided::Reopen).unwrap());
    rig.pass(secs(1_000));
    assert_eq!(rig.state(), CircuitState::HalfOpen, "no call came");
    rig.call(FAILED);
    rig.pass(secs(1_000));
    assert_eq!(rig.state(), CircuitState::HalfOpen, "the next has not come");
    rig.call(Ended::Ignored);
    rig.pass(secs(1_000));
    assert_eq!(rig.state(), CircuitState::HalfOpen);
}

#[test]
fn every_trial_that_counts_starts_the_wait_anew_and_one_that_is_dropped_does_not() {
    let mut rig = Rig::half_open(config().half_open_wait(secs(30), Undecided::Reopen).unwrap());
    let _stuck = rig.admit().unwrap();
    rig.pass(secs(20));
    rig.call(OK);
    rig.pass(secs(20));
    assert_eq!(rig.state(), CircuitState::HalfOpen, "20 s since one has ended");
    rig.call(Ended::Ignored);
    rig.pass(secs(10));
    assert_eq!(rig.state(), CircuitState::Open, "30 s since one has ended");
}

#[test]
fn several_steps_of_time_are_done_at_the_times_they_were_due() {
    let mut rig = Rig::open(config().half_open_wait(secs(5), Undecided::Reopen).unwrap());
    rig.pass(secs(10));
    let _stuck = rig.admit().unwrap();
    rig.pass(secs(1_000));
    assert_eq!(rig.state(), CircuitState::HalfOpen);
    let time = rig.snapshot().totals.time;
    assert_eq!(time[CircuitState::Open.index()], secs(10 + 20));
    assert_eq!(time[CircuitState::HalfOpen.index()], secs(5 + 1_000 - 5 - 20));
}

// === late results ===

#[test]
fn a_result_of_an_earlier_state_does_not_count() {
    let mut rig = Rig::new(config());
    let early: Vec<_> = (0..6).map(|_| rig.admit().unwrap()).collect();
    rig.calls(&[FAILED; 5]);
    assert_eq!(rig.state(), CircuitState::Open);
    assert_eq!(rig.finish(early[0], OK).call, Some(CircuitCall::Late));
    rig.pass(secs(10));
    let trial = rig.admit().unwrap();
    for ticket in &early[1..5] {
        rig.finish(*ticket, FAILED);
    }
    assert_eq!(rig.state(), CircuitState::HalfOpen, "four late failures are no trials");
    assert_eq!(rig.snapshot().trials_out, 1, "and give back no place that they did not take");
    rig.finish(trial, OK);
    rig.call(OK);
    assert_eq!(rig.state(), CircuitState::Closed);
    rig.finish(early[5], FAILED);
    assert_eq!(rig.total(CircuitCall::Late), 6);
    rig.calls(&[FAILED; 4]);
    assert_eq!(rig.state(), CircuitState::Closed, "the second time it is closed is not the first");
}

#[test]
fn a_trial_of_an_earlier_half_open_state_does_not_count() {
    let mut rig = Rig::half_open(config());
    let (slow, _held) = (rig.admit().unwrap(), rig.admit().unwrap());
    rig.set(CircuitState::Open);
    rig.pass(secs(10));
    let _fresh = rig.admit().unwrap();
    assert_eq!(rig.finish(slow, FAILED).call, Some(CircuitCall::Late));
    assert_eq!((rig.state(), rig.snapshot().trials_out), (CircuitState::HalfOpen, 1));
    assert_eq!(rig.finish(slow, Ended::Ignored).call, Some(CircuitCall::Ignored));
    assert_eq!(rig.snapshot().trials_out, 1);
}

#[test]
fn a_call_that_spans_a_reset_does_not_count() {
    let mut rig = Rig::new(config());
    let ticket = rig.admit().unwrap();
    rig.set(CircuitState::Closed);
    assert_eq!(rig.finish(ticket, FAILED).call, Some(CircuitCall::Late));
}

// === by hand ===

#[test]
fn forced_open_refuses_until_it_is_reset() {
    let mut rig = Rig::new(config());
    rig.set(CircuitState::ForcedOpen);
    rig.pass(secs(1_000_000));
    let error = rig.admit().unwrap_err().into_error();
    assert_eq!(error.to_string(), "circuit forced open until it is reset");
    assert_eq!((error.is_retryable(), error.retry_after()), (false, None));
    assert_eq!(rig.total(CircuitCall::Rejected), 1);
    rig.set(CircuitState::Closed);
    assert!(rig.admit().is_ok());
}

#[test]
fn disabled_lets_everything_through_and_counts_nothing() {
    let mut rig = Rig::new(config());
    rig.set(CircuitState::Disabled);
    for _ in 0..100 {
        assert_eq!(rig.call(FAILED), Settled { call: None, would_open: false });
    }
    let snapshot = rig.snapshot();
    assert_eq!((snapshot.state, snapshot.rates), (CircuitState::Disabled, None));
    assert_eq!(snapshot.totals.calls, [0; 7]);
}

#[test]
fn metrics_only_counts_and_refuses_nothing_and_says_once_when_it_would_have_opened() {
    let mut rig = Rig::new(config());
    rig.set(CircuitState::MetricsOnly);
    let told = |rig: &mut Rig, calls: &[Ended]| -> Vec<bool> {
        calls.iter().map(|ended| rig.call(*ended).would_open).collect()
    };
    assert_eq!(told(&mut rig, &[FAILED; 7]), [false, false, false, false, true, false, false]);
    assert_eq!(rig.snapshot().rates, Some((1.0, 0.0)));
    // The window of ten: seven failures and then more and more successes.
    assert_eq!(told(&mut rig, &[OK; 10]), [false; 10]);
    assert_eq!(told(&mut rig, &[FAILED; 5]), [false, false, false, false, true], "and again");
    let snapshot = rig.snapshot();
    assert_eq!((snapshot.state, snapshot.totals.would_open), (CircuitState::MetricsOnly, 2));
    assert_eq!(rig.total(CircuitCall::Failure), 12);
}

#[test]
fn a_reset_forgets_the_window_and_the_growth() {
    let mut rig = Rig::new(config());
    rig.pause_of_a_trip();
    rig.recover();
    rig.calls(&[FAILED; 4]);
    rig.set(CircuitState::Closed);
    rig.calls(&[FAILED; 4]);
    assert_eq!(rig.state(), CircuitState::Closed, "the first four are forgotten");
    assert_eq!(rig.pause_of_a_trip(), secs(10), "as if it were the first time");
}

#[test]
fn opened_by_hand_it_comes_back_like_any_open_circuit() {
    let mut rig = Rig::open(config());
    let error = rig.admit().unwrap_err().into_error();
    assert_eq!(error.to_string(), "circuit open for another 10.0s since it was opened by hand");
    rig.pass(secs(10));
    assert_eq!(rig.state(), CircuitState::HalfOpen);
}

#[test]
fn every_state_can_be_set_from_every_other_and_begins_empty() {
    for from in CircuitState::ALL {
        for to in CircuitState::ALL {
            let mut rig = Rig::new(config());
            rig.set(*from);
            rig.set(*to);
            let snapshot = rig.snapshot();
            assert_eq!(snapshot.state, *to, "from {from:?}");
            assert_eq!((snapshot.trials_out, snapshot.rates), (0, None));
            let counted = snapshot.totals.transitions[from.index()][to.index()];
            assert_eq!(counted, u64::from(from != to), "staying is no transition: {from:?} to {to:?}");
        }
    }
}

// === sums ===

#[test]
fn time_in_states_adds_up_to_the_age() {
    let mut rig = Rig::new(config());
    for state in CircuitState::ALL {
        rig.pass(millis(1_234));
        rig.set(*state);
    }
    rig.pass(secs(77));
    let time = rig.snapshot().totals.time;
    assert_eq!(time.iter().sum::<Duration>(), rig.now);
    assert_eq!(time.len(), STATES);
}

#[test]
fn a_clock_that_was_read_a_moment_earlier_is_no_problem() {
    let mut rig = Rig::new(config().window(Window::time(secs(1))).unwrap());
    rig.pass(secs(100));
    let ticket = rig.admit().unwrap();
    rig.call(FAILED);
    rig.now = secs(99);
    rig.finish(ticket, FAILED);
    rig.set(CircuitState::Open);
    rig.now = secs(98);
    assert!(rig.admit().is_err());
    assert_eq!(rig.snapshot().totals.time.iter().sum::<Duration>(), secs(100));
}

#[test]
fn every_label_has_its_place_in_the_sums() {
    assert_eq!(CircuitState::ALL.len(), STATES);
    let circuit = Circuit::new(config());
    assert_eq!(circuit.stats().counted(), 0);
    assert_eq!(CircuitCall::ALL.last().map(|call| call.index()), Some(6));
}
