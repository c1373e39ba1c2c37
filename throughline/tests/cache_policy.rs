//! What a caller may ask of a cache: not to answer, not to keep, to be no older, or to answer alone.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use throughline::cache::{Cache, CachePolicy, CachedAge, NotCached};
use throughline::telemetry::Observed;
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, CacheOutcome, Error, JsonCaching, Kind, Memory, Primitive, Result, Workflow, workflow,
};
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CacheConfig {
    CacheConfig::new("answers", 60 * SECOND).unwrap().jitter(0.0).unwrap()
}

type Cached<P> = Workflow<Observed<Cache<P, JsonCaching<String, u64>, Memory>>>;

/// Takes a second and answers with the number of its run; `ends` says how the n-th run ends, from 1.
fn slow<E: Fn(u64) -> Result<u64> + Send + Sync + 'static>(
    config: CacheConfig,
    ends: E,
) -> Cached<impl Primitive<In = String, Out = u64> + use<E>> {
    let (runs, ends) = (AtomicU64::new(0), Arc::new(ends));
    let work = workflow("slow", move |_: String| {
        let (n, ends) = (runs.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&ends));
        async move {
            sleep(SECOND).await;
            ends(n)
        }
    });
    let caching = JsonCaching::keyed(|input: &String, _, key| Some(key.text(input)));
    work.cache(config, caching, Memory::new(1 << 20).unwrap())
}

/// What came of a run under `policy`, and how old that was.
async fn asked<P: Primitive<In = String, Out = u64>>(
    flow: &Workflow<P>,
    policy: CachePolicy,
) -> (Result<u64>, CacheOutcome, Option<Duration>) {
    let cx = Recorder::new().context();
    cx.state().insert(policy);
    let answer = flow.run("hi".into(), &cx).await;
    let (outcome, age) = (cx.state().get::<CacheOutcome>().unwrap(), cx.state().get::<CachedAge>());
    (answer, *outcome, age.map(|age| age.0))
}

async fn answered<P: Primitive<In = String, Out = u64>>(
    flow: &Workflow<P>,
    policy: CachePolicy,
) -> (u64, CacheOutcome, Option<Duration>) {
    let (answer, outcome, age) = asked(flow, policy).await;
    (answer.unwrap(), outcome, age)
}

fn busy() -> Error {
    Error::new(Kind::Upstream, "the model is busy")
}

fn any() -> CachePolicy {
    CachePolicy::new()
}

