//! What a stalled handshake may be waiting for: connects, lookups and silent peers of its process and of
//! helpers begun for it, with what their blame is weighed by. Whether they are to blame is not said here.

use std::{cell::OnceCell, collections::HashSet, net::IpAddr};

use ebpf_probes::abi::Owner;

use super::blame::Stall;
use crate::{
    correlate::incident::CauseKind,
    enrich::{
        World,
        ask::SilentNeighbour,
        context::SeenSocket,
        operations::{ConnectOp, LookupOp},
    },
};

/// Process start times are known to the clock tick only.
const CLOCK_TICK_NS: u64 = 20_000_000;
/// An operation a thread may be waiting for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Suspect {
    /// A connect, and the neighbour that does not answer underneath.
    Connect(ConnectOp, Option<(IpAddr, SilentNeighbour)>),
    /// A DNS lookup.
    Lookup(LookupOp),
    /// An established peer that owes an answer, and when the snapshot saw that.
    Peer(SeenSocket, u64),
}

impl Suspect {
    /// Cookie of its socket.
    pub(super) fn cookie(&self) -> u64 {
        match self {
            Self::Connect(op, _) => op.connect.cookie,
            Self::Lookup(op) => op.cookie,
            Self::Peer(socket, _) => socket.cookie,
        }
    }

    /// What sets situations apart.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Connect(op, _) => {
                format!(
                    "to {} {}",
                    crate::event::address(op.connect.tuple.remote),
                    op.connect.tuple.remote_port
                )
            }
            Self::Lookup(op) => format!("dns {}", crate::event::address(op.server)),
            Self::Peer(socket, _) => format!("to {} {}", socket.remote.ip(), socket.remote.port()),
        }
    }

    /// It, and what was tried to the same end since then: cookies.
    pub(super) fn attempts(&self, world: &World) -> Vec<u64> {
        match self {
            Self::Connect(op, _) => {
                let (since, process) = (op.connect.started_ns, op.connect.owner.process);
                let same = |other: &&ConnectOp| {
                    other.connect.owner.process == process
                        && other.connect.started_ns >= since
                        && place(other) == place(op)
                };
                world.connect_ops().filter(same).map(|other| other.connect.cookie).collect()
            }
            Self::Lookup(op) => vec![op.cookie],
            Self::Peer(..) => vec![],
        }
    }

    pub(super) fn kind(&self) -> CauseKind {
        match self {
            Self::Connect(_, None) => CauseKind::OutboundConnect,
            Self::Connect(_, Some(_)) => CauseKind::Neighbour,
            Self::Lookup(_) => CauseKind::DnsLookup,
            Self::Peer(..) => CauseKind::Peer,
        }
    }
}

/// How what is blamed is related to the handshake's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    SameThread,
    SameProcess,
    Helper,
}

/// Where a connect goes.
type Place = ([u8; 16], u16);

fn place(op: &ConnectOp) -> Place {
    (op.connect.tuple.remote, op.connect.tuple.remote_port)
}

/// A suspect, not yet copied, with what its blame is weighed by.
pub(super) struct Candidate<'a> {
    what: Seen<'a>,
    pub(super) cookie: u64,
    pub(super) started_ns: u64,
    pub(super) ended_ns: Option<u64>,
    pub(super) relation: Relation,
}

enum Seen<'a> {
    Connect(&'a ConnectOp),
    Lookup(LookupOp),
    Peer(&'a SeenSocket, u64),
}

impl Candidate<'_> {
    /// Who began it, if that is known.
    pub(super) fn owner(&self) -> Option<&Owner> {
        match &self.what {
            Seen::Connect(op) => Some(&op.connect.owner),
            Seen::Lookup(op) => Some(&op.owner),
            Seen::Peer(..) => None,
        }
    }

    /// Whether both are to the same end.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (&self.what, &other.what) {
            (Seen::Connect(one), Seen::Connect(other)) => place(one) == place(other),
            (Seen::Lookup(one), Seen::Lookup(other)) => one.server == other.server,
            (Seen::Peer(one, _), Seen::Peer(other, _)) => one.remote == other.remote,
            _ => false,
        }
    }

    pub(super) fn suspect(self, stall: &Stall<'_>) -> Suspect {
        match self.what {
            Seen::Connect(op) => Suspect::Connect(*op, stall.neighbour(op)),
            Seen::Lookup(op) => Suspect::Lookup(op),
            Seen::Peer(socket, seen_ns) => Suspect::Peer(socket.clone(), seen_ns),
        }
    }
}

/// What a process had tried before a handshake, and for no handshake's sake: looked up once.
#[derive(Default)]
pub(super) struct Habits {
    connects: OnceCell<HashSet<Place>>,
    lookups: OnceCell<HashSet<([u8; 16], String)>>,
}

