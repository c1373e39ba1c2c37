//! Primitives: every primitive by operation, for workflows of one's own as for the gateway's.

use super::describe::{Dashboard, Panel, Row, Unit, Variable};
use crate::ops::board::Board;

const RUNS: &str = "throughline_primitive_duration_seconds";
const CHOSEN: &str = r#"{@,primitive=~"$primitive"}"#;
const FAILED: &str =
    r#"{@,primitive=~"$primitive",outcome!~"success|recovered|primary|fallback|hedge|late|cancelled"}"#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Primitives,
        title: "Primitives",
        purpose: "How often each primitive runs, how it ends, how long it takes and what happens inside.",
        variable: Variable {
            name: "primitive",
            label: "Primitive",
            series: "throughline_primitive_in_flight{@}",
            of: "primitive",
        },
        rows: vec![fine(), by_primitive(), by_operation()],
    }
}

/// The share of runs that did not bring an answer, by these labels.
fn failed(by: &str) -> String {
    let runs = |matchers| format!("sum{by}(rate({RUNS}_count{matchers}[@]))");
    format!("({} or 0 * {all}) / ({all} > 0)", runs(FAILED), all = runs(CHOSEN))
}

fn fine() -> Row {
    let panels = vec![
        Panel::stat("Runs", Unit::PerSecond)
            .width(6)
            .shows("Runs of the chosen primitives per second; a request is several, one in another.")
            .good("A fixed multiple of the requests.")
            .query("runs", format!("sum(rate({RUNS}_count{CHOSEN}[@]))")),
        Panel::stat("Runs without an answer", Unit::Share)
            .width(6)
            .shows(
                "Share of the runs that failed or were refused; those whose caller went away are not in it.",
            )
            .good("Below 1 %. An error counts at each primitive that it passes.")
            .bad_above(0.01, 0.05)
            .query("failed", failed(" ")),
        Panel::stat("In flight", Unit::Count)
            .width(6)
            .shows("Runs that have started and not ended.")
            .good("Rises and falls with the requests. One that only rises is a run that never ends.")
            .query("in flight", format!("sum(throughline_primitive_in_flight{CHOSEN})")),
        Panel::stat("Duration, p95", Unit::Seconds)
            .width(6)
            .shows("Nineteen of twenty runs took less, in the slowest operation of the chosen primitives, over 5 minutes.")
            .good("Choose one primitive to compare it with yesterday: all together they mean little.")
            .query("p95", r#"max(job_primitive_operation:throughline_primitive_duration_seconds:p95_5m{#,primitive=~"$primitive"} >= 0)"#),
    ];
    Row::new("Is it fine?", panels)
}

fn by_primitive() -> Row {
    let panels = vec![
        Panel::lines("Runs by primitive", Unit::PerSecond)
            .shows("Runs per second, by primitive.")
            .good("The inner ones run less than the outer ones where a cache or a circuit answers first, and more where retries do.")
            .query("{{primitive}}", format!("sum by (primitive) (rate({RUNS}_count{CHOSEN}[@]))")),
        Panel::lines("Failed runs by primitive", Unit::Share)
            .shows("Share of each primitive's runs that failed or were refused.")
            .good("Falls from the inside out: what `chat` fails, `retry` and `fallback` mend.")
            .bad_above(0.01, 0.05)
            .query("{{primitive}}", failed(" by (primitive) ")),
        Panel::lines("Duration by primitive, p95", Unit::Seconds)
            .shows("How long nineteen of twenty runs took in the slowest operation of each primitive, over 5 minutes.")
            .good("The outer ones lie just above the inner ones.")
            .query("{{primitive}}", r#"max by (primitive) (job_primitive_operation:throughline_primitive_duration_seconds:p95_5m{#,primitive=~"$primitive"} >= 0)"#),
    ];
    Row::new("By primitive", panels)
}

fn by_operation() -> Row {
    let panels = vec![
        Panel::stacked("Ends of runs", Unit::PerSecond)
            .shows("Runs per second, by primitive and outcome.")
            .good("`success`, `primary` and `recovered`. The reference lists what each primitive's outcomes mean.")
            .query("{{primitive}} {{outcome}}", format!("sum by (primitive, outcome) (rate({RUNS}_count{CHOSEN}[@]))")),
        Panel::lines("Events", Unit::PerSecond)
            .shows("What happened inside runs, per second: the 20 most frequent events.")
            .good("What the configuration means to happen: `stored` beside misses, `retry` beside faults.")
            .query(
                "{{primitive}} {{event}}",
                r#"topk(20, sum by (primitive, event) (rate(throughline_primitive_events_total{@,primitive=~"$primitive"}[@])))"#,
            ),
        Panel::lines("In flight by primitive", Unit::Count)
            .shows("Runs that have started and not ended, by primitive.")
            .good("Steady under steady load. It climbs first where runs wait: in `bulkhead`, `rate_limit` or `chat`.")
            .query("{{primitive}}", format!("sum by (primitive) (throughline_primitive_in_flight{CHOSEN})")),
        Panel::table("Operations", Unit::Seconds)
            .width(24)
            .shows("The mean and the p95 of the duration of each operation, and how long it ran in total per second.")
            .good("The order by total says what is worth making faster.")
            .query("mean", format!("sum by (primitive, operation) (rate({RUNS}_sum{CHOSEN}[@])) / (sum by (primitive, operation) (rate({RUNS}_count{CHOSEN}[@])) > 0)"))
            .query("p95", r#"max by (primitive, operation) (job_primitive_operation:throughline_primitive_duration_seconds:p95_5m{#,primitive=~"$primitive"} >= 0)"#)
            .query("total per second", format!("sum by (primitive, operation) (rate({RUNS}_sum{CHOSEN}[@]))")),
    ];
    Row::new("By operation", panels)
}
