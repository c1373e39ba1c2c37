//! One exporter and the spans that wait for it. Lanes know nothing of each other: one that is stuck fills its own
//! queue and loses its own spans.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::super::span::Record;
use super::exporter::{Batch, Budget, Delivered, Exporter};
use super::failure::{ErrorType, Failure};
use super::report::{Loss, Report};
use super::settings::Batching;

/// Where spans are put for one exporter.
pub(super) struct Lane {
    queue: mpsc::Sender<Box<Record>>,
    report: Arc<Report>,
    accepted: u64,
    settled: watch::Receiver<u64>,
}

/// The task that feeds one exporter.
pub(super) struct Feeder {
    exporter: Box<dyn Exporter>,
    queue: mpsc::Receiver<Box<Record>>,
    report: Arc<Report>,
    stop: watch::Receiver<Option<Instant>>,
    batch: usize,
    timeout: Duration,
    settled: watch::Sender<u64>,
}

/// A lane, and the task that has to run for it.
pub(super) fn lane(
    exporter: Box<dyn Exporter>,
    report: Report,
    batching: Batching,
    stop: watch::Receiver<Option<Instant>>,
) -> (Lane, Feeder) {
    let (sender, queue) = mpsc::channel(batching.queue as usize);
    let (settled, seen) = watch::channel(0);
    let report = Arc::new(report);
    let feeder = Feeder {
        exporter,
        queue,
        report: Arc::clone(&report),
        stop,
        batch: batching.batch as usize,
        timeout: batching.timeout,
        settled,
    };
    (Lane { queue: sender, report, accepted: 0, settled: seen }, feeder)
}

// === impl Lane ===

impl Lane {
    /// Whether nothing more fits in.
    pub(super) fn is_full(&self) -> bool {
        self.queue.capacity() == 0
    }

    /// Puts `span` into the queue, or loses it.
    pub(super) fn push(&mut self, span: Box<Record>) {
        match self.queue.try_send(span) {
            Ok(()) => self.accepted += 1,
            Err(_) => self.report.lost(Loss::QueueFull, 1),
        }
    }

    /// Completes when all that has been put in so far is delivered or lost.
    pub(super) fn flushed(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut settled, accepted) = (self.settled.clone(), self.accepted);
        async move {
            // A feeder that is gone has settled everything.
            let _ = settled.wait_for(|settled| *settled >= accepted).await;
        }
    }

    /// For the gauge of how many wait. It does not keep the lane open.
    pub(super) fn queue(&self) -> mpsc::WeakSender<Box<Record>> {
        self.queue.downgrade()
    }
}

// === impl Feeder ===

impl Feeder {
    /// Feeds the exporter until the lane is gone.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.batch);
        while self.queue.recv_many(&mut batch, self.batch).await > 0 {
            let spans = std::mem::take(&mut batch);
            let count = spans.len();
            self.deliver(spans).await;
            self.settled.send_modify(|settled| *settled += count as u64);
        }
    }

    async fn deliver(&mut self, batch: Batch) {
        let count = batch.len();
        let ended = self.stop.borrow().is_some_and(|end| Instant::now() >= end);
        if ended {
            return self.report.lost(Loss::Shutdown, count);
        }
        match self.attempt(batch).await {
            Some(Ok(Delivered { rejected: 0 })) => {
                self.report.works();
                self.report.delivered(count);
            }
            Some(Ok(Delivered { rejected })) => {
                let rejected = rejected.min(count);
                self.report.failed(&Failure::new(
                    ErrorType::Rejected,
                    format!("{rejected} of {count} spans were rejected"),
                ));
                self.report.delivered(count - rejected);
                self.report.lost(Loss::Rejected, rejected);
            }
            Some(Err(_)) if self.stop.borrow().is_some() => self.report.lost(Loss::Shutdown, count),
            Some(Err(_)) => self.report.lost(Loss::ExportFailed, count),
            None if self.stop.borrow().is_some() => self.report.lost(Loss::Shutdown, count),
            None => {
                self.report.failed(&Failure::timeout(self.timeout));
                self.report.lost(Loss::ExportFailed, count);
            }
        }
    }

    /// `None` when time was up.
    async fn attempt(&mut self, batch: Batch) -> Option<Result<Delivered, Failure>> {
        let budget = Budget::new(self.timeout, &self.stop);
        let export = AssertUnwindSafe(async { self.exporter.export(batch, &budget, &self.report).await });
        let result = budget.bound(export.catch_unwind()).await?;
        Some(result.unwrap_or_else(|_| {
            let failure = Failure::panicked();
            self.report.failed(&failure);
            Err(failure)
        }))
    }
}
