//! Connects, lookups and silent peers of a process that has a stalled handshake, and of helpers begun for it, with
//! what their blame is weighed by.

use std::net::IpAddr;

use ebpf_probes::{abi::Owner, probes::tls::CLIENT};

use super::{
    stall::Stall,
    suspects::{Relation, Suspect, place},
};
use crate::{
    domains::{connect::ConnectOp, dns::LookupOp, neighbour::SilentNeighbour},
    known::context::SeenSocket,
};

/// Process start times are known to the clock tick only.
const CLOCK_TICK_NS: u64 = 20_000_000;
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

/// Of what was under way before culprit started the thread may not be known.
fn is_same_thread(owner: &Owner, reader: &Owner) -> bool {
    owner.thread != 0 && (owner.thread, owner.process) == (reader.thread, reader.process)
}

impl<'a> Stall<'a> {
    /// What the process and its helpers do, or did slowly or badly; only the handshake's own thread's doing
    /// if `own`. In order of beginning.
    pub(super) fn candidates(&self, own: bool) -> Vec<Candidate<'a>> {
        let reader = self.hs.reader;
        let near = |owner: &Owner| !own || is_same_thread(owner, &reader);
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

    /// Those over which it was asked before: an answer may be owed, and to another peer.
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
            let same = is_same_thread(owner, reader);
            return Some(if same { Relation::SameThread } else { Relation::SameProcess });
        }
        let known = self.world.known.of_process(owner.process)?;
        // Begun for this handshake: a worker that was there before is another handshake's.
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
