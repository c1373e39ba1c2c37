//! The configured stores, each shared by all models that keep answers in it.

use std::sync::Arc;
use std::time::Duration;

use throughline::cache::disk::Disk;
use throughline::cache::redis::Redis;
use throughline::cache::{StoreHealth, Tiered};
use throughline::{CacheConfig, ConfigError, Memory, Store as _};
use throughline_llm::ChatCaching;

use crate::config::Store;
use crate::gateway::Model;

/// A store, with the deadline of a call.
#[derive(Clone)]
pub(crate) enum Opened {
    Redis(Arc<Redis>, Duration),
    Disk(Arc<Disk>, Duration),
}

// === impl Opened ===

impl Opened {
    /// The store of a configuration. Nothing is opened or connected yet.
    ///
    /// # Errors
    /// When the parts of the configuration do not fit each other.
    pub(crate) fn new(config: &Store) -> Result<Self, ConfigError> {
        Ok(match config {
            Store::Redis(config) => {
                Self::Redis(Arc::new(Redis::new(config.clone())?), config.call_deadline())
            }
            Store::Disk(config) => Self::Disk(Arc::new(Disk::new(config.clone())), config.call_deadline()),
        })
    }

    /// How it is.
    pub(crate) fn health(&self) -> Option<Arc<StoreHealth>> {
        match self {
            Self::Redis(store, _) => store.health(),
            Self::Disk(store, _) => store.health(),
        }
    }

    /// Completes once what was stored behind the requests is on the disk or the server.
    pub(crate) async fn flush(&self) {
        match self {
            Self::Redis(store, _) => store.flush().await,
            Self::Disk(store, _) => store.flush().await,
        }
    }

    /// The model with its answers kept here.
    pub(crate) fn cache(
        &self,
        model: Model,
        config: CacheConfig,
        caching: ChatCaching,
    ) -> Result<Model, ConfigError> {
        Ok(match self {
            Self::Redis(store, deadline) => {
                model.cache(config.store_deadline(*deadline)?, caching, Arc::clone(store)).boxed()
            }
            Self::Disk(store, deadline) => {
                model.cache(config.store_deadline(*deadline)?, caching, Arc::clone(store)).boxed()
            }
        })
    }

    /// The model with its answers kept here and, in front of it, in `memory`.
    pub(crate) fn cache_behind(
        &self,
        memory: Memory,
        model: Model,
        config: CacheConfig,
        caching: ChatCaching,
    ) -> Result<Model, ConfigError> {
        Ok(match self {
            Self::Redis(store, deadline) => {
                let store = Tiered::new(memory, Arc::clone(store), *deadline)?;
                model.cache(config.store_deadline(*deadline * 2)?, caching, store).boxed()
            }
            Self::Disk(store, deadline) => {
                let store = Tiered::new(memory, Arc::clone(store), *deadline)?;
                model.cache(config.store_deadline(*deadline * 2)?, caching, store).boxed()
            }
        })
    }
}
