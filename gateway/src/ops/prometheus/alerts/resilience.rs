//! Timeouts, circuits, stores, and the gateway's own time.

use crate::ops::board::Board;
use crate::ops::options::{Options, plain, share};
use crate::ops::prometheus::rule::{Alert, Severity, Words};

pub(super) fn alerts(options: &Options) -> Vec<Alert> {
    vec![timeouts(options), circuit_open(options), store_down(options), overhead(options)]
}

fn timeouts(options: &Options) -> Alert {
    let limit = options.thresholds.timeout_rate;
    let expr = format!(
        "job_operation:timeout:ratio10m{{$job}} > {}
  and job_operation:timeout_runs:increase10m{{$job}} >= 20",
        share(limit)
    );
    let words = Words {
        summary: format!("More than {limit}% of the runs of an operation time out."),
        description: "{{ $labels.job }} / {{ $labels.operation }}: {{ $value | humanizePercentage }} of the runs timed out in the last 10 minutes.",
        board: Board::Workflows,
    };
    Alert::new(options, "TimeoutRateHigh", Severity::Critical, Some("timeout"), ("5m", &expr), words)
        .keep_firing_for("5m")
}

/// By time, not by state: a circuit that tries again every few seconds is closed, or half open, at many a scrape. One that
/// nobody calls stays open and hurts nobody.
fn circuit_open(options: &Options) -> Alert {
    let expr = "sum by (job, instance, circuit) (
  rate(circuit_breaker_time_in_state_seconds_total{$job, state=~\"open|forced_open\"}[10m])
) > 0.5
  and sum by (job, instance, circuit) (increase(circuit_breaker_calls_total{$job}[10m])) > 0";
    let words = Words {
        summary: "A circuit is open most of the time.".to_owned(),
        description: "{{ $labels.job }} on {{ $labels.instance }}: circuit {{ $labels.circuit }} was open for {{ $value | humanizePercentage }} of the last 10 minutes, and calls came.",
        board: Board::Circuits,
    };
    Alert::new(options, "CircuitOpen", Severity::Warning, Some("circuit_breaker"), ("1m", expr), words)
}

fn store_down(options: &Options) -> Alert {
    let words = Words {
        summary: "A store is left alone because it fails.".to_owned(),
        description: "{{ $labels.job }} on {{ $labels.instance }} does without the store {{ $labels.store }}: every lookup goes to a provider.",
        board: Board::Overview,
    };
    let when = ("2m", "cache_store_up{$job} == 0");
    Alert::new(options, "CacheStoreDown", Severity::Warning, Some("cache"), when, words)
}

fn overhead(options: &Options) -> Alert {
    let limit = options.thresholds.overhead;
    let expr = format!(
        "job_route:gateway_overhead_seconds:p99_10m{{$job}} > {}
  and sum by (job, route) (increase(gateway_overhead_seconds_count{{$job}}[10m])) >= 100",
        plain(limit)
    );
    let words = Words {
        summary: format!(
            "The gateway itself takes longer than {} ms for one request in a hundred.",
            plain(limit * 1000.0)
        ),
        description: "{{ $labels.job }}: one request in a hundred to {{ $labels.route }} spends more than {{ $value | humanizeDuration }} in the gateway, not in a provider.",
        board: Board::Performance,
    };
    Alert::new(options, "GatewayOverheadHigh", Severity::Warning, Some("gateway"), ("10m", &expr), words)
}
