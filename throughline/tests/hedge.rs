//! When an extra attempt starts, which one wins, and what becomes of the others.

#![allow(clippy::cast_possible_truncation, reason = "what a test counts is little")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use opentelemetry::trace::Status;
use throughline::hedge::{HedgeStats, WonBy};
use throughline::testing::{Recorder, Script, Turn};
use throughline::{
    Budget, BudgetConfig, ConfigError, Context, Error, HedgeConfig, HedgeDelay, ItemStream, Kind, Result,
    workflow, workflow_stream, workflow_with,
};
use tokio::time::{Instant, sleep, timeout};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Another attempt after 100 ms.
fn config() -> HedgeConfig {
    HedgeConfig::for_idempotent_work("model", HedgeDelay::fixed(millis(100)).unwrap())
}

fn answer(value: u64, after: u64) -> Turn<u64> {
    Turn::value(value).after(millis(after))
}

fn failure(after: u64) -> Turn<u64> {
    Turn::fail(Error::new(Kind::Upstream, format!("503 after {after}"))).after(millis(after))
}

fn script(turns: impl IntoIterator<Item = Turn<u64>>) -> Script<u64> {
    turns.into_iter().fold(Script::new("work"), Script::then)
}

fn outcome(recorder: &Recorder, outcome: &str) -> Option<f64> {
    let labels = [("primitive", "hedge"), ("operation", "model"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

/// `[hedged, failed_over, loser_dropped, budget_exhausted, no_time_left]`
fn events(recorder: &Recorder) -> [u64; 5] {
    ["hedged", "failed_over", "loser_dropped", "budget_exhausted", "no_time_left"].map(|event| {
        let labels = [("primitive", "hedge"), ("event", event)];
        recorder.metric("throughline_primitive_events_total", &labels).unwrap_or_default() as u64
    })
}

fn in_flight(recorder: &Recorder) -> f64 {
    recorder.metric("throughline_primitive_in_flight", &[]).unwrap()
}

/// `[primary, hedge, errors, cancelled]`
fn counts(stats: HedgeStats) -> [u64; 4] {
    [stats.primary, stats.hedge, stats.errors, stats.cancelled]
}

#[test]
fn refuses_what_is_no_delay() {
    let secs = Duration::from_secs;
    let refused = |delay: std::result::Result<HedgeDelay, ConfigError>| delay.unwrap_err().to_string();
    assert_eq!(refused(HedgeDelay::fixed(secs(86_401))), "hedge delay is 86401s: it must be from 0s to 24h");
    assert_eq!(
        refused(HedgeDelay::percentile(1.0, secs(0), secs(1))),
        "hedge quantile is 1.0: it must be above 0 and below 1"
    );
    assert_eq!(
        refused(HedgeDelay::percentile(f64::NAN, secs(0), secs(1))),
        "hedge quantile is NaN: it must be above 0 and below 1"
    );
    assert_eq!(
        refused(HedgeDelay::percentile(0.95, secs(0), secs(0))),
        "hedge ceiling is 0ns: it must be more than 0s and at most 24h"
    );
    assert_eq!(
        refused(HedgeDelay::percentile(0.95, secs(2), secs(1))),
        "hedge floor is 2s: it must be at most the ceiling, 1s"
    );
    let learned = || HedgeDelay::percentile(0.95, secs(0), secs(1)).unwrap();
    assert_eq!(refused(learned().min_samples(0)), "hedge min_samples is 0: it must be at least 1");
    assert_eq!(
        refused(learned().window(secs(0))),
        "hedge window is 0ns: it must be more than 0s and at most 24h"
    );
    for extra in [0, 11] {
        assert_eq!(
            config().extra_attempts(extra).unwrap_err().to_string(),
            format!("hedge extra_attempts is {extra}: it must be from 1 to 10")
        );
    }
}

#[test]
fn shows_its_name_its_delay_and_its_counts() {
    let flow = script([]).workflow::<()>().hedge(config());
    assert_eq!(format!("{:?}", flow.stage()), "Hedge(model, 1 extra after 100ms, 0 of 0 won by a hedge)");
    assert_eq!((flow.describe().primitive(), flow.describe().operation()), ("hedge", "model"));
    assert_eq!(flow.describe().children()[0].operation(), "work");
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_delay_stays_alone() {
    let (recorder, work) = (Recorder::new(), script([answer(1, 100)]));
    let flow = work.workflow().hedge(config());
    let cx = recorder.context();
    assert_eq!(flow.run((), &cx).await.unwrap(), 1, "at the delay is in time");
    assert_eq!(work.calls(), 1);
    assert_eq!(cx.state().get::<WonBy>().as_deref(), Some(&WonBy::Primary));
    assert_eq!((outcome(&recorder, "primary"), events(&recorder)), (Some(1.0), [0; 5]));
    assert_eq!(counts(flow.stage().stats()), [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_attempt_loses_and_is_gone_when_the_caller_is_answered() {
    let (recorder, work) = (Recorder::new(), script([answer(1, 1_000), answer(2, 50)]));
    let flow = work.workflow().hedge(config());
    let (cx, start) = (recorder.context(), Instant::now());
    let answer = flow.run((), &cx).await.unwrap();
    assert_eq!((answer, start.elapsed()), (2, millis(150)));
    assert_eq!((work.running(), work.dropped()), (0, 1), "the loser is gone");
    assert_eq!(cx.state().get::<WonBy>().as_deref(), Some(&WonBy::Hedge(1)));
    assert_eq!((outcome(&recorder, "hedge"), events(&recorder)), (Some(1.0), [1, 0, 1, 0, 0]));
    assert_eq!(in_flight(&recorder), 0.0);
    let stats = flow.stage().stats();
    assert_eq!((stats.extra_attempts, stats.losers, stats.wasted), (1, 1, millis(150)));
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_may_still_win_and_the_extra_one_is_wasted() {
    let (recorder, work) = (Recorder::new(), script([answer(1, 130), answer(2, 50)]));
    let flow = work.workflow().hedge(config());
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), 1);
    assert_eq!((outcome(&recorder, "primary"), events(&recorder)), (Some(1.0), [1, 0, 1, 0, 0]));
    assert_eq!(flow.stage().stats().wasted, millis(30));
    let hedge = recorder.spans().into_iter().find(|span| span.name == "hedge model").unwrap();
    let attribute =
        |name| hedge.attributes.iter().find(|at| at.key.as_str() == name).map(|at| at.value.clone());
    assert_eq!(attribute("throughline.hedge.won_by"), Some("primary".into()));
    assert_eq!(attribute("throughline.hedge.wasted_seconds"), Some(0.03.into()));
}

#[tokio::test(start_paused = true)]
async fn each_extra_attempt_waits_the_delay_and_no_more_start_than_allowed() {
    let work = script([answer(1, 5_000), answer(2, 5_000), answer(3, 20), answer(4, 0)]);
    let flow = work.workflow().hedge(config().extra_attempts(2).unwrap());
    let (cx, start) = (Context::new(), Instant::now());
    assert_eq!(flow.run((), &cx).await.unwrap(), 3);
    assert_eq!(start.elapsed(), millis(220));
    assert_eq!(cx.state().get::<WonBy>().as_deref(), Some(&WonBy::Hedge(2)));
    assert_eq!((work.calls(), work.dropped()), (3, 2));
    assert_eq!(flow.stage().stats().wasted, millis(220 + 120));

    let work = script([answer(1, 5_000), Turn::hang()]);
    let flow = work.workflow().hedge(config().extra_attempts(2).unwrap());
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 1);
    assert_eq!(work.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_a_delay_all_attempts_start_together() {
    let work = script([answer(1, 30), answer(2, 20), answer(3, 10)]);
    let delay = HedgeDelay::fixed(Duration::ZERO).unwrap();
    let config = HedgeConfig::for_idempotent_work("model", delay).extra_attempts(2).unwrap();
    let start = Instant::now();
    assert_eq!(work.workflow().hedge(config).run((), &Context::new()).await.unwrap(), 3);
    // Timers have a resolution of a millisecond, also those of no time.
    assert!(start.elapsed() <= millis(12), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_before_the_delay_starts_the_next_at_once() {
    let (recorder, work) = (Recorder::new(), script([failure(30), answer(2, 20)]));
    let flow = work.workflow().hedge(config());
    let (cx, start) = (recorder.context(), Instant::now());
    assert_eq!(flow.run((), &cx).await.unwrap(), 2);
    assert_eq!(start.elapsed(), millis(50));
    assert_eq!((outcome(&recorder, "hedge"), events(&recorder)), (Some(1.0), [0, 1, 0, 0, 0]));
    assert_eq!(flow.stage().stats().wasted, Duration::ZERO, "what failed has not lost");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_leaves_the_other_alone() {
    let work = script([answer(1, 300), failure(50)]);
    let start = Instant::now();
    let answer = work.workflow().hedge(config()).run((), &Context::new()).await.unwrap();
    assert_eq!((answer, start.elapsed()), (1, millis(300)));
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_first_error_comes_with_the_others() {
    let recorder = Recorder::new();
    let work = script([failure(250), failure(60), failure(20)]);
    let flow = work.workflow::<()>().hedge(config().extra_attempts(2).unwrap());
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(error.to_string(), "503 after 60");
    let also: Vec<_> = error.also().iter().map(ToString::to_string).collect();
    assert_eq!(also, ["503 after 20", "503 after 250"]);
    assert!(error.is_retryable());
    assert_eq!((outcome(&recorder, "error"), events(&recorder)), (Some(1.0), [1, 1, 0, 0, 0]));
    assert_eq!(counts(flow.stage().stats()), [0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_error_ends_the_run_at_once() {
    let fatal = Turn::fail(Error::new(Kind::Upstream, "401").fatal()).after(millis(50));
    let (recorder, work) = (Recorder::new(), script([answer(1, 1_000), fatal.clone()]));
    let flow = work.workflow::<()>().hedge(config());
    let start = Instant::now();
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("401", millis(150)));
    assert_eq!((work.running(), flow.stage().stats().wasted), (0, millis(150)));

    let work = script([failure(10), fatal]);
    let error = work.workflow::<()>().hedge(config()).run((), &Context::new()).await.unwrap_err();
    assert!(!error.is_retryable(), "the fatal error stands first, whenever it came");
    assert_eq!(error.also()[0].to_string(), "503 after 10");
}

#[tokio::test(start_paused = true)]
async fn an_extra_attempt_that_a_circuit_refuses_leaves_the_first_alone() {
    let open = || Turn::fail(Error::new(Kind::CircuitOpen, "circuit open"));
    let (recorder, work) = (Recorder::new(), script([answer(1, 1_000), open(), answer(3, 0)]));
    let flow = work.workflow::<()>().hedge(config().extra_attempts(2).unwrap());
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), 1);
    assert_eq!((work.calls(), events(&recorder)), (2, [1, 0, 0, 0, 0]), "and no further one is tried");

    let work = script([failure(150), open()]);
    let error = work.workflow::<()>().hedge(config()).run((), &Context::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.also().len()), (Kind::Upstream, 0));

    let work = script([open(), open()]);
    let error = work.workflow::<()>().hedge(config()).run((), &Context::new()).await.unwrap_err();
    assert_eq!(
        (error.kind(), work.calls()),
        (Kind::CircuitOpen, 1),
        "who refuses the first refuses the next"
    );
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_asks_for_a_pause_gets_no_more_attempts() {
    let busy = Error::new(Kind::RateLimited, "slow down").with_retry_after(Duration::from_secs(5));
    let work = script([Turn::fail(busy).after(millis(10)), answer(2, 10)]);
    let error = work.workflow::<()>().hedge(config()).run((), &Context::new()).await.unwrap_err();
    assert_eq!((error.retry_after(), work.calls()), (Some(Duration::from_secs(5)), 1));
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_leaves_the_first_attempt_alone() {
    let budget = Budget::new(BudgetConfig::default().ratio(0.5).unwrap().floor_per_second(0.0).unwrap());
    let (recorder, work) = (Recorder::new(), script([answer(1, 300)]));
    let flow = work.workflow().hedge(config().extra_attempts(3).unwrap().budget(&budget));
    let start = Instant::now();
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), 1);
    assert_eq!((start.elapsed(), work.calls()), (millis(300), 1));
    assert_eq!(events(&recorder), [0, 0, 0, 1, 0], "it asks once and not at every delay");
    assert_eq!(flow.stage().stats().budget_exhausted, 1);

    assert_eq!(budget.stats().deposits, 1, "the success is deposited");
    flow.run((), &recorder.context()).await.unwrap();
    assert_eq!(events(&recorder), [0, 0, 0, 2, 0], "half a token is none");
    flow.run((), &recorder.context()).await.unwrap();
    assert_eq!((events(&recorder)[0], budget.stats().withdrawals), (1, 1));

    let work = script([failure(10)]);
    let flow = work
        .workflow::<()>()
        .hedge(config().budget(&Budget::new(BudgetConfig::default().floor_per_second(0.0).unwrap())));
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), work.calls()), ("503 after 10", 1), "not even after a failure");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starts_when_there_is_no_time_left_or_nobody_wants_it() {
    let (recorder, work) = (Recorder::new(), script([answer(1, 150)]));
    let flow = work.workflow().hedge(config());
    let cx = recorder.context().with_time_limit(millis(100));
    assert_eq!(flow.run((), &cx).await.unwrap(), 1);
    assert_eq!((work.calls(), events(&recorder)), (1, [0, 0, 0, 0, 1]));
    let cx = recorder.context().with_time_limit(millis(101));
    flow.run((), &cx).await.unwrap();
    assert_eq!(events(&recorder)[0], 1);

    let calls = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&calls);
    let stubborn = workflow("stubborn", move |(): ()| {
        seen.fetch_add(1, Ordering::Relaxed);
        sleep(millis(150)).then_ok()
    });
    let limit = throughline::TimeoutConfig::new("limit", millis(50)).unwrap().grace(millis(200)).unwrap();
    stubborn.hedge(config()).timeout(limit).run((), &Context::new()).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1, "it was asked to stop before the delay was over");
}

trait ThenOk {
    fn then_ok(self) -> impl Future<Output = Result<()>> + Send;
}

impl<F: Future<Output = ()> + Send> ThenOk for F {
    async fn then_ok(self) -> Result<()> {
        self.await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_run_drops_all_attempts() {
    let (recorder, work) = (Recorder::new(), script([Turn::hang()]));
    let flow = work.workflow::<()>().hedge(config().extra_attempts(2).unwrap());
    assert!(timeout(millis(250), flow.run((), &recorder.context())).await.is_err());
    assert_eq!((work.calls(), work.running(), work.dropped()), (3, 0, 3));
    assert_eq!((outcome(&recorder, "cancelled"), in_flight(&recorder)), (Some(1.0), 0.0));
    assert_eq!(events(&recorder), [2, 0, 0, 0, 0], "nobody has won, so nobody has lost");
    assert_eq!(counts(flow.stage().stats()), [0, 0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_spans_of_losers_end_as_cancelled_under_the_hedge() {
    let (recorder, work) = (Recorder::new(), script([answer(1, 1_000), answer(2, 50)]));
    work.workflow().hedge(config()).run((), &recorder.context()).await.unwrap();
    let spans = recorder.spans();
    let hedge = spans.iter().find(|span| span.name == "hedge model").unwrap();
    assert_eq!(hedge.status, Status::Ok);
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "step work").collect();
    assert!(attempts.iter().all(|span| span.parent_span_id == hedge.span_context.span_id()));
    let ends: Vec<_> = attempts.iter().map(|span| span.status.clone()).collect();
    assert_eq!(ends, [Status::Ok, Status::error("cancelled")]);
    assert!(spans.iter().all(|span| span.span_context.trace_id() == hedge.span_context.trace_id()));
}

#[tokio::test(start_paused = true)]
async fn only_what_the_winner_wrote_reaches_the_caller() {
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Log(Vec<&'static str>);
    let calls = AtomicU64::new(0);
    let work = workflow_with("work", move |(): (), cx: Context| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        cx.state().update::<Log>(|log| log.0.push(if first { "first" } else { "second" }));
        if first {
            cx.state().insert(1_u8);
        }
        async move {
            sleep(millis(if first { 1_000 } else { 10 })).await;
            cx.state().update::<Log>(|log| log.0.push("done"));
            Ok(())
        }
    });
    let cx = Context::new();
    cx.state().insert(Log(vec!["before"]));
    work.hedge(config()).run((), &cx).await.unwrap();
    assert_eq!(cx.state().get::<Log>().unwrap().0, ["before", "second", "done"]);
    assert_eq!(cx.state().get::<u8>(), None);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_attempt_is_one_of_the_run() {
    let work = script([answer(1, 1_000), Turn::panic()]);
    let flow = work.workflow::<()>().hedge(config());
    let run = tokio::spawn(async move { flow.run((), &Context::new()).await });
    assert!(run.await.unwrap_err().is_panic());
    assert_eq!(work.running(), 0);
}

// === streams ===

/// The first call pauses long before its items; items say which call they are of.
fn tokens(
    first_pause: u64,
) -> throughline::Workflow<impl throughline::Primitive<In = (), Out = ItemStream<u64>>> {
    let calls = AtomicU64::new(0);
    workflow_stream("tokens", move |(): (), cx: Context| {
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            let pause = if call == 1 { first_pause } else { 20 };
            let items = stream::iter(0..3).then(move |n| {
                let cx = cx.clone();
                async move {
                    sleep(millis(if n == 0 { pause } else { 500 })).await;
                    cx.state().insert(n);
                    Ok(call)
                }
            });
            Ok(ItemStream::new(items))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn of_streams_the_first_item_wins_and_the_run_lasts_to_the_end() {
    let recorder = Recorder::new();
    let flow = tokens(1_000).hedge(config());
    let (cx, start) = (recorder.context(), Instant::now());
    let answer = flow.run((), &cx).await.unwrap();
    assert_eq!(start.elapsed(), millis(120), "the first item is there and decides");
    assert_eq!(in_flight(&recorder), 2.0, "the hedge and the winner");
    assert_eq!(cx.state().get::<i32>().as_deref(), Some(&0));
    let items: Vec<_> = answer.map(Result::unwrap).collect().await;
    assert_eq!((items, start.elapsed()), (vec![2, 2, 2], millis(1_120)));
    assert_eq!(cx.state().get::<i32>().as_deref(), Some(&2), "what the stream wrote later is taken over too");
    assert_eq!((outcome(&recorder, "hedge"), in_flight(&recorder)), (Some(1.0), 0.0));
    assert_eq!(counts(flow.stage().stats()), [0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_ends_the_run_as_cancelled() {
    let recorder = Recorder::new();
    let flow = tokens(10).hedge(config());
    drop(flow.run((), &recorder.context()).await.unwrap());
    assert_eq!((outcome(&recorder, "cancelled"), in_flight(&recorder)), (Some(1.0), 0.0));
}

// === a delay that is learned ===

fn learned() -> HedgeDelay {
    HedgeDelay::percentile(0.9, millis(20), millis(500)).unwrap().min_samples(10).unwrap()
}

fn echo() -> throughline::Workflow<impl throughline::Primitive<In = u64, Out = u64>> {
    workflow("echo", |time: u64| async move {
        sleep(millis(time)).await;
        Ok(time)
    })
}

#[tokio::test(start_paused = true)]
async fn a_percentile_is_the_ceiling_until_it_has_samples_enough_and_after_a_silence() {
    let flow = echo().hedge(HedgeConfig::for_idempotent_work("model", learned()));
    for n in 0..10 {
        assert_eq!(flow.stage().stats().delay, millis(500), "after {n} samples");
        flow.run(if n == 9 { 300 } else { 100 }, &Context::new()).await.unwrap();
    }
    let delay = flow.stage().stats().delay;
    assert!(delay >= millis(100) && delay <= millis(101), "nine of ten take 100 ms: {delay:?}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(flow.stage().stats().delay, millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_percentile_stays_between_floor_and_ceiling() {
    for (time, delay) in [(1, 20), (900, 500)] {
        let flow = echo().hedge(HedgeConfig::for_idempotent_work("model", learned()));
        for _ in 0..10 {
            flow.run(time, &Context::new()).await.unwrap();
        }
        assert_eq!(flow.stage().stats().delay, millis(delay));
    }
}

#[tokio::test(start_paused = true)]
async fn failures_teach_the_percentile_nothing() {
    let work = script((0..20).map(|_| failure(1)));
    let flow = work.workflow::<()>().hedge(HedgeConfig::for_idempotent_work("model", learned()));
    for _ in 0..10 {
        flow.run((), &Context::new()).await.unwrap_err();
    }
    assert_eq!(flow.stage().stats().delay, millis(500));
}

/// The trap of a learned delay: first attempts that lose are the slow ones, and without them the percentile
/// goes down, which lets more of them lose.
#[tokio::test(start_paused = true)]
async fn hedging_does_not_pull_its_own_percentile_down() {
    let random = std::sync::Mutex::new(fastrand::Rng::with_seed(7));
    let uniform = workflow("uniform", move |(): ()| {
        let time = random.lock().unwrap().u64(1..=200);
        async move {
            sleep(millis(time)).await;
            Ok(())
        }
    });
    let delay = HedgeDelay::percentile(0.9, millis(1), millis(500)).unwrap().min_samples(50).unwrap();
    let flow = uniform.hedge(HedgeConfig::for_idempotent_work("model", delay));
    for n in 0..5_000 {
        flow.run((), &Context::new()).await.unwrap();
        let delay = flow.stage().stats().delay;
        assert!(n < 200 || (delay >= millis(165) && delay <= millis(195)), "{delay:?} after {n} runs");
    }
    let stats = flow.stage().stats();
    assert!(
        (350..700).contains(&stats.extra_attempts),
        "a tenth is hedged, and not more and more: {stats:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_never_waits_for_long_is_hedged_all_the_same() {
    let calls = AtomicU64::new(0);
    let busy_first = workflow("busy_first", move |(): ()| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            for _ in 0..if call == 0 { 500_000 } else { 0 } {
                tokio::task::coop::consume_budget().await;
            }
            Ok(call)
        }
    });
    let flow = busy_first.hedge(config());
    let time = tokio::spawn(tokio::time::advance(millis(200)));
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 1);
    time.await.unwrap();
}
