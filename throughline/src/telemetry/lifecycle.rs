//! Starting and stopping telemetry.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanProcessor, TracerProviderBuilder};

use super::clock::Clock;
use super::export::{Console, Guarded};
use super::family::Family;
use super::health::{Degraded, Health};
use super::registry::{DEFAULT_SERIES_CAP, Registry};
use super::settings::{Settings, Traces};
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
    provider: Option<SdkTracerProvider>,
    worker: Option<Worker>,
}

/// Starts a [`Telemetry`].
#[must_use = "a builder does nothing until `init`"]
pub struct TelemetryBuilder {
    settings: Settings,
    clock: Clock,
    series_cap: usize,
    current: bool,
    processors: Vec<AddProcessor>,
}

type AddProcessor = Box<dyn FnOnce(TracerProviderBuilder) -> TracerProviderBuilder + Send>;

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
            processors: Vec::new(),
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
        std::thread::spawn(move || {
            flush();
            // The receiver may have stopped waiting.
            let _ = done.send(());
        });
        // Either it is done or its thread is gone: nothing is left to wait for.
        let _ = wait.await;
    }

    /// What remains to be done to stop, unless it has been.
    fn stop(&self, deadline: Duration) -> Option<impl FnOnce() + Send + use<>> {
        self.sink.retire();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { provider, worker } = std::mem::take(&mut *running);
        drop(running);
        if provider.is_none() && worker.is_none() {
            return None;
        }
        self.health.metrics_down();
        Some(move || {
            if let Some(Err(error)) = provider.map(|provider| provider.shutdown_with_timeout(deadline)) {
                tracing::warn!(error = %error, "not every span was delivered before the end");
            }
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
        self.settings.service_version = version.into();
        self
    }

    /// Serves metrics on `address`, port 0 for a free one. Default: 127.0.0.1:9464. Needs the feature
    /// `endpoint`.
    pub fn metrics_listen(mut self, address: SocketAddr) -> Self {
        self.settings.metrics = Some(address);
        self
    }

    /// Serves metrics nowhere; [`Sink::render`] still gives them.
    pub fn without_endpoint(mut self) -> Self {
        self.settings.metrics = None;
        self
    }

    /// Sends spans to `target` as well. Default: nowhere. OTLP needs the feature `otlp`.
    pub fn traces(mut self, target: Traces) -> Self {
        self.settings.traces.push(target);
        self
    }

    /// Gives spans to a processor of one's own as well.
    pub fn span_processor(mut self, processor: impl SpanProcessor + 'static) -> Self {
        self.processors.push(Box::new(|builder| builder.with_span_processor(processor)));
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
    /// | `ENABLE_OBSERVABILITY`, `ENABLE_APM` | `false` switches everything off; the first one set decides |
    /// | `OTEL_SDK_DISABLED` | `true` switches everything off |
    /// | `OTEL_SERVICE_NAME`, `SERVICE_NAME` | the service's name |
    /// | `ENVIRONMENT` | `deployment.environment.name`; `development` writes spans to standard error |
    /// | `OTEL_EXPORTER_PROMETHEUS_HOST`, `_PORT` | where metrics are served |
    /// | `OTEL_METRICS_EXPORTER` | `prometheus` or `none` |
    /// | `OTEL_TRACES_EXPORTER` | `otlp`, `console`, `none`, or several with commas |
    /// | `OTEL_EXPORTER_OTLP_ENDPOINT`, `_TRACES_ENDPOINT` | where spans are sent; setting it is asking for `otlp` |
    /// | `OTEL_EXPORTER_OTLP_PROTOCOL`, `_TRACES_PROTOCOL` | `http/protobuf` (the default) or `grpc` |
    /// | `OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT`, `OTEL_BSP_*`, `OTEL_TRACES_SAMPLER`, `_ARG` | as the SDK reads them |
    pub fn from_env(self) -> Self {
        self.from_variables(|name| std::env::var(name).ok())
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
        settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let health = Arc::new(Health::default());
        if !settings.enabled {
            let by = settings.off_by.as_deref().unwrap_or("configuration");
            tracing::info!(
                "observability is off by {by}: no metrics, no traces; everything else works as usual"
            );
            let sink = Sink::without_telemetry(self.clock);
            if self.current {
                sink.make_current();
            }
            return Telemetry { sink, health, running: Mutex::default() };
        }
        self.start(health)
    }

    fn start(self, health: Arc<Health>) -> Telemetry {
        let Self { settings, clock, series_cap, current, processors } = self;
        let registry = Registry::new(clock, series_cap);
        registry.gauge(&BUILD_INFO, &[&settings.service_name, &settings.service_version]).set(1);
        let mut worker = Worker::start(&settings, &health);
        let provider = provider(&settings, processors, &registry, worker.as_ref(), &health);
        let tracer = provider.as_ref().map(|provider| provider.tracer("throughline"));
        let metrics_up = settings.metrics.map(|_| registry.gauge(&INIT_SUCCESS, &["metrics"]));
        health.shows_in(metrics_up);
        let sink = Sink::new(clock, registry, tracer);
        if current {
            sink.make_current();
        }
        if let Some(address) = settings.metrics {
            serve_metrics(worker.as_mut(), address, &sink, &health);
        }
        for Degraded { reason, .. } in health.degraded_parts() {
            tracing::error!("telemetry is degraded: {reason}");
        }
        Telemetry { sink, health, running: Mutex::new(Running { provider, worker }) }
    }
}

#[cfg(feature = "endpoint")]
fn serve_metrics(worker: Option<&mut Worker>, address: SocketAddr, sink: &Sink, health: &Arc<Health>) {
    let Some(worker) = worker else { return };
    let listener = match super::endpoint::bind(address) {
        Ok(listener) => {
            health.metrics_up(listener.local_addr().unwrap_or(address));
            Some(listener)
        }
        Err(reason) => {
            health.degraded("metrics", reason);
            None
        }
    };
    worker.run(super::endpoint::serve(listener, address, sink.clone(), Arc::clone(health)));
}

#[cfg(not(feature = "endpoint"))]
fn serve_metrics(_: Option<&mut Worker>, address: SocketAddr, _: &Sink, health: &Arc<Health>) {
    health.degraded(
        "metrics",
        format!("metrics are not served on {address}: built without the feature `endpoint`"),
    );
}

/// The SDK's tracer provider, if spans are to go anywhere.
fn provider(
    settings: &Settings,
    processors: Vec<AddProcessor>,
    registry: &Registry,
    worker: Option<&Worker>,
    health: &Arc<Health>,
) -> Option<SdkTracerProvider> {
    if settings.traces.is_empty() && processors.is_empty() {
        return None;
    }
    let up = registry.gauge(&INIT_SUCCESS, &["traces"]);
    up.set(1);
    let mut builder = SdkTracerProvider::builder().with_resource(resource(settings));
    for add in processors {
        builder = add(builder);
    }
    for target in &settings.traces {
        builder = match target {
            Traces::Console => builder.with_batch_exporter(Guarded::new(Console, registry, health)),
            otlp => match settings
                .otlp_refused
                .map_or_else(|| otlp_exporter(*otlp, worker), |why| Err(why.to_owned()))
            {
                Ok(exporter) => builder.with_batch_exporter(Guarded::new(exporter, registry, health)),
                Err(reason) => {
                    up.set(0);
                    health.degraded("traces", format!("spans are not sent: {reason}"));
                    builder
                }
            },
        };
    }
    Some(builder.build())
}

#[cfg(feature = "otlp")]
fn otlp_exporter(
    transport: Traces,
    worker: Option<&Worker>,
) -> Result<opentelemetry_otlp::SpanExporter, String> {
    let worker = worker.ok_or("the telemetry thread could not be started")?;
    super::otlp::exporter(transport, worker.runtime())
}

#[cfg(not(feature = "otlp"))]
fn otlp_exporter(_: Traces, _: Option<&Worker>) -> Result<Console, String> {
    Err("built without the feature `otlp`".to_owned())
}

fn resource(settings: &Settings) -> Resource {
    let version = KeyValue::new("service.version", settings.service_version.clone());
    let environment =
        settings.environment.clone().map(|name| KeyValue::new("deployment.environment.name", name));
    Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(version)
        .with_attributes(environment)
        .build()
}
