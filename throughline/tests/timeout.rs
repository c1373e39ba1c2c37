//! When a timeout lets go, what the caller gets then, and what is counted.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use throughline::testing::Recorder;
use throughline::timeout::TimeoutStats;
use throughline::{
    Clock, Context, Error, Kind, Primitive, Result, TimeoutConfig, Workflow, workflow, workflow_with,
};
use tokio::time::{Instant, sleep};

fn config(limit: f64) -> TimeoutConfig {
    TimeoutConfig::from_secs("model", limit).unwrap()
}

/// Takes as many milliseconds as it is told and gives them back.
fn sleeper() -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("sleeper", |millis: u64| async move {
        sleep(Duration::from_millis(millis)).await;
        Ok(millis)
    })
}

/// `[successes, late, timeouts, inner_errors, cancelled]`
fn counts(stats: TimeoutStats) -> [u64; 5] {
    [stats.successes, stats.late, stats.timeouts, stats.inner_errors, stats.cancelled]
}

fn total(recorder: &Recorder, name: &str) -> Option<f64> {
    recorder.metric(name, &[("operation", "model")])
}

fn outcome(recorder: &Recorder, outcome: &str) -> Option<f64> {
    let labels = [("primitive", "timeout"), ("operation", "model"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    recorder.metric("throughline_primitive_events_total", &[("primitive", "timeout"), ("event", event)])
}

#[test]
fn shows_its_name_its_bounds_and_its_counts() {
    let flow = sleeper().timeout(config(1.5).grace_secs(0.25).unwrap());
    assert_eq!(format!("{:?}", flow.stage()), "Timeout(model, limit 1.5s, grace 250ms, 0 of 0 timed out)");
    assert_eq!(flow.stage().config().limit(), Duration::from_millis(1_500));
    assert_eq!(flow.describe().operation(), "model");
    assert_eq!(flow.describe().children()[0].operation(), "sleeper");
    assert_eq!(counts(flow.stage().stats()), [0; 5]);
    assert_eq!(flow.stage().stats().timeout_rate(), None);
}

#[test]
fn grace_is_nothing_unless_it_is_given() {
    let flow = sleeper().timeout(config(1.0));
    assert_eq!(format!("{:?}", flow.stage()), "Timeout(model, limit 1s, grace 0ns, 0 of 0 timed out)");
}

#[test]
fn refuses_limits_that_are_no_limits() {
    let limit = |seconds| TimeoutConfig::from_secs("model", seconds).unwrap_err().to_string();
    for (seconds, shown) in [
        (0.0, "0.0"),
        (-1.0, "-1.0"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (86_400.5, "86400.5"),
        (1e300, "1e300"),
    ] {
        let allowed = "it must be more than 0 s and at most 86400 s";
        assert_eq!(limit(seconds), format!("timeout limit is {shown} s: {allowed}"));
    }
    assert_eq!(
        TimeoutConfig::new("model", Duration::ZERO).unwrap_err().to_string(),
        "timeout limit is 0.0 s: it must be more than 0 s and at most 86400 s"
    );
    assert!(TimeoutConfig::new("model", Duration::from_secs(86_400)).is_ok());
}

#[test]
fn refuses_a_grace_that_is_none() {
    for (seconds, shown) in [(-5.0, "-5.0"), (f64::NAN, "NaN"), (90_000.0, "90000.0")] {
        assert_eq!(
            config(1.0).grace_secs(seconds).unwrap_err().to_string(),
            format!("timeout grace is {shown} s: it must be from 0 s to 86400 s")
        );
    }
    assert!(config(1.0).grace(Duration::ZERO).is_ok());
}

#[tokio::test(start_paused = true)]
async fn work_within_the_limit_answers() {
    let recorder = Recorder::new();
    let flow = sleeper().timeout(config(1.0));
    assert_eq!(flow.run(100, &recorder.context()).await.unwrap(), 100);
    assert_eq!(total(&recorder, "timeout_successes_total"), Some(1.0));
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(0.0));
    assert_eq!(total(&recorder, "timeout_execution_seconds_count"), Some(1.0));
    assert_eq!(total(&recorder, "timeout_rate"), Some(0.0));
    assert_eq!(outcome(&recorder, "success"), Some(1.0));
    assert_eq!(events(&recorder, "stop_requested"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn work_that_outlives_limit_and_grace_is_dropped() {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (recorder, gone) = (Recorder::new(), Arc::new(AtomicBool::new(false)));
    let held = Arc::clone(&gone);
    let hang = workflow("hang", move |_: ()| {
        let held = Gone(Arc::clone(&held));
        async move {
            let _held = held;
            pending::<Result<()>>().await
        }
    });
    let flow = hang.timeout(config(0.5).grace_secs(0.2).unwrap());
    let start = Instant::now();
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_millis(700));
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Timeout, "no answer within 700ms"));
    assert!(error.is_retryable());
    assert!(gone.load(Ordering::Relaxed), "the work is gone when the caller hears of it");
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(1.0));
    assert_eq!(total(&recorder, "timeout_successes_total"), Some(0.0));
    assert_eq!(total(&recorder, "timeout_rate"), Some(1.0));
    assert_eq!(total(&recorder, "timeout_execution_seconds_sum"), Some(0.7));
    assert_eq!(outcome(&recorder, "timeout"), Some(1.0));
    assert_eq!(counts(flow.stage().stats()), [0, 0, 1, 0, 0]);
    let cancelled = [("primitive", "step"), ("outcome", "cancelled")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &cancelled), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_within_the_grace_is_late_and_a_success() {
    let recorder = Recorder::new();
    let flow = sleeper().timeout(config(0.5).grace_secs(0.2).unwrap());
    assert_eq!(flow.run(600, &recorder.context()).await.unwrap(), 600);
    assert_eq!(flow.run(500, &recorder.context()).await.unwrap(), 500, "at the limit is in time");
    assert_eq!((outcome(&recorder, "late"), outcome(&recorder, "success")), (Some(1.0), Some(1.0)));
    assert_eq!(total(&recorder, "timeout_successes_total"), Some(2.0));
    assert_eq!(events(&recorder, "stop_requested"), Some(1.0));
    assert_eq!(counts(flow.stage().stats()), [1, 1, 0, 0, 0]);
    assert_eq!(flow.stage().stats().timeout_rate(), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_the_work_is_asked_to_stop_and_can_answer_with_what_it_has() {
    let recorder = Recorder::new();
    let careful = workflow_with("careful", |(): (), cx: Context| async move {
        let start = Instant::now();
        cx.cancelled().await;
        Ok(start.elapsed())
    });
    let flow = careful.timeout(config(0.1).grace_secs(0.4).unwrap());
    let outer = recorder.context();
    assert_eq!(flow.run((), &outer).await.unwrap(), Duration::from_millis(100), "not after the grace");
    assert!(!outer.is_cancelled(), "the caller's own context is not stopped");
    assert_eq!(outcome(&recorder, "late"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn work_that_gives_up_when_asked_to_has_timed_out() {
    let recorder = Recorder::new();
    let obedient = workflow_with("obedient", |(): (), cx: Context| async move {
        cx.cancelled().await;
        Err::<(), _>(Error::new(Kind::Cancelled, "stopped"))
    });
    let flow = obedient.timeout(config(0.1).grace_secs(0.4).unwrap());
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Timeout, "no answer within 100ms"));
    assert_eq!(format!("{error:?}"), "timeout: no answer within 100ms: stopped");
    assert_eq!(outcome(&recorder, "timeout"), Some(1.0));
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn work_learns_its_deadline_and_an_outer_one_is_never_extended() {
    let left = || {
        workflow_with("left", |(): (), cx: Context| async move {
            Ok(cx.time_left().expect("there is a deadline"))
        })
    };
    let cx = Recorder::new().context();
    let flow = left().timeout(config(2.0).grace_secs(1.0).unwrap());
    assert_eq!(flow.run((), &cx).await.unwrap(), Duration::from_secs(3));
    assert_eq!(
        flow.run((), &cx.with_time_limit(Duration::from_secs(1))).await.unwrap(),
        Duration::from_secs(1)
    );
    let nested = left().timeout(config(10.0)).timeout(config(4.0));
    assert_eq!(nested.run((), &cx).await.unwrap(), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_work_is_passed_on_and_is_no_timeout() {
    let recorder = Recorder::new();
    let bad = workflow("bad", |_: ()| async { Err::<(), _>(Error::new(Kind::InvalidInput, "bad value")) });
    let flow = bad.timeout(config(1.0));
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::InvalidInput, "bad value"));
    assert_eq!(outcome(&recorder, "inner_error"), Some(1.0));
    assert_eq!(total(&recorder, "timeout_successes_total"), Some(0.0), "an error is no success either");
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(0.0));
    assert_eq!(total(&recorder, "timeout_rate"), None, "it says nothing about time");
    assert_eq!(total(&recorder, "timeout_execution_seconds_count"), Some(1.0));
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_the_work_is_told_apart_from_ones_own() {
    let recorder = Recorder::new();
    let inner = TimeoutConfig::from_secs("inner", 0.1).unwrap();
    let flow = sleeper().timeout(inner).timeout(config(30.0));
    let error = flow.run(1_000, &recorder.context()).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 100ms", "the limit that decided is the inner one");
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1, 0]);
    assert_eq!(outcome(&recorder, "inner_error"), Some(1.0));
    assert_eq!(recorder.metric("timeout_failures_total", &[("operation", "inner")]), Some(1.0));
    assert_eq!(recorder.metric("timeout_failures_total", &[("operation", "model")]), Some(0.0));

    let io = workflow("io", |_: ()| async {
        let cause = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err::<(), _>(Error::new(Kind::Timeout, "connect timed out").because(cause))
    });
    let flow = io.timeout(config(30.0));
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(error.to_string(), "connect timed out");
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_inside_that_ends_with_the_deadline_is_a_timeout_of_ones_own() {
    let (recorder, start) = (Recorder::new(), Instant::now());
    let waits =
        workflow_with("waits", |(): (), cx: Context| async move { cx.while_wanted(pending::<()>()).await });
    let error = waits.timeout(config(0.3)).run((), &recorder.context()).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), start.elapsed()),
        ("no answer within 300ms", Duration::from_millis(300))
    );
    assert_eq!((outcome(&recorder, "timeout"), outcome(&recorder, "inner_error")), (Some(1.0), None));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_is_counted_as_cancelled() {
    let recorder = Recorder::new();
    let flow = sleeper().timeout(config(10.0));
    let cx = recorder.context();
    tokio::time::timeout(Duration::from_secs(1), flow.run(5_000, &cx)).await.unwrap_err();
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 0, 1]);
    assert_eq!(outcome(&recorder, "cancelled"), Some(1.0));
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(0.0));
    assert_eq!(total(&recorder, "timeout_rate"), None);
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn work_that_holds_its_thread_past_every_limit_is_counted_as_an_overrun() {
    let recorder = Recorder::new();
    // To the timeout this looks like a thread that was held: the time is over at the very next poll.
    let holds = workflow("holds", |_: ()| async {
        tokio::time::advance(Duration::from_secs(5)).await;
        Ok("at last")
    });
    let flow = holds.timeout(config(0.1).grace_secs(0.1).unwrap());
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), "at last", "an answer is not thrown away");
    assert_eq!(events(&recorder, "overrun"), Some(1.0));
    assert_eq!(outcome(&recorder, "late"), Some(1.0));
    assert_eq!(outcome(&recorder, "success"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_work_that_blocks_its_thread_does_not_hold_its_caller() {
    let finished = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&finished);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let blocks = workflow("blocks", move |_: ()| {
        let (done, held) = (Arc::clone(&done), Arc::clone(&held));
        async move {
            // Until the test lets go, and never for ever.
            let _ = held.lock().unwrap().recv_timeout(Duration::from_secs(30));
            done.store(true, Ordering::Release);
            Ok(())
        }
    });
    let recorder = Recorder::new();
    let flow = blocks.timeout_detached(config(0.02));
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(!finished.load(Ordering::Acquire), "the caller is back while the work still blocks");
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(1.0));
    release.send(()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn detached_work_answers_keeps_its_trace_and_is_stopped_with_its_caller() {
    let recorder = Recorder::new();
    let flow = sleeper().timeout_detached(config(1.0));
    assert_eq!(flow.run(100, &recorder.context()).await.unwrap(), 100);
    let spans = recorder.spans();
    let parent = spans.iter().find(|span| span.name == "timeout model").unwrap();
    let child = spans.iter().find(|span| span.name == "step sleeper").unwrap();
    assert_eq!(child.parent_span_id, parent.span_context.span_id());

    assert_eq!(flow.run(60_000, &recorder.context()).await.unwrap_err().kind(), Kind::Timeout);
    sleep(Duration::from_secs(1)).await;
    let labels = [("primitive", "step"), ("outcome", "cancelled")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &labels), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn detached_work_that_panics_is_an_error_of_ours() {
    let panics = workflow("panics", |n: u64| async move { if n == 0 { panic!("bug") } else { Ok(n) } });
    let flow = panics.timeout_detached(config(1.0));
    let error = flow.run(0, &Recorder::new().context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "the detached work panicked"));
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_timeouts_fire_within_two_milliseconds_of_their_limits() {
    let recorder = Recorder::new();
    let calls = (0..10_000_u64).map(|n| {
        let cx = recorder.context();
        let limit = Duration::from_micros(700 + 137 * (n % 5_000));
        tokio::spawn(async move {
            let hang = workflow("hang", |_: ()| pending::<Result<()>>());
            let bounded = hang.timeout(TimeoutConfig::new("model", limit).unwrap());
            let start = Instant::now();
            let error = bounded.run((), &cx).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Timeout);
            (start.elapsed(), limit)
        })
    });
    for call in join_all(calls.collect::<Vec<_>>()).await {
        let (took, limit) = call.unwrap();
        let late = took.checked_sub(limit).expect("a timeout never fires early");
        assert!(late <= Duration::from_millis(2), "{limit:?} took {took:?}");
    }
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(10_000.0));
}

#[tokio::test(start_paused = true)]
async fn very_short_and_very_long_limits_hold() {
    let cx = Recorder::new().context();
    let short = sleeper().timeout(config(0.01).grace_secs(0.01).unwrap());
    assert_eq!(short.run(30, &cx).await.unwrap_err().to_string(), "no answer within 20ms");
    let long = sleeper().timeout(config(3_600.0));
    assert_eq!(long.run(3_599_000, &cx).await.unwrap(), 3_599_000);
}

#[tokio::test(start_paused = true)]
async fn runs_side_by_side_do_not_share_a_limit() {
    let recorder = Recorder::new();
    let flow = sleeper().timeout(config(0.5));
    let (cx, start) = (recorder.context(), Instant::now());
    let answers = join_all([100, 400, 900].map(|millis| flow.run(millis, &cx))).await;
    assert_eq!(start.elapsed(), Duration::from_millis(500));
    assert_eq!((answers[0].as_ref().unwrap(), answers[1].as_ref().unwrap()), (&100, &400));
    assert_eq!(answers[2].as_ref().unwrap_err().kind(), Kind::Timeout);
    assert_eq!(counts(flow.stage().stats()), [2, 0, 1, 0, 0]);
    assert_eq!(flow.stage().stats().timeout_rate(), Some(1.0 / 3.0));
    assert_eq!(format!("{:?}", flow.stage()), "Timeout(model, limit 500ms, grace 0ns, 1 of 3 timed out)");
}

#[tokio::test(start_paused = true)]
async fn two_answers_are_two_successes_and_no_failure() {
    let recorder = Recorder::new();
    let flow = sleeper().timeout(config(1.0));
    for _ in 0..2 {
        flow.run(10, &recorder.context()).await.unwrap();
    }
    assert_eq!(counts(flow.stage().stats()), [2, 0, 0, 0, 0]);
    assert_eq!(total(&recorder, "timeout_successes_total"), Some(2.0));
    assert_eq!(total(&recorder, "timeout_failures_total"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_that_of_the_last_five_minutes_and_recovers() {
    let recorder = Recorder::new();
    let flow = sleeper().timeout(config(1.0));
    for _ in 0..10 {
        flow.run(5_000, &recorder.context()).await.unwrap_err();
    }
    assert_eq!(total(&recorder, "timeout_rate"), Some(1.0));
    sleep(Duration::from_secs(400)).await;
    assert_eq!(total(&recorder, "timeout_rate"), None);
    flow.run(10, &recorder.context()).await.unwrap();
    assert_eq!(total(&recorder, "timeout_rate"), Some(0.0), "the bad hour is over");
}

#[tokio::test(start_paused = true)]
async fn the_label_is_the_given_name_and_every_name_has_its_own_series() {
    let recorder = Recorder::new();
    for (name, millis) in [("fast", 10), ("slow", 5_000)] {
        let flow = sleeper().timeout(TimeoutConfig::from_secs(name, 1.0).unwrap());
        drop(flow.run(millis, &recorder.context()).await);
    }
    for (name, rate) in [("fast", 0.0), ("slow", 1.0)] {
        assert_eq!(recorder.metric("timeout_rate", &[("operation", name)]), Some(rate));
    }
}

#[tokio::test(start_paused = true)]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let off = throughline::telemetry::Sink::without_telemetry(Clock::Tokio);
    let flow = sleeper().timeout(config(1.0));
    let cx = Context::builder().sink(&off).build();
    assert_eq!(flow.run(10, &cx).await.unwrap(), 10);
    assert_eq!(flow.run(5_000, &cx).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(counts(flow.stage().stats()), [1, 0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn empty_and_absent_inputs_pass_through() {
    let cx = Recorder::new().context();
    let text = workflow("text", |input: String| async move { Ok(input) }).timeout(config(1.0));
    assert_eq!(text.run(String::new(), &cx).await.unwrap(), "");
    let absent = workflow("absent", |input: Option<u8>| async move { Ok(input) }).timeout(config(1.0));
    assert_eq!(absent.run(None, &cx).await.unwrap(), None);
}

/// Works in a way that always goes on at once: it gives way only when tokio makes it.
async fn busy() -> Result<()> {
    for _ in 0..500_000 {
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn work_that_never_waits_for_long_is_dropped_at_its_limit() {
    let flow = workflow("busy", |(): ()| busy()).timeout(config(1.0));
    let time = tokio::spawn(tokio::time::advance(Duration::from_secs(2)));
    assert_eq!(flow.run((), &Context::new()).await.unwrap_err().kind(), Kind::Timeout);
    time.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_work_that_never_waits_for_long_ends_at_the_deadline() {
    let cx = Context::builder().time_limit(Duration::from_secs(1)).build();
    let time = tokio::spawn(tokio::time::advance(Duration::from_secs(2)));
    assert_eq!(cx.while_wanted(busy()).await.unwrap_err().kind(), Kind::Timeout);
    time.await.unwrap();
}
