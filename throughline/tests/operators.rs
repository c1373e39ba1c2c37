//! What `>>`, `|` and the methods mean, and that piping is not wrapping.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline::testing::Recorder;
use throughline::{
    CacheConfig, Context, Error, JsonCaching, KeyBuilder, Kind, Memory, Primitive, Result, RouteTaken,
    RouterConfig, TimeoutConfig, Workflow, router, workflow, workflow_with,
};
use tokio::time::{Instant, sleep};

macro_rules! plus {
    ($n:expr) => {
        workflow(format!("plus {}", $n), |input: u64| async move { Ok(input + $n) })
    };
}

macro_rules! times {
    ($n:expr) => {
        workflow(format!("times {}", $n), |input: u64| async move { Ok(input * $n) })
    };
}

fn names<P: Primitive, Shape>(flow: &Workflow<P, Shape>) -> Vec<String> {
    flow.describe().children().iter().map(|node| node.operation().to_owned()).collect()
}

/// A route that takes 0.3 s, behind a router; it counts its runs.
fn routed(runs: &Arc<AtomicU64>) -> RouterConfig<u64, u64> {
    let runs = Arc::clone(runs);
    let slow = workflow("slow", move |n: u64| {
        runs.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(Duration::from_millis(300)).await;
            Ok(n)
        }
    });
    RouterConfig::new("chat").route("slow", slow).select(|_, _| Ok("slow".into()))
}

fn limit(millis: u64) -> TimeoutConfig {
    TimeoutConfig::new("guard", Duration::from_millis(millis)).unwrap()
}

fn kept() -> CacheConfig {
    CacheConfig::new("answers", Duration::from_secs(60)).unwrap()
}

fn by_number() -> JsonCaching<u64, u64> {
    JsonCaching::keyed(|n: &u64, _, key: KeyBuilder| key.json(n))
}

fn memory() -> Memory {
    Memory::new(1 << 20).unwrap()
}

#[tokio::test]
async fn a_pipe_feeds_each_output_to_the_next_stage() {
    let recorder = Recorder::new();
    let flow = plus!(1) >> times!(10) >> workflow("text", |n: u64| async move { Ok(format!("<{n}>")) });
    assert_eq!(flow.run(3, &recorder.context()).await.unwrap(), "<40>");
    let order: Vec<_> = recorder.spans().into_iter().map(|span| span.name.into_owned()).collect();
    assert_eq!(order, ["step plus 1", "step times 10", "step text"]);
}

#[tokio::test]
async fn an_error_stops_the_pipe_and_travels_unchanged() {
    let recorder = Recorder::new();
    let fails = workflow("fails", |_: u64| async {
        let cause = std::io::Error::other("connection reset");
        Err::<u64, _>(Error::new(Kind::Upstream, "no answer").because(cause))
    });
    let flow = plus!(1) >> fails >> times!(2);
    let error = flow.run(1, &recorder.context()).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: no answer: connection reset");
    assert_eq!(recorder.spans().len(), 2, "the third stage never ran");
}

