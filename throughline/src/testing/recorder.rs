//! A telemetry instance that remembers.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_sdk::error::OTelSdkResult;
pub use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::{SimpleSpanProcessor, SpanExporter};

use crate::context::Context;
use crate::telemetry::{Clock, Scrape, Sink, Telemetry, TelemetryBuilder};

/// A telemetry instance of one test: no port, tokio's clock, every span kept.
#[derive(Debug)]
pub struct Recorder {
    telemetry: Telemetry,
    spans: Spans,
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

// === impl Recorder ===

impl Recorder {
    /// Starts to record. Contexts made elsewhere are not affected.
    pub fn new() -> Self {
        Self::of(Telemetry::builder())
    }

    /// Records what an instance of `builder` is told: for settings that change what that is.
    pub fn of(builder: TelemetryBuilder) -> Self {
        let spans = Spans::default();
        let builder = builder.without_endpoint().clock(Clock::Tokio).local();
        Self { telemetry: builder.span_processor(SimpleSpanProcessor::new(spans.clone())).init(), spans }
    }

    /// A context that reports here.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::builder().sink(self.sink()).build()
    }

    /// The port to report to.
    #[must_use]
    pub fn sink(&self) -> &Sink {
        self.telemetry.sink()
    }

    /// What a scrape would show now.
    #[must_use]
    pub fn scrape(&self) -> Scrape {
        Scrape::parse(&self.sink().render())
    }

    /// The sum of the samples called `name` with `labels`; `None` when there is none.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.scrape().sum(name, labels)
    }

    /// The spans that have ended so far, in that order.
    #[must_use]
    pub fn spans(&self) -> Vec<SpanData> {
        self.spans.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Spans ===

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(batch);
        Ok(())
    }
}
