//! What a cache keeps, under which key, for how long, and what it counts.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use throughline::cache::{Lifetime, Lookup};
use throughline::telemetry::Tick;
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, CacheOutcome, Clock, Context, Error, JsonCaching, Key, KeyBuilder, Kind, Memory, Primitive,
    Result, Store, Workflow, workflow,
};

const MINUTE: Duration = Duration::from_secs(60);

fn config(operation: &str) -> CacheConfig {
    CacheConfig::new(operation, MINUTE).unwrap().jitter(0.0).unwrap()
}

fn memory() -> Memory {
    Memory::new(1 << 20).unwrap()
}

fn by_text() -> JsonCaching<String, String> {
    JsonCaching::keyed(|input: &String, _, key| Some(key.text(input)))
}

/// Answers `{input} #{n}` for its n-th run.
fn numbered(runs: &Arc<AtomicU64>) -> Workflow<impl Primitive<In = String, Out = String> + use<>> {
    let runs = Arc::clone(runs);
    workflow("model", move |input: String| {
        let n = runs.fetch_add(1, Ordering::Relaxed) + 1;
        async move { Ok(format!("{input} #{n}")) }
    })
}

fn outcomes(recorder: &Recorder) -> BTreeMap<String, f64> {
    let mut sums = recorder.scrape().sum_by("cache_outcomes_total", "outcome");
    sums.retain(|_, count| *count > 0.0);
    sums
}

fn seen(outcomes: &[(&str, f64)]) -> BTreeMap<String, f64> {
    outcomes.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect()
}

#[test]
fn shows_its_name_its_time_and_its_hit_rate() {
    let flow = numbered(&Arc::default()).cache(config("answers"), by_text(), memory());
    assert_eq!(format!("{:?}", flow.stage()), "Cache(answers, ttl 60s, no lookups, 0 hits, 0 misses)");
    assert_eq!(flow.stage().stats().hit_rate(), None);
    assert_eq!(flow.describe().operation(), "answers");
    assert_eq!(flow.describe().children()[0].operation(), "model");
}

#[test]
fn refuses_times_that_would_keep_nothing() {
    let ttl = |ttl| CacheConfig::new("x", ttl).unwrap_err().to_string();
    assert_eq!(ttl(Duration::ZERO), "cache ttl is 0ns: it must be at least 1ms");
    assert_eq!(ttl(Duration::from_micros(999)), "cache ttl is 999µs: it must be at least 1ms");
    for share in [-0.1, 0.51, f64::NAN] {
        let error = config("x").jitter(share).unwrap_err();
        assert_eq!(error.to_string(), format!("cache jitter is {share}: it must be from 0 to 0.5"));
    }
    let error = config("x").store_deadline(Duration::ZERO).unwrap_err();
    assert_eq!(error.to_string(), "cache store deadline is 0s: it must be more");
}

#[tokio::test]
async fn a_miss_runs_the_work_once_and_a_second_call_is_a_hit() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = numbered(&runs).cache(config("answers"), by_text(), memory());
    assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi #1");
    let cx = recorder.context();
    assert_eq!(flow.run("hi".into(), &cx).await.unwrap(), "hi #1");
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(cx.state().get::<CacheOutcome>().as_deref(), Some(&CacheOutcome::Hit));

    let operation = [("operation", "answers")];
    assert_eq!(recorder.metric("cache_hits_total", &operation), Some(1.0));
    assert_eq!(recorder.metric("cache_misses_total", &operation), Some(1.0));
    assert_eq!(recorder.metric("cache_hit_rate", &operation), Some(0.5));
    assert_eq!(outcomes(&recorder), seen(&[("hit", 1.0), ("miss", 1.0)]));
    assert_eq!(flow.stage().stats().hit_rate(), Some(0.5));
    assert_eq!(format!("{:?}", flow.stage()), "Cache(answers, ttl 60s, 50.0 % hits, 1 hits, 1 misses)");
}

