//! How the daemon is: what `/healthz`, `/readyz` and `/api/v1/probes` say. The pipeline writes, requests read.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::Serialize;

/// A pipeline that has not come by for this long hangs.
const HANGS: Duration = Duration::from_secs(10);

/// The daemon.
pub struct Status {
    head: Head,
    state: Mutex<State>,
}

struct Head {
    node: String,
    version: String,
    kernel: String,
    started_at: String,
    probes: Vec<ProbeStatus>,
}

struct State {
    moved: Instant,
    /// Records received and lost, by probe.
    counts: BTreeMap<&'static str, (u64, u64)>,
}

/// A probe.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProbeStatus {
    /// Its name.
    pub name: &'static str,
    /// What it sees.
    pub about: &'static str,
    /// All it needs is attached.
    pub attached: bool,
    /// What it does without, and why.
    pub degraded: Vec<String>,
    /// Records that came from it.
    pub received: u64,
    /// Records of it that were lost.
    pub lost: u64,
    /// Its hooks.
    pub hooks: Vec<HookStatus>,
}

/// A hook of a probe.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HookStatus {
    /// Name of the program.
    pub program: &'static str,
    /// What it gives.
    pub gives: &'static str,
    /// It is attached.
    pub attached: bool,
    /// Why not.
    pub why: Option<String>,
}

/// All probes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Probes {
    /// The machine.
    pub(super) node: String,
    /// culprit's version.
    pub(super) version: String,
    /// The kernel's release.
    pub(super) kernel: String,
    /// When the daemon started, RFC 3339.
    pub(super) started_at: String,
    /// The probes.
    pub(super) probes: Vec<ProbeStatus>,
}

/// Whether all is attached.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// It is.
    pub(super) ready: bool,
    /// Why the pipeline does not move; null when it does.
    pub(super) pipeline: Option<String>,
    /// The probes.
    pub(super) probes: Vec<ReadyProbe>,
}

/// A probe, in short.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ReadyProbe {
    /// Its name.
    pub(super) probe: &'static str,
    /// All it needs is attached.
    pub(super) attached: bool,
    /// What it does without, and why.
    pub(super) why: Vec<String>,
}

impl Status {
    /// Of a daemon that has just begun.
    #[must_use]
    pub fn new(node: &str, version: &str, kernel: &str, probes: Vec<ProbeStatus>) -> Self {
        Self {
            head: Head {
                node: node.to_owned(),
                version: version.to_owned(),
                kernel: kernel.to_owned(),
                started_at: jiff::Timestamp::now().to_string(),
                probes,
            },
            state: Mutex::new(State { moved: Instant::now(), counts: BTreeMap::new() }),
        }
    }

    /// The pipeline has come by; records received and lost so far, by probe.
    pub fn moved(&self, counts: BTreeMap<&'static str, (u64, u64)>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { moved: Instant::now(), counts };
    }

    /// `Err`: why the pipeline is not well.
    ///
    /// # Errors
    /// When it has not come by for too long.
    pub fn health(&self) -> Result<(), String> {
        let stood = self.state.lock().unwrap_or_else(PoisonError::into_inner).moved.elapsed();
        if stood > HANGS {
            return Err(format!("the pipeline has not moved for {} s", stood.as_secs()));
        }
        Ok(())
    }

    pub(super) fn ready(&self) -> Ready {
        let probes: Vec<ReadyProbe> = (self.head.probes.iter())
            .map(|probe| ReadyProbe {
                probe: probe.name,
                attached: probe.attached,
                why: probe.degraded.clone(),
            })
            .collect();
        let pipeline = self.health().err();
        Ready { ready: pipeline.is_none() && probes.iter().all(|probe| probe.attached), pipeline, probes }
    }

    pub(super) fn probes(&self) -> Probes {
        let counts = self.state.lock().unwrap_or_else(PoisonError::into_inner).counts.clone();
        let probes = (self.head.probes.iter().cloned())
            .map(|mut probe| {
                (probe.received, probe.lost) = counts.get(probe.name).copied().unwrap_or_default();
                probe
            })
            .collect();
        Probes {
            node: self.head.node.clone(),
            version: self.head.version.clone(),
            kernel: self.head.kernel.clone(),
            started_at: self.head.started_at.clone(),
            probes,
        }
    }
}
