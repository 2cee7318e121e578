//! What facts about handshakes can be asked.

use std::net::IpAddr;

use super::{Role, Session, What, text};
use crate::{
    domains::{Describe, Failure, Operation, SLOW_MS, Step, Weight},
    fact::{Endpoint, Phrase, named, peer},
};

impl What {
    /// The handshake it is about.
    pub fn session(&self) -> &Session {
        match self {
            Self::ClientHello { session, .. }
            | Self::ServerHello { session, .. }
            | Self::ServerFlightRead { session, .. }
            | Self::ClientFinished { session, .. }
            | Self::HandshakeDone { session, .. }
            | Self::Alert { session, .. }
            | Self::HandshakeClosed { session, .. }
            | Self::NotTls { session, .. }
            | Self::HandshakePending { session, .. } => session,
        }
    }
}

impl Describe for What {
    fn weight(&self) -> Weight {
        match self {
            Self::ClientHello { .. }
            | Self::ServerHello { .. }
            | Self::ServerFlightRead { .. }
            | Self::ClientFinished { .. } => Weight::of(false),
            Self::HandshakeDone { duration_ms, .. } => {
                Weight { bad: *duration_ms >= SLOW_MS, ms: Some(*duration_ms) }
            }
            Self::Alert { duration_ms, .. }
            | Self::HandshakeClosed { duration_ms, .. }
            | Self::NotTls { duration_ms, .. } => Weight::bad(*duration_ms),
            Self::HandshakePending { elapsed_ms, .. } => Weight::bad(*elapsed_ms),
        }
    }

    fn local(&self) -> Option<&Endpoint> {
        Some(&self.session().local)
    }

    fn towards(&self) -> Option<(IpAddr, u16)> {
        let session = self.session();
        Some(match session.role {
            Role::Client => (session.peer.ip, session.peer.port),
            Role::Server => (session.peer.ip, session.local.port),
        })
    }

    fn phrase(&self) -> Option<Phrase> {
        Some(text::phrase(self))
    }

    fn label(&self) -> Option<String> {
        Some(match self {
            Self::HandshakeDone { version, .. } => {
                format!("handshake done {}", version.as_deref().unwrap_or("")).trim_end().to_owned()
            }
            Self::Alert { description, .. } => {
                format!("alert {}", description.as_deref().unwrap_or("encrypted"))
            }
            Self::HandshakeClosed { .. } => "handshake closed".into(),
            Self::NotTls { .. } => "not TLS".into(),
            _ => return None,
        })
    }

    fn operation(&self) -> Option<Operation> {
        let step = match self {
            Self::ClientHello { retried: false, .. } => Step::Begun,
            Self::HandshakePending { elapsed_ms, .. } => Step::Waits(*elapsed_ms),
            Self::HandshakeDone { duration_ms, .. } => Step::Ended { failed: false, ms: Some(*duration_ms) },
            Self::Alert { duration_ms, .. }
            | Self::HandshakeClosed { duration_ms, .. }
            | Self::NotTls { duration_ms, .. } => Step::Ended { failed: true, ms: Some(*duration_ms) },
            Self::ClientHello { retried: true, .. }
            | Self::ServerHello { .. }
            | Self::ServerFlightRead { .. }
            | Self::ClientFinished { .. } => return None,
        };
        let session = self.session();
        let destination = match session.role {
            Role::Client => format!("{} TLS", named(&session.peer)),
            Role::Server => format!("own :{} TLS", session.local.port),
        };
        Some(Operation { destination, step })
    }

    fn failure(&self) -> Option<Failure> {
        let error = match self {
            Self::Alert { description, .. } => {
                format!("TLS alert {}", description.as_deref().unwrap_or("(encrypted)"))
            }
            Self::HandshakeClosed { .. } => "TLS closed before done".into(),
            Self::NotTls { .. } => "answer is not TLS".into(),
            _ => return None,
        };
        Some(Failure { destination: peer(&self.session().peer), error })
    }
}
