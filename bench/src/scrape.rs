//! What a scrape of ten thousand series costs: `bench scrape`.
//!
//! A series is what Prometheus counts as one, a line of the page. The same figures stand in the registry of
//! `prometheus-client`, which is measured in the same rounds.

#![expect(clippy::print_stdout, reason = "the table is what this command is asked for")]

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Theirs;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use throughline::telemetry::{Family, Telemetry, WORK_SECONDS, to_text};

use crate::cpu;

/// What a scrape may cost, in milliseconds.
const BUDGET: f64 = 5.0;
/// How many series of each shape: with 25 lines a histogram, 10,000 lines.
const COUNTERS: usize = 3_000;
const LEVELS: usize = 2_000;
const HISTOGRAMS: usize = 200;

static CALLS: Family = Family::counter("calls", "Calls", &["operation", "outcome"]);
static LOAD: Family = Family::level("load", "Load", &["operation", "outcome"]);
static SECONDS: Family = Family::histogram("seconds", "Seconds", &["operation", "outcome"], WORK_SECONDS);

type Labels = Vec<(String, String)>;

/// Measures and says whether the budget holds.
pub(crate) fn run(rounds: usize) -> bool {
    let telemetry = Telemetry::builder().without_endpoint().series_cap(10_000).local().init();
    fill_ours(&telemetry);
    let theirs = filled_theirs();
    let (mut openmetrics, mut text, mut other) = (Vec::new(), Vec::new(), Vec::new());
    let mut sizes = [0; 3];
    for _ in 0..rounds {
        openmetrics.push(milliseconds(|| sizes[0] = telemetry.sink().render().len()));
        text.push(milliseconds(|| sizes[1] = to_text(&telemetry.sink().render()).len()));
        other.push(milliseconds(|| {
            let mut page = String::new();
            encode(&mut page, &theirs).expect("writing to a string cannot fail");
            sizes[2] = page.len();
        }));
    }
    let lines = telemetry.sink().render().lines().filter(|line| !line.starts_with('#')).count();
    println!("{lines} series, processor time of one scrape, median of {rounds} rounds\n");
    let mut holds = true;
    for (what, times, size, judged) in [
        ("throughline, OpenMetrics", &mut openmetrics, sizes[0], true),
        ("throughline, text 0.0.4", &mut text, sizes[1], true),
        ("prometheus-client, OpenMetrics", &mut other, sizes[2], false),
    ] {
        let time = cpu::median(times).unwrap_or_default();
        let verdict = match (judged, time <= BUDGET) {
            (false, _) => "",
            (true, true) => "ok",
            (true, false) => "MISSED",
        };
        holds &= !judged || time <= BUDGET;
        println!("{what:<32} {time:>7.2} ms  {size:>8} bytes  {verdict}");
    }
    holds
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let began = cpu::of_thread();
    work();
    (cpu::of_thread() - began).as_secs_f64() * 1e3
}

fn operation(number: usize) -> String {
    format!("operation-{number}")
}

/// A value with as many digits as measured ones have.
fn fraction(number: usize) -> f64 {
    (number as f64 + 0.5).sqrt() / 7.0
}

fn fill_ours(telemetry: &Telemetry) {
    let registry = telemetry.sink().registry().expect("telemetry is on");
    for number in 0..COUNTERS {
        registry.counter(&CALLS, &[&operation(number), "success"]).inc();
    }
    for number in 0..LEVELS {
        registry.level(&LOAD, &[&operation(number), "success"]).set(fraction(number));
    }
    for number in 0..HISTOGRAMS {
        let histogram = registry.histogram(&SECONDS, &[&operation(number), "success"]);
        (0..100).for_each(|sample| histogram.observe(fraction(number * sample), None));
    }
}

fn filled_theirs() -> Registry {
    let mut registry = Registry::default();
    let labels = |number| -> Labels {
        vec![("operation".to_owned(), operation(number)), ("outcome".to_owned(), "success".to_owned())]
    };
    let counters = Theirs::<Labels, Counter>::default();
    (0..COUNTERS).for_each(|number| {
        counters.get_or_create(&labels(number)).inc();
    });
    registry.register("calls", "Calls", counters);
    let gauges = Theirs::<Labels, Gauge<f64, AtomicU64>>::default();
    (0..LEVELS).for_each(|number| {
        gauges.get_or_create(&labels(number)).set(fraction(number));
    });
    registry.register("load", "Load", gauges);
    let new = || Histogram::new(WORK_SECONDS.iter().copied());
    let histograms = Theirs::<Labels, Histogram, fn() -> Histogram>::new_with_constructor(new);
    for number in 0..HISTOGRAMS {
        let histogram = histograms.get_or_create_owned(&labels(number));
        (0..100).for_each(|sample| histogram.observe(fraction(number * sample)));
    }
    registry.register("seconds", "Seconds", histograms);
    registry
}
