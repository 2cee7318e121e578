//! What is answered to whom.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query as UrlQuery, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response, Sse, sse},
    routing::get,
};
use serde::Deserialize;
use serde_json::json;
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
};

use super::{
    App,
    error::error,
    limits::{ANSWER, COMPRESSED, READERS},
    openapi::{self, ROUTES},
    page,
};
use crate::{
    outputs::{
        Rendered,
        store::{
            Error as StoreError,
            read::{Found, PAGE, Query},
        },
        stream::Reader,
    },
    pipeline::incident::Kind,
    severity::Severity,
};

/// A silent stream says so often that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Everything that is served.
pub(super) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/incidents/{id}", get(incident))
        .route("/api/v1/stream", get(stream))
        .route("/api/v1/kinds", get(kinds))
        .route("/api/v1/probes", get(probes))
        .route("/api/v1/rates", get(rates))
        .route("/api/v1/openapi.json", get(|| async { Json(openapi::document()) }));
    for file in page::FILES {
        router = router.route(file.path, get(move || async move { file }));
    }
    router
        .fallback(|request: Request| async move {
            let path = request.uri().path().chars().take(200).collect::<String>();
            error(StatusCode::NOT_FOUND, format!("there is nothing at {path}: see /api/v1/openapi.json"))
        })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this is read-only: GET")
        })
        .layer(compression())
        .layer(middleware::from_fn_with_state(app.clone(), in_time))
        .with_state(app)
}

/// gzip for who asks for it. Not of the stream: an event must not wait in the compressor for the next one. One thread
/// answers everybody, so little time is spent on it.
fn compression() -> CompressionLayer<impl Predicate> {
    let worthwhile = SizeAbove::new(COMPRESSED).and(NotForContentType::SSE);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worthwhile)
}

/// Counts, and answers in time.
async fn in_time(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<axum::extract::MatchedPath>().cloned();
    let response = match tokio::time::timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "this took too long: ask for less"),
    };
    let path = matched.as_ref().map_or("other", |matched| known(matched.as_str()));
    app.traffic.answered(path, response.status().as_u16());
    response
}

fn known(path: &str) -> &'static str {
    let route = ROUTES.iter().map(|route| route.path).find(|route| *route == path);
    route.or_else(|| page::FILES.iter().map(|file| file.path).find(|file| *file == path)).unwrap_or("other")
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (kind, text) = (app.metrics)(accept);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.status.health() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ready = app.status.ready();
    let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ready)).into_response()
}

async fn kinds() -> Response {
    Json(Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>()).into_response()
}

async fn probes(State(app): State<Arc<App>>) -> Response {
    Json(app.status.probes()).into_response()
}

async fn rates(State(app): State<Arc<App>>) -> Response {
    Json(app.rates.shown()).into_response()
}

/// What `/api/v1/incidents` may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    kind: Option<String>,
    severity: Option<String>,
    state: Option<String>,
    since: Option<String>,
    until: Option<String>,
    text: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

impl Asked {
    fn query(self) -> Result<Query, String> {
        let kinds: Vec<String> =
            self.kind.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
        if let Some(bad) =
            kinds.iter().find(|kind| !Kind::ALL.iter().any(|known| known.name() == kind.as_str()))
        {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            return Err(format!("kind={bad}: there is no such kind: {}", known.join(", ")));
        }
        let moment = |name: &str, text: Option<String>| {
            let Some(text) = text else { return Ok(None) };
            let at = crate::units::moment(&text).map_err(|why| format!("{name}={text}: {why}"))?;
            Ok::<_, String>(Some(at.as_millisecond()))
        };
        Ok(Query {
            kinds,
            severity: match self.severity.as_deref() {
                None => Severity::Info,
                Some(name) => Severity::named(name)
                    .ok_or_else(|| format!("severity={name}: info, warning or critical"))?,
            },
            open: match self.state.as_deref() {
                None => None,
                Some("open") => Some(true),
                Some("resolved") => Some(false),
                Some(bad) => return Err(format!("state={bad}: open or resolved")),
            },
            since_ms: moment("since", self.since)?,
            until_ms: moment("until", self.until)?,
            text: self.text.filter(|text| !text.is_empty()),
            before: self.before,
            limit: match self.limit {
                None => 100,
                Some(limit @ 1..=PAGE) => limit,
                Some(bad) => return Err(format!("limit={bad}: 1 to {PAGE}")),
            },
        })
    }
}

