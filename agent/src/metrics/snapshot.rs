//! What the pipeline publishes about once a second, as plain data: a scrape never waits for the
//! pipeline, nor the pipeline for it.

use std::{collections::BTreeMap, time::Duration};

use ebpf_probes::abi::ProbeId;

use crate::{
    claims::Counted,
    fact::ReferenceKind,
    kernel::{
        counters::Counters,
        load::Loss,
        sweep::Seen,
        usage::{MapUsage, ProgramUsage},
    },
    known::bounded::Table,
};

/// Everything a session counts, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the programs counted.
    pub counters: Counters,
    /// What was pending at the last look.
    pub seen: Seen,
    /// The probes asked for, by name.
    pub asked: Vec<&'static str>,
    /// The probes that are attached, by name.
    pub attached: Vec<String>,
    /// The programs asked for, and whether they are attached.
    pub hooks: Vec<(&'static str, bool)>,
    /// Records received, by probe.
    pub received: BTreeMap<ProbeId, u64>,
    /// Records lost, by probe and reason.
    pub losses: Vec<Loss>,
    /// The agent's own bounded memory.
    pub tables: Vec<Table>,
    /// The wall clock.
    pub clock: Clock,
    /// Neighbours by family (IPv6 or not) and state, and whether they were looked at yet.
    pub neighbours: Option<BTreeMap<(bool, u32), u64>>,
    /// What was counted of claims of own addresses, where they are watched.
    pub claims: Option<Counted>,
    /// What became of questions for neighbours, by result, where they may be sent.
    pub questions: Option<[u64; 4]>,
    /// What programs ran while the kernel accounted for it.
    pub programs: Vec<ProgramUsage>,
    /// For how long it did because culprit asked it to; `None`: culprit never has.
    pub accounted: Option<Duration>,
    /// Looks at processes that did not end in time.
    pub looks_unfinished: u64,
    /// The kernel maps.
    pub maps: Vec<MapUsage>,
}

/// What became of the wall clock.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clock {
    /// Steps forward.
    pub forward: u64,
    /// Steps back.
    pub back: u64,
    /// The last of them.
    pub last: Option<Step>,
    /// How far it is ahead, by reference clock.
    pub offsets: BTreeMap<ReferenceKind, Offset>,
}

/// A step of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// By how much, nanoseconds.
    pub delta_ns: i64,
    /// When, by the wall clock after it, nanoseconds of Unix time.
    pub at_ns: i64,
}

/// How far the wall clock is ahead of a reference clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// Nanoseconds.
    pub ahead_ns: i64,
    /// How far that may be wrong, nanoseconds.
    pub error_ns: u64,
}
