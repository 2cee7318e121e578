//! What a line says of a fact, before it is laid out: for text, coloured or not, on a terminal or elsewhere.

use std::{fmt::Write as _, net::SocketAddr};

use super::Endpoint;
use crate::text::host::host;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// Towards the peer, or from it; empty where there is no direction.
    pub arrow: &'static str,
    /// Whom it concerns.
    pub peer: String,
    /// What happened.
    pub text: String,
    /// How it is to be taken.
    pub tone: Tone,
}

/// How severe a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As always.
    Plain,
    /// It went well.
    Good,
    /// It takes long, or is odd.
    Slow,
    /// It failed.
    Bad,
}

impl Phrase {
    /// What was done towards a peer.
    pub fn out(to: &Endpoint, text: String, tone: Tone) -> Self {
        Self { arrow: "→", peer: peer(to), text, tone }
    }
}

/// A peer: address, port, the name it was looked up by, and where its packets go.
pub fn peer(endpoint: &Endpoint) -> String {
    let mut at = SocketAddr::new(endpoint.ip, endpoint.port).to_string();
    if let Some(name) = &endpoint.name {
        let _ = write!(at, " ({})", host(name));
    }
    if let Some(wire) = &endpoint.wire {
        let _ = write!(at, ", {wire}");
    }
    at
}

/// A destination as tables group by it: address, port and name.
pub fn named(endpoint: &Endpoint) -> String {
    let name = endpoint.name.as_ref().map(|name| format!(" ({})", host(name))).unwrap_or_default();
    format!("{}{name}", SocketAddr::new(endpoint.ip, endpoint.port))
}
