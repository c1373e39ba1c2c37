//! Grafana: dashboards and what makes Grafana load them.
//!
//! A dashboard is described once ([`describe`]), in a file of its own, and rendered as Grafana's JSON ([`render`]) for
//! the pack's options; its limits are those of the alerts ([`bounds`]). Tests parse every query, compare its names with
//! the catalogue, and apply the rules that dashboards are linted by; the guide's lists of panels come from the same
//! descriptions.

mod bounds;
mod circuits;
mod describe;
mod llm;
mod maturity;
mod performance;
mod primitives;
mod provisioning;
mod render;
mod semantic;
mod system;
mod workflows;

#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod guide;
#[cfg(test)]
mod lint;
#[cfg(test)]
mod promql;

use bounds::Bounds;
use describe::Dashboard;

use super::options::Options;
use super::pack::File;

/// The files below `grafana/`.
pub(super) fn files(options: &Options) -> Vec<File> {
    let mut files = provisioning::files();
    files.extend(dashboards(&Bounds::of(options)).iter().map(|dashboard| {
        File::new(format!("grafana/dashboards/{}.json", dashboard.slug()), render::json(dashboard, options))
    }));
    files
}

/// Every dashboard, in the order of the guide.
fn dashboards(bounds: &Bounds) -> Vec<Dashboard> {
    vec![
        system::dashboard(bounds),
        workflows::dashboard(bounds),
        llm::dashboard(bounds),
        maturity::dashboard(),
        circuits::dashboard(),
        performance::dashboard(bounds),
        primitives::dashboard(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::options::Thresholds;
    use crate::ops::prometheus::{self, Rule};

    /// Options of which none is the default.
    fn others() -> Options {
        Options {
            job: "edge".to_owned(),
            objective: 99.5,
            runbook_url: "https://wiki.example/runbooks".to_owned(),
            thresholds: Thresholds {
                cache_hit_rate: 31.0,
                savings: 11.0,
                timeout_rate: 7.0,
                overhead: 0.023,
                ..Thresholds::default()
            },
            monthly_budget: Some(1234.0),
            ..Options::default()
        }
    }

    fn text(options: &Options, name: &str) -> String {
        let path = format!("grafana/dashboards/{name}.json");
        let file = files(options).into_iter().find(|file| file.path == path);
        file.unwrap_or_else(|| panic!("{path} is not written")).text
    }

    #[test]
    fn the_same_options_write_the_same_bytes() {
        assert_eq!(files(&others()), files(&others()));
    }

    #[test]
    fn options_decide_jobs_addresses_and_limits() {
        let (usual, other) = (text(&Options::default(), "overview"), text(&others(), "overview"));
        assert!(usual.contains("\"throughline\"\n") && !usual.contains("wiki.example"), "{usual}");
        assert!(other.contains("\"edge\"\n"), "{other}");
        assert!(other.contains("https://wiki.example/runbooks/GatewayErrorBudgetBurn.md"), "{other}");
        assert!(other.contains("ratio_rate1h{job=~\\\"$job\\\"}) / 0.005\""), "{other}");
        for (name, limit) in [
            ("workflows", "0.31"),
            ("workflows", "0.07"),
            ("llm", "0.11"),
            ("llm", "1234.0"),
            ("performance", "0.023"),
        ] {
            let line = format!("\"value\": {limit}\n");
            assert!(text(&others(), name).contains(&line), "{limit} in {name}");
            assert!(!text(&Options::default(), name).contains(&line), "{limit} in {name}");
        }
    }

    #[test]
    fn every_alert_that_a_panel_names_is_one_of_the_packs() {
        let rules = prometheus::rules(&others()).into_iter().flat_map(|(_, _, groups)| groups);
        let alerts: BTreeSet<_> = rules
            .flat_map(|group| group.rules)
            .filter_map(|rule| match rule {
                Rule::Alert(alert) => Some(alert.name),
                Rule::Record(_) => None,
            })
            .collect();
        let all = dashboards(&Bounds::of(&others()));
        let named = all.iter().flat_map(|dashboard| &dashboard.rows).flat_map(|row| &row.panels);
        for panel in named {
            let known = panel.alert.is_none_or(|alert| alerts.contains(alert));
            assert!(known, "{}: {:?} is not in {alerts:?}", panel.title, panel.alert);
        }
    }
}
