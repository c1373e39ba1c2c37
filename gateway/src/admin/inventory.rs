//! What operators can reach: the configured stores, the memory of each model, and the tokens that open the port.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use throughline::cache::InMemory;

use crate::cache_command::open::unknown_store;
use crate::cache_command::report::size;
use crate::cache_command::target::Target;
use crate::config::{self, Config, Place};
use crate::parts::Parts;
use crate::stores::Opened;

/// What one configuration lets operators reach.
pub(crate) struct Inventory {
    /// Memory before the stores behind it: what is still on its way into memory is then dropped with the store's own entry.
    held: Vec<Held>,
    models: Vec<String>,
    /// Of each token, what tells it from others. They are compared in constant time.
    tokens: Vec<blake3::Hash>,
}

struct Held {
    target: Target,
    /// The store that it is in front of.
    behind: Option<String>,
}

// === impl Inventory ===

impl Inventory {
    /// Of `config` and what was made of it.
    pub(crate) fn new(config: &Config, parts: &Parts) -> Self {
        let memories = config.models.iter().filter_map(|(name, model)| {
            let (memory, bytes, behind) = match &model.cache.as_ref()?.place {
                Place::Memory(bytes) => (InMemory::from(&parts.memory(name)), *bytes, None),
                Place::Both(bytes, store) => (parts.front(name)?, *bytes, Some(store.clone())),
                Place::Store(_) => return None,
            };
            let mut place = format!("in this gateway's memory, at most {}", size(bytes as u64));
            if let Some(store) = &behind {
                place += &format!(", in front of {store}");
            }
            let target = Target::memory(&format!("memory:{name}"), memory, place);
            Some(Held { target, behind })
        });
        let stores = config.stores.iter().filter_map(|(name, store)| {
            let fronts =
                config.models.iter().filter_map(|(model, config)| match &config.cache.as_ref()?.place {
                    Place::Both(_, behind) if behind == name => parts.front(model),
                    _ => None,
                });
            let (fronts, place) = (fronts.collect(), store.shown());
            let target = match (store, &parts.stores.get(name)?.made) {
                (config::Store::Redis(server), Opened::Redis(redis, _)) => {
                    Target::redis(name, (server, Arc::clone(redis)), place, fronts, config)
                }
                (_, Opened::Disk(disk, _)) => Target::disk(name, disk.clone(), place, fronts),
                _ => return None,
            };
            Some(Held { target, behind: None })
        });
        let tokens = config.admin.iter().flat_map(|admin| &admin.tokens);
        Self {
            held: memories.chain(stores).collect(),
            models: config.models.keys().cloned().collect(),
            tokens: tokens.map(|token| blake3::hash(token.expose_secret().as_bytes())).collect(),
        }
    }

    /// Whether `token` is one of the configured ones. Each is compared, whatever the others gave.
    pub(super) fn admits(&self, token: &str) -> bool {
        let shown = blake3::hash(token.as_bytes());
        self.tokens.iter().fold(false, |found, known| found | (*known == shown))
    }

    /// The names of the models.
    pub(super) fn models(&self) -> impl Iterator<Item = &String> {
        self.models.iter()
    }

    /// Those called by one of `names`, with the memories in front of them; all where nothing is named.
    ///
    /// # Errors
    /// When one of the names is none.
    pub(super) fn chosen(&self, names: &[String]) -> Result<Vec<&Target>, String> {
        let known: Vec<_> = self.held.iter().map(|held| held.target.name.as_str()).collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(unknown_store(unknown, &known));
        }
        let chosen = |held: &&Held| {
            let behind = held.behind.as_ref();
            names.is_empty()
                || names.contains(&held.target.name)
                || behind.is_some_and(|name| names.contains(name))
        };
        Ok(self.held.iter().filter(chosen).map(|held| &held.target).collect())
    }
}
