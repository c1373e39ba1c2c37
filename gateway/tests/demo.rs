//! `throughline demo`: the report, and what it is computed from.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod process;

use std::collections::BTreeMap;
use std::net::TcpListener;

use process::{Finished, Launch, chat, until};
use serde_json::Value;
use throughline::telemetry::Scrape;

fn counts(value: &Value) -> BTreeMap<String, f64> {
    serde_json::from_value(value.clone()).unwrap_or_else(|_| panic!("no counts: {value}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

fn report(ended: &Finished) -> Value {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("not one JSON document: {}", ended.stdout))
}

/// What has to hold between the figures of any report.
fn is_consistent(report: &Value) {
    let (requests, errors) = (number(&report["requests"]), number(&report["errors"]));
    let codes = counts(&report["codes"]);
    assert!(requests > 0.0, "{report}");
    assert_eq!(codes.values().sum::<f64>(), requests, "{report}");
    // A stream that broke off has the code 200 and is an error.
    assert!(codes["200"] + errors >= requests && errors < requests, "{report}");
    for quantiles in [&report["latency_ms"], &report["overhead_ms"]] {
        let [p50, p95, p99] = ["p50", "p95", "p99"].map(|name| number(&quantiles[name]));
        assert!(0.0 < p50 && p50 <= p95 && p95 <= p99, "{report}");
    }
    let cache = counts(&report["cache"]);
    let of = |outcomes: &[&str]| -> f64 { outcomes.iter().filter_map(|outcome| cache.get(*outcome)).sum() };
    assert!(cache.values().sum::<f64>() <= requests, "{report}");
    let (hits, misses) = (of(&["hit", "stale", "coalesced"]), of(&["miss", "corrupt"]));
    assert!(near(number(&report["cache_hit_rate"]), hits / (hits + misses)), "{report}");
    let routed: f64 = counts(&report["routes"]).values().sum();
    assert!(routed >= misses && routed + hits <= requests, "{report}");
    let money = |name: &str| number(&report["money"][name]);
    assert!(money("spend_usd") > 0.0 && money("baseline_usd") >= money("spend_usd"), "{report}");
    assert!(near(money("saved_by_routing_usd"), money("baseline_usd") - money("spend_usd")), "{report}");
    assert!(
        near(money("saved_usd"), money("saved_by_routing_usd") + money("saved_by_cache_usd")),
        "{report}"
    );
    let without = money("baseline_usd") + money("saved_by_cache_usd");
    assert!((money("saved_percent") - 100.0 * money("saved_usd") / without).abs() < 1e-6, "{report}");
}

#[tokio::test]
async fn the_json_report_is_alone_on_standard_output_and_adds_up() {
    let ended = Launch::demo(&["--json", "--duration", "2s"]).finish().await;
    let report = report(&ended);
    is_consistent(&report);
    let routes = counts(&report["routes"]);
    assert!(routes["cheap"] > routes["premium"] && routes["premium"] > 0.0, "{report}");
    assert!(number(&report["cache_hit_rate"]) > 0.2, "the mix has repeats: {report}");
    assert!(number(&report["money"]["saved_usd"]) > 0.0, "{report}");
    assert!(number(&report["overhead_ms"]["p50"]) < number(&report["latency_ms"]["p50"]), "{report}");
    assert!(ended.stderr.contains("gateway http://127.0.0.1:"), "{}", ended.stderr);
    assert!(ended.stderr.contains("metrics http://127.0.0.1:"), "{}", ended.stderr);
}

/// The figures of a report, computed here from a page.
fn figures(page: &Scrape) -> Vec<(&'static str, f64)> {
    let chats = [("route", "/v1/chat/completions")];
    let sum = |name: &str, labels: &[(&str, &str)]| page.sum(name, labels).unwrap_or_default();
    let quantile = |q: f64, name: &str| page.quantile(q, name, &chats).unwrap() * 1e3;
    let requests = sum("gateway_requests_total", &chats);
    let hits = sum("cache_hits_total", &[]);
    let (spend, baseline) = (sum("router_cost_usd_total", &[]), sum("router_baseline_cost_usd_total", &[]));
    vec![
        ("/requests", requests),
        ("/errors", requests - sum("gateway_requests_total", &[chats[0], ("code", "200")])),
        ("/latency_ms/p50", quantile(0.5, "gateway_request_duration_seconds")),
        ("/latency_ms/p99", quantile(0.99, "gateway_request_duration_seconds")),
        ("/overhead_ms/p95", quantile(0.95, "gateway_overhead_seconds")),
        ("/routes/cheap", sum("router_decisions_total", &[("route", "cheap")])),
        ("/routes/premium", sum("router_decisions_total", &[("route", "premium")])),
        ("/cache/hit", sum("cache_outcomes_total", &[("outcome", "hit")])),
        ("/cache/miss", sum("cache_outcomes_total", &[("outcome", "miss")])),
        ("/cache_hit_rate", hits / (hits + sum("cache_misses_total", &[]))),
        ("/timeouts", sum("timeout_failures_total", &[])),
        ("/unpriced_calls", sum("llm_unpriced_calls_total", &[])),
        ("/money/spend_usd", spend),
        ("/money/baseline_usd", baseline),
        ("/money/saved_by_routing_usd", baseline - spend),
        ("/money/saved_by_cache_usd", sum("cache_cost_savings_usd_total", &[])),
    ]
}

#[tokio::test]
async fn with_keep_it_serves_on_and_the_page_says_what_the_report_said() {
    let gateway = Launch::demo(&["--json", "--keep", "--duration", "1s"]).start().await;
    let report: Value = until("the report", async || serde_json::from_str(&gateway.stdout()).ok()).await;
    is_consistent(&report);
    for (pointer, expected) in figures(&gateway.scrape().await) {
        let found = report.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {report}"));
        assert!(near(number(found), expected), "{pointer}: {found}, not {expected}");
    }
    assert_eq!(gateway.ask(chat("auto", "Where is my order?")).await.status, 200);
    let ended = gateway.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("curl -i http://127.0.0.1:"), "{}", ended.stderr);
    assert_eq!(serde_json::from_str::<Value>(&ended.stdout).unwrap(), report, "nothing came after it");
}

#[tokio::test]
async fn the_report_for_people_has_every_figure() {
    let ended = Launch::demo(&["--duration", "1s"]).finish().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for word in [
        "Requests",
        "errors",
        "Latency",
        "p50",
        "p95",
        "p99",
        "Overhead",
        "Routes",
        "cheap",
        "premium",
        "Cache",
        "lookups were hits",
        "Timeouts",
        "Spend",
        "Baseline",
        "Saved",
        "USD",
        "routing",
        "cache",
    ] {
        assert!(ended.stdout.contains(word), "no {word} in {}", ended.stdout);
    }
}

#[tokio::test]
async fn it_asks_the_prompts_of_a_file_and_no_others() {
    let long = "long ".repeat(200);
    let prompts = format!(
        "What is a monad?\n\n{{\"prompt\": \"Why?\"}}\n{{\"messages\": [{{\"role\": \"user\", \"content\": \"{long}\"}}]}}\n"
    );
    let demo =
        Launch::demo(&["--json", "--duration", "2s", "--prompts", "mine.jsonl"]).file("mine.jsonl", &prompts);
    let report = report(&demo.finish().await);
    is_consistent(&report);
    let (requests, routes) = (number(&report["requests"]), counts(&report["routes"]));
    assert!(routes["cheap"] > 0.0 && routes["premium"] > 0.0, "{report}");
    assert!(requests > 100.0, "three prompts are asked again and again: {report}");
    assert!(number(&report["cache_hit_rate"]) > 0.8, "{report}");

    let wrong =
        Launch::demo(&["--json", "--prompts", "mine.jsonl"]).file("mine.jsonl", "fine\n{\"promt\": 1}\n");
    let ended = wrong.finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("mine.jsonl:2: "), "{}", ended.stderr);
    let ended = Launch::demo(&["--prompts", "none.txt"]).finish().await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("none.txt: No such file"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let demo = Launch::new(&["demo", "--json", "--listen", &address, "--metrics-listen", "127.0.0.1:0"]);
    let ended = demo.finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains(&format!("cannot listen on {address}: ")), "{}", ended.stderr);
}

#[tokio::test]
async fn a_duration_that_makes_no_sense_is_refused() {
    for wrong in ["0s", "ten", "-1s", "25h"] {
        let ended = Launch::demo(&[&format!("--duration={wrong}")]).finish().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{wrong}");
        assert!(ended.stderr.contains("--duration"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn stopped_early_it_reports_what_there_is() {
    let gateway = Launch::demo(&["--json", "--duration", "1h"]).start().await;
    until("some answers", async || {
        (gateway.metric("gateway_requests_total", &[("code", "200")]).await > 20.0).then_some(())
    })
    .await;
    let ended = gateway.stop().await;
    is_consistent(&report(&ended));
    assert!(ended.stderr.contains("stopping early"), "{}", ended.stderr);
}

#[tokio::test]
async fn without_metrics_there_is_no_report_and_a_reason() {
    let ended =
        Launch::demo(&["--json", "--duration", "1s"]).env("ENABLE_OBSERVABILITY", "false").finish().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    assert!(ended.stderr.contains("ENABLE_OBSERVABILITY"), "{}", ended.stderr);
}
