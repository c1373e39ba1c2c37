//! Which alternative answers, when none is tried, and what the caller gets when all of them fail.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use proptest::prelude::*;
use throughline::fallback::{AnsweredBy, FallbackStats};
use throughline::telemetry::Sink;
use throughline::testing::Recorder;
use throughline::{
    Budget, BudgetConfig, Clock, Context, Error, FallbackConfig, ItemStream, Kind, Primitive, Result,
    RetryConfig, TimeoutConfig, Workflow, workflow, workflow_stream, workflow_with,
};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> FallbackConfig<u64, String> {
    FallbackConfig::new("ask")
}

fn upstream(text: &'static str) -> Error {
    Error::new(Kind::Upstream, text)
}

fn failing(error: Error) -> Workflow<impl Primitive<In = u64, Out = String>> {
    workflow("failing", move |_: u64| {
        let error = error.clone();
        async move { Err::<String, _>(error) }
    })
}

fn answering(name: &'static str) -> Workflow<impl Primitive<In = u64, Out = String>> {
    workflow(name, move |n: u64| async move { Ok(format!("{name} {n}")) })
}

/// Answers, and counts how often it was asked.
fn counted() -> (Workflow<impl Primitive<In = u64, Out = String>>, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&count);
    let flow = workflow("counted", move |_: u64| {
        seen.fetch_add(1, Ordering::Relaxed);
        async { Ok("counted".to_owned()) }
    });
    (flow, count)
}

/// `[primary, fallback, errors, cancelled]`
fn counts(stats: &FallbackStats) -> [u64; 4] {
    [stats.primary, stats.fallback, stats.errors, stats.cancelled]
}

