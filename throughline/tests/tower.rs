//! Workflows as tower services, tower services as workflows, and real middleware on both sides.

#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use throughline::testing::Recorder;
use throughline::tower::{workflow_of_service, workflow_of_service_with};
use throughline::{Context, Error, Kind, TimeoutConfig, workflow, workflow_with};
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimit;
use tower::timeout::Timeout;
use tower::{Service, ServiceExt, service_fn};

fn recorded(recorder: &Recorder) -> impl Fn(&u64) -> Context + Send + Sync + 'static {
    let sink = recorder.sink().clone();
    move |n| Context::builder().sink(&sink).correlation_id(format!("request {n}")).build()
}

fn sleeper() -> throughline::Workflow<impl throughline::Primitive<In = u64, Out = u64>> {
    workflow("sleeper", |millis: u64| async move {
        sleep(Duration::from_millis(millis)).await;
        Ok(millis)
    })
}

#[tokio::test]
async fn a_workflow_is_a_service_that_is_always_ready_and_can_be_cloned() {
    let double = workflow("double", |n: u64| async move { Ok(n * 2) });
    let plus_one = workflow("plus one", |n: u64| async move { Ok(n + 1) });
    let mut service = (double >> plus_one).into_service();
    assert_eq!(format!("{service:?}"), "WorkflowService(double >> plus one)");
    assert_eq!(service.ready().await.unwrap().call(3).await.unwrap(), 7);
    let answers = futures_util::future::join_all((0..3).map(|n| service.clone().oneshot(n))).await;
    assert_eq!(answers.into_iter().collect::<Result<Vec<_>, _>>().unwrap(), [1, 3, 5]);
}

#[tokio::test]
async fn every_call_has_the_context_that_its_request_asks_for() {
    let who = workflow_with("who", |_: u64, cx: Context| async move { Ok(cx.correlation_id().to_owned()) });
    let recorder = Recorder::new();
    let service = who.into_service_with(recorded(&recorder));
    assert_eq!(service.clone().oneshot(7).await.unwrap(), "request 7");
    assert_eq!(service.oneshot(8).await.unwrap(), "request 8");
    let runs = recorder.metric("throughline_primitive_duration_seconds_count", &[("operation", "who")]);
    assert_eq!(runs, Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn a_workflow_stands_in_a_tower_stack_and_is_cancelled_by_it() {
    let recorder = Recorder::new();
    let service = sleeper().into_service_with(recorded(&recorder));
    let mut stack = ConcurrencyLimit::new(Timeout::new(service, Duration::from_millis(100)), 1);
    assert_eq!(stack.ready().await.unwrap().call(50).await.unwrap(), 50);
    let error = stack.ready().await.unwrap().call(5_000).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>());
    let cancelled = [("operation", "sleeper"), ("outcome", "cancelled")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &cancelled), Some(1.0));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
}

#[tokio::test]
async fn an_error_of_a_workflow_keeps_its_kind_through_a_tower_stack_and_back() {
    let refuses = workflow("refuses", |_: u64| async {
        Err::<u64, _>(Error::new(Kind::RateLimited, "60 a minute").with_retry_after(Duration::from_secs(9)))
    });
    let stack = Timeout::new(refuses.into_service(), Duration::from_secs(1));
    let flow = workflow_of_service("stack", stack);
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::RateLimited, "60 a minute"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(9)));
}

#[tokio::test]
async fn a_service_is_observed_as_a_stage_under_the_given_name() {
    let recorder = Recorder::new();
    let service = service_fn(|n: u64| async move {
        if n > 9 { Err(std::io::Error::other("connection reset")) } else { Ok(n * 2) }
    });
    let flow = workflow_of_service("double", service).named("flow");
    let cx = recorder.context();
    assert_eq!(flow.run(4, &cx).await.unwrap(), 8);
    let error = flow.run(10, &cx).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: the service failed: connection reset");
    assert!(error.cause::<std::io::Error>().is_some());
    let runs = |outcome| {
        let labels = [("primitive", "service"), ("operation", "double"), ("outcome", outcome)];
        recorder.metric("throughline_primitive_duration_seconds_count", &labels)
    };
    assert_eq!((runs("success"), runs("error")), (Some(1.0), Some(1.0)));
    assert_eq!(recorder.spans()[0].name, "service double");
    assert_eq!(flow.describe().children()[0].operation(), "double");
}

