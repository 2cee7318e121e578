//! The API as an OpenAPI document, from one table of routes. A test asks the server for each of them.

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use super::{error, rates, status};
use crate::{outputs::store::read::PAGE, pipeline::incident::Incident};

/// A route, as documented.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// What generated clients call it.
    operation: &'static str,
    about: &'static str,
    asked: &'static [Parameter],
    /// Status, content type, what it is.
    answers: &'static [(u16, &'static str, Answer)],
}

struct Parameter {
    name: &'static str,
    place: &'static str,
    about: &'static str,
    values: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Answer {
    Text,
    Any,
    Names,
    Error,
    Incident,
    Page,
    Ready,
    Probes,
    Rates,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const BAD: (u16, &str, Answer) = (400, JSON, Answer::Error);
const BROKEN: (u16, &str, Answer) = (500, JSON, Answer::Error);
const SLOW: (u16, &str, Answer) = (503, JSON, Answer::Error);

const fn asked(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: "query", about, values: &[] }
}

/// Every route of the API.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/metrics",
        operation: "getMetrics",
        about: "Metrics, in Prometheus' text format or OpenMetrics, as the Accept header asks.",
        asked: &[],
        answers: &[(200, TEXT, Answer::Text), SLOW],
    },
    Route {
        path: "/healthz",
        operation: "getHealth",
        about: "Whether the daemon does its work. Never asks for a password.",
        asked: &[],
        answers: &[(200, TEXT, Answer::Text), (503, TEXT, Answer::Text)],
    },
    Route {
        path: "/readyz",
        operation: "getReadiness",
        about: "Whether every probe is attached, and what is missing. Never asks for a password.",
        asked: &[],
        answers: &[(200, JSON, Answer::Ready), (503, JSON, Answer::Ready)],
    },
    Route {
        path: "/api/v1/incidents",
        operation: "listIncidents",
        about: "Incidents that are kept, newest first.",
        asked: &[
            asked("kind", "Only of these kinds, comma-separated."),
            Parameter {
                name: "severity",
                place: "query",
                about: "Only of at least this severity.",
                values: &["info", "warning", "critical"],
            },
            Parameter {
                name: "state",
                place: "query",
                about: "Only those that go on, or are over.",
                values: &["open", "resolved"],
            },
            asked(
                "since",
                "Only those that went on at this moment or later: RFC 3339, or so long ago, such as 24h.",
            ),
            asked("until", "Only those that opened at this moment or before."),
            asked("text", "Only those that say this somewhere; case does not matter."),
            asked("before", "Only those older than this id: `next` of the page before."),
            asked("limit", "So many at most."),
        ],
        answers: &[(200, JSON, Answer::Page), BAD, BROKEN, SLOW],
    },
    Route {
        path: "/api/v1/incidents/{id}",
        operation: "getIncident",
        about: "One incident, by its id or the end of it.",
        asked: &[
            Parameter { name: "id", place: "path", about: "The id.", values: &[] },
            Parameter {
                name: "format",
                place: "query",
                about: "JSON, or a paragraph for people.",
                values: &["json", "text"],
            },
        ],
        answers: &[
            (200, JSON, Answer::Incident),
            (200, TEXT, Answer::Text),
            BAD,
            (404, JSON, Answer::Error),
            BROKEN,
            SLOW,
        ],
    },
    Route {
        path: "/api/v1/stream",
        operation: "streamIncidents",
        about: "Server-sent events: first every open incident, then each change (`event: incident`). A reader \
                that does not keep up gets `event: lagged` and must come again.",
        asked: &[],
        answers: &[(200, "text/event-stream", Answer::Text), SLOW],
    },
    Route {
        path: "/api/v1/kinds",
        operation: "listKinds",
        about: "The kinds of incidents there are.",
        asked: &[],
        answers: &[(200, JSON, Answer::Names), SLOW],
    },
    Route {
        path: "/api/v1/probes",
        operation: "listProbes",
        about: "The probes and their hooks: what is attached, what not and why, what was received and lost.",
        asked: &[],
        answers: &[(200, JSON, Answer::Probes), SLOW],
    },
    Route {
        path: "/api/v1/rates",
        operation: "getRates",
        about: "Main rates of the last half hour, and the server's time.",
        asked: &[],
        answers: &[(200, JSON, Answer::Rates), SLOW],
    },
    Route {
        path: "/api/v1/openapi.json",
        operation: "getDocument",
        about: "This document.",
        asked: &[],
        answers: &[(200, JSON, Answer::Any), SLOW],
    },
];

