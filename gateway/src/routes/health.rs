//! `GET /healthz`: the process answers. `GET /readyz`: it takes requests, and what does not work.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use throughline::telemetry::Degraded;

use crate::gateway::Gateway;

/// What `/readyz` says.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    /// `ready`, `degraded` (it serves, but something beside the work is broken) or `draining`.
    status: &'static str,
    /// What is broken.
    degraded: Vec<Part>,
}

/// A part that is broken.
#[derive(Debug, Serialize)]
struct Part {
    part: Cow<'static, str>,
    /// When that began, by RFC 3339 in UTC.
    since: String,
    reason: String,
}

// === impl Part ===

impl Part {
    fn new(part: impl Into<Cow<'static, str>>, since: SystemTime, reason: String) -> Self {
        Self { part: part.into(), since: humantime::format_rfc3339_seconds(since).to_string(), reason }
    }
}

/// Always `ok`.
pub(super) async fn live() -> &'static str {
    "ok"
}

/// 200 while requests are taken, 503 once the gateway is about to stop.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> (StatusCode, Json<Readiness>) {
    let telemetry = gateway.telemetry.degraded().into_iter();
    let telemetry = telemetry.map(|Degraded { part, reason, since, .. }| Part::new(part, since, reason));
    let stores = gateway.stores.iter().filter_map(|store| {
        let down = store.down()?;
        Some(Part::new(format!("store:{}", store.name()), down.since, down.reason))
    });
    let degraded: Vec<_> = telemetry.chain(stores).collect();
    let (code, status) = if gateway.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if degraded.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::OK, "degraded")
    };
    (code, Json(Readiness { status, degraded }))
}
