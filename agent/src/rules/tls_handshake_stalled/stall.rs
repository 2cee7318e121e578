//! A stalled handshake, and the circumstances under which what it waits for is weighed.

use std::cell::OnceCell;

use ebpf_probes::probes::tls::{CLIENT, Handshake, UNREAD, stage};

use super::suspects::Habits;
use crate::{
    known::{
        bounded::Bounded,
        context::{Posture, SeenThread, Snapshot},
    },
    pipeline::world::World,
    text::host::Name,
};

/// A stalled handshake.
pub(super) struct Waiting {
    pub(super) hs: Handshake,
    pub(super) sni: Option<Name>,
    pub(super) situation: Option<u64>,
}

/// The circumstances of a stall.
pub(super) struct Stall<'a> {
    pub(super) hs: &'a Handshake,
    /// Now, or when the handshake moved.
    pub(super) now_ns: u64,
    /// It has moved: what ended just before is aligned with it.
    pub(super) moved: bool,
    pub(super) world: &'a World,
    pub(super) snapshot: Option<&'a Snapshot>,
    /// Connects and lookups blamed for some stall: another attempt like them is no unrelated habit of the process.
    pub(super) blamed: &'a Bounded<u64, ()>,
    /// All handshakes that stall.
    pub(super) stalled: &'a Bounded<u64, Waiting>,
    /// Found out at most once.
    pub(super) posture: OnceCell<Posture>,
    pub(super) habits: Habits,
}

/// Since when a handshake could have gone on: the reading of the peer's last message.
pub(super) fn since_ns(hs: &Handshake) -> u64 {
    hs.read_ns.max(hs.moved_ns)
}

impl Stall<'_> {
    pub(super) fn since_ns(&self) -> u64 {
        since_ns(self.hs)
    }

    /// The thread that owes the next message, as a snapshot during this stall saw it.
    pub(super) fn thread(&self) -> Option<&SeenThread> {
        self.snapshot.filter(|snapshot| snapshot.boot_ns >= self.since_ns()).and_then(|_| self.seen())
    }

    fn seen(&self) -> Option<&SeenThread> {
        let tid = self.hs.reader.thread;
        self.snapshot?.threads.iter().find(|thread| thread.shown.tid == tid && tid != 0)
    }

    /// What the thread is doing. A thread once seen in an event loop is still one that serves many.
    pub(super) fn posture(&self) -> Posture {
        *self.posture.get_or_init(|| match (self.thread(), self.seen()) {
            (Some(thread), _) => thread.posture,
            (None, Some(SeenThread { posture: Posture::EventLoop, .. })) => Posture::EventLoop,
            _ => Posture::Unknown,
        })
    }

    /// The thread waits for the peer of this very handshake: nothing of this host's is in the way.
    pub(super) fn waits_for_peer(&self) -> bool {
        self.thread().is_some_and(|thread| thread.sockets == [self.hs.cookie])
    }

    /// A filter hides some of what the process does: another operation may fit better.
    pub(super) fn narrowed(&self) -> bool {
        !self.world.known.narrowed().is_empty()
    }
}

/// No thread has read the ClientHello.
pub(super) fn unread(hs: &Handshake) -> bool {
    hs.role != CLIENT && hs.stage == stage::HELLO && hs.flags & UNREAD != 0
}
