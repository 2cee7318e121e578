//! What a running daemon has kept, asked over its API: http or https, with a password where it wants one.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::outputs::store::read::{PAGE, Query};

/// A daemon that has not answered by then does not.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Asks one daemon.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    /// The same without a password, for messages.
    name: String,
}

impl Client {
    /// Of the daemon at `url`, whose certificate is signed by one of those in `ca`, or by one the system trusts.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let roots = match ca {
            Some(file) => authorities(file)?,
            None => RootCerts::PlatformVerifier,
        };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build()
            .into();
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { agent, name: without_password(&url), url })
    }

    /// What the API answers to a path.
    pub(super) fn ask(&self, path: &str) -> anyhow::Result<String> {
        let name = &self.name;
        let mut response = self.agent.get(&format!("{}{path}", self.url)).call().with_context(|| {
            format!("{name} cannot be asked: does a culprit serve HTTP there (--listen)?")
        })?;
        let status = response.status();
        let body =
            response.body_mut().read_to_string().with_context(|| format!("{name}: reading the answer"))?;
        if status.is_success() {
            return Ok(body);
        }
        let why = serde_json::from_str::<Value>(&body)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned))
            .unwrap_or_else(|| "and does not say why".into());
        let remedy = if status == 401 { ": write --url https://NAME:PASSWORD@…" } else { "" };
        bail!("{name} answered {status}: {why}{remedy}")
    }

    /// Page by page, until there are as many as wanted or no more; `true`: there are more.
    pub(super) fn incidents(&self, query: &Query) -> anyhow::Result<(Vec<Value>, bool)> {
        let name = &self.name;
        let mut found: Vec<Value> = Vec::new();
        let mut query = query.clone();
        let wanted = query.limit;
        loop {
            query.limit = (wanted - found.len() as u32).min(PAGE);
            let answer = self.ask(&format!("/api/v1/incidents?{}", asked(&query)))?;
            let mut answer: Value =
                serde_json::from_str(&answer).with_context(|| format!("{name}: the answer"))?;
            let Some(Value::Array(page)) = answer.get_mut("incidents").map(Value::take) else {
                bail!("{name}: this is no culprit: its answer has no incidents");
            };
            found.extend(page);
            let Some(next) = answer["next"].as_str() else { return Ok((found, false)) };
            if found.len() >= wanted as usize {
                return Ok((found, true));
            }
            query.before = Some(next.to_owned());
        }
    }
}

/// The certificates of a PEM file.
fn authorities(file: &Path) -> anyhow::Result<RootCerts> {
    let pem = fs::read(file).with_context(|| format!("--ca {}", file.display()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        let item = item.with_context(|| format!("--ca {}: this is no PEM", file.display()))?;
        if let PemItem::Certificate(certificate) = item {
            found.push(certificate);
        }
    }
    ensure!(!found.is_empty(), "--ca {}: no certificate is in it (PEM)", file.display());
    Ok(RootCerts::Specific(Arc::new(found)))
}

/// A URL as messages name it.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_no_password() {
        for (url, name) in [
            ("http://127.0.0.1:9877", "http://127.0.0.1:9877"),
            ("https://sre:open-sesame@node-7:9877/culprit", "https://node-7:9877/culprit"),
            ("https://sre:a@b@[::1]:9877", "https://[::1]:9877"),
        ] {
            assert_eq!(without_password(url), name);
        }
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().expect("room");
        let error = authorities(file.path()).expect_err("it is empty").to_string();
        assert!(
            error.contains(&file.path().display().to_string()) && error.contains("no certificate"),
            "{error}"
        );
    }
}
