//! Answers repeated inputs from a store instead of running the workflow again.
//!
//! The key is a hash over everything that can change the answer; without a key nothing is cached. Of
//! many callers who miss on one key, one runs the workflow and the others wait for its answer. Errors are
//! never stored. A store that is slow or gone is passed by: it never fails a run.
//!
//! Use it around work that is dear and gives the same answer to the same question. It belongs on the
//! outside, around router and timeouts.
//!
//! ```
//! use std::time::Duration;
//! use throughline::{CacheConfig, Context, JsonCaching, Memory, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let slow = workflow("square", |n: u64| async move { Ok(n * n) });
//! let flow = slow.cache(
//!     CacheConfig::new("square", Duration::from_secs(60))?,
//!     JsonCaching::keyed(|n: &u64, _, key| key.json(n)).saves(|_| Some(0.01)),
//!     Memory::new(1 << 20)?,
//! );
//!
//! let cx = Context::new();
//! assert_eq!(flow.run(7, &cx).await?, 49);
//! assert_eq!(flow.run(7, &cx).await?, 49);
//! let stats = flow.stage().stats();
//! assert_eq!((stats.hits, stats.misses), (1, 1));
//! assert_eq!(stats.savings_usd, 0.01);
//! # Ok(()) }
//! ```
//!
//! Do not use it where the same question may have another answer a moment later, or where the answer
//! depends on something that is not in the key: that is how one user gets another's answer.
//!
//! # Cancellation
//! A caller that goes away while it computes hands over to one that waits. A background refresh goes on.

mod behind;
mod claim;
mod config;
#[cfg(feature = "disk")]
pub mod disk;
mod entries;
#[cfg(any(feature = "disk", feature = "redis"))]
mod envelope;
mod flight;
#[cfg(test)]
mod flight_tests;
mod guard;
mod health;
mod in_memory;
mod json;
mod keep;
mod key;
mod memory;
mod negative;
mod patience;
mod policy;
#[cfg(feature = "redis")]
pub mod redis;
mod store;
mod tiered;
mod work;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::{Streaming, rest};
use crate::telemetry::{
    Amount, Attribute, Counter, End, Ended, Family, Histogram, Label as _, OWN_SECONDS, Observed, PerLabel,
    Rate, Registry, Reported, Run, Sink, Stage, Tick,
};
use crate::usd::Usd;
use crate::workflow::Workflow;
pub use claim::Claim;
use claim::Turn;
pub use config::CacheConfig;
pub use entries::{Entries, Entry, Stored};
use flight::Joined;
use guard::Guarded;
use health::STORE_UP;
pub use health::{StoreDown, StoreHealth};
pub use in_memory::{InMemory, MemoryEntries};
pub use json::JsonCaching;
pub use keep::Keep;
pub use key::{Key, KeyBuilder, Tag, tag};
pub use memory::Memory;
use negative::Negatives;
pub use policy::{CachePolicy, CachedAge, NotCached, Refreshing};
pub use store::{Found, Lifetime, Lookup, OnChange, Store};
pub use tiered::Tiered;
use work::{Landing, Lead, Work};

pub(crate) static REPORTED: Reported = Reported::new::<Ended, CacheEvent>(
    "cache",
    &[Attribute::string(
        "throughline.cache.outcome",
        "What the cache did: an outcome of `cache_outcomes_total`",
    )],
);

static HITS: Family = Family::counter(
    "cache_hits",
    "Answers that came from the cache or from another run under way (hit, stale, coalesced)",
    &["operation"],
);
static MISSES: Family =
    Family::counter("cache_misses", "Lookups that found nothing to use (miss, corrupt)", &["operation"]);
static HIT_RATE: Family = Family::rate(
    "cache_hit_rate",
    "Share of hits in hits and misses, last five minutes in this process",
    &["operation"],
);
static LATENCY: Family = Family::histogram(
    "cache_latency_seconds",
    "The cache's own work for one run, in seconds: the wrapped workflow is not in it",
    &["operation", "hit"],
    OWN_SECONDS,
);
static SAVINGS: Family = Family::amount(
    "cache_cost_savings_usd",
    "What answers from the cache would have cost, in USD; only where that is known",
    &["operation"],
);
static OUTCOMES: Family =
    Family::counter("cache_outcomes", "Runs by what the cache did for them", &["operation", "outcome"]);

pub(crate) static FAMILIES: &[&Family] =
    &[&HITS, &MISSES, &HIT_RATE, &LATENCY, &SAVINGS, &OUTCOMES, &STORE_UP];

