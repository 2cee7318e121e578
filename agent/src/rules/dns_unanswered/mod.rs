//! `dns_unanswered`: lookups of a program get no answer, or late ones, or SERVFAIL, again and again, outside any stalled
//! handshake that they explain. What is found out about the server is [`findings`]' business, what to say [`say`]'s. A
//! lookup that was answered elsewhere, or at a second attempt within the threshold, is healthy; so is one that no process
//! waits for any more. Questions without recursion are a resolver's own search for an answer, and not looked at.

mod advice;
mod due;
mod edns;
#[cfg(test)]
mod edns_tests;
mod failing;
mod findings;
mod groups;
mod looks;
mod lookup;
mod outage;
#[cfg(test)]
mod outage_tests;
mod outages;
mod outages_say;
mod say;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use due::{answered_since, look_at};
use failing::Failing;
use findings::Findings;
use groups::{Followed, Groups};
use looks::Looks;
use lookup::{Bad, Key, key};
use outages::Outages;

use super::{neighbours, resolvers};
use crate::{
    domains::{
        Event, Record,
        dns::{LookupOp, Verdict},
    },
    known::{
        bounded::{Bounded, Table},
        context::Snapshot,
    },
    pipeline::{
        Diagnose, Request, Rule, View,
        incident::{DnsOutcome, Kind},
        report::Report,
        world::World,
    },
};

/// An answer after this long is late.
const LATE_NS: u64 = 1_000_000_000;
/// A question that was last sent this long ago is given up: no resolver waits longer before it asks again.
const GIVEN_UP_NS: u64 = 15_000_000_000;
/// One that was not sent again for this long may be given up: its process is looked at. (glibc asks again after 5 s.)
const QUIET_NS: u64 = 6_000_000_000;
/// What was found out is weighed again after this long.
const WEIGHED_NS: u64 = 1_000_000_000;
/// Lookups that wait for a look at their process at most: what comes beyond is reported without.
const ASKED: usize = 64;
/// Looks asked for at most, at one moment.
const LOOKS: usize = 8;
/// Lookups about which it is decided that they are none of this rule's, at most.
const DECIDED: usize = 4096;

pub(super) const RULE: Rule = Rule {
    kind: Kind::DnsUnanswered,
    about: "DNS lookups of a program get no answer: names, server, whether that server answers others, and what it waits for itself",
    opens: "a lookup is unanswered for 2 s (--dns-stall) and no stalled TLS handshake is explained by it; or 3 within 60 s end late (1 s), with SERVFAIL, or without an answer",
    make: || Box::new(DnsUnanswered::default()),
};

struct DnsUnanswered {
    groups: Groups,
    failing: Failing,
    looks: Looks,
    decided: Bounded<Key, ()>,
    /// Lookups whose process is being looked at first.
    asked: Vec<LookupOp>,
    /// What was found out about each situation.
    findings: HashMap<u64, Findings>,
    /// Servers that answer no program.
    outages: Outages,
}

impl Default for DnsUnanswered {
    fn default() -> Self {
        Self {
            groups: Groups::default(),
            failing: Failing::default(),
            looks: Looks::default(),
            decided: Bounded::new(DECIDED),
            asked: Vec::new(),
            findings: HashMap::new(),
            outages: Outages::default(),
        }
    }
}

impl Diagnose for DnsUnanswered {
    fn tables(&self) -> Vec<Table> {
        vec![
            self.groups.table(),
            self.failing.table(),
            self.looks.table(),
            self.decided.table("dns_unanswered_decided"),
            self.outages.table(),
        ]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            // A datagram's error comes as a connect's end.
            Record::Dns(_) | Record::Connect(_) => {
                let world = view.world;
                for op in world.ended_lookups() {
                    self.ended(op, view);
                }
            }
            Record::Tick => self.tick(view),
            _ => {}
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot, view: &mut View<'_>) {
        self.looks.add(snapshot);
        let asked = |op: &LookupOp| op.cookie == snapshot.cookie;
        self.answered(asked, view);
        let of = |op: &LookupOp| [snapshot.process, snapshot.asked].contains(&op.owner.process);
        for Followed { op, looked_ns, over_tcp } in self.groups.followed() {
            if of(&op) && !over_tcp && looked_ns > 0 && self.looks.is_given_up(&op, looked_ns) {
                self.ends(&op, view.now_ns, DnsOutcome::GivenUp, view);
            }
        }
    }
}

