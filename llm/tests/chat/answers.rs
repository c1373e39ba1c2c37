//! What comes back whole, and what is left in the context.

use throughline::{Context, Kind};
use throughline_llm::openai::Usage;
use throughline_llm::{Attempts, Spent};

use super::upstream::{Act, Upstream};
use super::{MODEL, STREAMED, ask, ask_with, config, plain, request};

const ANSWER: &str = r#"{"id":"c","choices":[{"message":{"content":"Hello"}}],"x_vendor":1e400,"usage":{"prompt_tokens":1000000,"completion_tokens":500000}}"#;

fn near(got: Option<f64>, expected: f64) {
    let got = got.expect("the cost is known");
    assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
}

#[tokio::test]
async fn an_answer_is_passed_on_byte_for_byte_with_its_usage() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let answer = plain(&ask(upstream.base_url.clone()), &Context::new()).await.unwrap();
    assert_eq!(answer.body, ANSWER);
    assert_eq!(&*answer.model, MODEL);
    assert_eq!(answer.usage, Some(Usage::new(1_000_000, 500_000)));
}

#[tokio::test]
async fn attempts_and_cost_add_up_over_the_calls_of_a_request() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let (ask, cx) = (ask(upstream.base_url.clone()), Context::new());
    for calls in 1..=3 {
        plain(&ask, &cx).await.unwrap();
        assert_eq!(cx.state().get::<Attempts>().unwrap().count(), calls);
        near(cx.state().get::<Spent>().unwrap().0, f64::from(calls) * 0.45);
    }
}

#[tokio::test]
async fn one_unknown_cost_makes_the_sum_unknown() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let cx = Context::new();
    plain(&ask_with(config(upstream.base_url.clone()), "never-heard-of"), &cx).await.unwrap();
    plain(&ask(upstream.base_url.clone()), &cx).await.unwrap();
    assert_eq!(cx.state().get::<Spent>().as_deref(), Some(&Spent(None)));
    assert_eq!(cx.state().get::<Attempts>().unwrap().count(), 2);
}

#[tokio::test]
async fn a_call_that_failed_is_an_attempt_and_costs_nothing() {
    let upstream = Upstream::start(vec![Act::json(503, "", "")]).await;
    let cx = Context::new();
    plain(&ask(upstream.base_url.clone()), &cx).await.unwrap_err();
    assert_eq!(cx.state().get::<Attempts>().unwrap().count(), 1);
    assert_eq!(cx.state().get::<Spent>(), None);
}

#[tokio::test]
async fn an_answer_in_the_wrong_manner_is_refused() {
    let whole = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let error = ask(whole.base_url.clone()).run(request(STREAMED), &Context::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Upstream, false));
    assert_eq!(error.to_string(), "the provider gave a whole answer, a stream was asked for");

    let streamed = Upstream::start(Act::stream(&[b"data: [DONE]\n\n"])).await;
    let error = plain(&ask(streamed.base_url.clone()), &Context::new()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Upstream, false));
    assert_eq!(error.to_string(), "the provider gave a stream, a whole answer was asked for");
}

#[tokio::test]
async fn calls_share_connections() {
    let upstream = Upstream::start(vec![Act::json(200, "", ANSWER)]).await;
    let ask = ask(upstream.base_url.clone());
    for _ in 0..30 {
        plain(&ask, &Context::new()).await.unwrap();
    }
    // A connection goes back to the pool in its own task, so a few may be opened before the first is back.
    assert!(upstream.connections() < 15, "{} connections", upstream.connections());
}
