//! A real Prometheus scrapes a real gateway, and finds what has happened.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::collections::BTreeMap;

use http::Method;
use http::header::ACCEPT;
use process::client;
use process::prometheus::{Prometheus, program};
use process::{Gateway, Launch, PROMPT_PROVIDER, chat, until};
use tokio::io::AsyncWriteExt as _;

const CONFIG: &str = r#"
[providers.limited.simulated]
latency = { p50 = "1ms", p99 = "1ms" }
faults = { error_rate = 1.0, error_status = 429 }

[providers.hanging.simulated]
faults = { hang_rate = 1.0 }

[prices.small]
input = 100.0
output = 200.0
source = "this test"
date = "2026-11-22"

[prices.large]
input = 1000.0
output = 2000.0
source = "this test"
date = "2026-11-22"

[models.auto]
default_route = "cheap"
baseline = "dear"
route_header = "x-route"
cache = { ttl = "1h" }
timeout = { limit = "1h" }
[models.auto.routes.cheap]
provider = "sim"
model = "small"
[models.auto.routes.dear]
provider = "sim"
model = "large"

[models.limited.routes.limited]
provider = "limited"
model = "small"

[models.stuck]
timeout = { limit = "20ms" }
[models.stuck.routes.stuck]
provider = "hanging"
model = "small"
"#;

/// A series by name and labels, and its value.
type Expected = (&'static str, &'static [(&'static str, &'static str)], f64);

/// What [`run`] leaves behind: every one of the thirteen families, with all its labels.
const EXPECTED: &[Expected] = &[
    ("router_decisions_total", &[("route", "cheap"), ("reason", "routing_function")], 4.0),
    ("router_decisions_total", &[("route", "cheap"), ("reason", "invalid_route_fallback")], 1.0),
    ("router_decisions_total", &[("route", "cheap"), ("reason", "routing_error_fallback")], 0.0),
    ("router_decisions_total", &[("route", "dear"), ("reason", "routing_function")], 2.0),
    ("router_decisions_total", &[("route", "limited"), ("reason", "routing_function")], 2.0),
    ("router_decisions_total", &[("route", "stuck"), ("reason", "routing_function")], 3.0),
    ("router_execution_seconds_count", &[("route", "cheap")], 5.0),
    ("router_execution_seconds_count", &[("route", "dear")], 2.0),
    ("router_execution_seconds_count", &[("route", "limited")], 2.0),
    // An answer costs 4 x 100 and 7 x 200 per million, and on the baseline ten times as much.
    ("router_cost_savings_usd_total", &[("route", "cheap")], 5.0 * 0.0162),
    ("router_cost_savings_usd_total", &[("route", "dear")], 0.0),
    ("router_errors_total", &[("route", "none"), ("error_type", "invalid_route")], 1.0),
    ("router_errors_total", &[("route", "limited"), ("error_type", "rate_limited")], 2.0),
    ("cache_hits_total", &[("operation", "auto")], 2.0),
    ("cache_misses_total", &[("operation", "auto")], 7.0),
    ("cache_hit_rate", &[("operation", "auto")], 2.0 / 9.0),
    ("cache_latency_seconds_count", &[("operation", "auto"), ("hit", "true")], 2.0),
    ("cache_latency_seconds_count", &[("operation", "auto"), ("hit", "false")], 7.0),
    ("cache_cost_savings_usd_total", &[("operation", "auto")], 2.0 * 0.0018),
    ("timeout_successes_total", &[("operation", "auto")], 9.0),
    ("timeout_successes_total", &[("operation", "stuck")], 0.0),
    ("timeout_failures_total", &[("operation", "auto")], 0.0),
    ("timeout_failures_total", &[("operation", "stuck")], 3.0),
    ("timeout_execution_seconds_count", &[("operation", "auto")], 9.0),
    ("timeout_execution_seconds_count", &[("operation", "stuck")], 3.0),
    ("timeout_rate", &[("operation", "auto")], 0.0),
    ("timeout_rate", &[("operation", "stuck")], 1.0),
    // And what stands beside them.
    ("router_cost_usd_total", &[("route", "cheap")], 5.0 * 0.0018),
    ("router_baseline_cost_usd_total", &[("route", "cheap")], 5.0 * 0.018),
    ("cache_outcomes_total", &[("operation", "auto"), ("outcome", "miss")], 7.0),
    ("llm_cost_usd_total", &[("provider", "sim"), ("model", "large")], 2.0 * 0.018),
    ("gateway_requests_total", &[("route", "/v1/chat/completions"), ("code", "200")], 9.0),
    ("gateway_requests_total", &[("route", "/v1/chat/completions"), ("code", "429")], 2.0),
    ("gateway_requests_total", &[("route", "/v1/chat/completions"), ("code", "504")], 3.0),
    ("gateway_overhead_seconds_count", &[("route", "/v1/chat/completions")], 14.0),
    ("gateway_in_flight_requests", &[("route", "/v1/chat/completions")], 0.0),
    ("apm_init_success", &[("signal", "metrics")], 1.0),
    ("build_info", &[("service", "throughline"), ("version", env!("CARGO_PKG_VERSION"))], 1.0),
];

