//! A store in this process's memory in front of one that is shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::claim::Claim;
use super::guard::Guarded;
use super::in_memory::InMemory;
use super::key::Key;
use super::memory::Memory;
use super::store::{Lifetime, Lookup, Store};
use crate::Clock;
use crate::error::{ConfigError, Result};
use crate::telemetry::{Registry, Tick};

/// Memory in front of a shared store. What is found in memory is not asked for again, and while the shared store is
/// down memory goes on alone: what it does not have is then a miss.
///
/// A value that somebody else deletes or replaces in the shared store is dropped from memory as soon as that store tells of
/// it, and all are when it may have missed something. From a store that does not tell, it is served until its time is over.
#[derive(Debug)]
pub struct Tiered<S> {
    near: Arc<Near>,
    far: Guarded<S>,
}

#[derive(Debug)]
pub(super) struct Near {
    pub(super) memory: Memory,
    /// How often keys were changed by others, by the first byte of the key: what was found before must not be kept after.
    changes: [AtomicU64; 256],
}

// === impl Tiered ===

impl<S: Store> Tiered<S> {
    /// `memory` in front of `shared`, each of whose calls may take as long as `deadline`. Give the cache a longer
    /// [`store_deadline`](crate::CacheConfig::store_deadline).
    ///
    /// # Errors
    /// When the deadline is zero.
    pub fn new(memory: Memory, shared: S, deadline: Duration) -> Result<Self, ConfigError> {
        if deadline.is_zero() {
            return Err(ConfigError::refused("shared store deadline", format_args!("0s"), "more"));
        }
        let near = Arc::new(Near { memory, changes: [const { AtomicU64::new(0) }; 256] });
        let told = Arc::downgrade(&near);
        shared.on_change(Arc::new(move |key| {
            if let Some(near) = told.upgrade() {
                near.change(key);
            }
        }));
        Ok(Self { near, far: Guarded::new(shared, deadline) })
    }

    /// The memory in front, for those who look after it.
    #[must_use]
    pub fn in_memory(&self) -> InMemory {
        InMemory::in_front(Arc::clone(&self.near))
    }
}

// === impl Near ===

impl Near {
    fn change(&self, key: Option<&Key>) {
        let Some(key) = key else {
            for changes in &self.changes {
                changes.fetch_add(1, Ordering::SeqCst);
            }
            return self.memory.clear();
        };
        self.forget(key);
    }

    /// Drops the value under `key`, also one that is just on its way here, and says whether there was one.
    pub(super) fn forget(&self, key: &Key) -> bool {
        self.changes_of(key).fetch_add(1, Ordering::SeqCst);
        self.memory.forget(key)
    }

    fn changes_of(&self, key: &Key) -> &AtomicU64 {
        &self.changes[usize::from(key.as_bytes()[0])]
    }
}

impl<S: Store> Store for Tiered<S> {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        let near = self.near.memory.get(key, now).await?;
        if near.is_fresh() {
            return Ok(near);
        }
        let changes = self.near.changes_of(key).load(Ordering::SeqCst);
        // That the shared store fails is seen in its health; the answer is kept in memory as after any miss.
        let found = self.far.get(key, now).await.unwrap_or(Lookup::Missing);
        if let Lookup::Found(found) = &found
            && found.age < found.lifetime.fresh
        {
            let Lifetime { fresh, kept, computed_in } = found.lifetime;
            let left =
                Lifetime { fresh: fresh - found.age, kept: kept.saturating_sub(found.age), computed_in };
            self.near.memory.put(*key, found.value.clone(), left, now).await?;
            if self.near.changes_of(key).load(Ordering::SeqCst) != changes {
                self.near.memory.forget(key);
            }
        }
        // A stale value at hand is as good as a stale one from afar, and better than none.
        match near {
            Lookup::Found(_) if !found.is_fresh() => Ok(near),
            _ => Ok(found),
        }
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        let near = self.near.memory.put(key, value.clone(), lifetime, now).await?;
        let far = self.far.put(key, value, lifetime, now).await.unwrap_or_default();
        Ok(near || far)
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.near.memory.delete(key, now).await?;
        // A value that stays is replaced by the next one.
        let _ = self.far.delete(key, now).await;
        Ok(())
    }

    fn keeps_claims(&self) -> bool {
        self.far.keeps_claims()
    }

    async fn claim(&self, key: &Key) -> Result<Claim> {
        self.far.claim(key, Clock::Tokio.now()).await
    }

    fn release(&self, key: &Key) {
        self.far.release(key);
    }

    fn declare(&self, registry: &Registry) {
        self.far.declare(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::KeyBuilder;
    use crate::error::{Error, Kind};

    const MINUTE: Lifetime = Lifetime {
        fresh: Duration::from_secs(60),
        kept: Duration::from_secs(60),
        computed_in: Duration::ZERO,
    };
    const DEADLINE: Duration = Duration::from_millis(20);

    struct Down;

    impl Store for Down {
        async fn get(&self, _: &Key, _: Tick) -> Result<Lookup> {
            Err(Error::new(Kind::Store, "refused"))
        }

        async fn put(&self, _: Key, _: Bytes, _: Lifetime, _: Tick) -> Result<bool> {
            std::future::pending().await
        }

        async fn delete(&self, _: &Key, _: Tick) -> Result<()> {
            Err(Error::new(Kind::Store, "refused"))
        }
    }

    fn key() -> Key {
        KeyBuilder::new("test", 0).build()
    }

    fn memory() -> Memory {
        Memory::new(1 << 20).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_in_the_shared_store_stays_near_and_becomes_no_younger_by_it() {
        let shared = Arc::new(memory());
        let tiered = Tiered::new(memory(), Arc::clone(&shared), DEADLINE).unwrap();
        shared.put(key(), Bytes::from_static(b"x"), MINUTE, Clock::Tokio.now()).await.unwrap();
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(matches!(tiered.get(&key(), Clock::Tokio.now()).await, Ok(Lookup::Found(_))));
        shared.delete(&key(), Clock::Tokio.now()).await.unwrap();
        tokio::time::advance(Duration::from_secs(19)).await;
        assert!(matches!(tiered.get(&key(), Clock::Tokio.now()).await, Ok(Lookup::Found(_))));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(tiered.get(&key(), Clock::Tokio.now()).await, Ok(Lookup::Missing)));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_goes_on_alone_while_the_shared_store_is_down() {
        let tiered = Tiered::new(memory(), Down, DEADLINE).unwrap();
        for _ in 0..10 {
            let now = Clock::Tokio.now();
            tiered.delete(&key(), now).await.unwrap();
            assert!(matches!(tiered.get(&key(), now).await, Ok(Lookup::Missing)));
            assert!(tiered.put(key(), Bytes::from_static(b"x"), MINUTE, now).await.unwrap());
            assert!(matches!(tiered.get(&key(), now).await, Ok(Lookup::Found(_))));
        }
    }
}
