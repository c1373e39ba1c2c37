//! Performance: whose time it is, the gateway's or a model's, and whether our own parts keep their promises.

use super::Bounds;
use super::describe::{Dashboard, Panel, Row, Unit, Variable, quantile};
use crate::ops::board::Board;

const OVERHEAD: &str = "gateway_overhead_seconds";
const ROUTE: &str = r#"{@,route=~"$route"}"#;
/// What a decision of the router may take, in seconds.
const DECISION: f64 = 0.01;
/// What a lookup in the cache may take, in seconds.
const LOOKUP: f64 = 0.005;

pub(super) fn dashboard(bounds: &Bounds) -> Dashboard {
    Dashboard {
        board: Board::Performance,
        title: "Performance",
        purpose: "Whose time it is: the gateway's own, the cache's, the router's or a model's.",
        variable: Variable {
            name: "route",
            label: "Route",
            series: "gateway_requests_total{@}",
            of: "route",
        },
        rows: vec![fine(bounds), parts(bounds), monitoring()],
    }
}

/// The router's runs less those of the routes that it chose, per decision.
fn decision() -> String {
    r#"clamp_min(sum(rate(throughline_primitive_duration_seconds_sum{@,primitive="router"}[@])) - sum(rate(router_execution_seconds_sum{@}[@])), 0) / (sum(rate(router_decisions_total{@}[@])) > 0)"#
        .to_owned()
}

