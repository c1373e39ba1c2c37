//! Who passes a rate limit, who waits how long, and what is settled afterwards.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, poll, stream};
use throughline::rate_limit::RateLimitStats;
use throughline::testing::Recorder;
use throughline::{
    Allowance, Clock, Context, Error, ItemStream, Kind, Primitive, Quota, RateLimitConfig, Streaming as _,
    Workflow, workflow, workflow_stream,
};
use tokio::time::{Instant, advance, sleep};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Gives back what it gets.
fn echo() -> Workflow<throughline::Boxed<u64, u64>> {
    workflow("echo", |n: u64| async move { Ok(n) }).boxed()
}

fn config(allowance: impl Into<Allowance>) -> RateLimitConfig<u64, u64> {
    RateLimitConfig::new("model", allowance)
}

fn limited(config: RateLimitConfig<u64, u64>) -> Workflow<impl Primitive<In = u64, Out = u64>> {
    echo().rate_limit(config)
}

fn quota(amount: u64) -> Quota {
    Quota::new(amount, secs(1)).unwrap()
}

/// `[successes, errors, cancelled, limited, waiting]`
fn counts(stats: RateLimitStats) -> [u64; 5] {
    [stats.successes, stats.errors, stats.cancelled, stats.limited, stats.waiting]
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    let labels = [("primitive", "rate_limit"), ("operation", "model"), ("event", event)];
    recorder.metric("throughline_primitive_events_total", &labels)
}

#[test]
fn a_quota_refuses_what_is_out_of_bounds() {
    let refused = |quota: Result<Quota, throughline::ConfigError>| quota.unwrap_err().to_string();
    assert_eq!(refused(Quota::per_second(0)), "quota amount is 0 in 1s: it must be from 1 to 10000000");
    assert_eq!(
        refused(Quota::per_second(10_000_001)),
        "quota amount is 10000001 in 1s: it must be from 1 to 10000000"
    );
    assert_eq!(
        refused(Quota::new(1, Duration::ZERO)),
        "quota period is 0ns: it must be from 1ms to 2678400s"
    );
    assert_eq!(
        refused(Quota::new(1, secs(2_678_401))),
        "quota period is 2678401s: it must be from 1ms to 2678400s"
    );
    assert_eq!(refused(quota(10).burst(0)), "quota burst is 0: it must be from 1 to 26784000");
    assert!(quota(10).burst(26_784_001).is_err());
    assert_eq!(quota(10).most_at_once(), 10);
    assert_eq!(quota(10).burst(3).unwrap().most_at_once(), 3);
    let long = config(quota(1)).max_wait(secs(86_401)).unwrap_err();
    assert_eq!(long.to_string(), "rate limit max_wait is 86401s: it must be at most 86400s");
}

#[tokio::test(start_paused = true)]
async fn shows_its_name_what_is_left_and_its_counts() {
    let flow = echo().rate_limit(config(Allowance::of_both(quota(2), Quota::per_minute(60).unwrap())));
    flow.run(1, &Context::new()).await.unwrap();
    assert_eq!(
        format!("{:?}", flow.stage()),
        "RateLimit(model, Allowance(2 requests in 1s are allowed, 1 left, \
         60 units in 60s are allowed, 59 left, 0 waiting), 0 limited)"
    );
    assert_eq!((flow.describe().primitive(), flow.describe().operation()), ("rate_limit", "model"));
    assert_eq!(flow.describe().children()[0].operation(), "echo");
    assert_eq!(counts(flow.stage().stats()), [1, 0, 0, 0, 0]);
}

// === the rules that Resilience4j documents for its rate limiter ===

