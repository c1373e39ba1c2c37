//! What becomes of requests, figures and health while a collector does everything but its work.
//!
//! A port of the metrics that is taken is in `lifecycle.rs`, exporters and processors that panic are in the library's
//! `tests/delivery.rs`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod collector;
mod process;

use std::net::SocketAddr;
use std::sync::Arc;

use collector::{Collector, Mode};
use http::Method;
use process::{Gateway, Launch, chat, prompt_config, until};
use serde_json::Value;
use tokio::sync::Semaphore;

const REQUESTS: usize = 20;

/// A gateway that sends its spans to `collector`, hastily.
async fn gateway(collector: SocketAddr, protocol: &str, more: &[(&str, &str)]) -> Gateway {
    let mut launch = Launch::serve(&prompt_config(""))
        .env("OTEL_TRACES_EXPORTER", "otlp")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{collector}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .env("OTEL_BSP_EXPORT_TIMEOUT", "300");
    for (name, value) in more {
        launch = launch.env(name, value);
    }
    launch.start().await
}

/// Every request is answered as if nothing were wrong.
async fn serves(gateway: &Gateway) {
    for n in 0..REQUESTS {
        let answer = gateway.ask(chat("auto", &format!("question {n}"))).await;
        assert_eq!(answer.status, 200);
    }
}

async fn readiness(gateway: &Gateway) -> Value {
    let answer = gateway.send(Method::GET, "/readyz", "").await;
    assert_eq!(answer.status, 200, "it takes requests");
    serde_json::from_slice(&answer.body).unwrap()
}

/// Waits until health says that spans do not arrive, for a reason that ends like this.
async fn degrades(gateway: &Gateway, reason: &str) {
    let said = until("health", async || {
        let said = readiness(gateway).await;
        (said["status"] == "degraded").then_some(said)
    });
    let said = said.await;
    let part = &said["degraded"][0];
    assert_eq!((said["degraded"].as_array().unwrap().len(), &part["part"]), (1, &"traces_otlp".into()));
    assert!(part["since"].as_str().unwrap().ends_with('Z'), "{said}");
    let found = part["reason"].as_str().unwrap();
    assert!(found.starts_with("spans do not reach 127.0.0.1:") && found.ends_with(reason), "{said}");
}

/// A request after which spans arrive again: nothing is degraded any more, and nothing had to be done for it.
async fn recovers(gateway: &Gateway, collector: &Collector) {
    let answer = gateway.ask(chat("auto", "and now?")).await;
    collector.takes(answer.header("x-throughline-trace-id").unwrap()).await;
    let ready = async || (readiness(gateway).await["status"] == "ready").then_some(());
    until("the recovery", ready).await;
    assert!(gateway.metric("apm_spans_exported_total", &[("exporter", "otlp")]).await >= 1.0);
    gateway.says("again").await;
    let log = gateway.log();
    assert_eq!(log.matches("spans do not reach").count(), 1, "said once: {log}");
    assert_eq!(log.matches("again").count(), 1, "{log}");
}

async fn fails(gateway: &Gateway, kind: &str) {
    let labels = [("signal", "traces"), ("error_type", kind)];
    let failed = async || (gateway.metric("apm_export_failures_total", &labels).await > 0.0).then_some(());
    until(kind, failed).await;
}

async fn loses(gateway: &Gateway, reason: &str) {
    let lost = async || (lost(gateway, reason).await > 0.0).then_some(());
    until(reason, lost).await;
}

async fn lost(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("apm_spans_dropped_total", &[("reason", reason)]).await
}

#[tokio::test]
async fn a_collector_that_refuses_and_comes_back() {
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let address = Collector::start().await.address;
        let gateway = gateway(address, protocol, &[]).await;
        serves(&gateway).await;
        fails(&gateway, "refused").await;
        degrades(&gateway, ": it refused the connection").await;
        loses(&gateway, "export_failed").await;
        let collector = Collector::on(address, None).await;
        recovers(&gateway, &collector).await;
    }
}

#[tokio::test]
async fn a_collector_that_hangs_and_goes_on() {
    for protocol in ["grpc", "http/protobuf"] {
        let collector = Collector::start().await;
        collector.turn(Mode::Hang);
        let gateway = gateway(collector.address, protocol, &[]).await;
        serves(&gateway).await;
        fails(&gateway, "timeout").await;
        degrades(&gateway, ": no answer within 100ms").await;
        loses(&gateway, "export_failed").await;
        collector.turn(Mode::Take);
        recovers(&gateway, &collector).await;
    }
}