impl<'a> Stall<'a> {
    /// What the process and its helpers do, or did slowly or badly; only the handshake's own thread's doing
    /// if `own`. In order of beginning.
    pub(super) fn candidates(&self, own: bool) -> Vec<Candidate<'a>> {
        let reader = self.hs.reader;
        let near = |owner: &Owner| !own || (owner.thread, owner.process) == (reader.thread, reader.process);
        let connects = self.world.connect_ops().filter(|op| near(&op.connect.owner)).filter_map(|op| {
            Some(Candidate {
                relation: self.relation(&op.connect.owner)?,
                cookie: op.connect.cookie,
                started_ns: op.connect.started_ns,
                ended_ns: op.ended_ns,
                what: Seen::Connect(op),
            })
        });
        let lookups = self.world.lookup_ops(near).into_iter().filter_map(|op| {
            Some(Candidate {
                relation: self.relation(&op.owner)?,
                cookie: op.cookie,
                started_ns: op.started_ns,
                ended_ns: op.ended_ns,
                what: Seen::Lookup(op),
            })
        });
        let mut candidates: Vec<Candidate<'a>> = connects.chain(lookups).collect();
        // What is known of a socket by what it does says more than that it waits.
        let mut peers = self.silent_peers();
        peers.retain(|peer| {
            (!own || peer.relation == Relation::SameThread)
                && candidates.iter().all(|known| known.cookie != peer.cookie)
        });
        candidates.append(&mut peers);
        candidates.sort_by_key(|candidate| (candidate.started_ns, candidate.cookie));
        candidates
    }

    /// Connections over which something was asked after the reading, and nothing has come back.
    fn silent_peers(&self) -> Vec<Candidate<'a>> {
        let Some(snapshot) = self.snapshot else { return vec![] };
        let own = snapshot.process == self.hs.reader.process;
        let ago = |ms: u32| snapshot.boot_ns.saturating_sub(u64::from(ms) * 1_000_000);
        snapshot
            .sockets
            .iter()
            .filter(|socket| own && socket.cookie != self.hs.cookie && socket.state == 1)
            .filter(|socket| socket.unread_bytes == 0)
            .filter_map(|socket| {
                let asked = ago(socket.sent_ms_ago);
                let owed = socket.received_bytes == 0 || socket.received_ms_ago > socket.sent_ms_ago;
                let same = self.thread().is_some_and(|thread| thread.sockets.contains(&socket.cookie));
                if !owed || (asked.saturating_add(1_000_000) < self.since_ns() && !same) {
                    return None;
                }
                Some(Candidate {
                    what: Seen::Peer(socket, snapshot.boot_ns),
                    cookie: socket.cookie,
                    started_ns: asked.max(self.since_ns()),
                    ended_ns: None,
                    relation: if same { Relation::SameThread } else { Relation::SameProcess },
                })
            })
            .collect()
    }

    fn relation(&self, owner: &Owner) -> Option<Relation> {
        let reader = &self.hs.reader;
        if owner.process == 0 || reader.process == 0 {
            return None;
        }
        if owner.process == reader.process {
            let same = owner.thread == reader.thread;
            return Some(if same { Relation::SameThread } else { Relation::SameProcess });
        }
        let known = self.world.known(owner.process)?;
        // Begun for this handshake: a worker that was there before is somebody else's.
        let begun = known.started_ns.saturating_add(CLOCK_TICK_NS) >= self.since_ns();
        (begun && known.ancestors.contains(&reader.process)).then_some(Relation::Helper)
    }

    /// The process did the same before this handshake, for no handshake's sake: it will be at it again.
    pub(super) fn is_habit(&self, candidate: &Candidate<'_>) -> bool {
        let process = self.hs.reader.process;
        if candidate.relation == Relation::Helper {
            return false;
        }
        let idle =
            |cookie: u64, started_ns: u64| started_ns < self.since_ns() && self.blamed.get(&cookie).is_none();
        match &candidate.what {
            Seen::Connect(op) => {
                let before = |other: &&ConnectOp| {
                    other.connect.owner.process == process
                        && idle(other.connect.cookie, other.connect.started_ns)
                };
                let places = || self.world.connect_ops().filter(before).map(place).collect();
                self.habits.connects.get_or_init(places).contains(&place(op))
            }
            Seen::Lookup(op) => {
                let names = || {
                    let before = self.world.lookup_ops(|owner| owner.process == process);
                    let before = before.into_iter().filter(|other| idle(other.cookie, other.started_ns));
                    before.map(|other| (other.server, other.name.text)).collect()
                };
                self.habits.lookups.get_or_init(names).contains(&(op.server, op.name.text.clone()))
            }
            Seen::Peer(..) => false,
        }
    }

    /// The neighbour that does not answer underneath a connect: the destination, or the way to it.
    fn neighbour(&self, op: &ConnectOp) -> Option<(IpAddr, SilentNeighbour)> {
        self.world.neighbour_under(&op.connect, self.now_ns)
    }
}
