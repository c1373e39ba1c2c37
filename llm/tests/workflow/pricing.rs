//! What routes are charged: by the usage of each answer, on the route that gave it and on the baseline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use throughline::router::{Router, RouterStats};
use throughline::telemetry::Observed;
use throughline::testing::Recorder;
use throughline::{
    Context, FallbackConfig, HedgeConfig, HedgeDelay, RouterConfig, Workflow, router, workflow_with,
};
use throughline_llm::openai::{ChatRequest, Usage};
use throughline_llm::simulated::SimulatedConfig;
use throughline_llm::{Answer, Attempts, ChatPricing, PriceTable, Spent};

use super::{PLAIN, STREAMED, ask, drain, request, simulation, streamed, whole};

const CHEAP: &str = "gpt-4o-mini";
const DEAR: &str = "gpt-4o";

type Routed = Workflow<Observed<Router<ChatRequest, Answer>>>;

/// A router between the model `cheap` and the baseline `dear`; what is asked with `user` goes to that route.
fn routed(cheap: &str, dear: &str) -> Routed {
    let models = [("cheap", cheap), ("dear", dear)];
    let behind = models.map(|(route, model)| (route.to_owned(), Arc::from(model)));
    let start = RouterConfig::new("ask").default_route("cheap").baseline("dear");
    let config = models.iter().fold(start, |config, (route, model)| {
        config.route(
            *route,
            ask(model, simulation(|config| config.answers = vec!["four words of text".into()])),
        )
    });
    let pricing = ChatPricing::new(PriceTable::builtin().into(), behind.to_vec());
    let by_user =
        |request: &ChatRequest, _: &Context| Ok(request.user().unwrap_or("cheap").to_owned().into());
    router(config.select(by_user).pricing(pricing)).unwrap()
}

fn cost(model: &str, usage: Usage) -> f64 {
    PriceTable::builtin().cost(model, &usage).unwrap()
}

/// The stats count in billionths of a dollar.
fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
}

