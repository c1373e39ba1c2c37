//! Puts the parts together: which exporters there are, and what they are called.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter, SpanProcessor, TracerProviderBuilder};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::super::clock::Clock;
use super::super::health::Health;
use super::super::redacting::Redacting;
use super::super::registry::{Gauge, Refresh, Registry};
use super::super::span::SCOPE;
use super::super::tracer::{Own, Tracer};
use super::super::worker::Worker;
use super::blocking::Blocking;
use super::dispatch::Dispatcher;
use super::exporter::Exporter;
use super::fence::Fence;
use super::gauges::Gauges;
use super::intake::{self, FromSdk, Intake};
use super::lane::lane;
use super::otlp_settings::Signal;
use super::report::{Losses, Report};
use super::settings::{Delivery, Traces};
use super::tail::Tail;
use super::undecided::Undecided;

/// Everything that delivery is made with.
#[derive(Clone, Copy)]
pub(in crate::telemetry) struct Pipeline<'a> {
    pub(in crate::telemetry) delivery: &'a Delivery,
    pub(in crate::telemetry) registry: &'a Registry,
    pub(in crate::telemetry) health: &'a Arc<Health>,
    /// `apm_init_success` of traces.
    pub(in crate::telemetry) init: &'a Gauge,
    /// For how long traces are held.
    pub(in crate::telemetry) clock: Clock,
    pub(in crate::telemetry) worker: Option<&'a Worker>,
    pub(in crate::telemetry) resource: &'a Resource,
}

/// A processor or an exporter that the program brought along.
pub(in crate::telemetry) struct Foreign(Kind);

type AddProcessor = Box<dyn FnOnce(TracerProviderBuilder, Report) -> TracerProviderBuilder + Send>;

enum Kind {
    Processor(AddProcessor),
    Exporter(&'static str, Box<dyn FnOnce(Handle) -> Blocking + Send>),
}

/// What spans come from, and what has to be stopped.
pub(in crate::telemetry) struct Attached {
    pub(in crate::telemetry) tracer: Tracer,
    pub(in crate::telemetry) provider: Provider,
    pub(in crate::telemetry) undecided: Option<Arc<Undecided>>,
}

/// What has to be stopped for spans to be delivered.
pub(in crate::telemetry) enum Provider {
    Own(Option<Arc<Intake>>),
    Sdk(SdkTracerProvider),
}

/// An exporter, with what is said of it.
struct Outgoing {
    name: &'static str,
    report: Report,
    exporter: Box<dyn Exporter>,
}

// === impl Foreign ===

impl Foreign {
    pub(in crate::telemetry) fn processor(processor: impl SpanProcessor + 'static) -> Self {
        Self(Kind::Processor(Box::new(|builder, report| {
            builder.with_span_processor(Fence::new(processor, report))
        })))
    }

    pub(in crate::telemetry) fn exporter(name: &'static str, exporter: impl SpanExporter + 'static) -> Self {
        Self(Kind::Exporter(name, Box::new(|runtime| Blocking::foreign(exporter, runtime))))
    }

    /// Whether it needs the telemetry thread.
    pub(in crate::telemetry) fn needs_thread(&self) -> bool {
        matches!(self.0, Kind::Exporter(..))
    }
}

// === impl Provider ===

impl Provider {
    /// Delivers what is left, within `timeout`.
    ///
    /// # Errors
    /// When that was too short.
    pub(in crate::telemetry) fn stop(&self, timeout: Duration) -> OTelSdkResult {
        match self {
            Self::Own(None) => Ok(()),
            Self::Own(Some(intake)) => intake.stop(timeout),
            Self::Sdk(provider) => provider.shutdown_with_timeout(timeout),
        }
    }
}

// === impl Pipeline ===

impl Pipeline<'_> {
    /// Starts everything that is to get spans. What cannot work is in health.
    pub(in crate::telemetry) fn start(self, foreign: Vec<Foreign>) -> Attached {
        let (mut exporters, mut processors) = (Vec::new(), Vec::new());
        for foreign in foreign {
            match foreign.0 {
                Kind::Processor(add) => processors.push(add),
                Kind::Exporter(name, make) => exporters.extend(self.worker.map(|worker| {
                    let report = self.report(name, name, "an exporter of the program");
                    Outgoing { name, report, exporter: Box::new(make(worker.runtime().clone())) }
                })),
            }
        }
        exporters.extend(self.delivery.traces.iter().filter_map(|target| self.outgoing(*target)));
        if self.worker.is_none() && !self.delivery.traces.is_empty() {
            self.init.set(0);
        }
        let Delivery { head, keep, limits, .. } = *self.delivery;
        let worker = self.worker.filter(|_| !exporters.is_empty());
        let undecided = worker.filter(|_| keep.any() && head.declines());
        let undecided = undecided.map(|_| Undecided::new(keep, self.clock, self.registry));
        let intake = worker.map(|worker| self.deliver(worker, exporters, undecided.clone()));
        if !processors.is_empty() {
            return self.with_processors(processors, intake, undecided);
        }
        let intake = intake.map(Arc::new);
        let tracer = Own { intake: intake.clone(), head, limits, undecided: undecided.clone() };
        Attached { tracer: Tracer::Own(tracer), provider: Provider::Own(intake), undecided }
    }

