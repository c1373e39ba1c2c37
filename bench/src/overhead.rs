//! What telemetry costs a proxied request: the same load on gateways that differ in nothing else.
//!
//! One without telemetry, one with it, one that also samples a tenth of the traces and sends them by OTLP; or, with
//! `--sick`, one whose collector takes the spans, and others whose collectors refuse, are silent or fail.
//!
//! All run at the same time and get the load in turn, so that a slow moment of the machine hits all of them alike.
//! The processor time is that of the gateway's process, from `/proc`; latency is what the client sees. Each figure is
//! compared with the first gateway in the same round.

mod gateway;
mod load;
mod peer;
mod talk;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cpu::median;
use gateway::Gateway;
use load::Load;
use peer::Says;
use talk::Size;

/// What must hold beside the first gateway.
const PROCESSOR: f64 = 1.02;
const LATENCY: f64 = 1.05;

/// How one gateway differs from the others.
struct Mode {
    name: &'static str,
    on: bool,
    /// Where a tenth of the traces goes.
    collector: Option<Collector>,
}

/// How the receiver of traces is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Collector {
    Well,
    Refusing,
    Silent,
    Failing,
}

const OVERHEAD: [Mode; 3] = [
    Mode { name: "off", on: false, collector: None },
    Mode { name: "on", on: true, collector: None },
    Mode { name: "on, 10 % of traces sampled", on: true, collector: Some(Collector::Well) },
];
const SICK: [Mode; 4] = [
    Mode { name: "the collector takes the spans", on: true, collector: Some(Collector::Well) },
    Mode { name: "it refuses connections", on: true, collector: Some(Collector::Refusing) },
    Mode { name: "it never answers", on: true, collector: Some(Collector::Silent) },
    Mode { name: "it answers 500", on: true, collector: Some(Collector::Failing) },
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
    /// Requests a second, over all connections; without it as many as get through
    #[arg(long)]
    rate: Option<f64>,
    /// How much is asked and answered
    #[arg(long, value_enum, default_value_t = Size::Small)]
    size: Size,
    /// Compare sick collectors of spans with a healthy one
    #[arg(long)]
    sick: bool,
}

/// What one gateway took in every round.
#[derive(Default)]
struct Samples {
    processor: Vec<f64>,
    middle: Vec<f64>,
    slowest: Vec<f64>,
}

// === impl Overhead ===

impl Overhead {
    fn modes(&self) -> &'static [Mode] {
        if self.sick { &SICK } else { &OVERHEAD }
    }
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
    let provider = peer::start(Says::Chat(args.size.answers().into())).await?;
    let collector = peer::start(Says::Ok).await?;
    let mut gateways = Vec::new();
    for mode in args.modes() {
        let receiver = match mode.collector {
            Some(Collector::Well) => Some(collector.address()),
            Some(Collector::Refusing) => Some(peer::nobody().await?),
            Some(Collector::Silent) => Some(peer::start(Says::Nothing).await?.address()),
            Some(Collector::Failing) => Some(peer::start(Says::Failed).await?.address()),
            None => None,
        };
        gateways.push(start(mode, args.size, provider.address(), receiver).await?);
    }
    let connections = args.connections.max(1);
    let interval = args.rate.map_or(0.0, |rate| connections as f64 / rate);
    let interval = Duration::try_from_secs_f64(interval).map_err(|_| "--rate must be above 0".to_owned())?;
    let load = Load { requests: args.requests.max(1), connections, interval, size: args.size };
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

async fn start(
    mode: &Mode,
    size: Size,
    provider: SocketAddr,
    receiver: Option<SocketAddr>,
) -> Result<Gateway, String> {
    let mut environment = Vec::new();
    if !mode.on {
        environment.push(("ENABLE_OBSERVABILITY", "false".to_owned()));
    }
    if let Some(receiver) = receiver {
        environment.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()));
        environment.push(("OTEL_TRACES_SAMPLER_ARG", "0.1".to_owned()));
        environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{receiver}")));
    }
    Gateway::start(mode.name, &config(size, provider), &environment).await
}

/// What the README shows, with `provider` in the place of OpenAI, and every request on the same way.
fn config(size: Size, provider: SocketAddr) -> String {
    format!(
        r#"
[providers.upstream.openai]
base_url = "http://{provider}/v1"

[models.auto]
default_route = "cheap"
baseline = "premium"
rules = [{{ route = "premium", when = {{ prompt_chars_at_least = {} }} }}]
cache = {{ ttl = "10m" }}
timeout = {{ limit = "60s" }}
fallback = ["premium"]

[models.auto.routes.cheap]
provider = "upstream"
model = "gpt-4o-mini"
timeout = {{ limit = "20s", grace = "2s" }}
retry = {{ attempts = 3 }}

[models.auto.routes.premium]
provider = "upstream"
model = "gpt-4o"
"#,
        size.long_prompt()
    )
}

#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
fn report(args: &Overhead, samples: &[Samples]) -> ExitCode {
    let modes = args.modes();
    println!(
        "{} rounds of {} requests over {} connections, {:?}; beside it the median of the rounds' ratios to the first\n\n\
         | telemetry | processor time a request | | p50 | | p99 | |\n|---|--:|--:|--:|--:|--:|--:|",
        args.rounds, args.requests, args.connections, args.size
    );
    let mut fits = true;
    let first = &samples[0];
    for (Mode { name, .. }, row) in modes.iter().zip(samples) {
        let processor = ratio(&row.processor, &first.processor);
        let (middle, slowest) = (ratio(&row.middle, &first.middle), ratio(&row.slowest, &first.slowest));
        println!(
            "| {name} | {:.1} us | {processor:.3} | {:.0} us | {middle:.3} | {:.0} us | {slowest:.3} |",
            1e6 * median(&mut row.processor.clone()).unwrap_or_default(),
            1e6 * median(&mut row.middle.clone()).unwrap_or_default(),
            1e6 * median(&mut row.slowest.clone()).unwrap_or_default(),
        );
        fits &= (args.sick || processor <= PROCESSOR) && middle <= LATENCY && slowest <= LATENCY;
    }
    let processor = if args.sick { String::new() } else { format!("processor time {PROCESSOR}, ") };
    println!(
        "\nallowed beside `{}`: {processor}latency {LATENCY}: {}",
        modes[0].name,
        if fits { "ok" } else { "MISSED" }
    );
    if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The median of what each round has beside the same round of `base`.
fn ratio(values: &[f64], base: &[f64]) -> f64 {
    let mut ratios: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
    median(&mut ratios).unwrap_or(f64::NAN)
}