impl Answer {
    fn schema(self) -> Value {
        let to = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Any => json!({ "type": "object" }),
            Self::Names => json!({ "type": "array", "items": { "type": "string" } }),
            Self::Error => to("Error"),
            Self::Incident => to("Incident"),
            Self::Page => json!({
                "type": "object",
                "required": ["incidents", "next"],
                "properties": {
                    "incidents": { "type": "array", "items": to("Incident") },
                    "next": {
                        "type": ["string", "null"],
                        "description": "Ask for `before` this; null when there are no more."
                    }
                }
            }),
            Self::Ready => to("Ready"),
            Self::Probes => to("Probes"),
            Self::Rates => to("Shown"),
        }
    }
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Map::new();
    schemas.insert("Error".into(), error::schema());
    add::<Incident>("Incident", &mut schemas);
    add::<status::Ready>("Ready", &mut schemas);
    add::<status::Probes>("Probes", &mut schemas);
    add::<rates::Shown>("Shown", &mut schemas);
    let paths: Map<String, Value> =
        ROUTES.iter().map(|route| (route.path.to_owned(), described(route))).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "culprit",
            "description": "What a running culprit has seen. Read-only.",
            "version": "v1",
            "license": { "name": "Apache-2.0 OR MIT" }
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "password": { "type": "http", "scheme": "basic" } }
        }
    })
}

fn described(route: &Route) -> Value {
    let parameters: Vec<Value> = (route.asked.iter())
        .map(|parameter| {
            let mut schema = match parameter.name {
                "limit" => json!({ "type": "integer", "minimum": 1, "maximum": PAGE, "default": 100 }),
                "id" => json!({ "type": "string", "pattern": "^[0-9A-Za-z]{1,26}$" }),
                _ => json!({ "type": "string" }),
            };
            if !parameter.values.is_empty() {
                schema["enum"] = json!(parameter.values);
            }
            json!({
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.place == "path",
                "description": parameter.about,
                "schema": schema
            })
        })
        .collect();
    let everywhere = [
        (421, JSON, Answer::Error),
        // Whether it lives is asked by what has no password.
        (401, JSON, Answer::Error),
    ];
    let open = matches!(route.path, "/healthz" | "/readyz");
    let mut answers = Map::new();
    for (status, kind, answer) in route.answers.iter().chain(&everywhere[..if open { 1 } else { 2 }]) {
        let about = match status {
            200 => "All is well.",
            400 => "The request says something that cannot be.",
            401 => "A user name and a password are wanted: `basic_auth_users` of the web configuration.",
            404 => "There is none.",
            421 => {
                "It listens on a loopback address and was asked by another name than its address or localhost."
            }
            500 => "What is kept cannot be read.",
            _ => "Not now.",
        };
        let answered =
            answers.entry(status.to_string()).or_insert(json!({ "description": about, "content": {} }));
        answered["content"][*kind] = json!({ "schema": answer.schema() });
    }
    let security = if open { json!([{}]) } else { json!([{}, { "password": [] }]) };
    json!({ "get": {
        "operationId": route.operation,
        "summary": route.about,
        "parameters": parameters,
        "responses": answers,
        "security": security
    } })
}

/// A type's schema, with those it is made of beside it.
fn add<T: JsonSchema>(name: &str, schemas: &mut Map<String, Value>) {
    let mut schema: Value = schema_for!(T).into();
    if let Value::Object(fields) = &mut schema {
        fields.remove("$schema");
        if let Some(Value::Object(parts)) = fields.remove("$defs") {
            schemas.extend(parts);
        }
    }
    let text = schema.to_string().replace("#/$defs/", "#/components/schemas/");
    schemas.insert(name.to_owned(), serde_json::from_str(&text).unwrap_or(schema));
    for part in schemas.values_mut() {
        let text = part.to_string();
        if text.contains("#/$defs/") {
            *part =
                serde_json::from_str(&text.replace("#/$defs/", "#/components/schemas/")).unwrap_or_default();
        }
    }
}
