//! Where facts and incidents go. Lines and tables are written by what shows them; what a daemon does with
//! incidents goes through the [`SINKS`], each behind a bounded queue of its own, so that none can hold up
//! another, or the pipeline.
//!
//! ```text
//! engine ──▶ queue ──▶ store ──▶ stream (HTTP) · queue ──▶ stdout · deliveries on disk ──▶ webhook
//! ```
//! An incident is on disk before anyone is notified of it: what was said once is there after a crash.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    config,
    domains::Fact,
    fact::{Start, Summary},
    known::context::Context,
    pipeline::incident::Incident,
    pipeline::world::World,
};

pub mod http;
pub mod json;
pub mod printer;
pub mod queue;
pub mod recorder;
pub mod store;
pub mod stream;
pub mod summary;
pub mod text;
pub mod top;
#[cfg(test)]
mod untrusted_names;
pub mod webhook;
mod why;

/// Where a session's facts and incidents go. Every output of a session gets the same, in the same order; it takes what
/// it is for. A call that fails ends the session when the batch it belongs to has been taken.
pub trait Output {
    /// Everything is attached: the first line.
    ///
    /// # Errors
    /// It cannot be written.
    fn start(&mut self, _start: &Start) -> anyhow::Result<()> {
        Ok(())
    }

    /// A record as the kernel made it, before its facts.
    ///
    /// # Errors
    /// It cannot be written.
    fn record(&mut self, _record: &[u8]) -> anyhow::Result<()> {
        Ok(())
    }

    /// Something that was found out about the system, before the record that it explains.
    ///
    /// # Errors
    /// It cannot be written.
    fn context(&mut self, _context: &Context) -> anyhow::Result<()> {
        Ok(())
    }

    /// One fact.
    ///
    /// # Errors
    /// It cannot be written.
    fn fact(&mut self, _fact: &Fact) -> anyhow::Result<()> {
        Ok(())
    }

    /// Incidents that opened, changed or resolved, in order.
    ///
    /// # Errors
    /// They cannot be written.
    fn incidents(&mut self, incidents: &[Incident]) -> anyhow::Result<()>;

    /// The end of a batch: what is buffered is handed on.
    ///
    /// # Errors
    /// It cannot be written.
    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Four times a second: what is known now, CLOCK_BOOTTIME in nanoseconds. Never waits.
    fn show(&mut self, _world: &World, _now_ns: u64) {}

    /// Once a second.
    ///
    /// # Errors
    /// What was collected cannot be saved.
    fn every_second(&mut self, _so_far: &SoFar) -> anyhow::Result<()> {
        Ok(())
    }

    /// SIGHUP was received.
    fn hangup(&mut self) -> Hangup {
        Hangup::Ends
    }

    /// It wants no more: its reader has gone away, or a person quit.
    fn done(&self) -> bool {
        false
    }

    /// It takes all facts of a record or none, whatever limit of events a session has.
    fn takes_whole_steps(&self) -> bool {
        false
    }

    /// The last line; what waits is dealt with.
    ///
    /// # Errors
    /// It cannot be written.
    fn finish(&mut self, _summary: &Summary) -> anyhow::Result<()> {
        Ok(())
    }
}

/// How far a session has come.
#[derive(Debug, Clone, Copy)]
pub struct SoFar {
    /// Since it began.
    pub elapsed: Duration,
    /// Facts emitted.
    pub events: u64,
    /// Incidents opened.
    pub incidents: u64,
}

/// What SIGHUP means to an output.
#[derive(Debug)]
pub enum Hangup {
    /// The terminal is gone: the session ends.
    Ends,
    /// The session goes on as it is.
    Stays,
    /// The configuration was read again: the session takes from it what can change.
    Changes(Box<config::Session>),
}

/// A kind of output, and how it is opened.
pub struct Kind {
    /// Opens it where the configuration asks for it: before anything is attached, so that what is wrong with it is
    /// said first.
    pub open: fn(&config::Outputs) -> anyhow::Result<Option<Opened>>,
}

/// An output that waits for what is attached.
pub type Opened = Box<dyn FnOnce(&Start) -> anyhow::Result<Box<dyn Output>>>;

/// Every kind of output a session may have, in the order in which they are given what happens. What the daemon does
/// with incidents beside that goes through its [`SINKS`].
pub const OUTPUTS: &[Kind] = &[printer::KIND, recorder::KIND, top::KIND, why::KIND];

/// Opens what the configuration asks for.
///
/// # Errors
/// One of them cannot be opened.
pub fn open(config: &config::Outputs) -> anyhow::Result<Vec<Opened>> {
    OUTPUTS.iter().filter_map(|kind| (kind.open)(config).transpose()).collect()
}

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

/// An incident as it was reported, in every form a sink may want; each is made once.
#[derive(Debug)]
pub struct Rendered {
    /// The incident.
    pub incident: Incident,
    json: OnceLock<String>,
    text: OnceLock<String>,
}

impl Rendered {
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
