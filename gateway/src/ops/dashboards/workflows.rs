//! Workflows: which run, how they end, how long they take and what their stages do.

use super::Bounds;
use super::describe::{Dashboard, Panel, Row, Unit, Variable, quantile, zero_filled};
use crate::ops::board::Board;

/// The workflow's runs as a whole.
const WHOLE: &str = r#"{@,primitive="workflow",operation=~"$workflow"}"#;
/// The workflow's stages, whose operations begin with its name.
const STAGES: &str = r#"{@,operation=~"$workflow(/.+)?"}"#;
const RUNS: &str = "throughline_primitive_duration_seconds";

pub(super) fn dashboard(bounds: &Bounds) -> Dashboard {
    Dashboard {
        board: Board::Workflows,
        title: "Workflows",
        purpose: "Which workflows run, how they end, what the router decides, and which stage takes the time.",
        variable: Variable {
            name: "workflow",
            label: "Workflow",
            series: r#"throughline_primitive_duration_seconds_count{@,primitive="workflow"}"#,
            of: "operation",
        },
        rows: vec![fine(bounds), runs(), routes(), stages(bounds)],
    }
}

fn fine(bounds: &Bounds) -> Row {
    let failed = r#"(sum(rate(throughline_primitive_duration_seconds_count{@,primitive="workflow",operation=~"$workflow",outcome="error"}[@])) or 0 * sum(rate(throughline_primitive_duration_seconds_count{@,primitive="workflow",operation=~"$workflow"}[@]))) / (sum(rate(throughline_primitive_duration_seconds_count{@,primitive="workflow",operation=~"$workflow"}[@])) > 0)"#;
    let fallback = r#"sum(rate(router_decisions_total{@,reason!="routing_function"}[@])) / (sum(rate(router_decisions_total{@}[@])) > 0)"#;
    let hits = r#"sum(job_operation:cache_hits:increase30m{#,operation=~"$workflow"}) / (sum(job_operation:cache_lookups:increase30m{#,operation=~"$workflow"}) > 0)"#;
    let timeouts = r#"sum(job_operation:timeout_failures:increase10m{#,operation=~"$workflow(/.+)?"}) / (sum(job_operation:timeout_runs:increase10m{#,operation=~"$workflow(/.+)?"}) > 0)"#;
    let panels = vec![
        Panel::stat("Runs", Unit::PerSecond)
            .shows("Runs of workflows per second.")
            .good("Follows the requests: each to a model is one run.")
            .query("runs", format!("sum(rate({RUNS}_count{WHOLE}[@]))")),
        Panel::stat("Failed runs", Unit::Share)
            .shows("Share of the runs that ended with an error; those whose caller went away are not in it.")
            .good("Below 1 %. Retries and fallbacks have failed already where this rises.")
            .bad_above(0.01, 0.05)
            .alert("GatewayErrorBudgetBurn")
            .query("failed", failed),
        Panel::stat("Decisions by fallback", Unit::Share)
            .shows("Share of the router's decisions that the default route had to take, because the rule failed or named no route.")
            .good("0 %. Else a rule or a caller's header names a route that does not exist.")
            .bad_above(0.01, 0.1)
            .query("fallback", fallback),
        Panel::stat("Cache hits", Unit::Share)
            .shows("Share of the lookups of the last 30 minutes that the cache answered.")
            .good(format!("Above {}: below, most of what the cache should save is paid.", Bounds::percent(bounds.hit_rate)))
            .bad_below(bounds.hit_rate, bounds.hit_rate / 2.0)
            .alert("CacheHitRateLow")
            .query("hits", hits),
        Panel::stat("Timeouts", Unit::Share)
            .shows("Share of the guarded runs of the last 10 minutes that were given up.")
            .good(format!("Well below {}, where it is critical.", Bounds::percent(bounds.timeout_rate)))
            .bad_above(bounds.timeout_rate / 2.0, bounds.timeout_rate)
            .alert("TimeoutRateHigh")
            .query("timeouts", timeouts),
        Panel::stat("Retries", Unit::PerSecond)
            .shows("Second and later attempts per second.")
            .good("A few in a hundred runs. More multiplies the load on a provider that struggles already.")
            .query(
                "retries",
                zero_filled(
                    r#"sum(rate(throughline_primitive_events_total{@,primitive="retry",event="retry"}[@]))"#,
                ),
            ),
    ];
    Row::new("Is it fine?", panels)
}

