//! Where facts and incidents go. Lines and tables are written by whoever shows them; what a daemon does with
//! incidents goes through the [`SINKS`], each behind a bounded queue of its own, so that none can hold up
//! another, or the pipeline.
//!
//! ```text
//! engine ──▶ queue ──▶ store ──▶ stream (HTTP) · queue ──▶ stdout · deliveries on disk ──▶ webhook
//! ```
//! An incident is on disk before anybody is told of it: what was said once is there after a crash.

use std::sync::{Arc, OnceLock};

use crate::correlate::incident::Incident;

pub mod http;
pub mod json;
pub mod queue;
pub mod store;
pub mod stream;
pub mod summary;
pub mod text;
#[cfg(test)]
mod untrusted_names;
pub mod webhook;

/// A sink, as metrics and documentation name it.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Incidents that wait for it at most.
    pub capacity: usize,
}

/// The store: first of all.
pub const STORE: Spec = Spec { name: "store", about: "keeps incidents in a SQLite database", capacity: 1024 };
/// Standard output.
pub const STDOUT: Spec = Spec { name: "stdout", about: "prints incidents", capacity: 1024 };
/// Readers of the live stream.
pub const STREAM: Spec =
    Spec { name: "stream", about: "hands incidents to readers of /api/v1/stream", capacity: 256 };
/// Webhooks.
pub const WEBHOOK: Spec =
    Spec { name: "webhook", about: "POSTs incidents to URLs, from a queue in the store", capacity: 10_000 };

/// All sinks of the daemon, in the order an incident reaches them.
pub const SINKS: &[Spec] = &[STORE, STDOUT, STREAM, WEBHOOK];

/// An incident as it was told, in every form a sink may want; each is made once.
#[derive(Debug)]
pub struct Told {
    /// The incident.
    pub incident: Incident,
    json: OnceLock<String>,
    text: OnceLock<String>,
}

impl Told {
    /// Wraps an incident.
    #[must_use]
    pub fn new(incident: Incident) -> Arc<Self> {
        Arc::new(Self { incident, json: OnceLock::new(), text: OnceLock::new() })
    }

    /// As `culprit.incident/v1`, one line.
    pub fn json(&self) -> &str {
        self.json.get_or_init(|| json::string(&self.incident))
    }

    /// As a paragraph for people, without colour.
    pub fn text(&self) -> &str {
        self.text.get_or_init(|| self.paragraph(text::Watch::Goes))
    }

    /// The same for when culprit has stopped watching before the incident was resolved.
    pub fn unwatched_text(&self) -> String {
        self.paragraph(text::Watch::Stopped)
    }

    fn paragraph(&self, watch: text::Watch) -> String {
        let mut out = Vec::new();
        let style = text::Style::default();
        // Writing to memory does not fail.
        let _ = text::Incidents::default().paragraph(&self.incident, watch, style, &mut out);
        let Incident { id, node, severity, opened_at, resolved_at, .. } = &self.incident;
        let ended = resolved_at.as_ref().map(|at| format!(", resolved {at}")).unwrap_or_default();
        let text = String::from_utf8_lossy(&out).trim_matches('\n').to_owned();
        format!("{text}\n    Incident {id} on {node}: {}, opened {opened_at}{ended}\n", severity.name())
    }
}
