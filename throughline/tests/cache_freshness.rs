//! Refreshed before its time, errors that are given again for a while, and values that are too large.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use throughline::cache::{Cache, CachePolicy};
use throughline::telemetry::Observed;
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, CacheOutcome, Context, Error, JsonCaching, Kind, Memory, Primitive, Result, Workflow,
    workflow,
};
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);
const EVENTS: &str = "throughline_primitive_events_total";

fn config() -> CacheConfig {
    CacheConfig::new("answers", 60 * SECOND).unwrap().jitter(0.0).unwrap()
}

type Cached<P> = Workflow<Observed<Cache<P, JsonCaching<u64, u64>, Memory>>>;

/// Takes `time` and answers with the number of its run; `ends` says how the n-th run ends, from 1.
fn slow<E: Fn(u64) -> Result<u64> + Send + Sync + 'static>(
    config: CacheConfig,
    time: Duration,
    ends: E,
) -> Cached<impl Primitive<In = u64, Out = u64> + use<E>> {
    let (runs, ends) = (AtomicU64::new(0), Arc::new(ends));
    let work = workflow("slow", move |_: u64| {
        let (n, ends) = (runs.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&ends));
        async move {
            sleep(time).await;
            ends(n)
        }
    });
    work.cache(config, JsonCaching::keyed(|n: &u64, _, key| key.json(n)), Memory::new(1 << 20).unwrap())
}

fn outcome(cx: &Context) -> CacheOutcome {
    *cx.state().get::<CacheOutcome>().unwrap()
}

fn happened(recorder: &Recorder, event: &str) -> f64 {
    recorder.metric(EVENTS, &[("primitive", "cache"), ("event", event)]).unwrap_or(0.0)
}

const KEYS: u64 = 400;

/// How many of 400 values of one age are refreshed before their time is over.
async fn refreshed_early(eagerness: f64, computed_in: Duration, age: Duration) -> f64 {
    let (recorder, cx) = (Recorder::new(), Recorder::new().context());
    let flow = slow(config().early_refresh(eagerness).unwrap(), computed_in, Ok);
    let all = |cx: Context| {
        let flow = &flow;
        futures_util::future::join_all((0..KEYS).map(move |n| {
            let cx = cx.clone();
            async move { flow.run(n, &cx).await.unwrap() }
        }))
    };
    all(cx).await;
    advance(age).await;
    let cx = recorder.context();
    assert!(all(cx.clone()).await.iter().all(|run| *run <= KEYS), "nobody waits for a refresh");
    assert_eq!(outcome(&cx), CacheOutcome::Hit);
    happened(&recorder, "early_refresh_started")
}

#[tokio::test(start_paused = true)]
async fn what_is_dear_and_nearly_over_is_refreshed_early() {
    // The share is e^(-left / (eagerness * cost)); four standard deviations of 400 draws are below 0.1.
    for (eagerness, cost, left, share) in [(1.0, 10, 10, 0.368), (2.0, 10, 10, 0.607), (1.0, 10, 20, 0.135)] {
        let found = refreshed_early(eagerness, cost * SECOND, (60 - left) * SECOND).await / KEYS as f64;
        assert!((found - share).abs() < 0.1, "{found} of {share} at {eagerness}, {cost}s, {left}s left");
    }
    assert_eq!(refreshed_early(1.0, SECOND / 10, 50 * SECOND).await, 0.0, "what is cheap can wait");
    assert_eq!(
        refreshed_early(0.0, 10 * SECOND, 59 * SECOND).await,
        0.0,
        "and nothing is unless it is asked for"
    );
}

#[tokio::test(start_paused = true)]
async fn an_early_refresh_replaces_the_value_once_and_starts_its_time_anew() {
    let recorder = Recorder::new();
    let flow = slow(config().early_refresh(10.0).unwrap(), 10 * SECOND, Ok);
    let run = async || {
        let cx = recorder.context();
        (flow.run(1, &cx).await.unwrap(), outcome(&cx))
    };
    run().await;
    advance(Duration::from_millis(59_999)).await;
    while happened(&recorder, "early_refresh_started") == 0.0 {
        assert_eq!(run().await, (1, CacheOutcome::Hit));
    }
    for _ in 0..20 {
        assert_eq!(run().await, (1, CacheOutcome::Hit), "while it is under way");
    }
    assert_eq!(happened(&recorder, "early_refresh_started"), 1.0);
    sleep(11 * SECOND).await;
    assert_eq!(run().await, (2, CacheOutcome::Hit));
}

#[tokio::test(start_paused = true)]
async fn who_takes_only_what_is_cached_starts_no_early_refresh() {
    let recorder = Recorder::new();
    let flow = slow(config().early_refresh(10.0).unwrap(), 10 * SECOND, Ok);
    flow.run(1, &recorder.context()).await.unwrap();
    advance(Duration::from_millis(59_999)).await;
    for _ in 0..50 {
        let cx = recorder.context();
        cx.state().insert(CachePolicy::new().only_if_cached());
        flow.run(1, &cx).await.unwrap();
    }
    assert_eq!(happened(&recorder, "early_refresh_started"), 0.0);
}

fn refused() -> Error {
    Error::new(Kind::InvalidInput, "the model refuses")
}

fn busy() -> Error {
    Error::new(Kind::Upstream, "the model is busy")
}

