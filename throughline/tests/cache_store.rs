//! A cache over a store that fails, hangs, recovers or holds rubbish, and over one that is full.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use throughline::cache::{Cache, Caching, Keep, Lifetime, Lookup};
use throughline::telemetry::Observed;
use throughline::telemetry::Tick;
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, Context, Error, ItemStream, JsonCaching, Key, KeyBuilder, Kind, Memory, Primitive, Result,
    Store, Workflow, workflow, workflow_stream,
};

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;

/// A store in memory that does as it is told.
#[derive(Debug)]
struct Scripted {
    memory: Memory,
    mood: AtomicU8,
    /// Whether writes fail, whatever the mood.
    read_only: AtomicBool,
    calls: AtomicU64,
    put: Mutex<Vec<(Key, Lifetime)>>,
}

impl Scripted {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(1 << 20).unwrap(),
            mood: AtomicU8::new(WORKS),
            read_only: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            put: Mutex::default(),
        })
    }

    fn turn(&self, mood: u8) {
        self.mood.store(mood, Ordering::Relaxed);
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    async fn mood(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.mood.load(Ordering::Relaxed) {
            WORKS => Ok(()),
            FAILS => Err(Error::new(Kind::Store, "connection refused")),
            _ => std::future::pending().await,
        }
    }
}

impl Store for Scripted {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        self.mood().await?;
        self.memory.get(key, now).await
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        self.mood().await?;
        if self.read_only.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Store, "read only"));
        }
        self.put.lock().unwrap().push((key, lifetime));
        self.memory.put(key, value, lifetime, now).await
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.mood().await?;
        self.memory.delete(key, now).await
    }
}

fn config() -> CacheConfig {
    CacheConfig::new("answers", Duration::from_secs(60)).unwrap().jitter(0.0).unwrap()
}

fn by_text() -> JsonCaching<String, String> {
    JsonCaching::keyed(|input: &String, _, key| Some(key.text(input))).saves(|_| Some(1.0))
}

fn echo() -> Workflow<impl Primitive<In = String, Out = String>> {
    workflow("echo", |input: String| async move { Ok(input) })
}

type Cached<P> = Workflow<Observed<Cache<P, JsonCaching<String, String>, Arc<Scripted>>>>;

fn cached(store: &Arc<Scripted>) -> Cached<impl Primitive<In = String, Out = String> + use<>> {
    echo().cache(config(), by_text(), Arc::clone(store))
}

fn outcomes(recorder: &Recorder) -> BTreeMap<String, f64> {
    let mut sums = recorder.scrape().sum_by("cache_outcomes_total", "outcome");
    sums.retain(|_, count| *count > 0.0);
    sums
}

fn seen(outcomes: &[(&str, f64)]) -> BTreeMap<String, f64> {
    outcomes.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect()
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    recorder.metric("throughline_primitive_events_total", &[("primitive", "cache"), ("event", event)])
}

/// Runs the workflow once and says how long that took on the paused clock.
async fn took<P: Primitive<In = String, Out = String>>(flow: &Workflow<P>, recorder: &Recorder) -> Duration {
    let start = tokio::time::Instant::now();
    assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi");
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_counted_then_left_alone_then_tried_again() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let flow = cached(&store);
    store.turn(FAILS);
    for _ in 0..20 {
        assert_eq!(took(&flow, &recorder).await, Duration::ZERO);
    }
    assert_eq!(outcomes(&recorder), seen(&[("error", 5.0), ("bypass", 15.0)]));
    assert_eq!(store.calls(), 5, "nobody asks a store that is being left alone");
    assert_eq!(recorder.metric("cache_misses_total", &[]), Some(0.0));
    assert_eq!(recorder.metric("cache_hit_rate", &[]), None, "a dead store does not drag the rate down");

    tokio::time::advance(Duration::from_secs(1)).await;
    took(&flow, &recorder).await;
    took(&flow, &recorder).await;
    assert_eq!(store.calls(), 6, "one probe, and another pause since it failed");

    store.turn(WORKS);
    tokio::time::advance(Duration::from_secs(1)).await;
    took(&flow, &recorder).await;
    took(&flow, &recorder).await;
    let expected = [("error", 6.0), ("bypass", 16.0), ("miss", 1.0), ("hit", 1.0)];
    assert_eq!(outcomes(&recorder), seen(&expected));
    let stats = flow.stage().stats();
    assert_eq!((stats.store_errors, stats.bypassed, stats.misses, stats.hits), (6, 16, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_its_deadline_five_times_and_then_nothing() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let flow = cached(&store);
    store.turn(HANGS);
    for n in 0..5 {
        let took = took(&flow, &recorder).await;
        assert!((16..=20).contains(&took.as_millis()), "call {n} took {took:?}");
    }
    for _ in 0..5 {
        assert_eq!(took(&flow, &recorder).await, Duration::ZERO);
    }
    assert_eq!(outcomes(&recorder), seen(&[("error", 5.0), ("bypass", 5.0)]));

    store.turn(WORKS);
    tokio::time::advance(Duration::from_secs(1)).await;
    took(&flow, &recorder).await;
    assert_eq!(recorder.metric("cache_outcomes_total", &[("outcome", "miss")]), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_at_once_into_a_hanging_store_all_return_within_its_deadline() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let flow = cached(&store);
    store.turn(HANGS);
    let start = tokio::time::Instant::now();
    let cx = recorder.context();
    let calls = (0..100).map(|n| flow.run(format!("{n}"), &cx));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(start.elapsed() <= Duration::from_millis(20), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_store_can_be_set() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let config = config().store_deadline(Duration::from_millis(5)).unwrap();
    let flow = echo().cache(config, by_text(), Arc::clone(&store));
    store.turn(HANGS);
    let took = took(&flow, &recorder).await;
    assert!((2..=5).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn a_failed_write_loses_the_value_and_not_the_answer() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let flow = cached(&store);
    store.read_only.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi");
    }
    assert_eq!(events(&recorder, "store_failed"), Some(2.0));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 2.0)]));
}

