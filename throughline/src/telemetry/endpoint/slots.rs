//! How many connections there are, and which one goes when there are too many.
//!
//! A connection that waits for its client costs the client nothing, so anybody can open more than there is room
//! for. The one that has waited longest then makes room: a scraper sends its request at once and is served before
//! its turn to go comes.
//!
//! The endpoint of the metrics keeps its connections by it, and so may another server that is there for few. It is not for one
//! where many clients keep connections open that they are to find again.
//!
//! ```
//! use throughline::telemetry::slots::Slots;
//!
//! let slots = Slots::new(2);
//! let (asks, _) = slots.take().expect("there is room");
//! let busy = asks.busy();
//! let (_silent, mut gone) = slots.take().expect("there is room");
//! assert!(slots.take().is_some(), "the silent one makes room");
//! assert!(gone.try_recv().is_err_and(|why| why == tokio::sync::oneshot::error::TryRecvError::Closed));
//! # drop(busy);
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The connections of a server.
pub struct Slots {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    open: usize,
    /// Counts up, so that a higher number has waited for a shorter time.
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The slot of one connection. It is free again when this is dropped.
pub struct Slot {
    state: Arc<Mutex<State>>,
    place: Mutex<Place>,
}

enum Place {
    Waiting(u64),
    /// At work: it cannot be sent away.
    Busy(Option<oneshot::Sender<()>>),
}

/// A slot at work. It waits for its client again when this is dropped.
pub struct Busy<'a>(&'a Slot);

// === impl Slots ===

impl Slots {
    /// Slots for at most so many connections.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, state: Arc::default() }
    }

    /// A slot for a connection that has come, and what completes, by an error, when it has to go. `None` when every
    /// connection is at work.
    #[must_use]
    pub fn take(&self) -> Option<(Slot, oneshot::Receiver<()>)> {
        let mut state = lock(&self.state);
        if state.open >= self.most {
            // Dropping its end tells it to go.
            state.waiting.pop_first()?;
        }
        state.open += 1;
        let (stay, gone) = oneshot::channel();
        let place = Mutex::new(Place::Waiting(state.wait(stay)));
        Some((Slot { state: Arc::clone(&self.state), place }, gone))
    }
}

// === impl State ===

impl State {
    fn wait(&mut self, stay: oneshot::Sender<()>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, stay);
        number
    }
}

// === impl Slot ===

impl Slot {
    /// A request has come: the connection stays until what this returns is dropped.
    #[must_use]
    pub fn busy(&self) -> Busy<'_> {
        let mut place = lock(&self.place);
        if let Place::Waiting(number) = *place {
            *place = Place::Busy(lock(&self.state).waiting.remove(&number));
        }
        Busy(self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.open -= 1;
        if let Place::Waiting(number) = *lock(&self.place) {
            state.waiting.remove(&number);
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut place = lock(&self.0.place);
        if let Place::Busy(stay) = &mut *place
            && let Some(stay) = stay.take()
        {
            *place = Place::Waiting(lock(&self.0.state).wait(stay));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_to_go(gone: &mut oneshot::Receiver<()>) -> bool {
        gone.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn whoever_has_waited_longest_makes_room_and_nobody_who_is_at_work() {
        let slots = Slots::new(2);
        let (first, mut first_gone) = slots.take().unwrap();
        let (second, mut second_gone) = slots.take().unwrap();
        drop(first.busy());
        let (third, mut third_gone) = slots.take().unwrap();
        assert!(has_to_go(&mut second_gone), "the first one has had a request since");
        assert!(!has_to_go(&mut first_gone));
        drop(second);
        let (at_work, as_well) = (first.busy(), third.busy());
        assert!(slots.take().is_none());
        drop(as_well);
        let (_fourth, _gone) = slots.take().unwrap();
        assert!(has_to_go(&mut third_gone) && !has_to_go(&mut first_gone));
        drop(at_work);
        assert!(!has_to_go(&mut first_gone));
    }

    #[test]
    fn a_connection_that_ends_gives_its_slot_back() {
        let slots = Slots::new(1);
        for _ in 0..3 {
            drop(slots.take().unwrap());
        }
        let (slot, mut gone) = slots.take().unwrap();
        let _busy = slot.busy();
        assert!(slots.take().is_none() && !has_to_go(&mut gone));
    }
}
