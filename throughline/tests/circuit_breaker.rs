//! A circuit breaker around calls that fail, hang, are dropped, or go on as streams, and what metrics say.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use throughline::circuit_breaker::{CircuitState, Undecided, Verdict, Window};
use throughline::telemetry::{Label as _, Sink};
use throughline::testing::{Recorder, Script, Turn};
use throughline::{
    Circuit, CircuitBreakerConfig, Clock, Context, Error, ItemStream, Kind, Primitive, Result, TimeoutConfig,
    Workflow, workflow, workflow_stream,
};
use tokio::time::{advance, sleep, timeout};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Opens at two failures in a row, for 10 s; one trial; a call is slow after 2 s.
fn config() -> CircuitBreakerConfig {
    let config = CircuitBreakerConfig::new("model").window(Window::consecutive(2)).unwrap();
    let config = config.trials(1).unwrap().slow_after(secs(2)).unwrap();
    config.open_for(secs(10)).unwrap().jitter(0.0).unwrap()
}

fn circuit() -> Circuit {
    Circuit::new(config())
}

fn half_open() -> Circuit {
    let circuit = circuit();
    circuit.half_open();
    circuit
}

fn upstream() -> Error {
    Error::new(Kind::Upstream, "503")
}

/// Fails with what it is given.
fn failing() -> Workflow<impl Primitive<In = Kind, Out = ()>> {
    workflow("failing", |kind: Kind| async move { Err(Error::new(kind, "failed")) })
}

fn hanging() -> Workflow<impl Primitive<In = (), Out = ()>> {
    workflow("hanging", |(): ()| std::future::pending::<Result<()>>())
}

fn echo() -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("echo", |n: u64| async move { Ok(n) })
}

/// The series of a family that are not zero, by one label.
fn by(recorder: &Recorder, family: &str, label: &str) -> BTreeMap<String, f64> {
    let mut sums = recorder.scrape().sum_by(family, label);
    sums.retain(|_, value| *value > 0.0);
    sums
}

fn calls(recorder: &Recorder) -> BTreeMap<String, f64> {
    by(recorder, "circuit_breaker_calls_total", "outcome")
}

fn states(recorder: &Recorder) -> BTreeMap<String, f64> {
    by(recorder, "circuit_breaker_state", "state")
}

fn time_in_state(recorder: &Recorder) -> BTreeMap<String, f64> {
    by(recorder, "circuit_breaker_time_in_state_seconds_total", "state")
}

fn transitions(recorder: &Recorder, from: &str, to: &str) -> Option<f64> {
    recorder.metric("circuit_breaker_transitions_total", &[("from", from), ("to", to)])
}

