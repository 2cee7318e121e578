//! What an incident about unanswered connects says: who, where to, who swallows the packets, and what to do.

use std::net::IpAddr;

use super::groups::{Group, Groups};
use ebpf_probes::probes::connect::Connect;

use crate::{
    domains::connect::outcome as outcome_of,
    fact::{BEFORE_START, Endpoint},
    pipeline::{
        View,
        incident::{Cause, CauseKind, ConnectStalledDetails, Details, Kind, Severity, StalledDestination},
        remedy::Remedy,
        report::Report,
    },
    records,
    rules::{
        after_handshake::{Finished, Validation},
        biography::{Fate, Past, past},
        drops, families, neighbours, resolvers, text,
    },
};

/// Destinations an incident lists.
const WORST: usize = 10;

/// The account of a situation at `now_ns`; `ended` is its last connect as it ended. `None` when nothing waits.
pub(super) fn report(
    groups: &Groups,
    finished: &Finished,
    number: u64,
    now_ns: u64,
    ended: Option<&Connect>,
    view: &View<'_>,
) -> Option<Report> {
    let (group, connect) = (groups.get(number)?, groups.lead(number)?);
    let validation = finished.validation(connect, view).filter(|_| group.explained_by.is_empty());
    let says = Says { group, connect, validation, now_ns, ended, view };
    Some(says.report(groups.waiting(number)))
}

struct Says<'a> {
    group: &'a Group,
    /// The connect that waits longest.
    connect: &'a Connect,
    /// For whose sake it connects, when that is known: to validate a peer's certificate.
    validation: Option<Validation>,
    now_ns: u64,
    ended: Option<&'a Connect>,
    view: &'a View<'a>,
}

