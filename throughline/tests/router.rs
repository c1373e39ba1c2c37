//! How a router decides, what it does when the decision fails, and what it counts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use throughline::router::{OnUnknownRoute, RouteReason};
use throughline::testing::Recorder;
use throughline::{
    Clock, ConfigError, Context, Error, Kind, Primitive, Result, RouteTaken, RouterConfig, TimeoutConfig,
    Workflow, router, weighted, workflow,
};

type Picked = Result<Cow<'static, str>>;

fn answering(name: &'static str) -> Workflow<impl Primitive<In = String, Out = String>> {
    workflow(name, move |input: String| async move { Ok(format!("{name}: {input}")) })
}

fn failing(name: &'static str, kind: Kind) -> Workflow<impl Primitive<In = String, Out = String>> {
    workflow(name, move |_: String| async move { Err(Error::new(kind, "no answer from the model")) })
}

/// Two routes, `fast` being the default.
fn two() -> RouterConfig<String, String> {
    RouterConfig::new("chat").route("fast", answering("fast")).route("premium", answering("premium"))
}

#[expect(clippy::ptr_arg, reason = "a selector takes the input by reference, whatever its type")]
fn by_length(input: &String, _: &Context) -> Picked {
    Ok(if input.len() > 20 { "premium" } else { "fast" }.into())
}

fn decisions(recorder: &Recorder, route: &str, reason: &str) -> Option<f64> {
    recorder.metric("router_decisions_total", &[("route", route), ("reason", reason)])
}

fn errors(recorder: &Recorder) -> BTreeMap<(String, String), f64> {
    let scrape = recorder.scrape();
    let series = scrape.select("router_errors_total", &[]);
    series.map(|s| ((s.labels["route"].clone(), s.labels["error_type"].clone()), s.value)).collect()
}

fn error_series(route: &str, error_type: &str, count: f64) -> BTreeMap<(String, String), f64> {
    BTreeMap::from([((route.to_owned(), error_type.to_owned()), count)])
}

fn refusal(config: RouterConfig<String, String>) -> ConfigError {
    router(config).expect_err("the configuration is refused")
}

#[test]
fn shows_its_routes_and_its_default() {
    let flow = router(two().default_route("premium").select(by_length)).unwrap();
    let routes: Vec<_> = flow.stage().stats().routes.into_iter().map(|(name, _)| name).collect();
    assert_eq!(routes, ["fast", "premium"]);
    assert_eq!(
        format!("{:?}", flow.stage()),
        "Router(chat, routes fast|premium, default premium, 0 decisions)"
    );
    let edges: Vec<_> = flow.describe().children().iter().map(|node| node.operation().to_owned()).collect();
    assert_eq!(edges, ["fast", "premium"]);
}

#[test]
fn refuses_to_be_built_without_routes() {
    let error = refusal(RouterConfig::new("chat").select(by_length));
    assert_eq!(error.to_string(), "router `chat` has no routes: add at least one");
}

#[test]
fn refuses_a_default_or_baseline_that_is_not_a_route() {
    assert_eq!(
        refusal(two().default_route("slow").select(by_length)).to_string(),
        "default route `slow` does not exist: routes are fast, premium"
    );
    assert_eq!(
        refusal(two().baseline("gold").select(by_length)).to_string(),
        "baseline route `gold` does not exist: routes are fast, premium"
    );
}

#[test]
fn refuses_a_route_that_is_given_twice_and_a_missing_selector() {
    let twice = two().route("fast", answering("again")).select(by_length);
    assert_eq!(refusal(twice).to_string(), "route `fast` is given twice");
    assert_eq!(refusal(two()).to_string(), "router `chat` has no selector: call `select`");
}

