//! `connect_failing`: the same program fails to connect to the same destination again and again. Each
//! outcome is counted on its own, for each has its own culprit. Failures that are part of a working
//! fallback (the other address family, the next address of a name) are healthy and do not count.

use std::collections::BTreeMap;

use ebpf_probes::{
    abi::{AF_INET6, IPPROTO_TCP},
    probes::connect::Connect,
};

use super::{Diagnose, Rule, neighbours, text};
use crate::{
    correlate::{
        View,
        incident::{Cause, CauseKind, Confidence, ConnectFailingDetails, Details, Kind, Severity},
        remedy::Remedy,
        report::Report,
    },
    enrich::{
        bounded::{Bounded, Table},
        connect::outcome as outcome_of,
    },
    event::{self, ConnectStep, Event, What},
    fact::{Endpoint, Outcome, Process},
    text::{shell::Command, shown},
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
    about: "the same program fails to connect to the same destination again and again, outcome by outcome",
    opens: "3 failures in 60 s (refused, reset, timed out, unreachable, denied, given up after 1 s or more)",
    make: || Box::new(ConnectFailing { destinations: Bounded::new(DESTINATIONS), due: Vec::new() }),
};

struct ConnectFailing {
    destinations: Bounded<String, Failing>,
    /// Failures that may still prove to be part of a fallback, by process and port.
    due: Vec<Due>,
}

#[derive(Clone)]
struct Due {
    connect: Connect,
    ended_ns: u64,
}

#[derive(Default)]
struct Failing {
    /// Failures within the window, oldest first: when, what, how long it took.
    failures: Vec<(u64, Outcome, u64)>,
    last: Connect,
    errno: Option<String>,
    id: Option<String>,
    since_open: BTreeMap<Outcome, u64>,
    began_ns: u64,
}

impl Diagnose for ConnectFailing {
    fn tables(&self) -> Vec<Table> {
        vec![self.destinations.table("connect_failing_destinations")]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        match &event.what {
            What::Connect(ConnectStep::End, connect) if connect.tuple.protocol == IPPROTO_TCP => {
                self.ended(connect, event.boot_ns, view);
            }
            What::Tick => self.tick(view),
            _ => {}
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
            && event::address(connect.tuple.remote).is_ipv6();
        let counts = !(no_ipv6 || (outcome == Outcome::Aborted && lasted < IMPATIENT_NS));
        if counts && view.world.is_wanted(&connect.owner) && self.due.len() < DESTINATIONS {
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
        let is_told = self.destinations.get(&subject).is_some_and(|failing| failing.id.is_some());
        // Part of a situation that is told already.
        if !is_told && view.store.claimed(due.connect.cookie).is_some() {
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
        let lasted = due.ended_ns.saturating_sub(due.connect.started_ns);
        failing.failures.push((due.ended_ns, outcome, lasted));
        (failing.last, failing.errno) = (due.connect, errno);
        if let Some(id) = &failing.id {
            *failing.since_open.entry(outcome).or_default() += 1;
            let total: u64 = failing.since_open.values().sum();
            if total.is_power_of_two() {
                let report = failing.report(&subject, view);
                view.store.update(view.now_ns, view.world, id, report);
            }
        } else if failing.failures.len() >= FAILURES {
            failing.began_ns = failing.failures[0].0;
            for (_, outcome, _) in &failing.failures {
                *failing.since_open.entry(*outcome).or_default() += 1;
            }
            let report = failing.report(&subject, view);
            failing.id = Some(view.store.open(view.now_ns, view.world, report));
        }
    }

    /// A success ends it.
    fn succeeded(&mut self, connect: &Connect, ended_ns: u64, view: &mut View<'_>) {
        let subject = text::subject(connect, view.world);
        if let Some(failing) = self.destinations.remove(&subject)
            && let Some(id) = &failing.id
        {
            let mut report = failing.report(&subject, view);
            report.evidence.push((ended_ns, "a connect succeeded".into()));
            view.store.over(ended_ns, id, report);
        }
    }

    /// Nobody tried for a whole window: it is over, whatever it was.
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
            if let Some(id) = &failing.id {
                let mut report = failing.report(&subject, view);
                report.evidence.push((now_ns, "nobody has tried again for 60 s".into()));
                let last_ns = failing.failures.last().map_or(now_ns, |(at, ..)| *at);
                view.store.over(last_ns, id, report);
            }
        }
    }
}

impl Failing {
    fn report(&self, subject: &str, view: &View<'_>) -> Report {
        let (connect, world) = (&self.last, view.world);
        let destination = world.at(connect.tuple.remote, connect.tuple.remote_port, &connect.owner);
        let process = world.named(&connect.owner);
        let total: u64 = self.since_open.values().sum();
        let worst = self.since_open.iter().max_by_key(|(_, count)| **count).map(|(outcome, _)| *outcome);
        let worst = worst.unwrap_or(Outcome::Failed);
        let (mut why, mut remedies) = advice(worst, &destination, connect, view);
        let (last_ns, _, lasted) = self.failures.last().copied().unwrap_or((self.began_ns, worst, 0));
        let evidence = self
            .failures
            .iter()
            .map(|(at, outcome, lasted)| {
                (
                    *at,
                    format!("connect {} after {}", outcome.name().replace('_', " "), text::duration(*lasted)),
                )
            })
            .collect();
        let caused_by = neighbours::explaining(connect, view);
        if !caused_by.is_empty() {
            why = "A neighbour on the way does not answer, or is not where this host believes: nothing is wrong with either end.".to_owned();
            remedies = neighbours::remedies(&caused_by, view);
        }
        Report {
            kind: Kind::ConnectFailing,
            subject: subject.to_owned(),
            severity: Severity::Warning,
            began_ns: self.began_ns,
            count: total,
            summary: self.summary(process.as_ref(), &destination, last_ns),
            process,
            why: vec![why],
            cause: Some(Cause {
                kind: if caused_by.is_empty() { CauseKind::OutboundConnect } else { CauseKind::Neighbour },
                confidence: Confidence::Certain,
                ..text::cause(connect, world, worst.name(), lasted)
            }),
            caused_by,
            remedies,
            evidence,
            details: Details::ConnectFailing(ConnectFailingDetails {
                destination,
                outcomes: self.since_open.clone(),
                errno: self.errno.clone(),
                last_attempt_ms: lasted / 1_000_000,
            }),
        }
    }

