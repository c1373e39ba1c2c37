//! The tokio runtime that the work runs on: workers, tasks, what waits.
//!
//! Only what a stable tokio tells; it counts this anyway, so asking costs the work nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

use super::family::Family;
use super::registry::{Refresh, Registry};

static WORKERS: Family = Family::gauge("tokio_workers", "Threads that run tasks", &[]);
static TASKS: Family =
    Family::gauge("tokio_alive_tasks", "Tasks that have been spawned and have not ended", &[]);
static QUEUE: Family = Family::gauge(
    "tokio_global_queue_depth",
    "Tasks that wait in the queue that all workers share: more than a few for long means too much work",
    &[],
);
static BUSY: Family = Family::amount(
    "tokio_worker_busy_seconds",
    "How long a worker has run tasks, in seconds: a rate of 1 is a worker that never rests",
    &["worker"],
);

pub(super) static FAMILIES: &[&Family] = &[&WORKERS, &TASKS, &QUEUE, &BUSY];

/// Fills the families of one runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    metrics: RuntimeMetrics,
    /// Per worker, what has been counted already.
    counted: Mutex<Vec<Duration>>,
}

// === impl Runtime ===

impl Runtime {
    pub(super) fn new(handle: &Handle) -> Self {
        let metrics = handle.metrics();
        let counted = Mutex::new(vec![Duration::ZERO; metrics.num_workers()]);
        Self { metrics, counted }
    }

    #[cfg(target_has_atomic = "64")]
    fn busy(&self, registry: &Registry) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (worker, counted) in counted.iter_mut().enumerate() {
            let busy = self.metrics.worker_total_busy_duration(worker);
            let more = busy.saturating_sub(*counted);
            registry.amount(&BUSY, &[&worker.to_string()]).add(more.as_secs_f64());
            *counted = busy.max(*counted);
        }
    }

    #[cfg(not(target_has_atomic = "64"))]
    fn busy(&self, _: &Registry) {}
}

impl Refresh for Runtime {
    fn refresh(&self, registry: &Registry) {
        let set =
            |family, value: usize| registry.gauge(family, &[]).set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&WORKERS, self.metrics.num_workers());
        set(&TASKS, self.metrics.num_alive_tasks());
        set(&QUEUE, self.metrics.global_queue_depth());
        self.busy(registry);
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::{Scrape, Telemetry, TelemetryBuilder};

    fn started(builder: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder) -> Telemetry {
        builder(Telemetry::builder().without_endpoint().local()).init()
    }

    #[test]
    fn shows_the_runtime_that_it_was_given() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
        let telemetry = started(|builder| builder.runtime(runtime.handle().clone()));
        let held = runtime.spawn(std::future::pending::<()>());
        runtime.block_on(async { tokio::spawn(async { std::hint::black_box([0_u8; 4096]) }).await.unwrap() });
        let scrape = Scrape::parse(&telemetry.sink().render());
        assert_eq!(scrape.sum("tokio_workers", &[]), Some(3.0));
        assert_eq!(scrape.sum("tokio_alive_tasks", &[]), Some(1.0));
        assert!(scrape.sum("tokio_global_queue_depth", &[]).is_some());
        assert_eq!(scrape.select("tokio_worker_busy_seconds_total", &[]).count(), 3);
        held.abort();
    }

    #[tokio::test]
    async fn takes_the_runtime_that_it_is_started_on() {
        let scrape = Scrape::parse(&started(|builder| builder).sink().render());
        assert_eq!(scrape.sum("tokio_workers", &[]), Some(1.0));
    }

    #[test]
    fn without_a_runtime_the_families_are_absent() {
        assert!(!started(|builder| builder).sink().render().contains("tokio_"));
    }
}
