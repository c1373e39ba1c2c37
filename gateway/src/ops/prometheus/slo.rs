//! The promise: which share of requests is answered without a fault of ours or of what stands behind us.
//!
//! Bad is every answer with 5xx to a request for a route of the API, also when a provider is to blame and nothing stood in
//! for it. Good is every other answer, 4xx and 429 included. A client that went away (499) counts on neither side, and
//! so do paths that do not exist: whoever scans ports must not water down the share.
//!
//! Windows and factors are those of the Site Reliability Workbook (multiwindow, multi-burn-rate): the long window says that it
//! matters, the short one that it goes on.

use super::rule::{Alert, Group, Record, Rule, Severity, Words};
use crate::ops::board::Board;
use crate::ops::options::{Options, plain};

const REQUESTS: &str = "gateway_requests_total{$job, route=~\"/v1/.+\", code!=\"499\"}";
const ERRORS: &str = "gateway_requests_total{$job, route=~\"/v1/.+\", code=~\"5..\"}";

/// A burn that is watched.
struct Burn {
    group: &'static str,
    severity: Severity,
    /// How many times faster than the budget allows.
    factor: &'static str,
    long: &'static str,
    short: &'static str,
    pending: &'static str,
}

const BURNS: [Burn; 4] = [
    Burn {
        group: "throughline-slo-burn-1h",
        severity: Severity::Critical,
        factor: "14.4",
        long: "1h",
        short: "5m",
        pending: "2m",
    },
    Burn {
        group: "throughline-slo-burn-6h",
        severity: Severity::Critical,
        factor: "6",
        long: "6h",
        short: "30m",
        pending: "15m",
    },
    Burn {
        group: "throughline-slo-burn-1d",
        severity: Severity::Warning,
        factor: "3",
        long: "1d",
        short: "2h",
        pending: "1h",
    },
    Burn {
        group: "throughline-slo-burn-3d",
        severity: Severity::Warning,
        factor: "1",
        long: "3d",
        short: "6h",
        pending: "3h",
    },
];

pub(super) fn groups(options: &Options) -> Vec<Group> {
    let ratios = |windows: &[&str]| windows.iter().map(|window| ratio(options, window)).collect();
    let mut groups = vec![
        Group { name: "throughline-slo", interval: "30s", rules: ratios(&["5m", "30m", "1h", "2h", "6h"]) },
        Group { name: "throughline-slo-days", interval: "2m", rules: ratios(&["1d", "3d"]) },
        Group { name: "throughline-slo-hours", interval: "30s", rules: hours(options) },
        Group { name: "throughline-slo-month", interval: "5m", rules: month(options) },
    ];
    groups.extend(BURNS.iter().map(|burn| Group {
        name: burn.group,
        interval: "30s",
        rules: vec![Rule::Alert(burn.alert(options))],
    }));
    groups
}

fn ratio(options: &Options, window: &str) -> Rule {
    let expr = format!(
        "(
  sum by (job) (rate({ERRORS}[{window}]))
    or 0 * sum by (job) (rate({REQUESTS}[{window}]))
)
/ (sum by (job) (rate({REQUESTS}[{window}])) > 0)"
    );
    Record::rule(options, format!("job:gateway_errors:ratio_rate{window}"), &expr)
}

fn hours(options: &Options) -> Vec<Rule> {
    let requests = format!("sum by (job) (increase({REQUESTS}[1h]))");
    let errors = format!("sum by (job) (increase({ERRORS}[1h]))\n  or 0 * {requests}");
    vec![
        Record::rule(options, "job:gateway_requests:increase1h", &requests),
        Record::rule(options, "job:gateway_errors:increase1h", &errors),
    ]
}

/// Hour by hour: 30 days of raw series would be read anew at each evaluation.
fn month(options: &Options) -> Vec<Rule> {
    let left = format!("1 - job:gateway_errors:ratio30d{{$job}} / {}", options.error_budget());
    vec![
        Record::rule(
            options,
            "job:gateway_errors:ratio30d",
            "sum_over_time(job:gateway_errors:increase1h{$job}[30d:1h])
/ (sum_over_time(job:gateway_requests:increase1h{$job}[30d:1h]) > 0)",
        ),
        Record::rule(options, "job:gateway_error_budget_left:ratio30d", &left),
    ]
}

// === impl Burn ===

impl Burn {
    fn alert(&self, options: &Options) -> Alert {
        let Self { factor, long, short, .. } = self;
        let budget = options.error_budget();
        let expr = format!(
            "job:gateway_errors:ratio_rate{long}{{$job}} > ({factor} * {budget})
  and job:gateway_errors:ratio_rate{short}{{$job}} > ({factor} * {budget})
  and on (job) sum by (job) (increase({REQUESTS}[{long}])) >= 100"
        );
        let description = format!(
            "{{{{ $labels.job }}}} fails {{{{ $value | humanizePercentage }}}} of requests over {long} and is still failing over {short}."
        );
        let words = Words {
            summary: format!(
                "The gateway uses up its error budget of {}% {factor} times too fast.",
                plain(100.0 - options.objective)
            ),
            description: &description,
            board: Board::Overview,
        };
        let mut alert = Alert::new(
            options,
            "GatewayErrorBudgetBurn",
            self.severity,
            Some("gateway"),
            (self.pending, &expr),
            words,
        );
        alert.labels.extend([("slo", "gateway-availability"), ("long", long), ("short", short)]);
        alert
    }
}
