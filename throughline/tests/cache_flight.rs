//! Many callers at once: one of them works. And values past their time: when they may still be served.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use throughline::cache::{Cache, Lifetime, Lookup};
use throughline::telemetry::{Observed, Tick};
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, Context, Error, JsonCaching, Key, Kind, Memory, Primitive, Result, Store, TimeoutConfig,
    Workflow, workflow, workflow_with,
};
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> CacheConfig {
    CacheConfig::new("answers", 60 * SECOND).unwrap().jitter(0.0).unwrap()
}

fn by_text() -> JsonCaching<String, u64> {
    JsonCaching::keyed(|input: &String, _, key| Some(key.text(input))).saves(|_| Some(0.5))
}

type Cached<P> = Workflow<Observed<Cache<P, JsonCaching<String, u64>, Memory>>>;

/// Takes a second and answers with the number of its run; `ends` says how the n-th run ends, from 1.
fn slow<E: Fn(u64) -> Result<u64> + Send + Sync + 'static>(
    config: CacheConfig,
    runs: &Arc<AtomicU64>,
    ends: E,
) -> Cached<impl Primitive<In = String, Out = u64> + use<E>> {
    let (runs, ends) = (Arc::clone(runs), Arc::new(ends));
    let work = workflow("slow", move |_: String| {
        let (n, ends) = (runs.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&ends));
        async move {
            sleep(SECOND).await;
            ends(n)
        }
    });
    work.cache(config, by_text(), Memory::new(1 << 20).unwrap())
}

fn busy() -> Error {
    Error::new(Kind::Upstream, "the model is busy")
}

fn outcomes(recorder: &Recorder) -> BTreeMap<String, f64> {
    let mut sums = recorder.scrape().sum_by("cache_outcomes_total", "outcome");
    sums.retain(|_, count| *count > 0.0);
    sums
}

fn seen(outcomes: &[(&str, f64)]) -> BTreeMap<String, f64> {
    outcomes.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect()
}

async fn at_once<P: Primitive<In = String, Out = u64>>(
    flow: &Workflow<P>,
    recorder: &Recorder,
    callers: usize,
) -> Vec<Result<u64>> {
    let cx = recorder.context();
    join_all((0..callers).map(|_| flow.run("hi".into(), &cx))).await
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_at_once_run_the_work_once() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, Ok);
    let answers = at_once(&flow, &recorder, 100).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(1))));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("coalesced", 99.0)]));
    assert_eq!(recorder.metric("cache_hits_total", &[]), Some(99.0));
    assert_eq!(recorder.metric("cache_cost_savings_usd_total", &[]), Some(49.5));
    assert_eq!(
        recorder.metric("cache_latency_seconds_sum", &[]),
        Some(0.0),
        "waiting is not the cache's work"
    );
}

#[tokio::test(start_paused = true)]
async fn a_thousand_identical_misses_run_the_work_once_and_a_leader_that_goes_at_any_point_costs_one_more() {
    for leaves_after in
        [None, Some(0), Some(1), Some(500), Some(999), Some(1_000)].map(|ms| ms.map(Duration::from_millis))
    {
        let (recorder, runs) = (Recorder::new(), Arc::default());
        let flow = slow(config(), &runs, Ok);
        let cx = recorder.context();
        let leader = async {
            let run = flow.run("hi".into(), &cx);
            match leaves_after {
                Some(after) => tokio::time::timeout(after, run).await.ok(),
                None => Some(run.await),
            }
        };
        let (_, others) = tokio::join!(leader, at_once(&flow, &recorder, 999));
        let answers: Vec<u64> = others.into_iter().map(Result::unwrap).collect();
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "one answer for all, {leaves_after:?}");
        let ran = runs.load(Ordering::Relaxed);
        assert!(ran == 1 || (ran == 2 && leaves_after.is_some()), "{ran} runs, {leaves_after:?}");
        assert_eq!(flow.stage().stats().computing, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn different_keys_do_not_wait_for_each_other() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, Ok);
    let start = tokio::time::Instant::now();
    let cx = recorder.context();
    join_all((0..10).map(|n| flow.run(format!("{n}"), &cx))).await;
    assert_eq!((runs.load(Ordering::Relaxed), start.elapsed()), (10, SECOND));
}

