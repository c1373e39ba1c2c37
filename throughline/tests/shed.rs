//! What the adaptive limit hears of runs, and whom it refuses. How the limit is found: `shed_simulation.rs`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, poll, stream};
use throughline::shed::ShedStats;
use throughline::testing::Recorder;
use throughline::{
    Clock, Context, Error, ItemStream, Kind, Primitive, ShedConfig, TimeoutConfig, Workflow, workflow,
    workflow_stream,
};
use tokio::time::sleep;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(initial: u32) -> ShedConfig {
    ShedConfig::new("model").initial(initial).unwrap()
}

/// Takes as many milliseconds as it is told and gives them back.
fn sleeper() -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("sleeper", |n: u64| async move {
        sleep(millis(n)).await;
        Ok(n)
    })
}

/// Fails with `kind` after a while.
fn fails(kind: Kind) -> Workflow<impl Primitive<In = u64, Out = u64>> {
    workflow("fails", move |n: u64| async move {
        sleep(millis(n)).await;
        Err(Error::new(kind, "no"))
    })
}

/// `[successes, errors, cancelled, rejected]`
fn counts(stats: ShedStats) -> [u64; 4] {
    [stats.successes, stats.errors, stats.cancelled, stats.rejected]
}

#[test]
fn a_config_refuses_what_is_out_of_bounds() {
    let refused = |result: Result<ShedConfig, throughline::ConfigError>| result.unwrap_err().to_string();
    let new = || ShedConfig::new("x");
    for (least, most) in [(0, 5), (6, 5), (1, 1_000_001)] {
        assert_eq!(
            refused(new().bounds(least, most)),
            format!("shed bounds are {least} to {most}: they must be in order, from 1 to 1000000")
        );
    }
    assert_eq!(
        refused(new().bounds(2, 8).unwrap().initial(9)),
        "shed initial limit is 9: it must be from 2 to 8, its bounds"
    );
    for tolerance in [1.0, 10.5, f64::NAN] {
        assert_eq!(
            refused(new().tolerance(tolerance)),
            format!("shed tolerance is {tolerance}: it must be from 1.1 to 10")
        );
    }
    assert_eq!(
        format!("{:?}", new().bounds(20, 30).unwrap()),
        "ShedConfig(x, 20 in 20 to 30, tolerance 1.5)"
    );
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_a_run_is_refused_at_once() {
    let recorder = Recorder::new();
    let flow = sleeper().shed(config(3));
    let cx = recorder.context();
    let answers = join_all((0..5).map(|_| flow.run(100, &cx))).await;
    let error = answers[4].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Rejected, true));
    assert_eq!(error.to_string(), "3 runs are under way and no more than 3 are taken now");
    assert_eq!(counts(flow.stage().stats()), [3, 0, 0, 2]);
    assert_eq!((flow.stage().stats().in_flight, flow.stage().stats().most_in_flight), (0, 3));
    assert_eq!(recorder.metric("shed_limit", &[("operation", "model")]), Some(3.0));
    assert_eq!(format!("{:?}", flow.stage()), "Shed(model, 0 of 3 under way, 2 rejected)");
    assert_eq!((flow.describe().primitive(), flow.describe().operation()), ("shed", "model"));
}

#[tokio::test(start_paused = true)]
async fn the_limit_follows_the_server_and_is_seen_in_a_gauge() {
    let recorder = Recorder::new();
    let server = Arc::new(tokio::sync::Semaphore::new(8));
    let model = workflow("model", move |(): ()| {
        let server = Arc::clone(&server);
        async move {
            let _worker = server.acquire().await.unwrap();
            sleep(millis(100)).await;
            Ok(())
        }
    });
    let flow = model.shed(config(100));
    let cx = recorder.context();
    let callers = (0..60).map(|caller| {
        let (flow, cx) = (flow.clone(), cx.clone());
        async move {
            loop {
                if flow.run((), &cx).await.is_err() {
                    sleep(millis(20 + caller)).await;
                }
            }
        }
    });
    let mut limits = Vec::new();
    let watch = async {
        sleep(millis(30_000)).await;
        for _ in 0..300 {
            sleep(millis(99)).await;
            limits.push(flow.stage().stats().limit as f64);
        }
    };
    tokio::select! {
        _ = join_all(callers) => unreachable!(),
        () = watch => {}
    }
    let mean = limits.iter().sum::<f64>() / limits.len() as f64;
    assert!((8.0..13.6).contains(&mean), "eight workers, and a limit of {mean}");
    let stats = flow.stage().stats();
    assert!(stats.unloaded.is_some_and(|time| time < millis(130)), "{stats:?}");
    assert_eq!(recorder.metric("shed_limit", &[("operation", "model")]), Some(stats.limit as f64));
}

#[tokio::test(start_paused = true)]
async fn timeouts_and_rejections_from_inside_are_overload() {
    for kind in [Kind::Timeout, Kind::Rejected] {
        let recorder = Recorder::new();
        let flow = fails(kind).shed(config(40));
        let cx = recorder.context();
        join_all((0..40).map(|_| flow.run(10, &cx))).await;
        assert_eq!(flow.stage().stats().limit, 20, "{kind:?}");
        let labels = [("primitive", "shed"), ("event", "overload")];
        assert_eq!(recorder.metric("throughline_primitive_events_total", &labels), Some(40.0));
    }
}

