//! Processor time per call of each primitive, with telemetry off, on, and on with a sampled span.
//!
//! Every round measures every case once, so that a slow moment of the machine hits all of them alike. The
//! work inside is an async function that adds one; `bare call` is that function alone.
//!
//! A stage that is timed reads the clock twice, which is the price of the machine and not of the code here.
//! What telemetry costs beyond that is worked out under the table.

mod cases;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use throughline::Context;
use throughline::telemetry::{Clock, Sink, Telemetry};
use tokio::runtime::Runtime;

use crate::cpu::median;
use cases::{CLOCK, STEP, cases};

const OFF: usize = 0;
const ON: usize = 1;
/// How `--mode` calls them.
pub(crate) const MODES: [&str; 3] = ["off", "on", "sampled"];

/// Measures one batch of calls, in ns per call.
type Measure = Box<dyn Fn(&Runtime, &Context, u32) -> f64>;

/// Something whose calls are measured.
struct Case {
    group: &'static str,
    name: &'static str,
    measure: Measure,
}

/// Receives spans and keeps none.
#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

/// Measures and prints a table, of one case, group or mode if that is given. Returns the medians by `CASE, MODE`.
#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
pub(crate) fn run(rounds: usize, calls: u32, only: Option<&str>, mode: Option<&str>) -> Vec<(String, f64)> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can start");
    let on = Telemetry::builder().without_endpoint().local().init();
    let sampled = Telemetry::builder().without_endpoint().local().span_exporter("nowhere", Nowhere).init();
    let sinks = [Sink::without_telemetry(Clock::default()), on.sink().clone(), sampled.sink().clone()];
    let mut cases = cases();
    cases.retain(|case| only.is_none_or(|only| case.name == only || case.group == only));
    let wanted = |at: usize| mode.is_none_or(|mode| MODES[at] == mode);

    let mut samples = vec![[const { Vec::new() }; MODES.len()]; cases.len()];
    for _ in 0..rounds {
        for (case, Case { measure, .. }) in cases.iter().enumerate() {
            for (at, sink) in sinks.iter().enumerate().filter(|(at, _)| wanted(*at)) {
                let cx = Context::builder().sink(sink).build();
                measure(&runtime, &cx, calls / 10);
                samples[case][at].push(measure(&runtime, &cx, calls));
            }
        }
    }

    println!("processor ns per call, median of {rounds} rounds of {calls} calls (fastest round in brackets)");
    let mut medians = Vec::new();
    let mut group = "";
    for (case, modes) in cases.iter().zip(&mut samples) {
        if group != case.group {
            group = case.group;
            println!("\n| {group} | off | on | on, sampled span |\n|---|--:|--:|--:|");
        }
        let middles = modes.each_mut().map(|values| median(values));
        let cells = middles.iter().zip(modes).map(|(middle, values)| match (middle, values.first()) {
            (Some(middle), Some(fastest)) => format!("{middle:.0} ({fastest:.0})"),
            _ => String::new(),
        });
        println!("| {} | {} |", case.name, cells.collect::<Vec<_>>().join(" | "));
        medians.push((case.name, middles));
    }
    let of =
        |name, mode: usize| medians.iter().find(|(of, _)| *of == name).and_then(|(_, modes)| modes[mode]);
    if let (Some(on), Some(off), Some(clock)) = (of(STEP, ON), of(STEP, OFF), of(CLOCK, ON)) {
        println!(
            "\ntelemetry of one stage beyond two clock reads: {on:.0} on - {off:.0} off - {clock:.0} = {:.0} ns",
            on - off - clock
        );
    }
    let named = medians.iter().flat_map(|(name, modes)| {
        // The table's own sign is masked in it.
        let name = name.replace("\\|", "|");
        MODES
            .iter()
            .zip(modes)
            .filter_map(move |(mode, median)| Some((format!("{name}, {mode}"), (*median)?)))
    });
    named.collect()
}
