//! `GET /healthz`: the process answers. `GET /readyz`: it takes requests, and what does not work.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use throughline::telemetry::Degraded;

use crate::gateway::Gateway;
use crate::maturity::Problem;

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
    part: &'static str,
    /// When that began, by RFC 3339 in UTC.
    since: String,
    reason: String,
}

/// Always `ok`.
pub(super) async fn live() -> &'static str {
    "ok"
}

/// 200 while requests are taken, 503 once the gateway is about to stop.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> (StatusCode, Json<Readiness>) {
    let part = |Degraded { part, reason, since, .. }| {
        let since = humantime::format_rfc3339_seconds(since).to_string();
        Part { part, since, reason }
    };
    let mut degraded: Vec<_> = gateway.telemetry.degraded().into_iter().map(part).collect();
    if let Some(Problem { since, reason }) = gateway.maturity.as_ref().and_then(|watch| watch.problem()) {
        let since = humantime::format_rfc3339_seconds(since).to_string();
        degraded.push(Part { part: "maturity", since, reason });
    }
    let (code, status) = if gateway.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if degraded.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::OK, "degraded")
    };
    (code, Json(Readiness { status, degraded }))
}
