//! Every order in which threads can meet in the rate algorithm, tried by loom.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(dead_code, unreachable_pub, reason = "the algorithm's own file, of which a test needs a part")]

mod sync {
    pub(crate) use loom::sync::{Mutex, atomic};
}
#[path = "../src/rate_limit/gcra.rs"]
mod gcra;

use gcra::{Gcra, Taken};
use loom::sync::Arc;
use loom::thread;

/// Runs each of these in a thread of its own, the last in this one.
fn together<T: 'static, const N: usize>(gcra: &Arc<Gcra>, work: [fn(&Gcra) -> T; N]) -> Vec<T> {
    let spawn = |work: fn(&Gcra) -> T| {
        let gcra = Arc::clone(gcra);
        thread::spawn(move || work(&gcra))
    };
    let (last, others) = work.split_last().unwrap();
    let threads: Vec<_> = others.iter().map(|work| spawn(*work)).collect();
    let own = last(gcra);
    threads.into_iter().map(|thread| thread.join().unwrap()).chain([own]).collect()
}

fn take_one(gcra: &Gcra) -> u64 {
    u64::from(gcra.take(0, 1).is_ok())
}

fn take_and_hand_back(gcra: &Gcra) -> u64 {
    if let Ok(taken) = gcra.take(0, 1) {
        gcra.hand_back(taken);
    }
    0
}

#[test]
fn threads_never_take_more_than_the_burst() {
    loom::model(|| {
        let gcra = Arc::new(Gcra::new(10, 2));
        let took = together(&gcra, [take_one, take_one, take_one]);
        assert_eq!(took.iter().sum::<u64>(), 2);
        assert_eq!(gcra.available(0), 0);
    });
}

#[test]
fn what_is_handed_back_is_available_again() {
    loom::model(|| {
        let gcra = Arc::new(Gcra::new(10, 2));
        let took: u64 = together(&gcra, [take_and_hand_back, take_one]).iter().sum();
        assert_eq!(took, 1, "there is room for both");
        assert_eq!(gcra.available(0), 1);
        assert!(gcra.take(0, 1).is_ok());
        assert!(gcra.take(0, 1).is_err());
    });
}

#[test]
fn two_who_hand_back_at_once_lose_nothing() {
    loom::model(|| {
        let gcra = Arc::new(Gcra::new(10, 2));
        together(&gcra, [take_and_hand_back, take_and_hand_back]);
        assert_eq!(gcra.available(0), 2);
    });
}

#[test]
fn settlements_at_once_never_make_more_room_than_was_taken() {
    fn reserve_and_settle(gcra: &Gcra) -> Option<Taken> {
        let taken = gcra.take(0, 2).ok()?;
        gcra.settle(taken, 5, 1);
        Some(taken)
    }
    loom::model(|| {
        let gcra = Arc::new(Gcra::new(10, 4));
        let took = together(&gcra, [reserve_and_settle, reserve_and_settle]);
        assert!(took.iter().all(Option::is_some));
        let used = 2;
        assert!(gcra.available(0) <= 4 - used, "{gcra:?}");
    });
}

#[test]
fn a_debt_and_a_gift_that_meet_are_both_booked() {
    loom::model(|| {
        let gcra = Arc::new(Gcra::new(10, 4));
        let more = gcra.take(0, 1).unwrap();
        let less = gcra.take(0, 2).unwrap();
        let other = Arc::clone(&gcra);
        let thread = thread::spawn(move || other.settle(more, 0, 2));
        gcra.settle(less, 0, 1);
        thread.join().unwrap();
        assert_eq!(gcra.available(0), 1, "three of four are used");
    });
}
