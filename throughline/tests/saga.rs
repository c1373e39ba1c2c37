//! What a saga undoes, in which order, and that it does so exactly once however the run ends.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::future::{Future as _, pending, poll_fn};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use throughline::saga::{SagaStats, saga_key};
use throughline::telemetry::Sink;
use throughline::testing::Recorder;
use throughline::{
    Clock, Context, Error, ItemStream, Kind, Primitive, RetryConfig, SagaConfig, TimeoutConfig, Workflow,
    saga, workflow, workflow_stream, workflow_with,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn after(&self, word: &str) -> Vec<String> {
        self.lines().iter().filter_map(|line| line.strip_prefix(word).map(str::to_owned)).collect()
    }

    /// A step that waits some polls before and after it does its work, with its way back.
    fn step(&self, name: &'static str) -> Workflow<impl Primitive<In = u64, Out = u64>> {
        self.slow(name, 0).undo(self.back(name))
    }

    /// As `step` without the way back, after `millis`.
    fn slow(&self, name: &'static str, millis: u64) -> Workflow<impl Primitive<In = u64, Out = u64>> {
        let log = self.clone();
        workflow(name, move |n: u64| {
            let log = log.clone();
            async move {
                match millis {
                    0 => yield_now().await,
                    millis => sleep(Duration::from_millis(millis)).await,
                }
                log.write(format!("did {name}"));
                Ok(n + 1)
            }
        })
    }

    fn back(&self, name: &'static str) -> Workflow<impl Primitive<In = u64, Out = ()>> {
        let log = self.clone();
        workflow(format!("un{name}"), move |_: u64| {
            let log = log.clone();
            async move {
                log.write(format!("began {name}"));
                yield_now().await;
                yield_now().await;
                log.write(format!("undid {name}"));
                Ok(())
            }
        })
    }

    /// A way back that answers what `attempt` makes of its number, from 1.
    fn troubled(
        &self,
        name: &'static str,
        attempt: fn(u32) -> Result<(), Error>,
    ) -> Workflow<impl Primitive<In = u64, Out = ()>> {
        let (log, tries) = (self.clone(), Arc::new(AtomicU32::new(0)));
        workflow(format!("un{name}"), move |_: u64| {
            let (log, n) = (log.clone(), tries.fetch_add(1, Ordering::Relaxed) + 1);
            async move {
                log.write(format!("tried {name}"));
                attempt(n)
            }
        })
    }
}

fn fails() -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("fails", |_: u64| async {
        yield_now().await;
        Err(Error::new(Kind::Upstream, "no courier"))
    })
}

fn hangs() -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("hangs", |_: u64| pending())
}

fn order() -> SagaConfig {
    SagaConfig::new("order")
}

fn down() -> Error {
    Error::new(Kind::Upstream, "503")
}

/// `[successes, errors, compensated, compensation_failed, cancelled]` and `[undone, not undone]`
fn counts(stats: SagaStats) -> ([u64; 5], [u64; 2]) {
    let SagaStats { successes, errors, compensated, compensation_failed, cancelled, .. } = stats;
    (
        [successes, errors, compensated, compensation_failed, cancelled],
        [stats.steps_undone, stats.steps_not_undone],
    )
}

fn outcome(recorder: &Recorder, outcome: &str) -> Option<f64> {
    let labels = [("primitive", "saga"), ("operation", "order"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    let labels = [("primitive", "saga"), ("operation", "order"), ("event", event)];
    recorder.metric("throughline_primitive_events_total", &labels)
}

#[tokio::test]
async fn an_error_undoes_the_completed_steps_in_reverse_and_travels_unchanged() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let flow = (log.step("a") >> log.slow("plain", 0) >> log.step("b") >> fails()).saga(order());
    let error = flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: no courier");
    assert!(error.is_retryable(), "everything is as it was");
    assert_eq!(log.after("did "), ["a", "plain", "b"]);
    assert_eq!(log.after("undid "), ["b", "a"], "when the error is there, so is the way it was");
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [2, 0]));
    assert_eq!((outcome(&recorder, "compensated"), events(&recorder, "step_undone")), (Some(1.0), Some(2.0)));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
    assert_eq!(format!("{:?}", flow.stage()), "Saga(order, 2 steps undone, 0 not undone)");
}

