//! Who is let into a bulkhead, who waits, and that every place comes back.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, poll, stream};
use throughline::bulkhead::BulkheadStats;
use throughline::testing::{Recorder, Script, Turn};
use throughline::{
    BulkheadConfig, Clock, Compartment, Context, Error, ItemStream, Kind, Primitive, Result, Workflow,
    workflow, workflow_stream,
};
use tokio::time::{Instant, sleep};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(max_concurrent: usize) -> BulkheadConfig {
    BulkheadConfig::new("report", max_concurrent).unwrap()
}

/// Takes as many milliseconds as it is told and gives them back.
fn sleeper() -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("sleeper", |n: u64| async move {
        sleep(millis(n)).await;
        Ok(n)
    })
}

/// `[successes, errors, cancelled, rejected]`
fn counts(stats: BulkheadStats) -> [u64; 4] {
    [stats.successes, stats.errors, stats.cancelled, stats.rejected]
}

/// `[in_use, queued, most_in_use, most_queued]`
fn levels(stats: BulkheadStats) -> [usize; 4] {
    [stats.in_use, stats.queued, stats.most_in_use, stats.most_queued]
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    let labels = [("primitive", "bulkhead"), ("operation", "report"), ("event", event)];
    recorder.metric("throughline_primitive_events_total", &labels)
}

/// Starts a run and leaves it where it first has to wait.
async fn begin<'a, T>(
    run: impl Future<Output = Result<T>> + 'a,
) -> Pin<Box<dyn Future<Output = Result<T>> + 'a>> {
    let mut run: Pin<Box<dyn Future<Output = Result<T>> + 'a>> = Box::pin(run);
    assert!(poll!(&mut run).is_pending());
    run
}

#[test]
fn a_config_refuses_what_is_out_of_bounds() {
    let refused = |result: Result<BulkheadConfig, throughline::ConfigError>| result.unwrap_err().to_string();
    assert_eq!(
        refused(BulkheadConfig::new("x", 0)),
        "bulkhead max_concurrent is 0: it must be from 1 to 1000000"
    );
    assert!(BulkheadConfig::new("x", 1_000_001).is_err());
    assert_eq!(
        refused(config(1).max_wait(Duration::ZERO)),
        "bulkhead max_wait is 0ns: it must be more than 0s and at most 86400s"
    );
    assert!(config(1).max_wait(secs(86_401)).is_err());
}

#[tokio::test(start_paused = true)]
async fn shows_its_name_its_places_and_its_counts() {
    let flow = sleeper().bulkhead(config(2).queue(3));
    let cx = Context::new();
    let _one = begin(flow.run(5, &cx)).await;
    assert_eq!(
        format!("{:?}", flow.stage()),
        "Bulkhead(Compartment(report, 1 of 2 under way, 0 of 3 wait), 0 rejected)"
    );
    assert_eq!((flow.describe().primitive(), flow.describe().operation()), ("bulkhead", "report"));
    assert_eq!(flow.describe().children()[0].operation(), "sleeper");
}

// === the rules that Resilience4j and failsafe-go document ===

#[tokio::test(start_paused = true)]
async fn r4j_max_concurrent_calls_is_how_many_run_in_parallel() {
    let recorder = Recorder::new();
    let flow = sleeper().bulkhead(config(25));
    let cx = recorder.context();
    let answers = join_all((0..40).map(|_| flow.run(100, &cx))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 25);
    assert_eq!(counts(flow.stage().stats()), [25, 0, 0, 15]);
    assert_eq!(levels(flow.stage().stats()), [0, 0, 25, 0]);
    assert_eq!(events(&recorder, "rejected_full"), Some(15.0));
    let labels = [("primitive", "bulkhead"), ("outcome", "rejected")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &labels), Some(15.0));
}

