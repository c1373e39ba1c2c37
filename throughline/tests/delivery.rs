//! Spans on their way out, whatever becomes of the exporters: the work goes on, and what is lost is counted.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use throughline::telemetry::{Scrape, Status, Telemetry, TelemetryBuilder};
use throughline::{Context, Result, workflow};

const PATIENCE: Duration = Duration::from_secs(30);

/// An exporter that does as it is told for each batch, and as the last time when it is told nothing more.
#[derive(Debug)]
struct Scripted {
    script: Mutex<Vec<Act>>,
    got: Arc<Mutex<Vec<String>>>,
    /// One message lets one batch through.
    gate: Mutex<Option<Receiver<()>>>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    Fail,
    TimeOut,
    Panic,
}

#[derive(Clone, Debug, Default)]
struct Got(Arc<Mutex<Vec<String>>>);

impl Scripted {
    fn new(script: &[Act]) -> (Self, Got) {
        let got = Got::default();
        let script = Mutex::new(script.iter().rev().copied().collect());
        (Self { script, got: Arc::clone(&got.0), gate: Mutex::default() }, got)
    }

    /// Takes everything, but holds its thread up until it is let go on.
    fn stuck() -> (Self, Got, Sender<()>) {
        let (scripted, got) = Self::new(&[Act::Take]);
        let (go, gate) = channel();
        *scripted.gate.lock().unwrap() = Some(gate);
        (scripted, got, go)
    }
}

impl SpanExporter for Scripted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if let Some(gate) = &*self.gate.lock().unwrap() {
            // A sender that is gone lets everything through.
            let _ = gate.recv();
        }
        let act = {
            let mut script = self.script.lock().unwrap();
            let act = *script.last().unwrap();
            if script.len() > 1 {
                script.pop();
            }
            act
        };
        match act {
            Act::Take => {
                self.got.lock().unwrap().extend(batch.into_iter().map(|span| span.name.into_owned()));
                Ok(())
            }
            Act::Fail => Err(OTelSdkError::InternalFailure("it holds a s3cret".to_owned())),
            Act::TimeOut => Err(OTelSdkError::Timeout(Duration::from_secs(1))),
            Act::Panic => panic!("on purpose"),
        }
    }
}

