//! `GET /healthz`: the process answers. `GET /readyz`: it takes requests, and what does not work.
//!
//! The port of the metrics has both as well, with the same JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use throughline::telemetry::Readiness;

use crate::gateway::Gateway;

/// Always `ok`.
pub(super) async fn live() -> &'static str {
    "ok"
}

/// 200 while requests are taken, 503 once the gateway is about to stop.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> (StatusCode, Json<Readiness>) {
    let readiness = gateway.telemetry.readiness();
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness))
}
