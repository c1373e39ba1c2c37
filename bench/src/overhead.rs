//! What telemetry costs a proxied request: the same load on gateways that differ in nothing else.
//!
//! One without telemetry, one with it, one that also samples a tenth of the traces and sends them by OTLP; or, with
//! `--sick`, one whose collector takes the spans, and others whose collectors refuse, are silent or fail.
//!
//! All run at the same time and get the load in turn, in turns of less than a tenth of a second: on a machine that is shared,
//! neighbours take what they like for seconds, and what they take shall hit all of them alike. Who comes after whom is changed
//! from set to set. The processor time is that of the gateway's process in the whole set, from `/proc`: what telemetry does beside
//! requests is in it, up to the last span that is sent. Latency is what the client sees.
//! `--count` counts the work instead (see [`count`]).
//!
//! A process keeps for its life where its memory lies and what shares the processor's caches, which by itself makes two of
//! the same program differ. So sets of gateways are started one after the other, and a set is what counts: each
//! figure is compared with the first gateway's of the same set.

mod count;
mod gateway;
mod load;
mod peer;
mod talk;

use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::cpu::median;
use gateway::Gateway;
use load::{Clients, Load};
use peer::Says;
use talk::Size;

/// What must hold beside the first gateway.
const PROCESSOR: f64 = 1.02;
const LATENCY: f64 = 1.05;

/// So many requests fill pools, and make series and memory that are there from then on.
const FIRST: usize = 200;

/// How long spans wait at most before they are sent. The default would have every set wait for five seconds, twice.
const SPANS_WAIT: Duration = Duration::from_secs(1);
/// After this they have been.
const SPANS_SENT: Duration = Duration::from_millis(1_500);

const NO_SPANS: &str = "no spans arrived at the collector: what was measured is not what was meant";

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
    /// Sets of gateways, each started anew
    #[arg(long, default_value_t = 60)]
    sets: usize,
    /// Rounds per set; each gives every gateway the load once
    #[arg(long, default_value_t = 24)]
    rounds: usize,
    /// Requests per gateway and round; by itself as many as take about as long for each size
    #[arg(long)]
    requests: Option<usize>,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests a second, over all connections; without it as many as get through
    #[arg(long)]
    rate: Option<f64>,
    /// How much is asked and answered
    #[arg(long, value_enum, default_value_t = Size::Usual)]
    size: Size,
    /// Compare sick collectors of spans with a healthy one
    #[arg(long)]
    sick: bool,
    /// Count what the gateways do under valgrind, which must be installed, instead of timing it; takes some minutes
    #[arg(long, conflicts_with_all = ["sick", "sets", "rounds", "rate"])]
    count: bool,
}

/// What one gateway took for a request in every set.
#[derive(Default)]
struct Samples {
    processor: Vec<f64>,
    middle: Vec<f64>,
    slowest: Vec<f64>,
}

/// One gateway of a set.
struct Measured {
    gateway: Gateway,
    clients: Clients,
    processor_before: f64,
    latencies: Vec<Duration>,
}

// === impl Overhead ===

impl Overhead {
    fn modes(&self) -> &'static [Mode] {
        if self.sick { &SICK } else { &OVERHEAD }
    }

    fn requests(&self) -> usize {
        let usual = match (self.size, self.count) {
            (Size::Small, false) => 768,
            (Size::Usual, false) => 96,
            (Size::Small, true) => 2_000,
            (Size::Usual, true) => 400,
        };
        self.requests.unwrap_or(usual).max(1)
    }
}

// === impl Samples ===

impl Samples {
    fn add(&mut self, measured: Measured) -> Result<(), String> {
        let Measured { gateway, processor_before, mut latencies, .. } = measured;
        latencies.sort_unstable();
        let hundredth = |of: usize| latencies[(latencies.len() - 1) * of / 100].as_secs_f64();
        let processor = gateway.processor_seconds()? - processor_before;
        self.processor.push(processor / latencies.len() as f64);
        self.middle.push(hundredth(50));
        self.slowest.push(hundredth(99));
        Ok(())
    }
}

