//! What operators learn of deliveries: counters, health, and one line in the log when it begins and when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::family::Family;
use super::super::health::Health;
use super::super::label::Label as _;
use super::super::registry::{Counter, Gauge, Registry};
use super::failure::{ErrorType, Failure};
use super::otlp_settings::Signal;

static FAILURES: Family = Family::counter(
    "apm_export_failures",
    "Attempts to deliver telemetry that failed, by what went wrong",
    &["signal", "error_type"],
);
static LOST: Family = Family::counter(
    "apm_spans_dropped",
    "Spans that were given up before an exporter had delivered them, by reason",
    &["reason"],
);
static EXPORTED: Family =
    Family::counter("apm_spans_exported", "Spans that were delivered, by exporter", &["exporter"]);

pub(super) static FAMILIES: &[&Family] = &[&FAILURES, &LOST, &EXPORTED];

crate::labels! {
    /// The `reason` of `apm_spans_dropped_total`.
    pub(in crate::telemetry) enum Loss {
        QueueFull = "queue_full",
        NotRedacted = "not_redacted",
        ExportFailed = "export_failed",
        Rejected = "rejected",
        Shutdown = "shutdown",
        TraceTooLarge = "trace_too_large",
    }
}

/// Counts lost spans.
#[derive(Clone, Debug)]
pub(super) struct Losses(Arc<[Counter]>);

/// What is said of one exporter.
#[derive(Debug)]
pub(super) struct Report {
    signal: Signal,
    part: &'static str,
    /// Where it delivers to, for people.
    target: String,
    failures: Vec<Counter>,
    /// Those that were delivered, and those that were not.
    spans: Option<(Counter, Losses)>,
    health: Arc<Health>,
    failing: AtomicBool,
    /// `apm_init_success`, where this is the one that could not be set up.
    not_set_up: Option<Gauge>,
}

// === impl Losses ===

impl Losses {
    /// All at zero.
    pub(super) fn new(registry: &Registry) -> Self {
        Self(Loss::ALL.iter().map(|loss| registry.counter(&LOST, &[loss.as_str()])).collect())
    }

    pub(super) fn add(&self, loss: Loss, spans: usize) {
        self.0[loss.index()].add(spans as u64);
    }
}

// === impl Report ===

impl Report {
    /// `part` is what health calls it, and `target` where it delivers to.
    pub(super) fn new(
        signal: Signal,
        part: &'static str,
        target: impl Into<String>,
        registry: &Registry,
        health: &Arc<Health>,
    ) -> Self {
        let failure = |kind: &ErrorType| registry.counter(&FAILURES, &[signal.as_str(), kind.as_str()]);
        Self {
            signal,
            part,
            target: target.into(),
            failures: ErrorType::ALL.iter().map(failure).collect(),
            spans: None,
            health: Arc::clone(health),
            failing: AtomicBool::new(false),
            not_set_up: None,
        }
    }

    /// Counts spans as well, under the label `exporter`.
    pub(super) fn counting_spans(self, exporter: &'static str, registry: &Registry) -> Self {
        let spans = (registry.counter(&EXPORTED, &[exporter]), Losses::new(registry));
        Self { spans: Some(spans), ..self }
    }

    /// An attempt failed, whatever becomes of what it carried.
    pub(super) fn failed(&self, failure: &Failure) {
        self.failures[failure.kind.index()].inc();
        let noun = self.signal.noun();
        self.health.degraded(self.part, format!("{noun} do not reach {}: {failure}", self.target));
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                exporter = self.part,
                "{noun} do not reach {}: {failure}; what is lost is counted, and this is said once",
                self.target
            );
        }
    }

    /// It could not even be set up, which `init` says until it works after all.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only OTLP has something to set up"))]
    pub(super) fn not_set_up(&mut self, failure: &Failure, init: Gauge) {
        init.set(0);
        self.not_set_up = Some(init);
        self.failed(failure);
    }

    /// Something was delivered whole.
    pub(super) fn works(&self) {
        // Read before it is written: a processor says this for every span, from every thread.
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
            self.health.recovered(self.part);
            self.not_set_up.iter().for_each(|init| init.set(1));
            let noun = self.signal.noun();
            tracing::info!(exporter = self.part, "{noun} reach {} again", self.target);
        }
    }

    /// So many spans were delivered.
    pub(super) fn delivered(&self, spans: usize) {
        self.spans.iter().for_each(|(exported, _)| exported.add(spans as u64));
    }

    pub(super) fn lost(&self, loss: Loss, spans: usize) {
        self.spans.iter().for_each(|(_, losses)| losses.add(loss, spans));
    }
}
