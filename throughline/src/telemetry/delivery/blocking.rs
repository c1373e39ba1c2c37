//! Exporters that may hold up their thread: standard error, and those of others.
//!
//! They run on a thread of the blocking pool, so that nothing waits for them but their own queue. One that is stuck
//! gets nothing new until it is through.

use std::io::Write as _;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SpanExporter;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::super::spare;
use super::console;
use super::exporter::{Batch, Budget, Delivered, Exporter};
use super::failure::{ErrorType, Failure};
use super::report::Report;

/// Does a piece of work with a batch, somewhere else.
pub(super) struct Blocking {
    work: Arc<dyn Fn(Batch) -> OTelSdkResult + Send + Sync>,
    running: Option<JoinHandle<OTelSdkResult>>,
}

// === impl Blocking ===

impl Blocking {
    /// Writes a line a span to standard error.
    pub(super) fn console() -> Self {
        Self::new(|batch| {
            let lines = console::lines(&batch);
            spare::given_back(batch);
            std::io::stderr()
                .write_all(lines.as_bytes())
                .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
        })
    }

    /// Gives spans to an exporter of somebody else's. Its future runs within the telemetry thread's runtime.
    pub(super) fn foreign(exporter: impl SpanExporter + 'static, runtime: Handle) -> Self {
        Self::new(move |batch| {
            let batch = batch.into_iter().map(|span| span.into_data()).collect();
            runtime.block_on(exporter.export(batch))
        })
    }

    fn new(work: impl Fn(Batch) -> OTelSdkResult + Send + Sync + 'static) -> Self {
        Self { work: Arc::new(work), running: None }
    }

    async fn run(&mut self, batch: Batch) -> Result<(), Failure> {
        if let Some(stuck) = &mut self.running {
            // Its own batch has been given up: how it ends is of no interest.
            let _ = stuck.await;
            self.running = None;
        }
        let work = Arc::clone(&self.work);
        let running = self.running.insert(tokio::task::spawn_blocking(move || work(batch)));
        let result = running.await;
        self.running = None;
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(Failure::panicked()),
        }
    }
}

fn failure(error: &OTelSdkError) -> Failure {
    match error {
        OTelSdkError::Timeout(limit) => Failure::timeout(*limit),
        // The text is somebody else's and may hold anything.
        _ => Failure::new(ErrorType::Other, "the exporter failed"),
    }
}

impl Exporter for Blocking {
    fn export<'a>(
        &'a mut self,
        batch: Batch,
        _: &'a Budget,
        report: &'a Report,
    ) -> BoxFuture<'a, Result<Delivered, Failure>> {
        async move {
            let result = self.run(batch).await;
            result.inspect_err(|failure| report.failed(failure)).map(|()| Delivered::default())
        }
        .boxed()
    }
}