#[tokio::test]
async fn a_compensation_is_given_the_output_of_its_step_and_is_a_span_of_the_saga() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let told = log.clone();
    let release = workflow("release", move |n: u64| {
        told.write(format!("released {n}"));
        async { Ok("whatever") }
    });
    let flow = (log.slow("reserve", 0).undo(release) >> fails()).saga(order());
    flow.run(41, &recorder.context()).await.unwrap_err();
    assert_eq!(log.after("released "), ["42"]);
    let spans = recorder.spans();
    let span = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(span("step release").parent_span_id, span("saga order").span_context.span_id());
    assert_eq!(span("step reserve").parent_span_id, span("saga order").span_context.span_id());
}

#[tokio::test]
async fn a_success_undoes_nothing() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let flow = (log.step("a") >> log.step("b")).saga(order());
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap(), 3);
    flow.stage().settled().await;
    assert_eq!(log.after("undid "), [""; 0]);
    assert_eq!(outcome(&recorder, "success"), Some(1.0));
    assert_eq!(counts(flow.stage().stats()), ([1, 0, 0, 0, 0], [0, 0]));
}

#[tokio::test]
async fn an_error_with_nothing_to_undo_is_no_compensated_run() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let flow = (fails() >> log.step("a")).saga(order());
    flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!((outcome(&recorder, "error"), outcome(&recorder, "compensated")), (Some(1.0), None));
    assert_eq!(counts(flow.stage().stats()), ([0, 1, 0, 0, 0], [0, 0]));
}

#[tokio::test]
async fn a_panic_of_a_step_undoes_the_others_and_becomes_an_error() {
    let log = Log::default();
    let panics = workflow("panics", |n: u64| async move { if n > 0 { panic!("bug") } else { Ok(n) } });
    let flow = (log.step("a") >> panics).saga(order());
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, "a step of the saga panicked"));
    assert_eq!(log.after("undid "), ["a"]);
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [1, 0]));
}

/// Can be copied once: for the journal.
struct Receipt(AtomicU32);

impl Clone for Receipt {
    fn clone(&self) -> Self {
        assert_eq!(self.0.fetch_add(1, Ordering::Relaxed), 0, "copied again");
        Self(AtomicU32::new(1))
    }
}

#[tokio::test]
async fn an_output_that_panics_when_it_is_copied_leaves_the_other_steps_to_be_undone() {
    let log = Log::default();
    let pay = workflow("pay", |_: u64| async { Ok(Receipt(AtomicU32::new(0))) })
        .undo(workflow("refund", |_: Receipt| async { Ok(()) }));
    let fails = workflow("fails", |_: Receipt| async { Err::<u64, _>(Error::new(Kind::InvalidInput, "no")) });
    let flow = (log.step("a") >> pay >> fails).saga(order());
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(log.after("undid "), ["a"]);
    let why = "`refund` did not undo its step, attempt 1 of 3";
    assert_eq!(error.also().iter().map(ToString::to_string).collect::<Vec<_>>(), [why]);
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 0, 1, 0], [1, 1]));
}

#[tokio::test]
async fn without_telemetry_it_undoes_and_counts_all_the_same() {
    let (log, off) = (Log::default(), Sink::without_telemetry(Clock::Tokio));
    let flow = (log.step("a") >> fails()).saga(order());
    flow.run(1, &Context::builder().sink(&off).build()).await.unwrap_err();
    assert_eq!(log.after("undid "), ["a"]);
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [1, 0]));
}

// === dropped runs ===

/// A saga in a saga, a fan, and an end that `last` decides.
fn everything<L>(log: &Log, last: Workflow<L>) -> Workflow<impl Primitive<In = u64, Out = u64>>
where
    L: Primitive<In = u64, Out = u64>,
{
    let nested = (log.step("b") >> log.step("c")).saga(SagaConfig::new("nested"));
    let fan = (log.step("d") | log.step("e") >> log.step("f")).map(|(d, _)| d);
    (log.step("a") >> nested >> fan >> log.step("g") >> last).saga(order())
}

