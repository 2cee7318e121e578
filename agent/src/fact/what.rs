//! What can happen, one variant each. Durations are in milliseconds; what is absent is not known.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    ClockCall, DropSite, Endpoint, HostIcmp, LeapKind, NeighbourChanged, NeighbourClaimed,
    NeighbourConnectionReset, NeighbourMacMismatch, NeighbourPacketQueued, NeighbourRecovered,
    NeighbourRetransmit, NeighbourTableFull, Outcome, Protocol, ReferenceKind, Role, Session, Stage,
};
use crate::text::host::Invalid;

/// What happened; `kind` names it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A connect began (TCP), or a UDP socket got a peer.
    ConnectStarted {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
    },
    /// A SYN was retransmitted.
    SynRetransmitted {
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// How many retransmissions so far.
        syn_retransmits: u32,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// This host dropped a packet of a pending connect.
    ConnectDropped {
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// The kernel's reason, without its prefix.
        reason: String,
        /// Packets of this connect dropped here so far.
        drops: u32,
        /// Which packet it was and where.
        site: Option<DropSite>,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// A connect is still unanswered.
    ConnectPending {
        /// Where from; port 0 when none was chosen yet.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// SYNs retransmitted so far.
        syn_retransmits: u32,
        /// Packets of this connect dropped on this host so far.
        drops: u32,
        /// The ICMP error with which this host itself answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered_by_host: Option<HostIcmp>,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// A connect ended, or failed before it began.
    ConnectEnded {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where from; port 0 when none was chosen.
        source: Endpoint,
        /// Where to.
        destination: Endpoint,
        /// What became of it.
        outcome: Outcome,
        /// The error by name, e.g. `ECONNREFUSED`.
        errno: Option<String>,
        /// The ICMP error with which this host itself answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered_by_host: Option<HostIcmp>,
        /// An error that had come by ICMP and that the process did not read from the socket before it closed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        unread_errno: Option<String>,
        /// SYNs retransmitted.
        syn_retransmits: u32,
        /// Time from call to end.
        duration_ms: f64,
    },
    /// A ClientHello was sent, or received and read.
    ClientHello {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// Application protocols offered.
        alpn: Vec<String>,
        /// Some of them are no names that protocols have.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        alpn_invalid: bool,
        /// TLS versions offered, highest first.
        versions: Vec<String>,
        /// Length of the ClientHello's record in bytes.
        hello_bytes: u32,
        /// Server: how long it waited to be read; absent while no thread did.
        read_after_ms: Option<f64>,
        /// This is the second hello of a handshake, asked for by the server.
        retried: bool,
    },
    /// A ServerHello was sent or received.
    ServerHello {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// The version chosen.
        version: Option<String>,
        /// The cipher suite chosen.
        cipher: Option<String>,
        /// It asks for another ClientHello.
        retry_request: bool,
        /// Time since the ClientHello began.
        elapsed_ms: f64,
    },
    /// A client's thread read the server's flight.
    ServerFlightRead {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// How long it waited to be read.
        read_after_ms: f64,
    },
    /// The client's finishing flight was seen and the server still owes something.
    ClientFinished {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// The client sent a certificate flight (TLS 1.3).
        client_certificate: bool,
        /// Time since the ClientHello began.
        elapsed_ms: f64,
    },
    /// The handshake is done.
    HandshakeDone {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// The version chosen.
        version: Option<String>,
        /// Time since the ClientHello began.
        duration_ms: f64,
    },
    /// The handshake ended by an alert.
    Alert {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// Who sent it.
        sent_by: Role,
        /// `fatal` or `warning`; absent when it was encrypted.
        level: Option<String>,
        /// What it says, e.g. `certificate_expired`; absent when it was encrypted.
        description: Option<String>,
        /// Time since the ClientHello began.
        duration_ms: f64,
    },
    /// The socket closed before the handshake was done.
    HandshakeClosed {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// Who owed what.
        stage: Stage,
        /// Of a server that owed its ServerHello: whether the service speaks TLS (`true`: it has answered another
        /// ClientHello; `false`: it never has, and its program has loaded no TLS library); absent when not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        speaks_tls: Option<bool>,
        /// Time since the ClientHello began.
        duration_ms: f64,
    },
    /// The ClientHello was answered with something that is not TLS.
    NotTls {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// Of a server: whether the service speaks TLS all the same (it has answered another ClientHello); absent
        /// when not known, as of a peer.
        #[serde(skip_serializing_if = "Option::is_none")]
        speaks_tls: Option<bool>,
        /// Time since the ClientHello began.
        duration_ms: f64,
    },
    /// A handshake makes no progress.
    HandshakePending {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
        /// Who owes what.
        stage: Stage,
        /// Time without progress.
        stall_ms: f64,
        /// Time since the ClientHello began.
        elapsed_ms: f64,
    },
    /// A DNS query was sent.
    DnsQuery {
        /// UDP or TCP.
        protocol: Protocol,
        /// ProcessRef it asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for, e.g. `AAAA`.
        query_type: String,
    },
    /// A DNS answer arrived.
    DnsAnswer {
        /// UDP or TCP.
        protocol: Protocol,
        /// Who answered.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for.
        query_type: String,
        /// `NOERROR`, `NXDOMAIN`, …
        rcode: String,
        /// Addresses and names in the answer.
        answers: Vec<String>,
        /// The answer was cut; a resolver asks again over TCP.
        truncated: bool,
        /// Time since the query; absent when the query was not seen.
        latency_ms: Option<f64>,
    },
    /// A DNS query is unanswered.
    DnsPending {
        /// UDP or TCP.
        protocol: Protocol,
        /// ProcessRef it asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for.
        query_type: String,
        /// How often the same question was sent.
        queries: u32,
        /// Time since the first.
        elapsed_ms: f64,
    },
    /// A DNS query failed: the server's port is closed, or the server cannot be reached.
    DnsFailed {
        /// ProcessRef it asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// That it is none that a host may have.
        #[serde(skip_serializing_if = "Option::is_none")]
        name_invalid: Option<Invalid>,
        /// The record type asked for.
        query_type: String,
        /// The error by name.
        errno: String,
        /// The ICMP error with which this host itself answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        answered_by_host: Option<HostIcmp>,
        /// Time since the first query.
        elapsed_ms: f64,
    },
    /// What is known of a neighbour (ARP or NDP entry) changed.
    NeighbourChanged(NeighbourChanged),
    /// The neighbour table was full and an entry was not made.
    NeighbourTableFull(NeighbourTableFull),
    /// A SYN came from another MAC than the one cached for its source: replies go elsewhere.
    NeighbourMacMismatch(NeighbourMacMismatch),
    /// An ARP or NDP packet from another MAC than the cached one, which the kernel did not believe.
    NeighbourClaimed(NeighbourClaimed),
    /// A packet was retransmitted to a neighbour whose packets come from another MAC than the cached one.
    NeighbourRetransmit(NeighbourRetransmit),
    /// A neighbour whose packets come from another MAC than the cached one answered after retransmissions.
    NeighbourRecovered(NeighbourRecovered),
    /// The cached MAC reset a connection that another MAC goes on opening: two machines have the address.
    NeighbourConnectionReset(NeighbourConnectionReset),
    /// A packet is queued for a neighbour that does not answer: emitted once while it is.
    NeighbourPacketQueued(NeighbourPacketQueued),
    /// A call set the wall clock, or was refused.
    ClockSet {
        /// Which call.
        call: ClockCall,
        /// The wall clock before.
        before: String,
        /// The wall clock after.
        after: String,
        /// By how much it moved, nanoseconds.
        delta_ns: i64,
        /// The call was refused (EPERM); nothing moved.
        refused: bool,
    },
    /// A call changed the clock's pace, or the time zone.
    ClockSlewed {
        /// Which call.
        call: ClockCall,
        /// `timex.modes`: what was asked for.
        modes: u32,
        /// The offset to be slewed away, nanoseconds.
        offset_ns: Option<i64>,
        /// The frequency set, parts per million.
        frequency_ppm: Option<f64>,
        /// A leap second was armed for the end of the day.
        leap_second: Option<LeapKind>,
        /// Only the kernel's time zone was set.
        zone_only: bool,
        /// The call was refused (EPERM).
        refused: bool,
    },
    /// The wall clock moved and no call explains it: suspend, hypervisor, or a 32-bit process.
    ClockMoved {
        /// The wall clock before.
        before: String,
        /// The wall clock after.
        after: String,
        /// By how much it moved beyond what calls account for, nanoseconds.
        delta_ns: i64,
        /// The kernel said that the clock was set.
        was_set: bool,
        /// It happened within this long before `at`.
        within_ms: f64,
    },
    /// A leap second: the kernel moved the wall clock by a second at the end of the day, as had been armed. The
    /// process is the one that armed it.
    LeapSecond {
        /// One more, or one less.
        leap_second: LeapKind,
        /// The wall clock before.
        before: String,
        /// The wall clock after.
        after: String,
    },
    /// A reference clock disagrees with the wall clock, or says something else than it did.
    ClockCompared {
        /// What kind of clock.
        reference: ReferenceKind,
        /// Which.
        name: String,
        /// How far the wall clock is ahead of it, nanoseconds; negative is behind.
        ahead_ns: i64,
        /// How far that may be wrong, nanoseconds.
        error_ns: u64,
    },
    /// The machine was suspended: BOOTTIME moved against MONOTONIC.
    Suspended {
        /// For how long.
        suspended_ms: f64,
    },
}
