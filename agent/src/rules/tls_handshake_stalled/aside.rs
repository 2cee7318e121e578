//! What was left out when nothing is blamed: operations of the process that do not fit, each with the reason,
//! and what could not be looked at. Only when nothing was left out is it certain that nothing was to be seen.

use ebpf_probes::{abi::ProbeId, probes::tls::ADOPTED};

use super::{
    candidates::Candidate,
    rivals::Rivals,
    stall::{Stall, unread},
    suspects::{Relation, Suspect},
};
use crate::{
    known::context::{Posture, SeenThread},
    pipeline::incident::Confidence,
};

/// Operations set aside that are listed, at most.
const LISTED: usize = 3;
/// What has just begun is nothing that any thread waits for yet, and mostly over before it is written.
const JUST_BEGUN_NS: u64 = 100_000_000;

/// What was left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct LeftOut {
    /// Operations under way that do not fit, the first ones.
    pub(super) operations: Vec<Aside>,
    /// How many more there are.
    pub(super) more: usize,
    /// What could not be looked at.
    pub(super) unseen: Vec<Unseen>,
    /// What the handshake's thread was seen in.
    pub(super) posture: Posture,
}

/// An operation that was set aside.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aside {
    pub(super) what: Suspect,
    pub(super) started_ns: u64,
    pub(super) why: Why,
}

/// Why an operation is not what a handshake waits for, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It had begun before the hello.
    Earlier,
    /// A thread began it that had read the hello of another handshake.
    AnotherHandshake,
    /// The thread was seen doing something else, and waits for no other thread.
    ThreadElsewhere,
    /// It began only late in the stall.
    Late,
}

/// What could not be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unseen {
    /// The thread.
    Thread,
    /// What the process began before culprit started.
    BeforeStart,
    /// What the event loop waits for.
    EventLoop,
    /// What another thread, which the handshake's may wait for, waits for.
    OtherThread,
    /// Some sockets of the process.
    Sockets,
    /// The connect or the dns probe is not attached.
    Probes,
    /// Records of connects or lookups were lost.
    Lost,
    /// What the filters hide: other threads of the process, connects to other peers.
    Filtered,
}

impl LeftOut {
    /// How sure it is that nothing of the kind delays the handshake.
    pub(super) fn confidence(&self) -> Confidence {
        let busy_itself = matches!(
            self.posture,
            Posture::Running | Posture::Disk | Posture::Stopped | Posture::Frozen | Posture::Sleep
        );
        match self.posture {
            _ if self.unseen.contains(&Unseen::Thread) || self.unseen.contains(&Unseen::OtherThread) => {
                Confidence::Possible
            }
            Posture::Descriptors | Posture::Processes | Posture::Other | Posture::Unknown => {
                Confidence::Possible
            }
            _ if self.operations.is_empty() && self.unseen.is_empty() => Confidence::Certain,
            _ if busy_itself => Confidence::Likely,
            _ if self.operations.is_empty() && self.unseen == [Unseen::EventLoop] => Confidence::Likely,
            _ => Confidence::Possible,
        }
    }
}

impl Stall<'_> {
    /// What was left out, for a stall that nothing is blamed for.
    pub(super) fn left_out(&self) -> LeftOut {
        let mut left = LeftOut { posture: self.posture(), ..LeftOut::default() };
        let pending = self.candidates(false).into_iter().chain(self.peers_asked_before());
        let lasts = |candidate: &Candidate<'_>| {
            candidate.ended_ns.is_none() && self.now_ns.saturating_sub(candidate.started_ns) > JUST_BEGUN_NS
        };
        let pending: Vec<Candidate<'_>> = pending.filter(lasts).collect();
        let rivals = (!pending.is_empty()).then(|| Rivals::of(self));
        for candidate in pending {
            if left.operations.len() >= LISTED {
                left.more += 1;
                continue;
            }
            let why = self.why_aside(&candidate, rivals.as_ref());
            let started_ns = candidate.started_ns;
            left.operations.push(Aside { what: candidate.suspect(self), started_ns, why });
        }
        if self.hs.flags & ADOPTED != 0 {
            left.unseen.push(Unseen::BeforeStart);
        } else if self.thread().is_none() && !unread(self.hs) {
            left.unseen.push(Unseen::Thread);
        }
        match self.posture() {
            Posture::EventLoop => left.unseen.push(Unseen::EventLoop),
            Posture::Threads if self.another_waits_elsewhere() => left.unseen.push(Unseen::OtherThread),
            _ => {}
        }
        if self.snapshot.is_some_and(|snapshot| snapshot.sockets_cut && !snapshot.threads.is_empty()) {
            left.unseen.push(Unseen::Sockets);
        }
        if !self.world.known.sees(ProbeId::CONNECT) || !self.world.known.sees(ProbeId::DNS) {
            left.unseen.push(Unseen::Probes);
        }
        if self.world.known.has_lost(&["connect", "dns", "tls"]) {
            left.unseen.push(Unseen::Lost);
        }
        if self.narrowed() {
            left.unseen.push(Unseen::Filtered);
        }
        left
    }

    /// Another thread of the process waits for what was not looked into: a socket that is no TCP peer, a pipe, a
    /// process. The peers and lookups among what it waits for are weighed.
    fn another_waits_elsewhere(&self) -> bool {
        let Some(seen) = self.snapshot else { return false };
        let lookups = self.world.lookup_ops(|owner| owner.process == seen.process);
        let weighed = |cookie: &u64| {
            seen.sockets.iter().any(|socket| socket.cookie == *cookie)
                || lookups.iter().any(|op| op.cookie == *cookie)
        };
        // Recordings from before that was looked at have only the call.
        let accepts = |thread: &SeenThread| {
            thread.accepts || matches!(thread.shown.syscall.as_deref(), Some("accept" | "accept4"))
        };
        let elsewhere = |thread: &SeenThread| match thread.posture {
            Posture::Descriptors if accepts(thread) => false,
            Posture::Descriptors => !thread.sockets.iter().all(weighed),
            Posture::Processes | Posture::Other => true,
            _ => false,
        };
        let own = self.hs.reader.thread;
        seen.threads_left_out > 0
            || seen.threads.iter().any(|thread| thread.shown.tid != own && elsewhere(thread))
    }

    fn why_aside(&self, candidate: &Candidate<'_>, rivals: Option<&Rivals>) -> Why {
        if candidate.started_ns < self.since_ns() {
            return Why::Earlier;
        }
        if candidate.relation == Relation::SameProcess && rivals.is_some_and(|rivals| rivals.began(candidate))
        {
            return Why::AnotherHandshake;
        }
        let elsewhere = !matches!(self.posture(), Posture::Threads | Posture::EventLoop | Posture::Unknown);
        if elsewhere { Why::ThreadElsewhere } else { Why::Late }
    }
}
