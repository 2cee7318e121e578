//! What a request that cannot be answered gets.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// The answer: a status, and why.
pub(super) fn error(status: StatusCode, why: impl Into<String>) -> Response {
    let why = why.into();
    (status, Json(json!({ "error": why }))).into_response()
}

/// For the OpenAPI document.
pub(super) fn schema() -> Value {
    json!({ "type": "object", "required": ["error"], "properties": { "error": { "type": "string" } } })
}