/// Fourteen requests of which everything is known.
async fn run(gateway: &Gateway) {
    let mut statuses = Vec::new();
    for prompt in ["one.", "two.", "six.", "one.", "two."] {
        statuses.push(gateway.ask(chat("auto", prompt)).await.status);
    }
    for (route, prompt) in [("dear", "long"), ("dear", "deep"), ("none", "lost")] {
        statuses.push(gateway.ask_with(&[("x-route", route)], chat("auto", prompt)).await.status);
    }
    let mut streamed = chat("auto", "flow");
    streamed["stream"] = true.into();
    statuses.push(gateway.ask(streamed).await.status);
    for model in ["limited", "limited", "stuck", "stuck", "stuck"] {
        statuses.push(gateway.ask(chat(model, "hi")).await.status);
    }
    assert_eq!(statuses, [[200; 9].as_slice(), &[429; 2], &[504; 3]].concat());
}

/// A gateway that samples every trace, for exemplars.
async fn gateway() -> Gateway {
    let launch =
        Launch::serve(&format!("{PROMPT_PROVIDER}\n{CONFIG}")).env("OTEL_TRACES_EXPORTER", "console");
    launch.env("OTEL_BSP_SCHEDULE_DELAY", "3600000").start().await
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs prometheus"]
async fn prometheus_finds_the_thirteen_families_with_the_right_values() {
    let gateway = gateway().await;
    let prometheus = Prometheus::scraping(gateway.metrics.unwrap()).await;
    run(&gateway).await;
    let last = ("gateway_requests_total", [("route", "/v1/chat/completions"), ("code", "504")]);
    let series = until("the last request to be scraped", async || {
        let series = prometheus.series().await;
        (series.value(last.0, &last.1) == Some(3.0)).then_some(series)
    })
    .await;
    assert_eq!(series.value("up", &[]), Some(1.0));
    for (name, labels, expected) in EXPECTED {
        let found = series.value(name, labels);
        assert!(
            found.is_some_and(|found| near(found, *expected)),
            "{name} {labels:?}: {found:?}, not {expected}"
        );
    }
    // Histograms arrive whole: the last bucket holds every observation.
    for histogram in ["router_execution_seconds", "cache_latency_seconds", "timeout_execution_seconds"] {
        let sum = |suffix: &str, le: Option<&str>| -> f64 {
            let name = format!("{histogram}{suffix}");
            let of = |labels: &BTreeMap<String, String>| {
                labels["__name__"] == name && le == labels.get("le").map(String::as_str)
            };
            series.0.iter().filter(|(labels, _)| of(labels)).map(|(_, value)| value).sum()
        };
        assert_eq!(sum("_bucket", Some("+Inf")), sum("_count", None), "{histogram}");
        assert!(sum("_sum", None) > 0.0, "{histogram}");
    }
    assert_eq!(prometheus.last_error("gateway").await, "");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs prometheus"]
async fn prometheus_gives_the_trace_that_the_answer_named_as_exemplar() {
    let gateway = gateway().await;
    let prometheus = Prometheus::scraping(gateway.metrics.unwrap()).await;
    let answer = gateway.ask(chat("auto", "hello")).await;
    let trace = answer.header("x-throughline-trace-id").unwrap();
    assert_eq!(trace.len(), 32, "{trace}");
    // The chat's own duration, and the duration of the stages that it went through.
    for histogram in ["gateway_request_duration_seconds", "throughline_primitive_duration_seconds"] {
        let query = format!("/api/v1/query_exemplars?query={histogram}_bucket&start=0&end=9999999999");
        until("the exemplar", async || {
            let found = prometheus.api(&query).await;
            let series = found.as_array()?.iter();
            let mut exemplars = series.flat_map(|series| series["exemplars"].as_array()).flatten();
            exemplars.find(|exemplar| exemplar["labels"]["trace_id"] == trace).map(|_| ())
        })
        .await;
    }
}

async fn page(gateway: &Gateway, accept: Option<&str>) -> (String, String) {
    let mut request = client::request(Method::GET, gateway.metrics.unwrap(), "/metrics", "");
    if let Some(accept) = accept {
        request.headers_mut().insert(ACCEPT, accept.parse().unwrap());
    }
    let answer = client::send(&client::client(), request).await;
    assert_eq!(answer.status, 200);
    (answer.header("content-type").unwrap().to_owned(), String::from_utf8(answer.body.to_vec()).unwrap())
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs promtool"]
async fn promtool_has_no_complaint_before_and_after_the_first_requests() {
    let gateway = gateway().await;
    for after in [false, true] {
        if after {
            run(&gateway).await;
            gateway.send(Method::GET, "/none", "").await;
        }
        let (_, page) = page(&gateway, None).await;
        let mut promtool = program("THROUGHLINE_E2E_PROMTOOL").args(["check", "metrics"]).spawn().unwrap();
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
        let checked = promtool.wait_with_output().await.unwrap();
        let said = [checked.stdout, checked.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&said), "", "{page}");
        assert!(checked.status.success());
    }
}

#[tokio::test]
async fn the_page_comes_in_the_format_that_is_asked_for() {
    let gateway = gateway().await;
    run(&gateway).await;
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = "text/plain; version=0.0.4; charset=utf-8";
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, expected) in
        [(None, text), (Some("*/*"), text), (Some("text/html"), text), (Some(prometheus), openmetrics)]
    {
        let (kind, page) = page(&gateway, accept).await;
        assert_eq!(kind, expected, "{accept:?}");
        let open = expected == openmetrics;
        assert_eq!(page.ends_with("\n# EOF\n"), open);
        assert_eq!(page.contains(" # {trace_id=\""), open, "exemplars are for OpenMetrics only");
        assert_eq!(page.contains("# TYPE cache_hits counter\n"), open);
        assert_eq!(page.contains("# TYPE cache_hits_total counter\n"), !open);
        assert!(page.contains("\ncache_hits_total{operation=\"auto\"} 2\n"), "{page}");
    }
}