impl DnsUnanswered {
    fn tick(&mut self, view: &mut View<'_>) {
        // The looks that were asked for have come, or will not.
        self.answered(|_| true, view);
        let (world, now_ns) = (view.world, view.now_ns);
        let mut waiting = world.waiting_lookups(now_ns, world.known.dns_stall_ns());
        // Who waits for a process of this host is reported after that.
        waiting.sort_by_key(|op| (resolvers::is_local(op), op.started_ns, op.cookie, op.id));
        self.settle(&waiting, view);
        let mut looks = 0;
        for op in &waiting {
            if self.groups.of(&key(op)).is_some() {
                self.groups.known(op);
            } else if self.is_due(op, view) {
                if self.asked.len() < ASKED && looks < LOOKS && op.owner.process != 0 {
                    looks += 1;
                    look_at(op, view);
                    self.asked.push(op.clone());
                } else {
                    self.decide(op.clone(), view);
                }
            }
        }
        self.over_tcp(view);
        for bad in self.failing.due(now_ns, world) {
            self.fails(&bad, view);
        }
        for number in self.groups.numbers() {
            self.compare(number, view);
            self.refresh(number, view);
        }
        self.outages(&waiting, view);
    }

    /// A lookup of a process that waits for it.
    fn follow(&mut self, followed: Followed, view: &mut View<'_>) {
        let op = followed.op.clone();
        let Some(number) = self.groups.place(&op, view.world) else { return };
        if !self.groups.follow(number, followed) {
            return;
        }
        let explained_by = neighbours::explaining(&say::as_connect(&op), view);
        let Some(group) = self.groups.get_mut(number) else { return };
        neighbours::merge(&mut group.explained_by, explained_by);
        let (is_new, due) = (group.id.is_empty(), group.total.is_power_of_two());
        if is_new {
            self.open(number, view);
        }
        let Some(id) = self.spoken_for(number, view) else { return };
        let stalls = |(_, kind): (&str, Kind)| kind == Kind::TlsHandshakeStalled;
        if view.store.live_claim(op.cookie).is_some_and(stalls) {
            // Its handshake has an incident, which this one explains.
            view.store.explain(view.now_ns, view.world, op.cookie, &id);
        } else {
            view.store.claim(op.cookie, &id);
        }
        if !is_new && due {
            self.emit(number, view);
        }
    }

    fn open(&mut self, number: u64, view: &mut View<'_>) {
        self.weigh(number, view.now_ns, view.world);
        if self.is_listed(number, view) {
            return;
        }
        let Some(report) = self.report(number, view.now_ns, view) else { return };
        let id = view.store.open(view.now_ns, view.world, report);
        if let Some(group) = self.groups.get_mut(number) {
            group.id = id;
        }
    }

    /// What no longer waits, of the lookups that are followed: `waiting` do.
    fn settle(&mut self, waiting: &[LookupOp], view: &mut View<'_>) {
        let now_ns = view.now_ns;
        let mut looks = 0;
        let live: HashMap<Key, &LookupOp> = waiting.iter().map(|op| (key(op), op)).collect();
        for Followed { op, looked_ns, over_tcp } in self.groups.followed() {
            if over_tcp {
                let connect = view.world.connect_op(op.cookie);
                if let Some(ended_ns) = connect.map_or(Some(now_ns), |connect| connect.ended_ns) {
                    let established = connect.is_some_and(|connect| connect.connect.established != 0);
                    let outcome = if established { DnsOutcome::Slow } else { DnsOutcome::GivenUp };
                    self.ends(&op, ended_ns, outcome, view);
                }
                continue;
            }
            let op = live.get(&key(&op)).map_or(&op, |now| *now).clone();
            if let Some(heard) = answered_since(&op, view.world) {
                let at_ns = heard.at_ns;
                self.ends(&op, at_ns, DnsOutcome::AnsweredElsewhere, view);
                continue;
            }
            let quiet_ns = now_ns.saturating_sub(op.sent_ns);
            if !live.contains_key(&key(&op)) || quiet_ns >= GIVEN_UP_NS {
                self.ends(&op, now_ns, DnsOutcome::GivenUp, view);
            } else if quiet_ns >= QUIET_NS && looked_ns < op.sent_ns.saturating_add(QUIET_NS) && looks < LOOKS
            {
                looks += 1;
                self.groups.looked(&key(&op), now_ns);
                look_at(&op, view);
            }
        }
    }

    /// A lookup ended slowly or badly.
    fn ended(&mut self, op: &LookupOp, view: &mut View<'_>) {
        let ended_ns = op.ended_ns.unwrap_or(view.now_ns);
        let outcome = match op.verdict {
            None => DnsOutcome::Failed,
            Some(Verdict::ServerFailure) => DnsOutcome::Servfail,
            Some(_) => DnsOutcome::Slow,
        };
        self.asked.retain(|asked| key(asked) != key(op));
        let late = ended_ns.saturating_sub(op.started_ns) >= LATE_NS;
        let is_followed = self.groups.of(&key(op)).is_some();
        if is_followed {
            self.ends(op, ended_ns, outcome, view);
        } else if op.recursive
            && view.world.known.is_wanted(&op.owner)
            && self.decided.get(&key(op)).is_none()
            && (outcome == DnsOutcome::Servfail || (outcome == DnsOutcome::Slow && late))
        {
            self.bad(Bad { op: op.clone(), at_ns: ended_ns, outcome, followed: false }, view);
        }
    }

