//! What comes of several branches: all, every result, the first, the first few; bounds; and who is dropped.

#![allow(clippy::cast_possible_truncation, reason = "what a test counts is little")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use opentelemetry::trace::Status;
use throughline::parallel::ParallelStats;
use throughline::testing::{Recorder, Script, Turn};
use throughline::{
    Context, Error, ItemStream, Kind, ParallelConfig, Primitive, Result, TimeoutConfig, Workflow, parallel,
    workflow, workflow_stream, workflow_with,
};
use tokio::time::{Instant, sleep, timeout};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn answers<T: Clone + Send + 'static>(value: T, after: u64) -> Script<T> {
    Script::new("answers").then(Turn::value(value).after(millis(after)))
}

fn fails<T: Clone + Send + 'static>(after: u64) -> Script<T> {
    let error = Error::new(Kind::Upstream, format!("503 after {after}"));
    Script::new("fails").then(Turn::fail(error).after(millis(after)))
}

fn config() -> ParallelConfig {
    ParallelConfig::new("batch")
}

fn count(recorder: &Recorder, primitive: &str, outcome: &str) -> Option<f64> {
    let labels = [("primitive", primitive), ("operation", "batch"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

/// `[branch_failed, branch_dropped, branch_not_started]`
fn events(recorder: &Recorder) -> [u64; 3] {
    ["branch_failed", "branch_dropped", "branch_not_started"].map(|event| {
        let labels = [("operation", "batch"), ("event", event)];
        recorder.metric("throughline_primitive_events_total", &labels).unwrap_or_default() as u64
    })
}

fn in_flight(recorder: &Recorder) -> f64 {
    recorder.metric("throughline_primitive_in_flight", &[]).unwrap()
}

/// `[successes, errors, cancelled, failed, dropped, not started]`
fn seen(stats: ParallelStats) -> [u64; 6] {
    let ParallelStats { successes, errors, cancelled, .. } = stats;
    let ParallelStats { branches_failed, branches_dropped, branches_not_started, .. } = stats;
    [successes, errors, cancelled, branches_failed, branches_dropped, branches_not_started]
}

fn also(error: &Error) -> Vec<String> {
    error.also().iter().map(ToString::to_string).collect()
}

// === branches ===

#[tokio::test(start_paused = true)]
async fn settling_waits_for_every_branch_and_gives_every_result() {
    let recorder = Recorder::new();
    let (a, b, c) = (answers(1_u8, 30), fails::<String>(10), answers('c', 20));
    let flow = (a.workflow::<()>() | b.workflow() | c.workflow()).settle("batch");
    let start = Instant::now();
    let (a, b, c) = flow.run((), &recorder.context()).await.unwrap();
    assert_eq!(start.elapsed(), millis(30));
    assert_eq!((a.unwrap(), b.unwrap_err().to_string(), c.unwrap()), (1, "503 after 10".to_owned(), 'c'));
    assert_eq!((count(&recorder, "settle", "success"), events(&recorder)), (Some(1.0), [1, 0, 0]));
    assert_eq!(seen(flow.stage().stats()), [1, 0, 0, 1, 0, 0]);
    assert_eq!(flow.describe().primitive(), "settle");
    assert_eq!(flow.describe().children().len(), 3);
    assert_eq!(format!("{:?}", flow.stage()), "Settle(batch, 0 of 1 failed)");
}

#[tokio::test(start_paused = true)]
async fn the_plain_operator_stays_as_it_is() {
    let (a, b) = (answers(1, 1_000), fails::<u64>(10));
    let (flow, start) = (a.workflow::<()>() | b.workflow(), Instant::now());
    assert_eq!(flow.run((), &Context::new()).await.unwrap_err().to_string(), "503 after 10");
    assert_eq!((start.elapsed(), a.dropped()), (millis(10), 1));
    assert_eq!((flow.describe().primitive(), flow.describe().operation()), ("parallel", ""));
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_wins_a_race_and_the_losers_are_gone() {
    let recorder = Recorder::new();
    let (a, b, c) = (answers(1, 1_000), fails(10), answers(3, 50));
    let flow = (a.workflow::<()>() | b.workflow() | c.workflow()).race("batch");
    let start = Instant::now();
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), 3);
    assert_eq!((start.elapsed(), a.running(), a.dropped()), (millis(50), 0, 1));
    assert_eq!((count(&recorder, "race", "success"), events(&recorder)), (Some(1.0), [1, 1, 0]));
    assert_eq!(in_flight(&recorder), 0.0);
    assert_eq!(seen(flow.stage().stats()), [1, 0, 0, 1, 1, 0]);

    let spans = recorder.spans();
    let race = spans.iter().find(|span| span.name == "race batch").unwrap();
    let won_by = race.attributes.iter().find(|at| at.key.as_str() == "throughline.race.won_by").unwrap();
    assert_eq!(won_by.value, 2.into());
    let branches: Vec<_> = spans.iter().filter(|span| span.name.starts_with("step ")).collect();
    assert!(branches.iter().all(|span| span.parent_span_id == race.span_context.span_id()));
    let ends: Vec<_> = branches.iter().map(|span| span.status.clone()).collect();
    assert_eq!(ends, [Status::error("upstream"), Status::Ok, Status::error("cancelled")]);
}

#[tokio::test(start_paused = true)]
async fn a_race_that_nobody_wins_gives_the_first_error_and_the_others() {
    let recorder = Recorder::new();
    let (a, b, c) = (fails::<u64>(30), fails(10), fails(20));
    let flow = (a.workflow::<()>() | b.workflow() | c.workflow()).race("batch");
    let error = flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), also(&error)),
        ("503 after 10", vec!["503 after 20".into(), "503 after 30".into()])
    );
    assert_eq!((count(&recorder, "race", "error"), events(&recorder)), (Some(1.0), [3, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_the_first_answers_in_the_order_in_which_they_come() {
    let recorder = Recorder::new();
    let (a, b, c, d) = (answers(1, 40), answers(2, 10), fails(20), answers(4, 1_000));
    let flow = (a.workflow::<()>() | b.workflow() | c.workflow() | d.workflow()).quorum("batch", 2).unwrap();
    let start = Instant::now();
    assert_eq!(flow.run((), &recorder.context()).await.unwrap(), [2, 1]);
    assert_eq!((start.elapsed(), d.dropped()), (millis(40), 1));
    assert_eq!((count(&recorder, "quorum", "success"), events(&recorder)), (Some(1.0), [1, 1, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_quorum_fails_as_soon_as_it_cannot_be_reached_any_more() {
    let (a, b, c) = (fails(10), answers(2, 1_000), fails(20));
    let flow = (a.workflow::<()>() | b.workflow() | c.workflow()).quorum("batch", 2).unwrap();
    let start = Instant::now();
    let error = flow.run((), &Context::new()).await.unwrap_err();
    assert_eq!((start.elapsed(), b.dropped()), (millis(20), 1));
    assert_eq!((error.to_string().as_str(), also(&error)), ("503 after 10", vec!["503 after 20".to_owned()]));
}

#[test]
fn refuses_a_quorum_that_is_none_and_branches_that_are_none() {
    let two = || answers(1, 0).workflow::<()>() | answers(2, 0).workflow();
    let text = |n| two().quorum("batch", n).map(|_| ()).unwrap_err().to_string();
    assert_eq!(text(0), "parallel quorum is 0: it must be at least 1");
    assert_eq!(text(3), "quorum `batch` has 2 branches: it must have at least 3");
    assert!(two().quorum("batch", 2).is_ok());
    let none = parallel(config(), Vec::<Workflow<throughline::Boxed<(), ()>>>::new());
    assert_eq!(
        none.map(|_| ()).unwrap_err().to_string(),
        "parallel `batch` has 0 branches: it must have at least 1"
    );
    assert_eq!(
        config().max_concurrent(0).unwrap_err().to_string(),
        "parallel max_concurrent is 0: it must be at least 1"
    );
}

#[tokio::test(start_paused = true)]
async fn of_the_state_only_what_the_winner_of_a_race_wrote_is_taken_over() {
    let writes = |number: u64| {
        workflow_with("writes", move |(): (), cx: Context| async move {
            cx.state().update::<u64>(|sum| *sum += number);
            sleep(millis(number)).await;
            Ok(number)
        })
    };
    let cx = Context::new();
    cx.state().insert(100_u64);
    (writes(20) | writes(10)).race("batch").run((), &cx).await.unwrap();
    assert_eq!(cx.state().get::<u64>().as_deref(), Some(&110));
    (writes(2) | writes(1)).quorum("batch", 2).unwrap().run((), &cx).await.unwrap();
    _ = (writes(2) | writes(1)).settle("batch").run((), &cx).await.unwrap();
    parallel(config(), vec![writes(2), writes(1)]).unwrap().run((), &cx).await.unwrap();
    assert_eq!(cx.state().get::<u64>().as_deref(), Some(&110));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_branch_is_one_of_the_run() {
    let (a, b) = (answers(1, 1_000), Script::new("panics").then(Turn::panic().after(millis(10))));
    for flow in [
        (a.workflow::<()>() | b.workflow()).race("batch").boxed(),
        ((a.workflow::<()>() | b.workflow()).settle("batch") >> workflow("drop", |_| async { Ok(0) }))
            .boxed(),
    ] {
        let run = tokio::spawn(async move { flow.run((), &Context::new()).await });
        assert!(run.await.unwrap_err().is_panic());
        assert_eq!(a.running(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_run_drops_all_branches() {
    let recorder = Recorder::new();
    let hangs = Script::<u64>::new("hangs");
    let three = || hangs.workflow::<()>() | hangs.workflow() | hangs.workflow();
    assert!(timeout(millis(10), three().race("batch").run((), &recorder.context())).await.is_err());
    assert!(timeout(millis(10), three().settle("batch").run((), &recorder.context())).await.is_err());
    let each = hangs.workflow::<()>().each(config());
    assert!(timeout(millis(10), each.run(vec![(); 3], &recorder.context())).await.is_err());
    assert_eq!((hangs.calls(), hangs.running(), hangs.dropped()), (9, 0, 9));
    for primitive in ["race", "settle", "each"] {
        assert_eq!(count(&recorder, primitive, "cancelled"), Some(1.0), "{primitive}");
    }
    assert_eq!((in_flight(&recorder), events(&recorder)), (0.0, [0; 3]));
    assert_eq!(seen(each.stage().stats()), [0, 0, 1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn of_streams_the_first_item_wins_a_race_and_the_run_lasts_to_the_end() {
    let tokens = |number: u64, first: u64| {
        workflow_stream("tokens", move |(): (), _: Context| async move {
            let items = stream::iter([first, 500]).then(move |pause| async move {
                sleep(millis(pause)).await;
                Ok(number)
            });
            Ok(ItemStream::new(items))
        })
    };
    let recorder = Recorder::new();
    let flow = (tokens(1, 300) | tokens(2, 100)).race("batch");
    let start = Instant::now();
    let answer = flow.run((), &recorder.context()).await.unwrap();
    assert_eq!((start.elapsed(), in_flight(&recorder)), (millis(100), 2.0));
    let items: Vec<_> = answer.map(Result::unwrap).collect().await;
    assert_eq!(items, [2, 2]);
    assert_eq!((count(&recorder, "race", "success"), in_flight(&recorder)), (Some(1.0), 0.0));
}

// === collections and lists ===

/// Takes as many milliseconds as it is told, gives them back, and knows how many of it ran at once.
fn sleeper() -> (Workflow<impl Primitive<In = u64, Out = u64>>, Arc<AtomicUsize>) {
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let work = workflow("sleeper", move |time: u64| {
        let held = Running(Arc::clone(&running));
        seen.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        async move {
            let _held = held;
            sleep(millis(time)).await;
            match time % 100 {
                13 => Err(Error::new(Kind::Upstream, format!("{time} is unlucky"))),
                _ => Ok(time),
            }
        }
    });
    (work, most)
}

#[tokio::test(start_paused = true)]
async fn runs_a_hundred_inputs_eight_at_a_time_and_keeps_their_order() {
    let recorder = Recorder::new();
    let (work, most) = sleeper();
    let flow = work.each(config().max_concurrent(8).unwrap());
    let inputs: Vec<u64> = (0..100).map(|n| if n % 2 == 0 { 100 } else { 50 }).collect();
    let start = Instant::now();
    assert_eq!(flow.run(inputs.clone(), &recorder.context()).await.unwrap(), inputs);
    assert_eq!(most.load(Ordering::Relaxed), 8);
    let ideal = millis(100 * 75 / 8);
    assert!(start.elapsed() >= ideal && start.elapsed() < ideal + millis(100), "{:?}", start.elapsed());
    assert_eq!((count(&recorder, "each", "success"), in_flight(&recorder)), (Some(1.0), 0.0));
    assert_eq!(flow.run(vec![], &recorder.context()).await.unwrap(), [0; 0]);
    assert_eq!(format!("{:?}", flow.stage()), "Each(batch, parallel, 0 of 2 failed)");
}

#[tokio::test(start_paused = true)]
async fn without_a_bound_all_run_at_once() {
    let (work, most) = sleeper();
    let start = Instant::now();
    work.each(config()).run(vec![20; 50], &Context::new()).await.unwrap();
    assert_eq!((start.elapsed(), most.load(Ordering::Relaxed)), (millis(20), 50));
}

#[tokio::test(start_paused = true)]
async fn the_first_error_drops_the_rest_and_starts_no_more() {
    let recorder = Recorder::new();
    let (work, _) = sleeper();
    let flow = work.each(config().max_concurrent(2).unwrap());
    let start = Instant::now();
    let error = flow.run(vec![1_000, 13, 20, 30], &recorder.context()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("13 is unlucky", millis(13)));
    assert_eq!(events(&recorder), [1, 1, 0]);
    let runs = recorder.metric("throughline_primitive_duration_seconds_count", &[("operation", "sleeper")]);
    assert_eq!((runs, in_flight(&recorder)), (Some(2.0), 0.0));
}

#[tokio::test(start_paused = true)]
async fn settled_inputs_have_a_result_each_in_their_order() {
    let (work, _) = sleeper();
    let flow = work.each(config().max_concurrent(2).unwrap().settle());
    let results = flow.run(vec![40, 13, 20], &Context::new()).await.unwrap();
    let results: Vec<_> =
        results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect();
    assert_eq!(results, [Ok(40), Err("13 is unlucky".to_owned()), Ok(20)]);
    assert_eq!(seen(flow.stage().stats()), [1, 0, 0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn collections_know_the_same_four_ways() {
    let flows = || [answers(1, 30), fails(10), answers(3, 20)].map(|script| script.workflow::<()>()).into();
    let cx = Context::new();
    let all = parallel(config(), flows()).unwrap();
    assert_eq!(all.run((), &cx).await.unwrap_err().to_string(), "503 after 10");
    let settled = parallel(config().settle(), flows()).unwrap().run((), &cx).await.unwrap();
    assert_eq!(settled.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(parallel(config().race(), flows()).unwrap().run((), &cx).await.unwrap(), 3);
    let quorum = parallel(config().quorum(2).unwrap(), flows()).unwrap();
    assert_eq!(quorum.run((), &cx).await.unwrap(), [3, 1]);
    assert_eq!(format!("{:?}", quorum.stage()), "Parallel(batch, quorum of 3, 0 of 1 failed)");
}

#[tokio::test(start_paused = true)]
async fn a_race_with_a_bound_goes_on_to_the_next_when_one_fails() {
    let scripts = [fails(10), answers(2, 20), answers(3, 0)];
    let flows = scripts.iter().map(|script| script.workflow::<()>()).collect();
    let flow = parallel(config().race().max_concurrent(1).unwrap(), flows).unwrap();
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 2);
    assert_eq!(scripts.map(|script| script.calls()), [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn too_few_inputs_for_a_result_are_refused() {
    let (work, _) = sleeper();
    let flow = work.each(config().quorum(3).unwrap());
    let error = flow.run(vec![1, 2], &Context::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    assert_eq!(error.to_string(), "2 inputs are too few for a result: it takes 3");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_does_not_start_after_the_deadline() {
    let recorder = Recorder::new();
    let (work, _) = sleeper();
    let flow = work.each(config().max_concurrent(1).unwrap().settle());
    let cx = recorder.context().with_time_limit(millis(50));
    let results = flow.run(vec![20, 40, 20, 20], &cx).await.unwrap();
    let kinds: Vec<_> = results.iter().map(|result| result.as_ref().map_err(Error::kind).copied()).collect();
    assert_eq!(kinds, [Ok(20), Ok(40), Err(Kind::Timeout), Err(Kind::Timeout)]);
    assert_eq!(events(&recorder), [0, 0, 2]);
    assert_eq!(
        results[2].as_ref().unwrap_err().to_string(),
        "the deadline passed before this branch started"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_does_not_start_when_the_work_is_asked_to_stop() {
    let (work, _) = sleeper();
    let limit = TimeoutConfig::new("limit", millis(30)).unwrap().grace(millis(100)).unwrap();
    let flow = work.each(config().max_concurrent(1).unwrap()).timeout(limit);
    let error = flow.run(vec![20, 20, 20], &Context::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout, "it gave up because it was asked to");
}

#[tokio::test(start_paused = true)]
async fn many_branches_that_are_done_at_once_leave_others_their_turn() {
    let at_once = workflow("at_once", |n: u64| async move { Ok(n) });
    let config = ParallelConfig::new("many").max_concurrent(2).unwrap();
    let flow = at_once.each(config).timeout(TimeoutConfig::from_secs("many", 1.0).unwrap());
    let time = tokio::spawn(tokio::time::advance(Duration::from_secs(2)));
    let result = flow.run((0..200_000).collect(), &Context::new()).await;
    assert_eq!(result.map(|answers| answers.len()).unwrap_err().kind(), Kind::Timeout);
    time.await.unwrap();
}
