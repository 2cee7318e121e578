//! Stalled handshakes, the situations they are in, and what can be said of either by looking at it alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ebpf_probes::{
    abi::Owner,
    probes::tls::{ADOPTED, CLIENT, Handshake, stage},
};

use super::{
    aside::LeftOut,
    idle::Idle,
    obstacle::{Obstacle, Slowed},
    stall::unread,
    suspects::{Blame, READ_NS, Suspect},
};
use crate::{
    domains::connect::ConnectOp,
    known::context::{Posture, Snapshot},
    pipeline::{
        View,
        incident::{Confidence, Kind, Severity},
    },
    records::comm_bytes,
    rules::{
        neighbours, resolvers,
        text::{Program, program_of},
    },
    text::host::Name,
};

/// Peers of a situation distinguished, at most.
pub(super) const PEERS: usize = 8;
/// A look that is compared with an earlier one is this much later: some periods of a CPU quota.
const SECOND_LOOK_NS: u64 = 1_000_000_000;

/// Handshakes of one service that stall for one reason.
pub(super) struct Situation {
    pub(super) service: String,
    pub(super) key: String,
    pub(super) id: String,
    /// The handshake it is reported by.
    pub(super) lead: Handshake,
    pub(super) sni: Option<Name>,
    pub(super) blame: Option<Blame>,
    /// What was left out when nothing is blamed.
    pub(super) left_out: LeftOut,
    /// The service has been seen to answer a ClientHello with a ServerHello.
    pub(super) answers: bool,
    /// Addresses of those who wait, the first ones.
    pub(super) peers: BTreeSet<[u8; 16]>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// What a second look showed of its CPU quota.
    pub(super) slowed: Option<Slowed>,
    pub(super) began_ns: u64,
    pub(super) count: u64,
    /// Stalled handshakes, and whether each is unread.
    pub(super) waiting: BTreeMap<u64, bool>,
    pub(super) emitted: Conclusion,
}

/// What was concluded: reason, confidence, and the incidents that explain it.
pub(super) type Conclusion = (String, Confidence, Vec<String>);

/// Incidents about the neighbour underneath what is waited for, or about the lookup that is.
pub(super) fn explained(suspect: &Suspect, view: &View<'_>) -> Vec<String> {
    match suspect {
        Suspect::Connect(op, _) => neighbours::explaining(&op.connect, view),
        Suspect::Lookup(op) => {
            let behind = resolvers::upstream(op, view.world);
            let cookies = [Some(op.cookie), behind.map(|upstream| upstream.op.cookie)];
            let claims = cookies.into_iter().flatten().filter_map(|cookie| view.store.live_claim(cookie));
            claims.filter(|(_, kind)| *kind == Kind::DnsUnanswered).map(|(id, _)| id.to_owned()).collect()
        }
        Suspect::Peer(..) => vec![],
    }
}

/// Whether a service speaks TLS at all, as far as was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// It has answered a ClientHello, or something in its way explains why not.
    Tls,
    /// It never has, and may or may not.
    NeverSeen,
    /// It never has; it has read this one and waits for more, as one does that reads no TLS in it.
    HardlyTls,
    /// It never has, and its program has loaded no TLS library.
    NoTls,
}

impl Situation {
    /// What is to be concluded now.
    pub(super) fn conclusion(&self, view: &View<'_>) -> Conclusion {
        let key = || self.key.clone();
        if let Some(blame) = &self.blame {
            return (key(), blame.confidence, explained(&blame.suspect, view));
        }
        match self.obstacle(self.snapshot.as_deref()) {
            Some(obstacle) => (format!("{} {:?}", key(), obstacle.what.kind()), obstacle.confidence, vec![]),
            None => (key(), self.left_out.confidence(), vec![]),
        }
    }

    /// What is in the way by such a look, where nothing is blamed.
    pub(super) fn obstacle<'a>(&self, snapshot: Option<&'a Snapshot>) -> Option<Obstacle<'a>> {
        Obstacle::of(snapshot, &self.lead, self.slowed)
    }

    /// Whether two looks may show how often a CPU quota is used up.
    pub(super) fn wants_second_look(&self, now_ns: u64) -> bool {
        let runs = |seen: &Snapshot| {
            seen.limits.quota.is_some() && seen.threads.iter().any(|one| one.posture == Posture::Running)
        };
        let seen = self.snapshot.as_deref().filter(|seen| runs(seen) && self.slowed.is_none());
        seen.is_some_and(|seen| now_ns.saturating_sub(seen.boot_ns) >= SECOND_LOOK_NS)
    }

    pub(super) fn speaks(&self) -> Speaks {
        speaks(&self.lead, self.blame.as_ref(), &self.left_out, self.snapshot.as_deref(), self.answers)
    }

    /// Critical is what does not rest on one remote peer's hello alone.
    pub(super) fn severity(&self) -> Severity {
        let loaded = self.snapshot.as_deref().and_then(|seen| seen.loaded.speaks_tls());
        match self.speaks() {
            // That it is TLS is known by the port alone.
            _ if self.lead.flags & ADOPTED != 0 && !self.answers && loaded != Some(true) => Severity::Warning,
            Speaks::Tls => Severity::Critical,
            Speaks::NeverSeen if loaded == Some(true) && self.peers.len() > 1 => Severity::Critical,
            _ => Severity::Warning,
        }
    }
}

