//! A configured semantic cache around the routes of a model.

use std::sync::Arc;
use std::time::Duration;

use throughline::circuit_breaker::{Verdict, Window};
use throughline::{CacheConfig, CircuitBreakerConfig, ConfigError, Error, Kind, TimeoutConfig};
use throughline_llm::providers::Provider;
use throughline_llm::semantic::{
    Embedder, EmbedderHealth, EmbeddingsConfig, Mode, SemanticConfig, embeddings, is_of_the_text, semantic,
};
use throughline_llm::{ChatCaching, PriceTable};

use crate::config::{self, CacheLimits, Condition, EmbedderOf, Place};
use crate::gateway::Model;
use crate::parts::{Named, Parts};

/// A circuit of embeddings judges by the last so many calls, of which it needs so many.
const CALLS: u32 = 20;
const FEWEST: u32 = 5;
/// How long embeddings are left alone.
const ALONE: Duration = Duration::from_secs(10);

/// The model, with answers from other questions where the configuration says. `cache` is the exact one's.
///
/// # Errors
/// When a part refuses a value.
pub(crate) fn around(
    model: Model,
    (written, limits): (&config::Model, &CacheLimits),
    cache: &CacheConfig,
    caching: &ChatCaching,
    prices: &Arc<PriceTable>,
    (name, parts): (&str, &Parts),
) -> Result<Model, ConfigError> {
    let Some(wanted) = &limits.semantic else { return Ok(model) };
    let mut config = SemanticConfig::new(wanted.threshold)?
        .bounds(wanted.max_entries, wanted.max_bytes)
        .longest_prompt(wanted.max_prompt_chars)
        .bands(bands(written))
        .audit(wanted.audit)?;
    if let Some(max_error) = wanted.max_error {
        config = config.max_error(max_error)?;
    }
    if wanted.mode == Mode::Answer {
        config = config.answering();
    }
    let operation = format!("{name}/semantic");
    let embedder = embedder(&operation, &wanted.embedder, &parts.providers, prices, parts.embedder(name))?;
    let exact = (cache.clone(), caching.clone());
    Ok(match &limits.place {
        Place::Memory(_) => semantic(model, config, (exact.0, exact.1, parts.memory(name)), embedder).boxed(),
        // What is in memory in front of a store is in the store as well.
        Place::Store(store) | Place::Both(_, store) => {
            parts.stores[store].made.semantic(model, config, exact, embedder)
        }
    })
}

/// What `wanted` says how similar questions are by. Its calls are left alone for a while when they fail.
///
/// # Errors
/// When a part refuses a value.
pub(crate) fn embedder(
    operation: &str,
    wanted: &EmbedderOf,
    providers: &Named<Arc<Provider>>,
    prices: &Arc<PriceTable>,
    health: Option<Arc<EmbedderHealth>>,
) -> Result<Embedder, ConfigError> {
    let EmbedderOf::Provider { provider, model, deadline } = wanted else { return Ok(Embedder::ngrams()) };
    let asked = EmbeddingsConfig::new(provider, model);
    let watch = health.unwrap_or_else(|| Arc::new(EmbedderHealth::new(operation)));
    let judge = Arc::clone(&watch);
    let calls = embeddings(asked, Arc::clone(&providers[provider].made), Arc::clone(prices))?;
    let circuit = CircuitBreakerConfig::new(operation)
        .window(Window::count(CALLS))?
        .min_calls(FEWEST)?
        .failure_rate(0.5)?
        .judge(move |error| verdict(error, &judge))
        .open_for(ALONE)?;
    let calls = calls.timeout(TimeoutConfig::new(operation, *deadline)?).circuit_breaker(circuit);
    Ok(Embedder::asked(wanted.name(), calls.boxed()).watched_by(watch))
}

/// Whatever keeps embeddings away is a failure, also what else is the caller's or a limit: here it is the key, the model's
/// name or the address that is wrong, and there are answers without them. But not what is said of one text, for others' are
/// embedded all the same, or it is no matter of the texts.
fn verdict(error: &Error, health: &EmbedderHealth) -> Verdict {
    match error.kind() {
        Kind::Cancelled => Verdict::Ignored,
        _ if is_of_the_text(error) && !health.refuses_every_text() => Verdict::Ignored,
        _ => Verdict::Failure,
    }
}

/// How long requests are to be kept apart: where rules look at that, they take other routes.
fn bands(model: &config::Model) -> Vec<usize> {
    let conditions = model.rules.iter().flat_map(|rule| &rule.when);
    let chars = conditions.filter_map(|condition| match condition {
        Condition::PromptCharsAtLeast(chars) => Some(*chars),
        _ => None,
    });
    chars.collect()
}
