//! Starting and stopping telemetry.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::trace::{SpanExporter, SpanProcessor};

use super::clock::Clock;
use super::delivery::{
    Attached, Delivering, Events, Foreign, Metrics, Pipeline, Provider, Pushing, Setup, Traces,
};
use super::family::Family;
use super::health::{Degraded, Health};
use super::registry::{DEFAULT_SERIES_CAP, Registry};
use super::runtime::Runtime;
use super::semconv::{self, Semconv};
use super::settings::Settings;
use super::sink::Sink;
use super::worker::Worker;

static INIT_SUCCESS: Family = Family::gauge(
    "apm_init_success",
    "Whether a signal that was asked for could be set up (1) or not (0)",
    &["signal"],
);
static BUILD_INFO: Family =
    Family::gauge("build_info", "Always 1; the labels say what is running", &["service", "version"]);

pub(super) static FAMILIES: &[&Family] = &[&INIT_SUCCESS, &BUILD_INFO];

/// How long a dropped [`Telemetry`] may take to deliver what it holds.
const FLUSH_ON_DROP: Duration = Duration::from_secs(1);
/// No delivery takes longer, whatever is asked for.
const LONGEST_FLUSH: Duration = Duration::from_secs(24 * 60 * 60);
/// What stopping takes beside the delivery.
const MARGIN: Duration = Duration::from_millis(500);

/// A running telemetry instance. Dropping it delivers what is left, for up to a second, and stops it.
#[must_use = "telemetry stops when this is dropped"]
pub struct Telemetry {
    sink: Sink,
    health: Arc<Health>,
    running: Mutex<Running>,
}

/// What has to be stopped.
#[derive(Default)]
struct Running {
    provider: Option<Provider>,
    pushing: Option<Pushing>,
    delivering: Option<Delivering>,
    worker: Option<Worker>,
}

/// Starts a [`Telemetry`].
#[must_use = "a builder does nothing until `init`"]
pub struct TelemetryBuilder {
    pub(super) settings: Settings,
    clock: Clock,
    series_cap: usize,
    current: bool,
    foreign: Vec<Foreign>,
    runtime: Option<tokio::runtime::Handle>,
}

/// Whether telemetry does what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Everything that was asked for works.
    Enabled,
    /// Something does not; the rest works, and so does the program.
    Degraded {
        /// What does not work, and why.
        reasons: Vec<String>,
    },
    /// It was switched off.
    Disabled,
}

// === impl Telemetry ===

impl Telemetry {
    /// Starts with the defaults: metrics on 127.0.0.1:9464, no traces.
    pub fn builder() -> TelemetryBuilder {
        TelemetryBuilder {
            settings: Settings::default(),
            clock: Clock::default(),
            series_cap: DEFAULT_SERIES_CAP,
            current: true,
            foreign: Vec::new(),
            runtime: None,
        }
    }

    /// Where stages report to.
    #[must_use]
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Whether it does what it was asked to.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.sink.registry().is_none() {
            return Status::Disabled;
        }
        let reasons: Vec<String> = self.degraded().into_iter().map(|part| part.reason).collect();
        if reasons.is_empty() { Status::Enabled } else { Status::Degraded { reasons } }
    }

    /// What does not work, why, and since when.
    #[must_use]
    pub fn degraded(&self) -> Vec<Degraded> {
        self.health.degraded_parts()
    }

    /// Whether the program takes work, and what of its telemetry, and of the parts of [`Telemetry::also_ask`], does not
    /// work: for `/readyz`.
    #[cfg(feature = "endpoint")]
    #[must_use]
    pub fn readiness(&self) -> super::Readiness {
        self.health.readiness()
    }

    /// Has [`Telemetry::readiness`] ask `part` as well, which says what of it does not work. It must not wait for anything.
    #[cfg(feature = "endpoint")]
    pub fn also_ask(&self, part: impl Fn() -> Vec<Degraded> + Send + Sync + 'static) {
        self.health.ask(Arc::new(part));
    }

    /// Has `/readyz` say from now on that no more work is taken.
    #[cfg(feature = "endpoint")]
    pub fn drain(&self) {
        self.health.drain();
    }

    /// Where metrics are served, if they are.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.health.metrics_address()
    }

    /// Delivers what is left and stops, within `deadline`. Calling it again does nothing.
    ///
    /// # Cancellation
    /// Delivery goes on in the background until `deadline`.
    pub async fn shutdown(&self, deadline: Duration) {
        let Some(flush) = self.stop(deadline) else { return };
        let (done, wait) = tokio::sync::oneshot::channel();
        let longest = deadline.min(LONGEST_FLUSH) + MARGIN;
        std::thread::spawn(move || {
            let (flushed, ended) = std::sync::mpsc::sync_channel(1);
            std::thread::spawn(move || {
                flush();
                // Nobody waits any more for what has taken too long.
                let _ = flushed.send(());
            });
            // Not the runtime's time, which tests stop: a processor of the program's own may ignore its limit.
            let _ = ended.recv_timeout(longest);
            // The caller may have stopped waiting.
            let _ = done.send(());
        });
        // Either it is done or its thread is gone: nothing is left to wait for.
        let _ = wait.await;
    }

    /// What remains to be done to stop, unless it has been.
    fn stop(&self, deadline: Duration) -> Option<impl FnOnce() + Send + use<>> {
        let deadline = deadline.min(LONGEST_FLUSH);
        self.sink.retire();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { provider, pushing, delivering, worker } = std::mem::take(&mut *running);
        drop(running);
        if provider.is_none() && worker.is_none() {
            return None;
        }
        self.health.metrics_down();
        Some(move || {
            let pushed = pushing.map(|pushing| pushing.finish(deadline));
            let delivered = delivering.map(|delivering| delivering.finish(deadline));
            if let Some(Err(error)) = provider.map(|provider| provider.stop(deadline)) {
                tracing::warn!(error = %error, "not every span was delivered before the end");
            }
            // The last push and the last events have their own end, which comes no later.
            pushed.map(|pushed| pushed.recv_timeout(deadline));
            delivered.map(|delivered| delivered.recv_timeout(deadline));
            drop(worker);
        })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(flush) = self.stop(FLUSH_ON_DROP) {
            flush();
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Telemetry({:?}, metrics {:?})", self.status(), self.metrics_address())
    }
}

