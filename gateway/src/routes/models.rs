//! `GET /v1/models`: the configured models, in OpenAI's shape.

use axum::Json;
use axum::body::Body;
use axum::http::Response;
use axum::response::IntoResponse as _;
use serde_json::json;

use crate::gateway::Gateway;

/// The list of models.
pub(super) fn answer(gateway: &Gateway) -> Response<Body> {
    let models: Vec<_> = gateway
        .models
        .keys()
        .map(|id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "throughline" }))
        .collect();
    Json(json!({ "object": "list", "data": models })).into_response()
}
