//! Outputs that are streams: what every wrapper makes of them.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use throughline::stream::StreamLimit;
use throughline::telemetry::{GenAiNames, Semconv, Telemetry};
use throughline::testing::{ChaosConfig, Recorder};
use throughline::{
    AdaptiveTimeoutConfig, Boxed, BulkheadConfig, CacheConfig, Caching, CircuitBreakerConfig,
    ConditionalConfig, ConfigError, Context, Error, FallbackConfig, HedgeConfig, HedgeDelay, ItemStream, Key,
    KeyBuilder, Kind, Memory, Primitive, Quota, RateLimitConfig, Result, RetryConfig, RouterConfig,
    SagaConfig, ShedConfig, Streaming as _, SwitchConfig, TimeoutConfig, Workflow, conditional, router,
    switch, workflow, workflow_stream,
};
use tokio::time::{Instant, sleep};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Items that come after pauses; a pause without an item is a failure.
type Plan = Vec<(u64, Option<u64>)>;

fn items(plan: Plan) -> impl Stream<Item = Result<u64>> + Send {
    stream::iter(plan).then(|(pause, item)| async move {
        sleep(millis(pause)).await;
        item.ok_or_else(|| Error::new(Kind::Upstream, "broken off"))
    })
}

fn source(plan: Plan) -> Workflow<impl Primitive<In = u64, Out = ItemStream<u64>>> {
    workflow_stream("source", move |_: u64, _: Context| {
        let plan = plan.clone();
        async move { Ok(ItemStream::new(items(plan))) }
    })
}

/// All items, and the error at the end.
async fn read(stream: ItemStream<u64>) -> (Vec<u64>, Option<Error>) {
    let mut read = (Vec::new(), None);
    stream
        .for_each(|item| {
            match item {
                Ok(item) => read.0.push(item),
                Err(error) => read.1 = Some(error),
            }
            std::future::ready(())
        })
        .await;
    read
}

