//! `culprit incidents` and `culprit show`: what a daemon has kept, from its store or from itself.

mod told;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    config::Format,
    sinks::{
        json,
        store::{
            Store,
            read::{Found, Kept, PAGE, Query},
        },
    },
    terminal::{self, progress::say},
    text::printable,
};

/// A daemon that has not answered by then does not.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A store.
    Store(PathBuf),
    /// A daemon.
    Url(String),
}

/// Lists incidents, the newest last, where one looks first.
///
/// # Errors
/// When the store or the daemon cannot be asked.
pub fn list(query: &Query, place: &Place, format: Format) -> anyhow::Result<ExitCode> {
    let (mut found, more): (Vec<Value>, bool) = match place {
        Place::Store(path) => {
            let (kept, more) = Store::look(path)?.incidents(query)?;
            (kept.iter().map(parsed).collect::<anyhow::Result<_>>()?, more)
        }
        Place::Url(url) => pages(query, url)?,
    };
    found.reverse();
    let mut out = Vec::new();
    match format {
        Format::Json => {
            for incident in &found {
                json::write(incident, &mut out)?;
                out.push(b'\n');
            }
        }
        Format::Text => told::table(&found, Timestamp::now(), terminal::width(), &mut out)?,
    }
    io::stdout().write_all(&out)?;
    if found.is_empty() {
        say("no such incident is kept");
    } else if more {
        say("there are older ones: --limit shows more");
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows one incident.
///
/// # Errors
/// When there is none, or several end like that, or nobody can be asked.
pub fn show(id: &str, place: &Place, format: Format) -> anyhow::Result<ExitCode> {
    let (json, text) = match place {
        Place::Store(path) => match Store::look(path)?.incident(id)? {
            Found::One(kept) => (kept.json, kept.text),
            Found::Nothing => {
                bail!("{id}: no incident of this id is kept: `culprit incidents` lists those that are")
            }
            Found::Several(ids) => bail!("{id}: several incidents end like that: {}", ids.join(", ")),
        },
        Place::Url(url) => {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                bail!("{id}: an incident's id has letters and digits only");
            }
            let form = |form: &str| ask(url, &format!("/api/v1/incidents/{id}?format={form}"));
            let text = if format == Format::Text { form("text")? } else { String::new() };
            (form("json")?, text)
        }
    };
    let mut out = io::stdout().lock();
    if format == Format::Json {
        // Another machine, or a store of earlier days, may hold what a terminal would take for commands.
        json.lines().try_for_each(|line| writeln!(out, "{}", printable(line)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let incident: Value = serde_json::from_str(&json).with_context(|| format!("incident {id}"))?;
    told::paragraph(&incident, &text, Timestamp::now(), terminal::width(), &mut out)?;
    Ok(ExitCode::SUCCESS)
}

/// Page by page, until there are as many as wanted or no more; `true`: there are more.
fn pages(query: &Query, url: &str) -> anyhow::Result<(Vec<Value>, bool)> {
    let mut found: Vec<Value> = Vec::new();
    let mut query = query.clone();
    let wanted = query.limit;
    loop {
        query.limit = (wanted - found.len() as u32).min(PAGE);
        let answer = ask(url, &format!("/api/v1/incidents?{}", asked(&query)))?;
        let mut answer: Value =
            serde_json::from_str(&answer).with_context(|| format!("{url}: the answer"))?;
        let Some(Value::Array(page)) = answer.get_mut("incidents").map(Value::take) else {
            bail!("{url}: this is no culprit: its answer has no incidents");
        };
        found.extend(page);
        let Some(next) = answer["next"].as_str() else { return Ok((found, false)) };
        if found.len() >= wanted as usize {
            return Ok((found, true));
        }
        query.before = Some(next.to_owned());
    }
}

fn parsed(kept: &Kept) -> anyhow::Result<Value> {
    serde_json::from_str(&kept.json).with_context(|| format!("incident {}", kept.id))
}

/// A query as the API takes it.
fn asked(query: &Query) -> String {
    let mut parts = vec![format!("limit={}", query.limit)];
    let mut add = |name: &str, value: String| {
        let bytes = value.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        });
        parts.push(format!("{name}={}", bytes.collect::<String>()));
    };
    add("severity", query.severity.name().into());
    if !query.kinds.is_empty() {
        add("kind", query.kinds.join(","));
    }
    if let Some(open) = query.open {
        add("state", if open { "open" } else { "resolved" }.into());
    }
    let moment = |at: i64| jiff::Timestamp::from_millisecond(at).map(|at| at.to_string()).unwrap_or_default();
    if let Some(since) = query.since_ms {
        add("since", moment(since));
    }
    if let Some(until) = query.until_ms {
        add("until", moment(until));
    }
    if let Some(text) = &query.text {
        add("text", text.clone());
    }
    if let Some(before) = &query.before {
        add("before", before.clone());
    }
    parts.join("&")
}

/// What a daemon answers.
fn ask(url: &str, path: &str) -> anyhow::Result<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .tls_config(
            ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build(),
        )
        .build()
        .into();
    let whole = format!("{}{path}", url.trim_end_matches('/'));
    let mut response = agent
        .get(&whole)
        .call()
        .with_context(|| format!("{url} cannot be asked: does a culprit serve HTTP there (--listen)?"))?;
    let status = response.status();
    let body = response.body_mut().read_to_string().with_context(|| format!("{url}: reading the answer"))?;
    if status.is_success() {
        return Ok(body);
    }
    let why = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|body| body["error"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "and does not say why".into());
    bail!("{url} answered {status}: {why}")
}
