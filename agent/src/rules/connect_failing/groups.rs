//! Which failing connects are one situation: those of one program to one destination, and those of one program to
//! any destinations that fail in the same way. Bounded; what finds no room is counted, not listed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ebpf_probes::probes::connect::Connect;

use super::WINDOW_NS;
use crate::{domains::connect::Outcome, known::context::Reach, records, rules::text::Program};

/// Situations at the same time, at most.
const GROUPS: usize = 256;
/// Destinations listed of one, at most.
const DESTINATIONS: usize = 1024;
/// Failures of one that are kept as evidence, at most.
const RECENT: usize = 64;

/// What makes failures of a program alike: network namespace, executable, cgroup, outcome, error.
pub(super) type Alike = (Program, Outcome, i32);

/// A failure: when, what, and how long it took.
pub(super) type Failure = (u64, Outcome, u64);

/// One situation.
pub(super) struct Group {
    pub(super) id: String,
    pub(super) subject: String,
    alike: Alike,
    pub(super) began_ns: u64,
    pub(super) last: Connect,
    pub(super) errno: Option<String>,
    pub(super) outcomes: BTreeMap<Outcome, u64>,
    /// Failures by destination since it began.
    pub(super) destinations: BTreeMap<(IpAddr, u16), u64>,
    /// Failures at destinations that found no room.
    pub(super) left_out: u64,
    /// Subjects of the destinations that are still failing.
    pub(super) live: BTreeSet<String>,
    /// The last failures, oldest first.
    pub(super) recent: Vec<Failure>,
    pub(super) explained_by: Vec<String>,
    /// What was found when the route was looked at.
    pub(super) reach: Option<Reach>,
}

impl Group {
    pub(super) fn new(subject: &str, alike: Alike, began_ns: u64) -> Self {
        Self {
            id: String::new(),
            subject: subject.to_owned(),
            alike,
            began_ns,
            last: Connect::default(),
            errno: None,
            outcomes: BTreeMap::new(),
            destinations: BTreeMap::new(),
            left_out: 0,
            live: BTreeSet::new(),
            recent: vec![],
            explained_by: vec![],
            reach: None,
        }
    }

    pub(super) fn add(&mut self, connect: &Connect, (at, outcome, lasted): Failure, errno: Option<String>) {
        (self.last, self.errno) = (*connect, errno);
        *self.outcomes.entry(outcome).or_default() += 1;
        let to = (records::address(connect.tuple.remote), connect.tuple.remote_port);
        if self.destinations.contains_key(&to) || self.destinations.len() < DESTINATIONS {
            *self.destinations.entry(to).or_default() += 1;
        } else {
            self.left_out += 1;
        }
        self.recent.retain(|(then, ..)| at.saturating_sub(*then) < WINDOW_NS);
        if self.recent.len() >= RECENT {
            self.recent.remove(0);
        }
        self.recent.push((at, outcome, lasted));
    }

    /// Failures so far.
    pub(super) fn total(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// The outcome there is most of.
    pub(super) fn worst_outcome(&self) -> Outcome {
        let most = self.outcomes.iter().max_by_key(|(_, count)| **count);
        most.map_or(Outcome::Failed, |(outcome, _)| *outcome)
    }

    /// The destinations with most failures.
    pub(super) fn worst(&self, most: usize) -> Vec<((IpAddr, u16), u64)> {
        let mut all: Vec<_> = self.destinations.iter().map(|(to, count)| (*to, *count)).collect();
        all.sort_by_key(|(to, count)| (std::cmp::Reverse(*count), *to));
        all.truncate(most);
        all
    }
}

/// The situations there are.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<u64, Group>,
    by_alike: HashMap<Alike, u64>,
    next: u64,
    refused: u64,
}

impl Groups {
    pub(super) fn table(&self) -> crate::known::bounded::Table {
        crate::known::bounded::Table {
            name: "connect_failing_groups",
            entries: self.groups.len() as u64,
            capacity: GROUPS as u64,
            evictions: self.refused,
        }
    }

    /// The open situation that failures of this kind belong to.
    pub(super) fn alike(&self, alike: &Alike) -> Option<u64> {
        self.by_alike.get(alike).copied()
    }

    /// A new one; `None` when there is no room.
    pub(super) fn begin(&mut self, subject: &str, alike: Alike, began_ns: u64) -> Option<u64> {
        if self.groups.len() >= GROUPS {
            self.refused += 1;
            return None;
        }
        self.next += 1;
        self.by_alike.insert(alike.clone(), self.next);
        self.groups.insert(self.next, Group::new(subject, alike, began_ns));
        Some(self.next)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Group> {
        self.groups.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Group> {
        self.groups.get_mut(&number)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&u64, &mut Group)> {
        self.groups.iter_mut()
    }

    /// It is over.
    pub(super) fn close(&mut self, number: u64) {
        if let Some(group) = self.groups.remove(&number)
            && self.by_alike.get(&group.alike) == Some(&number)
        {
            self.by_alike.remove(&group.alike);
        }
    }
}