/// Polls a run `polls` times and drops it: whether it had come to its end, and how.
async fn poll_and_drop<P>(flow: &Workflow<P>, polls: usize) -> Option<bool>
where
    P: Primitive<In = u64, Out = u64>,
{
    let cx = Recorder::new().context();
    let mut run = Box::pin(flow.run(1, &cx));
    for _ in 0..polls {
        let polled = poll_fn(|task| Poll::Ready(run.as_mut().poll(task))).await;
        if let Poll::Ready(result) = polled {
            return Some(result.is_ok());
        }
        yield_now().await;
    }
    None
}

async fn every_drop_undoes_exactly_what_was_completed<L>(last: impl Fn() -> Workflow<L>)
where
    L: Primitive<In = u64, Out = u64>,
{
    for polls in 0.. {
        let log = Log::default();
        let flow = everything(&log, last());
        let ended = poll_and_drop(&flow, polls).await;
        saga::settled().await;
        let (did, mut undid) = (log.after("did "), log.after("undid "));
        assert_eq!(log.after("began "), undid, "each began once, after {polls} polls");
        undid.reverse();
        match ended {
            Some(true) => assert_eq!(undid, [""; 0]),
            Some(false) | None => assert_eq!(undid, did, "after {polls} polls"),
        }
        if ended.is_some() {
            assert!(polls > 7, "there were awaits to be dropped at");
            break;
        }
        assert!(polls < 100, "the run comes to an end");
    }
}

#[tokio::test]
async fn a_saga_that_would_succeed_is_undone_wherever_it_is_dropped() {
    let last = || {
        workflow("last", |n: u64| async move {
            yield_now().await;
            Ok(n)
        })
    };
    every_drop_undoes_exactly_what_was_completed(last).await;
}

#[tokio::test]
async fn a_saga_that_fails_is_undone_once_wherever_it_is_dropped_while_it_undoes_itself() {
    every_drop_undoes_exactly_what_was_completed(fails).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_is_undone_by_a_task_that_a_shutdown_can_wait_for() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let flow = (log.step("a") >> hangs()).saga(order());
    let cx = recorder.context();
    tokio::time::timeout(Duration::from_secs(1), flow.run(1, &cx)).await.unwrap_err();
    assert_eq!((outcome(&recorder, "cancelled"), events(&recorder, "step_undone")), (Some(1.0), Some(0.0)));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
    flow.stage().settled().await;
    assert_eq!(log.after("undid "), ["a"]);
    assert_eq!(events(&recorder, "step_undone"), Some(1.0), "counted although the run had ended");
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 0, 0, 1], [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_under_way_is_not_undone() {
    let log = Log::default();
    let flow = (log.step("a") >> log.slow("b", 500).undo(log.back("b"))).saga(order());
    let bounded = flow.clone().timeout(TimeoutConfig::from_secs("order", 0.1).unwrap());
    assert_eq!(bounded.run(1, &Recorder::new().context()).await.unwrap_err().kind(), Kind::Timeout);
    flow.stage().settled().await;
    assert_eq!(log.after("undid "), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_compensation_has_its_own_limit_and_is_not_stopped_with_the_caller() {
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    let back = workflow_with("back", move |_: u64, cx: Context| {
        *note.lock().unwrap() = Some((cx.time_left(), cx.is_cancelled(), cx.correlation_id().to_owned()));
        async { Ok(()) }
    });
    let log = Log::default();
    let stops = workflow_with("stops", |n: u64, cx: Context| async move {
        cx.cancelled().await;
        Err::<u64, _>(Error::new(Kind::Cancelled, format!("stopped at {n}")))
    });
    let flow = (log.slow("a", 0).undo(back) >> stops).saga(order());
    let bounded = flow.timeout(TimeoutConfig::from_secs("order", 1.0).unwrap().grace_secs(0.5).unwrap());
    let cx = Recorder::new().context();
    bounded.run(1, &cx).await.unwrap_err();
    let expected = (Some(Duration::from_secs(10)), false, cx.correlation_id().to_owned());
    assert_eq!(seen.lock().unwrap().take().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_saga_waits_for_its_compensations_however_near_the_deadline_is() {
    let log = Log::default();
    let late = workflow_with("late", |_: u64, cx: Context| async move {
        cx.sleep(Duration::from_secs(5)).await?;
        Ok(0_u64)
    });
    let slow_back = workflow("back", |_: u64| async {
        sleep(Duration::from_secs(3)).await;
        Ok(())
    });
    let flow = (log.slow("a", 900).undo(slow_back) >> late).saga(order());
    let (cx, start) = (Recorder::new().context().with_time_limit(Duration::from_secs(1)), Instant::now());
    assert_eq!(flow.run(1, &cx).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_millis(3_900));
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [1, 0]));
}

#[test]
fn a_run_outside_a_runtime_is_refused_before_it_begins() {
    let log = Log::default();
    let flow = (log.step("a") >> fails()).saga(order());
    let cx = Recorder::new().context();
    let mut run = Box::pin(flow.run(1, &cx));
    let Poll::Ready(Err(error)) =
        run.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    else {
        panic!("it ends at once")
    };
    assert_eq!(error.kind(), Kind::Internal);
    assert_eq!(
        error.to_string(),
        "a saga runs in a tokio runtime only: without one it could not undo anything"
    );
    assert!(log.lines().is_empty());
}

#[test]
fn a_run_dropped_outside_its_runtime_is_undone_in_it() {
    let log = Log::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let flow = (log.step("a") >> hangs()).saga(order());
    let cx = Recorder::new().context();
    let mut run = Box::pin(flow.run(1, &cx));
    runtime.block_on(async {
        let _ = tokio::time::timeout(Duration::from_millis(1), run.as_mut()).await;
    });
    drop(run);
    assert!(log.after("undid ").is_empty());
    runtime.block_on(flow.stage().settled());
    assert_eq!(log.after("undid "), ["a"]);
}

#[test]
fn what_is_left_when_the_runtime_has_ended_is_counted_as_not_undone() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let flow = (log.step("a") >> log.step("b") >> hangs()).saga(order());
    let cx = recorder.context();
    let mut run = Box::pin(flow.run(1, &cx));
    runtime.block_on(async {
        let _ = tokio::time::timeout(Duration::from_millis(1), run.as_mut()).await;
    });
    drop(runtime);
    drop(run);
    assert_eq!(log.after("began "), [""; 0]);
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 0, 0, 1], [0, 2]));
    assert_eq!(events(&recorder, "compensation_failed"), Some(2.0));
}

