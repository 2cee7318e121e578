//! Which unanswered connects are one situation: those of one program to one destination, and those of one program
//! to any destinations that share their fate. However many destinations there are, what is remembered of them is
//! bounded; what finds no room is counted. It does not know why no answer comes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ebpf_probes::probes::connect::Connect;

use crate::{
    known::bounded::Table,
    pipeline::world::World,
    records,
    rules::{
        drops::Reason,
        text::{self, Program},
    },
};

/// Connects of open incidents followed at the same time, at most.
const WAITING: usize = 4096;
/// Situations at the same time, at most.
const GROUPS: usize = 512;
/// Destinations remembered of all situations together, at most.
const DESTINATIONS: usize = 4096;

/// A destination: address and port.
pub(super) type Destination = (IpAddr, u16);

/// Who swallows the packets, as far as it decides what belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// No answer from the network.
    Silent,
    /// This host drops them for this reason, at this place.
    Dropped(Reason, u32),
    /// Another address answers.
    Stray,
    /// A neighbour entry on the way is wrong.
    Neighbour,
}

/// What is known of one destination of a situation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// Connects that wait now.
    pub(super) waiting: u64,
    /// Connects so far.
    pub(super) total: u64,
    /// When the oldest of those that wait, or the first there was, began.
    pub(super) since_ns: u64,
}

/// One situation.
#[derive(Debug)]
pub(super) struct Group {
    /// Its incident, once there is one.
    pub(super) id: String,
    /// The first destination's subject: the incident's.
    pub(super) subject: String,
    program: Program,
    fate: Fate,
    /// Connects that wait now, the oldest first: since when, and cookie.
    waiting: BTreeSet<(u64, u64)>,
    /// Connects so far.
    pub(super) total: u64,
    pub(super) destinations: BTreeMap<Destination, Tally>,
    /// Connects whose destination found no room.
    pub(super) left_out: u64,
    /// Incidents that explain it, or did.
    pub(super) explained_by: Vec<String>,
}

struct Waiting {
    connect: Connect,
    group: u64,
}

/// The situations there are.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<u64, Group>,
    /// Situations by subject: of each destination of each.
    by_subject: HashMap<String, u64>,
    /// Situations by program.
    by_program: HashMap<Program, Vec<u64>>,
    waiting: HashMap<u64, Waiting>,
    destinations: usize,
    next: u64,
    refused: u64,
}

fn destination(connect: &Connect) -> Destination {
    (records::address(connect.tuple.remote), connect.tuple.remote_port)
}

impl Groups {
    pub(super) fn table(&self) -> Table {
        Table {
            name: "connect_stalled_waiting",
            entries: self.waiting.len() as u64,
            capacity: WAITING as u64,
            evictions: self.refused,
        }
    }

    /// Takes in a connect that waits, in the situation it belongs to; `None` when there is no room for it.
    /// Whether it is new comes with the situation.
    pub(super) fn add(&mut self, connect: &Connect, fate: Fate, world: &World) -> Option<(u64, bool)> {
        if let Some(known) = self.waiting.get_mut(&connect.cookie) {
            if known.connect.started_ns == connect.started_ns {
                known.connect = *connect;
                return Some((known.group, false));
            }
            // The same socket connects again.
            self.end(connect.cookie);
        }
        if self.waiting.len() >= WAITING {
            self.refused += 1;
            return None;
        }
        let subject = text::subject(connect, world);
        let program = text::program(connect, world);
        let known = self.by_subject.get(&subject).copied().or_else(|| {
            let of_program = self.by_program.get(&program)?;
            of_program
                .iter()
                .copied()
                .find(|number| self.groups.get(number).is_some_and(|group| group.fate == fate))
        });
        let number = match known {
            Some(number) => number,
            None => self.begin(&subject, program, fate)?,
        };
        self.by_subject.entry(subject).or_insert(number);
        let group = self.groups.get_mut(&number)?;
        group.total += 1;
        group.waiting.insert((connect.started_ns, connect.cookie));
        let to = destination(connect);
        let is_known = group.destinations.contains_key(&to);
        if is_known || self.destinations < DESTINATIONS {
            let tally = group.destinations.entry(to).or_default();
            if tally.waiting == 0 {
                tally.since_ns = connect.started_ns;
            }
            tally.waiting += 1;
            tally.total += 1;
            self.destinations += usize::from(!is_known);
        } else {
            group.left_out += 1;
        }
        self.waiting.insert(connect.cookie, Waiting { connect: *connect, group: number });
        Some((number, true))
    }

    fn begin(&mut self, subject: &str, program: Program, fate: Fate) -> Option<u64> {
        if self.groups.len() >= GROUPS {
            self.refused += 1;
            return None;
        }
        self.next += 1;
        self.by_program.entry(program.clone()).or_default().push(self.next);
        let group = Group {
            id: String::new(),
            subject: subject.to_owned(),
            program,
            fate,
            waiting: BTreeSet::new(),
            total: 0,
            destinations: BTreeMap::new(),
            left_out: 0,
            explained_by: vec![],
        };
        self.groups.insert(self.next, group);
        Some(self.next)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Group> {
        self.groups.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Group> {
        self.groups.get_mut(&number)
    }

    /// The situation a connect belongs to.
    pub(super) fn of(&self, cookie: u64) -> Option<u64> {
        self.waiting.get(&cookie).map(|waiting| waiting.group)
    }

    /// The connect of a situation that waits longest.
    pub(super) fn lead(&self, number: u64) -> Option<&Connect> {
        let (_, cookie) = self.groups.get(&number)?.waiting.first()?;
        self.waiting.get(cookie).map(|waiting| &waiting.connect)
    }

    /// How many connects of a situation wait.
    pub(super) fn waiting(&self, number: u64) -> u64 {
        self.groups.get(&number).map_or(0, |group| group.waiting.len() as u64)
    }

    /// A connect no longer waits; the last state of it replaces what was known when `connect` says so.
    pub(super) fn ended(&mut self, connect: &Connect) {
        if let Some(known) = self.waiting.get_mut(&connect.cookie) {
            known.connect = *connect;
        }
    }

    /// Forgets a connect; its situation stays until [`Self::close`].
    pub(super) fn end(&mut self, cookie: u64) {
        let Some(known) = self.waiting.remove(&cookie) else { return };
        let Some(group) = self.groups.get_mut(&known.group) else { return };
        group.waiting.remove(&(known.connect.started_ns, cookie));
        if let Some(tally) = group.destinations.get_mut(&destination(&known.connect)) {
            tally.waiting = tally.waiting.saturating_sub(1);
        }
    }

    /// A situation is over.
    pub(super) fn close(&mut self, number: u64) {
        let Some(group) = self.groups.remove(&number) else { return };
        self.destinations -= group.destinations.len();
        self.by_subject.retain(|_, at| *at != number);
        if let Some(of_program) = self.by_program.get_mut(&group.program) {
            of_program.retain(|at| *at != number);
            if of_program.is_empty() {
                self.by_program.remove(&group.program);
            }
        }
    }
}

impl Group {
    /// The destinations with most connects waiting, then most so far, then the longest waited for: `most` of them.
    pub(super) fn worst(&self, most: usize) -> Vec<(Destination, Tally)> {
        let mut all: Vec<(Destination, Tally)> =
            self.destinations.iter().map(|(to, tally)| (*to, *tally)).collect();
        all.sort_by_key(|(to, tally)| (std::cmp::Reverse((tally.waiting, tally.total)), tally.since_ns, *to));
        all.truncate(most);
        all
    }
}
