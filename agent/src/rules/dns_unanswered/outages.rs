//! Which DNS servers answer no program at all? Where three programs or more wait for one server without an answer, that server is
//! the situation, and the programs are those who suffer: what each of them waits for points to it, and programs that
//! come later are listed there and have no incident of their own. Bounded; what finds no room keeps its own incident.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    DnsUnanswered,
    findings::Findings,
    groups::Group,
    outage::{Key, Outage, Sufferer},
    outages_say,
};
use crate::{
    domains::dns::LookupOp,
    known::bounded::Table,
    pipeline::{
        View,
        incident::{DnsReason, Kind},
        world::World,
    },
    records,
    rules::text::{self, Program},
};

/// So many programs that wait without an answer make it the server.
const PROGRAMS: usize = 3;
/// Servers that are silent at the same time, at most.
const OUTAGES: usize = 32;
/// Programs of one server that are remembered, at most; more are counted.
const SUFFERERS: usize = 256;

/// The servers that answer no program.
#[derive(Debug, Default)]
pub(super) struct Outages {
    outages: BTreeMap<Key, Outage>,
    refused: u64,
}

impl Outages {
    pub(super) fn table(&self) -> Table {
        Table {
            name: "dns_servers_silent",
            entries: self.outages.len() as u64,
            capacity: OUTAGES as u64,
            evictions: self.refused,
        }
    }

    /// The incident of the server of a lookup, when it answers nothing.
    pub(super) fn of(&self, op: &LookupOp, world: &World) -> Option<&str> {
        self.outages.get(&key(op, world)).map(|outage| outage.id.as_str())
    }
}

/// The server of a lookup.
fn key(op: &LookupOp, world: &World) -> Key {
    let ip = records::address(op.server).to_canonical();
    let own = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let shared = world.known.namespace(op.owner.netns).is_none()
        || world.known.named(&op.owner).is_some_and(|process| process.belongs().is_some());
    (ip, (own || !shared).then_some(op.owner.netns))
}

/// A lookup of a situation that nothing but the server's silence explains.
fn silent<'a>(group: &'a Group, found: Option<&Findings>) -> Option<&'a LookupOp> {
    let found = found?;
    (!group.waiting.is_empty()
        && group.explained_by.is_empty()
        && found.reason(group) == DnsReason::Unanswered
        && found.to_process + found.to_others == 0)
        .then_some(&group.lead)
}

impl DnsUnanswered {
    /// Lookups that wait for a server that is silent to them: by server and program.
    fn silenced(&self, waiting: &[LookupOp], view: &View<'_>) -> BTreeMap<Key, BTreeMap<Program, LookupOp>> {
        let world = view.world;
        let mut found: BTreeMap<Key, BTreeMap<Program, LookupOp>> = BTreeMap::new();
        let mut add = |op: &LookupOp, program: Program| {
            let programs = found.entry(key(op, world)).or_default();
            let first = programs.entry(program).or_insert_with(|| op.clone());
            if op.started_ns < first.started_ns {
                first.clone_from(op);
            }
        };
        for number in self.groups.numbers() {
            let Some(group) = self.groups.get(number) else { continue };
            if let Some(op) = silent(group, self.findings.get(&number)) {
                add(op, group.program());
            }
        }
        // Those that a stalled handshake waits for have no situation here.
        for op in waiting {
            let stalls = |(_, kind): (&str, Kind)| kind == Kind::TlsHandshakeStalled;
            if op.recursive && view.store.live_claim(op.cookie).is_some_and(stalls) {
                add(op, text::program_of(&op.owner, world));
            }
        }
        found
    }

