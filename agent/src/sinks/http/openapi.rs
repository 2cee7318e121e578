//! The API as an OpenAPI document, from one table of routes. A test asks the server for each of them.

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use super::{error, rates, status};
use crate::correlate::incident::Incident;

/// A route, as documented.
pub(super) struct Route {
    pub(super) path: &'static str,
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
const SLOW: (u16, &str, Answer) = (503, JSON, Answer::Error);

const fn asked(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: "query", about, values: &[] }
}

/// Every route of the API.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/metrics",
        about: "Metrics, in Prometheus' text format or OpenMetrics, as the Accept header asks.",
        asked: &[],
        answers: &[(200, TEXT, Answer::Text), SLOW],
    },
    Route {
        path: "/healthz",
        about: "Whether the daemon does its work. Never asks for a password.",
        asked: &[],
        answers: &[(200, TEXT, Answer::Text), (503, TEXT, Answer::Text)],
    },
    Route {
        path: "/readyz",
        about: "Whether every probe is attached, and what is missing. Never asks for a password.",
        asked: &[],
        answers: &[(200, JSON, Answer::Ready), (503, JSON, Answer::Ready)],
    },
    Route {
        path: "/api/v1/incidents",
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
            asked("limit", "So many at most, 1 to 1000; 100 unless told otherwise."),
        ],
        answers: &[(200, JSON, Answer::Page), BAD, SLOW],
    },
    Route {
        path: "/api/v1/incidents/{id}",
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
        answers: &[(200, JSON, Answer::Incident), BAD, (404, JSON, Answer::Error), SLOW],
    },
    Route {
        path: "/api/v1/stream",
        about: "Server-sent events: first every open incident, then each change (`event: incident`). A reader \
                that does not keep up gets `event: lagged` and must come again.",
        asked: &[],
        answers: &[(200, "text/event-stream", Answer::Text), SLOW],
    },
    Route {
        path: "/api/v1/kinds",
        about: "The kinds of incidents there are.",
        asked: &[],
        answers: &[(200, JSON, Answer::Names), SLOW],
    },
    Route {
        path: "/api/v1/probes",
        about: "The probes and their hooks: what is attached, what not and why, what was received and lost.",
        asked: &[],
        answers: &[(200, JSON, Answer::Probes), SLOW],
    },
    Route {
        path: "/api/v1/rates",
        about: "Main rates of the last half hour, and the server's time.",
        asked: &[],
        answers: &[(200, JSON, Answer::Rates), SLOW],
    },
    Route {
        path: "/api/v1/openapi.json",
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
            "description": "What a running culprit tells. Read-only.",
            "version": "v1",
            "license": { "name": "Apache-2.0 OR MIT" }
        },
        "paths": paths,
        "components": { "schemas": schemas }
    })
}

fn described(route: &Route) -> Value {
    let parameters: Vec<Value> = (route.asked.iter())
        .map(|parameter| {
            let mut schema = json!({ "type": if parameter.name == "limit" { "integer" } else { "string" } });
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
    let answers: Map<String, Value> = (route.answers.iter())
        .map(|(status, kind, answer)| {
            let about = match status {
                200 => "All is well.",
                400 => "The request says something that cannot be.",
                404 => "There is none.",
                _ => "Not now.",
            };
            let content = json!({ *kind: { "schema": answer.schema() } });
            (status.to_string(), json!({ "description": about, "content": content }))
        })
        .collect();
    json!({ "get": { "summary": route.about, "parameters": parameters, "responses": answers } })
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
