//! What is measured: each primitive around a step that adds one, in the order of the table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use throughline::cache::CachePolicy;
use throughline::{
    AdaptiveTimeoutConfig, Allowance, Backoff, Budget, BudgetConfig, BulkheadConfig, CacheConfig, Caching,
    Circuit, CircuitBreakerConfig, ConditionalConfig, ConfigError, Context, Error, FallbackConfig,
    HedgeConfig, HedgeDelay, ItemStream, JsonCaching, KeyBuilder, Kind, Memory, ParallelConfig, Primitive,
    Quota, RateLimitConfig, Result, RetryConfig, RouterConfig, SagaConfig, ShedConfig, SwitchConfig,
    TimeoutConfig, Workflow, conditional, parallel, router, switch, workflow, workflow_of_service,
    workflow_stream,
};
use tokio::runtime::Runtime;
use tower::Service as _;

use super::{Case, Measure};
use crate::cpu::of_thread;

pub(super) const STEP: &str = "step";
pub(super) const CLOCK: &str = "two clock reads";

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// Inputs of a list, items of a stream.
const MANY: u32 = 10;

pub(super) fn cases() -> Vec<Case> {
    let groups = [
        ("to compare with", basics()),
        ("to choose", choices()),
        ("to do several things", several()),
        ("when it may go wrong", failures()),
        ("when it may be slow", delays()),
        ("when there is too much of it", load()),
        ("to put it together", together().expect("the configurations are allowed")),
    ];
    let cases = groups.into_iter().flat_map(|(group, cases)| {
        cases.into_iter().map(move |(name, measure)| Case { group, name, measure })
    });
    cases.collect()
}

