//! The two ends of what a fact is about, whatever it says of them.

use super::{Endpoint, Session, What};

impl What {
    /// The handshake it is about.
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::ClientHello { session, .. }
            | Self::ServerHello { session, .. }
            | Self::ServerFlightRead { session, .. }
            | Self::ClientFinished { session, .. }
            | Self::HandshakeDone { session, .. }
            | Self::Alert { session, .. }
            | Self::HandshakeClosed { session, .. }
            | Self::NotTls { session, .. }
            | Self::HandshakePending { session, .. } => Some(session),
            _ => None,
        }
    }

    /// Where a connect goes.
    pub fn connects_to(&self) -> Option<&Endpoint> {
        match self {
            Self::ConnectStarted { destination, .. }
            | Self::SynRetransmitted { destination, .. }
            | Self::ConnectDropped { destination, .. }
            | Self::ConnectPending { destination, .. }
            | Self::ConnectEnded { destination, .. } => Some(destination),
            _ => None,
        }
    }

    /// The server that a lookup asks.
    pub fn asks(&self) -> Option<&Endpoint> {
        match self {
            Self::DnsQuery { server, .. }
            | Self::DnsAnswer { server, .. }
            | Self::DnsPending { server, .. }
            | Self::DnsFailed { server, .. } => Some(server),
            _ => None,
        }
    }

    /// This host's end of a connection; nothing before it has a port.
    pub fn local(&self) -> Option<&Endpoint> {
        let local = match self {
            Self::ConnectStarted { source, .. }
            | Self::SynRetransmitted { source, .. }
            | Self::ConnectDropped { source, .. }
            | Self::ConnectPending { source, .. }
            | Self::ConnectEnded { source, .. } => source,
            other => &other.session()?.local,
        };
        (local.port != 0).then_some(local)
    }
}
