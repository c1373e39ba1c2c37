//! Prometheus: what is scraped, what is computed from it, and what alerts.

pub(crate) mod alerts;
mod recording;
mod rule;
mod scrape;
mod slo;

pub(crate) use rule::{Group, Rule};

use super::options::Options;
use super::pack::File;

/// The files of rules: name, what stands in it, and its groups.
pub(crate) fn rules(options: &Options) -> Vec<(&'static str, &'static str, Vec<Group>)> {
    vec![
        ("recording", "What dashboards and alerts read in place of raw series.", recording::groups(options)),
        ("slo", "How fast the error budget is used up.", slo::groups(options)),
        ("alerts", "What somebody should know.", alerts::groups(options)),
    ]
}

/// The files below `prometheus/`.
pub(super) fn files(options: &Options) -> Vec<File> {
    let rules = rules(options).into_iter().map(|(name, about, groups)| {
        File::new(format!("prometheus/rules/{name}.yml"), rule::yaml(about, &groups))
    });
    rules.chain(scrape::files(options)).collect()
}
