//! What memory holds, for those who look after it.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::entries::{Entries, Entry, Stored};
use super::key::Key;
use super::memory::Memory;
use super::store::Found;
use super::tiered::Near;
use crate::error::Result;

/// Entries at once.
const PAGE: usize = 512;

/// A [`Memory`] that caches use, alone or in front of another store, to be looked into and purged meanwhile.
///
/// ```
/// use std::sync::Arc;
/// use throughline::Memory;
/// use throughline::cache::{Entries as _, InMemory};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Arc::new(Memory::new(1 << 20)?);
/// let mut entries = InMemory::from(&memory).entries();
/// while let Some(page) = entries.next().await? {
///     entries.remove(&page).await?;
/// }
/// assert!(memory.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct InMemory(Place);

#[derive(Clone, Debug)]
enum Place {
    Alone(Arc<Memory>),
    InFront(Arc<Near>),
}

/// The entries of a memory. The walk has a thread beside the asynchronous ones, and locks nothing for longer than an entry.
#[derive(Debug)]
pub struct MemoryEntries {
    place: Place,
    pages: Option<mpsc::Receiver<Vec<Entry>>>,
}

// === impl InMemory ===

impl InMemory {
    pub(super) fn in_front(near: Arc<Near>) -> Self {
        Self(Place::InFront(near))
    }

    /// Its entries, from the first.
    #[must_use]
    pub fn entries(&self) -> MemoryEntries {
        MemoryEntries { place: self.0.clone(), pages: None }
    }

    /// Drops the value under `key`, and says whether there was one. In front of a store, one that is just on its way from there
    /// is dropped as well.
    pub fn forget(&self, key: &Key) -> bool {
        self.0.forget(key)
    }
}

impl From<&Arc<Memory>> for InMemory {
    fn from(memory: &Arc<Memory>) -> Self {
        Self(Place::Alone(Arc::clone(memory)))
    }
}

// === impl Place ===

impl Place {
    fn memory(&self) -> &Memory {
        match self {
            Self::Alone(memory) => memory,
            Self::InFront(near) => &near.memory,
        }
    }

    fn forget(&self, key: &Key) -> bool {
        match self {
            Self::Alone(memory) => memory.forget(key),
            Self::InFront(near) => near.forget(key),
        }
    }
}

// === impl MemoryEntries ===

impl MemoryEntries {
    fn begin(place: Place) -> mpsc::Receiver<Vec<Entry>> {
        let (send, pages) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || {
            let mut entries = place.memory().walk().map(entry);
            loop {
                let page: Vec<Entry> = entries.by_ref().take(PAGE).collect();
                // Whoever asked may have gone.
                if page.is_empty() || send.blocking_send(page).is_err() {
                    return;
                }
            }
        });
        pages
    }
}

impl Entries for MemoryEntries {
    async fn get(&mut self, key: &Key) -> Result<Option<Found>> {
        Ok(self.place.memory().peek(key))
    }

    async fn count(&mut self) -> Result<u64> {
        Ok(self.place.memory().len() as u64)
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        let pages = self.pages.get_or_insert_with(|| Self::begin(self.place.clone()));
        Ok(pages.recv().await)
    }

    async fn remove(&mut self, entries: &[Entry]) -> Result<u64> {
        Ok(entries.iter().filter(|entry| self.place.forget(&entry.key)).count() as u64)
    }
}

fn entry((key, found): (Key, Found)) -> Entry {
    let Found { value, age, lifetime } = found;
    let length = value.len() as u64;
    let stored = Some(Stored { age, lifetime, length });
    Entry { key, name: key.to_string(), part: 0, bytes: Memory::counted(length), stored }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::Clock;
    use crate::cache::key::KeyBuilder;
    use crate::cache::store::{Lifetime, Lookup, Store as _};
    use crate::cache::tiered::Tiered;

    const HOUR: Lifetime = Lifetime {
        fresh: Duration::from_secs(3600),
        kept: Duration::from_secs(3600),
        computed_in: Duration::ZERO,
    };

    fn key(n: usize) -> Key {
        KeyBuilder::new("test", 0).part(&n.to_le_bytes()).build()
    }

    async fn filled(count: usize) -> Arc<Memory> {
        let memory = Arc::new(Memory::new(16 << 20).unwrap());
        for n in 0..count {
            memory.put(key(n), Bytes::from_static(b"x"), HOUR, Clock::Tokio.now()).await.unwrap();
        }
        memory
    }

    #[tokio::test(start_paused = true)]
    async fn every_entry_is_listed_once_with_its_age() {
        let memory = filled(PAGE * 2 + 7).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let mut entries = InMemory::from(&memory).entries();
        assert_eq!(entries.count().await.unwrap(), PAGE as u64 * 2 + 7);
        let mut listed = Vec::new();
        while let Some(page) = entries.next().await.unwrap() {
            listed.extend(page);
        }
        assert!(entries.next().await.unwrap().is_none(), "the end stays the end");
        let stored = listed[0].stored.unwrap();
        assert_eq!((stored.age, stored.length), (Duration::from_secs(60), 1));
        let mut keys: Vec<_> = listed.iter().map(|entry| entry.key.to_string()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), PAGE * 2 + 7);
    }

    #[tokio::test]
    async fn only_what_is_named_is_removed_and_only_what_was_there_counts() {
        let memory = filled(10).await;
        let mut entries = InMemory::from(&memory).entries();
        let page = entries.next().await.unwrap().unwrap();
        assert_eq!(entries.remove(&page[..3]).await.unwrap(), 3);
        assert_eq!(entries.remove(&page[..4]).await.unwrap(), 1);
        assert_eq!(memory.len(), 6);
        assert!(entries.get(&page[0].key).await.unwrap().is_none());
        assert_eq!(&entries.get(&page[9].key).await.unwrap().unwrap().value[..], b"x");
    }

    /// A store that gives its value away and is purged before that has arrived.
    struct PurgedMeanwhile(Memory, std::sync::OnceLock<InMemory>);

    impl crate::cache::Store for PurgedMeanwhile {
        async fn get(&self, key: &Key, now: crate::telemetry::Tick) -> Result<Lookup> {
            let found = self.0.get(key, now).await;
            self.0.delete(key, now).await?;
            self.1.get().expect("it is set before it is asked").forget(key);
            found
        }

        async fn put(&self, _: Key, _: Bytes, _: Lifetime, _: crate::telemetry::Tick) -> Result<bool> {
            Ok(false)
        }

        async fn delete(&self, _: &Key, _: crate::telemetry::Tick) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_was_on_its_way_into_memory_during_a_purge_does_not_stay() {
        let now = Clock::Tokio.now();
        let far = Memory::new(1 << 20).unwrap();
        far.put(key(1), Bytes::from_static(b"x"), HOUR, now).await.unwrap();
        let far = Arc::new(PurgedMeanwhile(far, std::sync::OnceLock::new()));
        let tiered =
            Tiered::new(Memory::new(1 << 20).unwrap(), Arc::clone(&far), Duration::from_secs(1)).unwrap();
        far.1.set(tiered.in_memory()).unwrap();
        assert!(matches!(tiered.get(&key(1), now).await, Ok(Lookup::Found(_))), "who has asked gets it");
        assert!(matches!(tiered.get(&key(1), now).await, Ok(Lookup::Missing)), "and nobody after");
    }
}