// === impl TelemetryBuilder ===

impl TelemetryBuilder {
    /// The `service.name` of traces. Default: `throughline`.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.settings.service_name = name.into();
        self
    }

    /// The `service.version` of traces and the `version` of `build_info`. Default: this library's.
    pub fn service_version(mut self, version: impl Into<String>) -> Self {
        self.settings.service_version = Some(version.into());
        self
    }

    /// Serves metrics on `address`, port 0 for a free one. Default: 127.0.0.1:9464. Needs the feature
    /// `endpoint`.
    pub fn metrics_listen(mut self, address: SocketAddr) -> Self {
        self.settings.metrics = Some(address);
        self
    }

    /// Where metrics are to be served; `None` if nowhere.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.settings.metrics.filter(|_| self.settings.enabled)
    }

    /// Serves metrics nowhere; [`Sink::render`] still gives them.
    pub fn without_endpoint(mut self) -> Self {
        self.settings.metrics = None;
        self
    }

    /// Sends spans to `target` as well. Default: nowhere. OTLP needs the feature `otlp`.
    pub fn traces(mut self, target: Traces) -> Self {
        self.settings.delivery.traces.push(target);
        self
    }

    /// Pushes metrics to `target` as well, every minute. Default: nowhere. OTLP needs the feature `otlp`.
    pub fn metrics(mut self, target: Metrics) -> Self {
        self.settings.delivery.metrics.push(target);
        self
    }

    /// Gives spans to a processor of one's own as well, as they are: they are not redacted. A panic in it is caught.
    pub fn span_processor(mut self, processor: impl SpanProcessor + 'static) -> Self {
        self.foreign.push(Foreign::processor(processor));
        self
    }

    /// Gives spans to an exporter of one's own as well, with all that other exporters have: a queue of its own,
    /// redaction, and its losses counted. `name` is its label and what health calls it. Its future is run on a thread
    /// of its own, where it may block.
    pub fn span_exporter(mut self, name: &'static str, exporter: impl SpanExporter + 'static) -> Self {
        self.foreign.push(Foreign::exporter(name, exporter));
        self
    }

    /// Exports traces with an error in them also where the sampler has declined them. Traces that begin in this process
    /// are then recorded and held until they end, within bounded memory; [`Context::traceparent`](crate::Context::traceparent)
    /// still says that they are not sampled. Without an exporter it does nothing. Default: no.
    pub fn keep_errors(mut self, keep: bool) -> Self {
        self.settings.delivery.keep.errors = keep;
        self
    }

    /// As [`TelemetryBuilder::keep_errors`], traces that take longer than `limit`. Default: however long.
    pub fn keep_slower_than(mut self, limit: Duration) -> Self {
        self.settings.delivery.keep.slower_than = Some(limit);
        self
    }

    /// Shows the figures of this tokio runtime. Default: the one that [`TelemetryBuilder::init`] is called on, if any.
    pub fn runtime(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Which GenAI names are used, and whether content is recorded. Default: those of 1.41, and not.
    pub fn semconv(mut self, semconv: Semconv) -> Self {
        self.settings.semconv = semconv;
        self
    }

    /// The clock for all durations. Default: monotonic.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How many series a family may have before the rest is counted as `other`. Default: 2000.
    pub fn series_cap(mut self, cap: usize) -> Self {
        self.series_cap = cap.max(1);
        self
    }

    /// Leaves [`Sink::current`] alone: only contexts that are given this instance's sink report to it.
    pub fn local(mut self) -> Self {
        self.current = false;
        self
    }

    /// Switches telemetry on or off. Default: on.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Lets the environment's variables speak: they win over what was set before this call, and what is set
    /// after it wins over them. An empty variable counts as unset; one that cannot be honoured is a warning
    /// in the log.
    ///
    /// | variable | what it does |
    /// |---|---|
    /// | `ENABLE_OBSERVABILITY`, `ENABLE_APM` | `false` switches everything off, `true` on; the first one set decides |
    /// | `OTEL_SDK_DISABLED` | `true` switches everything off, unless one of the two decides |
    /// | `OTEL_SERVICE_NAME`, `SERVICE_NAME` | the service's name |
    /// | `OTEL_RESOURCE_ATTRIBUTES` | what else the service is said to be: `key=value`, with commas, percent-encoded |
    /// | `ENVIRONMENT` | `deployment.environment.name`; `development` writes spans to standard error |
    /// | `OTEL_PROPAGATORS` | `tracecontext`, `baggage` or `none`: [`Sink::propagators`] |
    /// | `OTEL_METRICS_EXEMPLAR_FILTER` | `trace_based` (the default) or `always_off` |
    /// | `OTEL_EXPORTER_PROMETHEUS_HOST`, `_PORT` | where metrics are served |
    /// | `OTEL_TRACES_EXPORTER` | `otlp`, `console`, `none`, or several with commas |
    /// | `OTEL_METRICS_EXPORTER` | `prometheus`, `otlp`, `console`, `none`, or several with commas |
    /// | `OTEL_EXPORTER_OTLP_*`, of all signals or of one | how receivers are reached: `ENDPOINT` (setting it is asking for `otlp` traces), `PROTOCOL` (`http/protobuf`, `grpc`, `http/json`), `HEADERS`, `TIMEOUT`, `COMPRESSION`, `INSECURE`, `CERTIFICATE`, `CLIENT_CERTIFICATE`, `CLIENT_KEY` |
    /// | `OTEL_BSP_*`, `OTEL_METRIC_EXPORT_INTERVAL`, `_TIMEOUT` | queues, batches and their times |
    /// | `OTEL_TRACES_SAMPLER`, `_ARG` | which traces are recorded |
    /// | `THROUGHLINE_KEEP_ERRORS`, `THROUGHLINE_KEEP_SLOWER_THAN` | [`TelemetryBuilder::keep_errors`], [`TelemetryBuilder::keep_slower_than`] in milliseconds |
    /// | `OTEL_SPAN_*_LIMIT`, `OTEL_EVENT_*_LIMIT`, `OTEL_LINK_*_LIMIT`, `OTEL_ATTRIBUTE_*_LIMIT` | what a span may hold |
    /// | `OTEL_SEMCONV_STABILITY_OPT_IN` | `gen_ai_latest_experimental`: the newer names of GenAI metrics; with `/dup` both |
    /// | `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` | `true` or `SPAN_ONLY`: spans carry messages, redacted; `EVENT_ONLY`: events do, sent as log records; `SPAN_AND_EVENT`: both |
    /// | `OTEL_LOGS_EXPORTER` | `otlp` or `none`: whether such events are sent |
    pub fn from_env(self) -> Self {
        // What is no Unicode is refused or shown as what it is, instead of being passed over.
        self.from_variables(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// As [`TelemetryBuilder::from_env`], with the variables looked up by `env`.
    pub fn from_variables(mut self, env: impl Fn(&str) -> Option<String>) -> Self {
        self.settings.apply(&env);
        self
    }

    /// Starts. It never fails: what does not work is in [`Telemetry::status`], in the log and in
    /// `apm_init_success`.
    pub fn init(self) -> Telemetry {
        let settings = &self.settings;
        let health = Arc::new(Health::default());
        if !settings.enabled {
            let by = settings.off_by.as_deref().unwrap_or("configuration");
            tracing::info!(
                "observability is off by {by}: no metrics, no traces; everything else works as usual"
            );
            let sink = Sink::off(self.clock, settings.propagators);
            if self.current {
                sink.make_current();
            }
            return Telemetry { sink, health, running: Mutex::default() };
        }
        settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let traced = settings.delivery.traces() || !self.foreign.is_empty();
        semconv::unheard(settings, traced).into_iter().for_each(|warning| tracing::warn!("{warning}"));
        self.start(health)
    }

    fn start(self, health: Arc<Health>) -> Telemetry {
        let Self { settings, clock, series_cap, current, foreign, runtime } = self;
        let registry = Registry::new(clock, series_cap).following(settings.semconv);
        registry.gauge(&BUILD_INFO, &[&settings.service_name, settings.version()]).set(1);
        collect(&registry, runtime);
        let events = settings.semconv.events && settings.delivery.events.is_some();
        let exports = events || settings.delivery.needs_thread() || foreign.iter().any(Foreign::needs_thread);
        let mut worker = (settings.metrics.is_some() || exports).then(|| Worker::start(&health)).flatten();
        let traces = traces(&settings, foreign, &registry, clock, worker.as_ref(), &health);
        let (mut tracer, mut provider, mut undecided) = (None, None, None);
        if let Some(attached) = traces {
            (tracer, provider) = (Some(attached.tracer), Some(attached.provider));
            undecided = attached.undecided;
        }
        let metrics_up = settings.metrics.map(|_| registry.gauge(&INIT_SUCCESS, &["metrics"]));
        health.shows_in(metrics_up);
        let worker_of_events = worker.as_ref().filter(|_| events);
        let (events, delivering) = delivering(&settings, &registry, worker_of_events, &health).unzip();
        let sink = Sink::new(&settings, clock, registry, tracer, undecided, events);
        if current {
            sink.make_current();
        }
        serve_metrics(worker.as_mut(), &settings, &sink, &health);
        let pushing = worker.as_ref().and_then(|worker| {
            Pushing::start(&settings.delivery, &sink, &health, worker, &settings.resource())
        });
        for Degraded { reason, .. } in health.degraded_parts() {
            tracing::error!("telemetry is degraded: {reason}");
        }
        Telemetry { sink, health, running: Mutex::new(Running { provider, pushing, delivering, worker }) }
    }
}

/// Has the process and its runtime shown.
fn collect(registry: &Registry, runtime: Option<tokio::runtime::Handle>) {
    #[cfg(target_os = "linux")]
    registry.collect(Arc::new(super::process::Process::default()));
    if let Some(runtime) = runtime.or_else(|| tokio::runtime::Handle::try_current().ok()) {
        registry.collect(Arc::new(Runtime::new(&runtime)));
    }
}

#[cfg(feature = "endpoint")]
fn serve_metrics(worker: Option<&mut Worker>, settings: &Settings, sink: &Sink, health: &Arc<Health>) {
    let (Some(address), Some(worker)) = (settings.metrics, worker) else { return };
    let security = settings.security.clone();
    let endpoint =
        super::endpoint::Endpoint { address, security, sink: sink.clone(), health: Arc::clone(health) };
    let listener = match endpoint.bind() {
        Ok(listener) => {
            health.metrics_up(listener.local_addr().unwrap_or(address));
            Some(listener)
        }
        Err(reason) => {
            health.degraded("metrics", reason);
            None
        }
    };
    worker.run(endpoint.serve(listener));
}

#[cfg(not(feature = "endpoint"))]
fn serve_metrics(_: Option<&mut Worker>, settings: &Settings, _: &Sink, health: &Arc<Health>) {
    let Some(address) = settings.metrics else { return };
    health.degraded(
        "metrics",
        format!("metrics are not served on {address}: built without the feature `endpoint`"),
    );
}

/// Where events with content go, if they are to go anywhere.
fn delivering(
    settings: &Settings,
    registry: &Registry,
    worker: Option<&Worker>,
    health: &Arc<Health>,
) -> Option<(Events, Delivering)> {
    let (delivery, resource) = (&settings.delivery, &settings.resource());
    let worker = worker?;
    let init = registry.gauge(&INIT_SUCCESS, &["logs"]);
    Delivering::start(Setup { delivery, registry, health, init, worker, resource })
}

/// Where spans come from and go to, if they are to go anywhere.
fn traces(
    settings: &Settings,
    foreign: Vec<Foreign>,
    registry: &Registry,
    clock: Clock,
    worker: Option<&Worker>,
    health: &Arc<Health>,
) -> Option<Attached> {
    let delivery = &settings.delivery;
    if delivery.traces.is_empty() && foreign.is_empty() {
        return None;
    }
    let resource = settings.resource();
    let init = registry.gauge(&INIT_SUCCESS, &["traces"]);
    init.set(1);
    let pipeline = Pipeline { delivery, registry, health, init: &init, clock, worker, resource: &resource };
    Some(pipeline.start(foreign))
}