#[test]
fn a_runtime_that_ends_while_steps_are_undone_leaves_none_uncounted() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let never = workflow("never", |_: u64| pending::<Result<(), Error>>());
    let flow = (log.step("a") >> log.slow("b", 0).undo(never) >> log.step("c") >> hangs()).saga(order());
    let cx = recorder.context();
    runtime.block_on(async {
        let _ = tokio::time::timeout(Duration::from_millis(1), flow.run(1, &cx)).await;
        sleep(Duration::from_millis(5)).await;
    });
    drop(runtime);
    assert_eq!(log.after("undid "), ["c"]);
    assert_eq!(counts(flow.stage().stats()).1, [1, 2], "b was under way, a had not begun");
}

// === compensations that fail ===

#[tokio::test(start_paused = true)]
async fn a_compensation_that_fails_is_reported_and_does_not_stop_the_others() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let broken = log.troubled("b", |_| Err(down()));
    let flow = (log.step("a") >> log.slow("b", 0).undo(broken) >> log.step("c") >> fails()).saga(order());
    let start = Instant::now();
    let error = flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Upstream, "no courier"), "it stays first");
    assert!(!error.is_retryable(), "what it did is still there");
    let also: Vec<_> = error.also().iter().map(|later| format!("{later:?}")).collect();
    assert_eq!(also, ["upstream: `unb` did not undo its step, attempt 3 of 3: 503"]);
    assert_eq!(log.after("tried "), ["b", "b", "b"]);
    assert_eq!(log.after("undid "), ["c", "a"]);
    assert_eq!(start.elapsed(), Duration::from_millis(200), "two pauses of 100 ms");
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 0, 1, 0], [2, 1]));
    assert_eq!(outcome(&recorder, "compensation_failed"), Some(1.0));
    assert_eq!(events(&recorder, "compensation_failed"), Some(1.0));
    assert_eq!(events(&recorder, "compensation_retried"), Some(2.0));
    assert_eq!(events(&recorder, "step_undone"), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_compensation_that_hangs_is_dropped_at_its_limit_and_tried_again() {
    let log = Log::default();
    let told = log.clone();
    let hangs_once = workflow("back", move |n: u64| {
        told.write("tried");
        let first = told.lines().iter().filter(|line| *line == "tried").count() == 1;
        async move { if first { pending().await } else { Ok(n) } }
    });
    let config = order().limit(Duration::from_secs(2)).unwrap().max_attempts(2).unwrap();
    let flow = (log.step("a") >> log.slow("b", 0).undo(hangs_once) >> fails()).saga(config);
    let start = Instant::now();
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_millis(2_100));
    assert!(error.also().is_empty());
    assert_eq!(log.after("undid "), ["a"]);
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [2, 0]));

    let never = workflow("never", |_: u64| pending::<Result<(), Error>>());
    let config = order().limit(Duration::from_secs(2)).unwrap().max_attempts(2).unwrap();
    let flow = (log.slow("b", 0).undo(never) >> fails()).saga(config);
    let (start, error) = (Instant::now(), flow.run(1, &Recorder::new().context()).await.unwrap_err());
    assert_eq!(start.elapsed(), Duration::from_millis(4_100));
    let text = "timeout: `never` did not undo its step, attempt 2 of 2: no answer within 2s";
    assert_eq!(format!("{:?}", error.also()[0]), text);
}

