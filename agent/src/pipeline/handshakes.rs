//! What only incidents about handshakes have.

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
