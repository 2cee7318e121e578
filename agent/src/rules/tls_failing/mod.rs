//! `tls_failing`: handshakes of one program with one peer or service end in the same way, again and again: by an alert,
//! closed, or answered with something that is no TLS. A single failure is none, nor are those of a scanner; a load
//! balancer's health check that goes after the server's flight is worth knowing at most. Handshakes that stand still are
//! another rule's.

mod alerts;
mod ending;
mod ends;
mod failing;
mod faked;
#[cfg(test)]
mod faked_tests;
mod parties;
mod remedies;
mod say;
#[cfg(test)]
mod tests;
mod times;

use std::{collections::BTreeMap, net::IpAddr};

use ebpf_probes::{
    abi::Owner,
    probes::tls::{CLIENT, Handshake, stage},
};
use ending::{Ending, role};
use failing::{Failing, Last, SPREAD_NS};
use faked::LocalEnds;
use parties::Parties;

use super::text::program_of;
use crate::{
    domains::{
        Event, Record,
        tls::{self, Role, TlsStep},
    },
    known::bounded::Table,
    pipeline::{
        Diagnose, Rule, View,
        incident::{Kind, TlsFailure},
    },
    records,
    text::host::Name,
    time::SECOND_NS,
};

/// Failures within this long of each other belong together.
const WINDOW_NS: u64 = 60 * SECOND_NS;
/// As many of them open an incident.
const FAILURES: usize = 3;
/// Services, and peers of programs, of which handshakes fail, at most.
const SERVICES: usize = 1024;

pub(super) const RULE: Rule = Rule {
    kind: Kind::TlsFailing,
    about: "handshakes of a program with one peer, or of one service, fail in the same way: the alert and what it means here, or who closed them",
    opens: "3 handshakes of a program with one peer or service fail in the same way within 60 s, scanners left out",
    make: || Box::new(TlsFailing::default()),
};

#[derive(Default)]
struct TlsFailing {
    services: BTreeMap<String, Service>,
    parties: Parties,
    ends: LocalEnds,
    /// Services there were so far.
    numbers: u64,
    /// Those that found no room.
    refused: u64,
}

/// A program with a peer, or with a port of its own.
struct Service {
    number: u64,
    failing: BTreeMap<TlsFailure, Failing>,
}

impl Diagnose for TlsFailing {
    fn tables(&self) -> Vec<Table> {
        let services = Table {
            name: "tls_failing_services",
            entries: self.services.len() as u64,
            capacity: SERVICES as u64,
            evictions: self.refused,
        };
        vec![services, self.parties.table(), self.ends.table()]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Tls(tls::Record::Handshake(TlsStep::Phase, hs)) if hs.stage >= stage::DONE => {
                self.ended(hs, event.boot_ns, view);
            }
            Record::Tick => self.tick(view),
            _ => {}
        }
    }
}

impl TlsFailing {
    fn ended(&mut self, hs: &Handshake, at: u64, view: &mut View<'_>) {
        let ending = ending::of(hs, at);
        // What is completed is news where something fails.
        if ending.is_none() && (hs.stage != stage::DONE || self.services.is_empty()) {
            return;
        }
        let known = &view.world.known;
        let mut owner = hs.owner;
        if owner.process == 0 && hs.role != CLIENT {
            known.adopt(&mut owner, &hs.tuple);
        }
        if owner.process == 0 || !known.is_wanted(&owner) {
            return;
        }
        let sni = view.world.server_name(hs.cookie);
        let key = service(hs, &owner, sni.as_ref(), view);
        let Some(ending) = ending else { return self.completed(&key, hs, at, view) };
        let version = view.world.offered_version(hs.cookie).map(str::to_owned);
        self.failed(&key, &ending, Last { at, hs: *hs, owner, sni, version }, view);
    }

    fn failed(&mut self, key: &str, ending: &Ending, last: Last, view: &mut View<'_>) {
        if !self.services.contains_key(key) && self.services.len() >= SERVICES {
            self.refused += 1;
            return;
        }
        let numbers = &mut self.numbers;
        let service = self.services.entry(key.to_owned()).or_insert_with(|| {
            *numbers += 1;
            Service { number: *numbers, failing: BTreeMap::new() }
        });
        let judge = self.ends.judge(ending, &last.hs, &last.owner);
        let peer = records::address(last.hs.tuple.remote);
        let party = (service.number, peer);
        self.parties.failed(party, last.at, ending, last.version.as_deref(), last.sni.is_some());
        let failing =
            service.failing.entry(ending.failure).or_insert_with(|| Failing::new(ending, last.clone()));
        if failing.id.is_empty() {
            judge.into_iter().for_each(|judge| failing.times.note(judge, view));
            failing.add(ending, last, peer);
        } else if !self.parties.probes(party, ending.failure, failing.role()) {
            let had = failing.total();
            judge.into_iter().for_each(|judge| failing.times.note(judge, view));
            failing.add(ending, last, peer);
            // Again when their number has doubled.
            if failing.total().ilog2() > had.max(1).ilog2() {
                update(key, failing, view);
            }
        }
    }

