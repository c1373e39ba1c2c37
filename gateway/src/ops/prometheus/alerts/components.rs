//! How far components have come: good to know, nothing to do at night.

use crate::ops::board::Board;
use crate::ops::options::Options;
use crate::ops::prometheus::rule::{Alert, Severity, Words};

pub(super) fn alerts(options: &Options) -> Vec<Alert> {
    vec![promoted(options), gate_lost(options)]
}

/// Falling from production to staging is no promotion, though staging begins there as well.
fn promoted(options: &Options) -> Alert {
    let expr = "max by (job, component, stage) (component_stage{$job, stage=~\"staging|production\"}) == 1
  and max by (job, component, stage) (component_stage{$job} offset 1h) == 0
  unless on (job, component) max by (job, component) (component_stage{$job, stage=\"production\"} offset 1h) == 1";
    let words = Words {
        summary: "A component has reached a further stage.".to_owned(),
        description: "{{ $labels.component }} is in {{ $labels.stage }} since less than an hour.",
        board: Board::Maturity,
    };
    Alert::new(options, "ComponentPromoted", Severity::Info, None, ("0m", expr), words)
}

fn gate_lost(options: &Options) -> Alert {
    let expr = "min by (job, component, gate) (component_quality_gate_passed{$job}) == 0
  and min by (job, component, gate) (component_quality_gate_passed{$job} offset 1h) == 1";
    let words = Words {
        summary: "A component no longer passes a gate that it passed.".to_owned(),
        description: "{{ $labels.component }} does not pass {{ $labels.gate }}, which it passed an hour ago.",
        board: Board::Maturity,
    };
    Alert::new(options, "ComponentGateLost", Severity::Info, None, ("5m", expr), words)
}