#[tokio::test]
async fn a_single_failure_between_good_calls_does_not_open_the_breaker() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let flow = cached(&store);
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    for _ in 0..10 {
        store.turn(FAILS);
        flow.run("hi".into(), &recorder.context()).await.unwrap();
        store.turn(WORKS);
        flow.run("hi".into(), &recorder.context()).await.unwrap();
    }
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("hit", 10.0), ("error", 10.0)]));
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_deleted_counted_and_made_again() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let flow = cached(&store);
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    let (key, lifetime) = store.put.lock().unwrap()[0];
    for rubbish in ["", "{", "\"half", "[1]", "\u{0}"] {
        let now = recorder.sink().clock().now();
        store.memory.put(key, Bytes::from(rubbish), lifetime, now).await.unwrap();
        store.read_only.store(true, Ordering::Relaxed);
        assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi");
        assert!(store.memory.is_empty(), "`{rubbish}` is deleted even when no new value takes its place");
        store.read_only.store(false, Ordering::Relaxed);
    }
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("corrupt", 5.0)]));
    assert_eq!(recorder.metric("cache_hits_total", &[]), Some(0.0), "counted after decoding, not before");
    assert_eq!(recorder.metric("cache_misses_total", &[]), Some(6.0));
    assert_eq!(recorder.metric("cache_cost_savings_usd_total", &[]), Some(0.0));
    let stats = flow.stage().stats();
    assert_eq!((stats.hits, stats.misses, stats.corrupt, stats.savings_usd), (0, 6, 5, 0.0));

    flow.run("hi".into(), &recorder.context()).await.unwrap();
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    assert_eq!(flow.stage().stats().hits, 1, "the next value is a good one");
}

#[tokio::test]
async fn a_value_that_does_not_survive_json_is_recomputed_and_no_error() {
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    let nan = workflow("nan", move |_: u64| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::task::yield_now().await;
            Ok(f64::NAN)
        }
    });
    let recorder = Recorder::new();
    let caching = JsonCaching::keyed(|n: &u64, _, key: throughline::KeyBuilder| key.json(n));
    let flow = nan.cache(config(), caching, Scripted::new());
    let cx = recorder.context();
    let answers = futures_util::future::join_all((0..10).map(|_| flow.run(1, &cx))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|n| n.is_nan())), "{answers:?}");
    assert!(flow.run(1, &cx).await.unwrap().is_nan());
    assert_eq!(runs.load(Ordering::Relaxed), 11);
    assert_eq!(recorder.metric("cache_hits_total", &[]), Some(0.0));
}

#[tokio::test]
async fn a_value_too_large_for_the_store_is_answered_and_counted() {
    let recorder = Recorder::new();
    let flow = echo().cache(config(), by_text(), Memory::new(64 << 10).unwrap());
    let large = "x".repeat(40 << 10);
    for _ in 0..2 {
        assert_eq!(flow.run(large.clone(), &recorder.context()).await.unwrap(), large);
    }
    assert_eq!(events(&recorder, "too_large"), Some(2.0));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 2.0)]));
}

#[tokio::test]
async fn five_thousand_values_stay_within_the_bytes_they_may_have() {
    let recorder = Recorder::new();
    let store = Arc::new(Memory::new(1 << 20).unwrap());
    let flow = echo().cache(config(), by_text(), Arc::clone(&store));
    for n in 0..5_000 {
        flow.run(format!("{n:0>1000}"), &recorder.context()).await.unwrap();
        assert!(store.bytes() <= 1 << 20, "{} bytes after {n} values", store.bytes());
    }
    assert!((700..1000).contains(&store.len()), "{} values", store.len());
    assert_eq!(events(&recorder, "stored"), Some(5_000.0));
    let early = flow.run(format!("{:0>1000}", 0), &recorder.context()).await.unwrap();
    assert!(early.ends_with('0'), "what was pushed out is made again");
}