    /// Processors of the program's own are given spans of the SDK, which then has to make them.
    fn with_processors(
        self,
        processors: Vec<AddProcessor>,
        intake: Option<Intake>,
        undecided: Option<Arc<Undecided>>,
    ) -> Attached {
        let mut builder = SdkTracerProvider::builder().with_resource(self.resource.clone());
        builder = self.delivery.tracing(builder);
        for add in processors {
            let (part, target) = ("span_processor", "a span processor");
            builder = add(builder, Report::new(Signal::Traces, part, target, self.registry, self.health));
        }
        if let Some(undecided) = &undecided {
            let head = self.delivery.head.sampler();
            builder = builder.with_sampler(Tail { head, undecided: Arc::clone(undecided) });
        }
        if let Some(intake) = intake {
            builder = builder.with_span_processor(FromSdk(intake));
        }
        let provider = builder.build();
        let tracer = Tracer::Sdk(provider.tracer(SCOPE));
        Attached { tracer, provider: Provider::Sdk(provider), undecided }
    }

    fn report(&self, name: &'static str, part: &'static str, target: impl Into<String>) -> Report {
        Report::new(Signal::Traces, part, target, self.registry, self.health)
            .counting_spans(name, self.registry)
    }

    fn outgoing(&self, target: Traces) -> Option<Outgoing> {
        if target == Traces::Console {
            let report = self.report("console", "traces_console", "standard error");
            return Some(Outgoing { name: "console", report, exporter: Box::new(Blocking::console()) });
        }
        self.otlp(target)
    }

    #[cfg(feature = "otlp")]
    fn otlp(&self, target: Traces) -> Option<Outgoing> {
        use super::otlp::{Link, Spans};
        use super::otlp_settings::Protocol;
        let protocol = match target {
            Traces::OtlpGrpc => Protocol::Grpc,
            Traces::OtlpHttpJson => Protocol::Json,
            _ => Protocol::Protobuf,
        };
        let settings = &self.delivery.otlp_traces;
        let mut report = self.report("otlp", "traces_otlp", settings.host(protocol, Signal::Traces));
        let mut link = Link::new(settings, protocol, Signal::Traces);
        if let Err(failure) = link.check() {
            report.not_set_up(&failure, self.init.clone());
        }
        let exporter = Box::new(Spans::new(link, self.resource));
        Some(Outgoing { name: "otlp", report, exporter })
    }

    #[cfg(not(feature = "otlp"))]
    fn otlp(&self, _: Traces) -> Option<Outgoing> {
        self.init.set(0);
        self.health
            .degraded("traces_otlp", "spans are not sent: built without the feature `otlp`".to_owned());
        None
    }

    /// Starts the tasks, and returns the end that spans are given to.
    fn deliver(self, worker: &Worker, exporters: Vec<Outgoing>, undecided: Option<Arc<Undecided>>) -> Intake {
        let Delivery { batching, limits, .. } = *self.delivery;
        let losses = Losses::new(self.registry);
        let (intake, outlet, commands) = intake::queue(batching, &losses, undecided.clone());
        let mut gauges = Gauges::new(self.registry, batching, outlet.waiting());
        let (stop, stopped) = watch::channel(None);
        let (mut lanes, mut feeders) = (Vec::new(), Vec::new());
        for Outgoing { name, report, exporter } in exporters {
            let (lane, feeder) = lane(exporter, report, batching, stopped.clone());
            gauges.add(self.registry, batching, name, lane.queue());
            feeders.push(worker.run(feeder.run()));
            lanes.push(lane);
        }
        let gauges: Arc<dyn Refresh> = Arc::new(gauges);
        self.registry.before_scrape(Arc::downgrade(&gauges));
        let redacting = Redacting::new(self.registry);
        let delay = batching.delay;
        let dispatcher = Dispatcher {
            outlet,
            commands,
            redacting,
            limits,
            delay,
            lanes,
            feeders,
            stop,
            losses,
            undecided,
            _gauges: gauges,
        };
        worker.run(dispatcher.run());
        intake
    }
}