#[tokio::test(start_paused = true)]
async fn newcomers_share_a_value_that_is_still_being_stored() {
    struct SlowToStore(Memory);
    impl Store for SlowToStore {
        async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
            self.0.get(key, now).await
        }
        async fn put(&self, key: Key, value: bytes::Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
            sleep(Duration::from_millis(10)).await;
            self.0.put(key, value, lifetime, now).await
        }
        async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
            self.0.delete(key, now).await
        }
    }
    let (recorder, runs) = (Recorder::new(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&runs);
    let work = workflow("slow", move |_: String| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(SECOND).await;
            Ok(n)
        }
    });
    let flow = work.cache(config(), by_text(), SlowToStore(Memory::new(1 << 20).unwrap()));
    let cx = recorder.context();
    let late = async {
        sleep(SECOND + Duration::from_millis(5)).await;
        flow.run("hi".into(), &cx).await
    };
    let (first, second) = tokio::join!(flow.run("hi".into(), &cx), late);
    assert_eq!((first.unwrap(), second.unwrap(), runs.load(Ordering::Relaxed)), (0, 0, 1));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("coalesced", 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_is_dropped_one_follower_takes_over() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = Arc::new(slow(config(), &runs, Ok));
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let (flow, cx) = (Arc::clone(&flow), recorder.context());
            tokio::spawn(async move { flow.run("hi".into(), &cx).await })
        })
        .collect();
    sleep(SECOND / 2).await;
    calls[0].abort();
    for (n, call) in calls.into_iter().enumerate() {
        match call.await {
            Ok(answer) => assert_eq!(answer.unwrap(), 2, "call {n}"),
            Err(gone) => assert!(gone.is_cancelled() && n == 0),
        }
    }
    assert_eq!(runs.load(Ordering::Relaxed), 2, "the leader's and one follower's");
    assert_eq!(outcomes(&recorder), seen(&[("miss", 2.0), ("coalesced", 8.0)]));
    let cancelled = [("primitive", "cache"), ("outcome", "cancelled")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &cancelled), Some(1.0));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_goes_away_disturbs_nobody() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, Ok);
    let cx = recorder.context();
    let impatient = tokio::time::timeout(SECOND / 2, flow.run("hi".into(), &cx));
    let (first, impatient, third) =
        tokio::join!(flow.run("hi".into(), &cx), impatient, flow.run("hi".into(), &cx));
    assert!(impatient.is_err());
    assert_eq!((first.unwrap(), third.unwrap(), runs.load(Ordering::Relaxed)), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_no_longer_than_until_its_deadline_or_until_it_is_asked_to_stop() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, Ok);
    let cx = recorder.context();
    let hurried = cx.with_time_limit(SECOND / 4);
    let (leader, follower) = tokio::join!(flow.run("hi".into(), &cx), flow.run("hi".into(), &hurried));
    assert_eq!(leader.unwrap(), 1);
    let error = follower.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Timeout, "the deadline passed while waiting")
    );
    assert_eq!(outcomes(&recorder), seen(&[("miss", 2.0)]), "no hit, for there was no answer");
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_the_leaders_own_and_a_follower_tries_again() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, |n| if n == 1 { Err(busy()) } else { Ok(n) });
    let answers = at_once(&flow, &recorder, 10).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), Kind::Upstream);
    assert!(answers[1..].iter().all(|answer| matches!(answer, Ok(2))));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_no_other_try_would_cure_goes_to_everyone_and_is_no_hit() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, |_| Err(Error::new(Kind::InvalidInput, "no such model")));
    let answers = at_once(&flow, &recorder, 10).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().to_string() == "no such model"));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(recorder.metric("cache_hits_total", &[]), Some(0.0), "an error is no answer");
    assert_eq!(recorder.metric("cache_cost_savings_usd_total", &[]), Some(0.0));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 10.0)]));
    at_once(&flow, &recorder, 1).await;
    assert_eq!(runs.load(Ordering::Relaxed), 2, "the error was not stored");
}

