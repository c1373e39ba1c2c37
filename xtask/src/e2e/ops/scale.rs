//! How long the panels with a 95th percentile take when there are 10,000 series.
//!
//! What the running gateway exposes is taken as often as it takes, as that of as many instances, with counters that have
//! grown evenly for as long as the panels look back; `promtool` makes blocks of it, and of what the rules of the pack
//! record from it. A Prometheus of its own is then asked each query twice, at a dashboard's usual range and step.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::export::Pack;
use super::panels::Query;
use super::prometheus::{Place, Prometheus, Span, now};
use crate::e2e::interrupt::Interrupt;
use crate::failure::Failure;
use crate::needs::Monitoring;
use crate::workspace::run;

pub(crate) const SERIES: usize = 10_000;
/// How long a panel may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(1);
/// What a dashboard shows unless it is told otherwise, and a point every so many pixels of a wide panel.
const RANGE: f64 = 3600.0;
const STEP: f64 = 15.0;
/// As the pack's scrape config has it.
const SCRAPE: f64 = 15.0;

/// A query, and how long it took at worst.
#[derive(Debug)]
pub(crate) struct Timing {
    pub(crate) query: Query,
    pub(crate) took: Duration,
    pub(crate) series: usize,
    pub(crate) problem: Option<String>,
}

/// Times `queries`, which are filled in for Prometheus' own pace, over series such as `exposition` has.
///
/// # Errors
/// When `promtool` or Prometheus fails, or the run is to end.
pub(crate) fn measure(
    needs: &Monitoring,
    pack: &Pack,
    exposition: &str,
    queries: Vec<Query>,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<(usize, Vec<Timing>), Failure> {
    let end = (now() / SCRAPE).floor() * SCRAPE;
    let samples = samples(exposition);
    let source = folder.join("series.txt");
    fs::create_dir_all(folder)
        .and_then(|()| write(&source, &samples, end))
        .map_err(|error| Failure::missing(format!("cannot write {}: {error}", source.display())))?;
    let data = folder.join("data/prometheus");
    let mut import = Command::new(&needs.promtool);
    import.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&source).arg(&data);
    run(import.stdout(std::io::stderr()))?;
    let config = folder.join("prometheus.yml");
    fs::write(&config, "global: {}\n")
        .map_err(|error| Failure::missing(format!("cannot write {}: {error}", config.display())))?;
    let place = Place::of("prometheus", folder, config)?;
    let prometheus = Prometheus::start(&needs.prometheus, &place, interrupt)?;
    let recorded = record(needs, pack, &prometheus.api.url, end, folder)?;
    drop(prometheus);
    move_blocks(&recorded, &data)?;
    let prometheus = Prometheus::start(&needs.prometheus, &place, interrupt)?;
    let count = prometheus.api.instant(&format!("count({{__name__=~\".+\"}} @ {end})"));
    let count = count.ok().and_then(|series| series.first()?.last()).unwrap_or_default();
    let span = Span { from: end - RANGE, to: end };
    let mut timings = Vec::new();
    for query in queries {
        interrupt.check()?;
        timings.push(time(&prometheus, query, span));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of series is small")]
    Ok((count as usize, timings))
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is the figure that is wanted")]
fn time(prometheus: &Prometheus, query: Query, span: Span) -> Timing {
    let (mut took, mut series, mut problem) = (Duration::ZERO, 0, None);
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = prometheus.api.range(&query.promql, span, STEP);
        took = took.max(begun.elapsed());
        match answer {
            Ok(found) if found.is_empty() => problem = Some("no data".to_owned()),
            Ok(found) => series = found.len(),
            Err(error) => problem = Some(error),
        }
    }
    Timing { query, took, series, problem }
}

/// Of one instance: a family's name, its type, and its samples with their value.
type Family = (String, Vec<(String, f64)>);

/// The families of a text exposition that have more than one sample, the histograms foremost.
fn samples(exposition: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            if let Some((name, kind)) = typed.split_once(' ') {
                families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            }
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse() else { continue };
        let name = series.split('{').next().unwrap_or(series);
        let family = ["_bucket", "_sum", "_count", "_total"].iter().find_map(|end| {
            let base = name.strip_suffix(end)?;
            families.contains_key(base).then(|| base.to_owned())
        });
        let family = family.unwrap_or_else(|| name.to_owned());
        if let Some((_, samples)) = families.get_mut(&family) {
            samples.push((series.to_owned(), value));
        }
    }
    families.retain(|_, (_, samples)| !samples.is_empty());
    families
}

