//! Runbooks: what an alert means, whom it hurts, how to find the cause and what to do, in the words of `ops/runbooks/`.
//!
//! A file is called as its alert. Blocks of `sh` can be run where a gateway with the default addresses is, blocks of `promql`
//! anywhere the rules are; tests do both.

use super::options::Options;
use super::pack::File;

macro_rules! runbooks {
    ($($alert:literal),* $(,)?) => {
        &[$(($alert, include_str!(concat!("../../../ops/runbooks/", $alert, ".md")))),*]
    };
}

/// An alert, and what is to be read about it.
static RUNBOOKS: &[(&str, &str)] = runbooks![
    "ApmInitFailed",
    "CacheHitRateLow",
    "CacheStoreDown",
    "CircuitOpen",
    "ComponentGateLost",
    "ComponentPromoted",
    "ConfigReloadFailed",
    "GatewayErrorBudgetBurn",
    "GatewayOverheadHigh",
    "GatewayTargetAbsent",
    "GatewayTargetDown",
    "LlmBudgetNearlySpent",
    "LlmCostSpike",
    "RouterSavingsLow",
    "TelemetryExportFailing",
    "TelemetrySeriesOverflow",
    "TimeoutRateHigh",
    "Watchdog",
];

/// The files below `runbooks/`, for the job of the options.
pub(super) fn files(options: &Options) -> Vec<File> {
    let file =
        |(alert, text): &(&str, &str)| File::new(format!("runbooks/{alert}.md"), options.for_job(text));
    RUNBOOKS.iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::prometheus::{Rule, rules};

    #[test]
    fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
        let options = Options { monthly_budget: Some(1.0), ..Options::default() };
        let groups = rules(&options).into_iter().flat_map(|(_, _, groups)| groups);
        let alerts = groups.flat_map(|group| group.rules).filter_map(|rule| match rule {
            Rule::Alert(alert) => Some(alert.name),
            Rule::Record(_) => None,
        });
        let runbooks: BTreeSet<_> = RUNBOOKS.iter().map(|(alert, _)| *alert).collect();
        assert_eq!(alerts.collect::<BTreeSet<_>>(), runbooks);
    }

    #[test]
    fn a_runbook_says_what_it_is_about_and_what_to_do() {
        for (alert, text) in RUNBOOKS {
            let headings: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
            let title = format!("# {alert}");
            assert_eq!(
                headings,
                [&title, "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"],
                "{alert}"
            );
            for fence in ["\n```sh\n", "\n```promql\n"] {
                assert!(text.contains(fence), "{alert} has no block of {}", fence.trim());
            }
        }
    }

    #[test]
    fn runbooks_follow_the_job() {
        let options = Options { job: "edge".to_owned(), ..Options::default() };
        for File { path, text } in files(&options) {
            assert!(!text.contains("job=\"throughline\""), "{path}");
        }
    }
}
