//! What telemetry costs a proxied request: the same load on three gateways, one without telemetry, one with it, one
//! that also samples a tenth of the traces and sends them by OTLP.
//!
//! All run at the same time and get the load in turn, so that a slow moment of the machine hits all of them alike.
//! The processor time is that of the gateway's process, from `/proc`; latency is what the client sees. Each figure is
//! compared with the gateway without telemetry in the same round.

mod gateway;
mod load;
mod peer;

use std::process::ExitCode;

use clap::Args;

use crate::cpu::median;
use gateway::Gateway;
use load::Load;

/// What must hold beside a gateway without telemetry.
const PROCESSOR: f64 = 1.02;
const LATENCY: f64 = 1.05;

/// How the gateways differ: the name of the row, and the environment.
const MODES: [(&str, &[(&str, &str)]); 3] = [
    ("off", &[("ENABLE_OBSERVABILITY", "false")]),
    ("on", &[]),
    (
        "on, 10 % of traces sampled",
        &[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.1")],
    ),
];

#[derive(Args, Debug)]
pub(crate) struct Overhead {
    /// Rounds; each gives every gateway the load once
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Requests per gateway and round
    #[arg(long, default_value_t = 4_000)]
    requests: usize,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

/// What one gateway took in every round.
#[derive(Default)]
struct Samples {
    processor: Vec<f64>,
    middle: Vec<f64>,
    slowest: Vec<f64>,
}

/// Measures and prints a table; fails when telemetry costs more than it may.
pub(crate) fn run(args: &Overhead) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can start");
    match runtime.block_on(measure(args)) {
        Ok(samples) => report(args, &samples),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

async fn measure(args: &Overhead) -> Result<Vec<Samples>, String> {
    let provider = peer::start(peer::CHAT).await?;
    let collector = peer::start(peer::EMPTY).await?;
    let mut gateways = Vec::new();
    for (name, environment) in MODES {
        let sends = environment.iter().any(|(name, _)| *name == "OTEL_TRACES_SAMPLER");
        gateways.push(
            Gateway::start(name, provider.address(), sends.then(|| collector.address()), environment).await?,
        );
    }
    let load = Load { requests: args.requests.max(1), connections: args.connections.max(1) };
    let mut samples: Vec<Samples> = gateways.iter().map(|_| Samples::default()).collect();
    for round in 0..=args.rounds.max(1) {
        for turn in 0..gateways.len() {
            // Another one goes first in every round.
            let at = (round + turn) % gateways.len();
            let (gateway, samples) = (&gateways[at], &mut samples[at]);
            let before = gateway.processor_seconds()?;
            let mut latencies = load.run(gateway.address()).await?;
            let used = gateway.processor_seconds()? - before;
            // The first round fills pools and learns.
            if round > 0 {
                latencies.sort_unstable();
                let hundredth = |of: usize| latencies[(latencies.len() - 1) * of / 100].as_secs_f64();
                samples.processor.push(used / latencies.len() as f64);
                samples.middle.push(hundredth(50));
                samples.slowest.push(hundredth(99));
            }
        }
    }
    match collector.served() {
        0 => Err("no spans arrived at the collector: what was measured is not what was meant".to_owned()),
        _ => Ok(samples),
    }
}

#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
fn report(args: &Overhead, samples: &[Samples]) -> ExitCode {
    println!(
        "{} rounds of {} requests over {} connections; beside it the median of the rounds' ratios to `off`\n\n\
         | telemetry | processor time a request | | p50 | | p99 | |\n|---|--:|--:|--:|--:|--:|--:|",
        args.rounds, args.requests, args.connections
    );
    let mut fits = true;
    let off = &samples[0];
    for ((name, _), row) in MODES.iter().zip(samples) {
        // Ticks of the kernel's account are coarse: only the sum over all rounds is exact enough.
        let processor = sum(&row.processor) / sum(&off.processor);
        let (middle, slowest) = (ratio(&row.middle, &off.middle), ratio(&row.slowest, &off.slowest));
        println!(
            "| {name} | {:.1} us | {processor:.3} | {:.0} us | {middle:.3} | {:.0} us | {slowest:.3} |",
            1e6 * sum(&row.processor) / row.processor.len() as f64,
            1e6 * median(&mut row.middle.clone()).unwrap_or_default(),
            1e6 * median(&mut row.slowest.clone()).unwrap_or_default(),
        );
        fits &= processor <= PROCESSOR && middle <= LATENCY && slowest <= LATENCY;
    }
    println!(
        "\nallowed beside `off`: processor time {PROCESSOR}, latency {LATENCY}: {}",
        if fits { "ok" } else { "MISSED" }
    );
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sum(values: &[f64]) -> f64 {
    values.iter().sum()
}

/// The median of what each round has beside the same round of `base`.
fn ratio(values: &[f64], base: &[f64]) -> f64 {
    let mut ratios: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
    median(&mut ratios).unwrap_or(f64::NAN)
}