fn stats(flow: &Routed) -> RouterStats {
    flow.stage().stats()
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_is_charged_by_its_usage_on_its_route_and_on_the_baseline() {
    let (recorder, flow) = (Recorder::new(), routed(CHEAP, DEAR));
    let usage = whole(flow.run(request(PLAIN), &recorder.context()).await).usage.unwrap();
    assert_eq!(usage, Usage::new(4, 5));
    near(stats(&flow).cost_usd, cost(CHEAP, usage));
    near(stats(&flow).baseline_usd, cost(DEAR, usage));
    assert_eq!(stats(&flow).unpriced, 0);
    let booked = |name| recorder.metric(name, &[("route", "cheap")]).unwrap();
    near(booked("router_cost_usd_total"), cost(CHEAP, usage));
    near(booked("router_baseline_cost_usd_total"), cost(DEAR, usage));
    near(booked("router_cost_savings_usd_total"), cost(DEAR, usage) - cost(CHEAP, usage));
    near(recorder.metric("llm_cost_usd_total", &[("model", CHEAP)]).unwrap(), cost(CHEAP, usage));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_is_charged_the_same_when_it_ends() {
    let flow = routed(CHEAP, DEAR);
    let stream = streamed(flow.run(request(STREAMED), &Context::new()).await);
    assert_eq!((stats(&flow).cost_usd, stats(&flow).unpriced), (0.0, 0), "nothing is known before its end");
    drain(stream).await;
    near(stats(&flow).cost_usd, cost(CHEAP, Usage::new(4, 5)));
    near(stats(&flow).baseline_usd, cost(DEAR, Usage::new(4, 5)));
    assert_eq!(stats(&flow).unpriced, 0);
}

#[tokio::test(start_paused = true)]
async fn the_baseline_route_itself_saves_nothing() {
    let (recorder, flow) = (Recorder::new(), routed(CHEAP, DEAR));
    let on_dear = PLAIN.replacen('{', r#"{"user":"dear","#, 1);
    whole(flow.run(request(&on_dear), &recorder.context()).await);
    near(stats(&flow).cost_usd, stats(&flow).baseline_usd);
    assert_eq!(recorder.metric("router_cost_savings_usd_total", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_before_its_usage_came_is_unpriced() {
    let (recorder, flow) = (Recorder::new(), routed(CHEAP, DEAR));
    let mut stream = streamed(flow.run(request(STREAMED), &recorder.context()).await);
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!((stats(&flow).cost_usd, stats(&flow).unpriced), (0.0, 1));
    assert_eq!(recorder.metric("llm_unpriced_calls_total", &[("model", CHEAP)]), Some(1.0));
    assert_eq!(recorder.metric("llm_cost_usd_total", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_price_books_nothing() {
    let (recorder, flow) = (Recorder::new(), routed("never-heard-of", DEAR));
    whole(flow.run(request(PLAIN), &recorder.context()).await);
    drain(streamed(flow.run(request(STREAMED), &recorder.context()).await)).await;
    let stats = stats(&flow);
    assert_eq!((stats.cost_usd, stats.baseline_usd, stats.unpriced), (0.0, 0.0, 2));
    for name in ["router_cost_usd_total", "router_baseline_cost_usd_total", "router_cost_savings_usd_total"] {
        assert_eq!(recorder.metric(name, &[]), Some(0.0), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_baseline_without_a_price_books_the_cost_alone() {
    let (recorder, flow) = (Recorder::new(), routed(CHEAP, "never-heard-of"));
    whole(flow.run(request(PLAIN), &recorder.context()).await);
    near(stats(&flow).cost_usd, cost(CHEAP, Usage::new(4, 5)));
    assert_eq!((stats(&flow).baseline_usd, stats(&flow).unpriced), (0.0, 0));
    assert_eq!(recorder.metric("router_cost_savings_usd_total", &[]), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_fallback_is_charged_by_the_model_that_gave_it_on_the_route_that_was_taken() {
    let recorder = Recorder::new();
    let words = simulation(|config| config.answers = vec!["four words of text".into()]);
    let failing = simulation(|config: &mut SimulatedConfig| config.faults.error_rate = 1.0);
    let cheap = ask(CHEAP, failing).fallback(FallbackConfig::new("cheap").then("dear", ask(DEAR, words)));
    let words = simulation(|config| config.answers = vec!["four words of text".into()]);
    let behind = [("cheap", CHEAP), ("dear", DEAR)].map(|(route, model)| (route.to_owned(), model.into()));
    let config = RouterConfig::new("ask")
        .route("cheap", cheap.unwrap())
        .route("dear", ask(DEAR, words))
        .baseline("dear")
        .pricing(ChatPricing::new(PriceTable::builtin().into(), behind.to_vec()));
    let flow = router(config.select(|_, _| Ok("cheap".into()))).unwrap();

    let usage = whole(flow.run(request(PLAIN), &recorder.context()).await).usage.unwrap();
    near(stats(&flow).cost_usd, cost(DEAR, usage));
    near(stats(&flow).baseline_usd, cost(DEAR, usage));
    near(recorder.metric("router_cost_usd_total", &[("route", "cheap")]).unwrap(), cost(DEAR, usage));
    assert_eq!(recorder.metric("router_cost_usd_total", &[("route", "dear")]), Some(0.0));
    assert_eq!(recorder.metric("router_cost_savings_usd_total", &[]), Some(0.0));
    drain(streamed(flow.run(request(STREAMED), &recorder.context()).await)).await;
    near(stats(&flow).cost_usd, cost(DEAR, usage) * 2.0);
    assert_eq!(stats(&flow).unpriced, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_lost_is_counted_as_a_call_and_charged_to_nobody() {
    let slow = simulation(|config| config.faults.hang_rate = 1.0);
    let second = Arc::new(AtomicU32::new(0));
    let quick = simulation(|config| config.answers = vec!["four words of text".into()]);
    let (slow, quick) = (ask(CHEAP, slow), ask(CHEAP, quick));
    let either = workflow_with("either", move |request: ChatRequest, cx: Context| {
        let (slow, quick, first) = (slow.clone(), quick.clone(), second.fetch_add(1, Ordering::Relaxed) == 0);
        async move { if first { slow.run(request, &cx).await } else { quick.run(request, &cx).await } }
    });
    let hedge = HedgeConfig::for_idempotent_work("ask", HedgeDelay::fixed(Duration::from_secs(2)).unwrap());
    let pricing = ChatPricing::new(PriceTable::builtin().into(), Vec::new());
    let config = RouterConfig::new("ask").route("only", either.hedge(hedge)).pricing(pricing);
    let flow = router(config.select(|_, _| Ok("only".into()))).unwrap();

    let cx = Context::new();
    cx.state().insert(Attempts::default());
    let usage = whole(flow.run(request(PLAIN), &cx).await).usage.unwrap();
    assert_eq!(cx.state().get::<Attempts>().unwrap().count(), 2);
    near(cx.state().get::<Spent>().unwrap().0.unwrap(), cost(CHEAP, usage));
    near(stats(&flow).cost_usd, cost(CHEAP, usage));
    assert_eq!(stats(&flow).unpriced, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_failed_is_charged_to_nobody() {
    let failing = simulation(|config: &mut SimulatedConfig| config.faults.error_rate = 1.0);
    let pricing = ChatPricing::new(PriceTable::builtin().into(), vec![("only".into(), CHEAP.into())]);
    let config = RouterConfig::new("ask").route("only", ask(CHEAP, failing)).pricing(pricing);
    let flow = router(config.select(|_, _| Ok("only".into()))).unwrap();
    flow.run(request(PLAIN), &Context::new()).await.unwrap_err();
    assert_eq!((stats(&flow).cost_usd, stats(&flow).unpriced), (0.0, 0));
}