fn lookup(of: &str, hit: bool) -> String {
    quantile(of, "cache_latency_seconds", &format!(r#"{{@,hit="{hit}"}}"#), "")
}

fn fine(bounds: &Bounds) -> Row {
    let share = format!(
        "sum(rate({OVERHEAD}_sum{ROUTE}[@])) / (sum(rate(gateway_request_duration_seconds_sum{ROUTE}[@])) > 0)"
    );
    let panels = vec![
        Panel::stat("Overhead, p99", Unit::Seconds)
            .shows("The gateway's own share of a request, in 99 of 100, on the slowest route, over 10 minutes.")
            .good(format!("Below {}. Above: busy workers, a slow store, or large requests.", Bounds::seconds(bounds.overhead)))
            .bad_above(bounds.overhead / 2.0, bounds.overhead)
            .alert("GatewayOverheadHigh")
            .query("p99", r#"max(job_route:gateway_overhead_seconds:p99_10m{#,route=~"$route"} >= 0)"#),
        Panel::stat("Share of the gateway", Unit::Share)
            .shows("How much of the time that requests take is the gateway's own.")
            .good("Below 1 %. Answers from the cache are all ours, so that a high hit rate raises it.")
            .query("ours", share),
        Panel::stat("Latency, p95", Unit::Seconds)
            .shows("Nineteen requests of twenty were answered within this time, on the slowest route, over 5 minutes.")
            .good("As yesterday.")
            .query("p95", r#"max(job_route:gateway_request_duration_seconds:p95_5m{#,route=~"$route"} >= 0)"#),
        Panel::stat("Cache hit, p95", Unit::Seconds)
            .shows("What the cache takes for an answer that it has.")
            .good("Below 5 ms: memory takes microseconds, Redis a millisecond.")
            .bad_above(LOOKUP, 10.0 * LOOKUP)
            .alert("CacheStoreDown")
            .query("p95", lookup("0.95", true)),
        Panel::stat("Decision, mean", Unit::Seconds)
            .shows("What the router takes for a decision, on average.")
            .good("Below 10 ms; rules of the configuration take microseconds.")
            .bad_above(DECISION, 10.0 * DECISION)
            .query("mean", decision()),
        Panel::stat("Runs past their limit", Unit::PerSecond)
            .shows("Runs per second that answered only after limit and grace were over.")
            .good("0: a limit is kept to the millisecond. Else a worker is blocked, and everything on it is late.")
            .bad_above(0.01, 1.0)
            .query(
                "overruns",
                r#"sum(rate(throughline_primitive_events_total{@,primitive="timeout",event="overrun"}[@]))"#,
            ),
    ];
    Row::new("Is it fine?", panels)
}

fn parts(bounds: &Bounds) -> Row {
    let overhead = |of| quantile(of, OVERHEAD, ROUTE, "");
    let given_up = r#"sum by (operation) (rate(throughline_primitive_duration_seconds_sum{@,primitive="timeout",outcome="timeout"}[@])) / (sum by (operation) (rate(throughline_primitive_duration_seconds_count{@,primitive="timeout",outcome="timeout"}[@])) > 0)"#;
    let mean = |parts: &str| {
        format!("sum(rate({parts}_sum{ROUTE}[@])) / (sum(rate({OVERHEAD}_count{ROUTE}[@])) > 0)")
    };
    let panels = vec![
        Panel::lines("Overhead", Unit::Seconds)
            .shows("The gateway's own share of a request: p50, p95 and p99. Dots are single requests and lead to their traces.")
            .good(format!("p50 below a millisecond, p99 below {}.", Bounds::seconds(bounds.overhead)))
            .bad_above(bounds.overhead / 2.0, bounds.overhead)
            .alert("GatewayOverheadHigh")
            .query("p50", overhead("0.5"))
            .query("p95", overhead("0.95"))
            .query("p99", overhead("0.99")),
        Panel::stacked("Where a request's time goes", Unit::Seconds)
            .shows("The mean time of a request, split into the gateway's own and what is spent in calls to providers.")
            .good("Nearly all with providers. A layer of ours that can be seen is worth a profile.")
            .alert("GatewayOverheadHigh")
            .query("gateway", mean(OVERHEAD))
            .query(
                "providers",
                format!("clamp_min({} - {}, 0)", mean("gateway_request_duration_seconds"), mean(OVERHEAD)),
            ),
        Panel::lines("Router decision", Unit::Seconds)
            .shows("What the router takes for a decision on average: its runs less those of the routes that it chose.")
            .good("Below 10 ms. More: a selector of your own code is slow or waits for something.")
            .bad_above(DECISION, 10.0 * DECISION)
            .query("mean", decision()),
        Panel::lines("Cache lookups", Unit::Seconds)
            .shows("The cache's own work for a run, for hits and for misses; the work that a miss leads to is not in it.")
            .good("Both p95 below 5 ms. The store's network shows in both; waiting for another run's answer in misses.")
            .bad_above(LOOKUP, 10.0 * LOOKUP)
            .alert("CacheStoreDown")
            .query("hit, p95", lookup("0.95", true))
            .query("hit, p99", lookup("0.99", true))
            .query("miss, p95", lookup("0.95", false))
            .query("miss, p99", lookup("0.99", false)),
        Panel::lines("Time of runs that were given up", Unit::Seconds)
            .shows("How long runs took that were dropped by a timeout, on average, by operation.")
            .good("Limit and grace of the operation, within 100 ms. More: a worker is blocked.")
            .alert("TimeoutRateHigh")
            .query("{{operation}}", given_up),
        Panel::lines("Calls to providers", Unit::Seconds)
            .shows("How long calls to models took, to the last chunk: p50 and p95 by operation.")
            .good("Steady. What rises here is a provider's, and not the gateway's.")
            .query("{{operation}}, p50", quantile("0.5", "throughline_primitive_duration_seconds", r#"{@,primitive="chat"}"#, "operation"))
            .query("{{operation}}, p95", r#"max by (operation) (job_primitive_operation:throughline_primitive_duration_seconds:p95_5m{#,primitive="chat"} >= 0)"#),
    ];
    Row::new("Parts of a request", panels)
}

fn monitoring() -> Row {
    let panels = vec![
        Panel::lines("Waiting tasks", Unit::Count)
            .shows("Tasks that wait in the queue that all workers share, by instance.")
            .good("Near 0. More than a few for long: too much work for the cores.")
            .alert("GatewayOverheadHigh")
            .query("{{instance}}", "sum by (instance) (tokio_global_queue_depth{@})"),
        Panel::lines("Duration of scrapes", Unit::Seconds)
            .shows("What it takes Prometheus to read an instance's metrics.")
            .good("Below 100 ms. Near the scrape timeout, figures begin to be missing.")
            .bad_above(1.0, 5.0)
            .alert("GatewayTargetDown")
            .query("{{instance}}", "max by (instance) (scrape_duration_seconds{@})"),
        Panel::lines("Series by instance", Unit::Count)
            .shows("Samples that a scrape reads from each instance.")
            .good("Flat after the first hour: labels come from the configuration, so that traffic does not make series.")
            .bad_above(10_000.0, 50_000.0)
            .alert("TelemetrySeriesOverflow")
            .query("{{instance}}", "max by (instance) (scrape_samples_scraped{@})"),
    ];
    Row::new("Runtime and scrapes", panels)
}
