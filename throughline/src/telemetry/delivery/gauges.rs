//! How full the queues are.

use std::sync::Arc;

use tokio::sync::mpsc::WeakSender;

use super::super::family::Family;
use super::super::registry::{Gauge, Refresh, Registry};
use super::super::span::Record;
use super::intake::Waiting;
use super::settings::Batching;

static QUEUED: Family = Family::gauge(
    "apm_queue_spans",
    "Spans that wait: in `intake` to be redacted, in the others to be delivered by that exporter",
    &["queue"],
);
static CAPACITY: Family =
    Family::gauge("apm_queue_capacity_spans", "The most spans that a queue holds", &["queue"]);

pub(super) static FAMILIES: &[&Family] = &[&QUEUED, &CAPACITY];

/// Reads the queues before a scrape.
pub(super) struct Gauges {
    waiting: Arc<Waiting>,
    intake: Gauge,
    lanes: Vec<(WeakSender<Box<Record>>, Gauge)>,
}

// === impl Gauges ===

impl Gauges {
    pub(super) fn new(registry: &Registry, batching: Batching, waiting: Arc<Waiting>) -> Self {
        let intake = gauge(registry, batching, "intake");
        Self { waiting, intake, lanes: Vec::new() }
    }

    /// Shows the queue of `exporter` as well.
    pub(super) fn add(
        &mut self,
        registry: &Registry,
        batching: Batching,
        exporter: &str,
        queue: WeakSender<Box<Record>>,
    ) {
        self.lanes.push((queue, gauge(registry, batching, exporter)));
    }
}

impl Refresh for Gauges {
    fn refresh(&self, _: &Registry) {
        self.intake.set(as_gauge(self.waiting.count()));
        for (queue, gauge) in &self.lanes {
            let waiting = queue.upgrade().map_or(0, |queue| queue.max_capacity() - queue.capacity());
            gauge.set(as_gauge(waiting));
        }
    }
}

fn gauge(registry: &Registry, batching: Batching, queue: &str) -> Gauge {
    registry.gauge(&CAPACITY, &[queue]).set(i64::from(batching.queue));
    registry.gauge(&QUEUED, &[queue])
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
