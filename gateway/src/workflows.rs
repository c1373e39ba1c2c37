//! The configured models as workflows.
//!
//! A model is `named( timeout( cache( semantic( router( fallback( ROUTE, ROUTE, … ), … )))))`, and a route is
//! `retry( hedge( circuit_breaker( timeout( chat ))))`, outermost first; what is not configured is left out.
//! A route is one thing, with one circuit and one budget, whether it was taken or fallen back to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderName;
use throughline::cache::StoreHealth;
use throughline::circuit_breaker::Window;
use throughline::router::OnUnknownRoute;
use throughline::{
    Backoff, Budget, CacheConfig, CircuitBreakerConfig, ConfigError, Context, FallbackConfig, HedgeConfig,
    HedgeDelay, Memory, Result, RetryConfig, RouterConfig, TimeoutConfig, router, weighted,
};
use throughline_llm::genai::served;
use throughline_llm::openai::ChatRequest;
use throughline_llm::providers::{OpenAiConfig, Provider, openai, simulated};
use throughline_llm::{ChatCaching, ChatConfig, ChatPricing, HttpClient, Price, PriceTable, chat};

use crate::config::{
    self, Breaker, CacheLimits, Condition, Config, Mark, Place, Retries, Route, Rule, TimeLimit,
};
use crate::gateway::{Model, Models, header_tag};
use crate::parts::{Clients, Named, Parts, kept_or_made};
use crate::semantic;
use crate::stores::{Built, Opened};

/// What is made of a configuration.
pub(crate) struct Workflows {
    /// The models by name.
    pub(crate) models: Models,
    /// How each store is.
    pub(crate) stores: Vec<Arc<StoreHealth>>,
    /// What they are made of.
    pub(crate) parts: Parts,
}

/// The routes of a model, each with what guards it and without its fallbacks.
type Routes = BTreeMap<String, Model>;

/// A provider that asks for a longer pause is not waited for, unless the longest delay is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A circuit judges by the last so many calls, or by the fewest that it needs.
const CIRCUIT_CALLS: u32 = 100;

/// Builds every configured model.
///
/// # Errors
/// When a part refuses a value. The configuration has been checked before, so this names the part and not
/// a line.
pub(crate) fn build(config: &Config) -> Result<Workflows, ConfigError> {
    build_beside(config, &Parts::default())
}

/// As [`build`], with those parts of `before` that have not changed.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_beside(config: &Config, before: &Parts) -> Result<Workflows, ConfigError> {
    let (prices, mut parts) = (Arc::new(prices(config)), Parts::default());
    parts.clients.clone_from(&before.clients);
    parts.clients.retain(|limit, _| {
        let wants = |provider: &_| matches!(provider, config::Provider::OpenAi(server) if server.connect_timeout == *limit);
        config.providers.values().any(wants)
    });
    for (name, provider) in &config.providers {
        let marks = [config.marks.named("providers", name), config.marks.table("trace_context")];
        let forwards_trace = config.trace_context.forwards_to(name);
        let clients = &mut parts.clients;
        let make = || build_provider(name, provider, forwards_trace, clients).map(Arc::new);
        let part = kept_or_made(&before.providers, name, Mark::of_all(marks), make)?;
        parts.providers.insert(name.clone(), part);
    }
    for (name, store) in &config.stores {
        let make = || Opened::new(store);
        let part = kept_or_made(&before.stores, name, config.marks.named("stores", name), make)?;
        parts.stores.insert(name.clone(), part);
    }
    parts.remember(config, before)?;
    for (name, model) in &config.models {
        let mark = parts.mark_of_model(config, name, model);
        parts.watch(name, model, mark, before);
        let make = || build_served(config, name, model, &prices, &parts);
        let part = kept_or_made(&before.models, name, mark, make)?;
        parts.models.insert(name.clone(), part);
    }
    let models = parts.models.iter().map(|(name, model)| (name.clone(), model.made.model.clone())).collect();
    let stores = parts.stores.values().filter_map(|store| store.made.health()).collect();
    Ok(Workflows { models, stores, parts })
}