/// Measures and prints a table; fails when telemetry costs more than it may.
pub(crate) fn run(args: &Overhead) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can start");
    let verdict = runtime.block_on(async {
        match args.count {
            true => Ok(count::report(args, &count::count(args).await?)),
            false => Ok::<_, String>(report(args, &measure(args).await?)),
        }
    });
    match verdict {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

/// What one gateway of each kind took in every set.
async fn measure(args: &Overhead) -> Result<Vec<Samples>, String> {
    let provider = peer::start(Says::Chat(args.size.answers().into())).await?;
    let collector = peer::start(Says::Ok).await?;
    let connections = args.connections.max(1);
    let interval = args.rate.map_or(0.0, |rate| connections as f64 / rate);
    let interval = Duration::try_from_secs_f64(interval).map_err(|_| "--rate must be above 0".to_owned())?;
    let load = Load { connections, interval, size: args.size };
    let mut samples: Vec<Samples> = args.modes().iter().map(|_| Samples::default()).collect();
    for set in 0..args.sets.max(1) {
        let order = order(set, args.modes().len());
        let mut gateways = Vec::new();
        for mode in order.iter().map(|at| &args.modes()[*at]) {
            let receiver = match mode.collector {
                Some(Collector::Well) => Some(collector.address()),
                Some(Collector::Refusing) => Some(peer::nobody().await?),
                Some(Collector::Silent) => Some(peer::start(Says::Nothing).await?.address()),
                Some(Collector::Failing) => Some(peer::start(Says::Failed).await?.address()),
                None => None,
            };
            let gateway = start(mode, args.size, provider.address(), receiver, &[]).await?;
            let mut clients = load.connect(gateway.address()).await?;
            clients.send(args.requests().max(FIRST)).await?;
            gateways.push(Measured { gateway, clients, processor_before: 0.0, latencies: Vec::new() });
        }
        one_set(&mut gateways, args.rounds.max(1), args.requests()).await?;
        for (at, measured) in order.into_iter().zip(gateways) {
            samples[at].add(measured)?;
        }
    }
    match collector.served() {
        0 => Err(NO_SPANS.to_owned()),
        _ => Ok(samples),
    }
}

/// In which order the gateways of a set are started, and get the load in every round. In every six sets of three gateways each one
/// begins twice, and follows each of the others as often. None follows itself, which would find its memory in the processor's caches.
fn order(set: usize, gateways: usize) -> Vec<usize> {
    let turn = |turn| if set.is_multiple_of(2) { turn } else { gateways - 1 - turn };
    (0..gateways).map(|at| (set / 2 + turn(at)) % gateways).collect()
}

/// Begins and ends with nothing left to be sent, where the collector takes it.
async fn one_set(gateways: &mut [Measured], rounds: usize, requests: usize) -> Result<(), String> {
    tokio::time::sleep(SPANS_SENT).await;
    for measured in &mut *gateways {
        measured.processor_before = measured.gateway.processor_seconds()?;
    }
    for _ in 0..rounds {
        for measured in &mut *gateways {
            measured.latencies.extend(measured.clients.send(requests).await?);
        }
    }
    tokio::time::sleep(SPANS_SENT).await;
    Ok(())
}

async fn start(
    mode: &Mode,
    size: Size,
    provider: SocketAddr,
    receiver: Option<SocketAddr>,
    launcher: &[String],
) -> Result<Gateway, String> {
    // Otherwise it starts itself again to get one, out of the launcher's hands.
    let mut environment = vec![("MALLOC_ARENA_MAX", "1".to_owned())];
    if !mode.on {
        environment.push(("ENABLE_OBSERVABILITY", "false".to_owned()));
    }
    if let Some(receiver) = receiver {
        environment.push(("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()));
        environment.push(("OTEL_TRACES_SAMPLER_ARG", "0.1".to_owned()));
        environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{receiver}")));
        environment.push(("OTEL_BSP_SCHEDULE_DELAY", SPANS_WAIT.as_millis().to_string()));
    }
    Gateway::start(mode.name, &config(size, provider), &environment, launcher).await
}

/// What the README shows, with `provider` in the place of OpenAI, and every request on the same way.
fn config(size: Size, provider: SocketAddr) -> String {
    format!(
        r#"
[server]
header_timeout = "10m"

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
        "{} sets of {} rounds of {} requests over {} connections, {:?}; beside it the median of the sets' ratios to the first\n\
         gateway, and where it lies with 95 % confidence\n\n\
         | telemetry | processor time a request | | p50 | | p99 | |\n|---|--:|--:|--:|--:|--:|--:|",
        args.sets.max(1),
        args.rounds.max(1),
        args.requests(),
        args.connections.max(1),
        args.size
    );
    let mut verdict = Verdict::Ok;
    let first = &samples[0];
    for (Mode { name, .. }, row) in modes.iter().zip(samples) {
        let processor = Ratio::of(&row.processor, &first.processor);
        let (middle, slowest) =
            (Ratio::of(&row.middle, &first.middle), Ratio::of(&row.slowest, &first.slowest));
        println!(
            "| {name} | {:.1} us | {processor} | {:.0} us | {middle} | {:.0} us | {slowest} |",
            1e6 * median(&mut row.processor.clone()).unwrap_or_default(),
            1e6 * median(&mut row.middle.clone()).unwrap_or_default(),
            1e6 * median(&mut row.slowest.clone()).unwrap_or_default(),
        );
        if !args.sick {
            verdict = verdict.max(processor.beside(PROCESSOR));
        }
        verdict = verdict.max(middle.beside(LATENCY)).max(slowest.beside(LATENCY));
    }
    let said = match verdict {
        Verdict::Ok => "ok",
        Verdict::Undecided => "above it, but not certainly: more --sets would tell",
        Verdict::Missed => "MISSED",
    };
    let processor = if args.sick { String::new() } else { format!("processor time {PROCESSOR}, ") };
    println!("\nallowed beside `{}`: {processor}latency {LATENCY}: {said}", modes[0].name);
    if verdict == Verdict::Ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether what was measured is allowed; the worse, the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Undecided,
    Missed,
}

/// The median of what each set has beside another gateway of the same set, and the interval that holds that of all sets
/// there could be with some 95 % confidence (93 to 98, from six sets on), by ranks: nothing is assumed of how sets are spread.
struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

// === impl Ratio ===

impl Ratio {
    fn of(values: &[f64], base: &[f64]) -> Self {
        let mut ratios: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
        let middle = median(&mut ratios).unwrap_or(f64::NAN);
        // How many lie below the median of all is binomial: half of them, give or take the root of their number.
        let outside = (ratios.len() / 2).saturating_sub(ratios.len().isqrt() + 1);
        Self { median: middle, low: ratios[outside], high: ratios[ratios.len() - 1 - outside] }
    }

    fn beside(&self, allowed: f64) -> Verdict {
        match () {
            () if self.median <= allowed => Verdict::Ok,
            () if self.low <= allowed => Verdict::Undecided,
            () => Verdict::Missed,
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.3} to {:.3})", self.median, self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ratio, order};

    #[test]
    fn a_ratio_leaves_out_as_many_below_its_interval_as_above() {
        for (sets, low, high) in [(1, 0, 0), (5, 0, 4), (6, 0, 5), (60, 22, 37), (80, 31, 48)] {
            let values: Vec<f64> = (0..sets).rev().map(f64::from).collect();
            let ratio = Ratio::of(&values, &vec![1.0; values.len()]);
            assert_eq!((ratio.low, ratio.high), (f64::from(low), f64::from(high)), "{sets}");
            assert_eq!(ratio.median, f64::from(sets / 2), "{sets}");
        }
    }

    #[test]
    fn of_three_gateways_each_begins_as_often_and_follows_the_others_as_often() {
        let (mut begins, mut follows) = ([0; 3], [[0; 3]; 3]);
        for set in 0..6 {
            let order = order(set, 3);
            begins[order[0]] += 1;
            // The first of the next round follows the last.
            for at in 0..3 {
                follows[order[(at + 1) % 3]][order[at]] += 1;
            }
        }
        assert_eq!((begins, follows), ([2; 3], [[0, 3, 3], [3, 0, 3], [3, 3, 0]]));
        assert_eq!([order(0, 4), order(1, 4)], [[0, 1, 2, 3], [3, 2, 1, 0]]);
    }
}