#[tokio::test]
async fn a_short_query_takes_the_fast_route_and_a_long_one_the_premium_route() {
    let recorder = Recorder::new();
    let flow = router(two().select(by_length)).unwrap();
    assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "fast: hi");
    let long = "compare two proofs at length";
    assert_eq!(flow.run(long.into(), &recorder.context()).await.unwrap(), format!("premium: {long}"));

    assert_eq!(decisions(&recorder, "fast", "routing_function"), Some(1.0));
    assert_eq!(decisions(&recorder, "premium", "routing_function"), Some(1.0));
    assert_eq!(recorder.metric("router_decisions_total", &[]), Some(2.0));
    assert_eq!(recorder.metric("router_execution_seconds_count", &[("route", "premium")]), Some(1.0));
    assert_eq!(errors(&recorder), BTreeMap::new());
    let stats = flow.stage().stats();
    assert_eq!(stats.decisions, 2);
    assert_eq!(stats.routes, [("fast".to_owned(), 1), ("premium".to_owned(), 1)]);
}

#[tokio::test]
async fn a_selector_that_fails_leads_to_the_default_route() {
    let recorder = Recorder::new();
    let fails = |_: &String, _: &Context| -> Picked { Err(Error::new(Kind::Internal, "no model loaded")) };
    let flow = router(two().default_route("premium").select(fails)).unwrap();
    assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "premium: hi");
    assert_eq!(decisions(&recorder, "premium", "routing_error_fallback"), Some(1.0));
    assert_eq!(errors(&recorder), error_series("none", "routing_function", 1.0), "no route is to blame");
}

#[tokio::test]
async fn a_selector_that_panics_leads_to_the_default_route() {
    fn panics(input: &str) -> Picked {
        panic!("cannot place {input}")
    }
    let sync = router(two().select(|input: &String, _| panics(input))).unwrap();
    let awaited = two().select_async(|input: &String, _| {
        Box::pin(async move {
            tokio::task::yield_now().await;
            panics(input)
        })
    });
    for flow in [sync, router(awaited).unwrap()] {
        let recorder = Recorder::new();
        assert_eq!(flow.run("hi".into(), &recorder.context()).await.unwrap(), "fast: hi");
        assert_eq!(decisions(&recorder, "fast", "routing_error_fallback"), Some(1.0));
        assert_eq!(
            recorder.metric("throughline_primitive_events_total", &[("event", "selector_panicked")]),
            Some(1.0)
        );
    }
}

#[tokio::test]
async fn an_async_selector_is_awaited() {
    let recorder = Recorder::new();
    let config = two().select_async(|input: &String, cx: &Context| {
        Box::pin(async move {
            tokio::task::yield_now().await;
            by_length(input, cx)
        })
    });
    let flow = router(config).unwrap();
    assert!(flow.run("x".repeat(30), &recorder.context()).await.unwrap().starts_with("premium"));
    assert_eq!(decisions(&recorder, "premium", "routing_function"), Some(1.0));
}

#[tokio::test]
async fn an_unknown_route_leads_to_the_default_route_and_never_into_a_label() {
    let recorder = Recorder::new();
    let flow = router(two().select(|input: &String, _| Ok(input.clone().into()))).unwrap();
    flow.run("fast".into(), &recorder.context()).await.unwrap();
    flow.run("warm up".into(), &recorder.context()).await.unwrap();
    let before = recorder.scrape().samples().len();
    for n in 0..10_000 {
        flow.run(format!("made up {n}"), &recorder.context()).await.unwrap();
    }
    assert_eq!(recorder.scrape().samples().len(), before, "hostile requests add no series");
    assert_eq!(decisions(&recorder, "fast", "invalid_route_fallback"), Some(10_001.0));
    assert_eq!(errors(&recorder), error_series("none", "invalid_route", 10_001.0));
}

