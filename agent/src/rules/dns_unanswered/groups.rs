//! Which lookups without an answer are one situation: those of one program at one server, and what is asked of another
//! server because the first is silent. Bounded; what finds no room is counted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::lookup::{Bad, Conclusion, Key, key, subject};
use crate::{
    domains::dns::LookupOp,
    known::bounded::Table,
    pipeline::{
        incident::{DnsOutcome, DnsQuestion},
        world::World,
    },
    records,
    rules::text::{self, Program},
};

/// Lookups of open incidents followed at the same time, at most.
const WAITING: usize = 4096;
/// Situations at the same time, at most.
const GROUPS: usize = 128;
/// Questions of one situation that are listed, at most.
const QUESTIONS: usize = 64;
/// Endings kept as evidence, at most: the last ones.
const ENDINGS: usize = 16;

/// A lookup that is followed.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) op: LookupOp,
    /// When its process was last asked to be looked at.
    pub(super) looked_ns: u64,
    /// It is asked again over TCP, and that connect is unanswered: the socket's cookie is the connect's.
    pub(super) over_tcp: bool,
}

/// How a lookup of a situation ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) op: LookupOp,
    pub(super) at_ns: u64,
    pub(super) outcome: DnsOutcome,
}

/// One situation.
#[derive(Debug)]
pub(super) struct Group {
    /// Its incident, once there is one.
    pub(super) id: String,
    pub(super) subject: String,
    program: Program,
    pub(super) began_ns: u64,
    /// Those that wait, by when they began.
    pub(super) waiting: BTreeMap<(u64, u64, u16), Followed>,
    /// The lookup it is reported by: that which waits longest, or did.
    pub(super) lead: LookupOp,
    pub(super) lead_over_tcp: bool,
    /// Lookups so far.
    pub(super) total: u64,
    pub(super) outcomes: BTreeMap<DnsOutcome, u64>,
    /// The last that ended.
    pub(super) ended: Vec<Ended>,
    questions: Vec<DnsQuestion>,
    /// Questions that found no room.
    left_out: u64,
    /// It lasts for as long as lookups keep ending badly, not only while one waits.
    pub(super) failing: bool,
    /// When a lookup last ended badly.
    pub(super) bad_ns: u64,
    pub(super) explained_by: Vec<String>,
    /// What was concluded when it was last emitted, and when that was.
    pub(super) emitted: Option<Conclusion>,
    pub(super) emitted_ns: u64,
    pub(super) weighed_ns: u64,
    /// For how many queries with EDNS the answers that the kernel held were asked for.
    pub(super) compared: u32,
}

impl Group {
    fn new(subject: String, program: Program, op: &LookupOp) -> Self {
        Self {
            id: String::new(),
            subject,
            program,
            began_ns: op.started_ns,
            waiting: BTreeMap::new(),
            lead: op.clone(),
            lead_over_tcp: false,
            total: 0,
            outcomes: BTreeMap::new(),
            ended: Vec::new(),
            questions: Vec::new(),
            left_out: 0,
            failing: false,
            bad_ns: 0,
            explained_by: Vec::new(),
            emitted: None,
            emitted_ns: 0,
            weighed_ns: 0,
            compared: 0,
        }
    }

    /// Whose lookups these are.
    pub(super) fn program(&self) -> Program {
        self.program.clone()
    }

    /// One lookup more.
    pub(super) fn asks(&mut self, op: &LookupOp) {
        self.total += 1;
        self.began_ns = self.began_ns.min(op.started_ns);
        let same = |known: &DnsQuestion| known.name == op.name.text && known.query_type == op.query_type;
        match self.questions.iter().position(same) {
            Some(at) => self.questions[at].queries += u64::from(op.queries),
            None if self.questions.len() < QUESTIONS => self.questions.push(DnsQuestion {
                name: op.name.text.clone(),
                name_invalid: op.name.invalid,
                query_type: op.query_type.clone(),
                queries: op.queries.into(),
                waiting: false,
            }),
            None => self.left_out += 1,
        }
    }

    /// One lookup less.
    pub(super) fn ends(&mut self, ended: Ended) {
        *self.outcomes.entry(ended.outcome).or_default() += 1;
        self.bad_ns = self.bad_ns.max(ended.at_ns);
        if self.ended.len() >= ENDINGS {
            self.ended.remove(0);
        }
        self.ended.push(ended);
    }

    /// One that ended badly without having been followed.
    pub(super) fn adds(&mut self, bad: &Bad) {
        self.asks(&bad.op);
        self.ends(Ended { op: bad.op.clone(), at_ns: bad.at_ns, outcome: bad.outcome });
    }

    /// How many different names were asked for.
    pub(super) fn names(&self) -> u64 {
        let names: BTreeSet<&str> = self.questions.iter().map(|question| question.name.as_str()).collect();
        names.len() as u64 + self.left_out
    }

