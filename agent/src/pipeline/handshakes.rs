//! What only incidents about handshakes have.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    domains::tls::{Role, Stage},
    fact::{Endpoint, Thread, is_false},
    known::context::FakedTime,
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
    /// Of a client whose ClientHello is not answered: whether the peer has acknowledged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hello_acknowledged: Option<bool>,
    /// The process's threads at the moment of the stall, taken once; the one concerned first.
    pub threads: Vec<Thread>,
    /// Threads left out of `threads`.
    pub threads_left_out: u32,
    /// More about a cause on this machine: of `file_system`, `pipe`, `local_service`, `resource_limit`, `throttled` and
    /// `listen_limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Box<ObstacleDetails>>,
}

/// What is in the way of a handshake on this machine; only what belongs to its cause is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct ObstacleDetails {
    /// The thread that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// The unix socket it waits on (`@name` in the abstract namespace), or the file or directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// It sends or writes, and what takes that is full; false: it waits for what is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sends: Option<bool>,
    /// Where the file system is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// Its type, as `/proc/PID/mountinfo` has it: `nfs4`, `fuse.sshfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<String>,
    /// What is mounted there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The state of the process that does not answer, as `/proc/PID/stat` writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_state: Option<String>,
    /// Descriptors that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors: Option<u64>,
    /// How many may be (`RLIMIT_NOFILE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descriptors_limit: Option<u64>,
    /// Connections that wait in the accept queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_queue: Option<u32>,
    /// How many may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_queue_limit: Option<u32>,
    /// The control group, as a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// CPU time it may use in each period, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota_us: Option<u64>,
    /// Length of a period, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period_us: Option<u64>,
    /// Periods in which something ran: during `observed_ms`, or without that since the group was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_periods: Option<u64>,
    /// Those of them in which the quota was used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_throttled_periods: Option<u64>,
    /// Time between the two looks that were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_ms: Option<u64>,
    /// Memory in use, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// `memory.high`: above it threads are slowed, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_high_bytes: Option<u64>,
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
    /// The other time that the process lives in which judges the certificate, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faked_time: Option<FakedTime>,
}

/// One of several addresses with which handshakes fail.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FailingPeer {
    /// The address.
    pub ip: IpAddr,
    /// Failures.
    pub count: u64,
}