    /// Opens, follows and ends the situations of servers that are silent. `waiting` waits for an answer.
    pub(super) fn outages(&mut self, waiting: &[LookupOp], view: &mut View<'_>) {
        let mut found = self.silenced(waiting, view);
        found.retain(|key, programs| {
            let known = self.outages.outages.contains_key(key);
            (known || programs.len() >= PROGRAMS) && !answers(key, programs, view.world)
        });
        let over: Vec<Key> =
            self.outages.outages.keys().filter(|key| !found.contains_key(*key)).copied().collect();
        for key in over {
            if let Some(mut outage) = self.outages.outages.remove(&key) {
                outage.programs.values_mut().for_each(|sufferer| sufferer.waits = false);
                let report = outages_say::report(&outage, outage.silent_ns, view);
                view.store.over(outage.silent_ns, &outage.id, report);
            }
        }
        for (key, programs) in found {
            self.is_silent(key, &programs, view);
        }
    }

    /// A server answers none of these programs now.
    fn is_silent(&mut self, key: Key, programs: &BTreeMap<Program, LookupOp>, view: &mut View<'_>) {
        let now_ns = view.now_ns;
        let Some(lead) = programs.values().min_by_key(|op| (op.started_ns, op.cookie, op.id)).cloned() else {
            return;
        };
        let full = self.outages.outages.len() >= OUTAGES;
        let outages = &mut self.outages;
        let is_new = !outages.outages.contains_key(&key);
        if is_new && full {
            outages.refused += 1;
            return;
        }
        let outage = outages.outages.entry(key).or_insert_with(|| Outage {
            id: String::new(),
            key,
            programs: BTreeMap::new(),
            left_out: 0,
            lead: lead.clone(),
            began_ns: lead.started_ns,
            silent_ns: now_ns,
            emitted_ns: now_ns,
            emitted_programs: 0,
        });
        outage.silent_ns = now_ns;
        outage.began_ns = outage.began_ns.min(lead.started_ns);
        outage.lead = lead;
        let waiting: BTreeSet<&Program> = programs.keys().collect();
        for (program, sufferer) in &mut outage.programs {
            sufferer.waits = waiting.contains(program);
        }
        for (program, first) in programs {
            if outage.programs.contains_key(program) {
                continue;
            }
            if outage.programs.len() >= SUFFERERS {
                outage.left_out += 1;
                continue;
            }
            outage.programs.insert(program.clone(), Sufferer { first: first.clone(), waits: true });
        }
        let (number, began_ns) = (outage.programs.len(), outage.began_ns);
        let aged = now_ns.saturating_sub(began_ns) >= outage.emitted_ns.saturating_sub(began_ns) * 2;
        let grown = number >= outage.emitted_programs * 2;
        if is_new || aged || grown {
            (outage.emitted_ns, outage.emitted_programs) = (now_ns, number);
            let report = outages_say::report(outage, now_ns, view);
            if is_new {
                outage.id = view.store.open(now_ns, view.world, report);
            } else {
                view.store.update(now_ns, view.world, &outage.id, report);
            }
        }
        let id = outage.id.clone();
        for op in programs.values() {
            view.store.explain(now_ns, view.world, op.cookie, &id);
        }
    }

    /// Whether a situation is one of a server that answers no program, and has no incident of its own.
    pub(super) fn is_listed(&self, number: u64, view: &View<'_>) -> bool {
        let Some(group) = self.groups.get(number) else { return false };
        let silent = silent(group, self.findings.get(&number));
        group.id.is_empty() && silent.is_some_and(|op| self.outages.of(op, view.world).is_some())
    }

    /// The incident that speaks for a situation.
    pub(super) fn spoken_for(&self, number: u64, view: &View<'_>) -> Option<String> {
        let group = self.groups.get(number)?;
        if group.id.is_empty() {
            return self.outages.of(&group.lead, view.world).map(str::to_owned);
        }
        Some(group.id.clone())
    }
}

/// The server has answered one of those that share it since the first of these began to wait.
fn answers(key: &Key, programs: &BTreeMap<Program, LookupOp>, world: &World) -> bool {
    let Some(began_ns) = programs.values().map(|op| op.started_ns).min() else { return false };
    world.answers().iter().any(|heard| {
        heard.at_ns > began_ns
            && records::address(heard.server).to_canonical() == key.0
            && key.1.is_none_or(|netns| heard.owner.netns == netns)
    })
}