#[tokio::test]
async fn an_unknown_route_is_an_error_where_so_configured() {
    let recorder = Recorder::new();
    let config = two().on_unknown(OnUnknownRoute::Fail).select(|_: &String, _| Ok("secret-name".into()));
    let flow = router(config).unwrap();
    let error = flow.run("hi".into(), &recorder.context()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
    assert_eq!(error.to_string(), "no such route: routes are fast, premium");
    assert_eq!(errors(&recorder), error_series("none", "invalid_route", 1.0));
    assert_eq!(recorder.metric("router_decisions_total", &[]), Some(0.0), "nothing was decided");
    assert_eq!(recorder.metric("router_execution_seconds_count", &[]), Some(0.0));
}

#[tokio::test]
async fn a_selectors_own_error_is_passed_on_where_so_configured() {
    let recorder = Recorder::new();
    let fails = |_: &String, _: &Context| -> Picked { Err(Error::new(Kind::Upstream, "classifier is away")) };
    let flow = router(two().on_unknown(OnUnknownRoute::Fail).select(fails)).unwrap();
    let error = flow.run("hi".into(), &recorder.context()).await.unwrap_err();
    assert_eq!(error.to_string(), "classifier is away");
    assert_eq!(errors(&recorder), error_series("none", "routing_function", 1.0));
    let runs = recorder.metric(
        "throughline_primitive_duration_seconds_count",
        &[("primitive", "router"), ("outcome", "error")],
    );
    assert_eq!(runs, Some(1.0));
}

#[tokio::test]
async fn a_failing_route_is_counted_under_its_own_name_by_kind() {
    let recorder = Recorder::new();
    let config = RouterConfig::new("chat")
        .route("fast", answering("fast"))
        .route("down", failing("down", Kind::Upstream))
        .route("full", failing("full", Kind::RateLimited))
        .select(|input: &String, _| Ok(input.clone().into()));
    let flow = router(config).unwrap();
    for (route, kind) in [("down", Kind::Upstream), ("down", Kind::Upstream), ("full", Kind::RateLimited)] {
        let error = flow.run(route.into(), &recorder.context()).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, "no answer from the model"));
    }
    let mut expected = error_series("down", "upstream", 2.0);
    expected.extend(error_series("full", "rate_limited", 1.0));
    assert_eq!(errors(&recorder), expected);
    assert_eq!(decisions(&recorder, "down", "routing_function"), Some(2.0), "the decision was a good one");
    assert_eq!(recorder.metric("router_execution_seconds_count", &[("route", "down")]), Some(2.0));
}

#[tokio::test(start_paused = true)]
async fn execution_time_is_the_routes_and_falls_into_buckets_of_seconds() {
    let recorder = Recorder::new();
    let slow = workflow("slow", |input: String| async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        Ok(input)
    });
    let flow =
        router(RouterConfig::new("chat").route("slow", slow).select(|_, _| Ok("slow".into()))).unwrap();
    flow.run("hi".into(), &recorder.context()).await.unwrap();
    let bucket = |le| recorder.metric("router_execution_seconds_bucket", &[("route", "slow"), ("le", le)]);
    assert_eq!((bucket("0.2"), bucket("0.5")), (Some(0.0), Some(1.0)));
    let median = recorder.scrape().quantile(0.5, "router_execution_seconds", &[]).unwrap();
    assert!((0.2..=0.5).contains(&median), "{median}");
}

#[tokio::test]
async fn it_works_and_keeps_its_own_counts_without_telemetry() {
    let off = throughline::telemetry::Sink::without_telemetry(Clock::Tokio);
    let flow = router(two().select(by_length)).unwrap();
    let cx = Context::builder().sink(&off).build();
    assert_eq!(flow.run("hi".into(), &cx).await.unwrap(), "fast: hi");
    assert_eq!(flow.stage().stats().decisions, 1);
    assert_eq!(off.render(), "");
}

#[tokio::test]
async fn empty_and_absent_inputs_are_routed_like_others() {
    let map = workflow("map", |input: BTreeMap<String, String>| async move { Ok(input.len()) });
    let select = |input: &BTreeMap<String, String>, _: &Context| -> Picked {
        let route = input.get("route").ok_or_else(|| Error::new(Kind::InvalidInput, "no route given"))?;
        Ok(route.clone().into())
    };
    let flow = router(RouterConfig::new("maps").route("map", map).select(select)).unwrap();
    assert_eq!(flow.run(BTreeMap::new(), &Context::new()).await.unwrap(), 0);

    let absent = workflow("absent", |input: Option<String>| async move { Ok(input.is_none()) });
    let select = |input: &Option<String>, _: &Context| -> Picked {
        Ok(if input.as_ref().expect("there is a query").is_empty() { "a" } else { "b" }.into())
    };
    let flow = router(RouterConfig::new("options").route("only", absent).select(select)).unwrap();
    let cx = Context::new();
    assert!(flow.run(None, &cx).await.unwrap());
    let taken = cx.state().get::<RouteTaken>().unwrap();
    assert_eq!((taken.route.as_str(), taken.reason), ("only", RouteReason::RoutingErrorFallback));
}