#[tokio::test(start_paused = true)]
async fn when_the_second_try_fails_as_well_nobody_waits_for_a_third() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, |_| Err(busy()));
    let start = tokio::time::Instant::now();
    let answers = at_once(&flow, &recorder, 50).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().is_retryable()));
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(start.elapsed(), 2 * SECOND, "and not fifty");
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_caller_gave_up_does_not_fail_the_others() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, |n| {
        if n == 1 { Err(Error::new(Kind::Cancelled, "the caller went away")) } else { Ok(n) }
    });
    let answers = at_once(&flow, &recorder, 5).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), Kind::Cancelled);
    assert!(answers[1..].iter().all(|answer| matches!(answer, Ok(2))));
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_no_longer_than_until_its_own_deadline() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config(), &runs, Ok);
    let (cx, start) = (recorder.context(), tokio::time::Instant::now());
    let hurried = async {
        let cx = cx.with_time_limit(SECOND / 4);
        let error = flow.run("hi".into(), &cx).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, SECOND / 4));
    };
    let (leader, (), patient) = tokio::join!(flow.run("hi".into(), &cx), hurried, flow.run("hi".into(), &cx));
    assert_eq!((leader.unwrap(), patient.unwrap(), runs.load(Ordering::Relaxed)), (1, 1, 1));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 2.0), ("coalesced", 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_is_asked_to_stop_waits_no_longer() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = Arc::new(slow(config(), &runs, Ok));
    let (cx, start) = (recorder.context(), tokio::time::Instant::now());
    let stop = TimeoutConfig::new("stop", SECOND / 4).unwrap().grace(10 * SECOND).unwrap();
    let same = Arc::clone(&flow);
    let stopped = workflow_with("stopped", move |input: String, cx: Context| {
        let flow = Arc::clone(&same);
        async move { flow.run(input, &cx).await }
    });
    let stopped = async {
        let error = stopped.timeout(stop).run("hi".into(), &cx).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, SECOND / 4), "it did not need the grace");
    };
    let (leader, ()) = tokio::join!(flow.run("hi".into(), &cx), stopped);
    assert_eq!((leader.unwrap(), runs.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_to_be_shared_sends_everyone_on_their_own_way() {
    let (recorder, runs) = (Recorder::new(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&runs);
    let work = workflow("slow", move |_: String| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(SECOND).await;
            Ok(n)
        }
    });
    let flow = work.cache(config(), by_text().should_cache(|_| false), Memory::new(1 << 20).unwrap());
    let start = tokio::time::Instant::now();
    let mut answers: Vec<_> = at_once(&flow, &recorder, 5).await.into_iter().map(Result::unwrap).collect();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 2, 3, 4]);
    assert_eq!(start.elapsed(), 2 * SECOND, "side by side, once the first has found out");
    assert_eq!(outcomes(&recorder), seen(&[("miss", 5.0)]));
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_hands_the_lead_over() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = Arc::new(slow(config(), &runs, |n| if n == 1 { panic!("bug in the work") } else { Ok(n) }));
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (flow, cx) = (Arc::clone(&flow), recorder.context());
            tokio::spawn(async move { flow.run("hi".into(), &cx).await })
        })
        .collect();
    let answers = join_all(calls).await;
    assert!(answers[0].as_ref().unwrap_err().is_panic());
    assert!(answers[1..].iter().all(|answer| matches!(answer, Ok(Ok(2)))));
}

