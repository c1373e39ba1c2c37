//! What the recommended order of wrappers is for: see `docs/guides/order-of-wrapping.md`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use throughline::circuit_breaker::{CircuitState, Window};
use throughline::testing::{Script, Turn};
use throughline::{
    Allowance, Backoff, Budget, BudgetConfig, BulkheadConfig, CircuitBreakerConfig, Context, Error,
    FallbackConfig, HedgeConfig, HedgeDelay, ItemStream, Jitter, Kind, Quota, RateLimitConfig, RetryConfig,
    TimeoutConfig, workflow_stream,
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn upstream() -> Error {
    Error::new(Kind::Upstream, "503")
}

/// Three attempts, a second between them.
fn retry() -> RetryConfig {
    RetryConfig::new("model").backoff(Backoff::constant(SECOND).unwrap().jitter(Jitter::None))
}

/// One more attempt after a second.
fn hedge() -> HedgeConfig {
    HedgeConfig::for_idempotent_work("model", HedgeDelay::fixed(SECOND).unwrap())
}

/// Opens at two failures in a row.
fn breaker() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("model").window(Window::consecutive(2)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_an_observation_and_an_open_circuit_is_not_tried_again_but_is_a_reason_to_fall_back()
{
    let model = Script::new("model").then(Turn::fail(upstream()));
    let breaker = model.workflow::<()>().circuit_breaker(breaker());
    let retried = breaker.retry(retry());
    let flow = retried.fallback(FallbackConfig::new("ask").then_value("sorry", 0)).unwrap();
    let start = Instant::now();
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 0);
    assert_eq!(model.calls(), 2, "the second attempt opened the circuit, which refused the third");
    assert_eq!(start.elapsed(), 2 * SECOND);
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 0);
    assert_eq!((model.calls(), start.elapsed()), (2, 2 * SECOND), "at once, and without a call");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_holds_no_place_in_the_bulkhead_inside() {
    let model = Script::new("model").then(Turn::fail(upstream())).then(Turn::value(7));
    let bulkhead = model.workflow().bulkhead(BulkheadConfig::new("model", 1).unwrap());
    let flow = bulkhead.clone().retry(retry());
    let cx = Context::new();
    let meanwhile = async {
        sleep(SECOND / 2).await;
        assert_eq!((model.calls(), bulkhead.stage().stats().in_use), (1, 0));
        assert_eq!(bulkhead.run((), &cx).await.unwrap(), 7, "another takes the place");
    };
    let (answer, ()) = tokio::join!(flow.run((), &cx), meanwhile);
    assert_eq!((answer.unwrap(), model.calls()), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn retries_and_hedges_pay_for_the_rate_limit_inside() {
    let model = Script::new("model").then(Turn::hang()).then(Turn::fail(upstream())).then(Turn::value(7));
    let account = Allowance::new(Quota::per_minute(10).unwrap());
    let attempt = model.workflow().timeout(TimeoutConfig::new("attempt", 2 * SECOND).unwrap());
    let flow =
        attempt.rate_limit(RateLimitConfig::new("model", account.clone())).hedge(hedge()).retry(retry());
    assert_eq!(flow.run((), &Context::new()).await.unwrap(), 7);
    assert_eq!((model.calls(), account.requests_left()), (3, Some(7)));
}

#[tokio::test(start_paused = true)]
async fn one_budget_bounds_retries_hedges_and_fallbacks_together() {
    let budget = Budget::new(BudgetConfig::default().ratio(0.5).unwrap().floor_per_second(0.0).unwrap());
    (0..4).for_each(|_| budget.deposit());
    let model = Script::new("model").then(Turn::hang());
    let others = Script::new("other").then(Turn::value(7));
    let attempt = model.workflow::<()>().timeout(TimeoutConfig::new("attempt", 3 * SECOND).unwrap());
    let retried = attempt.hedge(hedge().budget(&budget)).retry(retry().budget(&budget));
    let other = FallbackConfig::new("ask").then("other", others.workflow()).budget(&budget);
    let flow = retried.fallback(other).unwrap();
    // Two tokens: a hedge and a retry take them. Neither the second hedge nor the fallback gets one.
    assert_eq!(flow.run((), &Context::new()).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!((model.calls(), others.calls()), (3, 0));
    assert_eq!(budget.stats().withdrawals, 2);
}

#[tokio::test(start_paused = true)]
async fn one_who_gives_up_outside_does_not_keep_a_trial_of_the_circuit_inside() {
    let model = Script::<u64>::new("model").then(Turn::hang());
    let breaker = model.workflow::<()>().circuit_breaker(breaker().trials(1).unwrap());
    let circuit = breaker.stage().circuit().clone();
    circuit.half_open();
    let flow = breaker.timeout(TimeoutConfig::new("whole", SECOND).unwrap()).retry(retry());
    assert_eq!(flow.run((), &Context::new()).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!((model.calls(), model.running()), (3, 0), "each attempt got the place of the one before");
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn a_late_first_item_is_tried_again_and_what_stalls_after_it_is_not() {
    let calls = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&calls);
    // The first stream never begins, the others stall after an item.
    let model = workflow_stream("model", move |(): (), _: Context| {
        let n = seen.fetch_add(1, Ordering::Relaxed);
        async move {
            let items = stream::iter((n > 0).then_some(Ok(n))).chain(stream::pending());
            Ok(ItemStream::new(items))
        }
    });
    let first = TimeoutConfig::new("first", 60 * SECOND).unwrap().first_item(SECOND).unwrap();
    let idle = TimeoutConfig::new("idle", 60 * SECOND).unwrap().between_items(2 * SECOND).unwrap();
    let flow = model.timeout(first).retry(retry()).timeout(idle);
    let mut stream = flow.run((), &Context::new()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), 1, "of the second attempt");
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), Kind::Timeout);
    assert!(stream.next().await.is_none());
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}
