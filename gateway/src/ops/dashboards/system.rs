//! System Overview: is it fine, and if not, where to look.

use super::Bounds;
use super::describe::{Dashboard, Panel, Row, Unit, Variable, Word, no_yes, quantile, zero_filled};
use crate::ops::board::Board;

static SET_UP: [Word; 2] = no_yes("failed", "set up");
static REACHED: [Word; 2] = no_yes("left alone", "in use");
static READ: [Word; 2] = no_yes("refused", "in force");
static FIRING: [Word; 1] = [Word { value: 1, text: "firing", colour: "red" }];

pub(super) fn dashboard(bounds: &Bounds) -> Dashboard {
    Dashboard {
        board: Board::Overview,
        title: "System Overview",
        purpose: "Is the gateway fine, and if not, where to look: its promise, its requests, its processes and its telemetry.",
        variable: Variable {
            name: "route",
            label: "Route",
            series: "gateway_requests_total{@}",
            of: "route",
        },
        rows: vec![fine(bounds), requests(bounds), instances(), telemetry()],
    }
}

fn fine(bounds: &Bounds) -> Row {
    let errors = bounds.allowed_errors();
    let left = format!(
        "min(job:gateway_error_budget_left:ratio30d{{#}}) or 1 - max(job:gateway_errors:ratio_rate3d{{#}}) / {errors}"
    );
    let panels = vec![
        Panel::stat("Error budget left", Unit::Share)
            .shows("What is left of the errors that the objective allows in 30 days.")
            .good(format!(
                "Above 25 %; before the first full hour, of what there is. At 0 % the objective of {} is missed: release nothing that is not a repair.",
                Bounds::percent(bounds.objective)
            ))
            .bad_below(0.25, 0.0)
            .alert("GatewayErrorBudgetBurn")
            .query("left", left),
        Panel::stat("Burn rate, one hour", Unit::Count)
            .shows("How many times faster than allowed the error budget was used in the last hour.")
            .good("Below 1: at 1 the budget is used up after exactly 30 days, at 14.4 after two.")
            .bad_above(1.0, 14.4)
            .alert("GatewayErrorBudgetBurn")
            .query("times", format!("max(job:gateway_errors:ratio_rate1h{{#}}) / {errors}")),
        Panel::stat("Failed requests", Unit::Share)
            .shows("Share of the requests to the API that were answered with 5xx, over 5 minutes.")
            .good(format!("Below {}, which is all that the objective allows.", Bounds::percent(errors)))
            .bad_above(errors, 14.4 * errors)
            .alert("GatewayErrorBudgetBurn")
            .query("failed", "max(job:gateway_errors:ratio_rate5m{#})"),
        Panel::stat("Latency, p95", Unit::Seconds)
            .shows("Nineteen requests of twenty were answered within this time, on the slowest route, over 5 minutes.")
            .good("As yesterday: it is the models' time above all. If it rises, Performance says whose time it is.")
            .query("p95", r#"max(job_route:gateway_request_duration_seconds:p95_5m{#,route=~"$route"} >= 0)"#),
        Panel::stat("Instances that answer", Unit::Share)
            .shows("Share of the instances whose metrics could be read.")
            .good("100 %. Less: a process is gone, or the network between it and Prometheus is.")
            .bad_below(1.0, 0.5)
            .alert("GatewayTargetDown")
            .query("answer", "sum(up{@}) / count(up{@})"),
        Panel::stat("Alerts that fire", Unit::Count)
            .shows("Warnings and critical alerts that fire now.")
            .good("0. Their names are in the table of firing alerts.")
            .bad_above(1.0, 1.0)
            .query(
                "firing",
                zero_filled(
                    r#"count(ALERTS{#,alertstate="firing",severity=~"critical|warning"})"#,
                ),
            ),
    ];
    Row::new("Is it fine?", panels)
}

fn requests(bounds: &Bounds) -> Row {
    let errors = bounds.allowed_errors();
    let burn = |window: &str| format!("max(job:gateway_errors:ratio_rate{window}{{#}}) / {errors}");
    let latency = |of| quantile(of, "gateway_request_duration_seconds", r#"{@,route=~"$route"}"#, "");
    let panels = vec![
        Panel::lines("Requests by route", Unit::RequestsPerSecond)
            .shows("Requests a second, by route of the API.")
            .good("Follows the day. A route that falls to zero alone has lost its clients; `other` is scanners and typing errors.")
            .query("{{route}}", r#"sum by (route) (rate(gateway_requests_total{@,route=~"$route"}[@]))"#),
        Panel::stacked("Answers by status code", Unit::RequestsPerSecond)
            .shows("Answers a second, by status code; 499 is a client that went away.")
            .good("200 nearly throughout. 429 and 4xx are the callers' or a quota's; 502 and 504 are providers'; 500 is ours.")
            .alert("GatewayErrorBudgetBurn")
            .query("{{code}}", r#"sum by (code) (rate(gateway_requests_total{@,route=~"$route"}[@]))"#),
        Panel::lines("Latency", Unit::Seconds)
            .shows("From a request's head to its answer's last byte: p50, p95 and p99. Dots are single requests and lead to their traces.")
            .good("Three lines that keep their distance. If p99 leaves alone, timeouts and retries of a provider are at work.")
            .query("p50", latency("0.5"))
            .query("p95", latency("0.95"))
            .query("p99", latency("0.99")),
        Panel::lines("Requests in flight", Unit::Count)
            .shows("Requests whose answer is not finished, by route.")
            .good("Rate times latency. If it climbs while the rate does not, answers hang.")
            .query("{{route}}", r#"sum by (route) (gateway_in_flight_requests{@,route=~"$route"})"#),
        Panel::lines("Burn rate by window", Unit::Count)
            .shows("How many times faster than allowed the error budget is used, over the windows that the alerts look at.")
            .good("All below 1. The short windows show a fault first; the long ones tell whether it matters.")
            .bad_above(1.0, 14.4)
            .alert("GatewayErrorBudgetBurn")
            .query("5 minutes", burn("5m"))
            .query("1 hour", burn("1h"))
            .query("6 hours", burn("6h"))
            .query("3 days", burn("3d")),
        Panel::table("Firing alerts", Unit::State)
            .width(8)
            .words(&FIRING)
            .shows("Alerts that fire now.")
            .good("`Watchdog` and nothing else: it fires always, so that its absence shows that alerting is broken.")
            .alert("Watchdog")
            .query("state", r#"max by (alertname, severity) (ALERTS{job=~"$job|",alertstate="firing"})"#),
    ];
    Row::new("Requests", panels)
}

fn instances() -> Row {
    let panels = vec![
        Panel::lines("Processor time", Unit::Share)
            .shows("Processor time used by each instance; 100 % is one core.")
            .good("Well below the cores that an instance has, and as large on each instance as on the others.")
            .query("{{instance}}", "sum by (instance) (rate(process_cpu_seconds_total{@}[@]))"),
        Panel::lines("Workers that are busy", Unit::Share)
            .shows("Share of its time that each instance's worker threads run tasks.")
            .good("Below 80 %. Above, requests wait for a thread, and the overhead on Performance rises.")
            .bad_above(0.8, 0.95)
            .alert("GatewayOverheadHigh")
            .query(
                "{{instance}}",
                "sum by (instance) (rate(tokio_worker_busy_seconds_total{@}[@])) / sum by (instance) (tokio_workers{@})",
            ),
        Panel::lines("Memory", Unit::Bytes)
            .shows("Memory held by each instance.")
            .good("Flat once the cache is full: its bound is `max_bytes`. A line that never stops rising is a leak.")
            .query("{{instance}}", "sum by (instance) (process_resident_memory_bytes{@})"),
        Panel::lines("Open files", Unit::Share)
            .shows("Open file descriptors as a share of the most that are allowed.")
            .good("Below 70 %. At 100 % no connection can be accepted or opened: raise `LimitNOFILE`.")
            .bad_above(0.7, 0.9)
            .query("{{instance}}", "max by (instance) (process_open_fds{@} / process_max_fds{@})"),
        Panel::stat("Stores of caches", Unit::State)
            .words(&REACHED)
            .shows("Whether each store of a cache is used, or left alone because it fails.")
            .good("`in use`. A store that is left alone costs money and no request: models are asked instead.")
            .alert("CacheStoreDown")
            .query("{{store}}", "min by (store) (cache_store_up{@})"),
        Panel::stat("Configuration", Unit::State)
            .words(&READ)
            .shows("Whether each instance runs the configuration that its file holds now.")
            .good("`in force`. Else the file has a fault: the gateway serves on with the last good one, and its log says line and column.")
            .alert("ConfigReloadFailed")
            .query("{{instance}}", "min by (instance) (config_last_reload_successful{@})"),
        Panel::table("Instances and versions", Unit::Seconds)
            .width(8)
            .shows("How long each instance has run, and what.")
            .good("One version, except during a rollout. A short time on one instance alone: it crashes.")
            .query(
                "up for",
                "max by (instance, service, version) ((time() - process_start_time_seconds{@}) * on (job, instance) group_right () build_info{@})",
            ),
    ];
    Row::new("Instances", panels)
}

fn telemetry() -> Row {
    let panels = vec![
        Panel::stat("Signals", Unit::State)
            .words(&SET_UP)
            .shows("Whether each signal that was asked for could be set up.")
            .good("`set up`. Else the gateway serves, and nobody sees what: its log says why.")
            .alert("ApmInitFailed")
            .query("{{signal}}", "min by (signal) (apm_init_success{@})"),
        Panel::lines("Telemetry that is lost", Unit::PerSecond)
            .shows("Failed deliveries, spans given up and log lines not written, per second.")
            .good("0. Requests do not suffer from it, but what is lost here is missing in traces and logs.")
            .bad_above(0.005, 0.1)
            .alert("TelemetryExportFailing")
            .query("failed deliveries", zero_filled("sum(rate(apm_export_failures_total{@}[@]))"))
            .query("spans given up", zero_filled("sum(rate(apm_spans_dropped_total{@}[@]))"))
            .query("log lines", zero_filled("sum(rate(apm_log_lines_dropped_total{@}[@]))")),
        Panel::lines("Span queues", Unit::Share)
            .shows("How full each queue of spans is.")
            .good("Near 0 %. At 100 % spans are given up: the collector is slow or away, or too much is sampled.")
            .bad_above(0.5, 0.9)
            .alert("TelemetryExportFailing")
            .query("{{queue}}", "max by (queue) (apm_queue_spans{@} / (apm_queue_capacity_spans{@} > 0))"),
        Panel::stat("Series folded", Unit::PerSecond)
            .shows("Observations per second that went to the series `other` because their family was full.")
            .good("0. Else the configuration names more models, routes or operations than a family may have series.")
            .bad_above(0.0001, 1.0)
            .alert("TelemetrySeriesOverflow")
            .query("folded", zero_filled("sum(rate(telemetry_series_overflow_total{@}[@]))")),
        Panel::lines("Redactions", Unit::PerSecond)
            .width(24)
            .shows("Secrets and personal data that were taken out of telemetry, by kind.")
            .good("Follows the requests. A rise of keys and credentials: a caller sends secrets in prompts. `unscanned` was too long to read and was left out whole.")
            .query("{{kind}}", "sum by (kind) (rate(redactions_total{@}[@]))"),
    ];
    Row::new("Telemetry", panels)
}