#[tokio::test(start_paused = true)]
async fn r4j_limit_for_period_is_how_many_pass_in_a_period() {
    let recorder = Recorder::new();
    let flow = echo().rate_limit(config(quota(50)));
    let cx = recorder.context();
    for n in 0..50 {
        flow.run(n, &cx).await.unwrap();
    }
    let error = flow.run(50, &cx).await.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert_eq!(error.to_string(), "rate limited for another 20ms: 50 requests in 1s are allowed");
    advance(secs(1)).await;
    for n in 0..50 {
        flow.run(n, &cx).await.unwrap();
    }
    assert!(flow.run(50, &cx).await.is_err());
    assert_eq!(counts(flow.stage().stats()), [100, 0, 0, 2, 0]);
    assert_eq!(events(&recorder, "limited_by_requests"), Some(2.0));
    let labels = [("primitive", "rate_limit"), ("outcome", "limited")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &labels), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn r4j_timeout_duration_is_how_long_a_run_waits_for_its_permission() {
    let recorder = Recorder::new();
    let flow = echo().rate_limit(config(quota(2).burst(1).unwrap()).max_wait(secs(5)).unwrap());
    let start = Instant::now();
    for n in 0..4 {
        flow.run(n, &recorder.context()).await.unwrap();
        assert_eq!(start.elapsed(), millis(500 * n));
    }
    assert_eq!(events(&recorder, "waited"), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn r4j_a_wait_longer_than_the_timeout_is_refused_at_once_and_takes_nothing() {
    let flow = echo().rate_limit(config(quota(1)).max_wait(millis(900)).unwrap());
    let (start, cx) = (Instant::now(), Context::new());
    flow.run(1, &cx).await.unwrap();
    let error = flow.run(2, &cx).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (Kind::RateLimited, Some(secs(1))));
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(millis(100)).await;
    flow.run(3, &cx).await.unwrap();
    assert_eq!(start.elapsed(), secs(1), "nobody stood before it");
}

#[tokio::test(start_paused = true)]
async fn r4j_permits_can_be_taken_several_at_a_time() {
    let flow = limited(config(Allowance::of_units(quota(10))).estimate(|n| *n));
    let cx = Context::new();
    flow.run(7, &cx).await.unwrap();
    let error = flow.run(5, &cx).await.unwrap_err();
    assert_eq!(error.to_string(), "rate limited for another 200ms: 10 units in 1s are allowed");
    flow.run(3, &cx).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn r4j_available_permissions_and_waiting_threads_can_be_read() {
    let flow = echo().rate_limit(config(quota(2)).max_wait(secs(9)).unwrap());
    let cx = Context::new();
    assert_eq!(flow.stage().allowance().requests_left(), Some(2));
    assert_eq!(flow.stage().allowance().units_left(), None);
    flow.run(1, &cx).await.unwrap();
    flow.run(1, &cx).await.unwrap();
    assert_eq!(flow.stage().allowance().requests_left(), Some(0));
    let mut waiting = Box::pin(flow.run(1, &cx));
    assert!(poll!(&mut waiting).is_pending());
    assert_eq!((flow.stage().allowance().waiting(), flow.stage().stats().waiting), (1, 1));
    drop(waiting);
    assert_eq!(flow.stage().allowance().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn r4j_permissions_are_drained_on_a_result_that_says_so() {
    let recorder = Recorder::new();
    let busy = Arc::new(AtomicU64::new(1));
    let calls = Arc::clone(&busy);
    let upstream = workflow("upstream", move |n: u64| {
        let first = calls.fetch_sub(1, Ordering::Relaxed) == 1;
        async move {
            let error = Error::new(Kind::RateLimited, "slow down").with_retry_after(secs(30));
            if first { Err(error) } else { Ok(n) }
        }
    });
    let flow = upstream.rate_limit(config(quota(100)));
    let cx = recorder.context();
    assert_eq!(flow.run(1, &cx).await.unwrap_err().to_string(), "slow down");
    assert_eq!(events(&recorder, "paused"), Some(1.0));
    assert_eq!(flow.stage().allowance().paused_for(), secs(30));
    sleep(secs(10)).await;
    let error = flow.run(2, &cx).await.unwrap_err();
    assert_eq!(error.to_string(), "rate limited for another 20s: the upstream said so");
    assert_eq!(error.retry_after(), Some(secs(20)));
    assert_eq!(events(&recorder, "limited_by_upstream"), Some(1.0));
    sleep(secs(20)).await;
    flow.run(3, &cx).await.unwrap();
}

// === the rules that failsafe-go documents for its rate limiter ===

#[tokio::test(start_paused = true)]
async fn failsafe_a_smooth_limiter_permits_one_execution_every_interval() {
    let flow = limited(config(quota(100).burst(1).unwrap()));
    let cx = Context::new();
    for _ in 0..10 {
        flow.run(1, &cx).await.unwrap();
        assert!(flow.run(1, &cx).await.is_err());
        advance(Duration::from_nanos(9_999_999)).await;
        assert!(flow.run(1, &cx).await.is_err());
        advance(Duration::from_nanos(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failsafe_a_bursty_limiter_has_no_delay_until_the_period_is_used_up() {
    let flow = limited(config(quota(100)).max_wait(secs(1)).unwrap());
    let (start, cx) = (Instant::now(), Context::new());
    for n in 0..100 {
        flow.run(n, &cx).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    flow.run(1, &cx).await.unwrap();
    assert_eq!(start.elapsed(), millis(10));
}

#[tokio::test(start_paused = true)]
async fn failsafe_nobody_waits_unless_it_is_asked_for() {
    let flow = limited(config(quota(1)));
    let (start, cx) = (Instant::now(), Context::new());
    flow.run(1, &cx).await.unwrap();
    assert_eq!(flow.run(1, &cx).await.unwrap_err().kind(), Kind::RateLimited);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn failsafe_a_wait_ends_when_the_context_is_cancelled() {
    let flow = limited(config(quota(1)).max_wait(secs(60)).unwrap());
    let stage = throughline::TimeoutConfig::new("stop", millis(100)).unwrap().grace(secs(5)).unwrap();
    let (start, cx) = (Instant::now(), Context::new());
    let flow = flow.timeout(stage);
    flow.run(1, &cx).await.unwrap();
    let error = flow.run(1, &cx).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 100ms", "it gave up when it was asked to");
    assert_eq!(start.elapsed(), millis(100));
}

// === retry-after, deadlines, order ===

#[tokio::test(start_paused = true)]
async fn trying_again_after_the_time_that_was_said_succeeds_and_a_moment_before_does_not() {
    let account = Allowance::of_both(Quota::per_minute(7).unwrap(), Quota::per_minute(1_013).unwrap());
    let flow = limited(config(account).estimate(|n| *n));
    let cx = Context::new();
    let chance = &mut fastrand::Rng::with_seed(3);
    let mut refused = 0;
    for _ in 0..200 {
        let units = chance.u64(1..400);
        if let Err(error) = flow.run(units, &cx).await {
            refused += 1;
            let wait = error.retry_after().unwrap();
            advance(wait - Duration::from_nanos(1)).await;
            assert!(flow.run(units, &cx).await.is_err(), "{wait:?}");
            advance(Duration::from_nanos(1)).await;
            flow.run(units, &cx).await.unwrap();
        }
    }
    assert!(refused > 50, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_after_the_deadline_is_refused_at_once() {
    let flow = limited(config(quota(1)).max_wait(secs(60)).unwrap());
    let start = Instant::now();
    flow.run(1, &Context::new()).await.unwrap();
    let cx = Context::builder().time_limit(millis(900)).build();
    let error = flow.run(1, &cx).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (Kind::RateLimited, Some(secs(1))));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_line_ends_at_the_deadline() {
    let flow = limited(config(quota(1)).max_wait(secs(60)).unwrap());
    let (cx, start) = (Context::new(), Instant::now());
    flow.run(1, &cx).await.unwrap();
    let hurried = Context::builder().time_limit(millis(1_500)).build();
    let (first, second) = tokio::join!(flow.run(1, &cx), flow.run(1, &hurried));
    first.unwrap();
    let error = second.unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited, "once it is its turn, the wait is known not to fit");
    assert_eq!(error.retry_after(), Some(secs(1)));
    assert_eq!(start.elapsed(), secs(1));

    let impatient = Context::builder().time_limit(millis(1_200)).build();
    let mut ahead = Box::pin(flow.run(1, &cx));
    assert!(poll!(&mut ahead).is_pending());
    let error = flow.run(1, &impatient).await.unwrap_err();
    assert_eq!(
        (error.kind(), start.elapsed()),
        (Kind::RateLimited, millis(2_200)),
        "the target was not asked"
    );
    assert_eq!(error.to_string(), "no turn before the deadline");
    drop(ahead);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_come_within_the_longest_wait_is_refused_then() {
    let recorder = Recorder::new();
    let flow = echo().rate_limit(config(quota(1)).max_wait(millis(1_500)).unwrap());
    let (cx, start) = (recorder.context(), Instant::now());
    flow.run(0, &cx).await.unwrap();
    let answers = join_all((0..3).map(|n| flow.run(n, &cx))).await;
    assert!(answers[0].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().retry_after(), Some(secs(1)));
    assert_eq!(start.elapsed(), secs(1), "the wait of the second is known when it is its turn");
    assert_eq!(flow.stage().allowance().waiting(), 0);

    let slow = echo()
        .rate_limit(RateLimitConfig::new("model", Allowance::new(quota(1))).max_wait(millis(1_000)).unwrap());
    slow.run(0, &cx).await.unwrap();
    sleep(millis(500)).await;
    let mut ahead = Box::pin(slow.run(1, &cx));
    assert!(poll!(&mut ahead).is_pending());
    let error = slow.run(2, &cx).await.unwrap_err();
    assert_eq!(error.to_string(), "no turn within 1s");
    assert_eq!(events(&recorder, "waited_too_long"), Some(1.0));
    ahead.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiters_take_turns_in_the_order_they_came_and_a_large_one_is_not_starved() {
    let flow = Arc::new(limited(
        config(Allowance::of_units(quota(10))).estimate(|n| *n).max_wait(secs(60)).unwrap(),
    ));
    let (cx, start) = (Context::new(), Instant::now());
    flow.run(10, &cx).await.unwrap();
    let ended = join_all([9, 1, 1].map(|units| {
        let (flow, cx) = (Arc::clone(&flow), cx.clone());
        async move {
            flow.run(units, &cx).await.unwrap();
            start.elapsed()
        }
    }));
    assert_eq!(ended.await, [900, 1_000, 1_100].map(millis));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_leaves_no_gap() {
    let flow = limited(config(quota(1)).max_wait(secs(60)).unwrap());
    let (cx, start) = (Context::new(), Instant::now());
    flow.run(0, &cx).await.unwrap();
    let mut runs: Vec<_> = (0..5).map(|n| Box::pin(flow.run(n, &cx))).collect();
    for run in &mut runs {
        assert!(poll!(run).is_pending());
    }
    let last = runs.pop().unwrap();
    drop(runs);
    assert_eq!(last.await.unwrap(), 4);
    assert_eq!(start.elapsed(), secs(1), "it has the turn of the first");
}

#[tokio::test(start_paused = true)]
async fn a_gift_lets_the_first_in_line_go_sooner() {
    let slow = workflow("slow", |n: u64| async move {
        sleep(millis(500)).await;
        Ok(n)
    });
    let config = config(Allowance::of_units(Quota::new(100, secs(100)).unwrap()))
        .estimate(|_| 100)
        .actual(|_| Some(1))
        .max_wait(secs(600))
        .unwrap();
    let flow = slow.rate_limit(config);
    let (cx, start) = (Context::new(), Instant::now());
    let (first, second) = tokio::join!(flow.run(1, &cx), flow.run(2, &cx));
    first.unwrap();
    second.unwrap();
    assert_eq!(start.elapsed(), millis(1_500), "half a second for each, and half for the unit to leak");
}

// === settlement ===

#[tokio::test(start_paused = true)]
async fn less_use_than_estimated_is_given_back_and_more_is_owed() {
    let account = Allowance::of_units(quota(100));
    let flow = limited(config(account.clone()).estimate(|_| 50).actual(|n| Some(*n)));
    let cx = Context::new();
    flow.run(10, &cx).await.unwrap();
    assert_eq!(account.units_left(), Some(90));
    flow.run(120, &cx).await.unwrap();
    assert_eq!(account.units_left(), Some(0));
    let error = flow.run(1, &cx).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(millis(800)), "30 are owed and 50 are asked for");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_tell_counts_as_estimated() {
    let account = Allowance::of_units(quota(100));
    let flow = limited(config(account.clone()).estimate(|_| 30).actual(|_| None));
    flow.run(1, &Context::new()).await.unwrap();
    assert_eq!(account.units_left(), Some(70));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_fails_or_is_dropped_counts_as_estimated_because_it_was_made() {
    let account = Allowance::of_both(quota(10), quota(100));
    let cx = Context::new();
    let fails = workflow("fails", |_: u64| async { Err::<u64, _>(Error::new(Kind::Upstream, "503")) });
    let fails = fails.rate_limit(config(account.clone()).estimate(|_| 30).actual(|_| Some(0)));
    fails.run(1, &cx).await.unwrap_err();
    assert_eq!((account.requests_left(), account.units_left()), (Some(9), Some(70)));

    let hangs = workflow("hangs", |_: u64| std::future::pending::<throughline::Result<u64>>());
    let hangs = hangs.rate_limit(config(account.clone()).estimate(|_| 30).actual(|_| Some(0)));
    let mut run = Box::pin(hangs.run(1, &cx));
    assert!(poll!(&mut run).is_pending());
    drop(run);
    assert_eq!((account.requests_left(), account.units_left()), (Some(8), Some(40)));
    assert_eq!(counts(hangs.stage().stats()), [0, 0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_settled_when_it_knows() {
    let account = Allowance::of_units(quota(100));
    let words =
        workflow_stream(
            "words",
            |n: u64, _| async move { Ok(ItemStream::new(stream::iter((0..n).map(Ok)))) },
        );
    let config = RateLimitConfig::new("model", &account).estimate(|_: &u64| 50).settle_with(
        |words: &mut ItemStream<u64>, reservation| {
            assert_eq!(reservation.units(), 50);
            let used = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&used);
            words.on_item(move |_| _ = count.fetch_add(1, Ordering::Relaxed));
            words.on_end(Box::new(move |_| reservation.settle(used.load(Ordering::Relaxed))));
        },
    );
    let flow = words.rate_limit(config);
    let words = flow.run(3, &Context::new()).await.unwrap();
    assert_eq!(account.units_left(), Some(50), "reserved while it is under way");
    assert_eq!(words.collect::<Vec<_>>().await.len(), 3);
    assert_eq!(account.units_left(), Some(97));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_of_the_upstreams_limit_pauses_as_well() {
    let refuses = workflow_stream("refuses", |_: u64, _| async move {
        let error = Error::new(Kind::RateLimited, "too many tokens").with_retry_after(secs(5));
        Ok(ItemStream::new(stream::iter([Ok(1), Err(error)])))
    });
    let flow = refuses.rate_limit(RateLimitConfig::new("model", quota(100)));
    let items: Vec<_> = flow.run(1, &Context::new()).await.unwrap().collect().await;
    assert!(items[1].is_err());
    assert_eq!(flow.stage().allowance().paused_for(), secs(5));
}

// === two buckets, sharing, learning ===

#[tokio::test(start_paused = true)]
async fn a_run_takes_of_both_or_of_none() {
    let account = Allowance::of_both(quota(3), quota(100));
    let flow = limited(config(account.clone()).estimate(|n| *n));
    let cx = Context::new();
    flow.run(60, &cx).await.unwrap();
    for _ in 0..10 {
        let error = flow.run(60, &cx).await.unwrap_err();
        assert_eq!(error.to_string(), "rate limited for another 200ms: 100 units in 1s are allowed");
    }
    assert_eq!((account.requests_left(), account.units_left()), (Some(2), Some(40)));
    flow.run(1, &cx).await.unwrap();
    flow.run(1, &cx).await.unwrap();
    assert!(flow.run(1, &cx).await.unwrap_err().to_string().contains("3 requests"));
    assert_eq!(account.units_left(), Some(38));
}

#[tokio::test(start_paused = true)]
async fn more_than_can_ever_pass_is_refused_for_good_and_says_so() {
    let recorder = Recorder::new();
    let units = quota(100).burst(20).unwrap();
    let config = config(Allowance::of_both(quota(3), units)).estimate(|n| *n).max_wait(secs(60)).unwrap();
    let flow = echo().rate_limit(config);
    let error = flow.run(21, &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable(), error.retry_after()), (Kind::RateLimited, false, None));
    assert_eq!(error.to_string(), "21 units are more than can ever pass: 20 at once, raise the burst");
    assert_eq!(events(&recorder, "too_large"), Some(1.0));
    assert_eq!(flow.stage().allowance().requests_left(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn workflows_that_share_an_allowance_use_it_up_together() {
    let account = Allowance::new(quota(3));
    let (chat, embed) = (limited(config(account.clone())), limited(config(account.clone())));
    let cx = Context::new();
    chat.run(1, &cx).await.unwrap();
    embed.run(1, &cx).await.unwrap();
    chat.run(1, &cx).await.unwrap();
    assert!(embed.run(1, &cx).await.is_err());
    account.pause(secs(9));
    sleep(secs(8)).await;
    assert_eq!(chat.run(1, &cx).await.unwrap_err().retry_after(), Some(secs(1)));
    assert_eq!(embed.run(1, &cx).await.unwrap_err().retry_after(), Some(secs(1)));
}

#[tokio::test(start_paused = true)]
async fn learning_can_be_turned_off_and_other_errors_teach_nothing() {
    let cx = Context::new();
    let says = |kind: Kind, wait: Option<Duration>| {
        workflow("says", move |_: u64| async move {
            let error = Error::new(kind, "no");
            Err::<u64, _>(wait.into_iter().fold(error, Error::with_retry_after))
        })
    };
    for (kind, wait, learn) in [
        (Kind::RateLimited, Some(secs(5)), false),
        (Kind::RateLimited, None, true),
        (Kind::Upstream, Some(secs(5)), true),
    ] {
        let flow = says(kind, wait).rate_limit(config(quota(5)).learn(learn));
        flow.run(1, &cx).await.unwrap_err();
        assert_eq!(flow.stage().allowance().paused_for(), Duration::ZERO, "{kind:?} {wait:?} {learn}");
    }
    let flow = says(Kind::RateLimited, Some(secs(100_000))).rate_limit(config(quota(5)));
    flow.run(1, &cx).await.unwrap_err();
    assert_eq!(flow.stage().allowance().paused_for(), secs(3_600), "an hour at most");
}

#[tokio::test(start_paused = true)]
async fn who_waits_also_waits_for_the_upstream() {
    let account = Allowance::new(quota(100));
    let flow = limited(config(account.clone()).max_wait(secs(60)).unwrap());
    account.pause(secs(20));
    let (start, cx) = (Instant::now(), Context::new());
    flow.run(1, &cx).await.unwrap();
    assert_eq!(start.elapsed(), secs(20));
}

#[tokio::test(start_paused = true)]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let off = throughline::telemetry::Sink::without_telemetry(Clock::Tokio);
    let cx = Context::builder().sink(&off).build();
    let flow = echo().rate_limit(config(quota(1)));
    flow.run(1, &cx).await.unwrap();
    flow.run(1, &cx).await.unwrap_err();
    assert_eq!(counts(flow.stage().stats()), [1, 0, 0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_take_more_than_there_is() {
    let flow = Arc::new(limited(config(Quota::new(40, secs(3_600)).unwrap())));
    let runs = (0..200).map(|n| {
        let flow = Arc::clone(&flow);
        tokio::spawn(async move { flow.run(n, &Context::new()).await.is_ok() })
    });
    let passed = join_all(runs.collect::<Vec<_>>()).await;
    assert_eq!(passed.into_iter().filter(|passed| *passed.as_ref().unwrap()).count(), 40);
}

#[tokio::test(start_paused = true)]
async fn one_configuration_for_two_workflows_is_one_allowance() {
    let account = Allowance::new(quota(1));
    let one = config(&account);
    let (first, second, cx) = (limited(one.clone()), limited(one), Context::new());
    first.run(1, &cx).await.unwrap();
    assert_eq!(second.run(1, &cx).await.unwrap_err().kind(), Kind::RateLimited);
    assert_eq!(account.requests_left(), Some(0));
}
