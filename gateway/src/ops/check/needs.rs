//! What the pack needs, and who is blind without it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::selectors::{Selector, selectors};
use crate::ops::options::Options;
use crate::ops::pack::{self, File};
use crate::ops::prometheus::{Rule, rules};

/// What must be there for every alert and panel to see.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Names of series, and who reads them, directly or through rules.
    pub(super) series: BTreeMap<Selector, BTreeSet<String>>,
    /// Names of rules.
    pub(super) rules: BTreeSet<String>,
}

/// Series that are born with their first event: it is good news when there are none.
const BORN_WITH_TROUBLE: [&str; 4] = [
    "apm_export_failures_total",
    "apm_spans_dropped_total",
    "router_errors_total",
    "telemetry_series_overflow_total",
];

/// When a series appears, by how its name begins. The first that fits.
const APPEARS: &[(&str, &str)] = &[
    ("up", "once the job is in Prometheus' scrape config"),
    ("scrape_", "once the job is in Prometheus' scrape config"),
    ("cache_store_up", "once a model's `cache` has a `store`"),
    ("cache_", "once a model with a `cache` has been asked"),
    ("semantic_cache_", "once a model's `cache` has a `semantic`"),
    ("circuit_breaker_", "once a route has a `circuit_breaker`"),
    ("timeout_", "once a model or a route has a `timeout`"),
    ("router_baseline_cost_usd", "once a model with a `baseline` has answered and both prices are known"),
    ("router_cost", "once a model has answered and its price is known"),
    ("router_", "once a model has been asked"),
    ("llm_cost_usd", "once a model has answered and its price is known"),
    ("llm_", "once a model has been asked"),
    ("gen_ai_server_time", "once a model has answered in a stream"),
    ("gen_ai_", "once a model has been asked"),
    ("component_", "once the configuration has `[maturity]`"),
    ("apm_queue_spans", "once traces are exported"),
    ("config_last_reload", "from the version on that reads its configuration again"),
    ("redactions_", "once something has been redacted"),
];

// === impl Needs ===

impl Needs {
    /// Of everything that is written with these options.
    pub(super) fn of(options: &Options) -> Self {
        let mut needs = Self::default();
        let mut recorded = Vec::new();
        for rule in rules(options).into_iter().flat_map(|(_, _, groups)| groups).flat_map(|group| group.rules)
        {
            match rule {
                Rule::Record(record) => {
                    needs.rules.insert(record.name.clone());
                    recorded.push(record);
                }
                Rule::Alert(alert) => {
                    needs.rules.insert(alert.name.to_owned());
                    needs.read(&alert.expr, &format!("alert {}", alert.name));
                }
            }
        }
        for file in pack::files(options) {
            needs.panels(&file);
        }
        // Who reads a record reads what the record reads. Records read those above them, so from the last to the first.
        for record in recorded.iter().rev() {
            let readers: BTreeSet<_> = needs
                .series
                .iter()
                .filter(|(selector, _)| selector.name == record.name)
                .flat_map(|(_, readers)| readers.clone())
                .collect();
            let own = format!("record {}", record.name);
            for reader in readers.into_iter().chain([own]) {
                needs.read(&record.expr, &reader);
            }
        }
        needs
    }

    fn read(&mut self, query: &str, reader: &str) {
        for selector in selectors(query) {
            // Prometheus' own, and there only while something fires.
            if !selector.name.starts_with("ALERTS") {
                self.series.entry(selector).or_default().insert(reader.to_owned());
            }
        }
    }

    fn panels(&mut self, file: &File) {
        if !file.path.starts_with("grafana/") || !file.path.ends_with(".json") {
            return;
        }
        let dashboard: Value = serde_json::from_str(&file.text).expect("the pack's dashboards are JSON");
        let title = dashboard["title"].as_str().unwrap_or(&file.path).to_owned();
        self.panels_below(&title, &dashboard);
    }

    /// Panels may stand in rows.
    fn panels_below(&mut self, dashboard: &str, value: &Value) {
        for panel in value["panels"].as_array().into_iter().flatten() {
            let reader = format!("panel {dashboard} / {}", panel["title"].as_str().unwrap_or("untitled"));
            for target in panel["targets"].as_array().into_iter().flatten() {
                self.read(target["expr"].as_str().unwrap_or_default(), &reader);
            }
            self.panels_below(dashboard, panel);
        }
    }
}

/// Whether the absence of a series is good news.
pub(super) fn is_quiet(name: &str) -> bool {
    BORN_WITH_TROUBLE.contains(&name)
}

/// When a series appears that is not there.
pub(super) fn appears(name: &str) -> &'static str {
    if name.contains(':') {
        return if name.ends_with("30d") {
            "once its rule is loaded, after the first full hour"
        } else {
            "once its rule is loaded and what it reads is there"
        };
    }
    let found = APPEARS.iter().find(|(start, _)| name.starts_with(start));
    found.map_or("once a gateway of this version has been scraped", |(_, when)| when)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(needs: &Needs, name: &str) -> BTreeSet<String> {
        let of = needs.series.iter().filter(|(selector, _)| selector.name == name);
        of.flat_map(|(_, readers)| readers.clone()).collect()
    }

    #[test]
    fn an_alert_needs_what_its_records_read() {
        let needs = Needs::of(&Options::default());
        for name in ["cache_hits_total", "cache_misses_total", "job_operation:cache_hits:increase30m"] {
            assert!(
                readers(&needs, name).contains("alert CacheHitRateLow"),
                "{name}: {:?}",
                readers(&needs, name)
            );
        }
        assert!(readers(&needs, "cache_hits_total").contains("record job_operation:cache_hit:ratio30m"));
        assert!(!readers(&needs, "cache_hits_total").contains("alert TimeoutRateHigh"));
        assert!(needs.rules.contains("CircuitOpen") && !needs.rules.contains("LlmBudgetNearlySpent"));
    }

    #[test]
    fn panels_are_readers_also_in_rows() {
        let mut needs = Needs::default();
        let text = r#"{"title": "T", "panels": [{"title": "row", "panels": [
            {"title": "P", "targets": [{"expr": "rate(x_total{job=~\"$job\"}[$__rate_interval])"}]}]}]}"#;
        needs.panels(&File::new("grafana/dashboards/t.json", text));
        assert_eq!(readers(&needs, "x_total"), BTreeSet::from(["panel T / P".to_owned()]));
    }

    #[test]
    fn every_name_is_reported_recorded_or_prometheus_own() {
        let needs = Needs::of(&Options::default());
        let catalogue = crate::catalogue::text(false);
        for selector in needs.series.keys() {
            let name = selector.name.as_str();
            let family =
                ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let known = [name, family].iter().any(|name| catalogue.contains(&format!("### `{name}`\n")));
            let own = name == "up" || name.starts_with("scrape_");
            assert!(
                known || own || needs.rules.contains(name),
                "{name} is nowhere: {:?}",
                needs.series[selector]
            );
        }
    }
}