impl Got {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn with(variables: &[(&'static str, &'static str)]) -> TelemetryBuilder {
    let variables = variables.to_vec();
    let env = move |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    Telemetry::builder().without_endpoint().local().from_variables(env)
}

/// Batches of one span, at once.
fn at_once() -> TelemetryBuilder {
    with(&[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"), ("OTEL_BSP_SCHEDULE_DELAY", "1")])
}

async fn double(n: u64) -> Result<u64> {
    Ok(n * 2)
}

async fn work(telemetry: &Telemetry, name: &str) {
    let cx = Context::builder().sink(telemetry.sink()).build();
    assert_eq!(workflow(name.to_owned(), double).run(2, &cx).await.unwrap(), 4, "the work is not touched");
}

fn metric(telemetry: &Telemetry, name: &str, labels: &[(&str, &str)]) -> f64 {
    Scrape::parse(&telemetry.sink().render()).sum(name, labels).unwrap_or_default()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

fn failures(telemetry: &Telemetry, kind: &str) -> f64 {
    metric(telemetry, "apm_export_failures_total", &[("signal", "traces"), ("error_type", kind)])
}

fn lost(telemetry: &Telemetry, reason: &str) -> f64 {
    metric(telemetry, "apm_spans_dropped_total", &[("reason", reason)])
}

#[tokio::test]
async fn spans_arrive_redacted_and_are_counted() {
    let (exporter, got) = Scripted::new(&[Act::Take]);
    let telemetry = at_once().span_exporter("mine", exporter).init();
    work(&telemetry, "ask ann@example.com").await;
    until("the span", || got.names().len() == 1).await;
    assert_eq!(got.names(), ["step ask [REDACTED:EMAIL]"]);
    until("the count", || metric(&telemetry, "apm_spans_exported_total", &[("exporter", "mine")]) == 1.0)
        .await;
    assert_eq!(telemetry.status(), Status::Enabled);
}

#[tokio::test]
async fn what_waits_is_delivered_at_shutdown() {
    let (exporter, got) = Scripted::new(&[Act::Take]);
    let telemetry = with(&[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]).span_exporter("mine", exporter).init();
    for n in 0..700 {
        work(&telemetry, &format!("work {n}")).await;
    }
    telemetry.shutdown(PATIENCE).await;
    let expected: Vec<_> = (0..700).map(|n| format!("step work {n}")).collect();
    assert_eq!(got.names(), expected, "all of them, in their order");
}

#[tokio::test]
async fn every_failure_is_counted_by_its_kind_and_health_recovers_by_itself() {
    let (exporter, got) = Scripted::new(&[Act::Fail, Act::TimeOut, Act::Panic, Act::Take]);
    let telemetry = at_once().span_exporter("mine", exporter).init();
    for kind in ["other", "timeout", "panic"] {
        work(&telemetry, "work").await;
        until(kind, || failures(&telemetry, kind) == 1.0).await;
        let degraded = telemetry.degraded();
        assert_eq!((degraded.len(), &*degraded[0].part), (1, "mine"));
        assert!(degraded[0].reason.starts_with("spans do not reach an exporter of the program: "));
        assert!(!degraded[0].reason.contains("s3cret"), "{degraded:?}");
    }
    work(&telemetry, "work").await;
    until("the recovery", || telemetry.degraded().is_empty()).await;
    assert_eq!((got.names().len(), lost(&telemetry, "export_failed")), (1, 3.0));
}

#[tokio::test]
async fn a_full_queue_loses_spans_and_says_how_many() {
    let (exporter, got, go) = Scripted::stuck();
    let telemetry = with(&[("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_SCHEDULE_DELAY", "1")])
        .span_exporter("mine", exporter);
    let telemetry = telemetry.init();
    let full = || metric(&telemetry, "apm_queue_spans", &[("queue", "mine")]) == 4.0;
    let mut worked = 0.0;
    while !(full() && lost(&telemetry, "queue_full") > 0.0) {
        work(&telemetry, "work").await;
        worked += 1.0;
    }
    let capacity = |queue| metric(&telemetry, "apm_queue_capacity_spans", &[("queue", queue)]);
    assert_eq!((capacity("intake"), capacity("mine")), (4.0, 4.0));
    drop(go);
    let settled = || got.names().len() as f64 + lost(&telemetry, "queue_full") == worked;
    until("every span to be delivered or counted", settled).await;
    assert_eq!(telemetry.status(), Status::Enabled, "it works again");
}

#[tokio::test]
async fn an_exporter_that_is_stuck_holds_up_no_other_and_not_the_end() {
    let (stuck, _, _go) = Scripted::stuck();
    let (exporter, got) = Scripted::new(&[Act::Take]);
    let telemetry = with(&[
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "20"),
    ])
    .span_exporter("stuck", stuck)
    .span_exporter("mine", exporter)
    .init();
    for n in 0..20 {
        work(&telemetry, "work").await;
        until("the span", || got.names().len() == n + 1).await;
    }
    until("health", || telemetry.degraded().iter().any(|part| part.part == "stuck")).await;
    assert!(telemetry.degraded()[0].reason.ends_with("no answer within 20ms"), "{telemetry:?}");
    telemetry.shutdown(Duration::from_millis(50)).await;
    assert!(lost(&telemetry, "shutdown") + lost(&telemetry, "export_failed") >= 20.0);
}

/// A processor that panics wherever it can.
#[derive(Debug)]
struct Panicking;

impl SpanProcessor for Panicking {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {
        panic!("on purpose");
    }

    fn on_end(&self, _: SpanData) {
        panic!("on purpose");
    }

    fn force_flush(&self) -> OTelSdkResult {
        panic!("on purpose");
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_processor_that_panics_costs_no_request_and_no_other_exporter() {
    let (exporter, got) = Scripted::new(&[Act::Take]);
    let telemetry = at_once().span_processor(Panicking).span_exporter("mine", exporter).init();
    for n in 1..=3 {
        work(&telemetry, "work").await;
        until("the span", || got.names().len() == n).await;
    }
    assert_eq!(failures(&telemetry, "panic"), 6.0, "at the start and at the end of each");
    let degraded = telemetry.degraded();
    assert_eq!(degraded.len(), 1);
    assert_eq!(degraded[0].reason, "spans do not reach a span processor: the exporter panicked");
    telemetry.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn long_texts_are_cut_after_they_were_redacted() {
    #[derive(Debug)]
    struct Attributes(Arc<Mutex<Vec<String>>>);
    impl SpanExporter for Attributes {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            let values = batch.iter().flat_map(|span| &span.attributes).map(|kv| kv.value.to_string());
            self.0.lock().unwrap().extend(values);
            Ok(())
        }
    }
    let got = Arc::default();
    let limits = [("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")];
    let telemetry = with(&limits).span_exporter("mine", Attributes(Arc::clone(&got))).init();
    work(&telemetry, "work").await;
    telemetry.shutdown(PATIENCE).await;
    assert_eq!(*got.lock().unwrap(), ["succ"], "`success`, and one attribute only");
}