fn negative(kinds: &[Kind]) -> CacheConfig {
    config().negative(kinds.to_vec(), 5 * SECOND).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_listed_class_is_given_again_for_its_time_and_no_longer() {
    let recorder = Recorder::new();
    let flow = slow(negative(&[Kind::InvalidInput]), SECOND, |n| if n < 3 { Err(refused()) } else { Ok(n) });
    let start = tokio::time::Instant::now();
    for expected in [CacheOutcome::Miss, CacheOutcome::Negative, CacheOutcome::Negative] {
        let cx = recorder.context();
        assert_eq!(flow.run(1, &cx).await.unwrap_err().to_string(), "the model refuses");
        assert_eq!(outcome(&cx), expected);
    }
    assert_eq!(start.elapsed(), SECOND, "the work was done once");
    assert_eq!(recorder.metric("cache_hits_total", &[]), Some(0.0), "an error is no hit");
    assert_eq!(recorder.metric("cache_outcomes_total", &[("outcome", "negative")]), Some(2.0));
    assert_eq!(
        flow.run(2, &recorder.context()).await.unwrap_err().kind(),
        Kind::InvalidInput,
        "another input"
    );
    advance(5 * SECOND).await;
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap(), 3);
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn errors_of_other_classes_are_not_given_again() {
    let flow = slow(negative(&[Kind::InvalidInput]), SECOND, |n| if n == 1 { Err(busy()) } else { Ok(n) });
    let cx = Recorder::new().context();
    assert_eq!(flow.run(1, &cx).await.unwrap_err().kind(), Kind::Upstream);
    assert_eq!(flow.run(1, &cx).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_wants_no_cached_answer_wants_no_cached_error() {
    let flow = slow(negative(&[Kind::InvalidInput]), SECOND, |n| if n == 1 { Err(refused()) } else { Ok(n) });
    let cx = Recorder::new().context();
    flow.run(1, &cx).await.unwrap_err();
    for (policy, run) in [(CachePolicy::new().no_store(), 2), (CachePolicy::new().no_cache(), 3)] {
        cx.state().insert(policy);
        assert_eq!(flow.run(1, &cx).await.unwrap(), run);
    }
    cx.state().insert(CachePolicy::new());
    assert_eq!(flow.run(1, &cx).await.unwrap(), 3, "there is an answer now, and the error is forgotten");
}

#[tokio::test(start_paused = true)]
async fn an_old_value_is_better_than_an_error_of_late_and_what_is_down_is_not_asked_again() {
    let recorder = Recorder::new();
    let stale = negative(&[Kind::Upstream]).stale_if_error(600 * SECOND);
    let flow = slow(stale, SECOND, |n| if n == 1 { Ok(1) } else { Err(busy()) });
    flow.run(1, &recorder.context()).await.unwrap();
    advance(61 * SECOND).await;
    let start = tokio::time::Instant::now();
    for _ in 0..5 {
        let cx = recorder.context();
        assert_eq!(flow.run(1, &cx).await.unwrap(), 1);
        assert_eq!(outcome(&cx), CacheOutcome::Stale);
    }
    assert_eq!(start.elapsed(), SECOND, "one run for all five");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_for_a_listed_reason_is_not_tried_again_at_once() {
    let recorder = Recorder::new();
    let stale = negative(&[Kind::InvalidInput]).stale_while_revalidate(600 * SECOND);
    let flow = slow(stale, SECOND, |n| if n == 1 { Ok(1) } else { Err(refused()) });
    flow.run(1, &recorder.context()).await.unwrap();
    advance(61 * SECOND).await;
    for _ in 0..4 {
        assert_eq!(flow.run(1, &recorder.context()).await.unwrap(), 1);
        sleep(Duration::from_millis(1_500)).await;
    }
    assert_eq!(happened(&recorder, "refresh_started"), 1.0);
}

#[test]
fn what_says_nothing_of_the_input_is_not_given_again() {
    let refusal = |kinds: &[Kind], ttl| config().negative(kinds.to_vec(), ttl).unwrap_err().to_string();
    for kind in [Kind::Timeout, Kind::Cancelled, Kind::Store] {
        let expected =
            format!("negative kinds is {}: it must be none of timeout, cancelled, store", kind.as_str());
        assert_eq!(refusal(&[Kind::InvalidInput, kind], SECOND), expected);
    }
    assert_eq!(refusal(&[], SECOND), "negative kinds is none: it must be at least one");
    assert_eq!(refusal(&[Kind::Upstream], Duration::ZERO), "negative ttl is 0ns: it must be at least 1ms");
    let eager = config().early_refresh(f64::NAN).unwrap_err().to_string();
    assert_eq!(eager, "early refresh is NaN: it must be from 0 to 10");
    assert_eq!(
        config().largest_value(0).unwrap_err().to_string(),
        "largest cached value is 0 bytes: it must be more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_value_over_the_limit_is_answered_counted_and_not_stored() {
    let recorder = Recorder::new();
    let flow = workflow("long", |n: u64| async move { Ok("x".repeat(usize::try_from(n).unwrap())) }).cache(
        config().largest_value(100).unwrap(),
        JsonCaching::keyed(|n: &u64, _, key| key.json(n)),
        Memory::new(1 << 20).unwrap(),
    );
    for (length, expected) in [(98, CacheOutcome::Hit), (99, CacheOutcome::Miss)] {
        flow.run(length, &recorder.context()).await.unwrap();
        let cx = recorder.context();
        assert_eq!(flow.run(length, &cx).await.unwrap().len() as u64, length);
        assert_eq!(outcome(&cx), expected, "with its two quotes it has {} bytes", length + 2);
    }
    assert_eq!((happened(&recorder, "too_large"), happened(&recorder, "stored")), (2.0, 1.0));
}