labels! {
    /// What the cache did for a run. Left in [`Context::state`].
    #[non_exhaustive]
    pub enum CacheOutcome {
        /// A fresh value was served.
        Hit = "hit",
        /// There was no value and the workflow ran.
        Miss = "miss",
        /// An old value was served, while it is refreshed or because the workflow failed.
        Stale = "stale",
        /// Another run's answer was waited for.
        Coalesced = "coalesced",
        /// There is no key for this input, the caller wanted no cached answer, or the store is being left alone.
        Bypass = "bypass",
        /// The stored value could not be read: it was deleted and the workflow ran.
        Corrupt = "corrupt",
        /// The store failed and the workflow ran.
        Error = "error",
        /// An error of late was given again.
        Negative = "negative",
    }
}

labels! {
    /// What can happen while the cache works.
    #[non_exhaustive]
    pub enum CacheEvent {
        /// A value was stored.
        Stored = "stored",
        /// A value was too large to store.
        TooLarge = "too_large",
        /// The store failed to take a value.
        StoreFailed = "store_failed",
        /// The answer is not one to be cached.
        NotCacheable = "not_cacheable",
        /// The key function panicked.
        KeyPanicked = "key_panicked",
        /// A value is being refreshed in the background.
        RefreshStarted = "refresh_started",
        /// A value is being refreshed in the background before its time is over.
        EarlyRefreshStarted = "early_refresh_started",
        /// An old value was served because the workflow failed.
        ServedOnError = "served_on_error",
    }
}

/// A value past its time, and what it says to the caller: opened before the work takes the input.
struct Expired<Out> {
    output: Out,
    found: Found,
}

/// The longest a refresh in the background may take.
const REFRESH_LIMIT: Duration = Duration::from_secs(300);

/// What a cache must know about inputs and outputs.
pub trait Caching<In, Out>: Send + Sync {
    /// The key for `input`: everything that can change the answer goes into `key`, the tenant included.
    /// `None`: this input is not to be cached.
    fn key(&self, input: &In, cx: &Context, key: KeyBuilder) -> Option<Key>;

    /// The bytes to store. `None`: this output is not to be cached.
    fn encode(&self, output: &Out) -> Option<Bytes>;

    /// The output from stored bytes, in the form that `input` asks for. `None`: the bytes are good, and cannot answer this
    /// input; it is then as if there were none.
    ///
    /// # Errors
    /// When the bytes are not what [`Caching::encode`] made.
    fn decode(&self, value: Bytes, input: &In, cx: &Context) -> Result<Option<Out>>;

    /// Gives `keep` the bytes to store once the stream in `output` has been read to its end, so that
    /// [`Caching::decode`] can replay it. Default: no stream is stored, which `false` says.
    fn record(&self, output: &mut Out, keep: Keep) -> bool {
        let _ = (output, keep);
        false
    }

    /// What it would have cost to make `output` again, in USD; `None` when unknown.
    fn saved_usd(&self, output: &Out) -> Option<f64> {
        let _ = output;
        None
    }
}

/// Answers from a store. Made by [`Workflow::cache`].
pub struct Cache<P, C, S> {
    config: CacheConfig,
    seed: KeyBuilder,
    work: Arc<Work<P, C, S>>,
    counts: Counts,
}

/// What a [`Cache`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Answers that came from the cache or from another run under way: fresh, stale and coalesced.
    pub hits: u64,
    /// Lookups that found nothing to use.
    pub misses: u64,
    /// Runs without a key, of callers that wanted no cached answer, or past a store that is being left alone.
    pub bypassed: u64,
    /// Stored values that could not be read. They count as misses too.
    pub corrupt: u64,
    /// Runs for which the store failed.
    pub store_errors: u64,
    /// What the hits would have cost, in USD, where that is known.
    pub savings_usd: f64,
    /// Keys whose value is being computed now.
    pub computing: usize,
}

#[derive(Debug, Default)]
struct Counts {
    outcomes: PerLabel<CacheOutcome>,
    saved: Usd,
}

/// What a run of the cache writes down.
#[derive(Debug, Default)]
pub struct CacheNote {
    policy: CachePolicy,
    outcome: Option<CacheOutcome>,
    saved_usd: Option<f64>,
}