impl Says<'_> {
    fn report(&self, waiting: u64) -> Report {
        let (connect, now_ns, world) = (self.connect, self.now_ns, self.view.world);
        let destination = world.known.destination(connect);
        let process = world.known.named(&connect.owner);
        let who = process.as_ref().map_or_else(|| "a process".to_owned(), text::process);
        let age = now_ns.saturating_sub(connect.started_ns);
        let caused_by = self.group.explained_by.clone();
        let fate = if caused_by.is_empty() {
            drops::fate(connect, world)
        } else {
            format!("{}, because a neighbour entry on the way is wrong", drops::fate(connect, world))
        };
        let (mut why, mut remedies) = self.advice(&destination);
        if let Some(validation) = &self.validation {
            remedies.extend(validation.remedies.iter().cloned());
            why.insert(0, validation.why.clone());
        }
        if let Some(words) = resolvers::over_tcp(connect, world) {
            why.insert(0, words);
        }
        let mut evidence =
            vec![(connect.started_ns, format!("{who} connects to {}", text::place(&destination)))];
        let past = self.past();
        let blamed = past.as_ref().and_then(|past| past.blamed).filter(|_| caused_by.is_empty());
        if let Some(past) = past {
            past.reported(&mut why, &mut remedies, &mut evidence);
        }
        evidence.extend(self.validation.iter().map(|validation| validation.seen.clone()));
        if connect.retries > 0 || connect.drops > 0 {
            evidence.push((now_ns, fate.clone()));
        }
        if let Some(end) = self.ended {
            evidence.push((now_ns, format!("it ended: {}", outcome(end))));
        }
        Report {
            kind: Kind::ConnectStalled,
            subject: self.group.subject.clone(),
            severity: Severity::Warning,
            began_ns: connect.started_ns,
            count: self.group.total,
            process,
            summary: self.summary(&who, &destination, &fate),
            why,
            cause: Some(Cause {
                kind: match (caused_by.is_empty(), blamed) {
                    (true, None) => drops::cause(connect, world),
                    _ => CauseKind::Neighbour,
                },
                confidence: match blamed {
                    Some(confidence) => confidence,
                    None => neighbours::confidence(&caused_by, self.view),
                },
                ..text::cause(connect, world, self.ended.map_or("pending", outcome), age)
            }),
            caused_by,
            remedies,
            evidence,
            details: Details::ConnectStalled(ConnectStalledDetails {
                destination,
                pending_ms: age / 1_000_000,
                waiting: if self.ended.is_some() { 0 } else { waiting },
                syn_retransmits: connect.retries,
                dropped_by_host: connect.drops,
                drop_reason: text::drop_reason(connect, world),
                since_before_start: connect.is_adopted(),
                destinations: self.destinations(),
                worst: self.worst(),
                validates: self.validation.iter().flat_map(|validation| validation.peers.clone()).collect(),
            }),
        }
    }

    /// What became of the neighbour's entry, where nothing else explains the silence.
    fn past(&self) -> Option<Past> {
        let (connect, view) = (self.connect, self.view);
        if !neighbours::says_nothing_of_entries(&self.group.explained_by, view) || connect.drops > 0 {
            return None;
        }
        let is_silent = connect.is_seen() && view.world.stray_answer(connect).is_none();
        // The neighbour's own host answers, or a router on the way.
        let fate = if is_silent && self.destinations() == 1 { Fate::Silent } else { Fate::Other };
        past(connect, connect.started_ns, fate, view)
    }

    fn destinations(&self) -> u64 {
        self.group.destinations.len() as u64
    }

    fn worst(&self) -> Vec<StalledDestination> {
        if self.destinations() < 2 {
            return vec![];
        }
        let of = |((ip, port), tally): ((std::net::IpAddr, u16), super::groups::Tally)| StalledDestination {
            destination: self.view.world.known.at(records::address_bytes(ip), port, &self.connect.owner),
            waiting: if self.ended.is_some() { 0 } else { tally.waiting },
            count: tally.total,
            pending_ms: self.now_ns.saturating_sub(tally.since_ns) / 1_000_000,
        };
        self.group.worst(WORST).into_iter().map(of).collect()
    }

    fn summary(&self, who: &str, destination: &Endpoint, fate: &str) -> String {
        let age = text::duration(self.now_ns.saturating_sub(self.connect.started_ns));
        let place = text::place(destination);
        let over = self.ended.is_some();
        let since = if self.connect.is_adopted() { BEFORE_START } else { "" };
        match self.destinations() {
            0 | 1 => {
                let verb = if over { "was unanswered" } else { "is unanswered" };
                format!("{who}'s connect to {place} {verb} after {age}{since}: {fate}.")
            }
            many => {
                let verb = if over { "were unanswered" } else { "are unanswered" };
                let more = if self.group.left_out > 0 { "more than " } else { "" };
                format!(
                    "{who}'s connects to {more}{many} destinations {verb}, the longest for {age} to {place}{since}: {fate}."
                )
            }
        }
    }

    /// Why, and what to do about it.
    fn advice(&self, destination: &Endpoint) -> (Vec<String>, Vec<Remedy>) {
        let (connect, view) = (self.connect, self.view);
        let (port, ip) = (destination.port, destination.ip);
        if !self.group.explained_by.is_empty() {
            let explained_by = &self.group.explained_by;
            let why = neighbours::why(explained_by, view).to_owned();
            return (vec![why], neighbours::remedies(explained_by, view));
        }
        if let Some(verdict) = drops::verdict(connect, view.world) {
            return (vec![verdict.why], verdict.remedies);
        }
        if !connect.is_seen() {
            return unseen(connect, ip, view);
        }
        let mut why = vec!["Silence is what a firewall that drops, a missing route back or a dead host looks like; a closed port would have refused.".to_owned()];
        let allow = format!("allow tcp/{port} to {ip} in the firewalls and security groups on the way");
        let mut remedies: Vec<Remedy> = Vec::new();
        if self.destinations() > 1 {
            why.push(
                "Many destinations are silent at once: what they share is this host's own way out.".into(),
            );
            remedies.push(
                Remedy::from(
                    "look at the way out first, then at the firewalls and security groups of this host: ",
                )
                .and(neighbours::beside(connect, view.world, text::route_get(ip))),
            );
        } else {
            remedies.push(allow.into());
            remedies.push(
                Remedy::from(format!("check that {ip} is up and its replies find the way back: "))
                    .and(neighbours::beside(connect, view.world, text::route_get(ip))),
            );
        }
        families::silent(connect, destination, view.world, &mut why, &mut remedies);
        (why, remedies)
    }
}

fn outcome(connect: &Connect) -> &'static str {
    outcome_of(connect).0.name()
}

/// No SYN has been sent since culprit started: where they are lost is not known yet.
fn unseen(connect: &Connect, ip: IpAddr, view: &View<'_>) -> (Vec<String>, Vec<Remedy>) {
    let why = "It was pending before culprit started: whether this host itself drops its SYNs is seen with the next one.";
    let route = neighbours::beside(connect, view.world, text::route_get(ip));
    (vec![why.into()], vec![Remedy::from("look at the way out meanwhile: ").and(route)])
}