/// A model with everything around the choice of its route.
fn build_served(
    config: &Config,
    name: &str,
    model: &config::Model,
    prices: &Arc<PriceTable>,
    parts: &Parts,
) -> Result<Built, ConfigError> {
    let (mut built, mut front) = (build_model(name, model, &parts.providers, prices)?, None);
    if let Some(limits) = &model.cache {
        let mut caching = ChatCaching::new(Arc::clone(prices))
            .varying_by(tags_of(model), metadata_of(model))
            .max_temperature(limits.max_temperature);
        if limits.shared {
            caching = caching.shared_by_all();
        }
        if let Some(rate) = limits.chunks_per_second {
            caching = caching.chunks_per_second(rate)?;
        }
        let exact = cache(name, limits, scope(config, model))?;
        built = semantic::around(built, (model, limits), &exact, &caching, prices, (name, parts))?;
        Built { model: built, front } = cached(built, name, &limits.place, (exact, caching), parts)?;
    }
    if let Some(limit) = &model.timeout {
        built = built.timeout(timeout(name.to_owned(), limit)?).boxed();
    }
    Ok(Built { model: served(name, built.named(name)).boxed(), front })
}

/// How a model's answers are kept.
fn cache(name: &str, limits: &CacheLimits, scope: String) -> Result<CacheConfig, ConfigError> {
    let mut config = CacheConfig::new(name, limits.ttl)?
        .jitter(limits.jitter)?
        .stale_while_revalidate(limits.stale_while_revalidate)
        .stale_if_error(limits.stale_if_error)
        .early_refresh(limits.early_refresh)?
        .scope(scope);
    if let Some(negative) = &limits.negative {
        config = config.negative(negative.errors.clone(), negative.ttl)?;
    }
    if let Some(most) = limits.max_answer {
        config = config.largest_value(most)?;
    }
    if !limits.cache_control {
        config = config.without_caller_policy();
    }
    Ok(config)
}

/// The model, with its answers kept where the configuration says.
fn cached(
    model: Model,
    name: &str,
    place: &Place,
    (config, caching): (CacheConfig, ChatCaching),
    parts: &Parts,
) -> Result<Built, ConfigError> {
    Ok(match place {
        Place::Memory(_) => model.cache(config, caching, parts.memory(name)).boxed().into(),
        Place::Store(store) => parts.stores[store].made.cache(None, model, config, caching)?,
        Place::Both(bytes, store) => {
            parts.stores[store].made.cache(Some(Memory::new(*bytes as u64)?), model, config, caching)?
        }
    })
}

/// What decides a model's answers beside the request. Gateways that share a store may be configured differently, and
/// one may be configured anew: an answer of another model behind the same name is another answer.
fn scope(config: &Config, model: &config::Model) -> String {
    let mut scope = format!(
        "{:?}",
        (&model.default_route, &model.weights, &model.route_header, &model.rules, &model.fallback)
    );
    // Who says by another header who it is is somebody else.
    if model.cache.as_ref().is_some_and(|cache| !cache.shared) {
        write!(scope, "{:?}", config.server.tenant_header).expect("a string takes any text");
    }
    for (route, target) in &model.routes {
        let provider = match &config.providers[&target.provider] {
            config::Provider::OpenAi(server) => server.base_url.clone(),
            config::Provider::Simulated(simulated) => format!("{simulated:?}"),
        };
        write!(scope, "{:?}", (route, &target.model, provider)).expect("a string takes any text");
    }
    scope
}

/// The headers that the routes of some model depend on.
pub(crate) fn rule_headers(config: &Config) -> Vec<HeaderName> {
    let mut headers: Vec<_> = config.models.values().flat_map(headers_of).cloned().collect();
    headers.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    headers.dedup();
    headers
}