/// Whether what stalls is a TLS handshake at all.
pub(super) fn speaks(
    hs: &Handshake,
    blame: Option<&Blame>,
    left_out: &LeftOut,
    snapshot: Option<&Snapshot>,
    answers: bool,
) -> Speaks {
    let explained = blame.is_some_and(|blame| blame.confidence > Confidence::Possible);
    if hs.role == CLIENT || hs.stage != stage::HELLO || answers || explained {
        return Speaks::Tls;
    }
    if snapshot.and_then(|seen| seen.loaded.speaks_tls()) == Some(false) {
        return Speaks::NoTls;
    }
    if snapshot.is_some() && Idle::of(snapshot, hs).is_held() {
        return Speaks::Tls;
    }
    let waits_for_more = |seen: &Snapshot| {
        let mut threads = seen.threads.iter();
        threads.any(|thread| thread.shown.tid == hs.reader.thread && thread.posture == Posture::EventLoop)
    };
    match snapshot {
        // One that has something under way may wait for that.
        Some(seen) if !unread(hs) && left_out.operations.is_empty() && waits_for_more(seen) => {
            Speaks::HardlyTls
        }
        _ => Speaks::NeverSeen,
    }
}

/// Whether this host owes the handshake's next message.
pub(super) fn owed_here(hs: &Handshake) -> bool {
    match hs.stage {
        stage::HELLO | stage::CLIENT_FINISH => hs.role != CLIENT,
        stage::SERVER_FLIGHT => hs.role == CLIENT,
        _ => false,
    }
}

/// The thread that owes the next message; for what no thread has read, the listener, or was seen to hold the
/// connection.
pub(super) fn owner(hs: &Handshake, snapshot: Option<&Snapshot>, view: &View<'_>) -> Owner {
    let owner = listener(hs, view);
    match snapshot {
        Some(seen) if unread(hs) && seen.asked == owner.process && seen.asked != 0 && seen.process != 0 => {
            let mut child = Owner { process: seen.process, thread: seen.process, ..owner };
            if let Some(known) = view.world.known.of_process(seen.process) {
                child.comm = comm_bytes(&known.comm);
            }
            child
        }
        _ => owner,
    }
}

fn listener(hs: &Handshake, view: &View<'_>) -> Owner {
    if hs.reader.process != 0 && !unread(hs) {
        return hs.reader;
    }
    if hs.owner.process != 0 {
        return hs.owner;
    }
    let mut owner = hs.owner;
    let local = crate::records::address(hs.tuple.local);
    if let Some((process, name)) = view.world.known.listener_at(owner.netns, local, hs.tuple.local_port) {
        (owner.process, owner.thread, owner.comm) = (process, process, comm_bytes(&name));
    }
    owner
}

/// What clients of one service have in common; for a client, its own process.
pub(super) fn service(hs: &Handshake, owner: &Owner) -> String {
    if hs.role == CLIENT {
        format!("client {} {}", owner.netns, owner.process)
    } else {
        format!("server {} {}", owner.netns, hs.tuple.local_port)
    }
}

/// The program whose handshake it is, whichever of its processes has it; `None` when that is not known.
pub(super) fn program(hs: &Handshake, view: &View<'_>) -> Option<Program> {
    let owner = owner(hs, None, view);
    (owner.process != 0).then(|| program_of(&owner, view.world))
}

/// A thread has just read what none had: until the reader has had its time, the stall is explained by that.
pub(super) fn was_unread(situation: &Situation, hs: &Handshake, now_ns: u64) -> bool {
    unread(&situation.lead) && !unread(hs) && now_ns.saturating_sub(hs.read_ns) < READ_NS
}

/// The connect that was blamed goes on.
pub(super) fn still_pending(blame: &Blame, view: &View<'_>) -> bool {
    match &blame.suspect {
        Suspect::Connect(op, _) => {
            view.world.connect_op(op.connect.cookie).is_some_and(|now: &ConnectOp| now.ended_ns.is_none())
        }
        Suspect::Lookup(_) | Suspect::Peer(..) => false,
    }
}

/// The reason, as far as it makes two stalls one situation.
pub(super) fn key(hs: &Handshake, blame: Option<&Blame>) -> String {
    match blame {
        Some(blame) => blame.suspect.key(),
        None if unread(hs) => "unread".into(),
        None => "none".into(),
    }
}