type Named = (&'static str, Measure);

fn basics() -> Vec<Named> {
    vec![
        ("bare call", measured(1, async |n, _| add_one(n).await.expect("it cannot fail"))),
        (CLOCK, Box::new(two_clock_reads)),
        (STEP, case(step())),
        ("step in a trace that is not sampled", Box::new(unsampled)),
        ("step that fails", failing(down())),
    ]
}

fn choices() -> Vec<Named> {
    let is_even = |n: &u64, _: &Context| n.is_multiple_of(2);
    let either = ConditionalConfig::new("either", is_even, step()).otherwise(step());
    let by_rest = SwitchConfig::new("rest").on(|n: &u64, _| n % 2).case(0_u64, step()).case(1_u64, step());
    vec![
        ("router(step)", case(routed())),
        ("conditional(step, step)", case(conditional(either))),
        (
            "switch(step, step)",
            case(switch(by_rest.pass_through()).expect("it has cases and what is no case passes through")),
        ),
    ]
}

fn several() -> Vec<Named> {
    let both = |(a, b): (u64, u64)| a.max(b);
    let settled = |(a, b): (Result<u64>, Result<u64>)| a.and(b).expect("it cannot fail");
    let greatest = |all: Vec<u64>| all.into_iter().max().expect("it is not empty");
    let each = step().each(ParallelConfig::new("each"));
    let each_of_four = step().each(ParallelConfig::new("each").max_concurrent(4).expect("four is allowed"));
    vec![
        ("map(step)", case(step().map(|n| n))),
        ("step \\| step", case((step() | step()).map(both))),
        ("settle(step \\| step)", case((step() | step()).settle("both").map(settled))),
        ("race(step \\| step)", case((step() | step()).race("first"))),
        (
            "quorum of 2 (step \\| step)",
            case((step() | step()).quorum("two", 2).expect("there are two").map(greatest)),
        ),
        (
            "parallel of 2 steps",
            case(
                parallel(ParallelConfig::new("both"), vec![step(), step()])
                    .expect("there are two")
                    .map(greatest),
            ),
        ),
        ("each(step) of 10 inputs, per input", list(each)),
        ("each(step) of 10 inputs, 4 at once, per input", list(each_of_four)),
        ("saga(step with undo)", case(undoable().saga(SagaConfig::new("one")))),
        (
            "saga(three steps with undo)",
            case((undoable() >> undoable() >> undoable()).saga(SagaConfig::new("three"))),
        ),
    ]
}

fn failures() -> Vec<Named> {
    let at_once = || {
        let backoff = Backoff::constant(Duration::ZERO).expect("no delay is allowed");
        RetryConfig::new("retry").backoff(backoff)
    };
    let fallback = || FallbackConfig::new("fallback").then("other", step());
    let open = Circuit::new(CircuitBreakerConfig::new("open").open_for(HOUR).expect("an hour is allowed"));
    open.open();
    vec![
        ("retry(step), first attempt answers", case(step().retry(at_once()))),
        ("retry(step), one retry without delay", case(moody().retry(at_once()))),
        (
            "fallback(step, step), primary answers",
            case(step().fallback(fallback()).expect("there is one alternative")),
        ),
        (
            "fallback(step that fails, step)",
            case(down().fallback(fallback()).expect("there is one alternative")),
        ),
        ("circuit_breaker(step), closed", case(step().circuit_breaker(CircuitBreakerConfig::new("closed")))),
        ("circuit_breaker(step), open, refused", failing(step().circuit_breaker(&open))),
    ]
}

fn delays() -> Vec<Named> {
    let hedged = |delay: Result<HedgeDelay, ConfigError>| {
        step().hedge(HedgeConfig::for_idempotent_work("hedge", delay.expect("the delay is allowed")))
    };
    let adaptive = AdaptiveTimeoutConfig::new("limit", MINUTE, HOUR).expect("an hour is allowed");
    vec![
        ("timeout(step)", case(step().timeout(limit()))),
        ("adaptive_timeout(step)", case(step().adaptive_timeout(adaptive))),
        ("10 items, per stream", streamed(items())),
        ("timeout(10 items), per stream", streamed(items().timeout(limit()))),
        ("hedge(step), fixed delay, primary answers", case(hedged(HedgeDelay::fixed(MINUTE)))),
        (
            "hedge(step), learned delay, primary answers",
            case(hedged(HedgeDelay::percentile(0.95, MINUTE, HOUR))),
        ),
        ("cache(step), hit", case(cached(step()))),
        ("cache(step), hit, with a policy of the caller's", asked_with_a_policy(case(cached(step())))),
        ("cache(step), miss", always_new(cached(step()))),
    ]
}

fn load() -> Vec<Named> {
    let plenty = || Quota::per_minute(600_000_000).expect("it is the most that is allowed");
    let both = RateLimitConfig::new("both", Allowance::of_both(plenty(), plenty()));
    vec![
        (
            "bulkhead(step), free",
            case(step().bulkhead(BulkheadConfig::new("bulkhead", 64).expect("64 is allowed"))),
        ),
        (
            "rate_limit(step) of requests, free",
            case(step().rate_limit(RateLimitConfig::new("requests", plenty()))),
        ),
        (
            "rate_limit(step) of requests and tokens, settled, free",
            case(step().rate_limit(both.estimate(|_| 10).actual(|_| Some(5)))),
        ),
        ("shed(step), free", case(step().shed(ShedConfig::new("shed")))),
    ]
}

fn together() -> Result<Vec<Named>, ConfigError> {
    Ok(vec![
        ("named(step)", case(step().named("named"))),
        ("boxed(step)", case(step().boxed())),
        ("step as a tower service, per call", Box::new(as_a_service)),
        (
            "tower service as a step",
            case(workflow_of_service("service", tower::service_fn(|n: u64| async move { add_one(n).await }))),
        ),
        ("timeout(cache(router(step))), hit", case(cached(routed()).timeout(limit()))),
        ("cache(timeout(router(step))), hit", case(cached(routed().timeout(limit())))),
        ("router >> cache >> timeout, hit", case(routed() >> cached(step()) >> step().timeout(limit()))),
        ("recommended stack, hit", case(recommended(JsonCaching::keyed(key))?)),
        ("recommended stack, not cached", case(recommended(JsonCaching::keyed(|_: &u64, _, _| None))?)),
    ])
}

// === the work ===

async fn add_one(n: u64) -> Result<u64> {
    Ok(std::hint::black_box(n) % 8 + 1)
}

fn step() -> Workflow<impl Primitive<In = u64, Out = u64> + Clone + 'static> {
    workflow("add", add_one)
}