/// The headers that a model's route depends on.
fn headers_of(model: &config::Model) -> impl Iterator<Item = &HeaderName> {
    let conditions = model.rules.iter().flat_map(|rule| &rule.when);
    let in_rules = conditions.filter_map(|condition| match condition {
        Condition::Header { name, .. } => Some(name),
        _ => None,
    });
    in_rules.chain(&model.route_header)
}

fn tags_of(model: &config::Model) -> Vec<String> {
    headers_of(model).map(header_tag).collect()
}

/// The entries of a request's metadata that a model's route depends on.
fn metadata_of(model: &config::Model) -> Vec<String> {
    let conditions = model.rules.iter().flat_map(|rule| &rule.when);
    let names = conditions.filter_map(|condition| match condition {
        Condition::Metadata { name, .. } => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// What tokens cost by the built-in table and `config`.
pub(crate) fn prices(config: &Config) -> PriceTable {
    config.prices.iter().fold(PriceTable::builtin(), |table, (model, price)| {
        let new = Price::new(price.input, price.output);
        let new = price.cached_input.map_or(new, |cached| new.with_cached_input(cached));
        let new = price.cache_write.map_or(new, |written| new.with_cache_write(written));
        table.with(model, price.cache_write_1h.map_or(new, |written| new.with_cache_write_1h(written)))
    })
}

fn build_provider(
    name: &str,
    provider: &config::Provider,
    forwards_trace: bool,
    clients: &mut Clients,
) -> Result<Provider, ConfigError> {
    match provider {
        config::Provider::OpenAi(server) => {
            let dialect = OpenAiConfig {
                name: name.to_owned(),
                base_url: server.base_url.clone(),
                api_key: server.api_key.clone(),
                stream_usage: server.stream_usage,
                forwards_trace,
                provider_name: server.provider_name.clone(),
            };
            let limit = server.connect_timeout;
            let client = clients.entry(limit).or_insert_with(|| HttpClient::new(limit));
            openai(dialect, client.clone())
        }
        config::Provider::Simulated(config) => Ok(simulated(config.clone())),
    }
}

/// The routes of a model, without what stands around their choice.
fn build_model(
    name: &str,
    model: &config::Model,
    providers: &Named<Arc<Provider>>,
    prices: &Arc<PriceTable>,
) -> Result<Model, ConfigError> {
    let guarded = model.routes.iter().map(|(route, target)| {
        let (provider, prices) = (Arc::clone(&providers[&target.provider].made), Arc::clone(prices));
        let ask = chat(ChatConfig::new(&target.provider, target.model.as_str()), provider, prices);
        Ok((route.clone(), guard(&format!("{name}/{route}"), ask.boxed(), target)?))
    });
    let guarded = guarded.collect::<Result<Routes, ConfigError>>()?;
    let mut routes = RouterConfig::new(name).default_route(&model.default_route).select(selector(model)?);
    for route in guarded.keys() {
        routes =
            routes.route(route, fall_back(&format!("{name}/{route}"), route, &guarded, &model.fallback)?);
    }
    if let Some(baseline) = &model.baseline {
        routes = routes.baseline(baseline);
    }
    if model.fail_on_unknown_route {
        routes = routes.on_unknown(OnUnknownRoute::Fail);
    }
    let models =
        model.routes.iter().map(|(route, target)| (route.clone(), target.model.as_str().into())).collect();
    Ok(router(routes.pricing(ChatPricing::new(Arc::clone(prices), models)))?.boxed())
}

/// Puts around a route what is configured for it. All that adds calls to its provider shares one budget, in
/// which the innermost counts the successes.
fn guard(operation: &str, ask: Model, route: &Route) -> Result<Model, ConfigError> {
    let mut guarded = ask;
    if let Some(limit) = &route.timeout {
        guarded = guarded.timeout(timeout(operation.to_owned(), limit)?).boxed();
    }
    if let Some(breaker) = &route.circuit_breaker {
        let mut config = circuit(operation, breaker)?;
        if let Some(limit) = &route.timeout {
            config = config.slow_after(limit.limit)?;
        }
        guarded = guarded.circuit_breaker(config).boxed();
    }
    let mut budget = Budget::default();
    if let Some(hedge) = &route.hedge {
        let config = HedgeConfig::for_idempotent_work(operation, HedgeDelay::fixed(hedge.after)?);
        guarded = guarded.hedge(config.budget(&budget)).boxed();
        budget = budget.withdraw_only();
    }
    if let Some(retries) = &route.retry {
        guarded = guarded.retry(retry(operation, retries)?.budget(&budget)).boxed();
    }
    Ok(guarded)
}

fn circuit(operation: &str, breaker: &Breaker) -> Result<CircuitBreakerConfig, ConfigError> {
    CircuitBreakerConfig::new(operation)
        .window(Window::count(breaker.min_calls.max(CIRCUIT_CALLS)))?
        .min_calls(breaker.min_calls)?
        .failure_rate(breaker.failure_rate)?
        .open_for(breaker.open_for)
}

fn retry(operation: &str, retries: &Retries) -> Result<RetryConfig, ConfigError> {
    let longest = retries.longest_delay.max(LONGEST_PAUSE);
    Ok(RetryConfig::new(operation)
        .max_attempts(retries.attempts)?
        .backoff(Backoff::exponential(retries.first_delay, retries.longest_delay)?)
        .retry_if(move |error| error.retry_after().is_none_or(|pause| pause <= longest)))
}

/// The route with those that are tried when it has failed: the configured ones without itself.
fn fall_back(
    operation: &str,
    route: &str,
    guarded: &Routes,
    fallback: &[String],
) -> Result<Model, ConfigError> {
    let own = guarded[route].clone();
    let others: Vec<_> = fallback.iter().filter(|other| *other != route).collect();
    if others.is_empty() {
        return Ok(own);
    }
    let start = FallbackConfig::new(operation);
    let config = others.into_iter().fold(start, |config, other| config.then(other, guarded[other].clone()));
    Ok(own.fallback(config)?.boxed())
}

fn timeout(operation: String, limit: &TimeLimit) -> Result<TimeoutConfig, ConfigError> {
    let mut config = TimeoutConfig::new(operation, limit.limit)?.grace(limit.grace)?;
    if let Some(first_token) = limit.first_token {
        config = config.first_item(first_token)?;
    }
    if let Some(pause) = limit.between_chunks {
        config = config.between_items(pause)?;
    }
    Ok(config)
}

type Selected = Result<Cow<'static, str>>;

/// A header that names the route, then the rules in order, then the weights, then the default route.
fn selector(
    model: &config::Model,
) -> Result<impl Fn(&ChatRequest, &Context) -> Selected + Send + Sync + use<>, ConfigError> {
    let route_header = model.route_header.as_ref().map(header_tag);
    let rules = model.rules.clone();
    let default_route = model.default_route.clone();
    let split = if model.weights.is_empty() { None } else { Some(weighted(model.weights.clone())?) };
    Ok(move |request: &ChatRequest, cx: &Context| {
        if let Some(route) = route_header.as_ref().and_then(|tag| cx.tag(tag)) {
            return Ok(route.to_owned().into());
        }
        if let Some(rule) = rules.iter().find(|rule| applies(rule, request, cx)) {
            return Ok(rule.route.clone().into());
        }
        match &split {
            Some(split) => split(request, cx),
            None => Ok(default_route.clone().into()),
        }
    })
}

fn applies(rule: &Rule, request: &ChatRequest, cx: &Context) -> bool {
    rule.when.iter().all(|condition| match condition {
        Condition::PromptCharsAtLeast(chars) => request.prompt_chars() >= *chars,
        Condition::Header { name, equals } => cx.tag(&header_tag(name)) == Some(equals),
        Condition::Metadata { name, equals } => request.metadata(name) == Some(equals),
    })
}
