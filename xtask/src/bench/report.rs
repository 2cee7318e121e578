//! What was measured, as plain data: what the measuring process hands over, what
//! `culprit-bench.json` holds, and what the tables are made from. Samples only; medians, ratios and
//! verdicts are derived in [`super::budget`].

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The format's name.
pub(crate) const SCHEMA: &str = "culprit.bench/v1";

/// What is attached while a load runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    /// Nothing.
    Bare,
    /// Nothing, once more: what this machine's own noise looks like.
    BareAgain,
    /// Programs that do nothing wherever `culprit run` has its own: no program there can cost less.
    Hooks,
    /// `culprit run`, the daemon.
    Run,
    /// `culprit trace`, everything to a file.
    Trace,
    /// `strace -f -e trace=network` of server and client.
    Strace,
}

impl Condition {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 6] =
        [Self::Bare, Self::BareAgain, Self::Hooks, Self::Run, Self::Trace, Self::Strace];
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::BareAgain => "bare again",
            Self::Hooks => "empty hooks",
            Self::Run => "run",
            Self::Trace => "trace",
            Self::Strace => "strace",
        })
    }
}

/// A load whose rate is compared between conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// TCP connect and close by reset, one thread a side.
    Connects,
    /// Full TLS 1.3 handshakes, all processors busy.
    Handshakes,
    /// One TCP connection, large writes.
    Bulk,
}

impl Workload {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 3] = [Self::Connects, Self::Handshakes, Self::Bulk];
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connects => "connects",
            Self::Handshakes => "handshakes",
            Self::Bulk => "bulk",
        })
    }
}

/// Everything one run of the benchmark measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`SCHEMA`].
    pub(crate) schema: String,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    /// What a reader should know before believing the rest.
    pub(crate) notes: Vec<String>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) packets: Vec<Packets>,
    pub(crate) starts: Vec<Start>,
    pub(crate) sustained: Vec<Sustained>,
    pub(crate) replays: Vec<Replay>,
    pub(crate) crowds: Vec<Crowd>,
}

/// Where it was measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// RFC 3339.
    pub(crate) date: String,
    /// The commit, with `+changes` when the tree was not clean.
    pub(crate) commit: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_mib, kernel, date, commit } = self;
        let day = date.split('T').next().unwrap_or_default();
        write!(f, "{cpu}, {cores} processors, {memory_mib} MiB; Linux {kernel}; culprit {commit}, {day}")
    }
}

/// How it was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    /// Of one slice.
    pub(crate) seconds: f64,
    /// A smoke run: too short to conclude from.
    pub(crate) quick: bool,
    /// Something was left out on purpose.
    pub(crate) partial: bool,
    /// Rounds of a load that were measured again because others had disturbed them.
    pub(crate) repeated: u32,
}

/// One load under one condition, for some seconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) workload: Workload,
    pub(crate) condition: Condition,
    pub(crate) round: u32,
    /// Operations done: connects, handshakes; for bulk, bytes.
    pub(crate) done: u64,
    pub(crate) seconds: f64,
    /// Operations that took longer than a lost SYN's repeat: the load stood still there.
    pub(crate) stalls: u64,
    /// Processor time, as a share of one processor: the load's server, its client, culprit or
    /// strace, and everybody else on the machine.
    pub(crate) cpu: Cpu,
    /// culprit's own account, when it was attached.
    pub(crate) culprit: Option<Culprit>,
    /// Programs in the kernel that look like another culprit's.
    pub(crate) strangers: usize,
}

/// As much of a processor used by others makes a slice no measurement of what it is called.
pub(crate) const DISTURBING: f64 = 0.15;

impl Slice {
    /// How much of a processor others used; another culprit attached to everything counts as one.
    pub(crate) fn disturbance(&self) -> f64 {
        self.cpu.others + self.strangers as f64
    }

    /// Operations (for bulk: bytes) a second.
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.seconds
    }
}

/// Processor time, as shares of one processor.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) client: f64,
    pub(crate) watcher: f64,
    /// Everybody else's, and what the hypervisor took.
    pub(crate) others: f64,
}

/// What a culprit said of itself, and the kernel of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Culprit {
    /// From the start of the process to its start line.
    pub(crate) start_ms: f64,
    /// Of its summary.
    pub(crate) events: u64,
    /// Of its summary.
    pub(crate) lost: u64,
    /// Records its programs put on the ring, from their own counters.
    pub(crate) emitted: Option<u64>,
    /// Resident, at the end.
    pub(crate) rss_kib: u64,
    /// Resident, at most.
    pub(crate) peak_kib: u64,
    /// What its maps take in the kernel.
    pub(crate) maps_kib: u64,
    /// Its programs, in a slice of their own right after the measured one: the accounting costs.
    pub(crate) programs: Vec<Program>,
    /// Operations (for bulk: bytes) done in that slice.
    pub(crate) counted: u64,
    /// Operations done all the while it was attached.
    pub(crate) attached: u64,
}

/// Run-time statistics of one program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) runs: u64,
    pub(crate) mean_ns: f64,
}

/// What packets cost that are none of culprit's business.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Packets {
    pub(crate) condition: Condition,
    pub(crate) traffic: Traffic,
    pub(crate) round: u32,
    pub(crate) directions: Vec<Direction>,
}

/// Traffic culprit has no interest in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Traffic {
    /// Small datagrams to and fro.
    Udp,
    /// Small segments to and fro, on one connection.
    Tcp,
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// One direction of [`Packets`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Direction {
    /// culprit's program.
    pub(crate) program: Program,
    /// The empty program attached before it.
    pub(crate) empty_before: Program,
    /// The empty program attached after it.
    pub(crate) empty_after: Program,
}

impl Direction {
    /// Mean run time above that of an empty program, in nanoseconds.
    pub(crate) fn above_empty(&self) -> f64 {
        self.program.mean_ns - f64::midpoint(self.empty_before.mean_ns, self.empty_after.mean_ns)
    }
}

/// A start of culprit while connects go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) condition: Condition,
    pub(crate) start_line_ms: f64,
    pub(crate) first_event_ms: f64,
}

/// A steady stream of events into `trace`, which has one processor to itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sustained {
    /// What the load was asked for, events a second.
    pub(crate) asked: f64,
    /// What it reached.
    pub(crate) reached: f64,
    pub(crate) events: u64,
    pub(crate) lost: u64,
    /// Share of one processor that culprit took.
    pub(crate) cpu: f64,
}

impl Sustained {
    /// The load came as near as counts to what it was asked for, and nothing was lost.
    pub(crate) fn holds(&self) -> bool {
        self.lost == 0 && self.reached >= 0.98 * self.asked
    }
}

/// A replay of a recording.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Replay {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    pub(crate) recording_bytes: u64,
}

/// Many connections open at once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Crowd {
    pub(crate) condition: Condition,
    /// Connections made while culprit was attached, and still open.
    pub(crate) connections: u64,
    pub(crate) rss_kib: u64,
    pub(crate) peak_kib: u64,
    pub(crate) maps_kib: u64,
    /// How long culprit took to start before they were there, and among them.
    pub(crate) start_ms: f64,
    pub(crate) late_start_ms: f64,
}
