//! Where cached values live.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::claim::Claim;
use super::health::StoreHealth;
use super::key::Key;
use crate::error::Result;
use crate::telemetry::{Registry, Tick};

/// How long a value may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Until this age it is served as it is.
    pub fresh: Duration,
    /// Until this age it is kept, to be served stale.
    pub kept: Duration,
    /// How long it took to compute: what is dear is refreshed earlier. Zero where that is not known.
    pub computed_in: Duration,
}

/// A stored value.
#[derive(Clone)]
pub struct Found {
    /// What was stored.
    pub value: Bytes,
    /// Since when.
    pub age: Duration,
    /// For how long.
    pub lifetime: Lifetime,
}

/// What a store has under a key.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Nothing, or nothing that may still be served.
    Missing,
    /// A value.
    Found(Found),
    /// Something that this store has not written, or not like that. The cache deletes it.
    Corrupt,
}

// === impl Lookup ===

impl Lookup {
    /// Whether it is a value that is served as it is.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, Self::Found(found) if found.age < found.lifetime.fresh)
    }
}

/// Is told the key of a value that somebody else has changed or removed; `None` when it may be any.
pub type OnChange = Arc<dyn Fn(Option<&Key>) + Send + Sync>;

/// A place for values under keys. It may lose any of them at any time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store",
    note = "`Memory::new(bytes)?` is one: it gives a `Result`, because a size can be too small"
)]
pub trait Store: Send + Sync {
    /// The value under `key`, unless it is older than it may be kept.
    ///
    /// # Errors
    /// When the store cannot say.
    fn get(&self, key: &Key, now: Tick) -> impl Future<Output = Result<Lookup>> + Send;

    /// Stores `value`; `false` when it is too large for this store.
    ///
    /// # Errors
    /// When the store failed. One of [`Kind::Rejected`](crate::Kind::Rejected) says that too much is under way already, and
    /// is not held against the store.
    fn put(
        &self,
        key: Key,
        value: Bytes,
        lifetime: Lifetime,
        now: Tick,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// Removes the value under `key`, if there is one.
    ///
    /// # Errors
    /// When the store failed.
    fn delete(&self, key: &Key, now: Tick) -> impl Future<Output = Result<()>> + Send;

    /// Whether this store can say who of several replicas computes a value: see [`Store::claim`]. Default: no.
    fn keeps_claims(&self) -> bool {
        false
    }

    /// Claims the computing of the value under `key` for this process. A claim ends when the value is stored, when it
    /// is released, and a while after its holder has gone. Default: nobody has to ask.
    ///
    /// # Errors
    /// When the store cannot say.
    fn claim(&self, key: &Key) -> impl Future<Output = Result<Claim>> + Send {
        let _ = key;
        std::future::ready(Ok(Claim::Nobodys))
    }

    /// Gives a claim up, without waiting for it. Default: there is none.
    fn release(&self, key: &Key) {
        let _ = key;
    }

    /// Has `listener` told of values that others have changed or removed, where the store hears of that. It must be
    /// called before the store is first used. Default: it does not.
    fn on_change(&self, listener: OnChange) {
        let _ = listener;
    }

    /// What all caches on this store know of it together, for a store that can fail. Default: each cache finds
    /// out for itself.
    fn health(&self) -> Option<Arc<StoreHealth>> {
        None
    }

    /// Shows in `registry` how the store is. Default: its [`Store::health`], if it has one.
    fn declare(&self, registry: &Registry) {
        if let Some(health) = self.health() {
            health.shows_in(registry);
        }
    }
}

/// One store for several caches.
impl<S: Store> Store for Arc<S> {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        (**self).get(key, now).await
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        (**self).put(key, value, lifetime, now).await
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        (**self).delete(key, now).await
    }

    fn keeps_claims(&self) -> bool {
        (**self).keeps_claims()
    }

    async fn claim(&self, key: &Key) -> Result<Claim> {
        (**self).claim(key).await
    }

    fn release(&self, key: &Key) {
        (**self).release(key);
    }

    fn on_change(&self, listener: OnChange) {
        (**self).on_change(listener);
    }

    fn health(&self) -> Option<Arc<StoreHealth>> {
        (**self).health()
    }

    fn declare(&self, registry: &Registry) {
        (**self).declare(registry);
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Found({} bytes, {:?} old)", self.value.len(), self.age)
    }
}
