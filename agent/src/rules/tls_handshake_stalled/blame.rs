//! Whom a stalled handshake waits for: weighs what is under way, and what a snapshot of the process
//! showed, by thread, start, coverage and alignment. A wrong name is worse than none.

use ebpf_probes::{
    abi::Owner,
    probes::{connect::Connect, tls::Handshake},
};

use crate::{
    correlate::incident::{CauseKind, Confidence},
    enrich::{
        World,
        ask::SilentNeighbour,
        bounded::Bounded,
        context::{Posture, SeenSocket, SeenThread, Snapshot},
        operations::{ConnectOp, LookupOp},
    },
};

/// A handshake that moves within this long of an operation's end was waiting for it.
const ALIGNED_NS: u64 = 100_000_000;
/// Process start times are known to the clock tick only.
const CLOCK_TICK_NS: u64 = 20_000_000;

/// A thread that waits on this many descriptors may wait on more than a snapshot lists.
const MANY: usize = 8;

/// What is blamed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blame {
    pub(super) suspect: Suspect,
    pub(super) confidence: Confidence,
    /// How it is related to the handshake's thread.
    pub(super) relation: Relation,
}

/// An operation a thread may be waiting for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Suspect {
    /// A connect, and the neighbour that does not answer underneath.
    Connect(ConnectOp, Option<(std::net::IpAddr, SilentNeighbour)>),
    /// A DNS lookup.
    Lookup(LookupOp),
    /// An established peer that owes an answer, and when the snapshot saw that.
    Peer(SeenSocket, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    SameThread,
    SameProcess,
    Helper,
}

/// A suspect with what its blame is weighed by.
struct Candidate {
    suspect: Suspect,
    cookie: u64,
    started_ns: u64,
    ended_ns: Option<u64>,
    relation: Relation,
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
}

/// Connects of one process to one place.
fn alike(one: &Connect, other: &Connect) -> bool {
    (one.owner.process, one.tuple.remote, one.tuple.remote_port)
        == (other.owner.process, other.tuple.remote, other.tuple.remote_port)
}