/// Handles to the families of [`Cache`].
#[derive(Debug)]
pub struct CacheSignals {
    hits: Counter,
    misses: Counter,
    hit_rate: Rate,
    latency_hit: Histogram,
    latency_miss: Histogram,
    savings: Amount,
    outcomes: Vec<Counter>,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Caches the workflow's answers in `store`.
    pub fn cache<C, S>(self, config: CacheConfig, caching: C, store: S) -> Workflow<Observed<Cache<P, C, S>>>
    where
        C: Caching<P::In, P::Out> + 'static,
        S: Store + 'static,
    {
        let work = Work {
            inner: self.into_inner(),
            caching,
            store: Guarded::new(store, config.store_deadline),
            flights: Arc::default(),
            ttl: config.ttl,
            jitter: config.jitter,
            kept: config.stale_while_revalidate.max(config.stale_if_error),
            negatives: config.negative.clone().map(Negatives::new),
            largest: config.largest,
        };
        let seed = config.keys();
        Workflow::from_stage(Cache { config, seed, work: Arc::new(work), counts: Counts::default() })
    }
}

// === impl Cache ===

impl<P, C, S> Cache<P, C, S> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let count = |outcome: CacheOutcome| self.counts.outcomes.get(outcome);
        CacheStats {
            hits: count(CacheOutcome::Hit) + count(CacheOutcome::Stale) + count(CacheOutcome::Coalesced),
            misses: count(CacheOutcome::Miss) + count(CacheOutcome::Corrupt),
            bypassed: count(CacheOutcome::Bypass),
            corrupt: count(CacheOutcome::Corrupt),
            store_errors: count(CacheOutcome::Error),
            savings_usd: self.counts.saved.total(),
            computing: self.work.flights.len(),
        }
    }
}

impl CacheStats {
    /// The share of hits in hits and misses, 0 to 1; `None` before the first lookup.
    #[must_use]
    pub fn hit_rate(&self) -> Option<f64> {
        let lookups = self.hits + self.misses;
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }
}