    /// A handshake was completed. As a client that ends what failed; a service has other clients, too.
    fn completed(&mut self, key: &str, hs: &Handshake, at: u64, view: &mut View<'_>) {
        let Some(service) = self.services.get_mut(key) else { return };
        let peer = records::address(hs.tuple.remote);
        self.parties.completed((service.number, peer));
        if role(hs) == Role::Client {
            for failing in service.failing.values().filter(|failing| !failing.id.is_empty()) {
                over(key, failing, at, (at, "a handshake was completed"), view);
            }
            self.services.remove(key);
            return;
        }
        for failing in service.failing.values_mut() {
            if failing.id.is_empty() && failing.failure != TlsFailure::ServerFlightRefused {
                failing.recent.retain(|failure| failure.peer != peer);
            }
        }
    }

    fn tick(&mut self, view: &mut View<'_>) {
        let parties = &self.parties;
        for (key, service) in &mut self.services {
            let number = service.number;
            service.failing.retain(|failure, failing| {
                let role = failing.role();
                goes_on(key, failing, |peer| parties.probes((number, peer), *failure, role), view)
            });
        }
        self.services.retain(|_, service| !service.failing.is_empty());
    }
}

/// Opens what is due, and ends what is over: `false`.
fn goes_on(key: &str, failing: &mut Failing, probes: impl Fn(IpAddr) -> bool, view: &mut View<'_>) -> bool {
    let now_ns = view.now_ns;
    if failing.id.is_empty() {
        failing.forget_before(now_ns);
        if is_due(failing, &probes, now_ns) {
            failing.recent.retain(|failure| !probes(failure.peer));
            failing.begins();
            failing.clock = say::clock(failing, view).map(|clock| clock.id);
            let report = say::report(&subject(key, failing), failing, view);
            failing.id = view.store.open(now_ns, view.world, report);
        }
        return !failing.recent.is_empty();
    }
    if now_ns.saturating_sub(failing.last.at) >= WINDOW_NS {
        over(key, failing, failing.last.at, (now_ns, "no handshake has failed like this for 60 s"), view);
        return false;
    }
    if failing.recent.iter().all(|failure| probes(failure.peer)) {
        over(key, failing, now_ns, (now_ns, "it fails in several ways by now, as a scanner does"), view);
        return false;
    }
    let clock = say::clock(failing, view).map(|clock| clock.id);
    if clock != failing.clock {
        failing.clock = clock;
        update(key, failing, view);
    }
    true
}

/// Whether there are enough of them.
fn is_due(failing: &Failing, probes: impl Fn(IpAddr) -> bool, now_ns: u64) -> bool {
    let counted = || failing.recent.iter().filter(|failure| !probes(failure.peer));
    let Some(first) = counted().next() else { return false };
    let has_lasted = failing.span_ns() >= SPREAD_NS && now_ns.saturating_sub(first.at) >= 2 * SPREAD_NS;
    counted().count() >= FAILURES && (has_lasted || !failing.takes_time())
}

fn update(key: &str, failing: &Failing, view: &mut View<'_>) {
    let report = say::report(&subject(key, failing), failing, view);
    view.store.update(view.now_ns, view.world, &failing.id, report);
}

/// It is over since a moment, for the reason given.
fn over(key: &str, failing: &Failing, ended_ns: u64, why: (u64, &str), view: &mut View<'_>) {
    let mut report = say::report(&subject(key, failing), failing, view);
    report.evidence.push((why.0, why.1.into()));
    view.store.over(ended_ns, &failing.id, report);
}

fn subject(key: &str, failing: &Failing) -> String {
    format!("{key}|{:?}", failing.failure)
}

/// What handshakes have in common: as a server the program and its port, as a client the program and whom it asks for.
fn service(hs: &Handshake, owner: &Owner, sni: Option<&Name>, view: &View<'_>) -> String {
    let (netns, program, cgroup) = program_of(owner, view.world);
    if hs.role != CLIENT {
        return format!("server|{netns}|{program}|{cgroup}|{}", hs.tuple.local_port);
    }
    let port = hs.tuple.remote_port;
    match sni.filter(|name| name.invalid.is_none()) {
        Some(name) => format!("client|{netns}|{program}|{cgroup}|{}|{port}", name.text),
        None => format!("client|{netns}|{program}|{cgroup}|{}|{port}", records::address(hs.tuple.remote)),
    }
}
