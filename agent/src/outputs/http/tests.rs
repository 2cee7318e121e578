//! The router and the document are of one list; here each is held against the other.

use std::{collections::BTreeSet, fs, sync::Mutex, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, header},
    response::Response,
    routing::get,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{access::Access, api, server::admit, *};
use crate::{
    outputs::{
        Rendered, STORE, WEBHOOK, json as schemas,
        queue::{Counts, Sink},
        store::{
            Retention,
            deliveries::Subscriptions,
            tests::incident,
            write::{Options, Writer},
        },
    },
    pipeline::incident::State,
};

/// More incidents than a page has by default; the second is resolved.
const INCIDENTS: u32 = 102;
const ONE: &str = "01M7YXD271WZS0KCJEEW000100";

fn app() -> Arc<App> {
    let store = Store::in_memory().expect("memory");
    let retention = Retention { age: Duration::from_secs(1 << 30), bytes: 1 << 30 };
    let subscriptions = Subscriptions { urls: vec![], severity: crate::severity::Severity::Critical };
    let options = Arc::new(Mutex::new(Options { retention, subscriptions }));
    let mut writer =
        Writer::new(store.clone(), options, Counts::new(WEBHOOK), Box::new(|_| {})).expect("memory");
    let states = |number| if number == 1 { State::Resolved } else { State::Open };
    let kept: Vec<_> = (0..INCIDENTS).map(|number| Rendered::new(incident(number, states(number)))).collect();
    writer.take(&kept, &Counts::new(STORE));
    Arc::new(App {
        store,
        hub: Arc::default(),
        status: Arc::new(Status::new("node", "0", "6.1", vec![])),
        rates: Arc::default(),
        traffic: Arc::default(),
        metrics: Box::new(|_| ("text/plain; version=0.0.4", String::new())),
    })
}

fn asking(method: Method, path: &str, headers: &[(&str, &str)]) -> Request {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).expect("a request")
}

async fn ask(router: &Router, path: &str) -> Response {
    router.clone().oneshot(asking(Method::GET, path, &[])).await.expect("never fails")
}

fn kind(response: &Response) -> &str {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.unwrap_or_default().split(';').next().unwrap_or_default()
}

async fn body(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), 64 << 20).await.expect("a body");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// A schema, or the one that it refers to.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(to) => {
            document.pointer(to.trim_start_matches('#')).unwrap_or_else(|| panic!("there is no {to}"))
        }
        None => schema,
    }
}

fn words(schema: &Value) -> Vec<&str> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let described = schema["oneOf"].as_array().into_iter().flatten().map(|one| &one["const"]);
    listed.chain(described).filter_map(Value::as_str).collect()
}

/// Queries of a route, as its parameters are documented, and the status of each answer.
fn queries(document: &Value, operation: &Value) -> Vec<(String, u16)> {
    let mut queries = vec![(String::new(), 200)];
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] != "query" {
            continue;
        }
        let name = parameter["name"].as_str().expect("a name");
        let schema = resolved(document, &parameter["schema"]);
        let words = words(schema);
        if !words.is_empty() {
            queries.extend(words.iter().map(|word| (format!("?{name}={word}"), 200)));
            queries.push((format!("?{name}=wibble"), 400));
        }
        if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            queries.extend([least, most].map(|bound| (format!("?{name}={bound}"), 200)));
            queries.extend([least - 1, most + 1].map(|beyond| (format!("?{name}={beyond}"), 400)));
        }
    }
    if operation["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] == "query")) {
        queries.push(("?wibble=1".into(), 400));
    }
    queries
}

#[tokio::test]
async fn every_answer_is_one_that_the_document_has() {
    let (document, router) = (document(), api::router(app()));
    let mut asked = 0;
    for (path, route) in document["paths"].as_object().expect("paths") {
        let operation = &route["get"];
        let path = path.replace("{id}", ONE);
        let mut wanted: Vec<(String, u16)> = queries(&document, operation)
            .into_iter()
            .map(|(query, status)| (format!("{path}{query}"), status))
            .collect();
        if path.ends_with(ONE) {
            wanted.push((path.replace(ONE, "00000000000000000000000000"), 404));
            wanted.push((path.replace(ONE, "0010"), 200));
            wanted.push((path.replace(ONE, "%ff"), 400));
        }
        for (path, status) in wanted {
            let answer = ask(&router, &path).await;
            assert_eq!(answer.status(), status, "{path}");
            let documented = &operation["responses"][status.to_string()]["content"][kind(&answer)];
            let schema = resolved(&document, &documented["schema"]);
            assert!(schema.is_object(), "{path}: {status} {}", kind(&answer));
            if kind(&answer) == "application/json" && schema["type"] == "object" {
                let answer = body(answer).await;
                for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    assert!(answer.get(field).is_some(), "{path}: {field}");
                }
                for field in answer.as_object().expect("an object").keys() {
                    let known = schema["properties"].as_object();
                    assert!(known.is_none_or(|known| known.contains_key(field)), "{path}: {field}");
                }
            }
            asked += 1;
        }
    }
    assert!(asked > 25, "{asked}");
}

