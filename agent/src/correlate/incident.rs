//! Incidents: what culprit concludes, as others rely on it (`culprit.incident/v1`, which only grows).
//!
//! One incident is one situation: it opens as soon as the evidence suffices, is updated in place,
//! resolves, and repeats fold into it. Nothing here knows how an incident is found or shown.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

pub use super::clocks::{
    ClockReference, ClockSkewedDetails, ClockStep, ClockSteppedDetails, ClockVerdict, ExposedProcess,
    ExposedSession, Parent, StepCause,
};
pub use super::neighbours::{
    ClaimedMac, ConflictPattern, NeighbourConflictDetails, NeighbourPlace, NeighbourStaleDetails,
    NeighbourTableFullDetails, NeighbourUnresolvedDetails, NeighbourUser, NeighbourWaiter,
};
pub use super::remedy::{Part, Remedy};
pub use crate::severity::Severity;
use crate::{
    domains::{
        connect::{DropSite, Outcome},
        tls::{Role, Stage},
    },
    fact::{Endpoint, HostIcmp, Process, Thread},
    text::host::Invalid,
};

/// Version of an incident's shape. Within v1 it only ever grows.
pub const SCHEMA: &str = "culprit.incident/v1";

/// One situation, as it is known at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Incident {
    /// `culprit.incident/v1`.
    pub schema: &'static str,
    /// A ULID made from event time: a replay gives the same one. Stays the same while the incident lives.
    pub id: String,
    /// What kind of situation.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// How severe it is.
    pub severity: Severity,
    /// When its first sign was seen, RFC 3339, UTC.
    pub began_at: String,
    /// When the evidence sufficed, RFC 3339, UTC.
    pub opened_at: String,
    /// When the situation ended; absent while it goes on.
    pub resolved_at: Option<String>,
    /// How long the situation has lasted, from its first sign (before `opened_at`) until now or its end.
    pub duration_ms: u64,
    /// How often it happened: handshakes, connects or failures folded into this incident.
    pub count: u64,
    /// The machine.
    pub node: String,
    /// The process that suffers, with the thread concerned; absent when none is known.
    pub process: Option<Process>,
    /// One sentence that names the culprit.
    pub summary: String,
    /// Two or three sentences of why.
    pub why: Vec<String>,
    /// What is to blame, and how sure that is.
    pub cause: Option<Cause>,
    /// Ids of incidents that explain this one.
    pub caused_by: Vec<String>,
    /// What to do, with real values filled in.
    pub remedies: Vec<Remedy>,
    /// What it was concluded from, in order of time.
    pub evidence: Vec<Evidence>,
    /// More, by kind.
    pub details: Details,
}

/// Kinds of situations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A TLS handshake makes no progress and this host owes the next message.
    TlsHandshakeStalled,
    /// A TCP connect is unanswered.
    ConnectStalled,
    /// The same process fails to connect to the same destination again and again.
    ConnectFailing,
    /// Traffic waits for a neighbour (ARP, NDP) that does not answer.
    NeighbourUnresolved,
    /// Replies go to a MAC that is not the one the neighbour's packets come from, and it does not receive them.
    NeighbourStale,
    /// Two machines claim one address.
    NeighbourConflict,
    /// There is no room for another neighbour.
    NeighbourTableFull,
    /// The wall clock was set, or jumped.
    ClockStepped,
    /// The wall clock is wrong, and no step is known that made it so.
    ClockSkewed,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: &'static [Self] = &[
        Self::TlsHandshakeStalled,
        Self::ConnectStalled,
        Self::ConnectFailing,
        Self::NeighbourUnresolved,
        Self::NeighbourStale,
        Self::NeighbourConflict,
        Self::NeighbourTableFull,
        Self::ClockStepped,
        Self::ClockSkewed,
    ];

    /// As JSON, metrics and `culprit list rules` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsHandshakeStalled => "tls_handshake_stalled",
            Self::ConnectStalled => "connect_stalled",
            Self::ConnectFailing => "connect_failing",
            Self::NeighbourUnresolved => "neighbour_unresolved",
            Self::NeighbourStale => "neighbour_stale",
            Self::NeighbourConflict => "neighbour_conflict",
            Self::NeighbourTableFull => "neighbour_table_full",
            Self::ClockStepped => "clock_stepped",
            Self::ClockSkewed => "clock_skewed",
        }
    }
}

/// Where an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is emitted for the first time, or has begun again.
    Open,
    /// It goes on, and something about it has changed.
    Updated,
    /// It is over.
    Resolved,
}