#[tokio::test]
async fn a_value_that_another_cache_has_stored_is_a_hit() {
    let (runs, store) = (Arc::default(), Arc::new(memory()));
    let writer = numbered(&runs).cache(config("answers"), by_text(), Arc::clone(&store));
    let reader = numbered(&runs).cache(config("answers"), by_text(), store);
    writer.run("hi".into(), &Context::new()).await.unwrap();
    assert_eq!(reader.run("hi".into(), &Context::new()).await.unwrap(), "hi #1");
    assert_eq!((reader.stage().stats().hits, runs.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn inputs_that_a_joined_text_would_confuse_have_values_of_their_own() {
    let runs = Arc::default();
    let flow = numbered(&runs).cache(config("answers"), by_text(), memory());
    let start = "x".repeat(300);
    let inputs = ["a b", "a_b", "a\nb", "", " ", &start, &format!("{start}y"), &format!("{start}z")];
    for round in 1..=2 {
        for (at, input) in inputs.iter().enumerate() {
            let answer = flow.run((*input).to_owned(), &Context::new()).await.unwrap();
            assert_eq!(answer, format!("{input} #{}", at + 1), "round {round}");
        }
    }
    assert_eq!(runs.load(Ordering::Relaxed), inputs.len() as u64);
}

#[tokio::test]
async fn caches_on_one_store_do_not_meet() {
    let (runs, store) = (Arc::default(), Arc::new(memory()));
    let cache = |config| numbered(&runs).cache(config, by_text(), Arc::clone(&store));
    let flows =
        [cache(config("a")), cache(config("a:b")), cache(config("model v2")), cache(config("a").schema(1))];
    for (flow, input) in flows.iter().zip(["b:c", "c", "b:c", "b:c"]) {
        flow.run(input.into(), &Context::new()).await.unwrap();
        assert_eq!(flow.stage().stats().hits, 0, "{:?}", flow.stage());
    }
    assert_eq!((runs.load(Ordering::Relaxed), store.len()), (4, 4));
}

#[tokio::test]
async fn a_key_can_hold_the_user_so_that_nobody_gets_anothers_answer() {
    let caching = JsonCaching::keyed(|input: &String, cx: &Context, key: KeyBuilder| {
        Some(key.text(cx.user_id()?).text(input))
    });
    let runs = Arc::default();
    let flow = numbered(&runs).cache(config("answers"), caching, memory());
    let of = |user: &str| Context::builder().user_id(user).build();
    assert_eq!(flow.run("me".into(), &of("ann")).await.unwrap(), "me #1");
    assert_eq!(flow.run("me".into(), &of("bob")).await.unwrap(), "me #2");
    assert_eq!(flow.run("me".into(), &of("ann")).await.unwrap(), "me #1");
    flow.run("me".into(), &Context::new()).await.unwrap();
    assert_eq!(flow.stage().stats().bypassed, 1, "without a user there is no key");
}

/// Has nothing and remembers what it was asked for.
struct Asked(Arc<Mutex<Vec<Key>>>);

impl Store for Asked {
    async fn get(&self, key: &Key, _: Tick) -> Result<Lookup> {
        self.0.lock().unwrap().push(*key);
        Ok(Lookup::Missing)
    }

    async fn put(&self, _: Key, _: Bytes, _: Lifetime, _: Tick) -> Result<bool> {
        Ok(false)
    }

    async fn delete(&self, _: &Key, _: Tick) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_key_of_an_input_is_the_same_in_every_process_and_build() {
    let asked = Arc::default();
    let caching = JsonCaching::keyed(|input: &String, _, key: KeyBuilder| key.text("ann").json(input));
    let flow =
        numbered(&Arc::default()).cache(config("answers").schema(3), caching, Asked(Arc::clone(&asked)));
    flow.run("hi".into(), &Context::new()).await.unwrap();
    let key = asked.lock().unwrap()[0];
    let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex, "342c835ba2f51ba62eb0c26ef0174b4951f158fd91e181872d2a0c34af1349b9",
        "with another key the values in shared stores are lost"
    );
}

#[tokio::test]
async fn a_key_function_that_panics_or_declines_means_a_bypass() {
    let caching = JsonCaching::keyed(|input: &String, _, key: KeyBuilder| match input.as_str() {
        "panic" => panic!("no key for this"),
        "decline" => None,
        text => Some(key.text(text)),
    });
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = numbered(&runs).cache(config("answers"), caching, memory());
    for (input, answer) in
        [("panic", "panic #1"), ("panic", "panic #2"), ("decline", "decline #3"), ("decline", "decline #4")]
    {
        assert_eq!(flow.run(input.into(), &recorder.context()).await.unwrap(), answer);
    }
    assert_eq!(outcomes(&recorder), seen(&[("bypass", 4.0)]));
    assert_eq!(
        recorder.metric("throughline_primitive_events_total", &[("event", "key_panicked")]),
        Some(2.0)
    );
    assert_eq!(recorder.metric("cache_misses_total", &[]), Some(0.0), "a bypass is no miss");
    assert_eq!(recorder.metric("cache_hit_rate", &[]), None, "and does not touch the hit rate");
    assert_eq!(flow.stage().stats().bypassed, 4);
}

#[tokio::test]
async fn empty_and_absent_values_are_cached() {
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    let absent = workflow("absent", move |_: Option<String>| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(None::<String>) }
    });
    let caching = JsonCaching::keyed(|input: &Option<String>, _, key: KeyBuilder| key.json(input));
    let flow = absent.cache(config("absent"), caching, memory());
    for _ in 0..3 {
        assert_eq!(flow.run(None, &Context::new()).await.unwrap(), None);
        assert_eq!(flow.run(Some(String::new()), &Context::new()).await.unwrap(), None);
    }
    assert_eq!((runs.load(Ordering::Relaxed), flow.stage().stats().hits), (2, 4));
}

#[tokio::test]
async fn typed_values_come_back_as_they_were() {
    type Typed = (BTreeMap<u32, (i8, String)>, Vec<f64>);
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    let typed = workflow("typed", move |seed: u64| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut random = fastrand::Rng::with_seed(seed);
        let floats: Vec<f64> = (0..100).map(|_| random.f64() * 10f64.powi(random.i32(-30..30))).collect();
        async move { Ok::<Typed, Error>((BTreeMap::from([(7, (-1, "tuple".to_owned()))]), floats)) }
    });
    let caching = JsonCaching::keyed(|seed: &u64, _, key: KeyBuilder| key.json(seed));
    let flow = typed.cache(config("typed"), caching, memory());
    for seed in 0..20 {
        let first = flow.run(seed, &Context::new()).await.unwrap();
        assert!(flow.run(seed, &Context::new()).await.unwrap() == first, "to the last digit");
    }
    assert_eq!(runs.load(Ordering::Relaxed), 20);
}