    /// A lookup that is followed no longer waits.
    fn ends(&mut self, op: &LookupOp, at_ns: u64, outcome: DnsOutcome, view: &mut View<'_>) {
        self.decided.insert(key(op), ());
        let Some(number) = self.groups.end(&key(op), at_ns, outcome) else { return };
        self.bad(Bad { op: op.clone(), at_ns, outcome, followed: true }, view);
        self.over(number, view);
    }

    /// A lookup ended badly: one of several, perhaps.
    fn bad(&mut self, bad: Bad, view: &mut View<'_>) {
        let subject = lookup::subject(&bad.op, view.world);
        if let Some(group) = self.groups.about(&subject).and_then(|number| self.groups.get_mut(number))
            && group.failing
            && !bad.followed
        {
            group.adds(&bad);
        }
        if self.failing.add(bad, view.now_ns, view.world) {
            view.requests.push(Request::Answers);
        }
    }

    /// Lookups of one program at one server keep ending badly.
    fn fails(&mut self, bad: &[Bad], view: &mut View<'_>) {
        let Some(last) = bad.last() else { return };
        let Some(number) = self.groups.place(&last.op, view.world) else { return };
        let Some(group) = self.groups.get_mut(number) else { return };
        group.failing = true;
        if !group.id.is_empty() {
            return;
        }
        bad.iter().for_each(|bad| group.adds(bad));
        group.lead.clone_from(&last.op);
        self.open(number, view);
    }

    /// A situation in which nothing waits is over, unless its lookups keep ending badly.
    fn over(&mut self, number: u64, view: &mut View<'_>) {
        let Some(group) = self.groups.get(number) else { return };
        let is_many = self.failing.is_many(&group.subject, view.now_ns);
        if !group.waiting.is_empty() || (group.failing && is_many) {
            return;
        }
        let (id, ended_ns) = (group.id.clone(), group.bad_ns);
        if let Some(report) = self.report(number, ended_ns, view) {
            view.store.over(ended_ns, &id, report);
        }
        self.groups.close(number);
        self.findings.remove(&number);
    }

    /// Weighs a situation again; emits it when the conclusion has changed, or its age has doubled.
    fn refresh(&mut self, number: u64, view: &mut View<'_>) {
        let now_ns = view.now_ns;
        self.over(number, view);
        let Some(group) = self.groups.get(number) else { return };
        if now_ns.saturating_sub(group.weighed_ns) < WEIGHED_NS {
            return;
        }
        let (began_ns, emitted_ns, before) = (group.lead.started_ns, group.emitted_ns, group.emitted.clone());
        let aged = !group.waiting.is_empty()
            && now_ns.saturating_sub(began_ns) >= emitted_ns.saturating_sub(began_ns).saturating_mul(2);
        let explained_by = neighbours::explaining(&say::as_connect(&group.lead), view);
        if let Some(group) = self.groups.get_mut(number).filter(|group| !group.waiting.is_empty()) {
            neighbours::merge(&mut group.explained_by, explained_by);
        }
        self.weigh(number, now_ns, view.world);
        if self.groups.get(number).is_some_and(|group| group.id.is_empty() && !group.waiting.is_empty()) {
            // It was the silent server's alone, which may be so no more.
            self.open(number, view);
            return;
        }
        let changed = self.groups.get(number).is_some_and(|group| group.emitted != before);
        if aged || changed {
            self.emit(number, view);
        }
    }

    /// Whether queries without EDNS are answered is known by answers that the kernel holds back.
    fn compare(&mut self, number: u64, view: &mut View<'_>) {
        let Some(group) = self.groups.get_mut(number) else { return };
        let queries = group.lead.edns_queries;
        if queries > group.compared && !group.waiting.is_empty() {
            group.compared = queries;
            view.requests.push(Request::Answers);
        }
    }

    fn weigh(&mut self, number: u64, now_ns: u64, world: &World) {
        let Some(group) = self.groups.get_mut(number) else { return };
        let found = Findings::of(group, now_ns, world).or(self.findings.remove(&number));
        group.weighed_ns = now_ns;
        if group.emitted.is_none() || !group.waiting.is_empty() {
            group.emitted = Some(found.conclusion(group));
        }
        self.findings.insert(number, found);
    }

    fn emit(&mut self, number: u64, view: &mut View<'_>) {
        let Some(id) = self.groups.get(number).map(|group| group.id.clone()) else { return };
        if let Some(report) = self.report(number, view.now_ns, view) {
            view.store.update(view.now_ns, view.world, &id, report);
        }
    }

    /// The account of a situation.
    fn report(&mut self, number: u64, now_ns: u64, view: &View<'_>) -> Option<Report> {
        if let Some(group) = self.groups.get_mut(number) {
            group.emitted_ns = now_ns;
        }
        let (group, found) = (self.groups.get(number)?, self.findings.get(&number)?);
        Some(say::report(group, found, now_ns, view))
    }
}
