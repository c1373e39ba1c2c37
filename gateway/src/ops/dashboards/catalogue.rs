//! Every name in a query is one of the catalogue: a family that is renamed fails a test here, and empties no panel.

use std::collections::BTreeMap;

use serde_json::Value;

use super::promql::{Query, Selector};
use crate::ops::options::Options;
use crate::ops::prometheus::{self, Rule};

/// Series that Prometheus itself has about a target.
const OF_PROMETHEUS: &[(&str, &[&str])] = &[
    ("up", &[]),
    ("scrape_duration_seconds", &[]),
    ("scrape_samples_scraped", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity"]),
];

/// What is known about a series.
#[derive(Clone, Debug)]
struct Known {
    labels: Vec<String>,
    counter: bool,
    recorded: bool,
}

/// All series that a query may name.
pub(super) struct Catalogue {
    series: BTreeMap<String, Known>,
}

// === impl Catalogue ===

impl Catalogue {
    /// What `throughline catalogue` says, what Prometheus adds, and what the pack's rules record. The name of a recorded
    /// series begins with its labels: `job_operation:`.
    pub(super) fn with_recorded_of(options: &Options) -> Self {
        let rules = prometheus::rules(options).into_iter().flat_map(|(_, _, groups)| groups);
        let records = rules.flat_map(|group| group.rules).filter_map(|rule| match rule {
            Rule::Record(record) => Some(record.name),
            Rule::Alert(_) => None,
        });
        Self::with_recorded(records.filter_map(|name| {
            let labels = name.split_once(':')?.0.split('_').map(str::to_owned).collect();
            Some((name, labels))
        }))
    }

    fn with_recorded(recorded: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let text = crate::catalogue::text(true);
        let all: Value = serde_json::from_str(&text).expect("it is JSON");
        let mut series = BTreeMap::new();
        for family in all["families"].as_array().expect("it is a list") {
            let name = family["name"].as_str().expect("a name is text");
            let labels: Vec<_> = family["labels"]
                .as_array()
                .expect("it is a list")
                .iter()
                .map(|label| label["name"].as_str().expect("a name is text").to_owned())
                .collect();
            let known = |counter, labels| Known { labels, counter, recorded: false };
            if family["type"] == "histogram" {
                let with_le = labels.iter().cloned().chain(["le".to_owned()]).collect();
                series.insert(format!("{name}_bucket"), known(true, with_le));
                series.insert(format!("{name}_sum"), known(true, labels.clone()));
                series.insert(format!("{name}_count"), known(true, labels));
            } else {
                series.insert(name.to_owned(), known(family["type"] == "counter", labels));
            }
        }
        for (name, labels) in OF_PROMETHEUS {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            series.insert((*name).to_owned(), Known { labels, counter: false, recorded: *name == "ALERTS" });
        }
        for (name, labels) in recorded {
            series.insert(name, Known { labels, counter: false, recorded: true });
        }
        Self { series }
    }

    /// What is wrong with the names of a query.
    pub(super) fn findings(&self, query: &Query) -> Vec<String> {
        query.selectors.iter().filter_map(|selector| self.finding(selector)).collect()
    }

    fn finding(&self, selector: &Selector) -> Option<String> {
        let name = &selector.name;
        let Some(known) = self.series.get(name) else {
            return Some(format!("`{name}` is no series of ours"));
        };
        let given: &[&str] = if known.recorded { &["job"] } else { &["job", "instance"] };
        let asked = selector.matchers.iter().map(|(label, _)| label).chain(&selector.asked);
        let unknown =
            asked.into_iter().find(|label| !known.labels.contains(label) && !given.contains(&label.as_str()));
        unknown.map(|label| format!("`{name}` has no label `{label}`"))
    }

    /// Whether a series only grows, so that its rate says something and its value does not.
    pub(super) fn is_counter(&self, name: &str) -> bool {
        self.series.get(name).is_some_and(|known| known.counter)
    }

    /// Whether a rule has made it, so that it is of a job and of no instance.
    pub(super) fn is_recorded(&self, name: &str) -> bool {
        self.series.get(name).is_some_and(|known| known.recorded)
    }
}
