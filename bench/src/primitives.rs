//! Processor time per call of each primitive, with telemetry off, on, and on with a sampled span.
//!
//! Every round measures every case once, so that a slow moment of the machine hits all of them alike. The
//! work inside is an async function that adds one; `bare call` is that function alone.
//!
//! A stage that is timed reads the clock twice, which is the price of the machine and not of the code here.
//! What telemetry costs beyond that is worked out under the table.

use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanExporter};
use throughline::telemetry::{Clock, Sink, Telemetry};
use throughline::{
    CacheConfig, Context, JsonCaching, Memory, Primitive, Result, RouterConfig, TimeoutConfig, Workflow,
    router, workflow,
};
use tokio::runtime::Runtime;

use crate::cpu::{median, of_thread};

const OFF: usize = 0;
const ON: usize = 1;
const MODES: usize = 3;
const STEP: &str = "step";
const CLOCK: &str = "two clock reads";

/// Measures one batch of calls, in ns per call.
type Measure = Box<dyn Fn(&Runtime, &Context, u32) -> f64>;
type Case = (&'static str, Measure);

/// Receives spans and keeps none.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

/// Measures and prints a table.
#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
pub(crate) fn run(rounds: usize, calls: u32, only: Option<&str>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can start");
    let on = Telemetry::builder().without_endpoint().local().init();
    let processor = BatchSpanProcessor::builder(Nowhere).build();
    let sampled = Telemetry::builder().without_endpoint().local().span_processor(processor).init();
    let sinks = [Sink::without_telemetry(Clock::default()), on.sink().clone(), sampled.sink().clone()];
    let mut cases = cases();
    cases.retain(|(name, _)| only.is_none_or(|only| *name == only));

    let mut samples = vec![[const { Vec::new() }; MODES]; cases.len()];
    for _ in 0..rounds {
        for (case, (_, measure)) in cases.iter().enumerate() {
            for (mode, sink) in sinks.iter().enumerate() {
                let cx = Context::builder().sink(sink).build();
                measure(&runtime, &cx, calls / 10);
                samples[case][mode].push(measure(&runtime, &cx, calls));
            }
        }
    }

    println!(
        "processor ns per call, median of {rounds} rounds of {calls} calls (fastest round in brackets)\n"
    );
    println!("| case | telemetry off | on | on, sampled span |\n|---|--:|--:|--:|");
    let mut medians = Vec::new();
    for ((name, _), modes) in cases.iter().zip(&mut samples) {
        let middles = modes.each_mut().map(|values| median(values));
        let cells: Vec<_> = middles
            .iter()
            .zip(modes)
            .map(|(middle, values)| format!("{middle:.0} ({:.0})", values[0]))
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
        medians.push((*name, middles));
    }
    let of = |wanted| medians.iter().find(|(name, _)| *name == wanted).map(|(_, middles)| middles);
    if let (Some(step), Some(clock)) = (of(STEP), of(CLOCK)) {
        println!(
            "\ntelemetry of one stage beyond two clock reads: {:.0} on - {:.0} off - {:.0} = {:.0} ns",
            step[ON],
            step[OFF],
            clock[ON],
            step[ON] - step[OFF] - clock[ON]
        );
    }
}

fn cases() -> Vec<Case> {
    vec![
        ("bare call", Box::new(bare)),
        (CLOCK, Box::new(two_clock_reads)),
        (STEP, case(step)),
        ("step in a trace that is not sampled", Box::new(unsampled)),
        ("router(step)", case(routed)),
        ("timeout(step)", case(|| step().timeout(limit()))),
        ("cache hit", case(|| cached(step()))),
        ("wrapped: timeout(cache(router(step))), hit", case(|| cached(routed()).timeout(limit()))),
        ("wrapped: cache(timeout(router(step))), hit", case(|| cached(routed().timeout(limit())))),
        (
            "piped: router >> cache >> timeout, hit",
            case(|| routed() >> cached(step()) >> step().timeout(limit())),
        ),
    ]
}

async fn add_one(n: u64) -> Result<u64> {
    Ok(std::hint::black_box(n) % 8 + 1)
}

fn step() -> Workflow<impl Primitive<In = u64, Out = u64> + 'static> {
    workflow("add", add_one)
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
        CacheConfig::new("answers", Duration::from_secs(3600)).expect("an hour is allowed"),
        JsonCaching::keyed(|n: &u64, _, key| Some(key.part(&n.to_le_bytes()))),
        Memory::new(1 << 20).expect("a megabyte is allowed"),
    )
}

fn limit() -> TimeoutConfig {
    TimeoutConfig::new("limit", Duration::from_secs(60)).expect("a minute is allowed")
}

fn bare(runtime: &Runtime, _: &Context, calls: u32) -> f64 {
    runtime.block_on(async {
        let start = of_thread();
        let mut value = 0;
        for _ in 0..calls {
            value = add_one(value).await.expect("it cannot fail");
        }
        std::hint::black_box(value);
        per_call(start, calls)
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

fn case<P, Shape: 'static>(build: impl Fn() -> Workflow<P, Shape>) -> Measure
where
    P: Primitive<In = u64, Out = u64> + 'static,
{
    // One workflow per mode would be as good; a fresh binding per telemetry instance is not what is measured.
    let flow = build();
    Box::new(move |runtime, cx, calls| {
        runtime.block_on(async {
            let start = of_thread();
            let mut value = 0;
            for _ in 0..calls {
                value = flow.run(value, cx).await.expect("it cannot fail");
            }
            std::hint::black_box(value);
            per_call(start, calls)
        })
    })
}

/// What the last column shows here is a tracer that has nothing to do.
fn unsampled(runtime: &Runtime, cx: &Context, calls: u32) -> f64 {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let cx = Context::builder().sink(cx.sink()).trace_parent(parent, None).build();
    case(step)(runtime, &cx, calls)
}

fn per_call(start: Duration, calls: u32) -> f64 {
    (of_thread() - start).as_secs_f64() * 1e9 / f64::from(calls)
}
