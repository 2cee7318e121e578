//! What is answered about incidents that are kept.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query as UrlQuery, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::header,
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IntoDeserializer, value},
};
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::{
    App,
    error::{BadRequest, Misdirected, NotFound, Unauthorized, Unavailable, Unreadable},
};
use crate::{
    outputs::store::{
        Error as StoreError,
        read::{Found, PAGE, Query},
    },
    pipeline::incident::{Incident, Kind},
    severity::Severity,
};

/// What `/api/v1/incidents` may be asked.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Only of these kinds, comma-separated.
    kind: Option<String>,
    /// Only of at least this severity.
    #[param(value_type = Option<Severity>)]
    severity: Option<String>,
    /// Only those that go on, or are over.
    #[param(value_type = Option<Standing>)]
    state: Option<String>,
    /// Only those that went on at this moment or later: RFC 3339, or so long ago, such as 24h.
    since: Option<String>,
    /// Only those that opened at this moment or before.
    until: Option<String>,
    /// Only those that say this somewhere; case does not matter.
    text: Option<String>,
    /// Only those older than this id: `next` of the page before.
    before: Option<String>,
    /// So many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Whether an incident goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    Open,
    Resolved,
}

/// How `/api/v1/incidents/{id}` may be asked.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Form {
    /// JSON, or a paragraph for people.
    #[param(value_type = Option<Format>)]
    format: Option<String>,
}

/// Forms of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    Json,
    Text,
}

/// Some incidents, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(extend("required" = ["incidents", "next"]))]
pub(super) struct Page {
    /// As they are kept.
    #[schemars(with = "Vec<Incident>")]
    incidents: Vec<Box<RawValue>>,
    /// Ask for `before` this; null when there are no more.
    next: Option<String>,
}

/// One of a few words.
fn word<T: DeserializeOwned>(name: &str, said: Option<&str>, known: &str) -> Result<Option<T>, String> {
    let Some(said) = said else { return Ok(None) };
    let word = T::deserialize(said.into_deserializer());
    word.map(Some).map_err(|_: value::Error| format!("{name}={said}: {known}"))
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
            severity: word("severity", self.severity.as_deref(), "info, warning or critical")?
                .unwrap_or(Severity::Info),
            open: word("state", self.state.as_deref(), "open or resolved")?
                .map(|standing: Standing| standing == Standing::Open),
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

/// Incidents that are kept, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/incidents",
    operation_id = "listIncidents",
    params(Asked),
    responses(
        (status = 200, description = "So many of them, and where the next page begins.", body = Page),
        BadRequest, Unauthorized, Misdirected, Unreadable, Unavailable
    ),
    security((), ("password" = []))
)]
pub(super) async fn incidents(
    State(app): State<Arc<App>>,
    asked: Result<UrlQuery<Asked>, QueryRejection>,
) -> Response {
    let query = match asked.map_err(|why| why.body_text()).and_then(|UrlQuery(asked)| asked.query()) {
        Ok(query) => query,
        Err(why) => return BadRequest::because(why),
    };
    let store = app.store.clone();
    let page = blocking(move || {
        let (kept, more) = store.incidents(&query)?;
        let next = kept.last().filter(|_| more).map(|kept| kept.id.clone());
        let incidents: Result<_, _> = kept.into_iter().map(|kept| RawValue::from_string(kept.json)).collect();
        Ok(incidents.map(|incidents| Page { incidents, next }))
    });
    match page.await {
        Ok(Ok(page)) => Json(page).into_response(),
        Ok(Err(why)) => Unreadable::because(format!("an incident that is kept is no JSON: {why}")),
        Err(response) => response,
    }
}

/// One incident, by its id or the end of it.
#[utoipa::path(
    get,
    path = "/api/v1/incidents/{id}",
    operation_id = "getIncident",
    params(("id" = String, Path, description = "The id.", pattern = "^[0-9A-Za-z]{1,26}$"), Form),
    responses(
        (
            status = 200,
            description = "The incident, in the form that was asked for.",
            content((Incident = "application/json"), (String = "text/plain"))
        ),
        BadRequest, Unauthorized, NotFound, Misdirected, Unreadable, Unavailable
    ),
    security((), ("password" = []))
)]
pub(super) async fn incident(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    form: Result<UrlQuery<Form>, QueryRejection>,
) -> Response {
    let form = form
        .map_err(|why| why.body_text())
        .and_then(|UrlQuery(form)| word("format", form.format.as_deref(), "json or text"));
    let (id, form) = match (id, form) {
        (Ok(Path(id)), Ok(form)) => (id, form.unwrap_or(Format::Json)),
        (Err(why), _) => return BadRequest::because(why.body_text()),
        (_, Err(why)) => return BadRequest::because(why),
    };
    let (store, asked) = (app.store.clone(), id.clone());
    let kept = match blocking(move || store.incident(&asked)).await {
        Ok(Found::One(kept)) => kept,
        Ok(Found::Nothing) => return NotFound::because(format!("there is no incident {id}")),
        Ok(Found::Several(ids)) => {
            return NotFound::because(format!("several incidents end in {id}: {}", ids.join(", ")));
        }
        Err(response) => return response,
    };
    match form {
        Format::Text => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], kept.text).into_response(),
        Format::Json => ([(header::CONTENT_TYPE, "application/json")], kept.json).into_response(),
    }
}

/// Off the thread that answers everybody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Response> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(Unreadable::because(why.to_string())),
        Err(_) => Err(Unreadable::because("looking that up failed")),
    }
}
