//! Keeps a sick store from slowing down requests: a deadline for every call, and after some failures in a
//! row no calls at all for a while.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::key::Key;
use super::store::{Found, Lifetime, Store};
use crate::error::{Error, Kind, Result};
use crate::telemetry::Tick;

/// Failures in a row after which the store is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone before one call may try it again.
const PAUSE: Duration = Duration::from_secs(1);

/// A store behind a deadline and a breaker.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    store: S,
    deadline: Duration,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    /// When the store was last found failing, once `failures` has reached its limit.
    closed_off: Option<Tick>,
}

// === impl Guarded ===

impl<S: Store> Guarded<S> {
    pub(super) fn new(store: S, deadline: Duration) -> Self {
        Self { store, deadline, health: Mutex::default() }
    }

    pub(super) async fn get(&self, key: &Key, now: Tick) -> Result<Option<Found>> {
        self.call(now, self.store.get(key, now)).await
    }

    pub(super) async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        self.call(now, self.store.put(key, value, lifetime, now)).await
    }

    pub(super) async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.call(now, self.store.delete(key)).await
    }

    async fn call<T>(&self, now: Tick, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.admit(now)?;
        let result = tokio::select! {
            biased;
            result = call => result,
            // No timer is made for a store that does not wait.
            () = async { tokio::time::sleep(self.deadline).await } => {
                Err(Error::new(Kind::Store, format!("no answer from the store within {:?}", self.deadline)))
            }
        };
        self.learn(now, result.is_ok());
        result
    }

    fn admit(&self, now: Tick) -> Result<()> {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        match health.closed_off {
            Some(since) if now.since(since) < PAUSE => {
                Err(Error::new(Kind::CircuitOpen, format!("the store failed {FAILURES} times in a row")))
            }
            // This call is the probe; the others stay away until it is back, or for another pause.
            Some(_) => {
                health.closed_off = Some(now);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn learn(&self, now: Tick, well: bool) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if well {
            *health = Health::default();
            return;
        }
        health.failures = health.failures.saturating_add(1);
        if health.failures >= FAILURES {
            health.closed_off = Some(now);
        }
    }
}
