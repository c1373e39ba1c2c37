//! Sends each input to one of several workflows, and counts what that cost and what it saved.
//!
//! A selector names a route. A name that does not exist, a selector that fails and one that panics lead
//! to the default route, or to an error if so configured; the reason is visible in the metrics.
//!
//! Use it to give easy work to a cheap model and hard work to a dear one. It belongs inside a cache, so
//! that a hit costs no decision, and around the timeouts of its routes.
//!
//! ```
//! use throughline::{Context, RouterConfig, router, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cheap = workflow("cheap", |q: String| async move { Ok(format!("cheap: {q}")) });
//! let dear = workflow("dear", |q: String| async move { Ok(format!("dear: {q}")) });
//!
//! let flow = router(
//!     RouterConfig::new("chat")
//!         .route("cheap", cheap)
//!         .route("dear", dear)
//!         .default_route("cheap")
//!         .select(|q: &String, _| Ok(if q.len() > 20 { "dear" } else { "cheap" }.into())),
//! )?;
//! assert_eq!(flow.run("hi".to_owned(), &Context::new()).await?, "cheap: hi");
//! assert_eq!(flow.stage().stats().decisions, 1);
//! # Ok(()) }
//! ```
//!
//! Do not use it to try a second route when the first fails: that is a fallback.

mod bill;

use std::borrow::Cow;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;

use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::{BoxFuture, Boxed, Primitive};
use crate::stream::Streaming;
use crate::telemetry::{
    Attribute, Counter, End, Ended, Family, Histogram, Label as _, Observed, Registry, Reported, Run, Sink,
    Stage, WORK_SECONDS,
};
use crate::workflow::Workflow;
use bill::{Account, Books};
pub use bill::{Bill, Pricing};

pub(crate) static REPORTED: Reported = Reported::new::<Ended, RouterEvent>(
    "router",
    &[
        Attribute::string("throughline.router.route", "The route that was taken"),
        Attribute::string("throughline.router.reason", "Why: a reason of `router_decisions_total`"),
    ],
);

static DECISIONS: Family =
    Family::counter("router_decisions", "Routes taken, by the reason for taking them", &["route", "reason"]);
static EXECUTION: Family = Family::histogram(
    "router_execution_seconds",
    "How long the chosen route took, in seconds, however it ended",
    &["route"],
    WORK_SECONDS,
);
static ERRORS: Family = Family::counter(
    "router_errors",
    "Runs of a route that failed, and decisions that did (route `none`)",
    &["route", "error_type"],
);

pub(crate) static FAMILIES: &[&Family] =
    &[&DECISIONS, &EXECUTION, &bill::SAVINGS, &ERRORS, &bill::COST, &bill::BASELINE];

labels! {
    /// Why a route was taken.
    #[non_exhaustive]
    pub enum RouteReason {
        /// The selector named it.
        RoutingFunction = "routing_function",
        /// The selector named one that does not exist.
        InvalidRouteFallback = "invalid_route_fallback",
        /// The selector failed or panicked.
        RoutingErrorFallback = "routing_error_fallback",
    }
}

labels! {
    /// What can happen while a route is chosen.
    #[non_exhaustive]
    pub enum RouterEvent {
        /// The selector panicked.
        SelectorPanicked = "selector_panicked",
    }
}

/// What to do when the selector fails or names a route that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUnknownRoute {
    /// Take the default route.
    #[default]
    TakeDefault,
    /// Fail with [`Kind::InvalidInput`].
    Fail,
}

/// What a router is made of. Pass it to [`router`].
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `router`"]
pub struct RouterConfig<In, Out> {
    operation: String,
    routes: Vec<(String, Boxed<In, Out>)>,
    default_route: Option<String>,
    baseline: Option<String>,
    on_unknown: OnUnknownRoute,
    selector: Option<Selector<In>>,
    pricing: Option<Arc<dyn Pricing<Out>>>,
}

/// Chooses among workflows. Made by [`router`].
pub struct Router<In, Out> {
    operation: String,
    routes: Vec<(String, Boxed<In, Out>)>,
    default_route: usize,
    baseline: Option<usize>,
    on_unknown: OnUnknownRoute,
    selector: Selector<In>,
    pricing: Option<Arc<dyn Pricing<Out>>>,
    counts: Vec<RouteCounts>,
}

