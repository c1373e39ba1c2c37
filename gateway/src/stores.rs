//! The configured stores, each shared by all models that keep answers in it.

use std::sync::Arc;
use std::time::Duration;

use throughline::cache::disk::Disk;
use throughline::cache::redis::Redis;
use throughline::cache::{InMemory, StoreHealth, Tiered};
use throughline::{CacheConfig, ConfigError, Memory, Store};
use throughline_llm::ChatCaching;
use throughline_llm::semantic::{Embedder, SemanticConfig, semantic};

use crate::config;
use crate::gateway::Model;

/// A model, and the memory in front of its store if there is one.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) model: Model,
    pub(crate) front: Option<InMemory>,
}

/// A store, with the deadline of a call.
#[derive(Clone)]
pub(crate) enum Opened {
    Redis(Arc<Redis>, Duration),
    Disk(Arc<Disk>, Duration),
}

// === impl Built ===

impl From<Model> for Built {
    fn from(model: Model) -> Self {
        Self { model, front: None }
    }
}

// === impl Opened ===

impl Opened {
    /// The store of a configuration. Nothing is opened or connected yet.
    ///
    /// # Errors
    /// When the parts of the configuration do not fit each other.
    pub(crate) fn new(config: &config::Store) -> Result<Self, ConfigError> {
        Ok(match config {
            config::Store::Redis(config) => {
                Self::Redis(Arc::new(Redis::new(config.clone())?), config.call_deadline())
            }
            config::Store::Disk(config) => {
                Self::Disk(Arc::new(Disk::new(config.clone())), config.call_deadline())
            }
        })
    }

    fn deadline(&self) -> Duration {
        match self {
            Self::Redis(_, deadline) | Self::Disk(_, deadline) => *deadline,
        }
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

    /// The model with its answers kept here and, where there is one, in `memory` in front of it.
    pub(crate) fn cache(
        &self,
        memory: Option<Memory>,
        model: Model,
        config: CacheConfig,
        caching: ChatCaching,
    ) -> Result<Built, ConfigError> {
        match self {
            Self::Redis(store, deadline) => kept(store, *deadline, memory, model, config, caching),
            Self::Disk(store, deadline) => kept(store, *deadline, memory, model, config, caching),
        }
    }

    /// The model with answers to other questions, as far as they are kept here.
    pub(crate) fn semantic(
        &self,
        model: Model,
        config: SemanticConfig,
        (cache, caching): (CacheConfig, ChatCaching),
        embedder: Embedder,
    ) -> Model {
        let config = config.store_deadline(self.deadline());
        match self {
            Self::Redis(store, _) => {
                semantic(model, config, (cache, caching, Arc::clone(store)), embedder).boxed()
            }
            Self::Disk(store, _) => {
                semantic(model, config, (cache, caching, Arc::clone(store)), embedder).boxed()
            }
        }
    }
}

fn kept(
    store: &Arc<impl Store + 'static>,
    deadline: Duration,
    memory: Option<Memory>,
    model: Model,
    config: CacheConfig,
    caching: ChatCaching,
) -> Result<Built, ConfigError> {
    let store = Arc::clone(store);
    let Some(memory) = memory else {
        return Ok(model.cache(config.store_deadline(deadline)?, caching, store).boxed().into());
    };
    let store = Tiered::new(memory, store, deadline)?;
    let front = Some(store.in_memory());
    let model = model.cache(config.store_deadline(deadline * 2)?, caching, store).boxed();
    Ok(Built { model, front })
}
