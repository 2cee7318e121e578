//! How long answers of a peer take, as far as looks at connections show it: the time from what was sent last to what
//! came last.

use std::net::SocketAddr;

use crate::known::{
    bounded::{Bounded, Table},
    context::WatchedConnection,
};

/// Peers remembered, at most.
const PEERS: usize = 256;
/// Connections of which it is remembered what was counted, at most.
const COUNTED: usize = 1024;

/// Answers seen, by peer.
pub(super) struct Usual {
    peers: Bounded<SocketAddr, Answers>,
    /// By a connection's cookie: bytes received when an answer was counted.
    counted: Bounded<u64, u64>,
}

/// Answers of one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answers {
    /// How many were seen.
    pub(super) count: u64,
    /// The longest took so long, milliseconds.
    pub(super) longest_ms: u64,
}

impl Default for Usual {
    fn default() -> Self {
        Self { peers: Bounded::new(PEERS), counted: Bounded::new(COUNTED) }
    }
}

impl Usual {
    pub(super) fn tables(&self) -> [Table; 2] {
        [self.peers.table("response_overdue_peers"), self.counted.table("response_overdue_counted")]
    }

    /// Counts an answer that has not been counted.
    pub(super) fn add(&mut self, connection: &WatchedConnection) {
        let socket = &connection.socket;
        if !socket.has_sent() || socket.received_bytes == 0 || socket.received_ms_ago > socket.sent_ms_ago {
            return;
        }
        if self.counted.get(&socket.cookie) == Some(&socket.received_bytes) {
            return;
        }
        self.counted.insert(socket.cookie, socket.received_bytes);
        let mut answers = self.of(socket.remote).unwrap_or_default();
        answers.count += 1;
        answers.longest_ms =
            answers.longest_ms.max(u64::from(socket.sent_ms_ago.saturating_sub(socket.received_ms_ago)));
        self.peers.insert(socket.remote, answers);
    }

    /// What was seen of a peer.
    pub(super) fn of(&self, peer: SocketAddr) -> Option<Answers> {
        self.peers.get(&peer).copied()
    }
}
