//! Span processors of others run in the middle of a request: a panic in one must not become the request's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::failure::Failure;
use super::report::Report;

/// Runs somebody else's processor and catches its panics.
#[derive(Debug)]
pub(super) struct Fence<P> {
    inner: P,
    report: Report,
}

// === impl Fence ===

impl<P: SpanProcessor> Fence<P> {
    pub(super) fn new(inner: P, report: Report) -> Self {
        Self { inner, report }
    }

    fn caught<T>(&self, call: impl FnOnce(&P) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| call(&self.inner))) {
            Ok(result) => Some(result),
            Err(_) => {
                self.report.failed(&Failure::panicked());
                None
            }
        }
    }
}

impl<P: SpanProcessor> SpanProcessor for Fence<P> {
    fn on_start(&self, span: &mut Span, cx: &opentelemetry::Context) {
        self.caught(|inner| inner.on_start(span, cx));
    }

    fn on_end(&self, span: SpanData) {
        // One that has panicked stays suspect: its state may be half of what it was to be.
        self.caught(|inner| inner.on_end(span));
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.caught(P::force_flush).unwrap_or_else(panicked)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.caught(|inner| inner.shutdown_with_timeout(timeout)).unwrap_or_else(panicked)
    }

    fn set_resource(&mut self, resource: &Resource) {
        let inner = &mut self.inner;
        if catch_unwind(AssertUnwindSafe(|| inner.set_resource(resource))).is_err() {
            self.report.failed(&Failure::panicked());
        }
    }
}

fn panicked() -> OTelSdkResult {
    Err(OTelSdkError::InternalFailure("it panicked".to_owned()))
}
