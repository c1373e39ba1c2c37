//! The configured models as workflows.
//!
//! A model is `named( timeout( cache( router( timeout( chat ) … ))))`, outermost first; what is not
//! configured is left out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderName;
use throughline::router::OnUnknownRoute;
use throughline::{
    CacheConfig, ConfigError, Context, Memory, Result, RouterConfig, TimeoutConfig, router, weighted,
};
use throughline_llm::openai::ChatRequest;
use throughline_llm::providers::{OpenAiConfig, Provider, openai, simulated};
use throughline_llm::{ChatCaching, ChatConfig, ChatPricing, HttpClient, Price, PriceTable, chat};

use crate::config::{self, Condition, Config, Rule, TimeLimit};
use crate::gateway::{Model, header_tag};

type Providers = BTreeMap<String, Arc<Provider>>;

/// Providers share a client, and with it its connections' settings, unless their connect timeouts differ.
type Clients = BTreeMap<Duration, HttpClient>;

/// Builds every configured model.
///
/// # Errors
/// When a part refuses a value. The configuration has been checked before, so this names the part and not
/// a line.
pub(crate) fn build(config: &Config) -> Result<BTreeMap<String, Model>, ConfigError> {
    let prices = Arc::new(prices(config));
    let mut clients = Clients::new();
    let providers = config
        .providers
        .iter()
        .map(|(name, provider)| Ok((name.clone(), Arc::new(build_provider(name, provider, &mut clients)?))))
        .collect::<Result<Providers, ConfigError>>()?;
    let model = |(name, model): (&String, &config::Model)| {
        Ok((name.clone(), build_model(name, model, &providers, &prices)?))
    };
    config.models.iter().map(model).collect()
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

fn prices(config: &Config) -> PriceTable {
    config.prices.iter().fold(PriceTable::builtin(), |table, (model, price)| {
        let new = Price::new(price.input, price.output);
        table.with(model, price.cached_input.map_or(new, |cached| new.with_cached_input(cached)))
    })
}

fn build_provider(
    name: &str,
    provider: &config::Provider,
    clients: &mut Clients,
) -> Result<Provider, ConfigError> {
    match provider {
        config::Provider::OpenAi(server) => {
            let dialect = OpenAiConfig {
                name: name.to_owned(),
                base_url: server.base_url.clone(),
                api_key: server.api_key.clone(),
                stream_usage: server.stream_usage,
            };
            let limit = server.connect_timeout;
            let client = clients.entry(limit).or_insert_with(|| HttpClient::new(limit));
            openai(dialect, client.clone())
        }
        config::Provider::Simulated(config) => Ok(simulated(config.clone())),
    }
}

fn build_model(
    name: &str,
    model: &config::Model,
    providers: &Providers,
    prices: &Arc<PriceTable>,
) -> Result<Model, ConfigError> {
    let mut routes = RouterConfig::new(name).default_route(&model.default_route).select(selector(model)?);
    for (route, target) in &model.routes {
        let provider = Arc::clone(&providers[&target.provider]);
        let ask =
            chat(ChatConfig::new(&target.provider, target.model.as_str()), provider, Arc::clone(prices));
        routes = match &target.timeout {
            Some(limit) => routes.route(route, ask.timeout(timeout(format!("{name}/{route}"), limit)?)),
            None => routes.route(route, ask),
        };
    }
    if let Some(baseline) = &model.baseline {
        routes = routes.baseline(baseline);
    }
    if model.fail_on_unknown_route {
        routes = routes.on_unknown(OnUnknownRoute::Fail);
    }
    let models =
        model.routes.iter().map(|(route, target)| (route.clone(), target.model.as_str().into())).collect();
    let mut workflow = router(routes.pricing(ChatPricing::new(Arc::clone(prices), models)))?.boxed();
    if let Some(limits) = &model.cache {
        let cache = CacheConfig::new(name, limits.ttl)?
            .jitter(limits.jitter)?
            .stale_while_revalidate(limits.stale_while_revalidate)
            .stale_if_error(limits.stale_if_error);
        let store = Memory::new(limits.max_bytes as u64)?;
        let caching = ChatCaching::new(Arc::clone(prices)).varying_by(tags_of(model), metadata_of(model));
        workflow = workflow.cache(cache, caching, store).boxed();
    }
    if let Some(limit) = &model.timeout {
        workflow = workflow.timeout(timeout(name.to_owned(), limit)?).boxed();
    }
    Ok(workflow.named(name).boxed())
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
