//! What a stalled handshake may be waiting for, by itself: a connect, a lookup, a silent peer; and what is blamed.
//! Whether it is to blame is not said here.

use std::{cell::OnceCell, collections::HashSet, net::IpAddr};

use ebpf_probes::abi::Owner;

use crate::{
    domains::{connect::ConnectOp, dns::LookupOp, neighbour::SilentNeighbour},
    known::context::SeenSocket,
    pipeline::incident::{CauseKind, Confidence},
    pipeline::world::World,
};

/// A thread that has read what was unread is given this long before the stall is its own.
pub(super) const READ_NS: u64 = 1_000_000_000;

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
                    crate::records::address(op.connect.tuple.remote),
                    op.connect.tuple.remote_port
                )
            }
            Self::Lookup(op) => format!("dns {}", crate::records::address(op.server)),
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
            Self::Lookup(op) => {
                // Another server is asked, or the same one again, by way of another socket.
                let by = |owner: &Owner| (owner.process, owner.thread) == (op.owner.process, op.owner.thread);
                let since = |other: &LookupOp| other.started_ns >= op.started_ns;
                let ops = world.lookup_ops(by).into_iter().filter(since);
                ops.map(|other| other.cookie).chain([op.cookie]).collect()
            }
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
pub(super) type Destination = ([u8; 16], u16);

pub(super) fn place(op: &ConnectOp) -> Destination {
    (op.connect.tuple.remote, op.connect.tuple.remote_port)
}

/// What a process had tried before a handshake, and for no handshake's sake: looked up once.
#[derive(Default)]
pub(super) struct Habits {
    pub(super) connects: OnceCell<HashSet<Destination>>,
    pub(super) lookups: OnceCell<HashSet<([u8; 16], String)>>,
}

/// What is blamed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blame {
    pub(super) suspect: Suspect,
    pub(super) confidence: Confidence,
    /// How it is related to the handshake's thread.
    pub(super) relation: Relation,
    /// It is one of several operations for several handshakes, and which is whose is not known.
    pub(super) mixed: bool,
}

impl Blame {
    /// The same, by what has become of it since.
    pub(super) fn refreshed(self, world: &World) -> Self {
        Self { suspect: self.suspect.refreshed(world), ..self }
    }
}

impl Blame {
    /// What the next handshake of the same situation waits for when the one that led it is over: the same, or
    /// another of the kind that is still under way; it was weighed for the other, so it is no more than likely.
    pub(super) fn inherited(self, world: &World) -> Option<Self> {
        let suspect = self.suspect.refreshed(world).still_under_way(world)?;
        Some(Self { suspect, confidence: self.confidence.min(Confidence::Likely), ..self })
    }

    /// What kept a service from reading the next hello, which it comes to now: that explains its wait as long as
    /// it has not been over for longer than reading takes.
    pub(super) fn left_behind(self, world: &World, now_ns: u64) -> Option<Self> {
        let known = self.refreshed(world);
        match known.suspect.ended_ns() {
            Some(ended_ns) if now_ns.saturating_sub(ended_ns) > READ_NS => known.inherited(world),
            _ => Some(known),
        }
    }
}