#[tokio::test(start_paused = true)]
async fn an_old_value_is_served_at_once_while_one_caller_refreshes_it() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config().stale_while_revalidate(30 * SECOND), &runs, Ok);
    at_once(&flow, &recorder, 1).await;
    advance(60 * SECOND).await;

    let start = tokio::time::Instant::now();
    assert!(at_once(&flow, &recorder, 10).await.iter().all(|answer| matches!(answer, Ok(1))));
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody waits for the refresh");
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("stale", 10.0)]));
    sleep(2 * SECOND).await;
    assert_eq!(runs.load(Ordering::Relaxed), 2, "one refresh for ten callers");
    let event = [("event", "refresh_started")];
    assert_eq!(recorder.metric("throughline_primitive_events_total", &event), Some(1.0));
    assert!(matches!(at_once(&flow, &recorder, 1).await[..], [Ok(2)]));
    assert_eq!(recorder.metric("cache_outcomes_total", &[("outcome", "hit")]), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_leaves_the_old_value_in_place() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow =
        slow(
            config().stale_while_revalidate(30 * SECOND),
            &runs,
            |n| if n == 2 { Err(busy()) } else { Ok(n) },
        );
    at_once(&flow, &recorder, 1).await;
    advance(60 * SECOND).await;
    for _ in 0..2 {
        assert!(matches!(at_once(&flow, &recorder, 1).await[..], [Ok(1)]));
        sleep(2 * SECOND).await;
    }
    assert!(matches!(at_once(&flow, &recorder, 1).await[..], [Ok(3)]), "the second refresh did it");
}

#[tokio::test(start_paused = true)]
async fn past_the_window_the_work_is_waited_for() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config().stale_while_revalidate(30 * SECOND), &runs, Ok);
    at_once(&flow, &recorder, 1).await;
    advance(90 * SECOND).await;
    assert!(matches!(at_once(&flow, &recorder, 1).await[..], [Ok(2)]));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 2.0)]));
}

#[tokio::test(start_paused = true)]
async fn an_old_value_is_served_when_the_work_fails_in_a_way_that_may_pass() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow = slow(config().stale_if_error(600 * SECOND), &runs, |n| match n {
        1 => Ok(1),
        2 => Err(busy()),
        _ => Err(Error::new(Kind::InvalidInput, "model withdrawn")),
    });
    at_once(&flow, &recorder, 1).await;
    advance(60 * SECOND).await;
    assert!(matches!(at_once(&flow, &recorder, 1).await[..], [Ok(1)]));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("stale", 1.0)]));
    let event = [("event", "served_on_error")];
    assert_eq!(recorder.metric("throughline_primitive_events_total", &event), Some(1.0));

    let [Err(error)] = &at_once(&flow, &recorder, 1).await[..] else { panic!("a fatal error is no reason") };
    assert_eq!(error.kind(), Kind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_down_is_asked_once_when_everyone_can_have_the_old_value() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let flow =
        slow(config().stale_if_error(600 * SECOND), &runs, |n| if n == 1 { Ok(n) } else { Err(busy()) });
    at_once(&flow, &recorder, 1).await;
    advance(60 * SECOND).await;
    let start = tokio::time::Instant::now();
    assert!(at_once(&flow, &recorder, 100).await.iter().all(|answer| matches!(answer, Ok(1))));
    assert_eq!((runs.load(Ordering::Relaxed), start.elapsed()), (2, SECOND));
    assert_eq!(outcomes(&recorder), seen(&[("miss", 1.0), ("stale", 100.0)]));
}

#[tokio::test(start_paused = true)]
async fn an_old_value_is_not_served_past_its_second_time_even_if_the_store_has_it() {
    let (recorder, store, runs) =
        (Recorder::new(), Arc::new(Memory::new(1 << 20).unwrap()), Arc::new(AtomicU64::new(0)));
    let cache = |window| {
        let count = Arc::clone(&runs);
        let work = workflow("flaky", move |_: String| {
            let n = count.fetch_add(1, Ordering::Relaxed) + 1;
            async move { if n == 1 { Ok(n) } else { Err(busy()) } }
        });
        work.cache(config().stale_if_error(window), by_text(), Arc::clone(&store))
    };
    cache(3600 * SECOND).run("hi".into(), &recorder.context()).await.unwrap();
    advance(120 * SECOND).await;
    let shortened = cache(30 * SECOND).run("hi".into(), &recorder.context()).await;
    assert_eq!(shortened.unwrap_err().kind(), Kind::Upstream, "a shorter window holds for old values too");
    assert_eq!(cache(3600 * SECOND).run("hi".into(), &recorder.context()).await.unwrap(), 1);
}
