//! What is remembered of lookups: those under way, those that took long, and the last answers. Bounded.

use std::collections::VecDeque;

use ebpf_probes::{
    abi::{IPPROTO_UDP, Owner, Tuple},
    probes::dns::{DnsWire, PORT},
};

use super::{
    LookupOp, What,
    heard::{Answers, Edns, Verdict},
    streams::Streams,
};
use crate::{
    domains::{Emitted, ms},
    fact::{Endpoint, Protocol},
    known::{Known, bounded::Bounded, wire},
    text::host::Name,
};

/// Lookups under way remembered at most.
const LOOKUPS: usize = 4096;
/// Sockets whose questions go elsewhere than asked, remembered at most.
const WIRES: usize = 1024;
/// Silence is reported after this long, and again each time it has doubled; then the lookup is forgotten.
pub(super) const FIRST_NS: u64 = 1_000_000_000;
const FORGET_NS: u64 = 60_000_000_000;

/// Lookups that took longer than this are remembered for a while after their end.
const SLOW_NS: u64 = 100_000_000;
/// How many.
const ENDED: usize = 256;

/// What is remembered of lookups.
pub struct Memory {
    pub(super) pending: Bounded<(u64, u16), Lookup>,
    ended: VecDeque<LookupOp>,
    /// Those that the record being applied ended, slowly or badly.
    pub(super) ended_now: Vec<LookupOp>,
    pub(super) answers: Answers,
    /// When time last passed, CLOCK_BOOTTIME in nanoseconds.
    pub(super) now_ns: u64,
    pub(super) streams: Streams,
    /// Whither the questions of a socket go, where that is not the server asked for.
    pub(super) wires: Bounded<u64, DnsWire>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            pending: Bounded::new(LOOKUPS),
            ended: VecDeque::new(),
            ended_now: Vec::new(),
            answers: Answers::default(),
            now_ns: 0,
            streams: Streams::default(),
            wires: Bounded::new(WIRES),
        }
    }
}

/// A lookup under way.
#[derive(Clone)]
pub(super) struct Lookup {
    pub(super) owner: Owner,
    pub(super) tuple: Tuple,
    pub(super) name: Name,
    pub(super) query_type: String,
    pub(super) started_ns: u64,
    /// When it was last sent, as far as that is known.
    pub(super) sent_ns: u64,
    pub(super) queries: u32,
    /// It wants recursion (RD): it is asked of a resolver, which is to find out.
    pub(super) recursive: bool,
    pub(super) report_at_ns: u64,
    /// How many of those queries had an OPT record, as far as they were seen, and what the last said of UDP's size.
    pub(super) edns_queries: u32,
    pub(super) udp_size: u16,
    /// Whether the last query that was seen had one; not known of repetitions that the kernel held.
    pub(super) edns: Edns,
    /// Whither it went, where that is not the server asked for.
    pub(super) wire: Option<DnsWire>,
}

impl Lookup {
    /// The server that was asked.
    pub(super) fn server(&self, known: &Known) -> Endpoint {
        server(known, &self.tuple, &self.owner, self.wire.as_ref())
    }

    fn operation(&self, (cookie, id): (u64, u16)) -> LookupOp {
        LookupOp {
            cookie,
            id,
            owner: self.owner,
            server: self.tuple.remote,
            local: self.tuple.local,
            wire: self.wire,
            name: self.name.clone(),
            query_type: self.query_type.clone(),
            started_ns: self.started_ns,
            sent_ns: self.sent_ns,
            queries: self.queries,
            recursive: self.recursive,
            edns_queries: self.edns_queries,
            udp_size: self.udp_size,
            ended_ns: None,
            verdict: None,
            failed: false,
        }
    }
}

/// The server asked for, and whither the question really went.
pub(super) fn server(known: &Known, tuple: &Tuple, owner: &Owner, record: Option<&DnsWire>) -> Endpoint {
    let asked = known.remote(tuple, owner);
    let wire = record.and_then(|record| wire(&asked, record.translated, &record.wire));
    Endpoint { wire, ..asked }
}

