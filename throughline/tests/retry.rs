//! When there is another attempt, when it begins, and what the caller gets when there is none.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use proptest::prelude::*;
use throughline::retry::RetryStats;
use throughline::telemetry::Sink;
use throughline::testing::Recorder;
use throughline::{
    Backoff, Budget, BudgetConfig, Clock, Context, Error, ItemStream, Jitter, Kind, Primitive, Result,
    RetryConfig, TimeoutConfig, Workflow, workflow, workflow_stream, workflow_with,
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// One second between attempts, exactly.
fn config() -> RetryConfig {
    RetryConfig::new("model").backoff(Backoff::constant(SECOND).unwrap().jitter(Jitter::None))
}

fn attempts(attempts: u32) -> RetryConfig {
    config().max_attempts(attempts).unwrap()
}

fn upstream() -> Error {
    Error::new(Kind::Upstream, "503")
}

/// When each attempt began, counted from the making of the script.
type Log = Arc<Mutex<Vec<Duration>>>;

/// Fails as often as there are errors, then answers with the number of the attempt.
fn script(errors: impl IntoIterator<Item = Error>) -> (Workflow<impl Primitive<In = (), Out = u32>>, Log) {
    slow_script(Duration::ZERO, errors)
}

/// As [`script`], with attempts that take `time`.
fn slow_script(
    time: Duration,
    errors: impl IntoIterator<Item = Error>,
) -> (Workflow<impl Primitive<In = (), Out = u32>>, Log) {
    let (log, start) = (Log::default(), Instant::now());
    let errors = Mutex::new(errors.into_iter().collect::<Vec<_>>().into_iter());
    let seen = Arc::clone(&log);
    let flow = workflow_with("script", move |(): (), cx: Context| {
        seen.lock().unwrap().push(start.elapsed());
        let result = errors.lock().unwrap().next().map_or(Ok(cx.attempt()), Err);
        async move {
            if !time.is_zero() {
                sleep(time).await;
            }
            result
        }
    });
    (flow, log)
}

fn starts(log: &Log) -> Vec<Duration> {
    log.lock().unwrap().clone()
}

/// Always fails, at once.
fn dead() -> (Workflow<impl Primitive<In = (), Out = u32>>, Log) {
    script(std::iter::repeat_n(upstream(), 100_000))
}

/// `[successes, recovered, errors, cancelled, retries]`
fn counts(stats: RetryStats) -> [u64; 5] {
    [stats.successes, stats.recovered, stats.errors, stats.cancelled, stats.retries]
}

fn outcome(recorder: &Recorder, outcome: &str) -> Option<f64> {
    let labels = [("primitive", "retry"), ("operation", "model"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    recorder.metric("throughline_primitive_events_total", &[("primitive", "retry"), ("event", event)])
}

fn in_flight(recorder: &Recorder) -> Option<f64> {
    recorder.metric("throughline_primitive_in_flight", &[])
}

// === how often ===

/// failsafe-go: "By default, a RetryPolicy will allow a maximum of 3 execution attempts."
#[tokio::test(start_paused = true)]
async fn there_are_three_attempts_unless_told_otherwise() {
    let (flow, log) = dead();
    let flow = flow.retry(config());
    flow.run((), &Recorder::new().context()).await.unwrap_err();
    assert_eq!(starts(&log), [Duration::ZERO, SECOND, SECOND * 2]);
}

#[tokio::test(start_paused = true)]
async fn one_attempt_is_no_retry_and_zero_is_refused() {
    let text = RetryConfig::new("model").max_attempts(0).unwrap_err().to_string();
    assert_eq!(
        text,
        "retry max attempts is 0: it must be 1 or more; the first attempt counts, so 1 means no retry"
    );
    let (flow, log) = dead();
    flow.retry(attempts(1)).run((), &Context::new()).await.unwrap_err();
    assert_eq!(starts(&log).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_last_attempt_is_returned_unchanged() {
    let errors = ["first", "second", "third"].map(|text| Error::new(Kind::Upstream, text));
    let (flow, _) = script(errors);
    let error = flow.retry(config()).run((), &Recorder::new().context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Upstream, "third"));
}

/// Resilience4j tells `successful_without_retry`, `successful_with_retry`, `failed_without_retry` and
/// `failed_with_retry` apart.
#[tokio::test(start_paused = true)]
async fn runs_are_told_apart_by_success_and_by_whether_they_were_retried() {
    let recorder = Recorder::new();
    let invalid = || Error::new(Kind::InvalidInput, "bad");
    let (flow, _) = script([upstream(), invalid(), upstream(), upstream(), upstream()]);
    let flow = flow.retry(config());
    let cx = recorder.context();
    for expected in ["not retryable", "exhausted", "success"] {
        assert_eq!(flow.run((), &cx).await.is_ok(), expected == "success", "{expected}");
    }
    assert_eq!(counts(flow.stage().stats()), [1, 0, 2, 0, 3]);
    assert_eq!([events(&recorder, "not_retryable"), events(&recorder, "exhausted")], [Some(1.0); 2]);

    let (flow, _) = script([upstream()]);
    let flow = flow.retry(config());
    assert_eq!(flow.run((), &cx).await.unwrap(), 2, "the second attempt answered");
    assert_eq!(counts(flow.stage().stats()), [0, 1, 0, 0, 1]);
    assert_eq!(flow.stage().stats().total(), 1);
    assert_eq!(outcome(&recorder, "recovered"), Some(1.0));
    assert_eq!(outcome(&recorder, "success"), Some(1.0));
    assert_eq!(outcome(&recorder, "error"), Some(2.0));
    assert_eq!(events(&recorder, "recovered"), Some(1.0));
    assert_eq!(events(&recorder, "retry"), Some(4.0));
}

// === which errors ===

#[tokio::test(start_paused = true)]
async fn what_another_attempt_cannot_help_is_not_retried() {
    for error in [
        Error::new(Kind::InvalidInput, "bad"),
        Error::new(Kind::Internal, "bug"),
        upstream().fatal(),
        Error::new(Kind::Cancelled, "stop").with_retry_after(SECOND),
        Error::new(Kind::CircuitOpen, "open for another 4s").with_retry_after(SECOND),
    ] {
        let (flow, log) = script([error.clone()]);
        let flow = flow.retry(config().retry_if(|_| true));
        let got = flow.run((), &Recorder::new().context()).await.unwrap_err();
        assert_eq!(got.to_string(), error.to_string());
        assert_eq!(starts(&log).len(), 1, "{error:?}");
    }
}

/// Polly's `ShouldHandle` and backon's `when`: a predicate decides by the error.
#[tokio::test(start_paused = true)]
async fn the_predicate_narrows_what_is_retried() {
    let (flow, log) = script([upstream(), Error::new(Kind::Timeout, "late")]);
    let flow = flow.retry(config().retry_if(|error| error.kind() == Kind::Upstream));
    assert_eq!(flow.run((), &Recorder::new().context()).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(starts(&log).len(), 2);
}

#[tokio::test]
async fn a_panic_is_not_retried() {
    let recorder = Recorder::new();
    let tries = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&tries);
    let panics = workflow("panics", move |n: u32| {
        seen.fetch_add(1, Ordering::Relaxed);
        async move { if n == 0 { panic!("bug") } else { Ok(n) } }
    });
    let flow = panics.retry(config());
    let cx = recorder.context();
    let caught = std::panic::AssertUnwindSafe(flow.run(0, &cx)).catch_unwind().await;
    assert!(caught.is_err());
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    assert_eq!(counts(flow.stage().stats()), [0, 0, 1, 0, 0]);
    assert_eq!(in_flight(&recorder), Some(0.0));
}

// === when ===

#[tokio::test(start_paused = true)]
async fn the_delays_are_those_of_the_backoff() {
    let (flow, log) = dead();
    let backoff = Backoff::exponential(SECOND, SECOND * 5).unwrap().jitter(Jitter::None);
    let flow = flow.retry(attempts(6).backoff(backoff));
    flow.run((), &Recorder::new().context()).await.unwrap_err();
    assert_eq!(starts(&log), [0, 1, 3, 7, 12, 17].map(Duration::from_secs));
}

/// Tokio's timers are good to a millisecond, and none of them is at once.
#[tokio::test(start_paused = true)]
async fn without_a_delay_the_next_attempt_does_not_wait_for_a_timer() {
    tokio::time::advance(Duration::from_micros(300)).await;
    let (flow, log) = dead();
    let at_once = config().backoff(Backoff::constant(Duration::ZERO).unwrap());
    flow.retry(at_once).run((), &Context::new()).await.unwrap_err();
    assert_eq!(starts(&log), [Duration::ZERO; 3]);
}

/// Polly: "Delay = TimeSpan.Zero" is an instant retry.
#[tokio::test(start_paused = true)]
async fn a_delay_of_zero_retries_at_once() {
    let (flow, log) = script([upstream(), upstream()]);
    let flow = flow.retry(config().backoff(Backoff::constant(Duration::ZERO).unwrap()));
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 3);
    assert_eq!(starts(&log), [Duration::ZERO; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_seed_decides_the_delays_of_every_run() {
    let run_twice = async |seed| {
        let (flow, log) = dead();
        let flow = flow.retry(attempts(5).backoff(Backoff::default()).seed(seed));
        for _ in 0..2 {
            flow.run((), &Recorder::new().context()).await.unwrap_err();
        }
        starts(&log).chunks(5).map(|run| run.iter().map(|at| *at - run[0]).collect()).collect::<Vec<Vec<_>>>()
    };
    let (one, same, other) = (run_twice(1).await, run_twice(1).await, run_twice(9).await);
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert_ne!(one[0], one[1], "runs that fail together do not come back together");
}

/// backon's `adjust` and Polly's `DelayGenerator` are there for this.
#[tokio::test(start_paused = true)]
async fn a_retry_after_is_waited_for_even_beyond_the_cap() {
    let (flow, log) = script([upstream().with_retry_after(Duration::from_secs(30)), upstream()]);
    let flow = flow.retry(config());
    assert_eq!(flow.run((), &Recorder::new().context()).await.unwrap(), 3);
    assert_eq!(starts(&log), [0, 30, 31].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_of_more_than_an_hour_is_not_waited_for() {
    for asked in [Duration::from_secs(3_601), Duration::MAX] {
        let recorder = Recorder::new();
        let (flow, log) = script([upstream().with_retry_after(asked)]);
        let error = flow.retry(config()).run((), &recorder.context()).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(asked), "the caller may still come back then");
        assert_eq!((starts(&log).len(), events(&recorder, "no_time_left")), (1, Some(1.0)));
    }
    let (flow, log) = script([upstream().with_retry_after(Duration::from_secs(3_600))]);
    flow.retry(config()).run((), &Context::new()).await.unwrap();
    assert_eq!(starts(&log), [Duration::ZERO, Duration::from_secs(3_600)]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_shorter_than_the_backoff_does_not_shorten_it() {
    let (flow, log) = script([upstream().with_retry_after(Duration::from_millis(1))]);
    flow.retry(config()).run((), &Recorder::new().context()).await.unwrap();
    assert_eq!(starts(&log), [Duration::ZERO, SECOND]);
}

// === how long ===

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_the_deadline_gives_up_at_once_with_the_last_error() {
    let recorder = Recorder::new();
    let (flow, log) = script([upstream().with_retry_after(Duration::from_secs(30))]);
    let flow = flow.retry(config());
    let start = Instant::now();
    let error = flow.run((), &recorder.context().with_time_limit(SECOND * 20)).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("503", Duration::ZERO));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)), "the caller may still wait that long");
    assert_eq!(starts(&log).len(), 1);
    assert_eq!(events(&recorder, "no_time_left"), Some(1.0));
    assert_eq!(outcome(&recorder, "error"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn there_is_no_wait_that_would_not_end_before_the_deadline() {
    for (limit, expected) in [(2_999, 3), (3_000, 3), (3_001, 4)] {
        let (flow, log) = dead();
        let flow = flow.retry(attempts(100));
        let cx = Recorder::new().context().with_time_limit(Duration::from_millis(limit));
        assert_eq!(flow.run((), &cx).await.unwrap_err().to_string(), "503", "never a new kind of error");
        assert_eq!(starts(&log).len(), expected, "{limit}ms");
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_the_same_deadline() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let deadlines = Arc::clone(&seen);
    let flow = workflow_with("look", move |(): (), cx: Context| {
        deadlines.lock().unwrap().push(cx.deadline());
        async { Err::<(), _>(upstream()) }
    });
    let cx = Recorder::new().context().with_time_limit(SECOND * 60);
    flow.retry(config()).run((), &cx).await.unwrap_err();
    assert_eq!(*seen.lock().unwrap(), [cx.deadline(); 3]);
}

/// backon's `with_total_delay` and failsafe-go's `WithMaxDuration`.
#[tokio::test(start_paused = true)]
async fn the_total_limit_ends_the_attempts_and_is_the_deadline_of_each() {
    assert_eq!(
        config().total_limit(Duration::ZERO).unwrap_err().to_string(),
        "retry total limit is 0s: it must be more than that"
    );
    let recorder = Recorder::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let left = Arc::clone(&seen);
    let flow = workflow_with("look", move |(): (), cx: Context| {
        left.lock().unwrap().push(cx.time_left().unwrap().as_millis());
        async move {
            sleep(Duration::from_millis(500)).await;
            Err::<(), _>(upstream())
        }
    });
    let flow = flow.retry(attempts(100).total_limit(Duration::from_millis(3_700)).unwrap());
    let cx = recorder.context();
    assert_eq!(flow.run((), &cx).await.unwrap_err().to_string(), "503");
    assert_eq!(*seen.lock().unwrap(), [3_700, 2_200, 700]);
    assert_eq!(events(&recorder, "no_time_left"), Some(1.0));
    assert_eq!(cx.deadline(), None, "what is around the retry is not limited");
}

#[tokio::test(start_paused = true)]
async fn the_total_limit_never_moves_a_deadline_further_away() {
    let (flow, log) = dead();
    let flow = flow.retry(attempts(100).total_limit(SECOND * 100).unwrap());
    flow.run((), &Recorder::new().context().with_time_limit(SECOND * 2)).await.unwrap_err();
    assert_eq!(starts(&log).len(), 2);
}

// === cancellation ===

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_between_attempts_is_counted_and_its_token_given_back() {
    let recorder = Recorder::new();
    let budget = Budget::default();
    let (flow, log) = dead();
    let flow = flow.retry(config().budget(&budget));
    let available = budget.stats().available;
    let cx = recorder.context();
    tokio::time::timeout(SECOND / 2, flow.run((), &cx)).await.unwrap_err();
    assert_eq!(starts(&log).len(), 1);
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1, 0]);
    assert_eq!((outcome(&recorder, "cancelled"), in_flight(&recorder)), (Some(1.0), Some(0.0)));
    assert_eq!((budget.stats().available, budget.stats().withdrawals), (available, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_within_an_attempt_is_counted() {
    let recorder = Recorder::new();
    let hang = workflow("hang", |(): ()| pending::<Result<()>>()).retry(config());
    let cx = recorder.context();
    tokio::time::timeout(SECOND, hang.run((), &cx)).await.unwrap_err();
    assert_eq!(counts(hang.stage().stats()), [0, 0, 0, 1, 0]);
    assert_eq!(in_flight(&recorder), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn work_that_is_asked_to_stop_waits_no_longer_and_says_what_had_failed() {
    let recorder = Recorder::new();
    let budget = Budget::default();
    let (flow, log) = dead();
    let backoff = Backoff::constant(SECOND * 60).unwrap().jitter(Jitter::None);
    let flow = flow.retry(config().backoff(backoff).budget(&budget));
    // The deadline of limit and grace leaves room for the wait; the soft limit ends it.
    let limit = TimeoutConfig::new("all", SECOND).unwrap().grace(SECOND * 600).unwrap();
    let flow = flow.timeout(limit);
    let start = Instant::now();
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(start.elapsed(), SECOND);
    assert_eq!(
        format!("{error:?}"),
        "timeout: no answer within 1s: the work was asked to stop after 1 of 3 attempts: 503"
    );
    assert_eq!(starts(&log).len(), 1);
    assert_eq!(outcome(&recorder, "cancelled"), Some(1.0));
    assert_eq!(budget.stats().withdrawals, 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_gives_up_because_it_was_asked_to_is_counted_as_cancelled() {
    let recorder = Recorder::new();
    let polite = workflow_with("polite", |(): (), cx: Context| async move {
        cx.cancelled().await;
        Err::<(), _>(Error::new(Kind::Cancelled, "gave up"))
    });
    let limit = TimeoutConfig::new("all", SECOND).unwrap().grace(SECOND).unwrap();
    let flow = polite.retry(config()).timeout(limit);
    assert_eq!(flow.run((), &recorder.context()).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(outcome(&recorder, "cancelled"), Some(1.0));
    assert_eq!(events(&recorder, "retry"), Some(0.0));
}

// === with others ===

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_bounds_each_attempt_and_one_outside_all_of_them() {
    let hang = || workflow("hang", |(): ()| pending::<Result<()>>());
    let limit = |seconds| TimeoutConfig::new("limit", SECOND * seconds).unwrap();
    let cx = Recorder::new().context();

    let start = Instant::now();
    let inside = hang().timeout(limit(10)).retry(config());
    assert_eq!(inside.run((), &cx).await.unwrap_err().to_string(), "no answer within 10s");
    assert_eq!((start.elapsed(), inside.stage().stats().retries), (SECOND * 32, 2));

    let start = Instant::now();
    let outside = hang().retry(config()).timeout(limit(10));
    assert_eq!(outside.run((), &cx).await.unwrap_err().to_string(), "no answer within 10s");
    assert_eq!(start.elapsed(), SECOND * 10);
}

#[tokio::test(start_paused = true)]
async fn work_sees_the_attempt_of_the_nearest_retry_around_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let numbers = Arc::clone(&seen);
    let flow = workflow_with("look", move |(): (), cx: Context| {
        numbers.lock().unwrap().push(cx.attempt());
        async { Err::<(), _>(upstream()) }
    });
    let flow = flow.retry(attempts(2)).retry(attempts(2));
    let cx = Recorder::new().context();
    assert_eq!(cx.attempt(), 1);
    flow.run((), &cx).await.unwrap_err();
    assert_eq!(*seen.lock().unwrap(), [1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_input_is_copied_only_for_an_attempt_that_may_follow() {
    #[derive(Debug)]
    struct Counted(Arc<AtomicU32>);
    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }
    for (allowed, copies) in [(1, 0), (2, 1), (4, 3)] {
        let count = Arc::new(AtomicU32::new(0));
        let flow = workflow("fails", |_: Counted| async { Err::<(), _>(upstream()) });
        flow.retry(attempts(allowed)).run(Counted(Arc::clone(&count)), &Context::new()).await.unwrap_err();
        assert_eq!(count.load(Ordering::Relaxed), copies);
    }
}

#[tokio::test(start_paused = true)]
async fn state_that_a_failed_attempt_left_is_there_for_the_next() {
    let spent = workflow_with("spend", |(): (), cx: Context| async move {
        cx.state().update::<u64>(|tokens| *tokens += 100);
        if cx.attempt() < 3 { Err(upstream()) } else { Ok(()) }
    });
    let cx = Recorder::new().context();
    spent.retry(config()).run((), &cx).await.unwrap();
    assert_eq!(cx.state().get::<u64>().as_deref(), Some(&300), "what failed attempts cost is not forgotten");
}

// === streams ===

/// The items of one attempt: fails before the first where it is told to, or after it.
fn streaming(
    script: impl Fn(u32) -> Vec<Result<u32>> + Send + Sync + 'static,
) -> Workflow<impl Primitive<In = (), Out = ItemStream<u32>>> {
    workflow_stream("stream", move |(): (), cx: Context| {
        let items = script(cx.attempt());
        async move { Ok(ItemStream::new(stream::iter(items))) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_before_its_first_item_is_retried() {
    let recorder = Recorder::new();
    let flow = streaming(|attempt| if attempt < 3 { vec![Err(upstream())] } else { vec![Ok(7), Ok(8)] });
    let flow = flow.retry(config());
    let items = flow.run((), &recorder.context()).await.unwrap();
    assert_eq!(in_flight(&recorder), Some(2.0), "the run goes on with its stream");
    let items: Vec<u32> = items.map(Result::unwrap).collect().await;
    assert_eq!(items, [7, 8]);
    assert_eq!((outcome(&recorder, "recovered"), in_flight(&recorder)), (Some(1.0), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_after_its_first_item_is_not_retried() {
    let recorder = Recorder::new();
    let flow = streaming(|_| vec![Ok(7), Err(upstream())]).retry(config());
    let items: Vec<_> = flow.run((), &recorder.context()).await.unwrap().collect().await;
    assert_eq!(items[0].as_ref().unwrap(), &7);
    assert_eq!(items[1].as_ref().unwrap_err().to_string(), "503");
    assert_eq!(counts(flow.stage().stats()), [0, 0, 1, 0, 0]);
    assert_eq!(outcome(&recorder, "error"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_reader_goes_away_is_counted_as_cancelled() {
    let recorder = Recorder::new();
    let flow = streaming(|attempt| if attempt < 2 { vec![Err(upstream())] } else { vec![Ok(1), Ok(2)] });
    let flow = flow.retry(config());
    drop(flow.run((), &recorder.context()).await.unwrap());
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1, 1]);
}

// === the budget ===

fn budget(ratio: f64, floor: f64) -> Budget {
    Budget::new(BudgetConfig::default().ratio(ratio).unwrap().floor_per_second(floor).unwrap())
}

/// failsafe-go: a budget that is exceeded does not fail the first attempt.
#[tokio::test(start_paused = true)]
async fn an_empty_budget_gives_the_last_error_and_never_one_of_its_own() {
    let recorder = Recorder::new();
    let budget = budget(0.0, 0.1);
    let (flow, log) = dead();
    let flow = flow.retry(attempts(5).budget(&budget));
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(error.to_string(), "503");
    assert_eq!(starts(&log).len(), 2, "one token, one retry");
    assert_eq!(events(&recorder, "budget_exhausted"), Some(1.0));

    let (fine, _) = script([]);
    assert_eq!(fine.retry(config().budget(&budget)).run((), &recorder.context()).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_run_that_succeeds_earns_once_and_every_retry_costs_one() {
    let budget = budget(1.0, 0.5);
    let (flow, _) = script([upstream(), upstream()]);
    let flow = flow.retry(config().budget(&budget));
    for _ in 0..4 {
        flow.run((), &Context::new()).await.unwrap();
    }
    assert_eq!((budget.stats().deposits, budget.stats().withdrawals), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_asks_for_no_token() {
    for budget in [Budget::default(), budget(0.0, 0.0)] {
        let recorder = Recorder::new();
        let (flow, _) = dead();
        let flow = flow.retry(config().budget(&budget));
        flow.run((), &recorder.context().with_time_limit(SECOND)).await.unwrap_err();
        assert_eq!((budget.stats().withdrawals, budget.stats().refused), (0, 0));
        assert_eq!(events(&recorder, "no_time_left"), Some(1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn retries_inside_each_other_that_share_a_budget_earn_once() {
    let budget = Budget::default();
    let (flow, _) = script([]);
    let inner = flow.retry(config().budget(&budget));
    let flow = inner.retry(config().budget(&budget.withdraw_only()));
    flow.run((), &Context::new()).await.unwrap();
    assert_eq!(budget.stats().deposits, 1);
}

/// Calls per second to a target that answers a share of them, for a minute of `rate` requests a second.
async fn storm(rate: u32, answered: f64, config: RetryConfig) -> (u32, u32, u64) {
    let calls = Arc::new(AtomicU32::new(0));
    let (seen, random) = (Arc::clone(&calls), Mutex::new(fastrand::Rng::with_seed(42)));
    let target = workflow("target", move |(): ()| {
        seen.fetch_add(1, Ordering::Relaxed);
        let answers = random.lock().unwrap().f64() < answered;
        async move { if answers { Ok(()) } else { Err(upstream()) } }
    });
    let flow = target.retry(config);
    let cx = Context::builder().sink(&Sink::without_telemetry(Clock::Tokio)).build();
    let requests = (0..rate * 60).map(|n| {
        let (flow, cx) = (flow.clone(), cx.clone());
        async move {
            sleep(Duration::from_secs(u64::from(n)) / rate).await;
            flow.run((), &cx).await.is_ok()
        }
    });
    let succeeded = join_all(requests).await.into_iter().filter(|ok| *ok).count();
    (rate * 60, calls.load(Ordering::Relaxed), succeeded as u64)
}

#[tokio::test(start_paused = true)]
async fn a_retry_storm_against_a_dead_target_costs_at_most_the_floor() {
    let budget = budget(0.2, 3.0);
    let (requests, calls, _) = storm(100, 0.0, attempts(3).budget(&budget)).await;
    let extra = calls - requests;
    // A minute and the two seconds after it touch at most seven windows of 30 tokens.
    assert!(extra <= 7 * 30, "{extra} retries");
    assert!(extra >= 5 * 30, "{extra} retries: the floor is not withheld");
    let (requests, calls, _) = storm(100, 0.0, attempts(3)).await;
    assert_eq!(calls, requests * 3, "without a budget the load is three times as high");
}

#[tokio::test(start_paused = true)]
async fn a_retry_storm_against_a_failing_target_costs_at_most_ratio_and_floor() {
    for answered in [0.2, 0.5, 0.9] {
        let budget = budget(0.2, 3.0);
        let (requests, calls, succeeded) = storm(100, answered, attempts(3).budget(&budget)).await;
        let allowed = 0.2 * succeeded as f64 + 7.0 * 30.0;
        let extra = f64::from(calls - requests);
        assert!(extra <= allowed, "{extra} retries where {allowed} are allowed at {answered}");
        assert_eq!(budget.stats().deposits, succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_few_are_all_retried_within_the_budget() {
    let budget = budget(0.2, 3.0);
    let (_, _, succeeded) = storm(100, 0.98, attempts(4).budget(&budget)).await;
    assert_eq!((succeeded, budget.stats().refused), (6_000, 0));
}

// === telemetry ===

#[tokio::test(start_paused = true)]
async fn attempts_are_spans_of_one_trace_and_their_number_is_on_the_retry() {
    let recorder = Recorder::new();
    let (flow, _) = script([upstream(), upstream()]);
    flow.retry(config()).run((), &recorder.context()).await.unwrap();
    let spans = recorder.spans();
    let retry = spans.iter().find(|span| span.name == "retry model").unwrap();
    let inside: Vec<_> = spans.iter().filter(|span| span.name == "step script").collect();
    assert_eq!(inside.len(), 3);
    assert!(inside.iter().all(|span| span.parent_span_id == retry.span_context.span_id()));
    let attribute = |key: &str| {
        let found = retry.attributes.iter().filter(|it| it.key.as_str() == key).collect::<Vec<_>>();
        assert!(found.len() <= 1, "{key} is there once");
        found.first().map(|it| it.value.to_string())
    };
    assert_eq!(attribute("throughline.retry.attempts").as_deref(), Some("3"));
    assert_eq!(attribute("throughline.outcome").as_deref(), Some("recovered"));
    assert_eq!(attribute("throughline.retry.gave_up"), None);
}

#[tokio::test(start_paused = true)]
async fn the_span_says_why_it_gave_up() {
    let recorder = Recorder::new();
    let (flow, _) = dead();
    flow.retry(config().budget(&budget(0.0, 0.0))).run((), &recorder.context()).await.unwrap_err();
    let spans = recorder.spans();
    let retry = spans.iter().find(|span| span.name == "retry model").unwrap();
    let gave_up = retry.attributes.iter().find(|it| it.key.as_str() == "throughline.retry.gave_up");
    assert_eq!(gave_up.unwrap().value.to_string(), "budget_exhausted");
}

#[tokio::test(start_paused = true)]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let cx = Context::builder().sink(&Sink::without_telemetry(Clock::Tokio)).build();
    let (flow, _) = script([upstream()]);
    let flow = flow.retry(config());
    assert_eq!(flow.run((), &cx).await.unwrap(), 2);
    assert_eq!(counts(flow.stage().stats()), [0, 1, 0, 0, 1]);
    assert_eq!(format!("{:?}", flow.stage()), "Retry(model, max attempts 3, 1 of 1 recovered)");
    assert_eq!(flow.describe().children()[0].operation(), "script");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The whole of it against a loop that one could write on paper.
    #[test]
    fn attempts_follow_a_plain_model(
        waits in prop::collection::vec(prop::option::of(0..5_000_u64), 0..6),
        max_attempts in 1..6_usize,
        deadline in 1..12_000_u64,
        took in 0..1_500_u64,
    ) {
        // Each failure may ask for a wait; the backoff is one second.
        let (mut at, mut expected) = (0, vec![]);
        for attempt in 1.. {
            expected.push(at);
            at += took;
            let Some(wait) = waits.get(attempt - 1) else { break };
            let wait = wait.unwrap_or(0).max(1_000);
            if attempt == max_attempts || at + wait >= deadline {
                break;
            }
            at += wait;
        }
        let errors = waits.into_iter().map(|wait| match wait {
            Some(wait) => upstream().with_retry_after(Duration::from_millis(wait)),
            None => upstream(),
        });
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let starts = runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let (flow, log) = slow_script(Duration::from_millis(took), errors);
            let cx = Recorder::new().context().with_time_limit(Duration::from_millis(deadline));
            drop(flow.retry(attempts(u32::try_from(max_attempts).unwrap())).run((), &cx).await);
            starts(&log)
        });
        prop_assert_eq!(starts, expected.into_iter().map(Duration::from_millis).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_attempts_is_no_time_of_the_programs_own() {
    let recorder = Recorder::new();
    let (work, _) = script([upstream(), upstream()]);
    let cx = recorder.context();
    work.retry(attempts(3)).run((), &cx).await.unwrap();
    assert_eq!(cx.upstream_time(), SECOND * 2);
}