#[tokio::test]
async fn a_collector_that_answers_500_is_not_asked_again_about_the_same() {
    for (code, kind) in [(500, "http_5xx"), (404, "http_4xx")] {
        let collector = Collector::start().await;
        collector.turn(Mode::Status(code, &[]));
        let gateway = gateway(collector.address, "http/protobuf", &[]).await;
        serves(&gateway).await;
        fails(&gateway, kind).await;
        degrades(&gateway, &format!(": it answered {code}")).await;
        loses(&gateway, "export_failed").await;
        collector.turn(Mode::Take);
        recovers(&gateway, &collector).await;
    }
}

#[tokio::test]
async fn a_collector_that_is_overloaded_for_a_moment_costs_nothing() {
    let statuses: [(&str, Mode); 2] = [
        ("http/protobuf", Mode::Status(503, &[("retry-after", "0")])),
        ("grpc", Mode::Status(200, &[("grpc-status", "14")])),
    ];
    for (protocol, mode) in statuses {
        let collector = Collector::start().await;
        collector.turn(mode);
        let patient = [("OTEL_BSP_EXPORT_TIMEOUT", "20000")];
        let gateway = gateway(collector.address, protocol, &patient).await;
        let answer = gateway.ask(chat("auto", "first")).await;
        collector.asked(2).await;
        collector.turn(Mode::Take);
        collector.takes(answer.header("x-throughline-trace-id").unwrap()).await;
        recovers(&gateway, &collector).await;
        assert_eq!(lost(&gateway, "export_failed").await, 0.0);
    }
}

#[tokio::test]
async fn a_slow_collector_fills_the_queue_and_what_does_not_fit_is_counted() {
    let collector = Collector::start().await;
    let permits = Arc::new(Semaphore::new(0));
    collector.turn(Mode::Slow(Arc::clone(&permits)));
    let small = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "60000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
    ];
    let gateway = gateway(collector.address, "http/protobuf", &small).await;
    serves(&gateway).await;
    loses(&gateway, "queue_full").await;
    let capacity = [("queue", "otlp")];
    assert_eq!(gateway.metric("apm_queue_capacity_spans", &capacity).await, 8.0);
    gateway.settles("apm_queue_spans", &capacity, 8.0).await;
    permits.add_permits(Semaphore::MAX_PERMITS / 2);
    gateway.settles("apm_queue_spans", &capacity, 0.0).await;
    assert_eq!(readiness(&gateway).await["status"], "ready", "slow is not broken");
    let answer = gateway.ask(chat("auto", "and now?")).await;
    collector.takes(answer.header("x-throughline-trace-id").unwrap()).await;
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_another_exporter_nor_the_end() {
    let collector = Collector::start().await;
    collector.turn(Mode::Hang);
    let both = [("OTEL_TRACES_EXPORTER", "otlp,console"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")];
    let gateway = gateway(collector.address, "grpc", &both).await;
    let answer = gateway.ask(chat("auto", "first")).await;
    let id = answer.header("x-throughline-trace-id").unwrap();
    let shown = async || gateway.log().contains(&format!("trace={id}")).then_some(());
    until("the span on standard error", shown).await;
    let ended = gateway.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn declined_traces_that_fail_are_kept_and_others_are_not() {
    let collector = Collector::start().await;
    let config = format!(
        "[telemetry]\nkeep_errors = true\n{}",
        prompt_config(
            "[models.hasty.routes.only]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n\
                       [providers.up.openai]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = \"env:UPSTREAM_KEY\"\n"
        )
    );
    let gateway = Launch::serve(&config)
        .env("UPSTREAM_KEY", "sk-upstream-5f1c")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address))
        .env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .start()
        .await;
    serves(&gateway).await;
    let failed = gateway.ask(chat("hasty", "fails")).await;
    assert_eq!(failed.status, 502);
    let id = failed.header("x-throughline-trace-id").unwrap();
    collector.takes(id).await;
    assert_eq!(collector.traces(), [id], "and no other");
    let count = async |outcome| gateway.metric("apm_declined_traces_total", &[("outcome", outcome)]).await;
    assert_eq!(count("kept_error").await, 1.0);
    assert!(count("discarded").await >= REQUESTS as f64);
}
