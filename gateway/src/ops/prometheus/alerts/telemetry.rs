//! Whether what is reported is all there is.

use crate::ops::board::Board;
use crate::ops::options::Options;
use crate::ops::prometheus::rule::{Alert, Severity, Words};

pub(super) fn alerts(options: &Options) -> Vec<Alert> {
    vec![init_failed(options), export_failing(options), overflow(options)]
}

/// What could not be set up says so, or is not there to say anything while the endpoint answers.
fn init_failed(options: &Options) -> Alert {
    let expr = "apm_init_success{$job} == 0
  or (up{$job} == 1 unless on (job, instance) apm_init_success{$job})";
    let words = Words {
        summary: "Telemetry that was asked for could not be set up.".to_owned(),
        description: "{{ $labels.job }} on {{ $labels.instance }} serves traffic without {{ or $labels.signal `any of its` }} telemetry.",
        board: Board::Overview,
    };
    Alert::new(options, "ApmInitFailed", Severity::Critical, Some("telemetry"), ("1m", expr), words)
}

fn export_failing(options: &Options) -> Alert {
    let expr = "sum by (job, instance, signal) (increase(apm_export_failures_total{$job}[15m])) > 5";
    let words = Words {
        summary: "Telemetry cannot be delivered.".to_owned(),
        description: "{{ $labels.job }} on {{ $labels.instance }}: {{ $value | printf \"%.0f\" }} deliveries of {{ $labels.signal }} failed in the last 15 minutes.",
        board: Board::Performance,
    };
    Alert::new(options, "TelemetryExportFailing", Severity::Warning, Some("telemetry"), ("5m", expr), words)
}

/// The series is born with its first event, which `increase` does not see.
fn overflow(options: &Options) -> Alert {
    let expr = "sum by (job, family) (
  (telemetry_series_overflow_total{$job} unless telemetry_series_overflow_total{$job} offset 1h)
    or increase(telemetry_series_overflow_total{$job}[1h])
) > 0";
    let words = Words {
        summary: "A metric has more label sets than it may have.".to_owned(),
        description: "{{ $labels.job }}: label sets of {{ $labels.family }} were folded into `other` in the last hour.",
        board: Board::Performance,
    };
    Alert::new(options, "TelemetrySeriesOverflow", Severity::Warning, Some("telemetry"), ("1m", expr), words)
}