#[tokio::test(start_paused = true)]
async fn other_errors_do_not_move_the_limit() {
    for kind in [Kind::Upstream, Kind::InvalidInput, Kind::RateLimited, Kind::CircuitOpen, Kind::Cancelled] {
        let flow = fails(kind).shed(config(40));
        let cx = Context::new();
        for _ in 0..10 {
            join_all((0..40).map(|_| flow.run(10, &cx))).await;
        }
        assert_eq!((flow.stage().stats().limit, flow.stage().stats().errors), (40, 400), "{kind:?}");
        assert_eq!(flow.stage().stats().unloaded, None, "nor do they say how long an answer takes");
    }
}

#[tokio::test(start_paused = true)]
async fn which_errors_are_overload_can_be_said() {
    let flow = fails(Kind::Upstream).shed(config(40).overload(|error| error.to_string() == "no"));
    let cx = Context::new();
    join_all((0..40).map(|_| flow.run(10, &cx))).await;
    assert_eq!(flow.stage().stats().limit, 20);
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_on_a_hanging_server_are_overload_and_others_are_not() {
    let flow = sleeper().shed(config(40));
    let cx = Context::new();
    for _ in 0..3 {
        join_all((0..40).map(|_| flow.run(100, &cx))).await;
    }
    let limit = flow.stage().stats().limit;
    let patience = |time| TimeoutConfig::new("patience", time).unwrap();
    let hasty = flow.clone().timeout(patience(millis(50)));
    for _ in 0..5 {
        join_all((0..40).map(|_| hasty.run(60_000, &cx))).await;
    }
    assert_eq!(flow.stage().stats().limit, limit, "the answer was not due");
    let patient = flow.clone().timeout(patience(millis(500)));
    for _ in 0..2 {
        join_all((0..40).map(|_| patient.run(60_000, &cx))).await;
    }
    assert!(flow.stage().stats().limit < limit, "{:?} was {limit}", flow.stage().stats());
    assert_eq!(flow.stage().stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn of_a_stream_the_first_item_counts_and_the_place_is_held_to_the_end() {
    let words = workflow_stream("words", |n: u64, _| async move {
        let items = stream::iter(0..n).then(|n| async move {
            sleep(millis(if n == 0 { 100 } else { 5_000 })).await;
            Ok(n)
        });
        Ok(ItemStream::new(items.boxed()))
    });
    let flow = words.shed(ShedConfig::new("model").bounds(1, 1).unwrap());
    let cx = Context::new();
    for round in 0..40 {
        let items = flow.run(2, &cx).await.unwrap();
        assert_eq!(flow.run(2, &cx).await.unwrap_err().kind(), Kind::Rejected);
        if round % 2 == 0 {
            assert_eq!(items.collect::<Vec<_>>().await.len(), 2);
        } else {
            drop(items);
        }
        assert_eq!(flow.stage().stats().in_flight, 0);
    }
    assert_eq!(flow.stage().stats().unloaded, Some(millis(100)));
    assert_eq!(counts(flow.stage().stats()), [20, 0, 20, 40]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_times_out_is_overload() {
    for before_first in [true, false] {
        let words = workflow_stream("words", move |_: u64, _| async move {
            let late = || Err(Error::new(Kind::Timeout, "nothing came"));
            let items = if before_first { vec![late()] } else { vec![Ok(1), late()] };
            Ok(ItemStream::new(stream::iter(items)))
        });
        let flow = words.shed(config(40));
        let cx = Context::new();
        let results = join_all((0..40).map(|_| flow.run(1, &cx))).await;
        assert_eq!(results.iter().all(Result::is_err), before_first, "it waits for the first item");
        for items in results.into_iter().flatten() {
            items.collect::<Vec<_>>().await;
        }
        assert!(flow.stage().stats().limit < 40, "{:?}", flow.stage().stats());
        assert_eq!(flow.stage().stats().errors, 40);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_or_panicking_run_gives_back_its_place() {
    let flow = Arc::new(
        workflow("panics", |n: u64| async move {
            sleep(millis(10)).await;
            if n == 0 { panic!("the script says so") } else { Ok(n) }
        })
        .shed(config(1)),
    );
    let cx = Context::new();
    let mut run = Box::pin(flow.run(1, &cx));
    assert!(poll!(&mut run).is_pending());
    drop(run);
    let (panics, inner) = (Arc::clone(&flow), cx.clone());
    tokio::spawn(async move { panics.run(0, &inner).await }).await.unwrap_err();
    flow.run(1, &cx).await.unwrap();
    assert_eq!(counts(flow.stage().stats()), [1, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let off = throughline::telemetry::Sink::without_telemetry(Clock::Tokio);
    let cx = Context::builder().sink(&off).build();
    let flow = sleeper().shed(config(1));
    let (one, two) = tokio::join!(flow.run(10, &cx), flow.run(10, &cx));
    assert!(one.is_ok() && two.is_err());
    assert_eq!(counts(flow.stage().stats()), [1, 0, 0, 1]);
}