fn expected(values: &[(&str, f64)]) -> BTreeMap<String, f64> {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

// === opening and closing ===

#[tokio::test(start_paused = true)]
async fn it_opens_refuses_tries_again_and_closes() {
    let recorder = Recorder::new();
    let model = Script::new("model")
        .then(Turn::fail(upstream()))
        .then(Turn::fail(upstream()))
        .then(Turn::fail(upstream()))
        .then(Turn::value(7));
    let flow = model.workflow().circuit_breaker(config());
    for _ in 0..2 {
        assert_eq!(flow.run((), &recorder.context()).await.unwrap_err().kind(), Kind::Upstream);
    }
    advance(millis(5_800)).await;
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::CircuitOpen);
    assert_eq!(error.to_string(), "circuit open for another 4.2s after 2 failures");
    assert_eq!((error.is_retryable(), error.retry_after()), (false, Some(millis(4_200))));
    assert_eq!(model.calls(), 2, "the target is left alone");

    advance(millis(4_200)).await;
    assert_eq!(flow.run((), &recorder.context()).await.unwrap_err().kind(), Kind::Upstream, "a trial");
    assert_eq!(flow.run((), &recorder.context()).await.unwrap_err().retry_after(), Some(secs(20)), "longer");
    advance(secs(20)).await;
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), 7);
    assert_eq!(flow.stage().circuit().state(), CircuitState::Closed);
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), 7);

    let stats = flow.stage().stats();
    assert_eq!((stats.failures, stats.successes, stats.rejected, stats.opened), (3, 2, 2, 2));
    let seen = [("failure", 3.0), ("success", 2.0), ("rejected", 2.0)];
    assert_eq!(calls(&recorder), expected(&seen));
    let runs = [("primitive", "circuit_breaker"), ("operation", "model"), ("outcome", "rejected")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &runs), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn what_the_target_answers_reaches_the_caller_as_it_is() {
    let answer = Error::new(Kind::Upstream, "the model answered 503").with_retry_after(secs(7));
    let model = Script::new("model").then(Turn::value(7)).then(Turn::fail(answer));
    let flow = model.workflow().circuit_breaker(config());
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 7);
    for _ in 0..2 {
        let error = flow.run((), &Context::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "the model answered 503", "also of the call that opens the circuit");
        assert_eq!((error.retry_after(), error.also().len()), (Some(secs(7)), 0));
    }
    assert_eq!(flow.stage().circuit().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_closed_circuit_does_not_bound_how_many_calls_are_under_way() {
    let model = Script::new("model").then(Turn::value(7).after(secs(1)));
    let flow = model.workflow().circuit_breaker(config());
    let cx = Context::new();
    let all = futures_util::future::join_all((0..1_000).map(|_| flow.run((), &cx)));
    let watch = async {
        sleep(millis(500)).await;
        assert_eq!(model.running(), 1_000);
    };
    let (answers, ()) = tokio::join!(all, watch);
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
}

#[test]
fn shows_its_name_its_state_and_its_counts() {
    let flow = echo().circuit_breaker(config());
    assert_eq!(
        format!("{:?}", flow.stage()),
        "CircuitBreaker(Circuit(model, closed, 0 of 0 calls failed, 0 rejected))"
    );
    let node = flow.describe();
    assert_eq!((node.primitive(), node.operation()), ("circuit_breaker", "model"));
    assert_eq!(node.children()[0].operation(), "echo");
    let stats = flow.stage().stats();
    assert_eq!((stats.state, stats.open_left, stats.trials), (CircuitState::Closed, None, 0));
    assert_eq!((stats.failure_rate, stats.slow_rate), (None, None));
}

#[tokio::test(start_paused = true)]
async fn the_rates_of_the_window_can_be_read() {
    let config = CircuitBreakerConfig::new("model").min_calls(4).unwrap().slow_after(secs(2)).unwrap();
    let script = Script::new("model")
        .then(Turn::fail(upstream()))
        .then(Turn::value(1).after(secs(3)))
        .then(Turn::value(1));
    let flow = script.workflow().circuit_breaker(config);
    for (run, rates) in [None, None, None, Some((0.25, 0.25))].into_iter().enumerate() {
        drop(flow.run((), &Context::new()).await);
        let stats = flow.stage().stats();
        assert_eq!(stats.failure_rate.zip(stats.slow_rate), rates, "after {} calls", run + 1);
    }
}

#[test]
fn refuses_bounds_that_are_none() {
    let new = || CircuitBreakerConfig::new("model");
    let refused = |result: std::result::Result<CircuitBreakerConfig, throughline::ConfigError>| {
        result.unwrap_err().to_string()
    };
    for (result, message) in [
        (new().window(Window::count(0)), "window is 0: it must be from 1 to 100000"),
        (new().window(Window::consecutive(100_001)), "window is 100001: it must be from 1 to 100000"),
        (new().window(Window::time(Duration::ZERO)), "window is 0.0 s: it must be from 0.001 s to 86400 s"),
        (new().min_calls(0), "minimum of calls is 0: it must be from 1 to 100000"),
        (new().failure_rate(0.0), "failure rate is 0.0: it must be above 0 and at most 1"),
        (new().failure_rate(f64::NAN), "failure rate is NaN: it must be above 0 and at most 1"),
        (new().slow_rate(1.01), "slow rate is 1.01: it must be above 0 and at most 1"),
        (new().slow_after(Duration::ZERO), "slow limit is 0.0 s: it must be from 0.001 s to 86400 s"),
        (new().trials(0), "number of trials is 0: it must be from 1 to 10000"),
        (new().open_for(secs(86_401)), "open time is 86401.0 s: it must be from 0.001 s to 86400 s"),
        (
            new().max_open_for(secs(86_401)),
            "longest open time is 86401.0 s: it must be from 0.001 s to 86400 s",
        ),
        (new().growth(0.9), "growth is 0.9: it must be from 1 to 10"),
        (new().growth(f64::INFINITY), "growth is inf: it must be from 1 to 10"),
        (new().jitter(-0.1), "jitter is -0.1: it must be from 0 to 0.5"),
        (
            new().half_open_wait(Duration::ZERO, Undecided::Close),
            "half-open wait is 0.0 s: it must be from 0.001 s to 86400 s",
        ),
    ] {
        assert_eq!(refused(result), format!("circuit {message}"));
    }
    assert!(new().failure_rate(1.0).is_ok() && new().jitter(0.5).is_ok() && new().growth(1.0).is_ok());
}

// === what counts ===

#[tokio::test]
async fn errors_of_the_target_are_failures_and_others_say_nothing() {
    let failures = [Kind::Timeout, Kind::Upstream, Kind::Store];
    let ignored = [
        Kind::InvalidInput,
        Kind::Cancelled,
        Kind::CircuitOpen,
        Kind::RateLimited,
        Kind::Rejected,
        Kind::Internal,
    ];
    for kind in failures.into_iter().chain(ignored) {
        let flow = failing().circuit_breaker(circuit());
        assert_eq!(flow.run(kind, &Context::new()).await.unwrap_err().kind(), kind, "it is handed on");
        let stats = flow.stage().stats();
        let seen = (stats.failures, stats.ignored);
        assert_eq!(seen, if failures.contains(&kind) { (1, 0) } else { (0, 1) }, "{kind:?}");
    }
    assert_eq!(Verdict::of(&upstream().fatal()), Verdict::Failure, "a refused key is no answer either");
    let passing = Error::new(Kind::Internal, "out of memory").with_retry_after(secs(1));
    assert_eq!(Verdict::of(&passing), Verdict::Failure);
}

#[tokio::test]
async fn what_an_error_says_can_be_decided_otherwise() {
    let judge = |error: &Error| match error.kind() {
        Kind::RateLimited => Verdict::Failure,
        Kind::InvalidInput => Verdict::Success,
        _ => Verdict::Ignored,
    };
    let flow = failing().circuit_breaker(config().judge(judge));
    for kind in [Kind::RateLimited, Kind::InvalidInput, Kind::Upstream, Kind::RateLimited] {
        flow.run(kind, &Context::new()).await.unwrap_err();
    }
    let stats = flow.stage().stats();
    assert_eq!((stats.failures, stats.successes, stats.ignored), (2, 1, 1));
    assert_eq!(stats.state, CircuitState::Closed, "the success stands between the failures");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_longer_than_the_limit_is_slow_and_one_at_the_limit_is_not() {
    let model = Script::new("model")
        .then(Turn::value(1).after(secs(2)))
        .then(Turn::value(1).after(millis(2_001)))
        .then(Turn::fail(upstream()).after(secs(3)));
    let flow = model.workflow().circuit_breaker(config());
    for _ in 0..3 {
        drop(flow.run((), &Context::new()).await);
    }
    let stats = flow.stage().stats();
    assert_eq!((stats.successes, stats.slow_successes, stats.slow_failures), (1, 1, 1));
    assert_eq!(stats.state, CircuitState::Open, "both of them in a row");
}

// === calls that are dropped ===

#[tokio::test(start_paused = true)]
async fn a_dropped_call_counts_as_nothing() {
    let recorder = Recorder::new();
    let flow = hanging().circuit_breaker(config());
    for _ in 0..5 {
        timeout(secs(2), flow.run((), &recorder.context())).await.unwrap_err();
    }
    assert_eq!(flow.stage().circuit().state(), CircuitState::Closed);
    assert_eq!(calls(&recorder), expected(&[("ignored", 5.0)]));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_when_it_is_slow_already_is_a_slow_failure() {
    let recorder = Recorder::new();
    let flow = hanging().circuit_breaker(config());
    for _ in 0..2 {
        timeout(millis(2_001), flow.run((), &recorder.context())).await.unwrap_err();
    }
    assert_eq!(calls(&recorder), expected(&[("slow_failure", 2.0)]));
    assert_eq!(flow.stage().circuit().state(), CircuitState::Open, "a target that hangs is found out");
}

#[tokio::test(start_paused = true)]
async fn slow_drops_count_as_nothing_where_that_is_configured() {
    let flow = hanging().circuit_breaker(config().count_slow_drops(false));
    for _ in 0..5 {
        timeout(secs(60), flow.run((), &Context::new())).await.unwrap_err();
    }
    let stats = flow.stage().stats();
    assert_eq!((stats.state, stats.ignored), (CircuitState::Closed, 5));
}

#[tokio::test(start_paused = true)]
async fn work_that_gives_up_because_it_was_asked_to_stop_is_judged_like_a_dropped_call() {
    let obedient = || {
        throughline::workflow_with("obedient", |(): (), cx: Context| async move {
            cx.cancelled().await;
            Err::<(), _>(Error::new(Kind::Cancelled, "stopped"))
        })
    };
    let limit = |limit| TimeoutConfig::new("outer", limit).unwrap().grace(secs(1)).unwrap();
    let soon = obedient().circuit_breaker(config());
    let late = obedient().circuit_breaker(config());
    let (circuit_soon, circuit_late) = (soon.stage().circuit().clone(), late.stage().circuit().clone());
    soon.timeout(limit(secs(1))).run((), &Context::new()).await.unwrap_err();
    late.timeout(limit(secs(3))).run((), &Context::new()).await.unwrap_err();
    assert_eq!((circuit_soon.stats().ignored, circuit_soon.stats().slow_failures), (1, 0));
    assert_eq!((circuit_late.stats().ignored, circuit_late.stats().slow_failures), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_outer_timeout_around_a_trial_does_not_leave_the_circuit_half_open_for_ever() {
    let circuit = half_open();
    let slow = Script::new("model").then(Turn::hang()).then(Turn::hang()).then(Turn::value(1));
    let limit = TimeoutConfig::new("outer", secs(1)).unwrap();
    let flow = slow.workflow().circuit_breaker(&circuit).timeout(limit);
    for _ in 0..2 {
        let error = flow.run((), &Context::new()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "each of them was let through");
        assert_eq!((circuit.state(), circuit.stats().trials), (CircuitState::HalfOpen, 0));
    }
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 1);
    assert_eq!(circuit.state(), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_dropped_when_it_is_slow_reopens() {
    let circuit = half_open();
    let flow = hanging().circuit_breaker(&circuit);
    timeout(secs(3), flow.run((), &Context::new())).await.unwrap_err();
    assert_eq!((circuit.state(), circuit.stats().trials), (CircuitState::Open, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_beside_a_trial_are_refused_until_it_has_ended() {
    let circuit = half_open();
    let slow = workflow("slow", |(): ()| async {
        sleep(secs(1)).await;
        Ok(())
    });
    let flow = slow.circuit_breaker(&circuit);
    let cx = Context::new();
    let (trial, other) = tokio::join!(flow.run((), &cx), async {
        sleep(millis(500)).await;
        flow.run((), &cx).await
    });
    assert!(trial.is_ok());
    assert_eq!(other.unwrap_err().to_string(), "circuit half-open with all 1 trials taken");
    assert!(flow.run((), &cx).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_hangs_is_given_up() {
    let config = config().half_open_wait(secs(30), Undecided::Reopen).unwrap();
    let circuit = Circuit::new(config.count_slow_drops(false));
    circuit.half_open();
    let flow = hanging().circuit_breaker(&circuit);
    let cx = Context::new();
    let run = flow.run((), &cx);
    timeout(secs(29), std::pin::pin!(run)).await.unwrap_err();

    let stuck = flow.clone();
    let task = tokio::spawn(async move { stuck.run((), &Context::new()).await });
    sleep(secs(29)).await;
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    sleep(secs(1)).await;
    assert_eq!(circuit.state(), CircuitState::Open);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!((circuit.state(), circuit.stats().ignored), (CircuitState::Open, 2));
}

#[tokio::test]
async fn a_panic_says_nothing_about_the_target_and_hands_its_place_back() {
    let circuit = half_open();
    let flow = Script::<()>::new("model").then(Turn::panic()).workflow().circuit_breaker(&circuit);
    let cx = Context::new();
    assert!(AssertUnwindSafe(flow.run((), &cx)).catch_unwind().await.is_err());
    let stats = circuit.stats();
    assert_eq!((stats.state, stats.trials, stats.ignored), (CircuitState::HalfOpen, 0, 1));
}

// === shared and controlled by hand ===

#[tokio::test(start_paused = true)]
async fn workflows_that_share_a_circuit_open_together_and_no_call_counts_twice() {
    let (recorder, circuit) = (Recorder::new(), circuit());
    let chat = failing().circuit_breaker(&circuit);
    let embed = echo().circuit_breaker(&circuit);
    assert_eq!(embed.run(1, &recorder.context()).await.unwrap(), 1);
    for _ in 0..2 {
        chat.run(Kind::Upstream, &recorder.context()).await.unwrap_err();
    }
    assert_eq!(embed.run(1, &recorder.context()).await.unwrap_err().kind(), Kind::CircuitOpen);
    let seen = [("success", 1.0), ("failure", 2.0), ("rejected", 1.0)];
    assert_eq!(calls(&recorder), expected(&seen));
    assert_eq!(transitions(&recorder, "closed", "open"), Some(1.0));
    assert_eq!(states(&recorder), expected(&[("open", 1.0)]));
    assert_eq!(chat.stage().stats(), embed.stage().stats());
    advance(secs(3)).await;
    assert_eq!(time_in_state(&recorder), expected(&[("open", 3.0)]), "time counts once, too");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_controlled_by_hand() {
    let circuit = circuit();
    let flow = failing().circuit_breaker(&circuit);
    let run = || async { flow.run(Kind::Upstream, &Context::new()).await.unwrap_err().kind() };
    circuit.force_open();
    assert_eq!((run().await, circuit.state()), (Kind::CircuitOpen, CircuitState::ForcedOpen));
    advance(secs(1_000)).await;
    assert_eq!(run().await, Kind::CircuitOpen);
    circuit.disable();
    for _ in 0..10 {
        assert_eq!(run().await, Kind::Upstream);
    }
    assert_eq!(circuit.stats().failures, 0);
    circuit.reset();
    assert_eq!((run().await, run().await, run().await), (Kind::Upstream, Kind::Upstream, Kind::CircuitOpen));
    circuit.open();
    assert_eq!((run().await, circuit.state()), (Kind::CircuitOpen, CircuitState::Open));
    circuit.half_open();
    assert_eq!((run().await, circuit.state()), (Kind::Upstream, CircuitState::Open));
}

#[tokio::test(start_paused = true)]
async fn metrics_only_refuses_nothing_and_says_when_it_would_have_opened() {
    let (recorder, circuit) = (Recorder::new(), circuit());
    circuit.metrics_only();
    let flow = failing().circuit_breaker(&circuit);
    for _ in 0..10 {
        assert_eq!(flow.run(Kind::Upstream, &recorder.context()).await.unwrap_err().kind(), Kind::Upstream);
    }
    let event = [("primitive", "circuit_breaker"), ("event", "would_open")];
    assert_eq!(recorder.metric("throughline_primitive_events_total", &event), Some(1.0));
    assert_eq!(circuit.stats().would_open, 1);
    assert_eq!(calls(&recorder), expected(&[("failure", 10.0)]));
    assert_eq!(states(&recorder), expected(&[("metrics_only", 1.0)]));
}

// === metrics ===

#[tokio::test(start_paused = true)]
async fn every_series_is_there_at_zero_before_the_first_call() {
    let recorder = Recorder::new();
    echo().circuit_breaker(config()).bind(recorder.sink());
    let (flow, scrape) = (echo().circuit_breaker(config()), recorder.scrape());
    let series = |family: &str| scrape.select(family, &[("circuit", "model")]).count();
    assert_eq!(series("circuit_breaker_state"), 6);
    assert_eq!(series("circuit_breaker_time_in_state_seconds_total"), 6);
    assert_eq!(series("circuit_breaker_calls_total"), 7);
    assert_eq!(series("circuit_breaker_transitions_total"), 4, "those that nobody has to bring about");
    drop(flow);
}

#[tokio::test(start_paused = true)]
async fn a_scrape_tells_the_truth_while_no_call_comes() {
    let recorder = Recorder::new();
    let flow = failing().circuit_breaker(config());
    flow.bind(recorder.sink());
    assert_eq!(states(&recorder), expected(&[("closed", 1.0)]));
    advance(secs(7)).await;
    for _ in 0..2 {
        flow.run(Kind::Upstream, &recorder.context()).await.unwrap_err();
    }
    advance(secs(4)).await;
    assert_eq!(states(&recorder), expected(&[("open", 1.0)]));
    assert_eq!(time_in_state(&recorder), expected(&[("closed", 7.0), ("open", 4.0)]));
    assert_eq!(transitions(&recorder, "open", "half_open"), Some(0.0));

    advance(secs(16)).await;
    assert_eq!(states(&recorder), expected(&[("half_open", 1.0)]), "ten seconds after it opened");
    let time = [("closed", 7.0), ("open", 10.0), ("half_open", 10.0)];
    assert_eq!(time_in_state(&recorder), expected(&time));
    assert_eq!(transitions(&recorder, "open", "half_open"), Some(1.0));
    assert_eq!(time_in_state(&recorder), expected(&time), "a second look adds nothing");
}

#[tokio::test(start_paused = true)]
async fn transitions_by_hand_show_once_they_have_happened() {
    let recorder = Recorder::new();
    let flow = echo().circuit_breaker(config());
    flow.bind(recorder.sink());
    assert_eq!(transitions(&recorder, "closed", "forced_open"), None);
    flow.stage().circuit().force_open();
    assert_eq!(transitions(&recorder, "closed", "forced_open"), Some(1.0));
    flow.stage().circuit().reset();
    flow.stage().circuit().reset();
    assert_eq!(transitions(&recorder, "forced_open", "closed"), Some(1.0));
    assert_eq!(transitions(&recorder, "closed", "closed"), None, "a second reset is no transition");
}

#[tokio::test(start_paused = true)]
async fn each_telemetry_instance_has_its_own_calls_and_all_have_the_state() {
    let (first, second) = (Recorder::new(), Recorder::new());
    let flow = failing().circuit_breaker(config());
    flow.run(Kind::Upstream, &first.context()).await.unwrap_err();
    advance(secs(5)).await;
    flow.run(Kind::Upstream, &second.context()).await.unwrap_err();
    flow.run(Kind::Upstream, &first.context()).await.unwrap_err();
    advance(secs(2)).await;
    assert_eq!(calls(&first), expected(&[("failure", 1.0), ("rejected", 1.0)]));
    assert_eq!(calls(&second), expected(&[("failure", 1.0)]));
    for recorder in [&first, &second] {
        assert_eq!(states(recorder), expected(&[("open", 1.0)]));
        assert_eq!(transitions(recorder, "closed", "open"), Some(1.0));
        assert_eq!(time_in_state(recorder), expected(&[("closed", 5.0), ("open", 2.0)]));
    }
}

#[tokio::test(start_paused = true)]
async fn telemetry_that_comes_late_shows_what_the_circuit_has_been_through() {
    let off = Sink::without_telemetry(Clock::Tokio);
    let flow = failing().circuit_breaker(config());
    for _ in 0..2 {
        flow.run(Kind::Upstream, &Context::builder().sink(&off).build()).await.unwrap_err();
    }
    assert_eq!(flow.stage().stats().failures, 2, "it works without telemetry");
    advance(secs(3)).await;
    let recorder = Recorder::new();
    flow.run(Kind::Upstream, &recorder.context()).await.unwrap_err();
    assert_eq!(states(&recorder), expected(&[("open", 1.0)]));
    assert_eq!(transitions(&recorder, "closed", "open"), Some(1.0));
    assert_eq!(calls(&recorder), expected(&[("rejected", 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_is_gone_is_in_no_state_and_its_successor_is() {
    let recorder = Recorder::new();
    let old = failing().circuit_breaker(config());
    for _ in 0..2 {
        old.run(Kind::Upstream, &recorder.context()).await.unwrap_err();
    }
    assert_eq!(states(&recorder), expected(&[("open", 1.0)]));
    let new = failing().circuit_breaker(config());
    new.bind(recorder.sink());
    assert_eq!(states(&recorder), expected(&[("closed", 1.0)]), "while both are there");
    drop(old);
    assert_eq!(states(&recorder), expected(&[("closed", 1.0)]));
    drop(new);
    assert_eq!(states(&recorder), expected(&[]));
    assert_eq!(transitions(&recorder, "closed", "open"), Some(1.0), "what has happened has happened");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_span_that_names_the_state() {
    let (recorder, circuit) = (Recorder::new(), circuit());
    circuit.force_open();
    echo().circuit_breaker(&circuit).run(1, &recorder.context()).await.unwrap_err();
    let spans = recorder.spans();
    assert_eq!(spans.len(), 1, "what is inside has not begun");
    assert_eq!(spans[0].name, "circuit_breaker model");
    let attribute = |key: &str| {
        spans[0].attributes.iter().find(|kv| kv.key.as_str() == key).map(|kv| kv.value.as_str().into_owned())
    };
    assert_eq!(attribute("throughline.circuit_breaker.state").as_deref(), Some("forced_open"));
    assert_eq!(attribute("throughline.outcome").as_deref(), Some("rejected"));
    assert_eq!(attribute("error.type").as_deref(), Some("circuit_open"));
}

// === streams ===

/// What a stream does item by item: waits and gives one, or fails.
type Items = Vec<(Duration, Result<u64>)>;

fn streaming() -> Workflow<impl Primitive<In = Items, Out = ItemStream<u64>>> {
    workflow_stream("stream", |items: Items, _cx: Context| async move {
        let items = stream::iter(items).then(|(wait, item)| async move {
            sleep(wait).await;
            item
        });
        Ok(ItemStream::new(items))
    })
}

fn items(count: u64, pause: Duration) -> Items {
    (0..count).map(|n| (pause, Ok(n))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_counts_as_a_success_when_it_is_complete() {
    let recorder = Recorder::new();
    let flow = streaming().circuit_breaker(config());
    let answer = flow.run(items(3, secs(1)), &recorder.context()).await.unwrap();
    assert_eq!(flow.stage().stats().counted(), 0, "nobody knows yet");
    assert_eq!(calls(&recorder), expected(&[]));
    assert_eq!(answer.count().await, 3);
    assert_eq!(calls(&recorder), expected(&[("success", 1.0)]), "a long stream is not a slow one");
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_first_item_is_late_is_slow() {
    let flow = streaming().circuit_breaker(config());
    let answer = flow.run(items(2, secs(3)), &Context::new()).await.unwrap();
    assert_eq!(answer.count().await, 2);
    assert_eq!(flow.stage().stats().slow_successes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_is_a_failure_and_one_that_its_reader_drops_is_ignored() {
    let recorder = Recorder::new();
    let flow = streaming().circuit_breaker(config());
    let fails = vec![(secs(1), Ok(1)), (secs(5), Err(upstream()))];
    let answer = flow.run(fails, &recorder.context()).await.unwrap();
    assert!(answer.map(|item| item.is_err()).collect::<Vec<_>>().await.contains(&true));
    let mut answer = flow.run(items(9, secs(1)), &recorder.context()).await.unwrap();
    assert!(answer.next().await.is_some());
    sleep(secs(60)).await;
    drop(answer);
    assert_eq!(calls(&recorder), expected(&[("failure", 1.0), ("ignored", 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_before_its_first_item_is_a_failed_call() {
    let recorder = Recorder::new();
    let flow = streaming().circuit_breaker(config());
    for _ in 0..2 {
        let error = flow.run(vec![(secs(1), Err(upstream()))], &recorder.context()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream, "so that a retry can go elsewhere");
    }
    assert_eq!(flow.stage().circuit().state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_first_item_does_not_come_is_a_slow_failure_when_it_is_dropped() {
    let flow = streaming().circuit_breaker(config());
    timeout(secs(5), flow.run(items(1, secs(60)), &Context::new())).await.unwrap_err();
    assert_eq!(flow.stage().stats().slow_failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_stream_does_not_hold_up_the_decision_of_a_half_open_circuit() {
    let (recorder, circuit) = (Recorder::new(), half_open());
    let flow = streaming().circuit_breaker(&circuit);
    let mut answer = flow.run(items(1_000, secs(1)), &recorder.context()).await.unwrap();
    assert_eq!(circuit.state(), CircuitState::Closed, "the first item has come");
    for _ in 0..500 {
        answer.next().await.unwrap().unwrap();
    }
    drop(answer);
    let stats = circuit.stats();
    assert_eq!((stats.successes, stats.ignored, stats.late), (1, 0, 0), "it has counted once");
    assert_eq!(calls(&recorder), expected(&[("success", 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn a_trial_whose_first_item_is_late_reopens() {
    let circuit = half_open();
    let flow = streaming().circuit_breaker(&circuit);
    let answer = flow.run(items(2, secs(3)), &Context::new()).await.unwrap();
    assert_eq!(circuit.state(), CircuitState::Open);
    assert_eq!(answer.count().await, 2, "whoever reads it loses nothing");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_in_another_state_than_it_began_in_is_late() {
    let (recorder, circuit) = (Recorder::new(), circuit());
    let flow = streaming().circuit_breaker(&circuit);
    let answer = flow.run(items(3, secs(1)), &recorder.context()).await.unwrap();
    circuit.reset();
    assert_eq!(answer.count().await, 3);
    assert_eq!(calls(&recorder), expected(&[("late", 1.0)]));
}

#[tokio::test(start_paused = true)]
async fn a_stream_can_be_what_would_have_opened_the_circuit() {
    let (recorder, circuit) = (Recorder::new(), circuit());
    circuit.metrics_only();
    let flow = streaming().circuit_breaker(&circuit);
    for _ in 0..2 {
        let fails = vec![(secs(1), Ok(1)), (secs(1), Err(upstream()))];
        flow.run(fails, &recorder.context()).await.unwrap().count().await;
    }
    let event = [("primitive", "circuit_breaker"), ("event", "would_open")];
    assert_eq!(recorder.metric("throughline_primitive_events_total", &event), Some(1.0));
}

#[test]
fn states_are_named_as_on_the_metrics_page() {
    let names: Vec<_> = CircuitState::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(names, ["closed", "open", "half_open", "forced_open", "disabled", "metrics_only"]);
}
