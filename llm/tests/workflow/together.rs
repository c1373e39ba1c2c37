//! `router.timeout(..).cache(..)` over chat: the main job of a gateway.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use throughline::cache::Cache;
use throughline::telemetry::Observed;
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, CacheOutcome, Context, Kind, Memory, Primitive, RouteTaken, RouterConfig, TimeoutConfig,
    Workflow, router,
};
use throughline_llm::openai::{ChatRequest, Usage};
use throughline_llm::simulated::SimulatedConfig;
use throughline_llm::{Answer, Attempts, ChatCaching, ChatPricing, PriceTable};
use tokio::time::Instant;

use super::{PLAIN, STREAMED, ask, cached, drain, request, simulation, streamed, whole};

const LIMIT: Duration = Duration::from_secs(5);
const CALLS: &str = "throughline_primitive_duration_seconds_count";

type Flow<P> = Workflow<Observed<Cache<P, ChatCaching, Memory>>>;

/// Long prompts go to the dear model and others to the cheap one, within [`LIMIT`], behind a cache.
fn flow(config: SimulatedConfig) -> Flow<impl Primitive<In = ChatRequest, Out = Answer> + use<>> {
    let prices = Arc::new(PriceTable::builtin());
    let models = vec![("cheap".to_owned(), "gpt-4o-mini".into()), ("dear".to_owned(), "gpt-4o".into())];
    let by_size = |request: &ChatRequest, _: &Context| {
        Ok(if request.prompt_chars() > 100 { "dear" } else { "cheap" }.into())
    };
    let routes = RouterConfig::new("route")
        .route("cheap", ask("gpt-4o-mini", config.clone()))
        .route("dear", ask("gpt-4o", config))
        .baseline("dear")
        .select(by_size)
        .pricing(ChatPricing::new(Arc::clone(&prices), models));
    router(routes).unwrap().timeout(TimeoutConfig::new("bound", LIMIT).unwrap()).cache(
        CacheConfig::new("answers", Duration::from_secs(600)).unwrap(),
        ChatCaching::new(prices),
        Memory::new(1 << 20).unwrap(),
    )
}