#[tokio::test(start_paused = true)]
async fn a_compensation_is_not_tried_again_where_that_cannot_help() {
    let log = Log::default();
    let gone = log.troubled("a", |_| Err(Error::new(Kind::InvalidInput, "no such order")));
    let panics = log.troubled("b", |_| panic!("bug"));
    let flow = (log.slow("a", 0).undo(gone) >> log.slow("b", 0).undo(panics) >> fails()).saga(order());
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(log.after("tried "), ["b", "a"]);
    let also: Vec<_> = error.also().iter().map(|later| format!("{later:?}")).collect();
    assert_eq!(
        also,
        [
            "internal: `unb` did not undo its step, attempt 1 of 3: the compensation panicked",
            "invalid_input: `una` did not undo its step, attempt 1 of 3: no such order",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_compensation_is_told_which_attempt_it_is() {
    let (log, told) = (Log::default(), Log::default());
    let back = {
        let told = told.clone();
        workflow_with("back", move |_: u64, cx: Context| {
            told.write(cx.attempt().to_string());
            async { Err::<(), _>(down()) }
        })
    };
    let flow = (log.slow("a", 0).undo(back) >> fails()).saga(order());
    flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(told.lines(), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_compensation_waits_as_long_as_the_failing_side_asks() {
    let log = Log::default();
    let limited = log.troubled("a", |n| match n {
        1 => Err(down().with_retry_after(Duration::from_secs(4))),
        2 => Err(down().with_retry_after(Duration::from_secs(3_600))),
        _ => Ok(()),
    });
    let flow = (log.slow("a", 0).undo(limited) >> fails()).saga(order());
    let start = Instant::now();
    flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(4 + 10), "at most the limit of one attempt");
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_while_it_undoes_is_cancelled_and_still_undone_once() {
    let log = Log::default();
    let slow_back = {
        let log = log.clone();
        workflow("back", move |_: u64| {
            let log = log.clone();
            async move {
                log.write("began slow");
                sleep(Duration::from_secs(3)).await;
                log.write("undid slow");
                Ok(())
            }
        })
    };
    let flow = (log.step("a") >> log.slow("b", 0).undo(slow_back) >> fails()).saga(order());
    let cx = Recorder::new().context();
    tokio::time::timeout(Duration::from_secs(1), flow.run(1, &cx)).await.unwrap_err();
    flow.stage().settled().await;
    assert_eq!(
        (log.after("began "), log.after("undid ")),
        (vec!["slow".into(), "a".into()], vec!["slow".to_owned(), "a".into()])
    );
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 0, 0, 1], [2, 0]));
}

// === branches ===

#[tokio::test(start_paused = true)]
async fn steps_side_by_side_are_undone_in_reverse_of_their_completion() {
    let log = Log::default();
    let side = |name, millis| log.slow(name, millis).undo(log.back(name));
    let fan = (side("slow", 300) | side("fast", 100) | side("middle", 200)).map(|(n, _, _)| n);
    let flow = (log.step("first") >> fan >> fails()).saga(order());
    flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(log.after("undid "), ["slow", "middle", "fast", "first"]);
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_fails_undoes_what_its_siblings_completed() {
    let log = Log::default();
    let side = |name, millis| log.slow(name, millis).undo(log.back(name));
    let late = workflow("late", |_: u64| async {
        sleep(Duration::from_millis(150)).await;
        Err::<u64, _>(down())
    });
    let flow = (side("done", 100) | late | side("under way", 200)).saga(order());
    flow.run(1, &Recorder::new().context()).await.unwrap_err();
    flow.stage().settled().await;
    assert_eq!(log.after("undid "), ["done"]);
}

// === sagas in sagas ===

#[tokio::test(start_paused = true)]
async fn a_nested_saga_that_succeeds_is_undone_by_the_outer_one_as_one() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let side = |name, millis| log.slow(name, millis).undo(log.back(name));
    let nested = (side("n1", 100) >> side("n2", 200)).saga(SagaConfig::new("nested"));
    let fan = (nested.clone() | side("between", 200)).map(|(n, _)| n);
    let flow = (log.step("a") >> fan >> fails()).saga(order());
    flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!(log.after("undid "), ["n2", "n1", "between", "a"], "the nested saga was completed last");
    assert_eq!(counts(nested.stage().stats()), ([1, 0, 0, 0, 0], [0, 0]));
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [4, 0]), "the saga that undoes counts");
}

