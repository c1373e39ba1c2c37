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

mod clock;
#[cfg(feature = "endpoint")]
mod endpoint;
mod export;
mod family;
mod health;
mod histogram;
mod label;
mod lifecycle;
mod observed;
#[cfg(feature = "otlp")]
mod otlp;
mod page;
mod per_label;
mod per_sink;
#[cfg(feature = "endpoint")]
mod readiness;
mod redacting;
mod registry;
mod run;
mod scrape;
mod settings;
mod sink;
mod stage;
mod text;
mod window;
mod worker;

pub use clock::{Clock, Tick};
#[cfg(feature = "endpoint")]
pub use endpoint::EndpointSecurity;
pub use family::{Family, OWN_SECONDS, Shape, WORK_SECONDS};
pub use health::Degraded;
pub use histogram::Histogram;
pub use label::{Ended, Label, NoEvents, Outcome};
pub use lifecycle::{Status, Telemetry, TelemetryBuilder};
pub use observed::Observed;
pub(crate) use per_label::PerLabel;
#[cfg(feature = "endpoint")]
pub use readiness::{Broken, Readiness};
pub(crate) use registry::Refresh;
pub use registry::{Amount, Counter, Gauge, Level, Rate, Registry};
pub use run::{Deferred, Run};
pub use scrape::{Sample, Scrape};
pub use settings::Traces;
pub use sink::Sink;
pub use stage::{End, Seen, Stage};
pub use text::{OPENMETRICS, TEXT, to_text, wants_openmetrics};

/// Every family that this library declares, a list a file.
#[must_use]
pub fn catalogue() -> Vec<&'static Family> {
    [
        observed::FAMILIES,
        lifecycle::FAMILIES,
        export::FAMILIES,
        redacting::FAMILIES,
        registry::FAMILIES,
        crate::circuit_breaker::FAMILIES,
        crate::router::FAMILIES,
        crate::cache::FAMILIES,
        crate::shed::FAMILIES,
        crate::timeout::FAMILIES,
        crate::redact::FAMILIES,
    ]
    .concat()
}
