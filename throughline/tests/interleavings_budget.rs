//! Threads that share a budget: every interleaving of a few operations, explored by loom.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod sync {
    pub(crate) use loom::sync::{Mutex, atomic};
}

#[path = "../src/budget/ledger.rs"]
#[allow(dead_code, reason = "the models use what they explore")]
mod ledger;

use ledger::{Ledger, TOKEN, Terms};
use loom::sync::Arc;
use loom::thread;

const STEP: u64 = 1_000;

/// Half a token per deposit, over ten steps.
fn ledger(floor: u64) -> Arc<Ledger> {
    let terms = Terms { per_deposit: TOKEN / 2, floor: floor * TOKEN, window_nanos: 10 * STEP };
    Arc::new(Ledger::new(terms))
}

/// All interleavings with up to three switches away from a thread that could go on.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn spawn<T: 'static>(
    ledger: &Arc<Ledger>,
    work: impl FnOnce(&Ledger) -> T + 'static,
) -> thread::JoinHandle<T> {
    let ledger = Arc::clone(ledger);
    thread::spawn(move || work(&ledger))
}

#[test]
fn three_withdrawals_at_once_never_get_more_than_the_two_tokens_there_are() {
    explore(|| {
        let ledger = ledger(2);
        let others = [0, STEP].map(|now| spawn(&ledger, move |ledger| ledger.withdraw(now).is_some()));
        let mine = ledger.withdraw(0).is_some();
        let granted = others.map(|other| other.join().unwrap()).into_iter().chain([mine]);
        assert_eq!(granted.filter(|granted| *granted).count(), 2);
    });
}

#[test]
fn deposits_at_once_are_all_counted() {
    explore(|| {
        let ledger = ledger(0);
        let others = [0, 0].map(|now| spawn(&ledger, move |ledger| ledger.deposit(now)));
        ledger.deposit(0);
        ledger.deposit(0);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(ledger.available(0), 2, "four halves");
    });
}

#[test]
fn deposits_that_race_to_reuse_a_slot_are_all_counted() {
    explore(|| {
        let ledger = ledger(0);
        ledger.deposit(0);
        // Eleven steps later the slot is used again: both see the old deposit there.
        let other = spawn(&ledger, |ledger| ledger.deposit(11 * STEP));
        ledger.deposit(11 * STEP);
        other.join().unwrap();
        assert_eq!(ledger.available(11 * STEP), 1, "two halves; the old one has left the window");
    });
}

#[test]
fn a_withdrawal_beside_a_deposit_sees_it_whole_or_not_at_all() {
    explore(|| {
        let ledger = ledger(0);
        ledger.deposit(0);
        let earner = spawn(&ledger, |ledger| ledger.deposit(0));
        let granted = ledger.withdraw(0).is_some();
        earner.join().unwrap();
        assert_eq!(ledger.available(0), u64::from(!granted));
    });
}

#[test]
fn a_token_given_back_beside_a_withdrawal_is_there_once() {
    explore(|| {
        let ledger = ledger(1);
        let step = ledger.withdraw(0).unwrap();
        let giver = spawn(&ledger, move |ledger| ledger.give_back(step));
        let granted = ledger.withdraw(STEP).is_some();
        giver.join().unwrap();
        assert_eq!(ledger.available(STEP), u64::from(!granted));
    });
}

#[test]
fn a_token_given_back_while_the_window_moves_on_is_never_there_twice() {
    explore(|| {
        let ledger = ledger(1);
        let step = ledger.withdraw(0).unwrap();
        let giver = spawn(&ledger, move |ledger| ledger.give_back(step));
        let granted = ledger.withdraw(11 * STEP).is_some();
        giver.join().unwrap();
        assert!(granted, "the withdrawal has left the window");
        assert_eq!(ledger.available(11 * STEP), 0);
    });
}