/// The route that was taken, left in [`Context::state`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTaken {
    /// Its name.
    pub route: String,
    /// Why it was taken.
    pub reason: RouteReason,
}

/// What a [`Router`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RouterStats {
    /// Decisions over all routes.
    pub decisions: u64,
    /// Decisions per route, in the order they were configured.
    pub routes: Vec<(String, u64)>,
    /// What priced answers cost, in USD.
    pub cost_usd: f64,
    /// What they would have cost on the baseline route, in USD.
    pub baseline_usd: f64,
    /// Answers whose cost is unknown.
    pub unpriced: u64,
}

type Selected<'a> = BoxFuture<'a, Result<Cow<'static, str>>>;

type Select<In> = dyn Fn(&In, &Context) -> Result<Cow<'static, str>> + Send + Sync;
type SelectAsync<In> = dyn for<'a> Fn(&'a In, &'a Context) -> Selected<'a> + Send + Sync;

enum Selector<In> {
    Sync(Box<Select<In>>),
    Async(Box<SelectAsync<In>>),
}

#[derive(Debug, Default)]
struct RouteCounts {
    decisions: AtomicU64,
    account: Arc<Account>,
}

/// Handles to the families of [`Router`], per route.
#[derive(Debug)]
pub struct RouterSignals(Vec<RouteSignals>);

#[derive(Debug)]
struct RouteSignals {
    decisions: Vec<Counter>,
    execution: Histogram,
    books: Option<Books>,
}

/// Makes a router.
///
/// # Errors
/// When there is no route, no selector, a name twice, or a default or baseline that is not a route.
pub fn router<In, Out>(
    config: RouterConfig<In, Out>,
) -> Result<Workflow<Observed<Router<In, Out>>>, ConfigError>
where
    In: Send + Sync + 'static,
    Out: Send + 'static,
{
    Ok(Workflow::from_stage(Router::new(config)?))
}

/// Picks names at random in proportion to their weights: a selector for [`RouterConfig::select`].
///
/// # Errors
/// When there is no weight above zero.
pub fn weighted<In>(
    weights: impl IntoIterator<Item = (impl Into<String>, u32)>,
) -> Result<impl Fn(&In, &Context) -> Result<Cow<'static, str>> + Send + Sync, ConfigError> {
    let weights: Vec<(String, u64)> =
        weights.into_iter().map(|(name, weight)| (name.into(), u64::from(weight))).collect();
    let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return Err(ConfigError::new("route weights add up to 0: at least one must be above 0"));
    }
    Ok(move |_: &In, _: &Context| {
        let mut at = fastrand::u64(..total);
        let picked = weights.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        Ok(picked.expect("the weights add up to the total").0.clone().into())
    })
}

// === impl RouterConfig ===

impl<In: Send + Sync + 'static, Out: Send + 'static> RouterConfig<In, Out> {
    /// Starts a router called `operation`.
    pub fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            routes: Vec::new(),
            default_route: None,
            baseline: None,
            on_unknown: OnUnknownRoute::default(),
            selector: None,
            pricing: None,
        }
    }

    /// Adds a route, one at least. Its name becomes the `route` label.
    pub fn route<P, Shape>(mut self, name: impl Into<String>, workflow: Workflow<P, Shape>) -> Self
    where
        P: Primitive<In = In, Out = Out>,
    {
        self.routes.push((name.into(), Boxed::new(workflow.into_inner())));
        self
    }

    /// The route for what the selector cannot place. Default: the first route.
    pub fn default_route(mut self, name: impl Into<String>) -> Self {
        self.default_route = Some(name.into());
        self
    }

    /// The route that costs are compared with. Default: none, and no savings are counted.
    pub fn baseline(mut self, name: impl Into<String>) -> Self {
        self.baseline = Some(name.into());
        self
    }

    /// What to do when the selector fails or names no route. Default: take the default route.
    pub fn on_unknown(mut self, policy: OnUnknownRoute) -> Self {
        self.on_unknown = policy;
        self
    }

    /// Chooses by a function, which gives the name of a route. A selector is required.
    pub fn select(
        mut self,
        selector: impl Fn(&In, &Context) -> Result<Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        self.selector = Some(Selector::Sync(Box::new(selector)));
        self
    }

    /// As [`RouterConfig::select`], by an async function whose future the caller boxes: `|q, cx| Box::pin(..)`.
    pub fn select_async(
        mut self,
        selector: impl for<'a> Fn(&'a In, &'a Context) -> Selected<'a> + Send + Sync + 'static,
    ) -> Self {
        self.selector = Some(Selector::Async(Box::new(selector)));
        self
    }

    /// Says what answers cost. Default: costs are not counted.
    pub fn pricing(mut self, pricing: impl Pricing<Out> + 'static) -> Self {
        self.pricing = Some(Arc::new(pricing));
        self
    }
}