fn outcome(recorder: &Recorder, outcome: &str) -> Option<f64> {
    let labels = [("primitive", "fallback"), ("operation", "ask"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    recorder.metric("throughline_primitive_events_total", &[("primitive", "fallback"), ("event", event)])
}

fn answered_by(cx: &Context) -> Option<String> {
    cx.state().get::<AnsweredBy>().map(|by| format!("{}/{}", by.operation, by.name))
}

// === what it is made of ===

#[test]
fn refuses_no_alternatives_and_names_that_say_nothing() {
    let refusal = |config| answering("a").fallback(config).unwrap_err().to_string();
    assert_eq!(refusal(config()), "fallback `ask` has no alternatives: add at least one");
    let twice = config().then("b", answering("b")).then_value("b", String::new());
    assert_eq!(refusal(twice), "alternative `b` of fallback `ask` is given twice");
    assert_eq!(
        refusal(config().then("primary", answering("b"))),
        "an alternative of fallback `ask` is called `primary`: that is the workflow itself"
    );
}

#[tokio::test]
async fn shows_its_order_and_its_counts() {
    let config = config().then("small", answering("small")).then_value("sorry", "sorry".to_owned());
    assert_eq!(format!("{config:?}"), "FallbackConfig(ask, small > sorry)");
    let flow = failing(upstream("503")).fallback(config).unwrap();
    flow.run(1, &Context::new()).await.unwrap();
    assert_eq!(
        format!("{:?}", flow.stage()),
        "Fallback(ask, primary > small > sorry, 0 primary, 1 fallback)"
    );
    let tree = flow.describe().to_tree();
    assert_eq!(
        tree,
        "  fallback ask\n    primary: step failing\n    small: step small\n    sorry: value sorry\n"
    );
}

// === who answers ===

/// Polly: the fallback action runs only for an outcome that is handled.
#[tokio::test]
async fn an_answer_of_the_workflow_itself_asks_nobody_else() {
    let recorder = Recorder::new();
    let (other, asked) = counted();
    let flow = answering("first").fallback(config().then("other", other)).unwrap();
    let cx = recorder.context();
    assert_eq!(flow.run(7, &cx).await.unwrap(), "first 7");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(answered_by(&cx).as_deref(), Some("ask/primary"));
    assert_eq!(counts(&flow.stage().stats()), [1, 0, 0, 0]);
    assert_eq!((outcome(&recorder, "primary"), events(&recorder, "fell_back")), (Some(1.0), Some(0.0)));
}

/// LangChain: `with_fallbacks` tries them in order, each on the original input.
#[tokio::test]
async fn alternatives_are_tried_in_their_order_on_the_same_input() {
    let recorder = Recorder::new();
    let (last, asked) = counted();
    let flow = failing(upstream("503"))
        .fallback(
            config()
                .then("second", failing(upstream("502")))
                .then("third", answering("third"))
                .then("last", last),
        )
        .unwrap();
    let cx = recorder.context();
    assert_eq!(flow.run(7, &cx).await.unwrap(), "third 7");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(answered_by(&cx).as_deref(), Some("ask/third"));
    assert_eq!((outcome(&recorder, "fallback"), events(&recorder, "fell_back")), (Some(1.0), Some(2.0)));
    let stats = flow.stage().stats();
    assert_eq!(counts(&stats), [0, 1, 0, 0]);
    let by_name = [("second", 0), ("third", 1), ("last", 0)].map(|(name, n)| (name.to_owned(), n));
    assert_eq!(stats.alternatives, by_name);

    let spans = recorder.spans();
    let span = spans.iter().find(|span| span.name == "fallback ask").unwrap();
    let by = span.attributes.iter().find(|it| it.key.as_str() == "throughline.fallback.answered_by").unwrap();
    assert_eq!(by.value.to_string(), "third");
    assert!(
        spans
            .iter()
            .filter(|it| it.name != "fallback ask")
            .all(|it| { it.parent_span_id == span.span_context.span_id() })
    );
}

#[tokio::test]
async fn a_constant_and_a_function_of_the_error_answer_too() {
    let cx = Recorder::new().context();
    let constant = failing(upstream("503")).fallback(config().then_value("sorry", "sorry".to_owned()));
    assert_eq!(constant.unwrap().run(1, &cx).await.unwrap(), "sorry");

    // LangChain's `exception_key`, Polly's `FallbackAction`: the error is handed on.
    let function = failing(upstream("503")).fallback(
        config()
            .then("second", failing(upstream("502")))
            .then_with("tell", |error: &Error| Ok(format!("{error}, then {}", error.also()[0]))),
    );
    assert_eq!(function.unwrap().run(1, &cx).await.unwrap(), "503, then 502");
    assert_eq!(answered_by(&cx).as_deref(), Some("ask/tell"));
}

/// A breaker that is open is no reason to try again, but it is one to fall back.
#[tokio::test]
async fn errors_that_are_not_retryable_still_fall_back() {
    for error in
        [Error::new(Kind::CircuitOpen, "open"), upstream("gone").fatal(), Error::new(Kind::Internal, "bug")]
    {
        let flow = failing(error).fallback(config().then("small", answering("small"))).unwrap();
        assert_eq!(flow.run(1, &Recorder::new().context()).await.unwrap(), "small 1");
    }
}

// === who is not asked ===

#[tokio::test]
async fn bad_input_and_a_caller_that_gave_up_have_no_alternative() {
    for kind in [Kind::InvalidInput, Kind::Cancelled] {
        let recorder = Recorder::new();
        let (other, asked) = counted();
        let flow = failing(Error::new(kind, "no")).fallback(config().then("other", other)).unwrap();
        assert_eq!(flow.run(1, &recorder.context()).await.unwrap_err().kind(), kind);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        assert_eq!((events(&recorder, "not_handled"), outcome(&recorder, "error")), (Some(1.0), Some(1.0)));
    }
}

/// Polly's `ShouldHandle` and LangChain's `exceptions_to_handle`.
#[tokio::test]
async fn the_predicate_decides_after_every_failure() {
    let only_upstream = || config().when(|error| error.kind() == Kind::Upstream);
    let cx = Recorder::new().context();
    let (other, asked) = counted();
    let flow = failing(Error::new(Kind::Timeout, "late")).fallback(only_upstream().then("other", other));
    assert_eq!(flow.unwrap().run(1, &cx).await.unwrap_err().kind(), Kind::Timeout);

    let (other, asked_then) = counted();
    let second = failing(Error::new(Kind::Timeout, "late"));
    let flow = failing(upstream("503")).fallback(only_upstream().then("second", second).then("other", other));
    let error = flow.unwrap().run(1, &cx).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: 503; then timeout: late");
    assert_eq!([asked, asked_then].map(|asked| asked.load(Ordering::Relaxed)), [0, 0]);
}

#[tokio::test]
async fn when_all_fail_the_first_error_comes_first_and_the_others_after_it() {
    let recorder = Recorder::new();
    let flow = failing(upstream("first").with_retry_after(SECOND))
        .fallback(
            config()
                .then("second", failing(Error::new(Kind::Timeout, "second")))
                .then_with("third", |_| Err(Error::new(Kind::Internal, "third"))),
        )
        .unwrap();
    let error = flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: first; then timeout: second; then internal: third");
    assert_eq!((error.kind(), error.retry_after()), (Kind::Upstream, Some(SECOND)));
    assert_eq!((events(&recorder, "exhausted"), outcome(&recorder, "error")), (Some(1.0), Some(1.0)));
}

#[tokio::test]
async fn a_function_that_hands_the_error_back_adds_nothing_to_it() {
    let same = config().then_with("same", |error: &Error| Err(error.clone()));
    let flow = failing(upstream("503")).fallback(same).unwrap();
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: 503");
}

#[tokio::test]
async fn a_panic_has_no_alternative() {
    let recorder = Recorder::new();
    let (other, asked) = counted();
    let panics =
        workflow("panics", |n: u64| async move { if n == 0 { panic!("bug") } else { Ok(n.to_string()) } });
    let flow = panics.fallback(config().then("other", other)).unwrap();
    let cx = recorder.context();
    assert!(std::panic::AssertUnwindSafe(flow.run(0, &cx)).catch_unwind().await.is_err());
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(counts(&flow.stage().stats()), [0, 0, 1, 0]);
}

// === time and cancellation ===

/// Takes as long as the deadline, and fails.
fn until_the_deadline() -> Workflow<impl Primitive<In = u64, Out = String>> {
    workflow_with("slow", |_: u64, cx: Context| async move {
        sleep(cx.time_left().unwrap()).await;
        Err::<String, _>(upstream("503"))
    })
}

#[tokio::test(start_paused = true)]
async fn no_workflow_is_begun_after_the_deadline() {
    let recorder = Recorder::new();
    let (other, asked) = counted();
    let flow = until_the_deadline().fallback(config().then("other", other)).unwrap();
    let error = flow.run(1, &recorder.context().with_time_limit(SECOND)).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: 503");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(events(&recorder, "no_time_left"), Some(1.0));
    assert_eq!(events(&recorder, "fell_back"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_constant_takes_no_time_and_answers_even_then() {
    let (other, asked) = counted();
    let config = config().then("other", other).then_value("sorry", "sorry".to_owned());
    let flow = until_the_deadline().fallback(config).unwrap();
    let cx = Recorder::new().context().with_time_limit(SECOND);
    assert_eq!(flow.run(1, &cx).await.unwrap(), "sorry");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn every_alternative_has_the_deadline_of_the_whole() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = |error| {
        let deadlines = Arc::clone(&seen);
        workflow_with("look", move |_: u64, cx: Context| {
            deadlines.lock().unwrap().push(cx.deadline());
            let error = Error::clone(&error);
            async move { Err::<String, _>(error) }
        })
    };
    let flow = look(upstream("a")).fallback(config().then("b", look(upstream("b")))).unwrap();
    let cx = Recorder::new().context().with_time_limit(SECOND);
    flow.run(1, &cx).await.unwrap_err();
    assert_eq!(*seen.lock().unwrap(), [cx.deadline(); 2]);
}

#[tokio::test(start_paused = true)]
async fn work_that_is_asked_to_stop_tries_no_further_alternative() {
    let recorder = Recorder::new();
    let (other, asked) = counted();
    let polite = workflow_with("polite", |_: u64, cx: Context| async move {
        cx.cancelled().await;
        Err::<String, _>(upstream("half done"))
    });
    let alternatives = config().then("other", other).then_value("sorry", "sorry".to_owned());
    let limit = TimeoutConfig::new("all", SECOND).unwrap().grace(SECOND).unwrap();
    let flow = polite.fallback(alternatives).unwrap().timeout(limit);
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap_err().to_string(), "half done");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!((outcome(&recorder, "cancelled"), events(&recorder, "fell_back")), (Some(1.0), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_during_an_alternative_is_counted_as_cancelled() {
    let recorder = Recorder::new();
    let hang = workflow("hang", |_: u64| pending::<Result<String>>());
    let flow = failing(upstream("503")).fallback(config().then("hang", hang)).unwrap();
    let cx = recorder.context();
    tokio::time::timeout(SECOND, flow.run(1, &cx)).await.unwrap_err();
    assert_eq!(counts(&flow.stage().stats()), [0, 0, 0, 1]);
    assert_eq!(outcome(&recorder, "cancelled"), Some(1.0));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
    assert_eq!(answered_by(&cx), None);
}

// === with others ===

/// failsafe-go: `With(fallback, retry, ..)` falls back only when the retries are used up.
#[tokio::test(start_paused = true)]
async fn around_a_retry_it_acts_once_and_inside_of_one_at_every_attempt() {
    let (other, asked) = counted();
    let outside = failing(upstream("503")).retry(RetryConfig::new("ask"));
    let outside = outside.fallback(config().then("other", other)).unwrap();
    assert_eq!(outside.run(1, &Recorder::new().context()).await.unwrap(), "counted");
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    let inside = failing(upstream("503")).fallback(config().then("second", failing(upstream("502"))));
    let inside = inside.unwrap().retry(RetryConfig::new("ask"));
    let recorder = Recorder::new();
    inside.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!(events(&recorder, "fell_back"), Some(3.0));
}

#[tokio::test]
async fn the_answer_of_the_outermost_fallback_is_the_one_in_the_state() {
    let inner = failing(upstream("a")).fallback(config().then("b", answering("b"))).unwrap();
    let outer = FallbackConfig::new("outer").then("c", answering("c"));
    let flow = inner.fallback(outer).unwrap();
    let cx = Recorder::new().context();
    assert_eq!(flow.run(1, &cx).await.unwrap(), "b 1");
    assert_eq!(answered_by(&cx).as_deref(), Some("outer/primary"));
}

fn budget(floor: f64) -> Budget {
    Budget::new(BudgetConfig::default().ratio(0.0).unwrap().floor_per_second(floor).unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_gives_the_error_of_the_workflow_itself() {
    let recorder = Recorder::new();
    let (other, asked) = counted();
    let budget = budget(0.1);
    let flow = failing(upstream("503")).fallback(config().then("other", other).budget(&budget)).unwrap();
    let cx = recorder.context();
    assert_eq!(flow.run(1, &cx).await.unwrap(), "counted");
    assert_eq!(format!("{:?}", flow.run(1, &cx).await.unwrap_err()), "upstream: 503");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(events(&recorder, "budget_exhausted"), Some(1.0));
    assert_eq!(budget.stats().deposits, 0, "what an alternative answers is no success of the target");
}

#[tokio::test(start_paused = true)]
async fn a_constant_costs_no_token_and_answers_when_there_is_none() {
    let budget = budget(0.0);
    let (other, asked) = counted();
    let config = config().then("other", other).then_value("sorry", "sorry".to_owned()).budget(&budget);
    let flow = failing(upstream("503")).fallback(config).unwrap();
    assert_eq!(flow.run(1, &Context::new()).await.unwrap(), "sorry");
    assert_eq!((asked.load(Ordering::Relaxed), budget.stats().withdrawals), (0, 0));
    let fine = answering("fine")
        .fallback(FallbackConfig::new("ask").then_value("sorry", String::new()).budget(&budget));
    fine.unwrap().run(1, &Context::new()).await.unwrap();
    assert_eq!(budget.stats().deposits, 1);
}

#[tokio::test]
async fn the_input_is_copied_only_for_workflows_that_may_need_it() {
    #[derive(Debug)]
    struct Counted(Arc<AtomicU32>);
    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }
    let fails = || workflow("fails", |_: Counted| async { Err::<u8, _>(upstream("503")) });
    let new = || FallbackConfig::<Counted, u8>::new("ask");
    for (config, copies) in [
        (new().then_value("none", 0), 0),
        (new().then("one", fails()).then_value("none", 0), 1),
        (new().then("one", fails()).then("two", fails()), 2),
    ] {
        let count = Arc::new(AtomicU32::new(0));
        let flow = fails().fallback(config).unwrap();
        drop(flow.run(Counted(Arc::clone(&count)), &Context::new()).await);
        assert_eq!(count.load(Ordering::Relaxed), copies);
    }
}

// === streams ===

fn streaming(items: Vec<Result<u32>>) -> Workflow<impl Primitive<In = (), Out = ItemStream<u32>>> {
    let items = Mutex::new(Some(items));
    workflow_stream("stream", move |(): (), _: Context| {
        let items = items.lock().unwrap().take().unwrap();
        async move { Ok(ItemStream::new(stream::iter(items))) }
    })
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_item_has_alternatives() {
    let recorder = Recorder::new();
    let second = streaming(vec![Err(upstream("502"))]);
    let third = streaming(vec![Ok(7), Ok(8)]);
    let config = FallbackConfig::new("ask").then("second", second).then("third", third);
    let flow = streaming(vec![Err(upstream("503"))]).fallback(config).unwrap();
    let cx = recorder.context();
    let items = flow.run((), &cx).await.unwrap();
    assert_eq!(answered_by(&cx).as_deref(), Some("ask/third"));
    assert_eq!(outcome(&recorder, "fallback"), None, "the run goes on with its stream");
    assert_eq!(items.map(Result::unwrap).collect::<Vec<_>>().await, [7, 8]);
    assert_eq!(outcome(&recorder, "fallback"), Some(1.0));
    assert_eq!(flow.stage().stats().alternatives[1], ("third".to_owned(), 1));
}

#[tokio::test]
async fn a_stream_that_fails_after_its_first_item_has_no_alternative() {
    let recorder = Recorder::new();
    let config = FallbackConfig::new("ask").then("other", streaming(vec![Ok(9)]));
    let flow = streaming(vec![Ok(7), Err(upstream("503"))]).fallback(config).unwrap();
    let items: Vec<_> = flow.run((), &recorder.context()).await.unwrap().collect().await;
    assert_eq!(items[1].as_ref().unwrap_err().to_string(), "503");
    assert_eq!(counts(&flow.stage().stats()), [0, 0, 1, 0]);
}

#[tokio::test]
async fn a_stream_of_an_alternative_that_is_dropped_is_no_answer() {
    let config = FallbackConfig::new("ask").then("other", streaming(vec![Ok(9), Ok(10)]));
    let flow = streaming(vec![Err(upstream("503"))]).fallback(config).unwrap();
    drop(flow.run((), &Recorder::new().context()).await.unwrap());
    let stats = flow.stage().stats();
    assert_eq!((counts(&stats), stats.alternatives[0].1), ([0, 0, 0, 1], 0));
}

// === without telemetry ===

#[tokio::test]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let cx = Context::builder().sink(&Sink::without_telemetry(Clock::Tokio)).build();
    let flow = failing(upstream("503")).fallback(config().then("small", answering("small"))).unwrap();
    assert_eq!(flow.run(3, &cx).await.unwrap(), "small 3");
    assert_eq!(counts(&flow.stage().stats()), [0, 1, 0, 0]);
}

proptest! {
    /// A chain of three against the rule in its plainest form.
    #[test]
    fn the_first_that_can_answers(kinds in prop::collection::vec(prop::option::of(0..4_usize), 3)) {
        const KINDS: [Kind; 4] = [Kind::Upstream, Kind::CircuitOpen, Kind::InvalidInput, Kind::Cancelled];
        let link = |at: usize| {
            let failure = kinds[at].map(|kind| Error::new(KINDS[kind], format!("error of {at}")));
            workflow("link", move |_: u64| {
                let result = failure.clone().map_or(Ok(at.to_string()), Err);
                async move { result }
            })
        };
        let flow = link(0).fallback(config().then("1", link(1)).then("2", link(2))).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let got = runtime.block_on(flow.run(0, &Context::new()));

        let (mut failures, mut answer) = (vec![], None);
        for (at, kind) in kinds.iter().enumerate() {
            let Some(kind) = kind else {
                answer = Some(at.to_string());
                break;
            };
            failures.push(format!("error of {at}"));
            if *kind >= 2 {
                break;
            }
        }
        match got {
            Ok(got) => prop_assert_eq!(Some(got), answer),
            Err(error) => {
                prop_assert_eq!(answer, None);
                let texts = std::iter::once(error.to_string()).chain(error.also().iter().map(Error::to_string));
                prop_assert_eq!(texts.collect::<Vec<_>>(), failures);
            }
        }
    }
}