fn down() -> Workflow<impl Primitive<In = u64, Out = u64> + 'static> {
    workflow("down", |_: u64| async { Err(Error::new(Kind::Upstream, "503")) })
}

/// Fails at every first, third, fifth call.
fn moody() -> Workflow<impl Primitive<In = u64, Out = u64> + 'static> {
    let calls = AtomicU64::new(0);
    workflow("moody", move |n: u64| {
        let fails = calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        async move { if fails { Err(Error::new(Kind::Upstream, "503")) } else { add_one(n).await } }
    })
}

fn undoable() -> Workflow<impl Primitive<In = u64, Out = u64> + 'static> {
    step().undo(step())
}

fn items() -> Workflow<impl Primitive<In = u64, Out = ItemStream<u64>> + 'static> {
    workflow_stream("items", |n: u64, _cx: Context| async move {
        let end = n + u64::from(MANY);
        Ok(ItemStream::new(stream::iter((n..end).map(Ok))))
    })
}

fn routed() -> Workflow<impl Primitive<In = u64, Out = u64> + 'static> {
    router(
        RouterConfig::new("route")
            .route("a", step())
            .route("b", step())
            .select(|n: &u64, _| Ok(if n.is_multiple_of(2) { "a" } else { "b" }.into())),
    )
    .expect("the routes exist")
}

fn cached<P>(inner: Workflow<P>) -> Workflow<impl Primitive<In = u64, Out = u64> + 'static>
where
    P: Primitive<In = u64, Out = u64> + 'static,
{
    inner.cache(
        CacheConfig::new("answers", HOUR).expect("an hour is allowed"),
        JsonCaching::keyed(key),
        Memory::new(1 << 20).expect("a megabyte is allowed"),
    )
}

#[expect(clippy::unnecessary_wraps, reason = "a key that is not for caching is `None`")]
fn key(n: &u64, _: &Context, key: KeyBuilder) -> Option<KeyBuilder> {
    Some(key.part(&n.to_le_bytes()))
}

fn limit() -> TimeoutConfig {
    TimeoutConfig::new("limit", MINUTE).expect("a minute is allowed")
}

/// The stack of docs/guides/order-of-wrapping.md, with an allowance that is never used up.
fn recommended(
    caching: impl Caching<u64, u64> + 'static,
) -> Result<Workflow<impl Primitive<In = u64, Out = u64> + 'static>, ConfigError> {
    let seconds = Duration::from_secs;
    let budget = Budget::new(BudgetConfig::default());
    let ask = step()
        .timeout(TimeoutConfig::new("attempt", seconds(20))?)
        .rate_limit(RateLimitConfig::new("model", Quota::per_minute(600_000_000)?))
        .bulkhead(BulkheadConfig::new("model", 64)?.queue(64).max_wait(seconds(2))?)
        .circuit_breaker(CircuitBreakerConfig::new("model"))
        .hedge(
            HedgeConfig::for_idempotent_work("model", HedgeDelay::percentile(0.95, seconds(1), seconds(10))?)
                .budget(&budget),
        )
        .retry(
            RetryConfig::new("model")
                .max_attempts(3)?
                .backoff(Backoff::exponential(Duration::from_millis(200), seconds(5))?)
                .budget(&budget.withdraw_only()),
        )
        .timeout(TimeoutConfig::new("whole", seconds(60))?)
        .cache(CacheConfig::new("answers", seconds(600))?, caching, Memory::new(64 << 20)?)
        .fallback(FallbackConfig::new("ask").then_value("apology", 0))?
        .named("ask");
    Ok(ask)
}

