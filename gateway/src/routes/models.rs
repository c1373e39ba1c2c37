//! `GET /v1/models`: the configured models, and `GET /v1/models/NAME`: one of them, in OpenAI's shape.

use axum::Json;
use axum::body::Body;
use axum::http::Response;
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use crate::errors::ApiError;
use crate::served::Served;

/// The list of models, or the one that `path` names.
pub(super) fn answer(served: &Served, path: &str) -> Response<Body> {
    let Some(name) = path.strip_prefix("/v1/models/") else {
        let models: Vec<_> = served.models.keys().map(|id| model(id)).collect();
        return Json(json!({ "object": "list", "data": models })).into_response();
    };
    match served.models.contains_key(name) {
        true => Json(model(name)).into_response(),
        false => ApiError::unknown_model(name, served.models.keys().map(String::as_str)).into_response(),
    }
}

fn model(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": 0, "owned_by": "throughline" })
}
