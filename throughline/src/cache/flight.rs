//! Single flight: of many callers who want the same value, one computes it and the others wait.
//!
//! The leader's value goes to everyone, also to those who come while it is being stored. So does an error
//! that another try could not cure. After any other error one follower tries again, and its error goes to
//! everyone. When the leader is dropped one follower takes the lead. A value that must not be shared sends every follower on its own way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::key::Key;
use crate::error::Error;

/// Leaders that may fail before those who wait are told.
const TRIES: u32 = 2;

/// The values being computed now.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

#[derive(Debug)]
struct Flight {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    waiting: usize,
    /// Leaders whose work failed in a way that may pass.
    failures: u32,
}

#[derive(Clone, Debug)]
enum Phase {
    Led,
    Orphaned,
    Landed(Landing),
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// The value, encoded.
    Value(Bytes),
    /// A value past its time, encoded, because there was no new one.
    Expired(Bytes),
    /// An error that another try would not cure, or did not.
    Fatal(Error),
    /// A value that is not to be shared.
    Private,
}

/// What a caller becomes.
pub(super) enum Joined {
    Leader(Lead),
    Landed(Landing),
}

/// The duty to compute the value. Dropped without [`Lead::land`], it passes to a follower; after that,
/// newcomers find the landing until it is dropped.
pub(super) struct Lead {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    key: Key,
}

/// Takes a follower off the books, however its wait ends.
struct Waiting<'a> {
    flights: &'a Flights,
    flight: &'a Arc<Flight>,
    key: Key,
}

// === impl Flights ===

impl Flights {
    /// Leads the flight for `key`, or waits until there is something to do or to have.
    pub(super) async fn join(self: &Arc<Self>, key: Key) -> Joined {
        let flight = match self.board(key) {
            Ok(lead) => return Joined::Leader(lead),
            Err(flight) => flight,
        };
        let _waiting = Waiting { flights: self, flight: &flight, key };
        loop {
            let mut changed = std::pin::pin!(flight.changed.notified());
            changed.as_mut().enable();
            match &mut flight.lock().phase {
                Phase::Landed(landing) => return Joined::Landed(landing.clone()),
                phase @ Phase::Orphaned => {
                    *phase = Phase::Led;
                    let flight = Arc::clone(&flight);
                    return Joined::Leader(Lead { flights: Arc::clone(self), flight, key });
                }
                Phase::Led => {}
            }
            changed.await;
        }
    }

    /// The lead, unless somebody has it already.
    pub(super) fn try_lead(self: &Arc<Self>, key: Key) -> Option<Lead> {
        let mut flights = self.lock();
        if flights.contains_key(&key) {
            return None;
        }
        Some(self.launch(&mut flights, key))
    }

    fn board(self: &Arc<Self>, key: Key) -> Result<Lead, Arc<Flight>> {
        let mut flights = self.lock();
        let Some(flight) = flights.get(&key).cloned() else { return Ok(self.launch(&mut flights, key)) };
        flight.lock().waiting += 1;
        Err(flight)
    }

    fn launch(self: &Arc<Self>, flights: &mut HashMap<Key, Arc<Flight>>, key: Key) -> Lead {
        let state = Mutex::new(State { phase: Phase::Led, waiting: 0, failures: 0 });
        let flight = Arc::new(Flight { state, changed: Notify::new() });
        flights.insert(key, Arc::clone(&flight));
        Lead { flights: Arc::clone(self), flight, key }
    }

    fn remove(flights: &mut HashMap<Key, Arc<Flight>>, key: &Key, flight: &Arc<Flight>) {
        if flights.get(key).is_some_and(|current| Arc::ptr_eq(current, flight)) {
            flights.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }
}

// === impl Flight ===

impl Flight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lead ===

impl Lead {
    /// The work failed in a way that may pass: one follower may try as well. When that fails too, those who
    /// wait get the error, for otherwise they would try one after the other.
    pub(super) fn fail(self, error: &Error) {
        let failures = {
            let mut state = self.flight.lock();
            state.failures += 1;
            state.failures
        };
        if failures >= TRIES {
            self.land(Landing::Fatal(error.clone()));
        }
    }

    /// Ends the wait for everyone.
    pub(super) fn land(&self, landing: Landing) {
        self.flight.lock().phase = Phase::Landed(landing);
        self.flight.changed.notify_waiters();
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let mut state = self.flight.lock();
        if matches!(state.phase, Phase::Landed(_)) {
            Flights::remove(&mut flights, &self.key, &self.flight);
            return;
        }
        state.phase = Phase::Orphaned;
        if state.waiting == 0 {
            Flights::remove(&mut flights, &self.key, &self.flight);
        }
        drop(state);
        drop(flights);
        self.flight.changed.notify_one();
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let mut state = self.flight.lock();
        state.waiting -= 1;
        if state.waiting == 0 && matches!(state.phase, Phase::Orphaned) {
            Flights::remove(&mut flights, &self.key, self.flight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::KeyBuilder;

    fn key() -> Key {
        KeyBuilder::new("test", 0).build()
    }

    async fn leader(flights: &Arc<Flights>) -> Lead {
        match flights.join(key()).await {
            Joined::Leader(lead) => lead,
            Joined::Landed(_) => panic!("nobody has landed"),
        }
    }

    #[tokio::test]
    async fn followers_get_what_the_leader_computed() {
        let flights = Arc::new(Flights::default());
        let lead = leader(&flights).await;
        let followers: Vec<_> = (0..10)
            .map(|_| {
                let flights = Arc::clone(&flights);
                tokio::spawn(async move { flights.join(key()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        lead.land(Landing::Value(Bytes::from_static(b"42")));
        for follower in followers {
            assert!(
                matches!(follower.await.unwrap(), Joined::Landed(Landing::Value(value)) if value == "42")
            );
        }
        assert!(matches!(flights.join(key()).await, Joined::Landed(_)), "a newcomer, before it is stored");
        drop(lead);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn a_dropped_leader_hands_over_to_one_follower() {
        let flights = Arc::new(Flights::default());
        let lead = leader(&flights).await;
        let first = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.join(key()).await }
        });
        let second = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.join(key()).await }
        });
        tokio::task::yield_now().await;
        drop(lead);
        let Joined::Leader(lead) = first.await.unwrap() else { panic!("the first follower takes the lead") };
        tokio::task::yield_now().await;
        assert!(!second.is_finished(), "the second goes on waiting");
        lead.land(Landing::Private);
        assert!(matches!(second.await.unwrap(), Joined::Landed(Landing::Private)));
        drop(lead);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn nothing_is_left_when_everybody_has_gone() {
        let flights = Arc::new(Flights::default());
        let lead = leader(&flights).await;
        let follower = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.join(key()).await }
        });
        tokio::task::yield_now().await;
        drop(lead);
        follower.abort();
        drop(follower.await);
        assert_eq!(flights.len(), 0);
        drop(leader(&flights).await);
        assert_eq!(flights.len(), 0);
    }
}