#[tokio::test]
async fn times_are_spread_so_that_values_stored_together_do_not_expire_together() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    let config = CacheConfig::new("answers", Duration::from_millis(1_000))
        .unwrap()
        .jitter(0.5)
        .unwrap()
        .stale_while_revalidate(Duration::from_secs(3))
        .stale_if_error(Duration::from_secs(7));
    let flow = echo().cache(config, by_text(), Arc::clone(&store));
    for n in 0..200 {
        flow.run(format!("{n}"), &recorder.context()).await.unwrap();
    }
    let put = store.put.lock().unwrap();
    let fresh: Vec<_> = put.iter().map(|(_, lifetime)| lifetime.fresh).collect();
    let (least, most) = (*fresh.iter().min().unwrap(), *fresh.iter().max().unwrap());
    assert!(least >= Duration::from_millis(500) && most <= Duration::from_millis(1_000));
    assert!(most - least > Duration::from_millis(250), "{least:?} to {most:?}");
    assert!(put.iter().all(|(_, lifetime)| lifetime.kept == lifetime.fresh + Duration::from_secs(7)));
}

#[tokio::test]
async fn without_jitter_the_store_is_told_the_exact_time() {
    let (recorder, store) = (Recorder::new(), Scripted::new());
    for (millis, input) in [(1_800_000, "half an hour"), (250, "a quarter of a second"), (1, "least")] {
        let config = CacheConfig::new("answers", Duration::from_millis(millis)).unwrap().jitter(0.0).unwrap();
        let flow = echo().cache(config, by_text(), Arc::clone(&store));
        flow.run(input.into(), &recorder.context()).await.unwrap();
        let (_, lifetime) = *store.put.lock().unwrap().last().unwrap();
        let exact = Duration::from_millis(millis);
        assert_eq!((lifetime.fresh, lifetime.kept), (exact, exact));
    }
}

/// A store that takes its time.
struct Slow(Memory);

impl Store for Slow {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        tokio::time::sleep(Duration::from_millis(4)).await;
        self.0.get(key, now).await
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        tokio::time::sleep(Duration::from_millis(6)).await;
        self.0.put(key, value, lifetime, now).await
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.0.delete(key, now).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_stores_time_is_in_the_latency_and_the_works_is_not() {
    let recorder = Recorder::new();
    let slow = workflow("slow", |input: String| async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(input)
    });
    let flow = slow.cache(config(), by_text(), Slow(Memory::new(1 << 20).unwrap()));
    for _ in 0..2 {
        flow.run("hi".into(), &recorder.context()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sum = |hit| recorder.metric("cache_latency_seconds_sum", &[("hit", hit)]).unwrap();
    for hit in ["false", "true"] {
        assert!((sum(hit) - 0.004).abs() < 1e-9, "the look, and no write: {}", sum(hit));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_value_to_be_stored_and_who_comes_meanwhile_has_it_all_the_same() {
    let recorder = Recorder::new();
    let flow = echo().cache(config(), by_text(), Slow(Memory::new(1 << 20).unwrap()));
    assert_eq!(took(&flow, &recorder).await, Duration::from_millis(4));
    assert_eq!(events(&recorder, "stored"), Some(0.0));
    assert_eq!(took(&flow, &recorder).await, Duration::from_millis(4));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("coalesced", 1.0)]));
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_eq!(events(&recorder, "stored"), Some(1.0));
    took(&flow, &recorder).await;
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("coalesced", 1.0), ("hit", 1.0)]));
    assert_eq!(flow.stage().stats().computing, 0, "the flight is over with the write");
}

/// Leaves the end of a stream to the test.
struct Recording(Arc<Mutex<Option<Keep>>>);

impl Caching<u64, ItemStream<u64>> for Recording {
    fn key(&self, _: &u64, _: &Context, key: KeyBuilder) -> Option<Key> {
        Some(key.build())
    }

    fn encode(&self, _: &ItemStream<u64>) -> Option<Bytes> {
        None
    }

    fn decode(&self, _: Bytes, _: &u64, _: &Context) -> Result<Option<ItemStream<u64>>> {
        Ok(None)
    }

    fn record(&self, _: &mut ItemStream<u64>, keep: Keep) -> bool {
        self.0.lock().unwrap().replace(keep).is_none()
    }
}

#[tokio::test]
async fn a_stream_is_on_its_way_to_the_store_as_soon_as_it_has_ended() {
    let (recorder, store, kept) = (Recorder::new(), Scripted::new(), Arc::new(Mutex::new(None)));
    let numbers = workflow_stream("numbers", |n: u64, _: Context| async move {
        Ok(ItemStream::new(futures_util::stream::iter((0..n).map(Ok))))
    });
    let flow = numbers.cache(config(), Recording(Arc::clone(&kept)), Arc::clone(&store));
    let _stream = flow.run(3, &recorder.context()).await.unwrap();
    let before = store.calls();
    let end = |keep: Option<Keep>| keep.unwrap().value(Bytes::from_static(b"012"));
    end(kept.lock().unwrap().take());
    assert_eq!((store.calls(), events(&recorder, "stored")), (before + 1, Some(1.0)));

    let _stream = flow.run(3, &recorder.context()).await.unwrap();
    store.turn(HANGS);
    end(kept.lock().unwrap().take());
    assert_eq!(events(&recorder, "store_failed"), Some(0.0));
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(events(&recorder, "store_failed"), Some(1.0));
}
