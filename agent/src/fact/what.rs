//! What can happen, one variant each. Durations are in milliseconds; what is absent is not known.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::{ClockCall, Endpoint, NeighbourCause, Outcome, Protocol, Role, Session, Stage};

/// What happened; `kind` names it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A connect began (TCP), or a UDP socket got a peer.
    ConnectStarted {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where to.
        destination: Endpoint,
    },
    /// A SYN was sent again.
    SynRetried {
        /// Where to.
        destination: Endpoint,
        /// How many retries so far.
        syn_retransmits: u32,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// This host dropped a packet of a pending connect.
    ConnectDropped {
        /// Where to.
        destination: Endpoint,
        /// The kernel's reason, without its prefix.
        reason: String,
        /// Packets of this connect dropped here so far.
        drops: u32,
        /// Time since the connect began.
        elapsed_ms: f64,
    },
    /// A connect is still unanswered.
    ConnectPending {
        /// Where to.
        destination: Endpoint,
        /// SYN retries so far.
        syn_retransmits: u32,
        /// Packets of this connect dropped on this host so far.
        drops: u32,
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
        /// SYN retries.
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
        /// Time since the ClientHello began.
        duration_ms: f64,
    },
    /// The ClientHello was answered with something that is not TLS.
    NotTls {
        /// The handshake.
        #[serde(flatten)]
        session: Session,
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
        /// Whom it asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
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
        /// Whom it asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// The record type asked for.
        query_type: String,
        /// How often the same question was sent.
        queries: u32,
        /// Time since the first.
        elapsed_ms: f64,
    },
    /// A DNS query failed: the server's port is closed, or the server cannot be reached.
    DnsFailed {
        /// Whom it asked.
        server: Endpoint,
        /// The name asked for.
        name: String,
        /// The record type asked for.
        query_type: String,
        /// The error by name.
        errno: String,
        /// Time since the first query.
        elapsed_ms: f64,
    },
    /// A neighbour (ARP or NDP entry) changed.
    NeighbourChanged {
        /// Its address.
        address: IpAddr,
        /// The device it is behind.
        device: String,
        /// The device's network namespace; absent for the host's own.
        netns: Option<String>,
        /// What made it change; `process` says who, when a process did.
        cause: NeighbourCause,
        /// State before, as `ip neigh` writes it; absent when it was not known.
        old_state: Option<String>,
        /// State now. NONE: removed.
        new_state: String,
        /// Cached MAC before.
        old_mac: Option<String>,
        /// Cached MAC now.
        new_mac: Option<String>,
        /// Nobody answered: what waited for it was told EHOSTUNREACH.
        failed: bool,
        /// Probes sent in this state.
        probes: u32,
        /// How long it was in the old state.
        old_state_ms: Option<f64>,
    },
    /// The neighbour table was full and an entry was not made.
    NeighbourTableFull {
        /// `ipv4` or `ipv6`.
        family: String,
        /// The address there was no room for.
        address: IpAddr,
        /// The device.
        device: String,
        /// The device's network namespace; absent for the host's own.
        netns: Option<String>,
        /// Entries in the table, all namespaces together.
        entries: u32,
        /// Those of them that count against the bound.
        gc_entries: u32,
        /// The bound: `net.ipv4.neigh.default.gc_thresh3`, or ipv6.
        gc_thresh3: u32,
        /// How often since it was last told.
        count: u32,
    },
    /// A SYN came from another MAC than the one cached for its source: replies go elsewhere.
    NeighbourMacMismatch {
        /// The peer.
        address: IpAddr,
        /// The device, when its name is known.
        device: Option<String>,
        /// The device's network namespace; absent for the host's own.
        netns: Option<String>,
        /// Where replies go.
        cached_mac: String,
        /// Where the SYN came from.
        seen_mac: String,
        /// State of the entry.
        state: String,
        /// How long the MAC has been cached.
        cached_for_ms: Option<f64>,
        /// The port the SYN was for.
        local_port: u16,
        /// SYNs from another MAC since it was last told.
        syns: u32,
    },
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
    /// The machine slept: BOOTTIME moved against MONOTONIC.
    MachineSlept {
        /// For how long.
        slept_ms: f64,
    },
}
