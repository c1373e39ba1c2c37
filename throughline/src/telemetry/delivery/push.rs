//! Metrics that are pushed: every so often the registry is read and sent, and once more at the end.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use opentelemetry_sdk::Resource;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::health::Health;
use super::super::sink::Sink;
use super::super::worker::Worker;
use super::exporter::{Budget, Stop};
use super::failure::{ErrorType, Failure};
use super::otlp_settings::Signal;
use super::report::Report;
use super::settings::{Delivery, Interval, Metrics};

/// The tasks that push.
pub(in crate::telemetry) struct Pushing {
    stop: Stop,
    tasks: Vec<JoinHandle<()>>,
    runtime: Handle,
}

/// One task.
struct Pusher {
    target: Target,
    sink: Sink,
    report: Report,
    interval: Interval,
    stop: watch::Receiver<Option<Instant>>,
}

enum Target {
    /// With the write that is under way, if one is: a reader who does not read holds one page and no more.
    Console(Option<JoinHandle<std::io::Result<()>>>),
    #[cfg(feature = "otlp")]
    Otlp(Box<super::otlp::Link>, super::otlp::Page),
}

// === impl Pushing ===

impl Pushing {
    /// Starts a task for every target; `None` when there is none.
    pub(in crate::telemetry) fn start(
        delivery: &Delivery,
        sink: &Sink,
        health: &Arc<Health>,
        worker: &Worker,
        resource: &Resource,
    ) -> Option<Self> {
        let (stop, stopped) = watch::channel(None);
        let mut tasks = Vec::new();
        for target in &delivery.metrics {
            let Some((target, report)) = reach(*target, delivery, sink, health, resource) else { continue };
            let (sink, stop, interval) = (sink.clone(), stopped.clone(), delivery.interval);
            tasks.push(worker.run(Pusher { target, sink, report, interval, stop }.run()));
        }
        let runtime = worker.runtime().clone();
        (!tasks.is_empty()).then_some(Self { stop, tasks, runtime })
    }

    /// Pushes once more and ends, within `limit`. What comes back says when.
    pub(in crate::telemetry) fn finish(self, limit: Duration) -> Receiver<()> {
        let (done, wait) = sync_channel(1);
        self.stop.send_replace(Some(Instant::now() + limit));
        self.runtime.spawn(async move {
            join_all(self.tasks).await;
            // Who asked may have stopped waiting.
            let _ = done.send(());
        });
        wait
    }
}

fn reach(
    target: Metrics,
    delivery: &Delivery,
    sink: &Sink,
    health: &Arc<Health>,
    resource: &Resource,
) -> Option<(Target, Report)> {
    let registry = sink.registry()?;
    if target == Metrics::Console {
        let report = Report::new(Signal::Metrics, "metrics_console", "standard error", registry, health);
        return Some((Target::Console(None), report));
    }
    #[cfg(feature = "otlp")]
    {
        use super::otlp_settings::Protocol;
        let protocol = match target {
            Metrics::OtlpGrpc => Protocol::Grpc,
            Metrics::OtlpHttpJson => Protocol::Json,
            _ => Protocol::Protobuf,
        };
        let settings = &delivery.otlp_metrics;
        let host = settings.host(protocol, Signal::Metrics);
        let report = Report::new(Signal::Metrics, "metrics_otlp", host, registry, health);
        let mut link = super::otlp::Link::new(settings, protocol, Signal::Metrics);
        if let Err(failure) = link.check() {
            report.failed(&failure);
        }
        Some((Target::Otlp(Box::new(link), super::otlp::Page::new(resource)), report))
    }
    #[cfg(not(feature = "otlp"))]
    {
        let _ = (delivery, resource);
        let reason = "metrics are not pushed: built without the feature `otlp`".to_owned();
        health.degraded("metrics_otlp", reason);
        None
    }
}

// === impl Pusher ===

impl Pusher {
    async fn run(mut self) {
        loop {
            let mut stop = self.stop.clone();
            let last = tokio::select! {
                () = sleep(self.interval.every) => false,
                // A sender that is gone says stop as well.
                _ = stop.wait_for(Option::is_some) => true,
            };
            self.push().await;
            if last {
                return;
            }
        }
    }

    async fn push(&mut self) {
        let budget = Budget::new(self.interval.timeout, &self.stop);
        let attempt = AssertUnwindSafe(self.target.push(&self.sink, &budget, &self.report));
        match budget.bound(attempt.catch_unwind()).await {
            Some(Ok(Ok(0))) => self.report.works(),
            Some(Ok(Ok(rejected))) => {
                let message = format!("{rejected} data points were rejected");
                self.report.failed(&Failure::new(ErrorType::Rejected, message));
            }
            // It has been reported.
            Some(Ok(Err(_))) => {}
            Some(Err(_)) => self.report.failed(&Failure::panicked()),
            None => self.report.failed(&Failure::timeout(self.interval.timeout)),
        }
    }
}

// === impl Target ===

impl Target {
    /// Returns how many data points were rejected.
    async fn push(&mut self, sink: &Sink, budget: &Budget, report: &Report) -> Result<usize, Failure> {
        match self {
            Self::Console(writing) => {
                let _ = budget;
                if writing.as_ref().is_some_and(|write| !write.is_finished()) {
                    let failure = Failure::new(ErrorType::Timeout, "standard error takes nothing");
                    report.failed(&failure);
                    return Err(failure);
                }
                let page = sink.render();
                let write = tokio::task::spawn_blocking(move || std::io::stderr().write_all(page.as_bytes()));
                let written = writing.insert(write).await;
                match written {
                    Ok(Ok(())) => Ok(0),
                    _ => Err(Failure::new(ErrorType::Other, "standard error cannot be written to")),
                }
                .inspect_err(|failure| report.failed(failure))
            }
            #[cfg(feature = "otlp")]
            Self::Otlp(link, page) => {
                let Some(registry) = sink.registry() else { return Ok(0) };
                link.deliver(link.written(&page.request(registry)), budget, report).await
            }
        }
    }
}