impl Suspect {
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
                let since = op.connect.started_ns;
                let same = |other: &&ConnectOp| {
                    other.connect.started_ns >= since && alike(&op.connect, &other.connect)
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

impl Stall<'_> {
    /// Since when this host could have answered: the reading of the peer's last message.
    fn since_ns(&self) -> u64 {
        self.hs.read_ns.max(self.hs.moved_ns)
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
    fn posture(&self) -> Posture {
        match (self.thread(), self.seen()) {
            (Some(thread), _) => thread.posture,
            (None, Some(SeenThread { posture: Posture::EventLoop, .. })) => Posture::EventLoop,
            _ => Posture::Unknown,
        }
    }

    /// The thread waits for the peer of this very handshake: nothing of this host's is in the way.
    pub(super) fn waits_for_peer(&self) -> bool {
        self.thread().is_some_and(|thread| thread.sockets == [self.hs.cookie])
    }

    /// The most convincing suspect.
    pub(super) fn blame(&self) -> Option<Blame> {
        let candidates = self.candidates();
        let mut weighed: Vec<(Blame, u64)> = candidates
            .into_iter()
            .filter_map(|candidate| {
                let confidence = self.weigh(&candidate)?;
                // Of one thread's operations the last, of other threads' the first after the reading.
                let gap = candidate.started_ns.saturating_sub(self.since_ns());
                let rank = match candidate.relation {
                    Relation::SameThread => u64::MAX - gap,
                    _ => gap,
                };
                let Candidate { suspect, relation, .. } = candidate;
                Some((Blame { suspect, confidence, relation }, rank))
            })
            .collect();
        weighed.sort_by_key(|(blame, rank)| {
            (std::cmp::Reverse(blame.confidence), blame.relation != Relation::SameThread, *rank)
        });
        weighed.into_iter().next().map(|(blame, _)| blame)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = self
            .world
            .connect_ops()
            .filter_map(|op| {
                let connect = &op.connect;
                Some(Candidate {
                    relation: self.relation(&connect.owner)?,
                    cookie: connect.cookie,
                    started_ns: connect.started_ns,
                    ended_ns: op.ended_ns,
                    suspect: Suspect::Connect(*op, self.neighbour(op)),
                })
            })
            .chain(self.world.lookup_ops().into_iter().filter_map(|op| {
                Some(Candidate {
                    relation: self.relation(&op.owner)?,
                    cookie: op.cookie,
                    started_ns: op.started_ns,
                    ended_ns: op.ended_ns,
                    suspect: Suspect::Lookup(op),
                })
            }))
            .collect();
        // What is known of a socket by what it does says more than that it waits.
        let known: Vec<u64> = candidates.iter().map(|candidate| candidate.cookie).collect();
        candidates.extend(self.silent_peers().into_iter().filter(|peer| !known.contains(&peer.cookie)));
        candidates.sort_by_key(|candidate| (candidate.started_ns, candidate.cookie));
        candidates
    }

    /// Connections over which something was asked after the reading, and nothing has come back.
    fn silent_peers(&self) -> Vec<Candidate> {
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
                    suspect: Suspect::Peer(socket.clone(), snapshot.boot_ns),
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

    /// How sure it is that the handshake waits for this; `None`: it does not.
    fn weigh(&self, candidate: &Candidate) -> Option<Confidence> {
        let since = self.since_ns();
        if candidate.started_ns < since || candidate.started_ns > self.now_ns {
            return None;
        }
        let end = candidate.ended_ns.unwrap_or(self.now_ns).min(self.now_ns);
        let stall = self.now_ns.saturating_sub(since).max(1);
        let covers_most = end.saturating_sub(candidate.started_ns) * 2 >= stall;
        let aligned = self.moved
            && candidate.ended_ns.is_some_and(|ended| self.now_ns.saturating_sub(ended) <= ALIGNED_NS);
        let posture = self.posture();
        // What a thread begins itself is its own doing, unless it serves many.
        let habit = (candidate.relation != Relation::SameThread || posture == Posture::EventLoop)
            && self.is_habit(candidate);
        if aligned && covers_most {
            // One of many attempts ends at any time.
            return Some(if habit { Confidence::Possible } else { Confidence::Certain });
        }
        // It went on without it.
        if self.moved && candidate.ended_ns.is_none() && candidate.relation != Relation::SameThread {
            return None;
        }
        let pending = candidate.ended_ns.is_none();
        let in_its_way = covers_most || (pending && candidate.relation == Relation::SameThread);
        if !in_its_way {
            return None;
        }
        let in_it = self.thread().is_some_and(|thread| thread.sockets.contains(&candidate.cookie));
        // What began after the snapshot cannot be in it.
        let later = self.snapshot.is_some_and(|snapshot| candidate.started_ns > snapshot.boot_ns);
        match candidate.relation {
            Relation::SameThread => Some(match posture {
                _ if in_it => Confidence::Certain,
                _ if habit || (pending && !self.is_attended(candidate)) => Confidence::Possible,
                Posture::EventLoop | Posture::Threads => Confidence::Likely,
                Posture::Descriptors | Posture::Processes if !later && pending => Confidence::Likely,
                Posture::Running | Posture::Disk | Posture::Stopped | Posture::Sleep if !later && pending => {
                    Confidence::Possible
                }
                _ => Confidence::Certain,
            }),
            Relation::SameProcess => match posture {
                // It waits for something else, or for nobody.
                Posture::Descriptors
                | Posture::Running
                | Posture::Disk
                | Posture::Stopped
                | Posture::Sleep => None,
                _ if habit || !self.is_attended(candidate) => Some(Confidence::Possible),
                _ => Some(Confidence::Likely),
            },
            Relation::Helper => match posture {
                Posture::Running | Posture::Disk | Posture::Stopped => Some(Confidence::Possible),
                _ => Some(Confidence::Likely),
            },
        }
    }

    /// The process did the same before this handshake, for no handshake's sake: it will be at it again.
    fn is_habit(&self, candidate: &Candidate) -> bool {
        let before = |cookie: u64, started_ns: u64| {
            cookie != candidate.cookie && started_ns < self.since_ns() && self.blamed.get(&cookie).is_none()
        };
        match &candidate.suspect {
            Suspect::Connect(op, _) => self.world.connect_ops().any(|other| {
                before(other.connect.cookie, other.connect.started_ns) && alike(&op.connect, &other.connect)
            }),
            Suspect::Lookup(op) => self.world.lookup_ops().iter().any(|other| {
                before(other.cookie, other.started_ns)
                    && (other.owner.process, other.server, &other.name)
                        == (op.owner.process, op.server, &op.name)
            }),
            Suspect::Peer(..) => false,
        }
    }

    /// Somebody in the process waits for it, as far as the snapshot can tell: a connection over which a
    /// line of a log was sent is owed no answer, and a lookup given up looks like one still under way.
    fn is_attended(&self, candidate: &Candidate) -> bool {
        let Some(snapshot) = self.snapshot.filter(|snapshot| snapshot.boot_ns >= self.since_ns()) else {
            return true;
        };
        let waits = |thread: &SeenThread| {
            thread.sockets.contains(&candidate.cookie)
                || thread.posture == Posture::EventLoop
                || thread.shown.waits_on.len() >= MANY
        };
        let seen = match &candidate.suspect {
            Suspect::Connect(ConnectOp { connect: Connect { owner, .. }, .. }, _)
            | Suspect::Lookup(LookupOp { owner, .. }) => {
                snapshot.threads.iter().any(|thread| thread.shown.tid == owner.thread)
            }
            Suspect::Peer(..) => snapshot.threads_left_out == 0,
        };
        !seen
            || snapshot.sockets_cut
            || candidate.started_ns > snapshot.boot_ns
            || snapshot.threads.iter().any(waits)
    }

    /// The neighbour that does not answer underneath a connect: the destination, or the way to it.
    fn neighbour(&self, op: &ConnectOp) -> Option<(std::net::IpAddr, SilentNeighbour)> {
        let (netns, remote) = (op.connect.owner.netns, op.connect.tuple.remote);
        if op.connect.established != 0 {
            return None;
        }
        if let Some(silent) = self.world.silent_neighbour(netns, remote, self.now_ns) {
            return Some((crate::event::address(remote), silent));
        }
        /// EHOSTUNREACH of include/uapi/asm-generic/errno.h.
        const HOST_UNREACHABLE: i32 = 113;
        if op.connect.errno == HOST_UNREACHABLE {
            return self.world.last_silent_neighbour(netns, self.now_ns);
        }
        None
    }
}