/// OpenMetrics with times: every series of every instance, from its first sample to its last.
fn write(file: &Path, families: &BTreeMap<String, Family>, end: f64) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(file)?);
    let one: usize = families.values().map(|(_, samples)| samples.len()).sum();
    let instances = SERIES.div_ceil(one.max(1));
    let begin = end - RANGE - 600.0;
    for (name, (kind, samples)) in families {
        let base = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
        writeln!(out, "# TYPE {base} {kind}")?;
        for instance in 0..instances {
            for (series, value) in samples {
                let labelled = labelled(series, instance);
                let grows = kind != "gauge";
                let mut at = begin;
                while at <= end {
                    let share = if grows { (at - begin) / (end - begin) } else { 1.0 };
                    let value = if kind == "histogram" && !series.contains("_sum") {
                        (value * share).floor()
                    } else {
                        value * share
                    };
                    writeln!(out, "{labelled} {value} {at}")?;
                    at += SCRAPE;
                }
            }
        }
    }
    writeln!(out, "# EOF")?;
    out.flush()
}

/// The series with the labels that a scrape gives it.
fn labelled(series: &str, instance: usize) -> String {
    let scraped = format!("job=\"throughline\",instance=\"10.0.0.{instance}:9464\"");
    match series.split_once('{') {
        Some((name, rest)) => format!("{name}{{{scraped},{rest}"),
        None => format!("{series}{{{scraped}}}"),
    }
}

/// What the pack's recording rules make of it, as blocks; gives their folder.
fn record(
    needs: &Monitoring,
    pack: &Pack,
    url: &str,
    end: f64,
    folder: &Path,
) -> Result<std::path::PathBuf, Failure> {
    let recorded = folder.join("recorded");
    let mut command = Command::new(&needs.promtool);
    command.args(["tsdb", "create-blocks-from", "rules"]);
    command.arg(format!("--start={}", end - RANGE)).arg(format!("--end={end}")).arg("--eval-interval=30s");
    command.arg(format!("--url={url}")).arg("--output-dir").arg(&recorded);
    for (file, _) in pack.texts("prometheus/rules", "yml")? {
        command.arg(file);
    }
    run(command.stdout(std::io::stderr()))?;
    Ok(recorded)
}

fn move_blocks(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed =
        |error: std::io::Error| Failure::missing(format!("cannot move blocks to {}: {error}", to.display()));
    for block in fs::read_dir(from).map_err(failed)? {
        let block = block.map_err(failed)?;
        fs::rename(block.path(), to.join(block.file_name())).map_err(failed)?;
    }
    Ok(())
}

/// What is said of a timing.
pub(crate) fn seen(timing: &Timing) -> String {
    let mut text = String::new();
    write!(text, "{:.0} ms, {} series", timing.took.as_secs_f64() * 1000.0, timing.series)
        .expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_family_of_every_sample() {
        let text = "# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\"} 3\na_seconds_sum 2.5\na_seconds_count 3\n\
                    # TYPE b_total counter\nb_total{x=\"y z\"} 7\n# TYPE c gauge\nc 1\n";
        let found = samples(text);
        assert_eq!(found["a_seconds"].1.len(), 3);
        assert_eq!(found["b_total"].1, [("b_total{x=\"y z\"}".to_owned(), 7.0)]);
        assert_eq!(found["c"].0, "gauge");
    }

    #[test]
    fn a_series_gets_the_labels_of_a_scrape() {
        assert_eq!(labelled("c", 3), "c{job=\"throughline\",instance=\"10.0.0.3:9464\"}");
        assert_eq!(
            labelled("b_total{x=\"y\"}", 0),
            "b_total{job=\"throughline\",instance=\"10.0.0.0:9464\",x=\"y\"}"
        );
    }
}