fn ended(recorder: &Recorder, operation: &str, outcome: &str) -> Option<f64> {
    let labels = [("operation", operation), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

fn events(recorder: &Recorder, event: &str) -> Option<f64> {
    recorder.metric("throughline_primitive_events_total", &[("event", event)])
}

fn limit() -> TimeoutConfig {
    TimeoutConfig::new("limit", millis(1_000)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_when_its_stream_is_complete() {
    let recorder = Recorder::new();
    let flow = source(vec![(100, Some(1)), (100, Some(2))]).timeout(limit()).named("all");
    let stream = flow.run(0, &recorder.context()).await.unwrap();
    assert_eq!(ended(&recorder, "all", "success"), None, "it is still under way");
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(3.0));
    assert_eq!(read(stream).await.0, [1, 2]);
    assert_eq!(ended(&recorder, "all", "success"), Some(1.0));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]), Some(0.0));
    let sum = recorder.metric("throughline_primitive_duration_seconds_sum", &[("operation", "all")]);
    assert_eq!(sum, Some(0.2), "from the start to the last item");
    let names: Vec<_> = recorder.spans().into_iter().map(|span| span.name.into_owned()).collect();
    assert_eq!(names, ["step source", "timeout limit", "invoke_workflow all"], "children end before parents");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_or_is_dropped_ends_its_runs_so() {
    let recorder = Recorder::new();
    let flow = source(vec![(10, Some(1)), (10, None)]).named("all");
    let (items, error) = read(flow.run(0, &recorder.context()).await.unwrap()).await;
    assert_eq!((items, error.unwrap().kind()), (vec![1], Kind::Upstream));
    assert_eq!(ended(&recorder, "all", "error"), Some(1.0));

    drop(flow.run(0, &recorder.context()).await.unwrap());
    assert_eq!(ended(&recorder, "all", "cancelled"), Some(1.0));
    assert_eq!(ended(&recorder, "source", "cancelled"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn by_the_newer_genai_names_every_run_of_a_named_workflow_is_measured_to_its_end() {
    const NAME: &str = "gen_ai_invoke_workflow_duration_seconds";
    let latest = Semconv::default().named(GenAiNames::Latest);
    let recorder = Recorder::of(Telemetry::builder().semconv(latest));
    let count = |error: &str| {
        let labels = [("gen_ai_workflow_name", "all"), ("error_type", error)];
        recorder.metric(&format!("{NAME}_count"), &labels)
    };
    let whole = source(vec![(6_000, Some(1)), (100, Some(2))]).named("all");
    whole.bind(recorder.sink());
    assert_eq!(count(""), Some(0.0), "it exists before the first run");
    let stream = whole.run(0, &recorder.context()).await.unwrap();
    assert_eq!(count(""), Some(0.0), "it is still under way");
    read(stream).await;
    assert_eq!(count(""), Some(1.0));
    let sum = recorder.metric(&format!("{NAME}_sum"), &[("error_type", "")]);
    assert_eq!(sum, recorder.metric("throughline_primitive_duration_seconds_sum", &[("operation", "all")]));

    let broken = source(vec![(10, Some(1)), (10, None)]).named("all");
    read(broken.run(0, &recorder.context()).await.unwrap()).await;
    drop(whole.run(0, &recorder.context()).await.unwrap());
    let refuse = async |_: u64| Err::<u64, _>(Error::new(Kind::RateLimited, "no"));
    workflow("refuse", refuse).named("all").run(0, &recorder.context()).await.unwrap_err();
    assert_eq!(
        (count("upstream"), count("cancelled"), count("rate_limited")),
        (Some(1.0), Some(1.0), Some(1.0))
    );

    let recorder = Recorder::new();
    read(whole.run(0, &recorder.context()).await.unwrap()).await;
    assert!(!recorder.sink().render().contains(NAME), "it is not among the names of 1.41");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_waits_for_the_first_item_and_loses_none() {
    let flow = source(vec![(300, Some(1)), (5, Some(2))]).timeout(limit().first_item(millis(400)).unwrap());
    let start = Instant::now();
    let stream = flow.run(0, &Recorder::new().context()).await.unwrap();
    assert_eq!(start.elapsed(), millis(300));
    assert_eq!(read(stream).await.0, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_first_item_that_does_not_come_is_a_timeout_of_its_own() {
    let recorder = Recorder::new();
    let flow = source(vec![(500, Some(1))]).timeout(limit().first_item(millis(400)).unwrap());
    let start = Instant::now();
    let error = flow.run(0, &recorder.context()).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, millis(400)));
    assert_eq!(error.to_string(), "no first item within 400ms");
    assert_eq!(events(&recorder, "no_first_item"), Some(1.0));
    assert_eq!(ended(&recorder, "limit", "timeout"), Some(1.0));
    assert_eq!(ended(&recorder, "source", "cancelled"), Some(1.0), "the stream was dropped");
}

#[tokio::test(start_paused = true)]
async fn the_first_item_is_waited_for_from_the_start_only_where_a_stream_is_expected() {
    let slow_head = || {
        workflow_stream("source", |_: u64, _: Context| async {
            sleep(millis(600)).await;
            Ok(ItemStream::new(items(vec![(10, Some(1))])))
        })
        .timeout(limit().first_item(millis(400)).unwrap())
    };
    let recorder = Recorder::new();
    let expecting = recorder.context().expecting_stream();
    let start = Instant::now();
    assert!(slow_head().run(0, &expecting).await.is_err());
    assert_eq!(start.elapsed(), millis(400));
    // It may be a whole answer that is on its way; when it turns out a stream, the limit is over.
    let start = Instant::now();
    assert!(slow_head().run(0, &recorder.context()).await.is_err());
    assert_eq!(start.elapsed(), millis(600));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stalls_fails_with_an_error_of_its_own() {
    let recorder = Recorder::new();
    let flow = source(vec![(10, Some(1)), (50, Some(2)), (500, Some(3))])
        .timeout(limit().between_items(millis(100)).unwrap());
    let start = Instant::now();
    let (items, error) = read(flow.run(0, &recorder.context()).await.unwrap()).await;
    assert_eq!((items, start.elapsed()), (vec![1, 2], millis(160)));
    assert_eq!(error.unwrap().to_string(), "the stream gave nothing for 100ms");
    assert_eq!((events(&recorder, "stalled"), events(&recorder, "incomplete")), (Some(1.0), Some(0.0)));
    assert_eq!(recorder.metric("timeout_failures_total", &[]), Some(1.0));
    assert_eq!(ended(&recorder, "source", "error"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_reader_is_not_one_of_the_stream() {
    let flow =
        source(vec![(10, Some(1)), (10, Some(2))]).timeout(limit().between_items(millis(100)).unwrap());
    let mut stream = flow.run(0, &Recorder::new().context()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 1);
    sleep(millis(500)).await;
    assert_eq!(stream.next().await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_that_of_the_whole_stream() {
    let recorder = Recorder::new();
    let flow = source((0..20).map(|n| (90, Some(n))).collect()).timeout(limit());
    let start = Instant::now();
    let (items, error) = read(flow.run(0, &recorder.context()).await.unwrap()).await;
    assert_eq!((items.len(), start.elapsed()), (11, millis(1_000)));
    assert_eq!(error.unwrap().to_string(), "the stream was not complete within 1s");
    assert_eq!(events(&recorder, "incomplete"), Some(1.0));
    assert_eq!(ended(&recorder, "limit", "timeout"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_always_has_an_item_ends_at_its_limit() {
    let flow = workflow_stream("endless", |_: u64, _: Context| async {
        Ok(ItemStream::new(stream::iter(0..100_000).map(Ok)))
    })
    .timeout(limit());
    let mut stream = flow.run(0, &Context::new()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 0);
    tokio::time::advance(millis(1_000)).await;
    let (items, error) = read(stream).await;
    assert!(items.is_empty(), "what is read after the limit is too late");
    assert_eq!(error.unwrap().to_string(), "the stream was not complete within 1s");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_waits_for_long_and_gives_nothing_ends_at_the_limit() {
    let flow = workflow_stream("comments", |_: u64, _: Context| async {
        let comments = stream::once(async {
            for _ in 0..500_000 {
                tokio::task::coop::consume_budget().await;
            }
            Ok(1)
        });
        Ok(ItemStream::new(stream::iter([Ok(0)]).chain(comments)))
    })
    .timeout(limit());
    let mut stream = flow.run(0, &Context::new()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 0);
    let time = tokio::spawn(tokio::time::advance(millis(2_000)));
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the stream was not complete within 1s");
    time.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_any_length_can_be_allowed() {
    let mut stream = ItemStream::new(items(vec![(0, Some(1)), (10, Some(2))]));
    stream.limit(StreamLimit::between(Duration::MAX, Error::new(Kind::Timeout, "stalled")));
    assert_eq!(read(stream).await.0, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn who_looks_at_items_sees_as_many_as_are_wanted() {
    let mut stream = ItemStream::new(items(vec![(0, Some(1)), (0, Some(2)), (0, Some(3)), (0, None)]));
    let (all, mut saw) = tokio::sync::mpsc::unbounded_channel();
    let (few, mut saw_few) = tokio::sync::mpsc::unbounded_channel();
    stream.on_item(move |item| all.send(*item).unwrap());
    stream.on_item_while(move |item| {
        few.send(*item).unwrap();
        *item < 2
    });
    assert_eq!(stream.next().await.unwrap().unwrap(), 1);
    assert_eq!(saw_few.recv().await, Some(1));
    let (rest, error) = read(stream).await;
    assert_eq!((rest, error.unwrap().kind()), (vec![2, 3], Kind::Upstream));
    assert_eq!([saw_few.recv().await, saw_few.recv().await], [Some(2), None]);
    assert_eq!([saw.recv().await, saw.recv().await, saw.recv().await], [Some(1), Some(2), Some(3)]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_the_end_hears_of_it_at_once() {
    let recorder = Recorder::new();
    let flow = workflow_stream("spent", |_: u64, _: Context| async {
        let mut spent = ItemStream::new(items(vec![(0, Some(1)), (0, None)]));
        while spent.next().await.is_some() {}
        Ok(spent)
    })
    .bulkhead(BulkheadConfig::new("places", 1).unwrap());
    let stream = flow.run(0, &recorder.context()).await.unwrap();
    assert_eq!(flow.stage().stats().in_use, 0, "nobody waits for the reader to drop it");
    assert_eq!(ended(&recorder, "spent", "error"), Some(1.0));
    drop(stream);
    assert_eq!(ended(&recorder, "spent", "cancelled"), None);
}

#[tokio::test(start_paused = true)]
async fn a_limit_inside_is_an_inner_error_outside() {
    let recorder = Recorder::new();
    let inside = TimeoutConfig::new("inside", millis(500)).unwrap();
    let flow = source((0..20).map(|n| (90, Some(n))).collect()).timeout(inside).timeout(limit());
    let (_, error) = read(flow.run(0, &recorder.context()).await.unwrap()).await;
    assert_eq!(error.unwrap().to_string(), "the stream was not complete within 500ms");
    assert_eq!(ended(&recorder, "inside", "timeout"), Some(1.0));
    assert_eq!(ended(&recorder, "limit", "inner_error"), Some(1.0));
}

#[tokio::test]
async fn a_stream_passes_through_a_pipe_a_router_and_a_box() {
    use throughline::workflow;
    let recorder = Recorder::new();
    let double = workflow("double", |n: u64| async move { Ok(n * 2) });
    let routes =
        RouterConfig::new("route").route("only", source(vec![(0, Some(5))])).select(|_, _| Ok("only".into()));
    let flow = (double >> router(routes).unwrap()).boxed().named("all");
    let stream = flow.run(1, &recorder.context()).await.unwrap();
    assert_eq!(ended(&recorder, "route", "success"), None);
    assert_eq!(read(stream).await.0, [5]);
    for operation in ["route", "all", "source"] {
        assert_eq!(ended(&recorder, operation, "success"), Some(1.0), "{operation}");
    }
}

/// Has no key for anything.
struct Uncached;

impl Caching<u64, ItemStream<u64>> for Uncached {
    fn key(&self, _: &u64, _: &Context, _: KeyBuilder) -> Option<Key> {
        None
    }

    fn encode(&self, _: &ItemStream<u64>) -> Option<Bytes> {
        None
    }

    fn decode(&self, _: Bytes, _: &u64, _: &Context) -> Result<Option<ItemStream<u64>>> {
        Err(Error::new(Kind::Store, "nothing was stored"))
    }
}

/// Every wrapper of the library, one around the other.
fn in_everything(
    work: Workflow<impl Primitive<In = u64, Out = ItemStream<u64>>>,
) -> std::result::Result<Workflow<Boxed<u64, ItemStream<u64>>>, ConfigError> {
    let seconds = Duration::from_secs;
    let limited = work
        .timeout(TimeoutConfig::new("attempt", seconds(60))?)
        .rate_limit(RateLimitConfig::new("rate", Quota::per_second(10)?))
        .bulkhead(BulkheadConfig::new("bulkhead", 1)?)
        .shed(ShedConfig::new("shed"))
        .circuit_breaker(CircuitBreakerConfig::new("circuit"))
        .boxed();
    let again = limited
        .hedge(HedgeConfig::for_idempotent_work("hedge", HedgeDelay::fixed(seconds(30))?))
        .retry(RetryConfig::new("retry"))
        .adaptive_timeout(AdaptiveTimeoutConfig::new("adaptive", seconds(40), seconds(60))?)
        .cache(CacheConfig::new("cache", seconds(60))?, Uncached, Memory::new(1 << 20)?)
        .fallback(FallbackConfig::new("fallback").then("nothing", source(Vec::new())))?
        .boxed();
    let chosen = switch(
        SwitchConfig::new("switch")
            .on(|n: &u64, _: &Context| *n)
            .case(0_u64, again)
            .default(source(Vec::new())),
    )?;
    let chosen = conditional(
        ConditionalConfig::new("if", |_: &u64, _: &Context| true, chosen).otherwise(source(Vec::new())),
    );
    let routed = router(RouterConfig::new("router").route("only", chosen).select(|_, _| Ok("only".into())))?;
    Ok(routed.chaos(ChaosConfig::new("chaos")).saga(SagaConfig::new("saga")).named("named").boxed())
}

const WRAPPERS: [&str; 15] = [
    "attempt", "rate", "bulkhead", "shed", "circuit", "hedge", "retry", "adaptive", "cache", "fallback",
    "switch", "if", "router", "saga", "named",
];

#[tokio::test(start_paused = true)]
async fn every_wrapper_goes_on_until_the_stream_is_complete() {
    let recorder = Recorder::new();
    let flow = in_everything(source(vec![(10, Some(1)), (5_000, Some(2))])).unwrap();
    let stream = flow.run(0, &recorder.context()).await.unwrap();
    let runs =
        |operation: &str| recorder.metric("throughline_primitive_in_flight", &[("operation", operation)]);
    for wrapper in WRAPPERS {
        assert_eq!(runs(wrapper), Some(1.0), "{wrapper} is under way");
    }
    assert_eq!(read(stream).await.0, [1, 2]);
    for wrapper in WRAPPERS {
        assert_eq!(runs(wrapper), Some(0.0), "{wrapper} has ended");
        let labels = [("operation", wrapper)];
        let seconds = recorder.metric("throughline_primitive_duration_seconds_sum", &labels).unwrap();
        assert!((seconds - 5.01).abs() < 1e-9, "{wrapper} took {seconds} s, to the last item");
    }
}

#[tokio::test(start_paused = true)]
async fn every_wrapper_sees_a_stream_that_fails_and_one_that_is_dropped() {
    let recorder = Recorder::new();
    let failing = in_everything(source(vec![(10, Some(1)), (10, None)])).unwrap();
    assert_eq!(read(failing.run(0, &recorder.context()).await.unwrap()).await.0, [1]);
    let hanging = in_everything(source(vec![(10, Some(1)), (10_000_000, Some(2))])).unwrap();
    drop(hanging.run(0, &recorder.context()).await.unwrap());
    for wrapper in WRAPPERS {
        let runs = |outcomes: &[&str]| -> f64 {
            outcomes.iter().filter_map(|outcome| ended(&recorder, wrapper, outcome)).sum()
        };
        assert_eq!(runs(&["error", "inner_error", "failure", "ignored", "cancelled"]), 2.0, "{wrapper}");
        assert_eq!(runs(&["cancelled", "ignored"]), 1.0, "{wrapper}");
    }
}
