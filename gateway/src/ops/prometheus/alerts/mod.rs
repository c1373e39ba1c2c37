//! What somebody should know, a file a subject. The error budget has its own: `slo`.
//!
//! A name is at most 40 characters and the name of its runbook. Labels hold nothing that varies with the value, or each
//! evaluation would make a new alert. Shares need enough events in the same window before they mean anything.

mod components;
mod cost;
mod monitoring;
mod resilience;
mod telemetry;

use super::rule::{Group, Rule};
use crate::ops::options::Options;

pub(super) fn groups(options: &Options) -> Vec<Group> {
    let group = |name, alerts: Vec<_>| Group {
        name,
        interval: "30s",
        rules: alerts.into_iter().map(Rule::Alert).collect(),
    };
    vec![
        group("throughline-monitoring-alerts", monitoring::alerts(options)),
        group("throughline-resilience-alerts", resilience::alerts(options)),
        group("throughline-cost-alerts", cost::alerts(options)),
        group("throughline-telemetry-alerts", telemetry::alerts(options)),
        group("throughline-component-alerts", components::alerts(options)),
    ]
}
