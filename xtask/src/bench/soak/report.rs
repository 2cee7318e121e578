//! What a soak measured, as plain data: what the measuring process hands over, what
//! `culprit-soak.json` holds, and what the tables are made from. Verdicts are derived in
//! [`super::verdict`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bench::report::Machine;

/// The format's name.
pub(crate) const SCHEMA: &str = "culprit.soak/v1";

/// Everything one soak measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Soak {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    pub(crate) machine: Machine,
    pub(crate) minutes: u32,
    pub(crate) loads: Vec<Load>,
    pub(crate) samples: Vec<Sample>,
    /// Those that were made, with what was kept of each.
    pub(crate) incidents: Vec<Made>,
    /// What else was kept: none was made on purpose.
    pub(crate) others: Vec<Other>,
    pub(crate) requests: Requests,
    /// Readers of the live stream.
    pub(crate) streams: Vec<Stream>,
}

/// What a load did in all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) done: u64,
    pub(crate) seconds: f64,
    /// Operations as slow as a lost SYN.
    pub(crate) stalls: u64,
}

/// The daemon at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Since the load began.
    pub(crate) at_s: f64,
    /// Resident (VmRSS).
    pub(crate) rss_kib: u64,
    /// Of it what no file stands behind (RssAnon).
    pub(crate) anon_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// Processor time since the daemon's start.
    pub(crate) cpu_s: f64,
    /// Records received, by probe.
    pub(crate) received: BTreeMap<String, u64>,
    /// Records lost, by probe.
    pub(crate) lost: BTreeMap<String, u64>,
    /// The database and what SQLite keeps beside it.
    pub(crate) store_bytes: u64,
    /// Length of what /metrics said last.
    pub(crate) metrics_bytes: u64,
}

/// An incident that was made, and what became of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Since the load began.
    pub(crate) at_s: f64,
    /// The port without a listener: each has its own.
    pub(crate) port: u16,
    pub(crate) lasted_ms: u64,
    /// How often the store has it.
    pub(crate) kept: u64,
    /// How many of those are resolved.
    pub(crate) resolved: u64,
}

/// Incidents that were not made on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Other {
    pub(crate) kind: String,
    /// In the soak's own network namespaces; the rest is this machine's business.
    pub(crate) ours: bool,
    pub(crate) count: u64,
}

/// Requests over HTTP.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// Why the first that failed did.
    pub(crate) why: Option<String>,
}

/// A reader of the live stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// Incidents it received: opened, changed, over.
    pub(crate) events: u64,
    /// Why it ended before its time.
    pub(crate) ended: Option<String>,
}
