//! What a stalled handshake may be waiting for: connects, lookups and silent peers of its process and of
//! helpers begun for it, with what their blame is weighed by. Whether they are to blame is not said here.

use std::{cell::OnceCell, collections::HashSet, net::IpAddr};

use ebpf_probes::{abi::Owner, probes::tls::CLIENT};

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

    /// Who began it, as far as is known.
    pub(super) fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Connect(op, _) => Some(&op.connect.owner),
            Self::Lookup(op) => Some(&op.owner),
            Self::Peer(..) => None,
        }
    }

    /// When it ended, as far as is known; a peer is not known to have answered.
    pub(super) fn ended_ns(&self) -> Option<u64> {
        match self {
            Self::Connect(op, _) => op.ended_ns,
            Self::Lookup(op) => op.ended_ns,
            Self::Peer(..) => None,
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

    /// It, or another of the same process to the same end, whichever is pending.
    pub(super) fn still_under_way(self, world: &World) -> Option<Self> {
        match self {
            Self::Connect(op, silent) => {
                let pending = |op: &&ConnectOp| op.ended_ns.is_none();
                let own = world.connect_op(op.connect.cookie).filter(pending).copied();
                let like = |other: &&ConnectOp| {
                    other.connect.owner.process == op.connect.owner.process && place(other) == place(&op)
                };
                let other = || {
                    let others = world.connect_ops().filter(pending).filter(like);
                    others.min_by_key(|other| (other.connect.started_ns, other.connect.cookie)).copied()
                };
                Some(Self::Connect(own.or_else(other)?, silent))
            }
            Self::Lookup(op) => {
                let ops = world.lookup_ops(|owner| owner.process == op.owner.process);
                let like = |other: &LookupOp| other.ended_ns.is_none() && other.server == op.server;
                let ops = ops.into_iter().filter(like);
                ops.min_by_key(|other| (other.started_ns, other.cookie)).map(Self::Lookup)
            }
            Self::Peer(..) => Some(self),
        }
    }

    /// As it is known by now.
    pub(super) fn refreshed(self, world: &World) -> Self {
        match self {
            Self::Connect(op, silent) => {
                let now = world.connect_op(op.connect.cookie);
                let now = now.filter(|now| now.connect.started_ns == op.connect.started_ns);
                Self::Connect(now.copied().unwrap_or(op), silent)
            }
            Self::Lookup(op) => {
                let same = |now: &LookupOp| {
                    (now.cookie, now.started_ns) == (op.cookie, op.started_ns)
                        && now.name == op.name
                        && now.query_type == op.query_type
                };
                let ops = world.lookup_ops(|owner| owner.process == op.owner.process);
                Self::Lookup(ops.into_iter().find(same).unwrap_or(op))
            }
            Self::Peer(..) => self,
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
    // Boxed: candidates are sorted, and a crowd has many.
    Lookup(Box<LookupOp>),
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
            Seen::Lookup(op) => Suspect::Lookup(*op),
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
                what: Seen::Lookup(Box::new(op)),
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
        let owing = self.owing_peers().filter(|(asked_ns, same, _)| *same || self.asked_since(*asked_ns));
        owing
            .map(|(asked_ns, _, mut candidate)| {
                candidate.started_ns = asked_ns.max(self.since_ns());
                candidate
            })
            .collect()
    }

    /// Those over which it was asked before: an answer may be owed, and to somebody else.
    pub(super) fn peers_asked_before(&self) -> Vec<Candidate<'a>> {
        let owing = self.owing_peers().filter(|(asked_ns, same, _)| !*same && !self.asked_since(*asked_ns));
        owing.map(|(_, _, candidate)| candidate).collect()
    }

    fn asked_since(&self, asked_ns: u64) -> bool {
        asked_ns.saturating_add(1_000_000) >= self.since_ns()
    }

    /// Connections the process made itself and was the last to send on: when, and whether the handshake's own
    /// thread waits for that. Who connected to this process asks of it and owes it nothing.
    fn owing_peers(&self) -> impl Iterator<Item = (u64, bool, Candidate<'a>)> {
        let snapshot = self.snapshot.filter(|snapshot| snapshot.process == self.hs.reader.process);
        let sockets =
            snapshot.iter().flat_map(|snapshot| snapshot.sockets.iter().map(|one| (one, snapshot.boot_ns)));
        let sockets: Vec<_> = sockets.filter(|(socket, _)| self.is_own_connection(socket)).collect();
        sockets.into_iter().filter_map(|(socket, seen_ns)| {
            let owed = socket.received_bytes == 0 || socket.received_ms_ago > socket.sent_ms_ago;
            if !owed || socket.state != 1 || socket.unread_bytes != 0 {
                return None;
            }
            let asked_ns = seen_ns.saturating_sub(u64::from(socket.sent_ms_ago) * 1_000_000);
            let same = self.thread().is_some_and(|thread| thread.sockets.contains(&socket.cookie));
            let candidate = Candidate {
                what: Seen::Peer(socket, seen_ns),
                cookie: socket.cookie,
                started_ns: asked_ns,
                ended_ns: None,
                relation: if same { Relation::SameThread } else { Relation::SameProcess },
            };
            Some((asked_ns, same, candidate))
        })
    }

    /// The process connected it: nothing listens on its own port, and it is no other client of this service.
    fn is_own_connection(&self, socket: &SeenSocket) -> bool {
        let of_the_service = self.hs.role != CLIENT && socket.local.port() == self.hs.tuple.local_port;
        socket.cookie != self.hs.cookie && socket.inbound != Some(true) && !of_the_service
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
