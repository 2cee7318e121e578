//! Stalled handshakes, the situations they are in, and what can be said of either by looking at it alone.

use std::{collections::BTreeMap, sync::Arc};

use ebpf_probes::{
    abi::Owner,
    probes::tls::{CLIENT, Handshake, UNREAD, stage},
};

use super::{
    advice,
    blame::{Blame, Suspect},
};
use crate::{
    correlate::{View, incident::Confidence},
    enrich::{context::Snapshot, operations::ConnectOp},
    text::host::Name,
};

/// A thread that has read what was unread is given this long before the stall is its own.
const READ_NS: u64 = 1_000_000_000;

/// A stalled handshake.
pub(super) struct Waiting {
    pub(super) hs: Handshake,
    pub(super) sni: Option<Name>,
    pub(super) situation: Option<u64>,
}

/// Handshakes of one service that stall for one reason.
pub(super) struct Situation {
    pub(super) service: String,
    pub(super) key: String,
    pub(super) id: String,
    /// The handshake it is told by.
    pub(super) lead: Handshake,
    pub(super) sni: Option<Name>,
    pub(super) blame: Option<Blame>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) began_ns: u64,
    pub(super) count: u64,
    /// Stalled handshakes, and whether each is unread.
    pub(super) waiting: BTreeMap<u64, bool>,
    pub(super) told: Conclusion,
}

/// What was concluded: reason, confidence, and the incidents that explain it.
pub(super) type Conclusion = (String, Option<Confidence>, Vec<String>);

/// What is to be concluded now.
pub(super) fn conclusion(key: &str, blame: Option<&Blame>, view: &View<'_>) -> Conclusion {
    let explained = blame.map(|blame| advice::explained(&blame.suspect, view)).unwrap_or_default();
    (key.to_owned(), blame.map(|blame| blame.confidence), explained)
}

/// Whether this host owes the handshake's next message.
pub(super) fn owed_here(hs: &Handshake) -> bool {
    match hs.stage {
        stage::HELLO | stage::CLIENT_FINISH => hs.role != CLIENT,
        stage::SERVER_FLIGHT => hs.role == CLIENT,
        _ => false,
    }
}

/// Nobody has read the ClientHello.
pub(super) fn unread(hs: &Handshake) -> bool {
    hs.role != CLIENT && hs.stage == stage::HELLO && hs.flags & UNREAD != 0
}

/// The thread that owes the next message; for what nobody has read, whoever listens.
pub(super) fn owner(hs: &Handshake, view: &View<'_>) -> Owner {
    if hs.reader.process != 0 && !unread(hs) {
        return hs.reader;
    }
    if hs.owner.process != 0 {
        return hs.owner;
    }
    let mut owner = hs.owner;
    let local = crate::event::address(hs.tuple.local);
    if let Some((process, comm)) = view.world.listener_at(owner.netns, local, hs.tuple.local_port) {
        (owner.process, owner.thread) = (process, process);
        let len = comm.len().min(15);
        owner.comm[..len].copy_from_slice(&comm.as_bytes()[..len]);
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

/// Somebody has just read what nobody had: until the reader has had its time, the stall is explained by that.
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
