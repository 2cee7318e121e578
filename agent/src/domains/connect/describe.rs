//! What facts about connects can be asked.

use std::net::IpAddr;

use super::{DataEnd, Outcome, What, outcome_name, text};
use crate::{
    domains::{Describe, Failure, Operation, Step, Weight},
    fact::{Endpoint, Phrase, Protocol, named, peer},
};

impl What {
    /// Where from, and where to.
    pub fn ends(&self) -> (&Endpoint, &Endpoint) {
        match self {
            Self::ConnectStarted { source, destination, .. }
            | Self::SynRetransmitted { source, destination, .. }
            | Self::ConnectDropped { source, destination, .. }
            | Self::ConnectPending { source, destination, .. }
            | Self::ConnectEnded { source, destination, .. } => (source, destination),
            Self::ListenQueueFull { local, peer, .. }
            | Self::DataUnacknowledged { local, peer, .. }
            | Self::DataSettled { local, peer, .. } => (local, peer),
        }
    }
}

impl Describe for What {
    fn weight(&self) -> Weight {
        match self {
            Self::ConnectStarted { .. } => Weight::of(false),
            Self::SynRetransmitted { elapsed_ms, .. }
            | Self::ConnectDropped { elapsed_ms, .. }
            | Self::ConnectPending { elapsed_ms, .. }
            | Self::DataUnacknowledged { elapsed_ms, .. }
            | Self::ListenQueueFull { elapsed_ms, .. } => Weight::bad(*elapsed_ms),
            Self::DataSettled { duration_ms, .. } => Weight::bad(*duration_ms),
            Self::ConnectEnded { outcome, syn_retransmits, duration_ms, .. } => Weight {
                bad: *outcome != Outcome::Established || *syn_retransmits > 0,
                ms: Some(*duration_ms),
            },
        }
    }

    fn local(&self) -> Option<&Endpoint> {
        Some(self.ends().0)
    }

    fn towards(&self) -> Option<(IpAddr, u16)> {
        match self {
            // Of a server its own port decides.
            Self::ListenQueueFull { local, peer, .. } => Some((peer.ip, local.port)),
            _ => Some((self.ends().1.ip, self.ends().1.port)),
        }
    }

    fn phrase(&self) -> Option<Phrase> {
        Some(text::phrase(self))
    }

    fn label(&self) -> Option<String> {
        let Self::ConnectEnded { outcome, errno, .. } = self else { return None };
        let name = outcome_name(*outcome);
        Some(match errno {
            Some(errno) => format!("{name} ({errno})"),
            None => name.to_owned(),
        })
    }

    fn operation(&self) -> Option<Operation> {
        let step = match self {
            // No connect: a summary counts them by their kind.
            Self::ListenQueueFull { .. } | Self::DataUnacknowledged { .. } | Self::DataSettled { .. } => {
                return None;
            }
            Self::ConnectStarted { .. } => Step::Begun,
            Self::SynRetransmitted { elapsed_ms, .. }
            | Self::ConnectDropped { elapsed_ms, .. }
            | Self::ConnectPending { elapsed_ms, .. } => Step::Waits(*elapsed_ms),
            Self::ConnectEnded { outcome, duration_ms, .. } => {
                Step::Ended { failed: *outcome != Outcome::Established, ms: Some(*duration_ms) }
            }
        };
        Some(Operation { destination: named(self.ends().1), step })
    }

    fn failure(&self) -> Option<Failure> {
        let destination = peer(self.ends().1);
        match self {
            Self::ConnectEnded { outcome, errno, protocol, .. } if *outcome != Outcome::Established => {
                let errno = errno.as_ref().map(|errno| format!(" ({errno})")).unwrap_or_default();
                let udp = if *protocol == Protocol::Udp { "UDP " } else { "" };
                Some(Failure { destination, error: format!("{udp}{}{errno}", outcome_name(*outcome)) })
            }
            Self::ListenQueueFull { local, .. } => {
                Some(Failure { destination: peer(local), error: "accept queue full".into() })
            }
            Self::DataSettled { end: end @ (DataEnd::Reset | DataEnd::TimedOut), .. } => {
                Some(Failure { destination, error: format!("data {}", end.words()) })
            }
            Self::ConnectDropped { reason, .. } => {
                Some(Failure { destination, error: format!("dropped here: {reason}") })
            }
            _ => None,
        }
    }
}
