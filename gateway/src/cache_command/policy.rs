//! Caches to simulate: our own memory store, and others to compare it with. Time is what the trace says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use throughline::cache::{Lifetime, Lookup};
use throughline::telemetry::Tick;
use throughline::{Clock, ConfigError, Key, Memory, Store as _};

/// A cache whose values are nothing but their sizes.
pub(super) trait Simulated {
    /// Whether it has a value for `key` that is younger than its ttl.
    fn lookup(&mut self, key: &Key, at: Duration) -> bool;

    /// Gives it a value of so many bytes.
    fn store(&mut self, key: Key, bytes: u64, ttl: Duration, at: Duration);

    /// How many bytes it holds.
    fn bytes(&self) -> u64;
}

/// The store that a gateway has in its memory, as it is.
pub(super) struct Real {
    store: Memory,
    begun: Tick,
    /// Values are cut from this.
    nothing: Bytes,
}

/// Who was not asked for longest leaves.
pub(super) struct Lru {
    capacity: u64,
    used: u64,
    /// Counts what is asked, for the order.
    asked: u64,
    entries: HashMap<Key, Entry>,
    order: BTreeMap<u64, Key>,
}

struct Entry {
    bytes: u64,
    expires: Duration,
    asked: u64,
}

// === impl Real ===

impl Real {
    /// A store of so many bytes, for values of up to `largest`.
    ///
    /// # Errors
    /// When the store refuses the size.
    pub(super) fn new(capacity: u64, largest: u64) -> Result<Self, ConfigError> {
        let largest = usize::try_from(largest).unwrap_or(usize::MAX);
        let nothing = Bytes::from(vec![0; largest]);
        Ok(Self { store: Memory::new(capacity)?, begun: Clock::Tokio.now(), nothing })
    }
}

impl Simulated for Real {
    fn lookup(&mut self, key: &Key, at: Duration) -> bool {
        let found = self.store.get(key, self.begun.after(at)).now_or_never();
        matches!(found.expect("memory does not wait"), Ok(Lookup::Found(_)))
    }

    fn store(&mut self, key: Key, bytes: u64, ttl: Duration, at: Duration) {
        let value =
            self.nothing.slice(..usize::try_from(bytes).unwrap_or(usize::MAX).min(self.nothing.len()));
        let lifetime = Lifetime { fresh: ttl, kept: ttl, computed_in: Duration::ZERO };
        let put = self.store.put(key, value, lifetime, self.begun.after(at)).now_or_never();
        put.expect("memory does not wait").expect("memory does not fail");
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }
}

// === impl Lru ===

impl Lru {
    pub(super) fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, asked: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.asked);
            self.used -= entry.bytes;
        }
    }
}

impl Simulated for Lru {
    fn lookup(&mut self, key: &Key, at: Duration) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        if at >= entry.expires {
            self.remove(key);
            return false;
        }
        self.asked += 1;
        self.order.remove(&std::mem::replace(&mut entry.asked, self.asked));
        self.order.insert(self.asked, *key);
        true
    }

    fn store(&mut self, key: Key, bytes: u64, ttl: Duration, at: Duration) {
        self.remove(&key);
        let bytes = Memory::counted(bytes);
        if bytes > self.capacity {
            return;
        }
        while self.used + bytes > self.capacity
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = *oldest;
            self.remove(&oldest);
        }
        self.asked += 1;
        self.used += bytes;
        self.order.insert(self.asked, key);
        self.entries.insert(key, Entry { bytes, expires: at.saturating_add(ttl), asked: self.asked });
    }

    fn bytes(&self) -> u64 {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use throughline::KeyBuilder;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(n: u64) -> Key {
        KeyBuilder::new("test", 0).part(&n.to_le_bytes()).build()
    }

    #[test]
    fn who_was_not_asked_for_longest_leaves_first() {
        let mut lru = Lru::new(3 * Memory::counted(100));
        for n in 0..3 {
            lru.store(key(n), 100, HOUR, Duration::ZERO);
        }
        assert!(lru.lookup(&key(0), Duration::ZERO));
        lru.store(key(3), 100, HOUR, Duration::ZERO);
        let held: Vec<_> = (0..4).filter(|n| lru.entries.contains_key(&key(*n))).collect();
        assert_eq!(held, [0, 2, 3]);
        assert_eq!(lru.bytes(), 3 * Memory::counted(100));
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept_and_pushes_nobody_out() {
        let mut lru = Lru::new(1000);
        lru.store(key(0), 100, HOUR, Duration::ZERO);
        lru.store(key(1), 1000, HOUR, Duration::ZERO);
        assert!(lru.lookup(&key(0), Duration::ZERO) && !lru.lookup(&key(1), Duration::ZERO));
    }

    #[test]
    fn both_forget_after_the_ttl_of_the_trace() {
        let (mut lru, mut real) = (Lru::new(1 << 20), Real::new(1 << 20, 100).unwrap());
        let caches: [&mut dyn Simulated; 2] = [&mut lru, &mut real];
        for cache in caches {
            cache.store(key(0), 100, HOUR, 10 * HOUR);
            assert!(cache.lookup(&key(0), 11 * HOUR - Duration::from_millis(1)));
            assert!(!cache.lookup(&key(0), 11 * HOUR));
            assert_eq!(cache.bytes(), 0);
        }
    }
}
