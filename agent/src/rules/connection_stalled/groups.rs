//! Which connections whose data is not acknowledged are one situation: those of one program with one peer; of a service,
//! those of all its clients for one kind of reason. Bounded; what finds no room is counted.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ebpf_probes::{abi::Owner, probes::connect::Unacked};

use crate::{known::bounded::Table, records};

/// Connections followed at the same time, at most.
const CONNECTIONS: usize = 2048;
/// Situations at the same time, at most.
const SITUATIONS: usize = 256;
/// Peers remembered of each, at most.
pub(super) const PEERS: usize = 8;

/// A connection: its network namespace and its ends.
type Key = (ebpf_probes::abi::Netns, ebpf_probes::abi::Tuple);

/// One situation.
pub(super) struct Group {
    pub(super) id: String,
    pub(super) subject: String,
    /// What it is that is not acknowledged.
    pub(super) what: &'static str,
    /// Connections that wait, the oldest first: since when, and number.
    waiting: BTreeSet<(u64, u64)>,
    /// Connections so far.
    pub(super) total: u64,
    /// Some of the peers.
    pub(super) peers: BTreeSet<IpAddr>,
    /// Incidents that explain it, or did.
    pub(super) explained_by: Vec<String>,
}

/// A connection that waits.
#[derive(Clone, Copy)]
pub(super) struct Member {
    pub(super) unacked: Unacked,
    pub(super) owner: Owner,
    group: u64,
}

/// The situations there are.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<u64, Group>,
    by_subject: HashMap<String, u64>,
    members: HashMap<u64, Member>,
    numbers: HashMap<Key, u64>,
    next: u64,
    refused: u64,
}

fn key(unacked: &Unacked) -> Key {
    (unacked.owner.netns, unacked.tuple)
}

impl Groups {
    pub(super) fn table(&self) -> Table {
        Table {
            name: "connection_stalled_waiting",
            entries: self.members.len() as u64,
            capacity: CONNECTIONS as u64,
            evictions: self.refused,
        }
    }

    /// Takes in a connection that waits; the situation it is in, and whether it is new there. `None`: there is no room.
    pub(super) fn add(&mut self, unacked: &Unacked, owner: Owner, subject: &str) -> Option<(u64, bool)> {
        if let Some(number) = self.numbers.get(&key(unacked)).copied()
            && let Some(member) = self.members.get_mut(&number)
        {
            let (group, since_ns) = (member.group, member.unacked.since_ns);
            (member.unacked, member.owner) = (*unacked, owner);
            if let Some(group) = self.groups.get_mut(&group)
                && since_ns != unacked.since_ns
            {
                group.waiting.remove(&(since_ns, number));
                group.waiting.insert((unacked.since_ns, number));
            }
            return Some((group, false));
        }
        if self.members.len() >= CONNECTIONS {
            self.refused += 1;
            return None;
        }
        let group = match self.by_subject.get(subject) {
            Some(group) => *group,
            None if self.groups.len() >= SITUATIONS => {
                self.refused += 1;
                return None;
            }
            None => self.begin(subject),
        };
        self.next += 1;
        let number = self.next;
        self.numbers.insert(key(unacked), number);
        self.members.insert(number, Member { unacked: *unacked, owner, group });
        let known = self.groups.get_mut(&group)?;
        known.total += 1;
        known.waiting.insert((unacked.since_ns, number));
        if known.peers.len() < PEERS {
            known.peers.insert(records::address(unacked.tuple.remote));
        }
        Some((group, true))
    }

    fn begin(&mut self, subject: &str) -> u64 {
        self.next += 1;
        self.by_subject.insert(subject.to_owned(), self.next);
        let group = Group {
            id: String::new(),
            subject: subject.to_owned(),
            what: "data",
            waiting: BTreeSet::new(),
            total: 0,
            peers: BTreeSet::new(),
            explained_by: vec![],
        };
        self.groups.insert(self.next, group);
        self.next
    }

    pub(super) fn get(&self, group: u64) -> Option<&Group> {
        self.groups.get(&group)
    }

    pub(super) fn get_mut(&mut self, group: u64) -> Option<&mut Group> {
        self.groups.get_mut(&group)
    }

    /// The situation a connection is in.
    pub(super) fn of(&self, unacked: &Unacked) -> Option<u64> {
        self.members.get(self.numbers.get(&key(unacked))?).map(|member| member.group)
    }

    /// The connection of a situation that has waited longest.
    pub(super) fn lead(&self, group: u64) -> Option<&Member> {
        let (_, number) = self.groups.get(&group)?.waiting.first()?;
        self.members.get(number)
    }

    /// How many wait.
    pub(super) fn waiting(&self, group: u64) -> u64 {
        self.groups.get(&group).map_or(0, |group| group.waiting.len() as u64)
    }

    /// A connection waits no longer.
    pub(super) fn end(&mut self, unacked: &Unacked) -> Option<()> {
        let number = self.numbers.remove(&key(unacked))?;
        let member = self.members.remove(&number)?;
        if let Some(group) = self.groups.get_mut(&member.group) {
            group.waiting.remove(&(member.unacked.since_ns, number));
        }
        Some(())
    }

    /// A situation is over.
    pub(super) fn close(&mut self, group: u64) -> Option<Group> {
        let group = self.groups.remove(&group)?;
        self.by_subject.remove(&group.subject);
        Some(group)
    }
}
