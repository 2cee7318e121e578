//! What happens to TLS handshakes, as facts.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    fact::{Endpoint, is_false},
    text::host::Invalid,
};

/// Which side of a handshake this host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It sent the ClientHello.
    Client,
    /// It received the ClientHello.
    Server,
}

/// Who owes what in a handshake that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The ClientHello has not arrived (or left) whole.
    ClientHelloIncomplete,
    /// No thread has read the ClientHello.
    ClientHelloUnread,
    /// The server owes its hello.
    AwaitingServerHello,
    /// The client owes its finishing flight.
    AwaitingClientFinish,
    /// The server owes its last message.
    AwaitingServerFinish,
}

/// What a handshake is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Session {
    /// Which side this host is.
    pub role: Role,
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// That it is none that a host may have; of one that is too long, `sni` has the first 253 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni_invalid: Option<Invalid>,
    /// It was under way before culprit started: that what the peer sent is a ClientHello is concluded from the port.
    #[serde(skip_serializing_if = "is_false")]
    pub since_before_start: bool,
}

/// What happened; `kind` names it. Durations are in milliseconds; what is absent is not known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "TlsFact")]
pub enum What {
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
        /// Who closed or reset the connection first; absent when that is not known, or the network did.
        #[serde(skip_serializing_if = "Option::is_none")]
        closed_by: Option<Role>,
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
}