// === how it is measured ===

/// One workflow for all modes: a fresh binding per telemetry instance is not what is measured.
fn case<P, Shape: 'static>(flow: Workflow<P, Shape>) -> Measure
where
    P: Primitive<In = u64, Out = u64> + 'static,
{
    measured(1, async move |n, cx| flow.run(n, cx).await.expect("it cannot fail"))
}

fn failing<P>(flow: Workflow<P>) -> Measure
where
    P: Primitive<In = u64, Out = u64> + 'static,
{
    measured(1, async move |n, cx| {
        assert!(flow.run(n, cx).await.is_err(), "it always fails");
        n
    })
}

/// Never gives the same input twice.
fn always_new<P>(flow: Workflow<P>) -> Measure
where
    P: Primitive<In = u64, Out = u64> + 'static,
{
    let inputs = AtomicU64::new(0);
    measured(1, async move |_, cx| {
        let input = inputs.fetch_add(1, Ordering::Relaxed);
        flow.run(input, cx).await.expect("it cannot fail")
    })
}

/// As a gateway has it of a request with `Cache-Control`.
fn asked_with_a_policy(measure: Measure) -> Measure {
    Box::new(move |runtime, cx, calls| {
        cx.state().insert(CachePolicy::new().max_age(HOUR));
        measure(runtime, cx, calls)
    })
}

fn list<P>(flow: Workflow<P>) -> Measure
where
    P: Primitive<In = Vec<u64>, Out = Vec<u64>> + 'static,
{
    measured(MANY, async move |n, cx| {
        let inputs = (n..n + u64::from(MANY)).collect();
        flow.run(inputs, cx).await.expect("it cannot fail")[0]
    })
}

fn streamed<P>(flow: Workflow<P>) -> Measure
where
    P: Primitive<In = u64, Out = ItemStream<u64>> + 'static,
{
    measured(1, async move |n, cx| {
        let items = flow.run(n, cx).await.expect("it cannot fail");
        items.fold(0, async |sum, item| (sum + item.expect("it cannot fail")) % 8).await
    })
}

/// Calls `call`, which does `many` things at once, with what it gave the time before.
fn measured(many: u32, call: impl AsyncFn(u64, &Context) -> u64 + 'static) -> Measure {
    Box::new(move |runtime, cx, calls| {
        let calls = calls.div_ceil(many);
        runtime.block_on(async {
            let start = of_thread();
            let mut value = 0;
            for _ in 0..calls {
                value = call(value, cx).await;
            }
            std::hint::black_box(value);
            per_call(start, calls * many)
        })
    })
}

/// As a stage does it: by the clock of the context.
fn two_clock_reads(_: &Runtime, cx: &Context, calls: u32) -> f64 {
    let start = of_thread();
    for _ in 0..calls {
        let started = std::hint::black_box(cx).clock().now();
        std::hint::black_box(std::hint::black_box(cx).clock().now().since(started));
    }
    per_call(start, calls)
}

/// What the last column shows here is a tracer that has nothing to do.
fn unsampled(runtime: &Runtime, cx: &Context, calls: u32) -> f64 {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let cx = Context::builder().sink(cx.sink()).trace_parent(parent, None).build();
    case(step())(runtime, &cx, calls)
}

/// Every call has a clone of one context.
fn as_a_service(runtime: &Runtime, cx: &Context, calls: u32) -> f64 {
    let cx = cx.clone();
    let mut service = step().into_service_with(move |_| cx.clone());
    runtime.block_on(async {
        let start = of_thread();
        let mut value = 0;
        for _ in 0..calls {
            value = service.call(value).await.expect("it cannot fail");
        }
        std::hint::black_box(value);
        per_call(start, calls)
    })
}

fn per_call(start: Duration, calls: u32) -> f64 {
    (of_thread() - start).as_secs_f64() * 1e9 / f64::from(calls)
}