pub(super) fn protocol(tuple: &Tuple) -> Protocol {
    if tuple.protocol == IPPROTO_UDP { Protocol::Udp } else { Protocol::Tcp }
}

/// Time passed: reports unanswered lookups.
pub(super) fn tick(memory: &mut Memory, known: &Known, boot_ns: u64, facts: &mut Vec<Emitted<What>>) {
    let mut due = Vec::new();
    let mut over = Vec::new();
    for (key, lookup) in memory.pending.iter_mut() {
        if boot_ns < lookup.report_at_ns {
            continue;
        }
        let elapsed = boot_ns.saturating_sub(lookup.started_ns);
        lookup.report_at_ns = lookup.started_ns.saturating_add(elapsed.saturating_mul(2));
        due.push((lookup.started_ns, *key));
        if elapsed > FORGET_NS {
            over.push(*key);
        }
    }
    due.sort_unstable();
    for (_, key) in due {
        let Some(lookup) = memory.pending.get(&key) else { continue };
        let what = What::DnsPending {
            protocol: protocol(&lookup.tuple),
            server: lookup.server(known),
            name: lookup.name.text.clone(),
            name_invalid: lookup.name.invalid,
            query_type: lookup.query_type.clone(),
            queries: lookup.queries,
            elapsed_ms: ms(boot_ns.saturating_sub(lookup.started_ns)),
        };
        facts.push(Emitted { boot_ns, owner: lookup.owner, what });
    }
    for key in over {
        memory.pending.remove(&key);
    }
}

impl Memory {
    /// The next question of a socket goes elsewhere than asked.
    pub(super) fn goes(&mut self, record: &DnsWire) {
        self.wires.insert(record.cookie, *record);
    }

    /// Lookups of these owners under way, and those that took long and have ended.
    pub fn operations(&self, of: impl Fn(&Owner) -> bool) -> Vec<LookupOp> {
        let pending = self.pending.iter().filter(|(_, lookup)| of(&lookup.owner));
        let pending = pending.map(|(key, lookup)| lookup.operation(*key));
        pending.chain(self.ended.iter().filter(|op| of(&op.owner)).cloned()).collect()
    }

    /// Lookups under way that began at this moment or before it, in no particular order.
    pub fn waiting(&self, since_ns: u64) -> Vec<LookupOp> {
        let old = self.pending.iter().filter(|(_, lookup)| lookup.started_ns <= since_ns);
        old.map(|(key, lookup)| lookup.operation(*key)).collect()
    }

    /// Lookups that the record being applied ended, slowly or badly.
    pub fn ended_now(&self) -> &[LookupOp] {
        &self.ended_now
    }

    /// The server that a lookup asks, and whither its question really went.
    pub fn resolver(&self, known: &Known, op: &LookupOp) -> Endpoint {
        let tuple = Tuple { remote: op.server, remote_port: PORT, ..Tuple::default() };
        server(known, &tuple, &op.owner, op.wire.as_ref())
    }

    /// The last answers.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// A lookup was answered, or failed when there is no verdict.
    pub(super) fn end(&mut self, boot_ns: u64, key: (u64, u16), verdict: Option<Verdict>) -> Option<Lookup> {
        let lookup = self.pending.remove(&key)?;
        let slow = boot_ns.saturating_sub(lookup.started_ns) > SLOW_NS;
        if slow || !verdict.is_some_and(Verdict::is_answer) {
            let failed = verdict.is_none();
            let op = LookupOp { ended_ns: Some(boot_ns), verdict, failed, ..lookup.operation(key) };
            self.ended_now.push(op.clone());
            if slow {
                if self.ended.len() >= ENDED {
                    self.ended.pop_front();
                }
                self.ended.push_back(op);
            }
        }
        Some(lookup)
    }
}