#[tokio::test(start_paused = true)]
async fn a_nested_saga_keeps_the_bounds_of_its_compensations() {
    let log = Log::default();
    let never = workflow("never", |_: u64| pending::<Result<(), Error>>());
    let config = SagaConfig::new("nested").limit(Duration::from_secs(1)).unwrap().max_attempts(1).unwrap();
    let nested = log.slow("n", 0).undo(never).saga(config);
    let flow = (nested >> fails()).saga(order());
    let start = Instant::now();
    flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn a_nested_saga_that_fails_undoes_its_own_steps_before_the_outer_one_does() {
    let log = Log::default();
    let nested = (log.step("n1") >> log.step("n2") >> fails()).saga(SagaConfig::new("nested"));
    let flow = (log.step("a") >> nested.clone()).saga(order());
    flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(log.after("undid "), ["n2", "n1", "a"]);
    assert_eq!(counts(nested.stage().stats()), ([0, 0, 1, 0, 0], [2, 0]));
    assert_eq!(counts(flow.stage().stats()), ([0, 0, 1, 0, 0], [1, 0]));
}

#[tokio::test(start_paused = true)]
async fn the_outer_saga_waits_for_a_nested_one_that_is_still_undoing() {
    let log = Log::default();
    let slow_back = {
        let log = log.clone();
        workflow("back", move |_: u64| {
            let log = log.clone();
            async move {
                sleep(Duration::from_secs(3)).await;
                log.write("undid nested");
                Ok(())
            }
        })
    };
    let nested = (log.slow("n", 0).undo(slow_back) >> hangs()).saga(SagaConfig::new("nested"));
    let bounded = nested.timeout(TimeoutConfig::from_secs("nested", 1.0).unwrap());
    let flow = (log.step("a") >> bounded).saga(order());
    let start = Instant::now();
    assert_eq!(flow.run(1, &Recorder::new().context()).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(log.after("undid "), ["nested", "a"]);
    assert_eq!(start.elapsed(), Duration::from_secs(4));
}

#[tokio::test]
async fn a_retry_of_a_nested_saga_begins_where_nothing_was_done() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let nested = (log.step("n") >> fails()).saga(SagaConfig::new("nested"));
    let again = nested.retry(RetryConfig::new("twice").max_attempts(2).unwrap());
    let flow = (log.step("a") >> again).saga(order());
    flow.run(1, &recorder.context()).await.unwrap_err();
    let lines: Vec<_> = log.lines().into_iter().filter(|line| !line.starts_with("began")).collect();
    assert_eq!(lines, ["did a", "did n", "undid n", "did n", "undid n", "undid a"]);
}

// === what else the docs promise ===

#[tokio::test]
async fn a_step_with_an_undo_outside_any_saga_is_refused_before_it_begins() {
    let log = Log::default();
    let error = log.step("a").run(1, &Context::new()).await.unwrap_err();
    let text = "a step with `undo` stands outside any saga: call `saga` on the workflow that holds it";
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Internal, text));
    assert!(log.lines().is_empty());

    let hidden = log.slow("a", 0).undo(log.step("b"));
    let error = (hidden >> fails()).saga(order()).run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(error.also().len(), 1, "a compensation is outside the saga that runs it");
    assert_eq!(log.after("did "), ["a"]);
}