#[tokio::test(start_paused = true)]
async fn errors_can_be_mapped_by_what_they_are() {
    let slow = service_fn(|n: u64| async move {
        sleep(Duration::from_secs(60)).await;
        Ok::<_, Error>(n)
    });
    let stack = Timeout::new(slow, Duration::from_secs(1));
    let flow = workflow_of_service_with("slow", stack, |error: tower::BoxError| {
        let kind = if error.is::<tower::timeout::error::Elapsed>() { Kind::Timeout } else { Kind::Upstream };
        Error::new(kind, "no answer from the service")
    });
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Timeout, "no answer from the service"));
}

#[tokio::test(start_paused = true)]
async fn middleware_inside_a_workflow_limits_all_its_runs() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, peak) = (Arc::clone(&now), Arc::clone(&most));
    let work = service_fn(move |n: u64| {
        let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Error>(n)
        }
    });
    let flow = workflow_of_service("limited", ConcurrencyLimit::new(work, 2));
    let (cx, start) = (Recorder::new().context(), Instant::now());
    let answers = futures_util::future::join_all((0..6).map(|n| flow.run(n, &cx))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((most.load(Ordering::Relaxed), start.elapsed()), (2, Duration::from_millis(300)));
    assert_eq!(now.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_readiness_ends_with_the_deadline_or_a_stop_and_gives_its_place_back() {
    let work = service_fn(|millis: u64| async move {
        sleep(Duration::from_millis(millis)).await;
        Ok::<_, Error>(millis)
    });
    let flow = workflow_of_service("one at a time", ConcurrencyLimit::new(work, 1));
    let cx = Recorder::new().context();
    let first = tokio::spawn({
        let (flow, cx) = (flow.clone(), cx.clone());
        async move { flow.run(1_000, &cx).await }
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    let error = flow.run(1, &cx.with_time_limit(Duration::from_millis(200))).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, Duration::from_millis(200)));
    let stopped =
        flow.clone().timeout(TimeoutConfig::from_secs("stop", 0.1).unwrap().grace_secs(9.0).unwrap());
    assert_eq!(stopped.run(1, &cx).await.unwrap_err().to_string(), "no answer within 100ms");
    first.await.unwrap().unwrap();
    assert_eq!(flow.run(1, &cx).await.unwrap(), 1, "the limit is not lost");
}

/// Panics unless the very clone that was asked for readiness is the one that is called.
struct Strict {
    ready: bool,
    calls: Arc<Mutex<Vec<u64>>>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<u64> for Strict {
    type Response = u64;
    type Error = Error;
    type Future = std::future::Ready<Result<u64, Error>>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), Error>> {
        if std::mem::replace(&mut self.ready, true) {
            return Poll::Ready(Ok(()));
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, n: u64) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.calls.lock().unwrap().push(n);
        std::future::ready(Ok(n))
    }
}

#[tokio::test]
async fn the_clone_that_was_ready_is_the_one_that_is_called() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let flow = workflow_of_service("strict", Strict { ready: false, calls: Arc::clone(&calls) });
    let cx = Recorder::new().context();
    for n in 0..3 {
        assert_eq!(flow.run(n, &cx).await.unwrap(), n);
    }
    assert_eq!(*calls.lock().unwrap(), [0, 1, 2]);
}

#[derive(Clone)]
struct NeverReady;

impl Service<u64> for NeverReady {
    type Response = u64;
    type Error = std::io::Error;
    type Future = std::future::Pending<Result<u64, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Err(std::io::Error::other("closed for good")))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[tokio::test]
async fn a_service_that_cannot_become_ready_is_an_error() {
    let flow = workflow_of_service("closed", NeverReady);
    let error = flow.run(1, &Recorder::new().context()).await.unwrap_err();
    assert_eq!(format!("{error:?}"), "upstream: the service failed: closed for good");
}
