//! Words for handshakes.

use schemars::JsonSchema;
use serde::Serialize;

use super::Endpoint;
use crate::text::host::Invalid;

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
}