#[tokio::test]
async fn an_incident_comes_in_every_documented_form() {
    let (document, router) = (document(), api::router(app()));
    let operation = &document["paths"]["/api/v1/incidents/{id}"]["get"];
    let documented = operation["responses"]["200"]["content"].as_object().expect("content");
    let mut given = BTreeSet::new();
    for form in ["json", "text"] {
        let answer = ask(&router, &format!("/api/v1/incidents/{ONE}?format={form}")).await;
        given.insert(kind(&answer).to_owned());
    }
    assert_eq!(given, documented.keys().cloned().collect());
}

#[tokio::test]
async fn a_page_has_so_many_incidents_as_the_document_says_and_the_next_begins_after_it() {
    let (document, router) = (document(), api::router(app()));
    let parameters = &document["paths"]["/api/v1/incidents"]["get"]["parameters"];
    let limit = parameters.as_array().expect("parameters").iter().find(|one| one["name"] == "limit");
    let by_default = limit.expect("a limit")["schema"]["default"].as_u64().expect("a default") as usize;
    let first = body(ask(&router, "/api/v1/incidents").await).await;
    let ids = |page: &Value| page["incidents"].as_array().expect("a list").len();
    assert_eq!(ids(&first), by_default);
    let next = first["next"].as_str().expect("more");
    assert_eq!(first["incidents"][by_default - 1]["id"], next);
    let last = body(ask(&router, &format!("/api/v1/incidents?before={next}")).await).await;
    assert_eq!((ids(&last), &last["next"]), (INCIDENTS as usize - by_default, &Value::Null));
}

#[tokio::test]
async fn a_route_that_the_document_does_not_name_is_not_served() {
    let extra = Router::new().route("/api/v1/extra", get(|| async { "here" }));
    let router = api::served(extra, app());
    for path in ["/api/v1/extra", "/nothing"] {
        let answer = ask(&router, path).await;
        assert_eq!(answer.status(), 404, "{path}");
        let why = body(answer).await["error"].as_str().map(str::to_owned).unwrap_or_default();
        assert!(why.starts_with(&format!("there is nothing at {path}")), "{why}");
    }
    assert_eq!(ask(&router, "/").await.status(), 200, "the page");
}

#[tokio::test]
async fn every_route_is_read_only() {
    let (document, router) = (document(), api::router(app()));
    for (path, route) in document["paths"].as_object().expect("paths") {
        assert_eq!(route.as_object().map(serde_json::Map::len), Some(1), "{path}: GET alone");
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let request = asking(method.clone(), &path.replace("{id}", ONE), &[]);
            let answer = router.clone().oneshot(request).await.expect("never fails");
            assert_eq!(answer.status(), 405, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_password_and_the_right_name_are_wanted_where_the_document_says_so() {
    let (document, router) = (document(), api::router(app()));
    let file = tempfile::NamedTempFile::new().expect("a file");
    let hash = bcrypt::hash("right", 4).expect("a hash");
    fs::write(file.path(), format!("basic_auth_users:\n  sre: {hash}\n")).expect("room");
    let locked = Access::new(Some(file.path())).expect("sound").now();
    let open = Access::new(None).expect("sound").now();
    for (path, route) in document["paths"].as_object().expect("paths") {
        let operation = &route["get"];
        let documented =
            |status: &str| operation["responses"][status]["content"]["application/json"].is_object();
        let request = |host: &str| asking(Method::GET, &path.replace("{id}", ONE), &[("Host", host)]);
        let answer = admit(request("localhost"), router.clone(), locked.clone(), true).await;
        assert_eq!(answer.status() == 401, documented("401"), "{path}");
        let wants =
            operation["security"].as_array().is_some_and(|ways| ways.contains(&json!({ "password": [] })));
        assert_eq!(wants, documented("401"), "{path}");
        let answer = admit(request("elsewhere.example"), router.clone(), open.clone(), true).await;
        assert_eq!((answer.status().as_u16(), documented("421")), (421, true), "{path}");
    }
}

#[test]
fn the_document_refers_only_to_schemas_that_it_has() {
    let document = document();
    let mut values = vec![&document];
    let mut references = BTreeSet::new();
    while let Some(value) = values.pop() {
        match value {
            Value::Object(fields) => {
                references.extend(fields.get("$ref").and_then(Value::as_str));
                values.extend(fields.values());
            }
            Value::Array(items) => values.extend(items),
            _ => {}
        }
    }
    for to in &references {
        let name = to.strip_prefix("#/components/schemas/").unwrap_or_else(|| panic!("{to}"));
        assert!(document["components"]["schemas"][name].is_object(), "{to}");
    }
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    assert_eq!(schemas.len(), references.len(), "no schema is there for nothing");
}

#[test]
fn an_incident_has_the_schema_that_is_published_for_it() {
    let published = schemas::incident_schema().to_string().replace("#/$defs/", "#/components/schemas/");
    let mut published: Value = serde_json::from_str(&published).expect("JSON");
    let fields = published.as_object_mut().expect("an object");
    let parts = fields.remove("$defs").expect("parts");
    fields.retain(|name, _| !["$schema", "title"].contains(&name.as_str()));
    let document = document();
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Incident"], published);
    for (name, part) in parts.as_object().expect("parts") {
        assert_eq!(&schemas[name], part, "{name}");
    }
}