impl<In, Out> fmt::Debug for RouterConfig<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<&str> = self.routes.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "RouterConfig({}, routes {})", self.operation, routes.join(", "))
    }
}

// === impl Router ===

impl<In, Out> Router<In, Out> {
    fn new(config: RouterConfig<In, Out>) -> Result<Self, ConfigError> {
        let names: Vec<&str> = config.routes.iter().map(|(name, _)| name.as_str()).collect();
        let Some(first) = names.first() else {
            return Err(ConfigError::new(format!(
                "router `{}` has no routes: add at least one",
                config.operation
            )));
        };
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(ConfigError::new(format!("route `{}` is given twice", twice.1)));
        }
        let find = |role: &str, name: &str| {
            names.iter().position(|known| *known == name).ok_or_else(|| {
                ConfigError::new(format!(
                    "{role} route `{name}` does not exist: routes are {}",
                    names.join(", ")
                ))
            })
        };
        let default_route = find("default", config.default_route.as_deref().unwrap_or(first))?;
        let baseline = config.baseline.as_deref().map(|name| find("baseline", name)).transpose()?;
        let selector = config.selector.ok_or_else(|| {
            ConfigError::new(format!("router `{}` has no selector: call `select`", config.operation))
        })?;
        Ok(Self {
            operation: config.operation,
            counts: config.routes.iter().map(|_| RouteCounts::default()).collect(),
            routes: config.routes,
            default_route,
            baseline,
            on_unknown: config.on_unknown,
            selector,
            pricing: config.pricing,
        })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> RouterStats {
        let mut stats = RouterStats::default();
        for ((name, _), counts) in self.routes.iter().zip(&self.counts) {
            let decisions = counts.decisions.load(Ordering::Relaxed);
            stats.routes.push((name.clone(), decisions));
            stats.decisions += decisions;
            stats.unpriced += counts.account.unpriced();
            stats.cost_usd += counts.account.cost_usd();
            stats.baseline_usd += counts.account.baseline_usd();
        }
        stats
    }

    fn place(&self, selected: &Result<Cow<'static, str>>) -> (usize, RouteReason) {
        match selected {
            Ok(name) => match self.routes.iter().position(|(route, _)| route == name) {
                Some(route) => (route, RouteReason::RoutingFunction),
                None => (self.default_route, RouteReason::InvalidRouteFallback),
            },
            Err(_) => (self.default_route, RouteReason::RoutingErrorFallback),
        }
    }

    fn bill(&self, route: usize, books: Option<Books>) -> Bill {
        let name = |at: usize| Arc::from(self.routes[at].0.as_str());
        Bill::new(name(route), self.baseline.map(name), Arc::clone(&self.counts[route].account), books)
    }
}

