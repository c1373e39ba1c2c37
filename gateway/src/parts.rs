//! What workflows are made of, and what of it goes on being used when the configuration is read anew.
//!
//! A part is taken over when nothing that it depends on has changed. With a model go its circuits, its budgets, the
//! answers in its memory and its runs under way; with a store its connections; with a provider its connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use throughline::cache::InMemory;
use throughline::{ConfigError, Memory};
use throughline_llm::HttpClient;
use throughline_llm::providers::Provider;
use throughline_llm::semantic::EmbedderHealth;

use crate::config::{self, Config, Mark, Place};
use crate::stores::{Built, Opened};

/// Parts of one kind by name.
pub(crate) type Named<T> = BTreeMap<String, Part<T>>;

/// Providers share a client, and with it its connections' settings, unless their connect timeouts differ.
pub(crate) type Clients = BTreeMap<Duration, HttpClient>;

/// Something that was made of a configuration, and the mark of what it was made of.
#[derive(Clone)]
pub(crate) struct Part<T> {
    pub(crate) mark: Mark,
    pub(crate) made: T,
}

/// What workflows are made of.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) clients: Clients,
    pub(crate) providers: Named<Arc<Provider>>,
    pub(crate) stores: Named<Opened>,
    pub(crate) models: Named<Built>,
    /// Where models keep answers in this process, by their names, and of what size.
    memories: BTreeMap<String, (usize, Arc<Memory>)>,
    /// What is known of the embedders that are asked over a network, by their models' names.
    pub(crate) embedders: BTreeMap<String, Arc<EmbedderHealth>>,
}

// === impl Parts ===

impl Parts {
    /// The memory of the model `name`.
    pub(crate) fn memory(&self, name: &str) -> Arc<Memory> {
        Arc::clone(&self.memories[name].1)
    }

    /// The memory of the model `name` in front of its store, if it has one.
    pub(crate) fn front(&self, name: &str) -> Option<InMemory> {
        self.models.get(name)?.made.front.clone()
    }

    /// Makes memories of the configured sizes. One of the same size is taken over also where its model has changed: an answer
    /// that is not one of the model as it is now has another key.
    pub(crate) fn remember(&mut self, config: &Config, before: &Self) -> Result<(), ConfigError> {
        for (name, model) in &config.models {
            let Some(Place::Memory(bytes)) = model.cache.as_ref().map(|cache| &cache.place) else { continue };
            let known = before.memories.get(name).filter(|(size, _)| size == bytes);
            let memory = match known {
                Some((_, memory)) => Arc::clone(memory),
                None => Arc::new(Memory::new(*bytes as u64)?),
            };
            self.memories.insert(name.clone(), (*bytes, memory));
        }
        Ok(())
    }

    /// What is known of the embedder of the model `name`, if it is asked over a network.
    pub(crate) fn embedder(&self, name: &str) -> Option<Arc<EmbedderHealth>> {
        self.embedders.get(name).cloned()
    }

    /// Watches the embedder of a model with this mark. A model that is taken over goes on being watched as it was.
    pub(crate) fn watch(&mut self, name: &str, model: &config::Model, mark: Mark, before: &Self) {
        if model.embedder().is_none() {
            return;
        }
        let is_kept = before.models.get(name).is_some_and(|known| known.mark == mark);
        let known = before.embedder(name).filter(|_| is_kept);
        let health = known.unwrap_or_else(|| Arc::new(EmbedderHealth::new(name)));
        self.embedders.insert(name.to_owned(), health);
    }

    /// How many models are also `before`'s.
    pub(crate) fn kept_of(&self, before: &Self) -> usize {
        let kept = |(name, model): &(&String, &Part<Built>)| {
            before.models.get(*name).is_some_and(|known| known.mark == model.mark)
        };
        self.models.iter().filter(kept).count()
    }

    /// Stands for everything that the model `name` depends on.
    pub(crate) fn mark_of_model(&self, config: &Config, name: &str, model: &config::Model) -> Mark {
        let own = [config.marks.named("models", name), config.marks.common()];
        let providers = model.routes.values().map(|route| self.providers[&route.provider].mark);
        let embedder = model.embedder().map(|provider| self.providers[provider].mark);
        let store = model.store().map(|store| self.stores[store].mark);
        Mark::of_all(own.into_iter().chain(providers).chain(embedder).chain(store))
    }
}

/// The part of `before` that has this mark, or what `make` makes.
///
/// # Errors
/// Those of `make`.
pub(crate) fn kept_or_made<T: Clone>(
    before: &Named<T>,
    name: &str,
    mark: Mark,
    make: impl FnOnce() -> Result<T, ConfigError>,
) -> Result<Part<T>, ConfigError> {
    match before.get(name).filter(|part| part.mark == mark) {
        Some(part) => Ok(part.clone()),
        None => Ok(Part { mark, made: make()? }),
    }
}
