//! Threads that want the same value: every interleaving of a few callers of one flight, explored by loom.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod sync {
    pub(crate) use loom::sync::Mutex;
}

#[path = "../src/cache/flight.rs"]
#[allow(dead_code, unreachable_pub, reason = "the models use what they explore")]
mod flight;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use flight::{Flights, Joined};
use loom::sync::Notify;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

type Board = Arc<Flights<u8, u8>>;

/// Wakes a thread.
#[derive(Default)]
struct Alarm(Notify);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn poll<F: Future>(future: Pin<&mut F>, alarm: &Arc<Alarm>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(alarm))))
}

/// Sleeps between two polls: what is never woken is a deadlock, which loom finds.
fn wait<F: Future>(mut future: Pin<&mut F>, alarm: &Arc<Alarm>) -> F::Output {
    loop {
        match poll(future.as_mut(), alarm) {
            Poll::Ready(output) => return output,
            Poll::Pending => alarm.0.wait(),
        }
    }
}

fn join(flights: &Board) -> Joined<u8, u8> {
    wait(pin!(flights.join(0)), &Arc::default())
}

fn spawn<T: 'static>(flights: &Board, work: impl FnOnce(&Board) -> T + 'static) -> thread::JoinHandle<T> {
    let flights = Arc::clone(flights);
    thread::spawn(move || work(&flights))
}

/// All interleavings with up to three switches away from a thread that could go on.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Whether it had to wait, and what became of it.
fn boards_and_waits(flights: &Board) -> (bool, Joined<u8, u8>) {
    let alarm = Arc::default();
    let mut joining = pin!(flights.join(0));
    match poll(joining.as_mut(), &alarm) {
        Poll::Ready(joined) => (false, joined),
        Poll::Pending => (true, wait(joining, &alarm)),
    }
}

#[test]
fn there_is_one_leader_at_a_time_and_everyone_gets_a_turn() {
    explore(|| {
        let (flights, leading) = (Board::default(), Arc::new(AtomicUsize::new(0)));
        let lead = |leading: &AtomicUsize, flights: &Board| {
            let Joined::Leader(lead) = join(flights) else { panic!("nothing lands") };
            assert_eq!(leading.fetch_add(1, Ordering::AcqRel), 0, "two leaders at once");
            leading.fetch_sub(1, Ordering::AcqRel);
            drop(lead);
        };
        let others = [0, 1].map(|_| {
            let leading = Arc::clone(&leading);
            spawn(&flights, move |flights| lead(&leading, flights))
        });
        lead(&leading, &flights);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(flights.len(), 0, "a flight is left behind");
    });
}

#[test]
fn a_dropped_leader_hands_over_to_exactly_one_follower_or_the_flight_is_gone() {
    explore(|| {
        let flights = Board::default();
        let lead = flights.try_lead(0).unwrap();
        let followers = [1, 2].map(|mine| {
            spawn(&flights, move |flights| match join(flights) {
                Joined::Leader(lead) => {
                    lead.land(mine);
                    (mine, true)
                }
                Joined::Landed(value) => (value, false),
            })
        });
        drop(lead);
        let [first, second] = followers.map(|follower| follower.join().unwrap());
        assert!(first.1 || second.1, "somebody leads");
        // A follower that came when the other's flight was over has led one of its own.
        assert!(first.1 == second.1 || first.0 == second.0, "{first:?} {second:?}");
        assert_eq!(flights.len(), 0, "a flight is left behind");
    });
}

#[test]
fn what_lands_reaches_everyone_who_is_aboard() {
    explore(|| {
        let flights = Board::default();
        let lead = flights.try_lead(0).unwrap();
        let followers = [0, 1].map(|_| {
            spawn(&flights, |flights| match boards_and_waits(flights) {
                (_, Joined::Landed(value)) => assert_eq!(value, 7),
                (aboard, Joined::Leader(lead)) => {
                    assert!(!aboard, "it was aboard and has to lead");
                    lead.land(7);
                }
            })
        });
        lead.land(7);
        drop(lead);
        followers.into_iter().for_each(|follower| follower.join().unwrap());
        assert_eq!(flights.len(), 0, "a flight is left behind");
    });
}

#[test]
fn a_follower_that_goes_as_it_is_to_take_over_passes_the_lead_on() {
    explore(|| {
        let flights = Board::default();
        let lead = flights.try_lead(0).unwrap();
        let fickle = spawn(&flights, |flights| {
            // Boards, and goes away whatever has become of it.
            let _ = poll(pin!(flights.join(0)), &Arc::default());
        });
        let patient = spawn(&flights, |flights| assert!(matches!(join(flights), Joined::Leader(_))));
        drop(lead);
        fickle.join().unwrap();
        patient.join().unwrap();
        assert_eq!(flights.len(), 0, "a flight is left behind");
    });
}

#[test]
fn a_second_failure_lands_for_whoever_is_still_aboard() {
    explore(|| {
        let flights = Board::default();
        let lead = flights.try_lead(0).unwrap();
        let followers = [1, 2].map(|mine| {
            spawn(&flights, move |flights| match boards_and_waits(flights) {
                (aboard, Joined::Leader(lead)) => {
                    lead.fail(mine);
                    (aboard, None)
                }
                (aboard, Joined::Landed(value)) => (aboard, Some(value)),
            })
        });
        lead.fail(0);
        let [first, second] = followers.map(|follower| follower.join().unwrap());
        if let ((true, None), (true, None)) = (first, second) {
            // Both were aboard and both led: not of the same flight, for its second failure landed.
            panic!("a third try");
        }
        assert_eq!(flights.len(), 0, "a flight is left behind");
    });
}

#[test]
fn a_refresh_does_not_start_while_somebody_leads() {
    explore(|| {
        let (flights, leading) = (Board::default(), Arc::new(AtomicUsize::new(0)));
        let refresh = {
            let leading = Arc::clone(&leading);
            spawn(&flights, move |flights| {
                let Some(lead) = flights.try_lead(0) else { return };
                assert_eq!(leading.fetch_add(1, Ordering::AcqRel), 0, "two leaders at once");
                leading.fetch_sub(1, Ordering::AcqRel);
                lead.land(7);
            })
        };
        if let Joined::Leader(lead) = join(&flights) {
            assert_eq!(leading.fetch_add(1, Ordering::AcqRel), 0, "two leaders at once");
            leading.fetch_sub(1, Ordering::AcqRel);
            drop(lead);
        }
        refresh.join().unwrap();
        assert_eq!(flights.len(), 0, "a flight is left behind");
    });
}