#[tokio::test(start_paused = true)]
async fn r4j_without_a_wait_a_full_bulkhead_rejects_at_once() {
    let flow = sleeper().bulkhead(config(1));
    let (cx, start) = (Context::new(), Instant::now());
    let _busy = begin(flow.run(1_000, &cx)).await;
    let error = flow.run(1, &cx).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Rejected, true));
    assert_eq!(error.to_string(), "1 runs are under way and 0 wait, no more are allowed");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn r4j_max_wait_duration_is_how_long_a_call_waits_to_enter() {
    let recorder = Recorder::new();
    let flow = sleeper().bulkhead(config(1).queue(2).max_wait(millis(500)).unwrap());
    let (cx, start) = (recorder.context(), Instant::now());
    let busy = begin(flow.run(400, &cx)).await;
    let (first, second, third) = tokio::join!(busy, flow.run(400, &cx), flow.run(400, &cx));
    assert!(first.is_ok() && second.is_ok());
    let error = third.unwrap_err();
    assert_eq!(error.kind(), Kind::Rejected);
    assert_eq!(error.to_string(), "no place became free within 500ms, 1 are taken");
    assert_eq!(start.elapsed(), millis(800));
    assert_eq!((events(&recorder, "queued"), events(&recorder, "rejected_wait")), (Some(2.0), Some(1.0)));
    assert_eq!(levels(flow.stage().stats()), [0, 0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn r4j_queue_capacity_bounds_how_many_wait() {
    let flow = sleeper().bulkhead(config(1).queue(2));
    let cx = Context::new();
    let _busy = begin(flow.run(1_000, &cx)).await;
    let _first = begin(flow.run(1, &cx)).await;
    let second = begin(flow.run(1, &cx)).await;
    let error = flow.run(1, &cx).await.unwrap_err();
    assert_eq!(error.to_string(), "1 runs are under way and 2 wait, no more are allowed");
    drop(second);
    let _third = begin(flow.run(1, &cx)).await;
    assert_eq!(levels(flow.stage().stats()), [1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn r4j_fair_call_handling_lets_them_in_in_the_order_they_came() {
    let flow = sleeper().bulkhead(config(1).queue(10));
    let (cx, order) = (Context::new(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let runs = (0..8_u64).map(|n| {
        let (flow, cx, order) = (&flow, &cx, Arc::clone(&order));
        async move {
            flow.run(10 - n, cx).await.unwrap();
            order.lock().unwrap().push(n);
        }
    });
    join_all(runs).await;
    assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn r4j_a_permission_is_released_when_the_call_fails_too() {
    let script = Script::new("work").then(Turn::fail(Error::new(Kind::Upstream, "503"))).then(Turn::value(1));
    let flow = script.workflow().bulkhead(config(1));
    let cx = Context::new();
    flow.run((), &cx).await.unwrap_err();
    flow.run((), &cx).await.unwrap();
    assert_eq!(counts(flow.stage().stats()), [1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn r4j_a_permission_is_released_when_the_caller_goes_away_or_the_work_panics() {
    let script = Script::new("work").then(Turn::hang()).then(Turn::panic()).then(Turn::value(1));
    let flow = Arc::new(script.workflow().bulkhead(config(1)));
    let cx = Context::new();
    drop(begin(flow.run((), &cx)).await);
    let (panics, inner) = (Arc::clone(&flow), cx.clone());
    tokio::spawn(async move { panics.run((), &inner).await }).await.unwrap_err();
    flow.run((), &cx).await.unwrap();
    assert_eq!(counts(flow.stage().stats()), [1, 1, 1, 0]);
    assert_eq!(levels(flow.stage().stats()), [0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn failsafe_a_cancelled_context_ends_the_wait_with_its_own_error() {
    let flow = sleeper().bulkhead(config(1).queue(1).max_wait(secs(60)).unwrap());
    let cx = Context::new();
    let _busy = begin(flow.run(60_000, &cx)).await;
    let stop = throughline::TimeoutConfig::new("stop", millis(100)).unwrap().grace(secs(5)).unwrap();
    let start = Instant::now();
    let outer = workflow("outer", |n: u64| async move { Ok(n) }) >> flow.clone().timeout(stop);
    assert_eq!(outer.run(1, &cx).await.unwrap_err().to_string(), "no answer within 100ms");
    assert_eq!(start.elapsed(), millis(100), "it did not need the grace");
    assert_eq!(counts(flow.stage().stats()), [0, 0, 1, 0]);
    assert_eq!(levels(flow.stage().stats()), [1, 0, 1, 1]);
}

// === waits, deadlines, cancellation ===

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_the_deadline() {
    let recorder = Recorder::new();
    let flow = sleeper().bulkhead(config(1).queue(1).max_wait(secs(60)).unwrap());
    let patient = recorder.context();
    let _busy = begin(flow.run(60_000, &patient)).await;
    let cx = Context::builder().sink(recorder.sink()).time_limit(millis(250)).build();
    let start = Instant::now();
    let error = flow.run(1, &cx).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Rejected, millis(250)), "the target was not asked");
    assert_eq!(error.to_string(), "no place became free before the deadline, 1 are taken");
    assert_eq!(events(&recorder, "rejected_deadline"), Some(1.0));
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1]);

    let error = flow.run(1, &cx).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Rejected, millis(250)), "no time is left, no wait");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_with_a_timeout_around_it_is_that_timeouts_and_no_failure_of_the_target() {
    use throughline::{Circuit, CircuitBreakerConfig, TimeoutConfig};
    let recorder = Recorder::new();
    let circuit = Circuit::new(CircuitBreakerConfig::new("model"));
    let held = sleeper().bulkhead(config(1).queue(1).max_wait(secs(60)).unwrap()).circuit_breaker(&circuit);
    let flow = held.clone().timeout(TimeoutConfig::new("whole", millis(250)).unwrap());
    let patient = recorder.context();
    let _busy = begin(held.run(60_000, &patient)).await;
    let error = flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(circuit.stats().failures, 0);
    let timeouts = [("operation", "whole"), ("outcome", "timeout")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &timeouts), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_away_gives_its_turn_to_the_next() {
    let flow = sleeper().bulkhead(config(1).queue(5));
    let (cx, start) = (Context::new(), Instant::now());
    let busy = begin(flow.run(100, &cx)).await;
    let first = begin(flow.run(1_000, &cx)).await;
    let second = begin(flow.run(50, &cx)).await;
    drop(first);
    let (busy, second) = tokio::join!(busy, second);
    assert!(busy.is_ok() && second.is_ok());
    assert_eq!(start.elapsed(), millis(150));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_given_to_one_who_then_goes_away_is_not_lost() {
    let flow = sleeper().bulkhead(config(1).queue(5));
    let (cx, start) = (Context::new(), Instant::now());
    let busy = begin(flow.run(100, &cx)).await;
    let first = begin(flow.run(1_000, &cx)).await;
    busy.await.unwrap();
    // The place is the first waiter's now, who has not been woken yet.
    drop(first);
    flow.run(1, &cx).await.unwrap();
    assert_eq!(start.elapsed(), millis(101));
    assert_eq!(levels(flow.stage().stats()), [0, 0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn workflows_that_share_a_compartment_share_its_places() {
    let places = Compartment::new(config(2).queue(1));
    let (a, b) = (sleeper().bulkhead(&places), sleeper().bulkhead(&places));
    let cx = Context::new();
    let _one = begin(a.run(100, &cx)).await;
    let _two = begin(b.run(100, &cx)).await;
    let _waits = begin(a.run(100, &cx)).await;
    assert_eq!((places.in_use(), places.queued()), (2, 1));
    assert_eq!(b.run(100, &cx).await.unwrap_err().kind(), Kind::Rejected);
    assert_eq!((a.stage().stats().rejected, b.stage().stats().rejected), (0, 1));
    assert_eq!(levels(a.stage().stats()), levels(b.stage().stats()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_holds_its_place_until_it_has_ended() {
    let words = workflow_stream("words", |n: u64, _| async move {
        let items = (0..n).map(|n| if n == 7 { Err(Error::new(Kind::Upstream, "cut")) } else { Ok(n) });
        Ok(ItemStream::new(stream::iter(items)))
    });
    let flow = words.bulkhead(config(1));
    let cx = Context::new();
    for (count, read) in [(3, 4), (8, 9), (3, 1)] {
        let mut items = flow.run(count, &cx).await.unwrap();
        assert_eq!(flow.stage().stats().in_use, 1);
        assert_eq!(flow.run(1, &cx).await.unwrap_err().kind(), Kind::Rejected);
        for _ in 0..read {
            items.next().await;
        }
        drop(items);
        assert_eq!(flow.stage().stats().in_use, 0);
    }
    assert_eq!(counts(flow.stage().stats()), [1, 1, 1, 3], "complete, failed, dropped");
}

#[tokio::test(start_paused = true)]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let off = throughline::telemetry::Sink::without_telemetry(Clock::Tokio);
    let cx = Context::builder().sink(&off).build();
    let flow = sleeper().bulkhead(config(1));
    let (one, two) = tokio::join!(flow.run(10, &cx), flow.run(10, &cx));
    assert!(one.is_ok() && two.is_err());
    assert_eq!(counts(flow.stage().stats()), [1, 0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_exceed_the_bounds() {
    let flow = Arc::new(
        workflow("yields", |n: u64| async move {
            tokio::task::yield_now().await;
            Ok(n)
        })
        .bulkhead(config(3).queue(20)),
    );
    let runs = (0..500).map(|n| {
        let flow = Arc::clone(&flow);
        tokio::spawn(async move { flow.run(n, &Context::new()).await.is_ok() })
    });
    let passed = join_all(runs.collect::<Vec<_>>()).await;
    let passed = passed.into_iter().filter(|passed| *passed.as_ref().unwrap()).count() as u64;
    let stats = flow.stage().stats();
    assert_eq!(counts(stats), [passed, 0, 0, 500 - passed]);
    assert!(stats.most_in_use <= 3 && stats.most_queued <= 20, "{stats:?}");
    assert_eq!((stats.in_use, stats.queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_compartment_is_shared_by_reference() {
    let places = Compartment::new(config(1));
    let hangs = || workflow("hangs", |(): ()| std::future::pending::<Result<()>>()).bulkhead(&places);
    let (first, second, cx) = (hangs(), hangs(), Context::new());
    let mut holds = Box::pin(first.run((), &cx));
    assert!(poll!(&mut holds).is_pending());
    assert_eq!(second.run((), &cx).await.unwrap_err().kind(), Kind::Rejected);
    assert_eq!(places.in_use(), 1);
}