impl<In: Send + Sync + 'static, Out: Send + 'static> Router<In, Out> {
    async fn select(&self, input: &In, cx: &Context, run: &mut Run<'_, Self>) -> Result<Cow<'static, str>> {
        let selected = match &self.selector {
            Selector::Sync(select) => std::panic::catch_unwind(AssertUnwindSafe(|| select(input, cx))),
            Selector::Async(select) => {
                AssertUnwindSafe(async { select(input, cx).await }).catch_unwind().await
            }
        };
        selected.unwrap_or_else(|_| {
            run.event(RouterEvent::SelectorPanicked);
            Err(Error::new(Kind::Internal, "the route selector panicked"))
        })
    }

    /// Counts the decision, and refuses one that the policy does not allow.
    fn decide(
        &self,
        selected: &Result<Cow<'static, str>>,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<usize> {
        let (route, reason) = self.place(selected);
        if reason != RouteReason::RoutingFunction {
            let error_type = if selected.is_ok() { "invalid_route" } else { "routing_function" };
            self.count_error(cx.sink(), "none", error_type);
            if self.on_unknown == OnUnknownRoute::Fail {
                return Err(self.unplaced(selected));
            }
        }
        self.counts[route].decisions.fetch_add(1, Ordering::Relaxed);
        if let Some(signals) = run.signals() {
            signals.0[route].decisions[reason as usize].inc();
        }
        let name = &self.routes[route].0;
        run.attribute("throughline.router.route", name.clone());
        run.attribute("throughline.router.reason", reason.as_str());
        cx.state().insert(RouteTaken { route: name.clone(), reason });
        Ok(route)
    }

    fn unplaced(&self, selected: &Result<Cow<'static, str>>) -> Error {
        match selected {
            Ok(_) => {
                let known: Vec<_> = self.routes.iter().map(|(name, _)| name.as_str()).collect();
                Error::new(Kind::InvalidInput, format!("no such route: routes are {}", known.join(", ")))
            }
            Err(error) => error.clone(),
        }
    }

    fn count_error(&self, sink: &Sink, route: &str, error_type: &str) {
        if let Some(registry) = sink.registry() {
            registry.counter(&ERRORS, &[route, error_type]).inc();
        }
    }
}

impl<In: Send + Sync + 'static, Out: Send + 'static> Stage for Router<In, Out> {
    type In = In;
    type Out = Out;
    type Outcome = Ended;
    type Event = RouterEvent;
    type Signals = RouterSignals;
    /// The route taken.
    type Note = Option<usize>;

    const PRIMITIVE: &'static str = "router";

    fn operation(&self) -> &str {
        &self.operation
    }

    fn declare(&self, registry: &Registry) -> RouterSignals {
        let signals = |(name, _): &(String, Boxed<In, Out>)| RouteSignals {
            decisions: RouteReason::ALL
                .iter()
                .map(|reason| registry.counter(&DECISIONS, &[name, reason.as_str()]))
                .collect(),
            execution: registry.histogram(&EXECUTION, &[name]),
            books: self.pricing.as_ref().map(|_| Books::open(registry, name)),
        };
        RouterSignals(self.routes.iter().map(signals).collect())
    }

    async fn run(&self, input: In, cx: &Context, run: &mut Run<'_, Self>) -> Result<Out> {
        let selected = self.select(&input, cx, run).await;
        let route = self.decide(&selected, cx, run)?;
        run.note = Some(route);
        match self.routes[route].1.execute(input, cx).await {
            Ok(answer) => {
                let books = run.signals().and_then(|signals| signals.0[route].books.clone());
                Ok(match &self.pricing {
                    Some(pricing) => pricing.settle(answer, self.bill(route, books)),
                    None => answer,
                })
            }
            Err(error) => {
                self.count_error(cx.sink(), &self.routes[route].0, error.kind().as_str());
                Err(error)
            }
        }
    }

    fn ended(&self, end: &End<'_, Self>) {
        if let (Some(route), Some(seen)) = (end.note, &end.seen) {
            seen.signals.0[*route].execution.observe_time(seen.elapsed, seen.trace);
        }
    }

    fn describe(&self) -> Node {
        let start = Node::leaf(Self::PRIMITIVE, &self.operation);
        self.routes.iter().fold(start, |node, (name, route)| node.holding(route.describe().by(name)))
    }

    fn stream<'a>(&self, output: &'a mut Out) -> Option<&'a mut dyn Streaming> {
        // Any route may have made it, and those that did not find nothing.
        let found = self.routes.iter().position(|(_, route)| route.stream(output).is_some())?;
        self.routes[found].1.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.routes.iter().for_each(|(_, route)| route.bind(sink));
    }
}

impl<In, Out> fmt::Debug for Router<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.routes.iter().map(|(name, _)| name.as_str()).collect();
        let default = &self.routes[self.default_route].0;
        write!(f, "Router({}, routes {}, default {default}, ", self.operation, names.join("|"))?;
        write!(f, "{} decisions)", self.stats().decisions)
    }
}
