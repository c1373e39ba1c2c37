//! Every way in which tasks can use one circuit at once.

use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
pub(crate) use throughline::labels;

mod sync {
    pub(crate) use loom::sync::{Mutex, atomic};
}

#[allow(dead_code, unreachable_pub, reason = "the circuit breaker's own files, of which this uses a part")]
#[path = "../src/circuit_breaker/gate.rs"]
mod gate;
#[allow(dead_code, unreachable_pub, reason = "the circuit breaker's own files, of which this uses a part")]
#[path = "../src/circuit_breaker/machine.rs"]
mod machine;
#[allow(dead_code, unreachable_pub, reason = "the circuit breaker's own files, of which this uses a part")]
#[path = "../src/circuit_breaker/rules.rs"]
mod rules;
#[allow(dead_code, unreachable_pub, reason = "the circuit breaker's own files, of which this uses a part")]
#[path = "../src/circuit_breaker/window.rs"]
mod window;

use gate::Gate;
use machine::{CircuitCall, CircuitState, Ended};
use rules::{Rules, Undecided};
use window::Window;

const NOW: Duration = Duration::from_secs(1);
const OK: Ended = Ended::Counts { failed: false, slow: false };
const FAILED: Ended = Ended::Counts { failed: true, slow: false };

fn gate(trials: u32) -> Gate {
    let rules = Rules {
        window: Window::consecutive(1),
        min_calls: 1,
        failure_rate: 0.5,
        slow_rate: 1.0,
        trials,
        open_for: Duration::from_secs(10),
        growth: 1.0,
        max_open_for: Duration::from_secs(10),
        jitter: 0.0,
        half_open_wait: Duration::from_secs(60),
        undecided: Undecided::Reopen,
    };
    Gate::new(rules, 1)
}

fn half_open(trials: u32) -> Arc<Gate> {
    let gate = gate(trials);
    gate.with(|machine| machine.set(NOW, CircuitState::HalfOpen));
    Arc::new(gate)
}

fn state(gate: &Gate) -> (CircuitState, u32) {
    let snapshot = gate.with(|machine| machine.snapshot(NOW));
    (snapshot.state, snapshot.trials_out)
}

#[test]
fn no_more_trials_are_under_way_than_there_are_places_and_every_place_comes_back() {
    loom::model(|| {
        let (gate, under_way) = (half_open(1), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (gate, under_way) = (Arc::clone(&gate), Arc::clone(&under_way));
                thread::spawn(move || {
                    if let Ok(ticket) = gate.admit(NOW) {
                        assert_eq!(under_way.fetch_add(1, Ordering::AcqRel), 0, "two trials at once");
                        under_way.fetch_sub(1, Ordering::AcqRel);
                        // Dropped: it says nothing, and makes room.
                        gate.finish(NOW, ticket, Ended::Ignored);
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(state(&gate), (CircuitState::HalfOpen, 0));
        assert!(gate.admit(NOW).is_ok(), "the place is free again");
        assert!(gate.admit(NOW).is_err());
    });
}

#[test]
fn trials_that_end_at_once_decide_once() {
    loom::model(|| {
        let gate = half_open(2);
        let tickets = [gate.admit(NOW).unwrap(), gate.admit(NOW).unwrap()];
        let tasks: Vec<_> = tickets
            .into_iter()
            .map(|ticket| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || gate.finish(NOW, ticket, OK).call)
            })
            .collect();
        for task in tasks {
            assert_eq!(task.join().unwrap(), Some(CircuitCall::Success), "none is late");
        }
        assert_eq!(state(&gate), (CircuitState::Closed, 0));
        let transitions = gate.with(|machine| machine.snapshot(NOW)).totals.transitions;
        assert_eq!(transitions[CircuitState::HalfOpen as usize][CircuitState::Closed as usize], 1);
    });
}

#[test]
fn a_call_that_is_let_through_as_the_circuit_opens_is_late() {
    loom::model(|| {
        let gate = Arc::new(gate(1));
        let failing = gate.admit(NOW).unwrap();
        let other = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || match gate.admit(NOW) {
                Ok(ticket) => gate.finish(NOW, ticket, OK).call,
                Err(_) => Some(CircuitCall::Rejected),
            })
        };
        assert_eq!(gate.finish(NOW, failing, FAILED).call, Some(CircuitCall::Failure));
        assert!(gate.admit(NOW).is_err(), "who opened it is refused from then on");
        let other = other.join().unwrap().unwrap();
        assert!(
            matches!(other, CircuitCall::Success | CircuitCall::Late | CircuitCall::Rejected),
            "{other:?}"
        );
        assert_eq!(state(&gate), (CircuitState::Open, 0));
    });
}

#[test]
fn a_late_result_gives_back_no_place_that_it_did_not_take() {
    loom::model(|| {
        let gate = Arc::new(gate(1));
        let early = gate.admit(NOW).unwrap();
        gate.with(|machine| machine.set(NOW, CircuitState::HalfOpen));
        let late = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.finish(NOW, early, FAILED).call)
        };
        let trial = gate.admit(NOW).unwrap();
        assert!(gate.admit(NOW).is_err(), "the place is taken, whatever the late call says");
        assert_eq!(late.join().unwrap(), Some(CircuitCall::Late));
        assert_eq!(state(&gate), (CircuitState::HalfOpen, 1));
        gate.finish(NOW, trial, OK);
        assert_eq!(state(&gate), (CircuitState::Closed, 0));
    });
}

#[test]
fn a_reset_during_trials_leaves_the_circuit_closed_and_empty() {
    loom::model(|| {
        let gate = half_open(1);
        let trial = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || {
                if let Ok(ticket) = gate.admit(NOW) {
                    gate.finish(NOW, ticket, Ended::Ignored);
                }
            })
        };
        gate.with(|machine| machine.set(NOW, CircuitState::Closed));
        trial.join().unwrap();
        assert_eq!(state(&gate), (CircuitState::Closed, 0));
        assert!(gate.admit(NOW).is_ok());
    });
}
