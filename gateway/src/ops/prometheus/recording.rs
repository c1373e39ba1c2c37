//! What is computed before anybody asks: alerts and dashboards read the same numbers.
//!
//! Everywhere: first `increase` or `rate`, then `sum`, so that a restart of one instance is no step back of all; where a
//! side of a sum may have no series yet, the other side fills in zeros; a share has a denominator above zero or is not
//! there.

use super::rule::{Group, Record};
use crate::ops::options::Options;

/// A name, and its expression with `$job` for the matcher of the job.
type Written = (&'static str, &'static str);

const CACHE: &[Written] = &[
    (
        "job_operation:cache_hits:increase30m",
        "sum by (job, operation) (increase(cache_hits_total{$job}[30m]))
  or 0 * sum by (job, operation) (increase(cache_misses_total{$job}[30m]))",
    ),
    (
        "job_operation:cache_misses:increase30m",
        "sum by (job, operation) (increase(cache_misses_total{$job}[30m]))
  or 0 * sum by (job, operation) (increase(cache_hits_total{$job}[30m]))",
    ),
    (
        "job_operation:cache_lookups:increase30m",
        "job_operation:cache_hits:increase30m{$job} + job_operation:cache_misses:increase30m{$job}",
    ),
    (
        "job_operation:cache_hit:ratio30m",
        "job_operation:cache_hits:increase30m{$job} / (job_operation:cache_lookups:increase30m{$job} > 0)",
    ),
];

/// A route without a baseline has a cost and saves nothing that is known: it counts on neither side.
const SAVINGS: &[Written] = &[
    (
        "job:router_baseline_cost_usd:increase6h",
        "sum by (job) (increase(router_baseline_cost_usd_total{$job}[6h]))",
    ),
    (
        "job:router_cost_usd:increase6h",
        "sum by (job) (
  increase(router_cost_usd_total{$job}[6h])
    and increase(router_baseline_cost_usd_total{$job}[6h]) > 0
)",
    ),
    (
        "job:router_savings:ratio6h",
        "1 - job:router_cost_usd:increase6h{$job} / (job:router_baseline_cost_usd:increase6h{$job} > 0)",
    ),
];

const TIMEOUTS: &[Written] = &[
    (
        "job_operation:timeout_failures:increase10m",
        "sum by (job, operation) (increase(timeout_failures_total{$job}[10m]))
  or 0 * sum by (job, operation) (increase(timeout_successes_total{$job}[10m]))",
    ),
    (
        "job_operation:timeout_successes:increase10m",
        "sum by (job, operation) (increase(timeout_successes_total{$job}[10m]))
  or 0 * sum by (job, operation) (increase(timeout_failures_total{$job}[10m]))",
    ),
    (
        "job_operation:timeout_runs:increase10m",
        "job_operation:timeout_failures:increase10m{$job} + job_operation:timeout_successes:increase10m{$job}",
    ),
    (
        "job_operation:timeout:ratio10m",
        "job_operation:timeout_failures:increase10m{$job} / (job_operation:timeout_runs:increase10m{$job} > 0)",
    ),
];

const LATENCY: &[Written] = &[
    (
        "job_route:gateway_overhead_seconds:p99_10m",
        "histogram_quantile(
  0.99,
  sum by (job, route, le) (rate(gateway_overhead_seconds_bucket{$job, route=~\"/v1/.+\"}[10m]))
)",
    ),
    (
        "job_route:gateway_request_duration_seconds:p95_5m",
        "histogram_quantile(
  0.95,
  sum by (job, route, le) (rate(gateway_request_duration_seconds_bucket{$job, route=~\"/v1/.+\"}[5m]))
)",
    ),
    (
        "job_primitive_operation:throughline_primitive_duration_seconds:p95_5m",
        "histogram_quantile(
  0.95,
  sum by (job, primitive, operation, le) (rate(throughline_primitive_duration_seconds_bucket{$job}[5m]))
)",
    ),
];

const COST: &[Written] =
    &[("job:llm_cost_usd:increase1h", "sum by (job) (increase(llm_cost_usd_total{$job}[1h]))")];

/// Hour by hour: 30 days of raw series would be read anew at each evaluation.
const MONTH: &[Written] =
    &[("job:llm_cost_usd:sum30d", "sum_over_time(job:llm_cost_usd:increase1h{$job}[30d:1h])")];

/// OpenMetrics shows a counter with `_total`; what asks for the names without finds them too.
const ALIASES: &[Written] = &[
    ("router_cost_savings_usd", "router_cost_savings_usd_total{$job}"),
    ("cache_cost_savings_usd", "cache_cost_savings_usd_total{$job}"),
];

pub(super) fn groups(options: &Options) -> Vec<Group> {
    let group = |name, interval, rules: &[Written]| Group {
        name,
        interval,
        rules: rules.iter().map(|(name, expr)| Record::rule(options, *name, expr)).collect(),
    };
    vec![
        group("throughline-cache", "30s", CACHE),
        group("throughline-savings", "30s", SAVINGS),
        group("throughline-timeouts", "30s", TIMEOUTS),
        group("throughline-latency", "30s", LATENCY),
        group("throughline-cost", "30s", COST),
        group("throughline-cost-month", "5m", MONTH),
        group("throughline-aliases", "30s", ALIASES),
    ]
}
