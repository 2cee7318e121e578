//! What is answered to whom.

use std::sync::{Arc, LazyLock};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    App,
    error::{MethodNotAllowed, Misdirected, NotFound, Unauthorized, Unavailable},
    incidents,
    limits::{ANSWER, COMPRESSED},
    live, openapi, page,
    rates::Shown,
    status::{Probes, Ready},
};
use crate::pipeline::incident::Kind;

/// Every route of the API, with what its handler declares.
fn api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(metrics))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(incidents::incidents))
        .routes(routes!(incidents::incident))
        .routes(routes!(live::stream))
        .routes(routes!(kinds))
        .routes(routes!(probes))
        .routes(routes!(rates))
        .routes(routes!(description))
}

/// The API as an OpenAPI document.
#[must_use]
pub fn document() -> Value {
    openapi::completed(api().get_openapi()).unwrap_or_default()
}

/// Everything that is served.
pub(super) fn router(app: Arc<App>) -> Router {
    served(api().into(), app)
}

/// Those routes, and the page.
pub(super) fn served(mut router: Router<Arc<App>>, app: Arc<App>) -> Router {
    for file in page::FILES {
        router = router.route(file.path, get(move || async move { file }));
    }
    router
        .fallback(|request: Request| async move { nothing_at(request.uri().path()) })
        .method_not_allowed_fallback(|| async { MethodNotAllowed::because("this is read-only: GET") })
        .layer(compression())
        .layer(middleware::from_fn_with_state(app.clone(), in_time))
        .with_state(app)
}

fn nothing_at(path: &str) -> Response {
    let path = path.chars().take(200).collect::<String>();
    NotFound::because(format!("there is nothing at {path}: see /api/v1/openapi.json"))
}

/// gzip for who asks for it. Not of the stream: an event must not wait in the compressor for the next one. One thread
/// answers everybody, so little time is spent on it.
fn compression() -> CompressionLayer<impl Predicate> {
    let worthwhile = SizeAbove::new(COMPRESSED).and(NotForContentType::SSE);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worthwhile)
}

/// Counts, and answers in time. A route that the document does not name is not served.
async fn in_time(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(|matched| known(matched.as_str()));
    let answer = async {
        match matched {
            Some(None) => nothing_at(request.uri().path()),
            _ => next.run(request).await,
        }
    };
    let response = match tokio::time::timeout(ANSWER, answer).await {
        Ok(response) => response,
        Err(_) => Unavailable::because("this took too long: ask for less"),
    };
    app.traffic.answered(matched.flatten().unwrap_or("other"), response.status().as_u16());
    response
}

/// A path of the document or of the page.
fn known(path: &str) -> Option<&'static str> {
    static PATHS: LazyLock<Vec<String>> =
        LazyLock::new(|| api().get_openapi().paths.paths.keys().cloned().collect());
    let files = page::FILES.iter().map(|file| file.path);
    PATHS.iter().map(String::as_str).chain(files).find(|known| *known == path)
}

/// Metrics, in Prometheus' text format or OpenMetrics, as the Accept header asks.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "getMetrics",
    responses(
        (
            status = 200,
            description = "The metrics.",
            content((String = "text/plain"), (String = "application/openmetrics-text"))
        ),
        Unauthorized, Misdirected, Unavailable
    ),
    security((), ("password" = []))
)]
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (kind, text) = (app.metrics)(accept);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Whether the daemon does its work. Never asks for a password.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    responses(
        (status = 200, description = "All is well.", body = String, content_type = "text/plain"),
        Misdirected,
        (status = 503, description = "Why it does not.", body = String, content_type = "text/plain")
    ),
    security(())
)]
async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.status.health() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Whether every probe is attached, and what is missing. Never asks for a password.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    responses(
        (status = 200, description = "All is well.", body = Ready),
        Misdirected,
        (status = 503, description = "Not all of it is, and why.", body = Ready)
    ),
    security(())
)]
async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ready = app.status.ready();
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

/// The kinds of incidents there are.
#[utoipa::path(
    get,
    path = "/api/v1/kinds",
    operation_id = "listKinds",
    responses(
        (status = 200, description = "Their names.", body = Vec<String>, content_type = "application/json"),
        Unauthorized, Misdirected, Unavailable
    ),
    security((), ("password" = []))
)]
async fn kinds() -> Response {
    Json(Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>()).into_response()
}

/// The probes and their hooks: what is attached, what not and why, what was received and lost.
#[utoipa::path(
    get,
    path = "/api/v1/probes",
    operation_id = "listProbes",
    responses(
        (status = 200, description = "The machine and its probes.", body = Probes),
        Unauthorized, Misdirected, Unavailable
    ),
    security((), ("password" = []))
)]
async fn probes(State(app): State<Arc<App>>) -> Response {
    Json(app.status.probes()).into_response()
}

/// Main rates of the last half hour, and the server's time.
#[utoipa::path(
    get,
    path = "/api/v1/rates",
    operation_id = "getRates",
    responses(
        (status = 200, description = "The rates.", body = Shown),
        Unauthorized, Misdirected, Unavailable
    ),
    security((), ("password" = []))
)]
async fn rates(State(app): State<Arc<App>>) -> Response {
    Json(app.rates.shown()).into_response()
}

/// This document.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "getDocument",
    responses(
        (status = 200, description = "OpenAPI 3.1.", body = Object, content_type = "application/json"),
        Unauthorized, Misdirected, Unavailable
    ),
    security((), ("password" = []))
)]
async fn description() -> Response {
    Json(document()).into_response()
}