#[tokio::test]
async fn what_a_caller_does_to_its_answer_does_not_reach_the_next_caller() {
    let list = workflow("list", |n: u64| async move { Ok((0..n).collect::<Vec<_>>()) });
    let caching = JsonCaching::keyed(|n: &u64, _, key: KeyBuilder| key.json(n));
    let flow = list.cache(config("list"), caching, memory());
    for _ in 0..3 {
        let mut answer = flow.run(3, &Context::new()).await.unwrap();
        assert_eq!(answer, [0, 1, 2]);
        answer.clear();
    }
    assert_eq!(flow.stage().stats().hits, 2);
}

#[tokio::test]
async fn errors_are_passed_on_and_never_stored() {
    let (recorder, runs) = (Recorder::new(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&runs);
    let flaky = workflow("flaky", move |input: String| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move { if n == 0 { Err(Error::new(Kind::InvalidInput, "too long")) } else { Ok(input) } }
    });
    let flow = flaky.cache(config("answers"), by_text(), memory());
    let error = flow.run("hi".into(), &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::InvalidInput, "too long"));
    for _ in 0..2 {
        assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi");
    }
    assert_eq!(outcomes(&recorder), seen(&[("hit", 1.0), ("miss", 2.0)]));
}

#[tokio::test]
async fn an_answer_that_should_not_be_cached_is_not() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let caching = by_text().should_cache(|answer: &String| !answer.contains("sorry"));
    let flow = numbered(&runs).cache(config("answers"), caching, memory());
    assert_eq!(flow.run("sorry".into(), &recorder.context()).await.unwrap(), "sorry #1");
    assert_eq!(flow.run("sorry".into(), &recorder.context()).await.unwrap(), "sorry #2");
    let event = [("event", "not_cacheable")];
    assert_eq!(recorder.metric("throughline_primitive_events_total", &event), Some(2.0));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 2.0)]));
}