#[tokio::test]
async fn a_pipe_within_a_pipe_is_one_pipe() {
    let left = (plus!(1) >> times!(2)) >> plus!(3);
    let right = plus!(1) >> (times!(2) >> plus!(3));
    assert_eq!(names(&left), ["plus 1", "times 2", "plus 3"]);
    assert_eq!(left.describe(), right.describe());
    let cx = Context::new();
    assert_eq!(left.run(5, &cx).await.unwrap(), right.run(5, &cx).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn branches_run_side_by_side_and_answer_in_written_order() {
    let after = |millis: u64| {
        workflow("after", move |n: u64| async move {
            sleep(Duration::from_millis(millis)).await;
            Ok(n + millis)
        })
    };
    let flow = after(300) | after(100) | after(200);
    let start = Instant::now();
    assert_eq!(flow.run(1, &Recorder::new().context()).await.unwrap(), (301, 101, 201));
    assert_eq!(start.elapsed(), Duration::from_millis(300));
}

#[tokio::test]
async fn brackets_in_a_fan_keep_their_shape() {
    let cx = Context::new();
    assert_eq!((plus!(1) | plus!(2) | plus!(3)).run(0, &cx).await.unwrap(), (1, 2, 3));
    assert_eq!((plus!(1) | (plus!(2) | plus!(3))).run(0, &cx).await.unwrap(), (1, (2, 3)));
    assert_eq!(((plus!(1) | plus!(2)) | plus!(3)).run(0, &cx).await.unwrap(), (1, 2, 3));
}

#[tokio::test]
async fn a_pipe_binds_tighter_than_a_fan() {
    let cx = Context::new();
    let flow = plus!(1) >> times!(2) | times!(3) >> plus!(4);
    assert_eq!(flow.run(10, &cx).await.unwrap(), (22, 34));
    let sum = workflow("sum", |(a, b): (u64, u64)| async move { Ok(a + b) });
    let mixed = plus!(1) >> (times!(2) | times!(3)) >> sum;
    assert_eq!(mixed.run(1, &cx).await.unwrap(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_first_error_wins_and_the_other_branches_are_dropped() {
    let side_effect = Arc::new(AtomicBool::new(false));
    let effect = Arc::clone(&side_effect);
    let slow = workflow("slow", move |n: u64| {
        let effect = Arc::clone(&effect);
        async move {
            sleep(Duration::from_secs(1)).await;
            effect.store(true, Ordering::Relaxed);
            Ok(n)
        }
    });
    let fails = workflow("fails", |_: u64| async {
        sleep(Duration::from_millis(10)).await;
        Err::<u64, _>(Error::new(Kind::Upstream, "503"))
    });
    let (recorder, start) = (Recorder::new(), Instant::now());
    let error = (slow | fails).run(1, &recorder.context()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), start.elapsed()), ("503", Duration::from_millis(10)));
    sleep(Duration::from_secs(5)).await;
    assert!(!side_effect.load(Ordering::Relaxed), "the sibling does not run on");
    let ended = |operation, outcome| {
        let labels = [("operation", operation), ("outcome", outcome)];
        recorder.metric("throughline_primitive_duration_seconds_count", &labels)
    };
    assert_eq!((ended("slow", "cancelled"), ended("fails", "error")), (Some(1.0), Some(1.0)));
}

#[tokio::test]
async fn each_branch_has_an_input_of_its_own() {
    let push = |word: &'static str| {
        workflow("push", move |mut words: Vec<&'static str>| async move {
            words.push(word);
            Ok(words)
        })
    };
    let (a, b) = (push("a") | push("b")).run(vec!["start"], &Context::new()).await.unwrap();
    assert_eq!((a, b), (vec!["start", "a"], vec!["start", "b"]));
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Visits(Vec<&'static str>);

fn visit(name: &'static str) -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow_with(name, move |n: u64, cx: Context| async move {
        cx.state().update(|visits: &mut Visits| visits.0.push(name));
        Ok(n)
    })
}

#[tokio::test]
async fn state_is_shared_along_a_pipe_and_with_the_caller() {
    let cx = Context::new();
    let seen = workflow_with("seen", |_: u64, cx: Context| async move {
        Ok(cx.state().get::<Visits>().map(|visits| visits.0.clone()))
    });
    let flow = (visit("first") >> visit("second")).named("visits") >> seen;
    assert_eq!(flow.run(0, &cx).await.unwrap(), Some(vec!["first", "second"]));
    assert_eq!(cx.state().get::<Visits>().unwrap().0, ["first", "second"]);
}

#[tokio::test]
async fn a_branch_works_on_a_copy_of_the_state() {
    let cx = Context::new();
    cx.state().insert(Visits(vec!["before"]));
    let seen = |name| {
        workflow_with(name, move |_: u64, cx: Context| async move {
            tokio::task::yield_now().await;
            cx.state().update(|visits: &mut Visits| visits.0.push(name));
            tokio::task::yield_now().await;
            Ok(cx.state().get::<Visits>().map(|visits| visits.0.clone()).unwrap_or_default())
        })
    };
    let (a, b) = (seen("a") | seen("b")).run(0, &cx).await.unwrap();
    assert_eq!((a, b), (vec!["before", "a"], vec!["before", "b"]));
    assert_eq!(cx.state().get::<Visits>().unwrap().0, ["before"]);
}

#[tokio::test]
async fn who_asked_is_the_same_in_every_stage_and_costs_no_copy() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let ids = Arc::clone(&ids);
        workflow_with(name, move |n: u64, cx: Context| {
            let tag = cx.tag("tier").map(|tag| (tag.to_owned(), tag.as_ptr() as usize));
            let baggage = cx.baggage("shop").map(str::to_owned);
            ids.lock().unwrap().push((cx.correlation_id().to_owned(), baggage, tag));
            async move { Ok(n) }
        })
    };
    let flow = note("a") >> note("b").timeout(limit(1_000)) >> (note("c") | note("d"));
    let cx = Context::builder().correlation_id("c-1").baggage("shop", "7").tag("tier", "gold").build();
    flow.run(1, &cx).await.unwrap();
    let ids = ids.lock().unwrap();
    assert_eq!(ids.len(), 4);
    assert!(ids.iter().all(|id| *id == ids[0]), "the same strings in the same place: {ids:?}");
    assert_eq!((ids[0].0.as_str(), ids[0].1.as_deref()), ("c-1", Some("7")));
}