async fn incidents(State(app): State<Arc<App>>, asked: Result<UrlQuery<Asked>, QueryRejection>) -> Response {
    let query = match asked.map_err(|why| why.body_text()).and_then(|UrlQuery(asked)| asked.query()) {
        Ok(query) => query,
        Err(why) => return error(StatusCode::BAD_REQUEST, why),
    };
    let store = app.store.clone();
    let (kept, more) = match blocking(move || store.incidents(&query)).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let next = kept.last().filter(|_| more).map(|kept| kept.id.clone());
    let incidents: Vec<&str> = kept.iter().map(|kept| kept.json.as_str()).collect();
    // Each is JSON already.
    let body = format!("{{\"incidents\":[{}],\"next\":{}}}", incidents.join(","), json!(next));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// How `/api/v1/incidents/{id}` may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Form {
    format: Option<String>,
}

async fn incident(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    form: Result<UrlQuery<Form>, QueryRejection>,
) -> Response {
    let text = match form.map(|UrlQuery(form)| form.format) {
        Ok(None) => false,
        Ok(Some(form)) if form == "json" => false,
        Ok(Some(form)) if form == "text" => true,
        Ok(Some(bad)) => return error(StatusCode::BAD_REQUEST, format!("format={bad}: json or text")),
        Err(why) => return error(StatusCode::BAD_REQUEST, why.body_text()),
    };
    let (store, asked) = (app.store.clone(), id.clone());
    let kept = match blocking(move || store.incident(&asked)).await {
        Ok(Found::One(kept)) => kept,
        Ok(Found::Nothing) => return error(StatusCode::NOT_FOUND, format!("there is no incident {id}")),
        Ok(Found::Several(ids)) => {
            return error(
                StatusCode::NOT_FOUND,
                format!("several incidents end in {id}: {}", ids.join(", ")),
            );
        }
        Err(response) => return response,
    };
    if text {
        return ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], kept.text).into_response();
    }
    ([(header::CONTENT_TYPE, "application/json")], kept.json).into_response()
}

/// Off the thread that answers everybody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Response> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, why.to_string())),
        Err(_) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, "looking that up failed")),
    }
}

async fn stream(State(app): State<Arc<App>>) -> Response {
    let place = Place::take(&app);
    let Some(place) = place else {
        return error(StatusCode::SERVICE_UNAVAILABLE, format!("{READERS} read the stream already"));
    };
    let Reader { open, number, changes } = app.hub.listen();
    let first = tokio_stream::iter(open.into_iter().map(move |incident| incident_event(number, &incident)));
    let counts = app.hub.counts.clone();
    let mut lagged = false;
    let later = BroadcastStream::new(changes).map_while(move |change| match change {
        _ if lagged => None,
        Ok((number, incident)) => Some(incident_event(number, &incident)),
        Err(tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged(missed)) => {
            // The end of this stream: the reader comes again and gets what is open.
            lagged = true;
            counts.full.fetch_add(missed, Relaxed);
            Some(sse::Event::default().event("lagged").data(missed.to_string()))
        }
    });
    let events = first.chain(later).map(move |event| {
        let _held = &place;
        Ok::<_, Infallible>(event)
    });
    let keep_alive = sse::KeepAlive::new().interval(HEARTBEAT).text("alive");
    Sse::new(events_of(events)).keep_alive(keep_alive).into_response()
}

fn events_of<S>(events: S) -> impl Stream<Item = Result<sse::Event, Infallible>> + use<S>
where
    S: Stream<Item = Result<sse::Event, Infallible>>,
{
    // A first line at once: the reader knows that it is connected.
    tokio_stream::once(Ok(sse::Event::default().comment("culprit.stream"))).chain(events)
}

fn incident_event(number: u64, incident: &Rendered) -> sse::Event {
    sse::Event::default().event("incident").id(number.to_string()).data(incident.json())
}

/// A reader's place among those there may be.
struct Place(Arc<App>);

impl Place {
    fn take(app: &Arc<App>) -> Option<Self> {
        let taken = app
            .hub
            .counts
            .waiting
            .fetch_update(Relaxed, Relaxed, |readers| (readers < READERS).then_some(readers + 1));
        taken.ok().map(|_| Self(app.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.hub.counts.waiting.fetch_sub(1, Relaxed);
    }
}
