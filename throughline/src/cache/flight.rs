//! Single flight: of many callers who want the same value, one computes it and the others wait.
//!
//! What the leader lands goes to everyone who waits, and to those who come before the leader has gone. A leader
//! that fails, or is dropped, hands the lead to one follower; a second failure lands. A flight exists as long
//! as somebody is aboard.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};

use crate::sync::Mutex;

/// Leaders that may fail before those who wait are told.
const TRIES: u32 = 2;

/// The values being computed now.
#[derive(Debug)]
pub(super) struct Flights<K, T>(Mutex<Board<K, T>>);

/// What a caller becomes.
pub(super) enum Joined<K: Copy + Eq + Hash, T> {
    Leader(Lead<K, T>),
    Landed(T),
}

/// The duty to compute the value. Dropped without [`Lead::land`], it passes to a follower; after that,
/// newcomers find what has landed until it is dropped.
pub(super) struct Lead<K: Copy + Eq + Hash, T> {
    flights: Arc<Flights<K, T>>,
    flight: u64,
}

/// A follower; gives up its seat however its wait ends.
struct Follower<'a, K: Copy + Eq + Hash, T> {
    flights: &'a Flights<K, T>,
    seat: Seat,
}

/// Who is aboard of what: all that the lock protects. It wakes nobody, but says who is to be woken.
#[derive(Debug)]
struct Board<K, T> {
    /// The flights that newcomers find.
    open: HashMap<K, u64>,
    flights: HashMap<u64, Flight<K, T>>,
    /// The number given last, to a flight or a seat.
    last: u64,
}

#[derive(Debug)]
struct Flight<K, T> {
    key: K,
    /// Whether the leader is aboard.
    led: bool,
    landed: Option<T>,
    /// Leaders whose work failed in a way that may pass.
    failures: u32,
    /// Those who wait, by the order they came in.
    waiting: BTreeMap<u64, Option<Waker>>,
}

#[derive(Clone, Copy)]
struct Seat {
    flight: u64,
    number: u64,
}

/// What a follower has waited for.
enum Turn<T> {
    Lead,
    Landed(T),
}

// === impl Flights ===

impl<K: Copy + Eq + Hash, T> Flights<K, T> {
    /// Leads the flight for `key`, or waits until there is something to do or to have.
    pub(super) async fn join(self: &Arc<Self>, key: K) -> Joined<K, T>
    where
        T: Clone,
    {
        let seat = match self.with(|board| board.board(key)) {
            Ok(flight) => return Joined::Leader(self.lead(flight)),
            Err(seat) => seat,
        };
        let follower = Follower { flights: self, seat };
        let turn = poll_fn(|task| {
            let waker = task.waker().clone();
            // The waker that is no longer needed is dropped when the lock is free: it may own anything.
            self.with(|board| board.look(follower.seat, waker)).map_or_else(|_| Poll::Pending, Poll::Ready)
        });
        match turn.await {
            Turn::Lead => Joined::Leader(self.lead(seat.flight)),
            Turn::Landed(landed) => Joined::Landed(landed),
        }
    }

    /// The lead, unless somebody has it already.
    pub(super) fn try_lead(self: &Arc<Self>, key: K) -> Option<Lead<K, T>> {
        let flight = self.with(|board| (!board.open.contains_key(&key)).then(|| board.launch(key)))?;
        Some(self.lead(flight))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.with(|board| board.flights.len().max(board.open.len()))
    }

    fn lead(self: &Arc<Self>, flight: u64) -> Lead<K, T> {
        Lead { flights: Arc::clone(self), flight }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Board<K, T>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Mutex::new(Board { open: HashMap::new(), flights: HashMap::new(), last: 0 }))
    }
}

// === impl Lead ===

impl<K: Copy + Eq + Hash, T> Lead<K, T> {
    /// The work failed in a way that may pass: one follower may try as well. When that fails too, this lands,
    /// for otherwise those who wait would try one after the other.
    pub(super) fn fail(self, landing: T) {
        if self.flights.with(|board| board.fail(self.flight)) >= TRIES {
            self.land(landing);
        }
    }

    /// Ends the wait for everyone.
    pub(super) fn land(&self, landing: T) {
        let waiting = self.flights.with(|board| board.land(self.flight, landing));
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<K: Copy + Eq + Hash, T> Drop for Lead<K, T> {
    fn drop(&mut self) {
        let next = self.flights.with(|board| board.abandon(self.flight));
        next.into_iter().for_each(Waker::wake);
    }
}

// === impl Follower ===

impl<K: Copy + Eq + Hash, T> Drop for Follower<'_, K, T> {
    fn drop(&mut self) {
        let (_own, next) = self.flights.with(|board| board.leave(self.seat));
        next.into_iter().for_each(Waker::wake);
    }
}

// === impl Board ===

impl<K: Copy + Eq + Hash, T> Board<K, T> {
    /// A new flight to lead, or a seat in the one there is.
    fn board(&mut self, key: K) -> Result<u64, Seat> {
        let Some(&flight) = self.open.get(&key) else { return Ok(self.launch(key)) };
        let seat = Seat { flight, number: self.number() };
        self.flight(flight).waiting.insert(seat.number, None);
        Err(seat)
    }

    fn launch(&mut self, key: K) -> u64 {
        let number = self.number();
        self.open.insert(key, number);
        let waiting = BTreeMap::new();
        self.flights.insert(number, Flight { key, led: true, landed: None, failures: 0, waiting });
        number
    }

    /// What there is to do or to have; or, when there is nothing yet, the waker that is replaced by this one.
    fn look(&mut self, seat: Seat, waker: Waker) -> Result<Turn<T>, Option<Waker>>
    where
        T: Clone,
    {
        let flight = self.flight(seat.flight);
        if let Some(landed) = &flight.landed {
            return Ok(Turn::Landed(landed.clone()));
        }
        if !flight.led {
            flight.led = true;
            return Ok(Turn::Lead);
        }
        Err(flight.waiting.insert(seat.number, Some(waker)).flatten())
    }

    fn fail(&mut self, flight: u64) -> u32 {
        let flight = self.flight(flight);
        flight.failures += 1;
        flight.failures
    }

    fn land(&mut self, flight: u64, landing: T) -> Vec<Waker> {
        let flight = self.flight(flight);
        flight.landed = Some(landing);
        flight.waiting.values_mut().filter_map(Option::take).collect()
    }

    /// The leader goes. Who may take over is to be woken.
    fn abandon(&mut self, flight: u64) -> Option<Waker> {
        self.flight(flight).led = false;
        self.tidy(flight)
    }

    /// A follower goes: its waker, and that of who may lead in its stead, should it have been woken for that.
    fn leave(&mut self, seat: Seat) -> (Option<Waker>, Option<Waker>) {
        let own = self.flight(seat.flight).waiting.remove(&seat.number).flatten();
        (own, self.tidy(seat.flight))
    }

    /// Closes a flight that has ended, forgets one that nobody is aboard of, and finds a leader for one that
    /// goes on without.
    fn tidy(&mut self, number: u64) -> Option<Waker> {
        let flight = self.flight(number);
        if flight.led {
            return None;
        }
        let (key, empty) = (flight.key, flight.waiting.is_empty());
        if !empty && flight.landed.is_none() {
            return flight.waiting.values_mut().next().and_then(Option::take);
        }
        if self.open.get(&key) == Some(&number) {
            self.open.remove(&key);
        }
        if empty {
            self.flights.remove(&number);
        }
        None
    }

    fn flight(&mut self, number: u64) -> &mut Flight<K, T> {
        self.flights.get_mut(&number).expect("a flight stays as long as somebody is aboard")
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
