//! What a router says about money: nothing that it does not know.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::time::Duration;

use throughline::router::RouterStats;
use throughline::testing::Recorder;
use throughline::{
    Bill, Context, Error, Kind, Pricing, Primitive, Result, RouterConfig, Workflow, router, workflow,
};

/// An answer that knows how many tokens it took.
type Tokens = u32;

/// USD per 1,000 tokens: `unlisted` has no price.
fn price(route: &str) -> Option<f64> {
    match route {
        "cheap" => Some(0.5),
        "dear" => Some(2.0),
        _ => None,
    }
}

fn cost(route: &str, tokens: Tokens) -> Option<f64> {
    price(route).map(|price| price * f64::from(tokens) / 1000.0)
}

struct ByUsage;

impl Pricing<Tokens> for ByUsage {
    fn settle(&self, tokens: Tokens, bill: Bill) -> Tokens {
        let (spent, baseline) =
            (cost(bill.route(), tokens), bill.baseline().and_then(|route| cost(route, tokens)));
        bill.settle(spent, baseline);
        tokens
    }
}

fn model(name: &'static str) -> Workflow<impl Primitive<In = (&'static str, Tokens), Out = Tokens>> {
    workflow(name, |(_, tokens): (&'static str, Tokens)| async move { Ok(tokens) })
}

fn models() -> RouterConfig<(&'static str, Tokens), Tokens> {
    RouterConfig::new("chat")
        .route("cheap", model("cheap"))
        .route("dear", model("dear"))
        .route("unlisted", model("unlisted"))
        .select(|(route, _): &(&'static str, Tokens), _| Ok((*route).into()))
        .pricing(ByUsage)
}

async fn booked(
    config: RouterConfig<(&'static str, Tokens), Tokens>,
    route: &'static str,
) -> (Recorder, RouterStats) {
    let recorder = Recorder::new();
    let flow = router(config).unwrap();
    flow.run((route, 1_000), &recorder.context()).await.unwrap();
    (recorder, flow.stage().stats())
}

fn usd(recorder: &Recorder, route: &str) -> [Option<f64>; 3] {
    ["router_cost_usd_total", "router_baseline_cost_usd_total", "router_cost_savings_usd_total"]
        .map(|name| recorder.metric(name, &[("route", route)]))
}

#[tokio::test]
async fn a_cheaper_route_books_its_cost_the_baseline_and_the_difference() {
    let (recorder, stats) = booked(models().baseline("dear"), "cheap").await;
    assert_eq!(usd(&recorder, "cheap"), [Some(0.5), Some(2.0), Some(1.5)]);
    assert_eq!(usd(&recorder, "dear"), [Some(0.0); 3]);
    assert_eq!((stats.cost_usd, stats.baseline_usd, stats.unpriced), (0.5, 2.0, 0));
}

#[tokio::test]
async fn the_baseline_route_itself_saves_nothing() {
    let (recorder, _) = booked(models().baseline("dear"), "dear").await;
    assert_eq!(usd(&recorder, "dear"), [Some(2.0), Some(2.0), Some(0.0)]);
}

#[tokio::test]
async fn a_dearer_route_than_the_baseline_books_no_savings() {
    let (recorder, stats) = booked(models().baseline("cheap"), "dear").await;
    assert_eq!(usd(&recorder, "dear"), [Some(2.0), Some(0.5), Some(0.0)]);
    assert_eq!((stats.cost_usd, stats.baseline_usd), (2.0, 0.5), "the loss shows in cost against baseline");
}

#[tokio::test]
async fn an_unpriced_route_is_unknown_and_not_free() {
    let (recorder, stats) = booked(models().baseline("dear"), "unlisted").await;
    assert_eq!(usd(&recorder, "unlisted"), [Some(0.0); 3]);
    assert_eq!((stats.unpriced, stats.cost_usd, stats.baseline_usd), (1, 0.0, 0.0));
}

#[tokio::test]
async fn without_a_known_baseline_there_is_a_cost_and_no_saving() {
    for config in [models(), models().baseline("unlisted")] {
        let (recorder, stats) = booked(config, "cheap").await;
        assert_eq!(usd(&recorder, "cheap"), [Some(0.5), Some(0.0), Some(0.0)]);
        assert_eq!(stats.unpriced, 0);
    }
}

#[tokio::test]
async fn a_cost_that_is_no_amount_of_money_counts_as_unknown() {
    struct Odd(f64, Option<f64>);
    impl Pricing<Tokens> for Odd {
        fn settle(&self, tokens: Tokens, bill: Bill) -> Tokens {
            bill.settle(Some(self.0), self.1);
            tokens
        }
    }
    for odd in [f64::NAN, f64::INFINITY, -1.0] {
        let (recorder, stats) = booked(models().pricing(Odd(odd, Some(1.0))), "cheap").await;
        assert_eq!(usd(&recorder, "cheap"), [Some(0.0); 3], "cost {odd}");
        assert_eq!((stats.unpriced, stats.cost_usd, stats.baseline_usd), (1, 0.0, 0.0), "cost {odd}");

        let (recorder, stats) = booked(models().pricing(Odd(0.25, Some(odd))), "cheap").await;
        assert_eq!(usd(&recorder, "cheap"), [Some(0.25), Some(0.0), Some(0.0)], "baseline {odd}");
        assert_eq!((stats.unpriced, stats.baseline_usd), (0, 0.0), "baseline {odd}");
    }
}

#[tokio::test]
async fn without_pricing_there_is_no_series_of_money() {
    let recorder = Recorder::new();
    let config = RouterConfig::new("chat").route("only", model("only")).select(|_, _| Ok("only".into()));
    router(config).unwrap().run(("only", 5), &recorder.context()).await.unwrap();
    assert_eq!(usd(&recorder, "only"), [None; 3]);
}

#[tokio::test]
async fn a_route_that_fails_costs_nothing_and_is_not_unpriced() {
    let recorder = Recorder::new();
    let down = workflow("down", |_: ()| async { Err::<Tokens, _>(Error::new(Kind::Upstream, "503")) });
    let config =
        RouterConfig::new("chat").route("down", down).select(|_, _| Ok("down".into())).pricing(ByUsage);
    let flow = router(config).unwrap();
    flow.run((), &recorder.context()).await.unwrap_err();
    assert_eq!(usd(&recorder, "down"), [Some(0.0); 3]);
    assert_eq!(flow.stage().stats().unpriced, 0);
}

/// An answer whose usage is known when it has been read to its end.
struct Stream {
    tokens: Tokens,
    bill: Option<Bill>,
}

struct AtTheEnd;

impl Pricing<Stream> for AtTheEnd {
    fn settle(&self, stream: Stream, bill: Bill) -> Stream {
        Stream { bill: Some(bill), ..stream }
    }
}

impl Stream {
    fn read_to_the_end(mut self) {
        let bill = self.bill.take().expect("the router has handed over the bill");
        let (route, baseline) = (bill.route().to_owned(), bill.baseline().map(str::to_owned));
        bill.settle(cost(&route, self.tokens), baseline.and_then(|route| cost(&route, self.tokens)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bill_can_be_settled_long_after_the_router_has_returned() {
    let recorder = Recorder::new();
    let open = |name| workflow(name, |()| async { Ok::<_, Error>(Stream { tokens: 2_000, bill: None }) });
    let config = RouterConfig::new("chat")
        .route("cheap", open("cheap"))
        .route("dear", open("dear"))
        .baseline("dear")
        .select(|(), _| Ok("cheap".into()))
        .pricing(AtTheEnd);
    let flow = router(config).unwrap();
    let stream = flow.run((), &recorder.context()).await.unwrap();
    assert_eq!(usd(&recorder, "cheap"), [Some(0.0); 3], "nothing is known yet");

    tokio::time::advance(Duration::from_secs(30)).await;
    stream.read_to_the_end();
    assert_eq!(usd(&recorder, "cheap"), [Some(1.0), Some(4.0), Some(3.0)]);

    drop(flow.run((), &recorder.context()).await.unwrap());
    assert_eq!(flow.stage().stats().unpriced, 1, "a stream that is given up has an unknown cost");
    assert_eq!(usd(&recorder, "cheap"), [Some(1.0), Some(4.0), Some(3.0)]);
}

#[tokio::test]
async fn books_are_kept_without_telemetry() -> Result<()> {
    let off = throughline::telemetry::Sink::without_telemetry(throughline::Clock::Tokio);
    let flow = router(models().baseline("dear")).unwrap();
    for _ in 0..3 {
        flow.run(("cheap", 1_000), &Context::builder().sink(&off).build()).await?;
    }
    let stats = flow.stage().stats();
    assert_eq!((stats.cost_usd, stats.baseline_usd), (1.5, 6.0));
    Ok(())
}
