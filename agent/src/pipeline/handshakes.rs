//! What only incidents about handshakes have.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    domains::tls::{Role, Stage},
    fact::{Endpoint, Thread, is_false},
    text::host::Invalid,
};

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
    /// It was under way before culprit started: that what the peer sent is a ClientHello is concluded from the port.
    #[serde(skip_serializing_if = "is_false")]
    pub since_before_start: bool,
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

/// How handshakes fail, as far as it makes them one situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsFailure {
    /// The client refuses the server's certificate; where its alert is encrypted, the server's flight, whatever it is in
    /// it.
    ServerFlightRefused,
    /// The server refuses the client's certificate, or wants one; where its alert is encrypted, the client's flight.
    ClientFlightRefused,
    /// No version, cipher suite or extension that both accept.
    NothingShared,
    /// The server has no such name.
    NameUnrecognized,
    /// The server speaks none of the application protocols (ALPN) that the client offers.
    ProtocolUnrecognized,
    /// One side cannot make sense of a message, or has an error of its own.
    Broken,
    /// The server closes the connection in place of a ServerHello.
    ClosedUnanswered,
    /// The client closes the connection after the server's flight, without an alert.
    ClosedAfterServerFlight,
    /// The server closes the connection after the client's flight, without an alert.
    ClosedAfterClientFlight,
    /// The ClientHello is answered with something that is not TLS.
    NotTls,
}

/// Of `tls_failing`; ends and names of the handshake that failed last.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TlsFailingDetails {
    /// Which side this host is.
    pub role: Role,
    /// How they fail.
    pub failure: TlsFailure,
    /// Who ended them.
    pub ended_by: Role,
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// That it is none that a host may have; of one that is too long, `sni` has the first 253 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni_invalid: Option<Invalid>,
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// The highest TLS version its client offered; absent when its ClientHello is not known.
    pub offered_version: Option<String>,
    /// Failed handshakes since the incident began: by the alert's name as RFC 8446 has it, or `encrypted`, `closed`,
    /// `not_tls`.
    pub endings: BTreeMap<String, u64>,
    /// Addresses of the other end so far, those counted that found room: of a server its clients, of a client the
    /// servers behind one name.
    pub peers: u64,
    /// When there are several: those with most failures, ten at most.
    pub worst: Vec<FailingPeer>,
    /// Of a server: handshakes that its service completed meanwhile, as far as was counted.
    pub completed: u64,
}

/// One of several addresses with which handshakes fail.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FailingPeer {
    /// The address.
    pub ip: IpAddr,
    /// Failures.
    pub count: u64,
}