#[tokio::test]
async fn keywords_can_decide() {
    let hard = ["prove", "design", "analyse"];
    let select = move |input: &String, _: &Context| -> Picked {
        Ok(if hard.iter().any(|word| input.contains(word)) { "premium" } else { "fast" }.into())
    };
    let flow = router(two().select(select)).unwrap();
    let cx = Context::new();
    assert_eq!(flow.run("prove it".into(), &cx).await.unwrap(), "premium: prove it");
    assert_eq!(flow.run("say it".into(), &cx).await.unwrap(), "fast: say it");
}

#[tokio::test]
async fn the_context_can_decide() {
    let select = |_: &String, cx: &Context| -> Picked {
        Ok(if cx.tag("priority") == Some("high") { "premium" } else { "fast" }.into())
    };
    let flow = router(two().select(select)).unwrap();
    let high = Context::builder().tag("priority", "high").build();
    assert_eq!(flow.run("q".into(), &high).await.unwrap(), "premium: q");
    assert_eq!(flow.run("q".into(), &Context::new()).await.unwrap(), "fast: q");
}

#[tokio::test]
async fn what_stands_behind_it_learns_which_route_was_taken() {
    let cx = Context::new();
    router(two().select(by_length)).unwrap().run("hi".into(), &cx).await.unwrap();
    let taken = cx.state().get::<RouteTaken>().unwrap();
    assert_eq!(*taken, RouteTaken { route: "fast".into(), reason: RouteReason::RoutingFunction });
}

#[tokio::test]
async fn weights_share_out_ten_thousand_draws() {
    fastrand::seed(20_251_027);
    let config = two().route("never", answering("never"));
    let flow = router(config.select(weighted([("fast", 9), ("premium", 1), ("never", 0)]).unwrap())).unwrap();
    for _ in 0..10_000 {
        flow.run("q".into(), &Context::new()).await.unwrap();
    }
    let counts: BTreeMap<_, _> = flow.stage().stats().routes.into_iter().collect();
    assert_eq!(counts["never"], 0);
    // Four standard deviations of a binomial with n = 10,000 and p = 0.1 are 120.
    assert!(counts["premium"].abs_diff(1_000) < 120, "{counts:?}");
    assert_eq!(counts["fast"] + counts["premium"], 10_000);
}

#[test]
fn weights_that_add_up_to_nothing_are_refused() {
    let error = weighted::<String>([("fast", 0), ("premium", 0)]).err().unwrap();
    assert_eq!(error.to_string(), "route weights add up to 0: at least one must be above 0");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_decision_or_route_is_counted_as_cancelled() {
    let recorder = Recorder::new();
    let hang = workflow("hang", |_: String| std::future::pending::<Result<String>>());
    let config = RouterConfig::new("chat").route("hang", hang).select(|_, _| Ok("hang".into()));
    let flow = router(config)
        .unwrap()
        .timeout(TimeoutConfig::new("guard", std::time::Duration::from_secs(1)).unwrap());
    assert_eq!(flow.run("q".into(), &recorder.context()).await.unwrap_err().kind(), Kind::Timeout);
    let router = [("primitive", "router")];
    let cancelled = [("primitive", "router"), ("outcome", "cancelled")];
    assert_eq!(recorder.metric("throughline_primitive_duration_seconds_count", &cancelled), Some(1.0));
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &router), Some(0.0));
    assert_eq!(errors(&recorder), BTreeMap::new(), "the route has not failed");
}