/// What is to blame.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Cause {
    /// What kind of thing.
    pub kind: CauseKind,
    /// How sure that is.
    pub confidence: Confidence,
    /// The peer that is waited for: of the connect, the DNS server, or the neighbour (port 0).
    pub destination: Option<Endpoint>,
    /// What became of it: an outcome of a connect, or `pending`; for a lookup `pending`, `answered` or `failed`; for a
    /// neighbour `pending`, `failed`, or how it ended: `answered`, `set`, `removed`, `corrected`, `healed`,
    /// `same_neighbour`, `conflict` or `idle` (no traffic any more).
    pub outcome: Option<String>,
    /// SYNs the connect retransmitted.
    pub syn_retransmits: Option<u32>,
    /// Packets of the connect that this host itself dropped.
    pub dropped_by_host: Option<u32>,
    /// Why this host dropped the last of them, in the kernel's words without prefix.
    pub drop_reason: Option<String>,
    /// Which packet that was, and where it was dropped; absent when it was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<DropSite>,
    /// The name that was looked up, for a lookup.
    pub query: Option<String>,
    /// How long it has lasted.
    pub elapsed_ms: Option<u64>,
    /// The process and thread that wait for it, when they are not the incident's own; of the clock, who set it.
    pub process: Option<Process>,
}

/// Kinds of causes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// A connect to somewhere else.
    OutboundConnect,
    /// A DNS lookup.
    DnsLookup,
    /// A neighbour (ARP, NDP) that does not answer, or this host's entry for it.
    Neighbour,
    /// The clock.
    Clock,
    /// A peer that accepted the connection and does not answer.
    Peer,
    /// No thread has read the ClientHello.
    Unread,
    /// No connect, lookup or request of the process delays it: the snapshot of its threads says what it did.
    #[default]
    NoneSeen,
}

/// How sure a blame is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// It fits, and so may other things.
    #[default]
    Possible,
    /// The same process, begun after the ClientHello was read, pending through most of the stall.
    Likely,
    /// The same thread waits for it, or the handshake moved within 100 ms of its end.
    Certain,
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Evidence {
    /// When, in milliseconds from `opened_at`; negative before it.
    pub offset_ms: i64,
    /// What was seen.
    pub text: String,
}

/// What only one kind of incident has.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Details {
    /// Of `tls_handshake_stalled`.
    TlsHandshakeStalled(TlsDetails),
    /// Of `connect_stalled`.
    ConnectStalled(ConnectStalledDetails),
    /// Of `connect_failing`.
    ConnectFailing(ConnectFailingDetails),
    /// Of `neighbour_unresolved`.
    NeighbourUnresolved(NeighbourUnresolvedDetails),
    /// Of `neighbour_stale`.
    NeighbourStale(NeighbourStaleDetails),
    /// Of `neighbour_conflict`.
    NeighbourConflict(NeighbourConflictDetails),
    /// Of `neighbour_table_full`.
    NeighbourTableFull(NeighbourTableFullDetails),
    /// Of `clock_stepped`.
    ClockStepped(ClockSteppedDetails),
    /// Of `clock_skewed`.
    ClockSkewed(ClockSkewedDetails),
}

/// Of `tls_handshake_stalled`; of the handshake that waits longest.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TlsDetails {
    /// Which side this host is.
    pub role: Role,
    /// Who owes what.
    pub stage: Stage,
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// That it is none that a host may have; of one that is too long, `sni` has the first 253 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni_invalid: Option<Invalid>,
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Time without progress.
    pub stall_ms: u64,
    /// How long the peer's last message waited to be read; absent while none has.
    pub read_after_ms: Option<u64>,
    /// Handshakes of this incident that wait now.
    pub waiting: u64,
    /// Those of them whose ClientHello no thread has read.
    pub unread: u64,
    /// The process's threads at the moment of the stall, taken once; the one concerned first.
    pub threads: Vec<Thread>,
    /// Threads left out of `threads`.
    pub threads_left_out: u32,
}

/// Of `connect_stalled`; of the connect that waits longest.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ConnectStalledDetails {
    /// Where to.
    pub destination: Endpoint,
    /// How long it has been pending.
    pub pending_ms: u64,
    /// Connects of this incident that wait now.
    pub waiting: u64,
    /// SYNs retransmitted.
    pub syn_retransmits: u32,
    /// Packets this host itself dropped.
    pub dropped_by_host: u32,
    /// Why it dropped the last of them.
    pub drop_reason: Option<String>,
    /// Destinations of this incident.
    pub destinations: u64,
    /// When there are several: those with most connects waiting, ten at most.
    pub worst: Vec<StalledDestination>,
    /// Peers whose certificates are being validated with what is fetched: they wait as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validates: Vec<Endpoint>,
}

/// One of several destinations whose connects are unanswered.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StalledDestination {
    /// Where to.
    pub destination: Endpoint,
    /// Connects that wait now.
    pub waiting: u64,
    /// Connects so far.
    pub count: u64,
    /// How long the oldest has been pending, or was.
    pub pending_ms: u64,
}

/// Of `connect_failing`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ConnectFailingDetails {
    /// Where to.
    pub destination: Endpoint,
    /// Failures by outcome since the incident began.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// The last error by name.
    pub errno: Option<String>,
    /// The ICMP error with which this host itself answered the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by_host: Option<HostIcmp>,
    /// How long the last attempt took.
    pub last_attempt_ms: u64,
    /// Destinations of this incident.
    pub destinations: u64,
    /// When there are several: those with most failures, ten at most.
    pub worst: Vec<FailingDestination>,
}

/// One of several destinations to which connects fail.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FailingDestination {
    /// Where to.
    pub destination: Endpoint,
    /// Failures.
    pub count: u64,
}