    fn summary(&self, process: Option<&Process>, destination: &Endpoint, last_ns: u64) -> String {
        let who = process.map_or_else(|| "somebody".to_owned(), text::process);
        let outcomes: Vec<String> = self
            .since_open
            .iter()
            .map(|(outcome, count)| format!("{} {}", outcome.name().replace('_', " "), text::times(*count)))
            .collect();
        let span = text::duration(last_ns.saturating_sub(self.began_ns));
        let errno = self.errno.as_ref().map(|errno| format!(", last {errno}")).unwrap_or_default();
        format!(
            "{who}'s connects to {} fail: {} within {span}{errno}.",
            text::place(destination),
            outcomes.join(", ")
        )
    }
}

/// Why an outcome happens, and what to do about it.
fn advice(outcome: Outcome, to: &Endpoint, connect: &Connect, view: &View<'_>) -> (String, Vec<Remedy>) {
    let (ip, port) = (to.ip, to.port);
    let (why, remedy): (String, Remedy) = match outcome {
        Outcome::Refused => (
            format!(
                "{ip} answers with a reset: it is up, and nobody listens on port {port} (or a firewall rejects)."
            ),
            Remedy::from(format!(
                "start the service on {}, or correct the address; there: ",
                text::address(&Endpoint { ip, port, name: None })
            ))
            .and(Command::new("ss").arg("-ltn").arg(format!("sport = :{port}"))),
        ),
        Outcome::Reset => (
            format!("{ip} or something between tears the connection down while it is made."),
            format!("look for a proxy, a load balancer without backends or a full backlog at {ip}:{port}")
                .into(),
        ),
        Outcome::TimedOut | Outcome::Aborted if connect.drops > 0 => {
            ("This host's own kernel drops the packets.".into(), text::allow_here(ip, port))
        }
        Outcome::TimedOut | Outcome::Aborted => (
            "Nobody answers: a firewall that drops, a missing route back or a dead host.".into(),
            Remedy::from(format!("allow tcp/{port} to {ip} on the way: ")).and(text::route_get(ip)),
        ),
        Outcome::HostUnreachable => {
            let silent = view.world.last_silent_neighbour(connect.owner.netns, view.now_ns);
            match silent {
                Some((next_hop, silent)) => (
                    format!("{next_hop} does not answer ARP or NDP on {}.", shown(&silent.device)),
                    text::silent_neighbour(next_hop, &silent.device),
                ),
                None => (
                    format!("No neighbour answers for {ip}, or a router says it cannot reach it."),
                    Remedy::from("see which neighbour is asked for: ").and(text::route_get(ip)),
                ),
            }
        }
        Outcome::NetUnreachable => (
            format!("This host has no route to {ip}."),
            Remedy::from("add the route or a default gateway in that network namespace: ")
                .and(text::route_get(ip)),
        ),
        Outcome::Denied => (
            "A policy of this host refuses the call: a cgroup program, seccomp or a security module.".into(),
            Remedy::from(format!("find the policy that denies tcp/{port} to {ip} (audit log): "))
                .and(Command::new("bpftool").words("cgroup tree")),
        ),
        Outcome::Failed | Outcome::Established => (
            "The kernel refuses for another reason.".into(),
            Remedy::from("see what the process is told: ")
                .and(Command::new("strace").words("-e trace=connect -p").arg(connect.owner.process)),
        ),
    };
    (why, vec![remedy])
}