#[tokio::test]
async fn a_hit_books_what_the_answer_would_have_cost_and_a_miss_nothing() {
    let recorder = Recorder::new();
    let caching = by_text().saves(|answer| (!answer.starts_with("free")).then_some(0.25));
    let flow = numbered(&Arc::default()).cache(config("answers"), caching, memory());
    let saved = || recorder.metric("cache_cost_savings_usd_total", &[("operation", "answers")]);
    flow.run("paid".into(), &recorder.context()).await.unwrap();
    assert_eq!(saved(), Some(0.0));
    for _ in 0..3 {
        flow.run("paid".into(), &recorder.context()).await.unwrap();
        flow.run("free".into(), &recorder.context()).await.unwrap();
    }
    assert_eq!(saved(), Some(0.75), "three hits; where the cost is unknown nothing is saved");
    assert_eq!(flow.stage().stats().savings_usd, 0.75);
}

#[tokio::test(start_paused = true)]
async fn a_value_lives_for_its_time_to_the_millisecond() {
    let runs = Arc::default();
    let short = CacheConfig::new("answers", Duration::from_millis(250)).unwrap().jitter(0.0).unwrap();
    let flow = numbered(&runs).cache(short, by_text(), memory());
    let recorder = Recorder::new();
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    tokio::time::advance(Duration::from_millis(249)).await;
    assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi #1");
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi #2");
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_are_no_problem() {
    let config = CacheConfig::new("answers", Duration::MAX)
        .unwrap()
        .jitter(0.0)
        .unwrap()
        .stale_while_revalidate(Duration::MAX)
        .stale_if_error(Duration::MAX);
    let flow = numbered(&Arc::default()).cache(config, by_text(), memory());
    let recorder = Recorder::new();
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    tokio::time::advance(Duration::from_secs(1_000_000)).await;
    assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "hi #1");
}

#[tokio::test(start_paused = true)]
async fn latency_is_the_caches_own_and_never_the_works() {
    let recorder = Recorder::new();
    let slow = workflow("slow", |input: String| async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(input)
    });
    let flow = slow.cache(config("answers"), by_text(), memory());
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    let (given_up, cx) = ("given up".to_owned(), recorder.context());
    tokio::time::timeout(Duration::from_secs(1), flow.run(given_up, &cx)).await.unwrap_err();
    for (hit, count) in [("false", 2.0), ("true", 1.0)] {
        let labels = [("operation", "answers"), ("hit", hit)];
        assert_eq!(recorder.metric("cache_latency_seconds_count", &labels), Some(count));
        assert_eq!(recorder.metric("cache_latency_seconds_sum", &labels), Some(0.0), "hit {hit}");
    }
    let all = [("primitive", "cache"), ("outcome", "success")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_sum", &all), Some(2.0));
}

#[tokio::test]
async fn every_cache_has_its_own_series_and_hit_rate() {
    let recorder = Recorder::new();
    for (operation, calls) in [("a", 2), ("b", 4)] {
        let flow = numbered(&Arc::default()).cache(config(operation), by_text(), memory());
        for _ in 0..calls {
            flow.run("hi".into(), &recorder.context()).await.unwrap();
        }
    }
    assert_eq!(recorder.metric("cache_hit_rate", &[("operation", "a")]), Some(0.5));
    assert_eq!(recorder.metric("cache_hit_rate", &[("operation", "b")]), Some(0.75));
}

#[tokio::test]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let off = throughline::telemetry::Sink::without_telemetry(Clock::Tokio);
    let flow = numbered(&Arc::default()).cache(config("answers"), by_text().saves(|_| Some(0.5)), memory());
    for _ in 0..3 {
        flow.run("hi".into(), &Context::builder().sink(&off).build()).await.unwrap();
    }
    let stats = flow.stage().stats();
    assert_eq!((stats.hits, stats.misses, stats.savings_usd), (2, 1, 1.0));
}
