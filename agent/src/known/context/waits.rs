//! Who is next on a connection, and what a thread waits for, as far as a snapshot shows it.

use super::{Posture, SeenSocket, SeenThread, Snapshot};

/// Established, as include/net/tcp_states.h numbers it.
const ESTABLISHED: u8 = 1;
/// An acknowledged SYN counts as a byte.
const SYN: u64 = 1;

impl SeenSocket {
    /// It is established.
    pub fn is_established(&self) -> bool {
        self.state == ESTABLISHED
    }

    /// This host has sent something over it.
    pub fn has_sent(&self) -> bool {
        self.acked_bytes > SYN || (self.is_established() && self.unacked > 0)
    }

    /// This host made it, and the peer is next: nothing came since this host sent last, or nothing at all.
    pub fn peer_is_next(&self) -> bool {
        self.inbound != Some(true)
            && self.unread_bytes == 0
            && (self.received_bytes == 0 || self.received_ms_ago > self.sent_ms_ago)
    }
}

impl SeenThread {
    /// It waits on this connection, on which the peer is next.
    pub fn awaits(&self, socket: &SeenSocket) -> bool {
        self.posture == Posture::Descriptors && self.sockets.contains(&socket.cookie) && socket.peer_is_next()
    }

    /// It waits for a client that connected to its process and sends nothing.
    pub fn awaits_client(&self, socket: &SeenSocket) -> bool {
        self.posture == Posture::Descriptors
            && self.sockets == [socket.cookie]
            && socket.inbound == Some(true)
            && socket.unread_bytes == 0
    }

    /// It waits for a child of its process to end.
    pub fn awaits_children(&self) -> bool {
        self.posture == Posture::Processes
            && matches!(self.shown.syscall.as_deref(), Some("wait4" | "waitid"))
    }
}

impl Snapshot {
    /// Connections on which a peer owes an answer to an event loop of the process: which thread waits for it cannot be
    /// seen, and one that never sent anything may be kept for later.
    pub fn of_event_loops(&self) -> impl Iterator<Item = &SeenSocket> {
        let threads = || self.threads.iter();
        let any = threads().any(|thread| thread.posture == Posture::EventLoop);
        self.sockets.iter().filter(move |socket| {
            any && socket.is_established()
                && socket.has_sent()
                && socket.peer_is_next()
                && !self.threads.iter().any(|thread| thread.sockets.contains(&socket.cookie))
        })
    }

    /// The most connections that wait in one of its accept queues, with that listener's port.
    pub fn queued(&self) -> Option<(u32, u16)> {
        let longest = self.listeners.iter().max_by_key(|listener| listener.queued)?;
        (longest.queued > 0).then(|| (longest.queued, longest.local.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(sent_ms_ago: u32, received_ms_ago: u32) -> SeenSocket {
        SeenSocket {
            cookie: 7,
            fd: 3,
            state: ESTABLISHED,
            local: "10.0.0.1:40000".parse().expect("an address"),
            remote: "10.0.0.2:443".parse().expect("an address"),
            acked_bytes: 100,
            received_bytes: 100,
            unacked: 0,
            sent_ms_ago,
            received_ms_ago,
            unread_bytes: 0,
            inbound: Some(false),
        }
    }

    #[test]
    fn the_peer_is_next_where_this_host_connected_and_sent_last() {
        assert!(socket(10, 20).peer_is_next());
        assert!(!socket(20, 10).peer_is_next());
        assert!(SeenSocket { received_bytes: 0, ..socket(20, 10) }.peer_is_next(), "nothing ever came");
        assert!(!SeenSocket { unread_bytes: 1, ..socket(10, 20) }.peer_is_next());
        assert!(!SeenSocket { inbound: Some(true), ..socket(10, 20) }.peer_is_next());
    }

    #[test]
    fn an_event_loop_waits_for_answers_and_not_on_connections_it_keeps() {
        let kept = SeenSocket { acked_bytes: SYN, received_bytes: 0, ..socket(10, 20) };
        let thread = |posture| SeenThread { posture, ..SeenThread::default() };
        let seen = |socket, posture| Snapshot {
            threads: vec![thread(posture)],
            sockets: vec![socket],
            ..Snapshot::default()
        };
        assert_eq!(seen(socket(10, 20), Posture::EventLoop).of_event_loops().count(), 1);
        assert_eq!(seen(socket(20, 10), Posture::EventLoop).of_event_loops().count(), 0);
        assert_eq!(seen(kept, Posture::EventLoop).of_event_loops().count(), 0);
        assert_eq!(seen(socket(10, 20), Posture::Sleep).of_event_loops().count(), 0);
    }
}
