//! `connect_failing`: the same program fails to connect to the same destination again and again, or to many in the
//! same way. Each outcome is counted on its own, for each has its own culprit. Failures that are part of a working
//! fallback (the other address family, the next address of a name) are healthy and do not count.

mod advice;
mod groups;
mod say;
#[cfg(test)]
mod tests;

use ebpf_probes::{
    abi::{AF_INET6, IPPROTO_TCP},
    probes::connect::Connect,
};
use groups::{Alike, Failure, Groups};

use super::{neighbours, text};
use crate::{
    domains::{
        Event, Record,
        connect::{self, ConnectStep, Outcome, outcome as outcome_of},
    },
    known::{
        bounded::{Bounded, Table},
        context::Reach,
        request::{Request, Target},
    },
    pipeline::{Diagnose, Rule, View, incident::Kind},
    records,
};

/// Failures within this long of each other belong together.
const WINDOW_NS: u64 = 60_000_000_000;
/// As many of them open an incident.
const FAILURES: usize = 3;
/// A failure waits this long for the same process to succeed elsewhere: then it was a fallback at work.
const GRACE_NS: u64 = 200_000_000;
/// A connect given up sooner than this lost a race (RFC 8305); it did not fail.
const IMPATIENT_NS: u64 = 1_000_000_000;
/// Destinations followed at most.
const DESTINATIONS: usize = 1024;
/// Failures remembered of each at most.
const REMEMBERED: usize = 64;

pub(super) const RULE: Rule = Rule {
    kind: Kind::ConnectFailing,
    about: "a program fails to connect to the same destinations again and again, outcome by outcome",
    opens: "3 failures in 60 s (refused, reset, timed out, unreachable, denied, given up after 1 s or more)",
    make: || {
        Box::new(ConnectFailing {
            destinations: Bounded::new(DESTINATIONS),
            groups: Groups::default(),
            due: Vec::new(),
        })
    },
};

struct ConnectFailing {
    destinations: Bounded<String, Failing>,
    groups: Groups,
    /// Failures that may still prove to be part of a fallback, by process and port.
    due: Vec<Due>,
}

#[derive(Clone)]
struct Due {
    connect: Connect,
    ended_ns: u64,
}

/// Failures at one destination.
#[derive(Default)]
struct Failing {
    /// Those within the window, oldest first.
    failures: Vec<Failure>,
    /// The situation they are part of.
    group: Option<u64>,
}

impl Diagnose for ConnectFailing {
    fn tables(&self) -> Vec<Table> {
        vec![self.destinations.table("connect_failing_destinations"), self.groups.table()]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            Record::Connect(connect::Record::Connect(ConnectStep::End, connect))
                if connect.tuple.protocol == IPPROTO_TCP =>
            {
                self.ended(connect, event.boot_ns, view);
            }
            Record::Tick => self.tick(view),
            _ => {}
        }
    }

    fn reached(&mut self, reach: &Reach, view: &mut View<'_>) {
        let about = |connect: &Connect| {
            connect.owner.netns == reach.target.netns
                && records::address(connect.tuple.remote) == reach.target.address
                && connect.tuple.remote_port == reach.target.port
        };
        let found = self.groups.iter_mut().find(|(_, group)| about(&group.last) && !group.id.is_empty());
        if let Some((number, group)) = found {
            group.reach = Some(reach.clone());
            let (number, id) = (*number, group.id.clone());
            if let Some(report) = say::report(&self.groups, number, view) {
                view.store.update(view.now_ns, view.world, &id, report);
            }
        }
    }
}

impl ConnectFailing {
    fn ended(&mut self, connect: &Connect, ended_ns: u64, view: &mut View<'_>) {
        let (outcome, _) = outcome_of(connect);
        if outcome == Outcome::Established {
            // What failed on the way to this success was a fallback at work.
            self.due.retain(|due| {
                due.connect.owner.process != connect.owner.process
                    || due.connect.tuple.remote_port != connect.tuple.remote_port
                    || due.connect.tuple.remote == connect.tuple.remote
            });
            if !self.destinations.is_empty() {
                self.succeeded(connect, ended_ns, view);
            }
            return;
        }
        let lasted = ended_ns.saturating_sub(connect.started_ns);
        let no_ipv6 = outcome == Outcome::NetUnreachable
            && connect.tuple.family == AF_INET6
            && records::address(connect.tuple.remote).is_ipv6();
        let counts = outcome != Outcome::Unseen
            && !(no_ipv6 || (outcome == Outcome::Aborted && lasted < IMPATIENT_NS));
        if counts && view.world.known.is_wanted(&connect.owner) && self.due.len() < DESTINATIONS {
            self.due.push(Due { connect: *connect, ended_ns });
        }
    }

    fn tick(&mut self, view: &mut View<'_>) {
        let ripe = |due: &Due| view.now_ns.saturating_sub(due.ended_ns) >= GRACE_NS;
        let (ripe, young): (Vec<Due>, Vec<Due>) = std::mem::take(&mut self.due).into_iter().partition(ripe);
        self.due = young;
        for due in ripe {
            self.failed(&due, view);
        }
        self.quiet(view);
    }