#[tokio::test(start_paused = true)]
async fn no_cache_gets_an_answer_of_its_own_which_the_next_caller_finds() {
    let flow = slow(config(), Ok);
    assert_eq!(answered(&flow, any()).await, (1, CacheOutcome::Miss, None));
    assert_eq!(answered(&flow, any().no_cache()).await, (2, CacheOutcome::Bypass, None));
    advance(3 * SECOND).await;
    assert_eq!(answered(&flow, any()).await, (2, CacheOutcome::Hit, Some(3 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn no_store_finds_nothing_leaves_nothing_and_leads_nobody() {
    let flow = slow(config(), Ok);
    assert_eq!(answered(&flow, any().no_store()).await, (1, CacheOutcome::Bypass, None));
    let (alone, other) = tokio::join!(answered(&flow, any().no_store()), answered(&flow, any()));
    assert_eq!((alone.0, other.0), (2, 3));
    assert_eq!(other.1, CacheOutcome::Miss);
    assert_eq!(answered(&flow, any()).await.0, 3);
    assert_eq!(answered(&flow, any().no_store()).await, (4, CacheOutcome::Bypass, None));
}

#[tokio::test(start_paused = true)]
async fn no_cache_waits_for_nobody_and_is_waited_for() {
    let flow = slow(config(), Ok);
    let (first, own) = tokio::join!(answered(&flow, any()), answered(&flow, any().no_cache()));
    assert_eq!((first.0, own.0), (1, 2), "it does not take the answer of a run before it");
    let flow = slow(config(), Ok);
    let (own, later) = tokio::join!(answered(&flow, any().no_cache()), answered(&flow, any()));
    assert_eq!((own, later), ((1, CacheOutcome::Bypass, None), (1, CacheOutcome::Coalesced, None)));
    assert_eq!(flow.stage().stats().computing, 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_is_as_old_as_the_caller_allows_and_no_older() {
    let flow = slow(config(), Ok);
    answered(&flow, any()).await;
    advance(10 * SECOND).await;
    let hit = |age| (1, CacheOutcome::Hit, Some(age));
    assert_eq!(answered(&flow, any().max_age(10 * SECOND)).await, hit(10 * SECOND));
    let younger = any().max_age(20 * SECOND).max_age(Duration::from_millis(9_999)).max_age(30 * SECOND);
    assert_eq!(answered(&flow, younger).await, (2, CacheOutcome::Miss, None), "the shorter time counts");
    assert_eq!(answered(&flow, any()).await.0, 2, "and what it fetched is stored");
}

#[tokio::test(start_paused = true)]
async fn who_says_how_old_an_answer_may_be_gets_none_past_its_time() {
    let windows = config().stale_while_revalidate(60 * SECOND).stale_if_error(600 * SECOND);
    let flow = slow(windows, |n| if n == 1 { Ok(1) } else { Err(busy()) });
    answered(&flow, any()).await;
    advance(61 * SECOND).await;
    let (answer, outcome, _) = asked(&flow, any().max_age(3600 * SECOND)).await;
    assert_eq!((answer.unwrap_err().kind(), outcome), (Kind::Upstream, CacheOutcome::Miss));
    let (answer, outcome, age) = answered(&flow, any()).await;
    assert_eq!((answer, outcome, age), (1, CacheOutcome::Stale, Some(62 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_never_does_the_work_and_waits_for_nobody() {
    let flow = slow(config().stale_while_revalidate(60 * SECOND), Ok);
    let only = any().only_if_cached();
    let start = tokio::time::Instant::now();
    let (answer, outcome, _) = asked(&flow, only).await;
    let error = answer.unwrap_err();
    assert!(error.cause::<NotCached>().is_some() && !error.is_retryable(), "{error:?}");
    assert_eq!(outcome, CacheOutcome::Miss);
    let (first, refused) = tokio::join!(answered(&flow, any()), async {
        sleep(SECOND / 2).await;
        asked(&flow, only).await.0.unwrap_err()
    });
    assert_eq!(first.0, 1);
    assert!(refused.cause::<NotCached>().is_some());
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(answered(&flow, only).await, (1, CacheOutcome::Hit, Some(Duration::ZERO)));
    advance(61 * SECOND).await;
    assert_eq!(answered(&flow, only).await, (1, CacheOutcome::Stale, Some(61 * SECOND)));
    assert_eq!(flow.stage().stats().computing, 0, "nor is anything done in the background");
    for nothing_fits in [only.no_cache(), only.no_store(), only.max_age(SECOND)] {
        let error = asked(&flow, nothing_fits).await.0.unwrap_err();
        assert!(error.cause::<NotCached>().is_some(), "{nothing_fits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_callers_are_not_to_decide_they_do_not() {
    let flow = slow(config().without_caller_policy(), Ok);
    answered(&flow, any()).await;
    advance(SECOND).await;
    for policy in [any().no_cache(), any().no_store(), any().max_age(Duration::ZERO)] {
        assert_eq!(answered(&flow, policy).await, (1, CacheOutcome::Hit, Some(SECOND)), "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_want_no_cached_answer_do_not_change_the_hit_rate() {
    let (recorder, flow) = (Recorder::new(), slow(config(), Ok));
    let cx = recorder.context();
    flow.run("hi".into(), &cx).await.unwrap();
    flow.run("hi".into(), &cx).await.unwrap();
    for policy in [any().no_cache(), any().no_store()] {
        let cx = recorder.context();
        cx.state().insert(policy);
        flow.run("hi".into(), &cx).await.unwrap();
    }
    assert_eq!(recorder.metric("cache_hit_rate", &[]), Some(0.5));
    assert_eq!(recorder.metric("cache_outcomes_total", &[("outcome", "bypass")]), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_asks_for_nothing_special() {
    let inner = slow(config(), Ok);
    let outer = inner.cache(
        CacheConfig::new("outer", 5 * SECOND)
            .unwrap()
            .jitter(0.0)
            .unwrap()
            .stale_while_revalidate(600 * SECOND),
        JsonCaching::keyed(|input: &String, _, key| Some(key.text(input))),
        Memory::new(1 << 20).unwrap(),
    );
    answered(&outer, any()).await;
    advance(61 * SECOND).await;
    assert_eq!(answered(&outer, any()).await.1, CacheOutcome::Stale);
    sleep(2 * SECOND).await;
    assert_eq!(answered(&outer, any()).await.0, 2, "the inner cache had nothing, and was not told to fail");
}
