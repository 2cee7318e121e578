//! What a request that cannot be answered gets: one type for each status, which the document describes too.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use utoipa::IntoResponses;

/// Why a request got no answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Error {
    /// For people.
    error: String,
}

macro_rules! refusals {
    ($($(#[$about:meta])* $name:ident $status:ident)+) => {$(
        $(#[$about])*
        #[derive(Debug, IntoResponses)]
        #[response(status = $status)]
        pub(super) struct $name(Error);

        impl $name {
            /// The answer that says why.
            pub(super) fn because(why: impl Into<String>) -> Response {
                let refused = Self(Error { error: why.into() });
                (StatusCode::$status, Json(refused.0)).into_response()
            }
        }
    )+};
}

refusals! {
    /// The request says something that cannot be.
    BadRequest BAD_REQUEST
    /// A user name and a password are wanted: `basic_auth_users` of the web configuration.
    Unauthorized UNAUTHORIZED
    /// There is none.
    NotFound NOT_FOUND
    /// This is read-only.
    MethodNotAllowed METHOD_NOT_ALLOWED
    /// It listens on a loopback address and was asked by another name than its address or localhost.
    Misdirected MISDIRECTED_REQUEST
    /// What is kept cannot be read.
    Unreadable INTERNAL_SERVER_ERROR
    /// Not now.
    Unavailable SERVICE_UNAVAILABLE
}
