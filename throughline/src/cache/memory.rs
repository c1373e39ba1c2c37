//! Values in this process's memory, bounded in bytes.

use bytes::Bytes;
use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, Weighter};

use super::key::Key;
use super::store::{Found, Lifetime, Lookup, Store};
use crate::error::{ConfigError, Result};
use crate::telemetry::Tick;

/// What an entry takes beside its value: key, times, links and tables that grow by doubling.
const ENTRY: u64 = 256;
/// The part of a value that the allocator may lose around it. What is counted and what the process takes are compared by
/// `cargo xtask bench memory`.
const LOST: u64 = 8;
/// A shard of the store has at least this many bytes, for a value must fit into one.
const SHARD_BYTES: u64 = 4 << 20;
/// The size that the store's own tables are laid out for.
const TYPICAL_VALUE: u64 = 2 << 10;

/// A store in memory. What is used least leaves when it is full (S3-FIFO).
///
/// Its bound is on what it holds, and on what the process takes for that with one heap: glibc's with `MALLOC_ARENA_MAX=1`
/// in the environment, which the gateway sees to itself. With as many arenas as it likes, the process may take far more when
/// several threads put large values at a high rate.
#[derive(Debug)]
pub struct Memory {
    entries: Cache<Key, Entry, Bytesize>,
    largest: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Bytes,
    stored: Tick,
    lifetime: Lifetime,
}

#[derive(Clone, Debug)]
struct Bytesize;

// === impl Memory ===

impl Memory {
    /// What an entry with a value of `length` bytes counts, in bytes.
    #[must_use]
    pub const fn counted(length: u64) -> u64 {
        length + length / LOST + ENTRY
    }

    /// A store of at most `capacity` bytes, keys and bookkeeping included.
    ///
    /// # Errors
    /// When `capacity` is below 64 KiB.
    pub fn new(capacity: u64) -> Result<Self, ConfigError> {
        if capacity < 64 << 10 {
            return Err(ConfigError::new(format!(
                "memory store of {capacity} bytes: it must have at least 65536"
            )));
        }
        let shards = usize::try_from((capacity / SHARD_BYTES).clamp(1, 64)).expect("64 fits");
        let shards = 1 << shards.ilog2();
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(capacity / TYPICAL_VALUE).unwrap_or(usize::MAX))
            .weight_capacity(capacity)
            .shards(shards)
            .build()
            .expect("every option is set");
        let entries = Cache::with_options(
            options,
            Bytesize,
            quick_cache::DefaultHashBuilder::default(),
            quick_cache::sync::DefaultLifecycle::default(),
        );
        Ok(Self { entries, largest: capacity / shards as u64 / 2 })
    }

    /// Forgets the value under `key`, and says whether there was one.
    pub(super) fn forget(&self, key: &Key) -> bool {
        self.entries.remove(key).is_some()
    }

    /// Forgets all values.
    pub(super) fn clear(&self) {
        self.entries.clear();
    }

    /// The value under `key`, however old it is. It counts as no use of it.
    pub(super) fn peek(&self, key: &Key) -> Option<Found> {
        let entry = self.entries.peek(key)?;
        Some(Found { age: entry.stored.elapsed(), lifetime: entry.lifetime, value: entry.value })
    }

    /// Every value, one after the other: nothing is locked between two of them, and what comes or goes meanwhile may be
    /// missing.
    pub(super) fn walk(&self) -> impl Iterator<Item = (Key, Found)> {
        self.entries.iter().map(|(key, Entry { value, stored, lifetime })| {
            (key, Found { value, age: stored.elapsed(), lifetime })
        })
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Values held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Store for Memory {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        let Some(entry) = self.entries.get(key) else { return Ok(Lookup::Missing) };
        let age = now.since(entry.stored);
        if age >= entry.lifetime.kept {
            self.entries.remove(key);
            return Ok(Lookup::Missing);
        }
        Ok(Lookup::Found(Found { value: entry.value, age, lifetime: entry.lifetime }))
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        if Self::counted(value.len() as u64) > self.largest {
            return Ok(false);
        }
        self.entries.insert(key, Entry { value, stored: now, lifetime });
        Ok(true)
    }

    async fn delete(&self, key: &Key, _: Tick) -> Result<()> {
        self.entries.remove(key);
        Ok(())
    }
}

impl Weighter<Key, Entry> for Bytesize {
    fn weight(&self, _: &Key, entry: &Entry) -> u64 {
        Memory::counted(entry.value.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Clock;
    use crate::cache::key::KeyBuilder;

    const HOUR: Lifetime = Lifetime {
        fresh: Duration::from_secs(3600),
        kept: Duration::from_secs(3600),
        computed_in: Duration::ZERO,
    };

    fn key(n: usize) -> Key {
        KeyBuilder::new("test", 0).part(&n.to_le_bytes()).build()
    }

    #[tokio::test]
    async fn never_holds_more_than_its_capacity() {
        let store = Memory::new(1 << 20).unwrap();
        for n in 0..10_000 {
            store.put(key(n), Bytes::from(vec![7; 1000]), HOUR, Clock::Tokio.now()).await.unwrap();
            assert!(store.bytes() <= 1 << 20);
        }
        assert!(store.len() > 600, "{} of about 750 fit", store.len());
    }

    #[tokio::test]
    async fn refuses_a_value_that_would_push_out_everything_else() {
        let store = Memory::new(1 << 20).unwrap();
        let huge = Bytes::from(vec![0; 700 << 10]);
        assert!(!store.put(key(1), huge, HOUR, Clock::Tokio.now()).await.unwrap());
        assert!(store.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_a_value_that_is_too_old() {
        let store = Memory::new(1 << 20).unwrap();
        store.put(key(1), Bytes::from_static(b"x"), HOUR, Clock::Tokio.now()).await.unwrap();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(matches!(store.get(&key(1), Clock::Tokio.now()).await, Ok(Lookup::Missing)));
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn refuses_a_capacity_that_holds_nothing() {
        let error = Memory::new(10).unwrap_err();
        assert_eq!(error.to_string(), "memory store of 10 bytes: it must have at least 65536");
    }
}
