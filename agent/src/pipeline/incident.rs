//! Incidents: what culprit concludes, as others rely on it (`culprit.incident/v1`, which only grows).
//!
//! One incident is one situation: it opens as soon as the evidence suffices, is updated in place,
//! resolves, and repeats fold into it. Nothing here knows how an incident is found or shown.

use schemars::JsonSchema;
use serde::Serialize;

pub use super::clocks::{
    ClockReference, ClockSkewedDetails, ClockStep, ClockSteppedDetails, ClockVerdict, ExposedProcess,
    ExposedSession, Parent, StepCause,
};
pub use super::connects::{
    ConnectFailingDetails, ConnectStalledDetails, ConnectionStalledDetails, FailingDestination,
    ListenQueueFullDetails, ResponseOverdueDetails, StalledDestination,
};
pub use super::describe::DescribeDetails;
pub use super::handshakes::{FailingPeer, ObstacleDetails, TlsDetails, TlsFailingDetails, TlsFailure};
pub use super::kind::{Details, Kind};
pub use super::lookups::{DnsEdns, DnsOutcome, DnsQuestion, DnsReason, DnsUnansweredDetails, DnsUpstream};
pub use super::neighbours::{
    AddressClaimant, AddressConflictDetails, AddressListener, ClaimedMac, ConflictPattern,
    NeighbourConflictDetails, NeighbourPlace, NeighbourStaleDetails, NeighbourTableFullDetails,
    NeighbourUnresolvedDetails, NeighbourUser, NeighbourWaiter,
};
pub use super::remedy::{Part, Remedy};
pub use crate::severity::Severity;
use crate::{
    domains::connect::DropSite,
    fact::{Endpoint, Process},
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
    /// The peer that is waited for: of the connect, the DNS server, the client that is silent, or the neighbour (port
    /// 0).
    pub destination: Option<Endpoint>,
    /// What became of it: an outcome of a connect, or `pending`; for a lookup `pending`, `answered`, `failed` or
    /// `aborted`; for a neighbour `pending`, `failed`, or how it ended: `answered`, `set`, `removed`, `corrected`, `healed`,
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
    /// The process and thread that wait for it, when they are not the incident's own; of the clock, who set it; of a
    /// local service, a pipe or a file system, the process that does not answer.
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
    /// A process of this host that does not answer, or does not read, on its unix socket; or one that answers others and
    /// itself waits for something: its `process`, and as `destination` what that waits for.
    LocalService,
    /// A neighbour (ARP, NDP) that does not answer, or this host's entry for it.
    Neighbour,
    /// The clock.
    Clock,
    /// A peer that accepted the connection and does not answer, or a client that connected and sends nothing.
    Peer,
    /// The way to the peer: it does not pass large packets, or has forgotten the connection (NAT, firewall, load balancer).
    Path,
    /// A packet filter or another policy of this host drops its packets.
    Filter,
    /// No thread has read the ClientHello.
    Unread,
    /// A certificate: the one that is presented is refused, or none is presented where one is wanted.
    Certificate,
    /// What one side of a handshake offers and the other does not accept: versions, cipher suites, names, protocols, or
    /// that it speaks TLS at all.
    Parameters,
    /// No connect, lookup or request of the process delays it: the snapshot of its threads says what it did.
    #[default]
    NoneSeen,
    /// A file system that another machine or a process answers for (NFS, FUSE, SMB, CephFS, 9P), and does not.
    FileSystem,
    /// A pipe whose other end is not read from, or not written to.
    Pipe,
    /// A limit of the process is reached: of its descriptors (`RLIMIT_NOFILE`).
    ResourceLimit,
    /// Its control group is throttled: by its CPU quota, or above `memory.high`.
    Throttled,
    /// Its control group is frozen.
    Frozen,
    /// A listener's accept queue is at its limit; or it has stopped accepting while connections wait there, as one does
    /// at a limit on connections.
    ListenLimit,
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
