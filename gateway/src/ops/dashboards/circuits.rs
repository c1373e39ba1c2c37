//! Circuit Breakers: which providers are left alone, since when and why.

use super::describe::{Dashboard, Panel, Row, Unit, Variable, Word};
use crate::ops::board::Board;

/// The states in the order of how much is turned away.
static STATES: [Word; 6] = [
    Word { value: 0, text: "closed", colour: "green" },
    Word { value: 1, text: "metrics_only", colour: "blue" },
    Word { value: 2, text: "disabled", colour: "purple" },
    Word { value: 3, text: "half_open", colour: "yellow" },
    Word { value: 4, text: "open", colour: "red" },
    Word { value: 5, text: "forced_open", colour: "dark-red" },
];
const OPEN: &str = r#"{@,circuit=~"$circuit",state=~"open|forced_open"}"#;
const ALL: &str = r#"{@,circuit=~"$circuit"}"#;
const FAILED: &str = r#"{@,circuit=~"$circuit",outcome=~"failure|slow_failure"}"#;
const JUDGED: &str = r#"{@,circuit=~"$circuit",outcome=~"success|slow_success|failure|slow_failure"}"#;
const REJECTED: &str = r#"{@,circuit=~"$circuit",outcome="rejected"}"#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Circuits,
        title: "Circuit Breakers",
        purpose: "Which providers are left alone because they fail, since when, and how many calls that costs.",
        variable: Variable {
            name: "circuit",
            label: "Circuit",
            series: "circuit_breaker_state{@}",
            of: "circuit",
        },
        rows: vec![fine(), over_time()],
    }
}

/// The share `part` of `whole` in calls.
fn share(part: &str, whole: &str, by: &str) -> String {
    let calls = |matchers| format!("sum{by}(rate(circuit_breaker_calls_total{matchers}[@]))");
    format!("{} / ({} > 0)", calls(part), calls(whole))
}

fn fine() -> Row {
    let panels = vec![
        Panel::stat("Circuits that are open", Unit::Count)
            .width(6)
            .shows("Circuits that turn calls away now, in any instance.")
            .good("0. The states over time say which and since when.")
            .bad_above(1.0, 1.0)
            .alert("CircuitOpen")
            .query("open", format!("sum(max by (circuit) (circuit_breaker_state{OPEN}))")),
        Panel::stat("Failed calls", Unit::Share)
            .width(6)
            .shows("Share of the calls that went through and failed.")
            .good("Far below the failure rate at which circuits open, 50 % by default.")
            .bad_above(0.1, 0.5)
            .alert("CircuitOpen")
            .query("failed", share(FAILED, JUDGED, " ")),
        Panel::stat("Calls turned away", Unit::PerSecond)
            .width(6)
            .shows("Calls per second that a circuit refused.")
            .good("0. Else callers get a fallback's answer or a 503, at once instead of after a timeout.")
            .bad_above(0.1, 10.0)
            .alert("CircuitOpen")
            .query("turned away", format!("sum(rate(circuit_breaker_calls_total{REJECTED}[@]))")),
        Panel::stat("Changes of state", Unit::Count)
            .width(6)
            .shows("Changes of state in the time that is shown.")
            .good("0. Many: a circuit flaps, its provider recovers and fails again; a longer `open_for` calms it.")
            .query("changes", format!("sum(increase(circuit_breaker_transitions_total{ALL}[$__range]))")),
    ];
    Row::new("Is it fine?", panels)
}

fn over_time() -> Row {
    let states: Vec<_> = STATES
        .iter()
        .map(|Word { value, text, .. }| {
            format!(
                r#"{value} * max by (circuit, state) (circuit_breaker_state{{@,circuit=~"$circuit",state="{text}"}})"#
            )
        })
        .collect();
    let time = |matchers| {
        format!("sum by (circuit) (rate(circuit_breaker_time_in_state_seconds_total{matchers}[@]))")
    };
    let panels = vec![
        Panel::steps("State", &STATES)
            .shows("The state of each circuit; where instances differ, the one that turns away more.")
            .good("`closed`. `open`, `half_open` and `open` again: the provider is still down at each trial.")
            .alert("CircuitOpen")
            .query("{{circuit}}", format!("max by (circuit) ({})", states.join(" or "))),
        Panel::stacked("Calls by outcome", Unit::PerSecond)
            .width(12)
            .shows("Calls per second, by what they were to the circuit.")
            .good("`success`. `slow_success` is counted against the provider; `ignored` is the caller's own fault.")
            .query("{{outcome}}", format!("sum by (outcome) (rate(circuit_breaker_calls_total{ALL}[@]))")),
        Panel::lines("Failed calls by circuit", Unit::Share)
            .shows("Share of each circuit's calls that went through and failed.")
            .good("Below 10 %. It opens at its `failure_rate`, once `min_calls` were made.")
            .bad_above(0.1, 0.5)
            .alert("CircuitOpen")
            .query("{{circuit}}", share(FAILED, JUDGED, " by (circuit) ")),
        Panel::lines("Turned away by circuit", Unit::PerSecond)
            .shows("Calls per second that each circuit refused.")
            .good("0. As many as the requests: the route is lost, and its fallback carries everything.")
            .alert("CircuitOpen")
            .query("{{circuit}}", format!("sum by (circuit) (rate(circuit_breaker_calls_total{REJECTED}[@]))")),
        Panel::lines("Time spent open", Unit::Share)
            .shows("Share of its time that each circuit was open.")
            .good("0 %. 100 % for long: the provider is down, and not just slow.")
            .bad_above(0.1, 0.5)
            .alert("CircuitOpen")
            .query("{{circuit}}", format!("{} / {}", time(OPEN), time(ALL))),
        Panel::lines("Transitions", Unit::Count)
            .width(24)
            .shows("Changes of state, by where from and where to.")
            .good("None. `half_open` to `closed` is a recovery, `half_open` to `open` a trial that failed.")
            .query(
                "{{circuit}}: {{from}} to {{to}}",
                format!("sum by (circuit, from, to) (increase(circuit_breaker_transitions_total{ALL}[@]))"),
            ),
    ];
    Row::new("Over time", panels)
}