impl<P, C, S> Cache<P, C, S>
where
    P: Primitive,
    C: Caching<P::In, P::Out> + 'static,
    S: Store + 'static,
{
    fn key(&self, input: &P::In, cx: &Context, run: &mut Run<'_, Self>) -> Option<Key> {
        let key = || self.work.caching.key(input, cx, self.seed.copy());
        std::panic::catch_unwind(AssertUnwindSafe(key)).unwrap_or_else(|_| {
            run.event(CacheEvent::KeyPanicked);
            None
        })
    }

    /// Whether a fresh value is refreshed now, so that not everybody does when its time is over.
    fn is_due_early(&self, age: Duration, lifetime: Lifetime) -> bool {
        // 1 minus a value below 1 is never 0, whose logarithm would be infinite.
        let ahead = || -self.config.early * lifetime.computed_in.as_secs_f64() * (1.0 - fastrand::f64()).ln();
        self.config.early > 0.0 && age.as_secs_f64() + ahead() >= lifetime.fresh.as_secs_f64()
    }

    /// Writes down what the cache did, for the metrics and for whoever holds the context.
    fn note(cx: &Context, run: &mut Run<'_, Self>, outcome: CacheOutcome) {
        run.note.outcome = Some(outcome);
        run.attribute("throughline.cache.outcome", outcome.as_str());
        cx.state().insert(outcome);
    }

    fn serve(&self, output: P::Out, outcome: CacheOutcome, cx: &Context, run: &mut Run<'_, Self>) -> P::Out {
        run.note.saved_usd = self.work.caching.saved_usd(&output);
        Self::note(cx, run, outcome);
        output
    }

    fn serve_on_error(&self, output: P::Out, age: Duration, cx: &Context, run: &mut Run<'_, Self>) -> P::Out {
        run.event(CacheEvent::ServedOnError);
        cx.state().insert(CachedAge(age));
        self.serve(output, CacheOutcome::Stale, cx, run)
    }

    /// What the caller wants, where it is asked.
    fn policy(&self, cx: &Context) -> CachePolicy {
        let asked = || cx.state().get::<CachePolicy>().map(|policy| *policy);
        self.config.caller_policy.then(asked).flatten().unwrap_or_default()
    }

    /// The caller wants what is stored, and there is nothing for it.
    fn refuse(cx: &Context, run: &mut Run<'_, Self>, outcome: CacheOutcome) -> Result<()> {
        if !run.note.policy.is_only_if_cached() {
            return Ok(());
        }
        Self::note(cx, run, outcome);
        let error = Error::new(Kind::InvalidInput, "no value that the caller would take is cached");
        Err(error.because(NotCached))
    }

    async fn pass(
        &self,
        outcome: CacheOutcome,
        input: P::In,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<P::Out> {
        Self::refuse(cx, run, outcome)?;
        Self::note(cx, run, outcome);
        run.outside(self.work.inner.execute(input, cx)).await
    }

    /// The caller wants an answer of its own. Others may wait for it, but it waits for nobody.
    async fn renew(&self, key: Key, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        Self::refuse(cx, run, CacheOutcome::Bypass)?;
        let lead = self.work.flights.try_lead(key);
        let since = cx.clock().now();
        let result = self.pass(CacheOutcome::Bypass, input, cx, run).await;
        self.lead(lead, key, (result, since), None, cx, run).await
    }

    /// The error that this key has come to of late.
    fn negative(&self, key: &Key, cx: &Context, policy: CachePolicy) -> Option<Error> {
        let (error, age) = self.work.negatives.as_ref()?.get(key, cx.clock().now())?;
        policy.takes(age).then_some(error)
    }

    /// The value past its time in place of an error that may pass.
    fn in_place_of<T>(error: &Error, expired: Option<T>) -> Option<T> {
        expired.filter(|_| error.is_retryable())
    }

    /// What another run has got, as this caller wants it; without that, a run of its own does not fail for it.
    async fn share(
        &self,
        value: Bytes,
        outcome: CacheOutcome,
        input: P::In,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<P::Out> {
        match self.work.caching.decode(value, &input, cx) {
            Ok(Some(output)) => Ok(self.serve(output, CacheOutcome::Coalesced, cx, run)),
            _ => self.pass(outcome, input, cx, run).await,
        }
    }

    /// No value can be served as it is: lead the flight, or wait for its leader.
    async fn fetch(
        &self,
        key: Key,
        outcome: CacheOutcome,
        expired: Option<Box<Expired<P::Out>>>,
        mut input: P::In,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<P::Out> {
        if let Some(error) = self.negative(&key, cx, run.note.policy) {
            if let Some(expired) = Self::in_place_of(&error, expired) {
                return Ok(self.serve_on_error(expired.output, expired.found.age, cx, run));
            }
            Self::note(cx, run, CacheOutcome::Negative);
            return Err(error);
        }
        Self::refuse(cx, run, outcome)?;
        let began = cx.clock().now();
        let joined = run.upstream(cx.while_wanted(self.work.flights.join(key))).await;
        let joined = joined.inspect_err(|_| Self::note(cx, run, outcome))?;
        match joined {
            Joined::Landed(Landing::Value(value)) => self.share(value, outcome, input, cx, run).await,
            Joined::Landed(Landing::Expired(found)) if run.note.policy.takes_stale() => {
                match self.work.caching.decode(found.value, &input, cx) {
                    Ok(Some(output)) => Ok(self.serve_on_error(output, found.age, cx, run)),
                    _ => self.pass(outcome, input, cx, run).await,
                }
            }
            Joined::Landed(Landing::Fatal(error)) => {
                // It may be that the leader had nothing to fall back on, and this one has.
                if let Some(expired) = Self::in_place_of(&error, expired) {
                    return Ok(self.serve_on_error(expired.output, expired.found.age, cx, run));
                }
                // An error is no answer: the hit rate must not gain by it.
                Self::note(cx, run, outcome);
                Err(error)
            }
            Joined::Landed(Landing::Private | Landing::Expired(_)) => {
                self.pass(outcome, input, cx, run).await
            }
            Joined::Leader(lead) => {
                let turn = self.turn(key, began, &mut input, cx, run).await;
                // Held while the value is made. The first poll of the put hands it to the store, to be given up with the
                // value; what is left here then releases nothing.
                let _claim = match turn.inspect_err(|_| Self::note(cx, run, outcome))? {
                    Turn::Run(claim) => claim,
                    Turn::Made(value) => {
                        lead.land(Landing::Value(value.clone()));
                        return self.share(value, outcome, input, cx, run).await;
                    }
                };
                let since = cx.clock().now();
                let result = self.pass(outcome, input, cx, run).await;
                self.lead(Some(lead), key, (result, since), expired, cx, run).await
            }
        }
    }

    /// Waits for another replica that computes the value, where the store knows of it. `began` is when the caller began to
    /// wait.
    async fn turn(
        &self,
        key: Key,
        began: Tick,
        input: &mut P::In,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<Turn<P, C, S>> {
        if !self.work.store.keeps_claims() {
            return Ok(Turn::Run(None));
        }
        let (policy, caching) = (run.note.policy, &self.work.caching);
        // The input is held alone, for it need not be one that several may look at.
        let is_usable = move |found: &Found| {
            // What was made while the caller waited is as new as what it would make itself.
            let is_new = policy.takes(found.age) || found.age <= cx.clock().now().since(began);
            let decode = || caching.decode(found.value.clone(), input, cx);
            found.age < found.lifetime.fresh && is_new && matches!(decode(), Ok(Some(_)))
        };
        // Boxed, for most runs have no use for the room.
        run.upstream(cx.while_wanted(Box::pin(self.work.claim(key, is_usable, cx)))).await
    }

    /// What is stored cannot be read: it is deleted and made again.
    async fn replace(
        &self,
        key: Key,
        now: Tick,
        input: P::In,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<P::Out> {
        // Whether the deletion works or not, the new value takes the place of the bad one.
        let _ = self.work.store.delete(&key, now).await;
        self.fetch(key, CacheOutcome::Corrupt, None, input, cx, run).await
    }

    /// Tells those who wait what the leader has got, and gives its caller the old value where that is all
    /// there is.
    async fn lead(
        &self,
        lead: Option<Lead>,
        key: Key,
        (result, since): (Result<P::Out>, Tick),
        expired: Option<Box<Expired<P::Out>>>,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<P::Out> {
        if let Err(error) = &result
            && let Some(expired) = Self::in_place_of(error, expired)
        {
            self.work.learn(key, error, cx);
            let Expired { output, found } = *expired;
            let age = found.age;
            if let Some(lead) = lead {
                lead.land(Landing::Expired(found));
            }
            return Ok(self.serve_on_error(output, age, cx, run));
        }
        let (result, event) = self.work.settle(lead, key, (result, since), stores(run), cx).await;
        if let Some(event) = event {
            run.event(event);
        }
        result
    }

    /// Replaces a value in the background, unless that is under way already or has failed of late for good.
    fn refresh(&self, key: Key, event: CacheEvent, input: P::In, cx: &Context, run: &mut Run<'_, Self>) {
        if self.negative(&key, cx, CachePolicy::new()).is_some() {
            return;
        }
        if let Some(lead) = self.work.flights.try_lead(key) {
            run.event(event);
            let (work, cx) = (Arc::clone(&self.work), cx.detach().with_time_limit(REFRESH_LIMIT));
            cx.state().insert(Refreshing);
            let counts = stores(run);
            tokio::spawn(async move {
                let (claim, _claim) = Box::pin(work.try_claim(key, &cx)).await;
                if claim == Claim::Theirs {
                    return;
                }
                let since = cx.clock().now();
                let refresh = tokio::time::timeout(REFRESH_LIMIT, work.inner.execute(input, &cx));
                let Ok(result) = refresh.await else { return };
                // Nobody waits for a refresh; its failure leaves the old value in place.
                if let (Ok(mut output), _) = work.settle(Some(lead), key, (result, since), counts, &cx).await
                    && let Some(stream) = work.inner.stream(&mut output)
                {
                    let _ = tokio::time::timeout(REFRESH_LIMIT, rest(stream)).await;
                }
            });
        }
    }
}

impl<P, C, S> Stage for Cache<P, C, S>
where
    P: Primitive,
    C: Caching<P::In, P::Out> + 'static,
    S: Store + 'static,
{
    type In = P::In;
    type Out = P::Out;
    type Outcome = Ended;
    type Event = CacheEvent;
    type Signals = CacheSignals;
    type Note = CacheNote;

    const PRIMITIVE: &'static str = "cache";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, registry: &Registry) -> CacheSignals {
        let name = self.config.operation.as_str();
        self.work.store.declare(registry);
        CacheSignals {
            hits: registry.counter(&HITS, &[name]),
            misses: registry.counter(&MISSES, &[name]),
            hit_rate: registry.rate(&HIT_RATE, &[name]),
            latency_hit: registry.histogram(&LATENCY, &[name, "true"]),
            latency_miss: registry.histogram(&LATENCY, &[name, "false"]),
            savings: registry.amount(&SAVINGS, &[name]),
            outcomes: CacheOutcome::ALL
                .iter()
                .map(|outcome| registry.counter(&OUTCOMES, &[name, outcome.as_str()]))
                .collect(),
        }
    }

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let policy = self.policy(cx);
        run.note.policy = policy;
        let key = if policy.is_no_store() { None } else { self.key(&input, cx, run) };
        let Some(key) = key else {
            return self.pass(CacheOutcome::Bypass, input, cx, run).await;
        };
        if policy.is_no_cache() {
            return self.renew(key, input, cx, run).await;
        }
        let now = cx.clock().now();
        let mut found = match self.work.store.get(&key, now).await {
            Ok(Lookup::Found(found)) => found,
            Ok(Lookup::Missing) => return self.fetch(key, CacheOutcome::Miss, None, input, cx, run).await,
            Ok(Lookup::Corrupt) => return self.replace(key, now, input, cx, run).await,
            Err(error) => return self.pass(without_store(&error), input, cx, run).await,
        };
        let (age, Lifetime { fresh, .. }) = (found.age, found.lifetime);
        let within = |window| policy.takes_stale() && age < fresh.saturating_add(window);
        let is_fresh = age < fresh && policy.takes(age);
        let is_served = is_fresh || within(self.config.stale_while_revalidate);
        // The store may have kept it for longer than this configuration allows.
        if !is_served && !within(self.config.stale_if_error) {
            return self.fetch(key, CacheOutcome::Miss, None, input, cx, run).await;
        }
        let value = if is_served { std::mem::take(&mut found.value) } else { found.value.clone() };
        let output = match self.work.caching.decode(value, &input, cx) {
            Ok(Some(output)) => output,
            Ok(None) => return self.fetch(key, CacheOutcome::Miss, None, input, cx, run).await,
            Err(_) => return self.replace(key, now, input, cx, run).await,
        };
        if !is_served {
            let expired = Some(Box::new(Expired { output, found }));
            return self.fetch(key, CacheOutcome::Miss, expired, input, cx, run).await;
        }
        cx.state().insert(CachedAge(age));
        let due = match is_fresh {
            true => self.is_due_early(age, found.lifetime).then_some(CacheEvent::EarlyRefreshStarted),
            false => Some(CacheEvent::RefreshStarted),
        };
        if let Some(event) = due.filter(|_| !policy.is_only_if_cached()) {
            self.refresh(key, event, input, cx, run);
        }
        Ok(self.serve(output, if is_fresh { CacheOutcome::Hit } else { CacheOutcome::Stale }, cx, run))
    }

    fn ended(&self, end: &End<'_, Self>) {
        let Some(outcome) = end.note.outcome else { return };
        let saved = end.note.saved_usd;
        self.counts.outcomes.inc(outcome);
        self.counts.saved.add(saved.unwrap_or_default());
        let Some(seen) = &end.seen else { return };
        let signals = seen.signals;
        signals.outcomes[outcome as usize].inc();
        match outcome {
            CacheOutcome::Hit | CacheOutcome::Stale | CacheOutcome::Coalesced => {
                signals.hits.inc();
                signals.hit_rate.record(seen.at, true);
                signals.latency_hit.observe_time(seen.own, seen.trace);
                signals.savings.add(saved.unwrap_or_default());
            }
            CacheOutcome::Miss | CacheOutcome::Corrupt => {
                signals.misses.inc();
                signals.hit_rate.record(seen.at, false);
                signals.latency_miss.observe_time(seen.own, seen.trace);
            }
            CacheOutcome::Bypass | CacheOutcome::Error | CacheOutcome::Negative => {}
        }
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, &self.config.operation).holding(self.work.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.work.inner.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.work.inner.bind(sink);
    }
}

/// The counts of what can become of a stored value.
fn stores<S: Stage<Event = CacheEvent>>(run: &Run<'_, S>) -> Vec<(CacheEvent, Counter)> {
    let events =
        [CacheEvent::Stored, CacheEvent::TooLarge, CacheEvent::StoreFailed, CacheEvent::NotCacheable];
    events.into_iter().filter_map(|event| Some((event, run.counter(event)?))).collect()
}

/// A store that is being left alone is a bypass; one that just failed is an error.
fn without_store(error: &Error) -> CacheOutcome {
    if error.kind() == Kind::CircuitOpen { CacheOutcome::Bypass } else { CacheOutcome::Error }
}

impl<P, C, S> fmt::Debug for Cache<P, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        let rate =
            stats.hit_rate().map_or("no lookups".to_owned(), |rate| format!("{:.1} % hits", rate * 100.0));
        write!(f, "Cache({}, ttl {:?}, {rate}, ", self.config.operation, self.config.ttl)?;
        write!(f, "{} hits, {} misses)", stats.hits, stats.misses)
    }
}