fn runs() -> Row {
    let panels = vec![
        Panel::lines("Runs by workflow", Unit::PerSecond)
            .shows("Runs per second, by workflow.")
            .good("Each follows its own day.")
            .query("{{operation}}", format!("sum by (operation) (rate({RUNS}_count{WHOLE}[@]))")),
        Panel::stacked("Ends of runs", Unit::PerSecond)
            .shows("Runs per second, by how they ended.")
            .good("`success` throughout. `cancelled`: callers go away, mostly because answers take too long.")
            .query("{{outcome}}", format!("sum by (outcome) (rate({RUNS}_count{WHOLE}[@]))")),
        Panel::lines("Duration of runs", Unit::Seconds)
            .shows("How long runs take: p50, p95 and p99. Dots are single runs and lead to their traces.")
            .good("Steady. p50 rises: cache hits are missing or a model is slow; p99 alone: retries and timeouts.")
            .query("p50", quantile("0.5", RUNS, WHOLE, ""))
            .query("p95", quantile("0.95", RUNS, WHOLE, ""))
            .query("p99", quantile("0.99", RUNS, WHOLE, "")),
        Panel::bars("Slowest workflows", Unit::Seconds)
            .width(24)
            .shows("The ten workflows with the largest p95.")
            .good("The order does not change from day to day. For the trace of a slow run choose the workflow and follow a dot in the durations.")
            .query("{{operation}}", r#"topk(10, max by (operation) (job_primitive_operation:throughline_primitive_duration_seconds:p95_5m{#,primitive="workflow",operation=~"$workflow"} >= 0))"#),
    ];
    Row::new("Runs", panels)
}

fn routes() -> Row {
    let failed = "(sum by (route) (rate(router_errors_total{@}[@])) or 0 * sum by (route) (rate(router_decisions_total{@}[@]))) / (sum by (route) (rate(router_decisions_total{@}[@])) > 0)";
    let panels = vec![
        Panel::stacked("Decisions by route and reason", Unit::PerSecond)
            .shows("Routes taken per second, and why.")
            .good("The shares that the rules are meant to give. A shift to the dear route shows in the costs next.")
            .alert("RouterSavingsLow")
            .query("{{route}} ({{reason}})", "sum by (route, reason) (rate(router_decisions_total{@}[@]))"),
        Panel::lines("Failed runs by route", Unit::Share)
            .shows("Share of each route's runs that failed.")
            .good("Below 1 % on each. One route alone: its provider; all together: the network or the gateway.")
            .bad_above(0.01, 0.05)
            .query("{{route}}", failed),
        Panel::lines("Duration by route, p95", Unit::Seconds)
            .shows("How long the chosen route took in nineteen of twenty runs.")
            .good("Steady, and below the route's time limit.")
            .query("{{route}}", quantile("0.95", "router_execution_seconds", "{@}", "route")),
    ];
    Row::new("Routes", panels)
}

fn stages(bounds: &Bounds) -> Row {
    let happened = r#"sum by (primitive, event) (rate(throughline_primitive_events_total{@,primitive=~"retry|hedge|fallback",event=~"retry|recovered|exhausted|hedged|failed_over|fell_back|budget_exhausted|no_time_left"}[@]))"#;
    let panels = vec![
        Panel::bars("Time by stage", Unit::Share)
            .shows("Runs of each stage under way on average, which is where the time goes; a stage's time includes that of the stages in it.")
            .good("Nearly all in `chat`, the innermost. What a stage has more than the one in it, it takes itself.")
            .query(
                "{{primitive}} {{operation}}",
                format!("topk(15, sum by (primitive, operation) (rate({RUNS}_sum{STAGES}[@])))"),
            ),
        Panel::lines("Duration by stage, p95", Unit::Seconds)
            .shows("How long each stage took in nineteen of twenty runs.")
            .good("Lines that move together have the cause in the innermost stage that moves.")
            .query("{{primitive}} {{operation}}", r#"max by (primitive, operation) (job_primitive_operation:throughline_primitive_duration_seconds:p95_5m{#,operation=~"$workflow(/.+)?"} >= 0)"#),
        Panel::stacked("What the cache did", Unit::PerSecond)
            .shows("Runs per second, by what the cache did for them.")
            .good("`hit` and `coalesced` are saved calls. `bypass`: the request may not be cached; `error`: the store fails.")
            .alert("CacheHitRateLow")
            .query("{{outcome}}", r#"sum by (outcome) (rate(cache_outcomes_total{@,operation=~"$workflow"}[@]))"#),
        Panel::lines("Timeouts by operation", Unit::Share)
            .width(12)
            .shows("Share of each guarded operation's runs that were given up, over 10 minutes.")
            .good(format!("Below {}. One route alone: its model is slow, or its limit is too tight.", Bounds::percent(bounds.timeout_rate)))
            .bad_above(bounds.timeout_rate / 2.0, bounds.timeout_rate)
            .alert("TimeoutRateHigh")
            .query("{{operation}}", r#"max by (operation) (job_operation:timeout:ratio10m{#,operation=~"$workflow(/.+)?"})"#),
        Panel::lines("Second attempts", Unit::PerSecond)
            .width(12)
            .shows("Retries, hedges and fallbacks per second, and what became of them.")
            .good("`recovered` near `retry`: they help. `exhausted` and `budget_exhausted`: they only add load.")
            .query("{{primitive}} {{event}}", happened),
    ];
    Row::new("Stages", panels)
}
