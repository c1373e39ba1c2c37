//! Keeps a sick store from slowing down requests: a deadline for every call, and after some failures in a
//! row no calls at all for a while.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::claim::Claim;
use super::health::{Call, StoreHealth};
use super::key::Key;
use super::patience::Patience;
use super::store::{Lifetime, Lookup, Store};
use crate::error::{Error, Kind, Result};
use crate::telemetry::{Registry, Tick};

/// A store behind a deadline and a breaker.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    store: S,
    deadline: Duration,
    patience: Patience,
    health: Arc<StoreHealth>,
}

// === impl Guarded ===

impl<S: Store> Guarded<S> {
    pub(super) fn new(store: S, deadline: Duration) -> Self {
        let health = store.health().unwrap_or_else(|| Arc::new(StoreHealth::new("")));
        Self { store, deadline, patience: Patience::new(deadline), health }
    }

    /// Shows in `registry` how the store is.
    pub(super) fn declare(&self, registry: &Registry) {
        self.store.declare(registry);
    }

    pub(super) async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        self.call(Call::Read, now, self.store.get(key, now)).await
    }

    pub(super) async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        self.call(Call::Write, now, self.store.put(key, value, lifetime, now)).await
    }

    pub(super) async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.call(Call::Write, now, self.store.delete(key, now)).await
    }

    pub(super) fn keeps_claims(&self) -> bool {
        self.store.keeps_claims()
    }

    pub(super) async fn claim(&self, key: &Key, now: Tick) -> Result<Claim> {
        self.call(Call::Write, now, self.store.claim(key)).await
    }

    pub(super) fn release(&self, key: &Key) {
        self.store.release(key);
    }

    async fn call<T>(&self, kind: Call, now: Tick, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.health.admit(kind, now)?;
        let late =
            || Err(Error::new(Kind::Store, format!("no answer from the store within {:?}", self.deadline)));
        let result = self.patience.wait_for(call).await.unwrap_or_else(late);
        // What this process refuses itself says nothing of the store.
        if !matches!(&result, Err(error) if error.kind() == Kind::Rejected) {
            self.health.learn(kind, now, result.as_ref().err());
        }
        result
    }
}