fn calls(recorder: &Recorder) -> f64 {
    recorder.metric(CALLS, &[("primitive", "chat")]).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_repeated_question_is_answered_at_once_and_saves_what_it_cost() {
    let (recorder, flow) = (Recorder::new(), flow(SimulatedConfig::default()));
    let (first, second) = (recorder.context(), recorder.context());
    let answer = whole(flow.run(request(PLAIN), &first).await);
    let start = Instant::now();
    assert_eq!(whole(flow.run(request(PLAIN), &second).await), answer);
    assert_eq!(start.elapsed(), Duration::ZERO);

    assert_eq!((cached(&first), cached(&second)), (CacheOutcome::Miss, CacheOutcome::Hit));
    assert_eq!(first.state().get::<RouteTaken>().unwrap().route, "cheap");
    assert!(second.state().get::<RouteTaken>().is_none() && second.state().get::<Attempts>().is_none());
    assert_eq!(calls(&recorder), 1.0);
    let cost = PriceTable::builtin().cost("gpt-4o-mini", &answer.usage.unwrap());
    assert_eq!(recorder.metric("cache_cost_savings_usd_total", &[]), cost);
    assert_eq!(recorder.metric("llm_cost_usd_total", &[]), cost);
    assert_eq!(recorder.metric("router_cost_usd_total", &[]), cost, "a hit is charged to no route");
}

#[tokio::test(start_paused = true)]
async fn the_spans_of_a_miss_stand_inside_each_other() {
    let (recorder, flow) = (Recorder::new(), flow(SimulatedConfig::default()));
    whole(flow.run(request(PLAIN), &recorder.context()).await);
    let spans = recorder.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["chat gpt-4o-mini", "router route", "timeout bound", "cache answers"]);
    for (inner, outer) in spans.iter().zip(&spans[1..]) {
        assert_eq!(inner.parent_span_id, outer.span_context.span_id(), "{}", inner.name);
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_the_same_at_once_cost_one_call() {
    let (recorder, flow) = (Recorder::new(), flow(SimulatedConfig::default()));
    let contexts: Vec<Context> = (0..10).map(|_| recorder.context()).collect();
    let answers =
        futures_util::future::join_all(contexts.iter().map(|cx| flow.run(request(PLAIN), cx))).await;
    let bodies: Vec<_> = answers.into_iter().map(|answer| whole(answer).body).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(calls(&recorder), 1.0);
    let coalesced = contexts.iter().filter(|cx| cached(cx) == CacheOutcome::Coalesced).count();
    assert_eq!(coalesced, 9);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_times_out_and_is_not_cached() {
    let slow = simulation(|config| {
        (config.faults.slow_rate, config.faults.slow_by) = (1.0, Duration::from_secs(60));
    });
    let (recorder, flow) = (Recorder::new(), flow(slow));
    for _ in 0..2 {
        let (start, cx) = (Instant::now(), recorder.context());
        let error = flow.run(request(PLAIN), &cx).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, LIMIT));
        assert_eq!(cached(&cx), CacheOutcome::Miss);
    }
    assert_eq!(recorder.metric("timeout_failures_total", &[]), Some(2.0));
    assert_eq!(recorder.metric(CALLS, &[("primitive", "chat"), ("outcome", "cancelled")]), Some(2.0));
    assert_eq!(recorder.metric("llm_cost_usd_total", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_bound_by_the_timeout_to_its_end() {
    let slow =
        simulation(|config| (config.tokens_per_second, config.latency_p99) = (2.0, config.latency_p50));
    let (recorder, flow) = (Recorder::new(), flow(slow));
    let (start, cx) = (Instant::now(), recorder.context());
    let mut stream = streamed(flow.run(request(STREAMED), &cx).await);
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        items.push(item);
    }
    let error = items.pop().unwrap().unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, LIMIT));
    assert!(items.len() > 5 && items.iter().all(Result::is_ok));
    assert_eq!(recorder.metric(CALLS, &[("primitive", "chat"), ("outcome", "error")]), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn a_complete_stream_is_charged_kept_and_replayed() {
    let (recorder, flow) = (Recorder::new(), flow(SimulatedConfig::default()));
    let mut texts = Vec::new();
    for expected in [CacheOutcome::Miss, CacheOutcome::Hit] {
        let cx = recorder.context();
        texts.push(drain(streamed(flow.run(request(STREAMED), &cx).await)).await);
        assert_eq!(cached(&cx), expected);
        tokio::task::yield_now().await;
    }
    assert!(texts[0].ends_with("data: [DONE]\n\n"), "{}", texts[0]);
    assert_eq!(texts[0], texts[1], "byte for byte");
    assert_eq!(calls(&recorder), 1.0);
    let money = ["llm_cost_usd_total", "router_cost_usd_total", "cache_cost_savings_usd_total"];
    let [spent, charged, saved] = money.map(|name| recorder.metric(name, &[]).unwrap());
    assert!(spent > 0.0 && (spent - charged).abs() < 1e-12, "{spent} and {charged}");
    assert!((spent - saved).abs() < 1e-12, "what the second would have cost: {saved}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_read_to_its_end_is_not_kept() {
    let (recorder, flow) = (Recorder::new(), flow(SimulatedConfig::default()));
    for _ in 0..2 {
        let cx = recorder.context();
        let mut stream = streamed(flow.run(request(STREAMED), &cx).await);
        assert!(stream.next().await.unwrap().is_ok());
        drop(stream);
        tokio::task::yield_now().await;
        assert_eq!(cached(&cx), CacheOutcome::Miss);
    }
    assert_eq!(calls(&recorder), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_answer_is_not_cached() {
    let failing = simulation(|config| config.faults.error_rate = 1.0);
    let (recorder, flow) = (Recorder::new(), flow(failing));
    for _ in 0..3 {
        let error = flow.run(request(PLAIN), &recorder.context()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream);
    }
    assert_eq!(calls(&recorder), 3.0);
    assert_eq!(recorder.metric("router_errors_total", &[("route", "cheap")]), Some(3.0));
}

#[tokio::test(start_paused = true)]
async fn a_long_prompt_takes_the_dear_route_at_its_price() {
    let (recorder, flow) = (Recorder::new(), flow(SimulatedConfig::default()));
    let long = PLAIN.replace("Hi", &"word ".repeat(100));
    let answer = whole(flow.run(request(&long), &recorder.context()).await);
    assert_eq!(&*answer.model, "gpt-4o");
    let usage: Usage = answer.usage.unwrap();
    assert_eq!(usage.prompt_tokens, 128);
    let cost = recorder.metric("router_cost_usd_total", &[("route", "dear")]);
    assert_eq!(cost, PriceTable::builtin().cost("gpt-4o", &usage));
}