#[tokio::test]
async fn unlike_workflows_fit_into_one_collection() {
    let flows: Vec<Workflow<throughline::Boxed<u64, u64>>> =
        vec![plus!(1).boxed(), (plus!(1) >> times!(2)).boxed(), plus!(1).timeout(limit(100)).boxed()];
    let cx = Context::new();
    let mut answers = Vec::new();
    for flow in &flows {
        answers.push(flow.run(4, &cx).await.unwrap());
    }
    assert_eq!(answers, [5, 10, 5]);
}

#[tokio::test]
async fn a_workflow_that_a_function_hands_out_still_composes() {
    let cx = Context::new();
    assert_eq!((visit("a") >> plus!(1) >> visit("b")).run(1, &cx).await.unwrap(), 2);
    assert_eq!((visit("a") | plus!(1) | visit("b")).run(1, &cx).await.unwrap(), (1, 2, 1));
}

#[tokio::test]
async fn a_boxed_workflow_still_composes() {
    let flow = plus!(1).boxed() >> times!(3).boxed() >> plus!(2);
    assert_eq!(flow.run(1, &Context::new()).await.unwrap(), 8);
    let fan = plus!(1).boxed() | times!(3).boxed();
    assert_eq!(fan.run(4, &Context::new()).await.unwrap(), (5, 12));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_wraps_a_slow_route_fires() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let wrapped = router(routed(&runs)).unwrap().timeout(limit(100));
    let start = Instant::now();
    let error = wrapped.run(7, &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, Duration::from_millis(100)));
    assert_eq!(recorder.metric("timeout_failures_total", &[]), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_is_piped_behind_a_slow_route_cannot_fire() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let guarded = plus!(0).timeout(limit(100));
    let piped = router(routed(&runs)).unwrap() >> guarded;
    let start = Instant::now();
    assert_eq!(piped.run(7, &recorder.context()).await.unwrap(), 7);
    assert_eq!(start.elapsed(), Duration::from_millis(300), "three times the limit");
    assert_eq!(recorder.metric("timeout_failures_total", &[]), Some(0.0));
    assert_eq!(recorder.metric("timeout_successes_total", &[]), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_wraps_a_router_shields_it() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let wrapped = router(routed(&runs)).unwrap().cache(kept(), by_number(), memory());
    for _ in 0..3 {
        assert_eq!(wrapped.run(7, &recorder.context()).await.unwrap(), 7);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert_eq!(recorder.metric("router_decisions_total", &[]), Some(1.0));
    assert_eq!(recorder.metric("cache_hits_total", &[]), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_piped_behind_a_router_does_not_shield_it() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let piped = router(routed(&runs)).unwrap() >> plus!(0).cache(kept(), by_number(), memory());
    for _ in 0..3 {
        assert_eq!(piped.run(7, &recorder.context()).await.unwrap(), 7);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    assert_eq!(recorder.metric("router_decisions_total", &[]), Some(3.0));
    assert_eq!(
        recorder.metric("cache_hits_total", &[]),
        Some(2.0),
        "only the stage inside the cache is spared"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cache_inside_a_timeout_keeps_what_it_had_and_outside_keeps_nothing_of_a_timeout() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let outside = router(routed(&runs)).unwrap().timeout(limit(100)).cache(kept(), by_number(), memory());
    for _ in 0..2 {
        assert_eq!(outside.run(7, &recorder.context()).await.unwrap_err().kind(), Kind::Timeout);
    }
    assert_eq!(runs.load(Ordering::Relaxed), 2, "a timeout is not cached");

    let inside = router(routed(&runs)).unwrap().cache(kept(), by_number(), memory()).timeout(limit(400));
    assert_eq!(inside.run(7, &recorder.context()).await.unwrap(), 7);
    assert_eq!(inside.run(7, &recorder.context()).await.unwrap(), 7);
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    let names: Vec<_> = recorder.spans().iter().rev().take(2).map(|span| span.name.to_string()).collect();
    assert_eq!(names, ["timeout guard", "cache answers"], "a hit goes no further");
}

#[tokio::test(start_paused = true)]
async fn what_a_stage_left_in_the_state_is_seen_behind_every_wrapper() {
    let (recorder, runs) = (Recorder::new(), Arc::default());
    let route = workflow_with("which", |_: u64, cx: Context| async move {
        Ok::<_, Error>(cx.state().get::<RouteTaken>().map(|taken| taken.route.clone()))
    });
    let flow = router(routed(&runs)).unwrap().timeout(limit(500)) >> route;
    assert_eq!(flow.run(1, &recorder.context()).await.unwrap().as_deref(), Some("slow"));
}

#[tokio::test]
async fn an_input_need_not_be_cloned_unless_branches_share_it() -> Result<()> {
    struct NotClone(u64);
    let flow = workflow("open", |n: NotClone| async move { Ok(n.0) }) >> plus!(1);
    assert_eq!(flow.run(NotClone(1), &Context::new()).await?, 2);
    Ok(())
}
