//! What an exporter of spans is, to the task that feeds it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::span::Records;
use super::failure::Failure;
use super::report::Report;

/// A batch of spans.
pub(super) type Batch = Records;

/// Delivers spans somewhere. It is asked to deliver one batch at a time.
pub(super) trait Exporter: Send + 'static {
    /// Delivers `batch`. Every attempt that fails it reports, and `budget` says how long it may try.
    fn export<'a>(
        &'a mut self,
        batch: Batch,
        budget: &'a Budget,
        report: &'a Report,
    ) -> BoxFuture<'a, Result<Delivered, Failure>>;
}

/// What became of a batch that arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Spans that the receiver did not take.
    pub(super) rejected: usize,
}

/// How long something may be tried.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    until: Instant,
    stop: watch::Receiver<Option<Instant>>,
}

/// Tells all exporters that the program ends, and when they must be done.
pub(super) type Stop = watch::Sender<Option<Instant>>;

// === impl Budget ===

impl Budget {
    pub(super) fn new(limit: Duration, stop: &watch::Receiver<Option<Instant>>) -> Self {
        Self { until: Instant::now() + limit, stop: stop.clone() }
    }

    /// Runs `work` while there is time.
    pub(super) async fn bound<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut stop = self.stop.clone();
        let stopped = async {
            match stop.wait_for(Option::is_some).await.map(|end| *end) {
                Ok(Some(end)) => sleep_until(end).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            done = timeout_at(self.until, work) => done.ok(),
            () = stopped => None,
        }
    }

    /// Waits for `pause`. False, and at once, when there is no time for that or the program ends.
    pub(super) async fn pause(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        if end >= self.until || self.stop.borrow().is_some() {
            return false;
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            () = sleep_until(end) => true,
            // The sender is gone only with the task that runs this.
            _ = stop.wait_for(Option::is_some) => false,
        }
    }
}
