//! `throughline ops check`: can every alert and every panel see what it needs?

mod ask;
mod needs;
mod report;
mod selectors;

use std::collections::{BTreeMap, BTreeSet};

use ask::Prometheus;
use needs::Needs;
use report::{Missing, Report};

use super::args::Check;
use super::command::Ended;
use super::options::Options;
use crate::block_on;
use crate::check::show;

/// Asks, and says what is missing.
///
/// # Errors
/// `Refused` when Prometheus cannot be asked, `Failed` when something is missing.
pub(super) fn run(args: &Check) -> Result<(), Ended> {
    let options = Options { job: args.job.clone(), ..Options::default() };
    let options = options.validated().map_err(|refused| Ended::Refused(refused.to_string()))?;
    let prometheus = Prometheus::at(&args.url).map_err(Ended::Refused)?;
    let mut report = None;
    let asking = async {
        report = Some(ask(&prometheus, &options).await?);
        Ok(())
    };
    block_on(asking).map_err(Ended::Refused)?;
    let report = report.expect("what was asked without an error has an answer");
    show(&if args.json { report.json() } else { report.to_string() });
    match report.shortfall() {
        None => Ok(()),
        Some(shortfall) => Err(Ended::Failed(shortfall)),
    }
}

async fn ask(prometheus: &Prometheus, options: &Options) -> Result<Report, String> {
    let needs = Needs::of(options);
    let names = |of_job: bool| -> Vec<&str> {
        let some = needs.series.keys().filter(|selector| selector.of_job == of_job);
        some.map(|selector| selector.name.as_str()).collect()
    };
    let of_job = prometheus.present(&names(true), Some(&options.job)).await?;
    let of_any = prometheus.present(&names(false), None).await?;
    let loaded: BTreeMap<_, _> =
        prometheus.rules().await?.into_iter().map(|rule| (rule.name.clone(), rule.last_error)).collect();

    let mut report = Report { job: options.job.clone(), needed: needs.series.len(), ..Report::default() };
    for (selector, readers) in &needs.series {
        let there = if selector.of_job { &of_job } else { &of_any };
        let name = &selector.name;
        if there.contains(name) {
            continue;
        }
        if needs::is_quiet(name) {
            report.quiet.push(name.clone());
        } else {
            report.missing.push(Missing {
                name: name.clone(),
                appears: needs::appears(name),
                blind: readers.iter().filter(|reader| !reader.starts_with("record ")).cloned().collect(),
            });
        }
    }
    report.not_loaded = needs.rules.iter().filter(|name| !loaded.contains_key(*name)).cloned().collect();
    report.failing = failing(&needs.rules, &loaded);
    report.rules = needs.rules.len();
    Ok(report)
}

fn failing(rules: &BTreeSet<String>, loaded: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = loaded.iter().filter(|(name, error)| rules.contains(*name) && !error.is_empty());
    ours.map(|(name, error)| (name.clone(), error.clone())).collect()
}