    fn failed(&mut self, due: &Due, view: &mut View<'_>) {
        let subject = text::subject(&due.connect, view.world);
        let is_emitted = self.destinations.get(&subject).is_some_and(|failing| failing.group.is_some());
        // Part of a situation that is reported already.
        if !is_emitted && view.store.claimed(due.connect.cookie).is_some() {
            return;
        }
        if self.destinations.get(&subject).is_none() {
            self.destinations.insert(subject.clone(), Failing::default());
        }
        let Some(failing) = self.destinations.get_mut(&subject) else { return };
        let (outcome, errno) = outcome_of(&due.connect);
        failing.failures.retain(|(at, ..)| due.ended_ns.saturating_sub(*at) < WINDOW_NS);
        if failing.failures.len() >= REMEMBERED {
            failing.failures.remove(0);
        }
        let failure = (due.ended_ns, outcome, due.ended_ns.saturating_sub(due.connect.started_ns));
        failing.failures.push(failure);
        let explained_by = match neighbours::explaining(&due.connect, view) {
            ids if say::is_answer(outcome) => neighbours::answering(ids, view),
            ids => ids,
        };
        if let Some(number) = failing.group {
            if let Some(group) = self.groups.get_mut(number) {
                group.add(&due.connect, failure, errno);
                neighbours::merge(&mut group.explained_by, explained_by);
                self.emit(number, view);
            }
            return;
        }
        if failing.failures.len() < FAILURES {
            return;
        }
        let failures = failing.failures.clone();
        let alike: Alike = (text::program(&due.connect, view.world), outcome, due.connect.errno);
        let known = self.groups.alike(&alike);
        let Some(number) = known.or_else(|| self.groups.begin(&subject, alike, failures[0].0)) else {
            return;
        };
        failing.group = Some(number);
        let Some(group) = self.groups.get_mut(number) else { return };
        let had = group.total();
        group.live.insert(subject);
        for failure in &failures {
            group.add(&due.connect, *failure, errno.clone());
        }
        neighbours::merge(&mut group.explained_by, explained_by);
        if known.is_none() {
            let Some(report) = say::report(&self.groups, number, view) else { return };
            let id = view.store.open(view.now_ns, view.world, report);
            if let Some(group) = self.groups.get_mut(number) {
                group.id = id;
            }
            if advice::needs_a_look(outcome, &due.connect) {
                view.requests.push(Request::Reach(Target {
                    netns: due.connect.owner.netns,
                    process: due.connect.owner.process,
                    address: records::address(due.connect.tuple.remote),
                    port: due.connect.tuple.remote_port,
                }));
            }
        } else if group.total().ilog2() > had.max(1).ilog2() {
            self.update(number, view);
        }
    }

    /// Emits a situation again when the number of its failures has doubled.
    fn emit(&mut self, number: u64, view: &mut View<'_>) {
        if self.groups.get(number).is_some_and(|group| group.total().is_power_of_two()) {
            self.update(number, view);
        }
    }

    fn update(&mut self, number: u64, view: &mut View<'_>) {
        let id = self.groups.get(number).map(|group| group.id.clone()).unwrap_or_default();
        if let Some(report) = say::report(&self.groups, number, view) {
            view.store.update(view.now_ns, view.world, &id, report);
        }
    }

    /// A success ends it, when no other destination of it is failing.
    fn succeeded(&mut self, connect: &Connect, ended_ns: u64, view: &mut View<'_>) {
        let subject = text::subject(connect, view.world);
        if let Some(Failing { group: Some(number), .. }) = self.destinations.remove(&subject) {
            self.leaves(number, &subject, ended_ns, (ended_ns, "a connect succeeded"), view);
        }
    }

    /// No attempt for a whole window: it is over, whatever it was.
    fn quiet(&mut self, view: &mut View<'_>) {
        let now_ns = view.now_ns;
        let over: Vec<String> = self
            .destinations
            .iter()
            .filter(|(_, failing)| {
                failing.failures.last().is_none_or(|(at, ..)| now_ns.saturating_sub(*at) >= WINDOW_NS)
            })
            .map(|(subject, _)| subject.clone())
            .collect();
        for subject in over {
            let Some(failing) = self.destinations.remove(&subject) else { continue };
            let last_ns = failing.failures.last().map_or(now_ns, |(at, ..)| *at);
            if let Some(number) = failing.group {
                self.leaves(number, &subject, last_ns, (now_ns, "no attempt for 60 s"), view);
            }
        }
        // Destinations that had to give way to others leave nothing behind that could end their situation.
        let stale: Vec<(u64, String)> = self
            .groups
            .iter_mut()
            .filter(|(_, group)| {
                now_ns.saturating_sub(group.recent.last().map_or(0, |(at, ..)| *at)) >= WINDOW_NS
            })
            .flat_map(|(number, group)| group.live.iter().map(|subject| (*number, subject.clone())))
            .collect();
        for (number, subject) in stale {
            if self.destinations.get(&subject).is_none() {
                self.leaves(number, &subject, now_ns, (now_ns, "no attempt for 60 s"), view);
            }
        }
    }

    /// A destination no longer fails; the last one ends the incident, for the reason given.
    fn leaves(&mut self, number: u64, subject: &str, ended_ns: u64, why: (u64, &str), view: &mut View<'_>) {
        let Some(group) = self.groups.get_mut(number) else { return };
        group.live.remove(subject);
        if !group.live.is_empty() {
            return;
        }
        let id = group.id.clone();
        if let Some(mut report) = say::report(&self.groups, number, view) {
            report.evidence.push((why.0, why.1.into()));
            view.store.over(ended_ns, &id, report);
        }
        self.groups.close(number);
    }
}
