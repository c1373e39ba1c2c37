//! Whether the gateways can be seen at all, and whether they run what they were told to.

use crate::ops::board::Board;
use crate::ops::options::Options;
use crate::ops::prometheus::rule::{Alert, Severity, Words};

pub(super) fn alerts(options: &Options) -> Vec<Alert> {
    vec![watchdog(options), target_down(options), target_absent(options), reload_failed(options)]
}

/// Fires always: who does not hear it any more knows that alerts no longer arrive.
fn watchdog(options: &Options) -> Alert {
    let words = Words {
        summary: "Alerts of the gateway are evaluated and delivered.".to_owned(),
        description: "This alert always fires. When it no longer arrives, Prometheus, Alertmanager or the way between them is broken.",
        board: Board::Overview,
    };
    Alert::new(options, "Watchdog", Severity::Info, Some("monitoring"), ("0m", "vector(1)"), words)
}

fn target_down(options: &Options) -> Alert {
    let words = Words {
        summary: "A gateway does not answer on its metrics port.".to_owned(),
        description: "{{ $labels.job }} on {{ $labels.instance }} has not answered a scrape for 2 minutes.",
        board: Board::Overview,
    };
    let when = ("2m", "up{$job} == 0");
    Alert::new(options, "GatewayTargetDown", Severity::Critical, Some("gateway"), when, words)
}

fn target_absent(options: &Options) -> Alert {
    let words = Words {
        summary: "Prometheus knows of no gateway.".to_owned(),
        description: "No target of the job {{ $labels.job }} has been known to Prometheus for 5 minutes.",
        board: Board::Overview,
    };
    let when = ("5m", "absent(up{$job})");
    Alert::new(options, "GatewayTargetAbsent", Severity::Critical, Some("gateway"), when, words)
}

fn reload_failed(options: &Options) -> Alert {
    let words = Words {
        summary: "A gateway refused its new configuration.".to_owned(),
        description: "{{ $labels.job }} on {{ $labels.instance }} goes on with the configuration that it had before the last reload.",
        board: Board::Overview,
    };
    let when = ("1m", "config_last_reload_successful{$job} == 0");
    Alert::new(options, "ConfigReloadFailed", Severity::Warning, Some("gateway"), when, words)
}