#[tokio::test]
async fn a_step_and_its_compensation_share_a_key_that_no_other_run_has() {
    let keys = Log::default();
    let (forward, backward) = (keys.clone(), keys.clone());
    let charge = workflow_with("charge", move |n: u64, cx: Context| {
        forward.write(saga_key(&cx, "charge").unwrap());
        async move { Ok(n) }
    });
    let refund = workflow_with("refund", move |_: u64, cx: Context| {
        backward.write(saga_key(&cx, "charge").unwrap());
        async { Ok(()) }
    });
    let flow = (charge.undo(refund) >> fails()).saga(order());
    let cx = Recorder::new().context();
    for _ in 0..2 {
        flow.run(1, &cx).await.unwrap_err();
    }
    let keys = keys.lines();
    assert_eq!((&keys[0], &keys[2]), (&keys[1], &keys[3]));
    assert_ne!(keys[0], keys[2]);
    assert!(keys[0].ends_with("-charge"));
    assert_eq!(saga_key(&cx, "charge"), None);
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_item_is_undone_and_after_it_is_not() {
    let (log, recorder) = (Log::default(), Recorder::new());
    let items = workflow_stream("items", |n: u64, _cx: Context| async move {
        let good = (n > 2).then_some(Ok(n));
        Ok(ItemStream::new(stream::iter(good.into_iter().chain([Err(down())]))))
    });
    let flow = (log.step("a") >> items).saga(order());
    flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!(log.after("undid "), ["a"]);

    let late = flow.run(2, &recorder.context()).await.unwrap();
    assert!(late.collect::<Vec<_>>().await[1].is_err());
    flow.stage().settled().await;
    assert_eq!(log.after("undid "), ["a"]);
    assert_eq!(counts(flow.stage().stats()), ([0, 1, 1, 0, 0], [1, 0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_step_that_is_completed_after_the_saga_has_failed_is_undone_as_well() {
    let log = Log::default();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let blocks = workflow("blocks", move |n: u64| {
        let held = Arc::clone(&held);
        async move {
            // Until the test lets go, and never for ever.
            let _ = held.lock().unwrap().recv_timeout(Duration::from_secs(30));
            Ok(n)
        }
    });
    let step =
        blocks.undo(log.back("late")).timeout_detached(TimeoutConfig::from_secs("late", 0.02).unwrap());
    let flow = (log.step("a") >> step).saga(order());
    flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(log.after("undid "), ["a"]);
    release.send(()).unwrap();
    let undone = async {
        while log.after("undid ").len() < 2 {
            yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), undone).await.expect("it is undone soon");
    assert_eq!(log.after("undid "), ["a", "late"]);
    flow.stage().settled().await;
    assert_eq!(flow.stage().stats().steps_undone, 2);
}

#[test]
fn bounds_that_cannot_work_are_refused() {
    let text = |refused: Result<SagaConfig, throughline::ConfigError>| refused.unwrap_err().to_string();
    let hours = |n: u64| Duration::from_secs(n * 3_600);
    let limit = "it must be more than 0s and at most 3600s";
    assert_eq!(text(order().limit(Duration::ZERO)), format!("saga limit is 0ns: {limit}"));
    assert_eq!(text(order().limit(hours(2))), format!("saga limit is 7200s: {limit}"));
    assert_eq!(text(order().max_attempts(0)), "saga max_attempts is 0: it must be from 1 to 100");
    assert_eq!(text(order().max_attempts(101)), "saga max_attempts is 101: it must be from 1 to 100");
    assert_eq!(text(order().pause(hours(2))), "saga pause is 7200s: it must be at most 3600s");
    assert!(order().limit(hours(1)).unwrap().pause(Duration::ZERO).unwrap().max_attempts(1).is_ok());
}
