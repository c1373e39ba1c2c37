//! How workflows are seen: metrics, traces and their lifecycle.
//!
//! Begin `main` with `let telemetry = Telemetry::builder().from_env().init();` and keep the variable: what is
//! dropped is stopped. From then on every stage has
//! * `throughline_primitive_duration_seconds{primitive, operation, outcome}`, `_in_flight` and `_events_total`;
//!   some primitives have series of their own, and [`catalogue`] has all of them;
//! * a span in the trace of its run ([`TelemetryBuilder::traces`]).
//!
//! With the feature `endpoint` the metrics are at <http://127.0.0.1:9464/metrics>; [`Sink::render`] gives the same
//! page as text. Without any of this, workflows run as they are and nothing is counted but their `stats()`.
//! Nothing here fails a program: what does not work is in [`Telemetry::status`].
//!
//! Three layers: [`Sink`] is the port that stages report to, [`Observed`] the wrapper that is the only
//! code to time, count and open spans, and [`Telemetry`] owns the exporters.
//!
//! ```
//! use throughline::telemetry::{Status, Telemetry};
//! use throughline::{Context, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let telemetry = Telemetry::builder().without_endpoint().init();
//! assert_eq!(telemetry.status(), Status::Enabled);
//!
//! let greet = workflow("greet", |name: String| async move { Ok(format!("hello {name}")) });
//! greet.run("you".to_owned(), &Context::new()).await?;
//!
//! assert!(telemetry.sink().render().contains(r#"primitive="step",operation="greet",outcome="success"} 1"#));
//! telemetry.shutdown(std::time::Duration::from_secs(5)).await;
//! # Ok(()) }
//! ```

mod catalogue;
mod clock;
mod delivery;
#[cfg(feature = "endpoint")]
mod endpoint;
mod family;
mod health;
mod histogram;
mod intervals;
mod label;
mod lifecycle;
mod observed;
mod page;
mod per_label;
mod per_sink;
mod process;
#[cfg(feature = "endpoint")]
mod readiness;
mod redacting;
mod registry;
mod run;
mod runtime;
mod scrape;
mod semconv;
mod settings;
mod sink;
mod span;
mod spare;
mod stage;
mod stripes;
mod text;
mod tracer;
mod window;
mod worker;

pub use catalogue::{Attribute, COMMON_ATTRIBUTES, LABELS, LabelSource, Reported};
pub(crate) use clock::Anchor;
pub use clock::{Clock, Tick};
pub use delivery::{Metrics, Traces};
#[cfg(feature = "endpoint")]
pub use endpoint::{EndpointSecurity, slots};
pub use family::{Family, OWN_SECONDS, Shape, Stability, WORK_SECONDS};
pub use health::Degraded;
pub use histogram::Histogram;
pub use intervals::Intervals;
pub use label::{Ended, Label, NoEvents, Outcome};
pub use lifecycle::{Status, Telemetry, TelemetryBuilder};
pub use observed::Observed;
pub(crate) use per_label::PerLabel;
pub use per_sink::PerSink;
#[cfg(feature = "endpoint")]
pub use readiness::{Broken, Readiness};
pub(crate) use registry::Refresh;
pub use registry::{Amount, Counter, Gauge, Level, Rate, Registry};
pub use run::{Deferred, Run};
pub use scrape::{Sample, Scrape};
pub use semconv::{GenAiNames, Semconv};
pub use sink::Sink;
pub use stage::{End, Seen, Stage};
pub use text::{OPENMETRICS, TEXT, to_text, wants_openmetrics};

/// Every family that this library declares, a list a file.
#[must_use]
pub fn catalogue() -> Vec<&'static Family> {
    [
        observed::FAMILIES,
        lifecycle::FAMILIES,
        &delivery::families(),
        registry::FAMILIES,
        process::FAMILIES,
        runtime::FAMILIES,
        crate::circuit_breaker::FAMILIES,
        crate::router::FAMILIES,
        crate::cache::FAMILIES,
        crate::named::FAMILIES,
        crate::shed::FAMILIES,
        crate::timeout::FAMILIES,
        crate::redact::FAMILIES,
    ]
    .concat()
}

/// What every primitive of this library reports, a line a file.
#[must_use]
pub fn primitives() -> Vec<&'static Reported> {
    let mut all = vec![
        &crate::adaptive_timeout::REPORTED,
        &crate::bulkhead::REPORTED,
        &crate::cache::REPORTED,
        &crate::circuit_breaker::REPORTED,
        &crate::conditional::REPORTED,
        &crate::fallback::REPORTED,
        &crate::hedge::REPORTED,
        &crate::named::REPORTED,
        &crate::rate_limit::REPORTED,
        &crate::retry::REPORTED,
        &crate::router::REPORTED,
        &crate::saga::REPORTED,
        &crate::shed::REPORTED,
        &crate::step::REPORTED,
        &crate::switch::REPORTED,
        &crate::timeout::REPORTED,
        &SERVICE,
    ];
    all.extend(crate::parallel::REPORTED);
    all
}

/// Of `tower`, which is not always there.
static SERVICE: Reported = Reported::new::<Ended, NoEvents>("service", &[]);
