//! How spans leave the process, whatever the receiver does.
//!
//! ```text
//! request      a span ends -> intake.rs      one push into a bounded queue; never waits
//! ------------------------------------------------------------------------------------------
//! telemetry    dispatch.rs                 takes secrets out and cuts long texts, once
//!  thread        -> lane.rs                a bounded queue and a task per exporter
//!                     -> otlp/             gRPC, HTTP with protobuf or JSON; tries again
//!                     -> blocking.rs       standard error, and exporters of others, on threads of their own
//! ```
//!
//! Metrics may be pushed as well (`push.rs`), to the same receivers by the same client; and so may events with content,
//! as log records (`events.rs`).
//!
//! A trace that the sampler declined may be held until its end and kept if it failed or took long (`undecided.rs`).
//!
//! What is lost is counted by reason (`apm_spans_dropped_total`), what fails by kind
//! (`apm_export_failures_total`); health names the exporter, and forgets it when it works again (`report.rs`). An
//! exporter that is stuck or panics costs its own spans and nothing else.

mod blocking;
mod console;
mod dispatch;
#[cfg_attr(not(feature = "otlp"), expect(dead_code, unused_imports, reason = "only OTLP carries events"))]
mod events;
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only OTLP tries again"))]
mod exporter;
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only OTLP tries again"))]
mod failure;
mod fence;
mod gauges;
mod intake;
mod keep;
mod lane;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only OTLP has a receiver"))]
mod otlp_settings;
mod pipeline;
mod push;
mod report;
mod sampling;
mod settings;
mod shorten;
mod tail;
mod undecided;
mod variables;

pub(super) use events::{Delivering, Event, Events, Setup};
pub(super) use failure::ErrorType;
pub(super) use intake::Intake;
pub(super) use pipeline::{Attached, Foreign, Pipeline, Provider};
pub(super) use push::Pushing;
pub(super) use report::Loss;
pub(super) use sampling::Head;
pub(super) use settings::{Delivery, Limits};
pub use settings::{Metrics, Traces};
pub(super) use undecided::{Outcome, Undecided};

use super::family::Family;

/// The families of this folder, a list a file.
pub(super) fn families() -> Vec<&'static Family> {
    [report::FAMILIES, events::FAMILIES, gauges::FAMILIES, undecided::FAMILIES].concat()
}
