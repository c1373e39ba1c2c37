//! A store that a command is about, wherever it is, and one way to walk through it.

use std::sync::Arc;

use indicatif::ProgressBar;
use throughline::cache::disk::{Disk, DiskEntries, RunningEntries};
use throughline::cache::redis::{Redis, RedisConfig, RedisEntries};
use throughline::cache::{Entries as _, Entry, Found, InMemory, MemoryEntries};
use throughline::{Key, Result};

use super::progress;
use crate::config::{Config, Place, Store};

/// A store that answers are kept in.
pub(crate) struct Target {
    /// What operators call it.
    pub(crate) name: String,
    /// Where it is, for people.
    pub(crate) place: String,
    kind: Kind,
    /// The memories of this process in front of it: they forget what is removed from it.
    fronts: Vec<InMemory>,
    /// Models whose answers other processes hold in memory too, in front of it.
    copied: Vec<String>,
    /// Whether it is this process that uses it: then how far a walk is stays untold.
    own: bool,
}

enum Kind {
    Store(Box<Store>),
    /// A server that this process uses as well.
    Redis(Box<RedisConfig>, Arc<Redis>),
    /// A file that this process has open.
    Disk(Arc<Disk>),
    /// In this process.
    Memory(InMemory),
}

/// The entries of a store of any kind.
pub(super) struct Opened<'a> {
    entries: AnyEntries,
    target: &'a Target,
}

enum AnyEntries {
    Redis(RedisEntries),
    File(DiskEntries),
    Disk(RunningEntries),
    Memory(MemoryEntries),
}

/// What `$does` with the entries, of whichever kind they are.
macro_rules! entries {
    ($any:expr, $entries:ident => $does:expr) => {
        match &mut $any {
            AnyEntries::Redis($entries) => $does,
            AnyEntries::File($entries) => $does,
            AnyEntries::Disk($entries) => $does,
            AnyEntries::Memory($entries) => $does,
        }
    };
}

/// The models whose answers gateways hold in memory too, in front of this store. A file is one gateway's own.
fn copied(config: &Config, store: &str) -> Vec<String> {
    let shared = matches!(config.stores.get(store), Some(Store::Redis(_)));
    let models = config.models.iter().filter(|(_, model)| {
        let place = model.cache.as_ref().map(|cache| &cache.place);
        shared && matches!(place, Some(Place::Both(_, behind)) if behind == store)
    });
    models.map(|(name, _)| name.clone()).collect()
}

// === impl Target ===

impl Target {
    /// The store as it is, outside of this process.
    pub(super) fn outside(name: &str, store: &Store, config: &Config) -> Self {
        let kind = Kind::Store(Box::new(store.clone()));
        Self { copied: copied(config, name), own: false, ..Self::new(name, store.shown(), kind, Vec::new()) }
    }

    /// A server that this process uses as well, with its memories in front of it.
    pub(crate) fn redis(
        name: &str,
        (config, redis): (&RedisConfig, Arc<Redis>),
        place: String,
        fronts: Vec<InMemory>,
        of: &Config,
    ) -> Self {
        let kind = Kind::Redis(Box::new(config.clone()), redis);
        Self { copied: copied(of, name), ..Self::new(name, place, kind, fronts) }
    }

    /// A file that this process has open, with its memories in front of it.
    pub(crate) fn disk(name: &str, disk: Arc<Disk>, place: String, fronts: Vec<InMemory>) -> Self {
        Self::new(name, place, Kind::Disk(disk), fronts)
    }

    /// A memory of this process.
    pub(crate) fn memory(name: &str, memory: InMemory, place: String) -> Self {
        Self::new(name, place, Kind::Memory(memory), Vec::new())
    }

    fn new(name: &str, place: String, kind: Kind, fronts: Vec<InMemory>) -> Self {
        Self { name: name.to_owned(), place, kind, fronts, copied: Vec::new(), own: true }
    }

    /// Where what is removed from it lives on.
    pub(super) fn copies(&self) -> Option<String> {
        let who = if self.own { "other gateways" } else { "running gateways" };
        (!self.copied.is_empty()).then(|| {
            format!(
                "{who} drop their copies of {} in memory at once if their user may `client tracking`, and else when the ttl is over",
                self.copied.join(", ")
            )
        })
    }

    /// What it holds.
    ///
    /// # Errors
    /// When it cannot be reached or opened.
    pub(super) async fn open(&self) -> Result<Opened<'_>> {
        let entries = match &self.kind {
            Kind::Store(store) => match &**store {
                Store::Redis(config) => AnyEntries::Redis(RedisEntries::connect(config).await?),
                Store::Disk(config) => AnyEntries::File(DiskEntries::open(config.clone())?),
            },
            Kind::Redis(config, redis) => {
                // What has been answered is on its way there.
                redis.flush().await;
                AnyEntries::Redis(RedisEntries::connect(config).await?)
            }
            Kind::Disk(disk) => AnyEntries::Disk(disk.entries()),
            Kind::Memory(memory) => AnyEntries::Memory(memory.entries()),
        };
        Ok(Opened { entries, target: self })
    }
}

// === impl Opened ===

impl Opened<'_> {
    /// A bar for a walk through all entries.
    pub(super) async fn bar(&mut self) -> ProgressBar {
        if self.target.own {
            return ProgressBar::hidden();
        }
        // A user may not be allowed to ask for it. A bar of unknown length is a bar.
        let count = entries!(self.entries, entries => entries.count().await).unwrap_or_default();
        progress::bar(count, &format!("store {}", self.target.name))
    }

    /// Some more entries. Others have their turn before them.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        tokio::task::yield_now().await;
        entries!(self.entries, entries => entries.next().await)
    }

    /// Removes these, from memory in front as well, and says how many there were.
    pub(super) async fn remove(&mut self, entries: &[Entry]) -> Result<u64> {
        let removed = entries!(self.entries, held => held.remove(entries).await);
        // Also where it failed: some may have gone.
        for front in &self.target.fronts {
            for entry in entries {
                front.forget(&entry.key);
            }
        }
        removed
    }

    pub(super) async fn get(&mut self, key: &Key) -> Result<Option<Found>> {
        entries!(self.entries, entries => entries.get(key).await)
    }
}
