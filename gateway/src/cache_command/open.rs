//! The stores that a command is about, and one way to walk through each.

use std::path::Path;

use indicatif::ProgressBar;
use throughline::cache::disk::DiskEntries;
use throughline::cache::redis::RedisEntries;
use throughline::cache::{Entries, Entry, Found};
use throughline::{Key, Result};

use super::args::Where;
use super::{Ended, progress};
use crate::config::{Config, Place, Store, nearest};

/// The configuration that is looked for when none is named.
const DEFAULT_FILE: &str = "throughline.toml";

/// The entries of a store of either kind.
pub(super) enum Opened {
    Redis(RedisEntries),
    Disk(DiskEntries),
}

/// The configuration that a command is to use.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn configuration(args: &Where) -> std::result::Result<Config, Ended> {
    let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let config = Config::load(path, &|name| std::env::var(name).ok());
    let config = config.map_err(|errors| Ended::Refused(errors.to_string()))?;
    let known: Vec<_> = config.stores.keys().map(String::as_str).collect();
    if config.stores.is_empty() {
        let problem = format!(
            "{}: there is no store in it: answers are kept in the gateway's memory, and end with it",
            path.display()
        );
        return Err(Ended::Refused(problem));
    }
    if let Some(unknown) = args.store.iter().find(|name| !config.stores.contains_key(*name)) {
        let hint =
            nearest(unknown, &known).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        let problem = format!("unknown store `{unknown}`{hint} (configured: {})", known.join(", "));
        return Err(Ended::Refused(problem));
    }
    Ok(config)
}

/// The stores that a command is about, by name.
pub(super) fn chosen<'a>(config: &'a Config, args: &'a Where) -> impl Iterator<Item = (&'a str, &'a Store)> {
    let chosen = |name: &String| args.store.is_empty() || args.store.contains(name);
    config.stores.iter().filter(move |(name, _)| chosen(name)).map(|(name, store)| (name.as_str(), store))
}

/// The models whose answers running gateways hold in memory too, in front of this store. A disk store's gateway has
/// ended.
pub(super) fn in_memory<'a>(config: &'a Config, store: &'a str) -> impl Iterator<Item = &'a str> {
    let shared = matches!(config.stores.get(store), Some(Store::Redis(_)));
    config.models.iter().filter_map(move |(name, model)| match &model.cache.as_ref()?.place {
        Place::Both(_, behind) if behind == store && shared => Some(name.as_str()),
        _ => None,
    })
}

/// What a store said, with its name.
pub(super) fn failed(store: &str, error: &throughline::Error) -> String {
    let message = error.to_string();
    let hint = if message.starts_with("another process has ") {
        "; stop the gateway that has it, and start it again afterwards"
    } else {
        ""
    };
    format!("store {store}: {message}{hint}")
}

/// All failures of a command as its end.
pub(super) fn ended(failures: &[String]) -> std::result::Result<(), Ended> {
    if failures.is_empty() { Ok(()) } else { Err(Ended::Failed(failures.join("\n"))) }
}

// === impl Opened ===

impl Opened {
    pub(super) async fn new(store: &Store) -> Result<Self> {
        Ok(match store {
            Store::Redis(config) => Self::Redis(RedisEntries::connect(config).await?),
            Store::Disk(config) => Self::Disk(DiskEntries::open(config.clone())?),
        })
    }

    /// A bar for a walk through all entries.
    pub(super) async fn bar(&mut self, what: &str) -> ProgressBar {
        let count = match self {
            Self::Redis(store) => store.count().await,
            Self::Disk(store) => store.count().await,
        };
        // A user may not be allowed to ask for it. A bar of unknown length is a bar.
        progress::bar(count.unwrap_or_default(), what)
    }

    pub(super) async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        match self {
            Self::Redis(store) => store.next().await,
            Self::Disk(store) => store.next().await,
        }
    }

    pub(super) async fn remove(&mut self, entries: &[Entry]) -> Result<u64> {
        match self {
            Self::Redis(store) => store.remove(entries).await,
            Self::Disk(store) => store.remove(entries).await,
        }
    }

    pub(super) async fn get(&mut self, key: &Key) -> Result<Option<Found>> {
        match self {
            Self::Redis(store) => store.get(key).await,
            Self::Disk(store) => store.get(key).await,
        }
    }
}
