//! What every span exporter gets: secrets are taken out of what is sent, and losses are counted and said once, not for
//! every batch.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::Status;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::family::Family;
use super::health::Health;
use super::redacting::Redacting;
use super::registry::Counter;

static FAILURES: Family = Family::counter(
    "apm_export_failures",
    "Batches of telemetry that could not be delivered",
    &["signal", "error_type"],
);
pub(super) static FAMILIES: &[&Family] = &[&FAILURES];

/// Takes secrets out of what `inner` is to send, and counts the batches that it could not deliver.
#[derive(Debug)]
pub(super) struct Guarded<E> {
    inner: E,
    redacting: Redacting,
    timeouts: Counter,
    failures: Counter,
    failing: AtomicBool,
    health: Arc<Health>,
}

/// Writes a line a span to standard error.
#[derive(Debug)]
pub(super) struct Console;

// === impl Guarded ===

impl<E> Guarded<E> {
    pub(super) fn new(inner: E, registry: &super::Registry, health: &Arc<Health>) -> Self {
        Self {
            inner,
            redacting: Redacting::new(registry),
            timeouts: registry.counter(&FAILURES, &["traces", "timeout"]),
            failures: registry.counter(&FAILURES, &["traces", "other"]),
            failing: AtomicBool::new(false),
            health: Arc::clone(health),
        }
    }

    fn count(&self, result: &OTelSdkResult) {
        match result {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    self.health.recovered("export");
                    tracing::info!("spans are delivered again");
                }
                return;
            }
            Err(OTelSdkError::Timeout(_)) => self.timeouts.inc(),
            Err(_) => self.failures.inc(),
        }
        if !self.failing.swap(true, Ordering::Relaxed) {
            self.health.degraded("export", "spans cannot be delivered".to_owned());
            let cause = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                cause,
                "spans cannot be delivered; the loss is counted in apm_export_failures_total"
            );
        }
    }
}

impl<E: SpanExporter> SpanExporter for Guarded<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.inner.export(self.redacting.batch(batch)).await;
        self.count(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

// === impl Console ===

impl SpanExporter for Console {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let lines = batch.iter().fold(String::new(), |mut lines, span| {
            line(&mut lines, span);
            lines
        });
        std::io::stderr()
            .write_all(lines.as_bytes())
            .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }
}

fn line(out: &mut String, span: &SpanData) {
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    let status = match &span.status {
        Status::Error { description } => format!("error({description})"),
        Status::Ok => "ok".to_owned(),
        Status::Unset => "unset".to_owned(),
    };
    let ids = (span.span_context.trace_id(), span.span_context.span_id(), span.parent_span_id);
    write!(out, "span {} {took:?} {status} trace={} span={} parent={}", span.name, ids.0, ids.1, ids.2)
        .expect("writing to a string cannot fail");
    for attribute in &span.attributes {
        write!(out, " {}={}", attribute.key, attribute.value).expect("writing to a string cannot fail");
    }
    out.push('\n');
}