    /// The questions, those that wait first: so many.
    pub(super) fn worst(&self, most: usize) -> Vec<DnsQuestion> {
        let waits = |question: &DnsQuestion| {
            self.waiting.values().any(|followed| {
                followed.op.name.text == question.name && followed.op.query_type == question.query_type
            })
        };
        let mut all: Vec<DnsQuestion> = self
            .questions
            .iter()
            .map(|question| DnsQuestion { waiting: waits(question), ..question.clone() })
            .collect();
        all.sort_by_key(|question| !question.waiting);
        all.truncate(most);
        all
    }

    /// The one that waits longest becomes the one it is reported by, if any waits.
    fn led(&mut self) {
        if let Some(followed) = self.waiting.values().next() {
            self.lead.clone_from(&followed.op);
            self.lead_over_tcp = followed.over_tcp;
        }
    }

    /// The address of the server it is reported by.
    pub(super) fn server(&self) -> IpAddr {
        records::address(self.lead.server)
    }
}

/// The situations there are.
#[derive(Default)]
pub(super) struct Groups {
    groups: BTreeMap<u64, Group>,
    by_subject: HashMap<String, u64>,
    followed: HashMap<Key, u64>,
    next: u64,
    refused: u64,
}

impl Groups {
    pub(super) fn table(&self) -> Table {
        Table {
            name: "dns_unanswered_waiting",
            entries: self.followed.len() as u64,
            capacity: WAITING as u64,
            evictions: self.refused,
        }
    }

    /// The situation of a lookup that is followed.
    pub(super) fn of(&self, key: &Key) -> Option<u64> {
        self.followed.get(key).copied()
    }

    /// The situation of a program and a server.
    pub(super) fn about(&self, subject: &str) -> Option<u64> {
        self.by_subject.get(subject).copied()
    }

    /// The situation a lookup belongs to, which begins with it if there is none: `None` when there is no room.
    pub(super) fn place(&mut self, op: &LookupOp, world: &World) -> Option<u64> {
        let subject = subject(op, world);
        let program = text::program_of(&op.owner, world);
        let asked_before = |group: &Group| {
            group.program == program
                && group.waiting.values().any(|known| {
                    known.op.name == op.name
                        && known.op.query_type == op.query_type
                        && known.op.owner.process == op.owner.process
                })
        };
        let known = self
            .about(&subject)
            .or_else(|| self.groups.iter().find(|(_, group)| asked_before(group)).map(|(number, _)| *number));
        if known.is_some() {
            return known;
        }
        if self.groups.len() >= GROUPS {
            self.refused += 1;
            return None;
        }
        self.next += 1;
        self.groups.insert(self.next, Group::new(subject.clone(), program, op));
        self.by_subject.insert(subject, self.next);
        Some(self.next)
    }

    /// Follows a lookup in a situation; `false` when there is no room for it.
    pub(super) fn follow(&mut self, number: u64, followed: Followed) -> bool {
        if self.followed.len() >= WAITING {
            self.refused += 1;
            return false;
        }
        let Some(group) = self.groups.get_mut(&number) else { return false };
        let op = &followed.op;
        group.asks(op);
        self.followed.insert(key(op), number);
        group.waiting.insert((op.started_ns, op.cookie, op.id), followed);
        group.led();
        true
    }

    /// A lookup that is followed, as it is now.
    pub(super) fn known(&mut self, op: &LookupOp) {
        let Some(number) = self.of(&key(op)) else { return };
        let Some(group) = self.groups.get_mut(&number) else { return };
        if let Some(followed) = group.waiting.get_mut(&(op.started_ns, op.cookie, op.id))
            && !followed.over_tcp
        {
            followed.op = op.clone();
        }
        group.led();
    }

    /// Its process is being looked at.
    pub(super) fn looked(&mut self, key: &Key, now_ns: u64) {
        let Some(group) = self.of(key).and_then(|number| self.groups.get_mut(&number)) else { return };
        if let Some(followed) = group.waiting.get_mut(&(key.2, key.0, key.1)) {
            followed.looked_ns = now_ns;
        }
    }

    /// A lookup no longer waits: its situation, which stays until [`Self::close`].
    pub(super) fn end(&mut self, key: &Key, at_ns: u64, outcome: DnsOutcome) -> Option<u64> {
        let number = self.followed.remove(key)?;
        let group = self.groups.get_mut(&number)?;
        let followed = group.waiting.remove(&(key.2, key.0, key.1))?;
        group.ends(Ended { op: followed.op, at_ns, outcome });
        group.led();
        Some(number)
    }

    /// All lookups that are followed.
    pub(super) fn followed(&self) -> Vec<Followed> {
        self.groups.values().flat_map(|group| group.waiting.values().cloned()).collect()
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.groups.keys().copied().collect()
    }

    pub(super) fn get(&self, number: u64) -> Option<&Group> {
        self.groups.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Group> {
        self.groups.get_mut(&number)
    }

    /// A situation is over.
    pub(super) fn close(&mut self, number: u64) {
        let Some(group) = self.groups.remove(&number) else { return };
        self.by_subject.remove(&group.subject);
        self.followed.retain(|_, of| *of != number);
    }
}
