//! A cached workflow on a Redis store, and what is seen of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::Cmd;
use redis::aio::MultiplexedConnection;
use throughline::cache::redis::{Redis, RedisConfig};
use throughline::testing::Recorder;
use throughline::{Boxed, CacheConfig, Context, JsonCaching, Store as _, Workflow, workflow};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Within which time the store must answer. A good answer takes far less, a fault of the tests longer.
pub(crate) const DEADLINE: Duration = Duration::from_millis(150);

/// A workflow that shouts, cached.
pub(crate) struct Rig {
    pub(crate) recorder: Recorder,
    pub(crate) store: Arc<Redis>,
    pub(crate) keeps: Arc<AtomicBool>,
    flow: Workflow<Boxed<String, String>>,
    runs: Arc<AtomicU64>,
}

pub(crate) type Outcomes = BTreeMap<String, f64>;

pub(crate) fn seen(outcomes: &[(&str, f64)]) -> Outcomes {
    outcomes.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect()
}

/// The store's configuration for the server at `url`.
pub(crate) fn at(url: &str) -> RedisConfig {
    RedisConfig::new(url).unwrap().deadline(DEADLINE).unwrap()
}

/// A connection of the test's own.
pub(crate) async fn raw(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    connection.set_response_timeout(PATIENCE);
    connection
}

/// Sends a command and returns what it gives.
pub(crate) async fn tell<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> T {
    let mut command = Cmd::new();
    command.arg(words);
    command.query_async(connection).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Asks the server at `url`, which may end its connections at any time; `None` when there is no answer.
pub(crate) async fn try_tell<T: redis::FromRedisValue>(url: &str, words: &[&str]) -> Option<T> {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    let mut command = Cmd::new();
    command.arg(words);
    command.query_async(&mut connection).await.ok()
}

/// Waits until `happened` says so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut happened: impl FnMut() -> F) {
    let waiting = async {
        while !happened().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

// === impl Rig ===

impl Rig {
    /// Its answers live for an hour, in a cache called `shout`.
    pub(crate) fn new(config: RedisConfig) -> Self {
        Self::with(config, CacheConfig::new("shout", Duration::from_secs(3600)).unwrap())
    }

    /// As [`Rig::new`], with a workflow that takes this long.
    pub(crate) fn taking(config: RedisConfig, pause: Duration) -> Self {
        Self::with_pause(config, CacheConfig::new("shout", Duration::from_secs(3600)).unwrap(), pause)
    }

    pub(crate) fn with(config: RedisConfig, cache: CacheConfig) -> Self {
        Self::with_pause(config, cache, Duration::ZERO)
    }

    fn with_pause(config: RedisConfig, cache: CacheConfig, pause: Duration) -> Self {
        let (runs, keeps) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let store = Arc::new(Redis::new(config).unwrap());
        let (count, keep) = (Arc::clone(&runs), Arc::clone(&keeps));
        let shout = workflow("shout", move |input: String| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                Ok(input.to_uppercase())
            }
        });
        // The tenant is a part of the key, as it has to be.
        let caching = JsonCaching::keyed(|input: &String, cx: &Context, key: throughline::KeyBuilder| {
            Some(key.text(cx.user_id().unwrap_or_default()).text(input))
        })
        .should_cache(move |_| keep.load(Ordering::SeqCst));
        let cache = cache.jitter(0.0).unwrap().store_deadline(DEADLINE).unwrap();
        let flow = shout.cache(cache, caching, Arc::clone(&store)).boxed();
        Self { recorder: Recorder::new(), store, keeps, flow, runs }
    }

    /// Asks, sees that the answer is right, and waits until it is stored.
    pub(crate) async fn ask(&self, input: &str) {
        self.ask_as(input, &self.recorder.context()).await;
    }

    pub(crate) async fn ask_as(&self, input: &str, cx: &Context) {
        let answer = self.flow.run(input.to_owned(), cx).await;
        assert_eq!(answer.expect("no run fails because of the cache"), input.to_uppercase());
        self.store.flush().await;
    }

    /// How often the workflow itself has run.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        let mut sums = self.recorder.scrape().sum_by("cache_outcomes_total", "outcome");
        sums.retain(|_, count| *count > 0.0);
        sums
    }

    pub(crate) fn events(&self, event: &str) -> f64 {
        let labels = [("primitive", "cache"), ("event", event)];
        self.recorder.metric("throughline_primitive_events_total", &labels).unwrap_or_default()
    }

    /// What has been counted since `before`.
    pub(crate) fn outcomes_since(&self, before: &Outcomes) -> Outcomes {
        let since = |(outcome, count): (String, f64)| {
            let before = before.get(&outcome).copied().unwrap_or_default();
            (outcome, count - before)
        };
        self.outcomes().into_iter().map(since).filter(|(_, count)| *count > 0.0).collect()
    }

    /// The gauge that an alert looks at.
    pub(crate) fn up(&self) -> Option<f64> {
        self.recorder.metric("cache_store_up", &[("store", "redis")])
    }

    /// Why the store is left alone.
    pub(crate) fn down(&self) -> Option<String> {
        self.store.health().unwrap().down().map(|down| down.reason)
    }

    /// Asks until an answer comes from the store.
    pub(crate) async fn until_it_hits(&self, input: &str) {
        let hits = || self.outcomes().get("hit").copied().unwrap_or_default();
        until("an answer from the store", || async {
            let before = hits();
            self.ask(input).await;
            hits() > before
        })
        .await;
    }
}
