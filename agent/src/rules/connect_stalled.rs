//! `connect_stalled`: a TCP connect that nobody answers, outside any handshake that it explains. Where
//! the silence comes from (this host, the network) is what it says; a neighbour that does not answer has a
//! rule of its own. It does not ask why somebody connects there.

use ebpf_probes::probes::connect::Connect;

use super::{Diagnose, Rule, neighbours, text};
use crate::{
    correlate::{
        View,
        incident::{Cause, CauseKind, Confidence, ConnectStalledDetails, Details, Kind, Severity},
        remedy::Remedy,
        report::Report,
    },
    enrich::{
        bounded::{Bounded, Table},
        connect::outcome as outcome_of,
    },
    event::{ConnectStep, Event, What},
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::ConnectStalled,
    about: "a TCP connect is unanswered: process, destination, SYN retries, and whether this host drops it",
    opens: "a connect is pending for 3 s (--connect-stall) and no stalled TLS handshake is explained by it",
    make: || Box::new(ConnectStalled { waiting: Bounded::new(4096), totals: Bounded::new(512) }),
};

struct ConnectStalled {
    /// Connects that are part of an open incident, by cookie.
    waiting: Bounded<u64, Waiting>,
    /// How many there have been since it opened, by subject.
    totals: Bounded<String, u64>,
}

struct Waiting {
    connect: Connect,
    subject: String,
    id: String,
}

impl Diagnose for ConnectStalled {
    fn tables(&self) -> Vec<Table> {
        vec![self.waiting.table("connect_stalled_waiting"), self.totals.table("connect_stalled_totals")]
    }

    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        let What::Connect(step, connect) = &event.what else { return };
        match step {
            ConnectStep::Pending => self.pending(connect, view),
            ConnectStep::End => self.ended(connect, event.boot_ns, view),
            _ => {}
        }
    }
}

impl ConnectStalled {
    fn pending(&mut self, connect: &Connect, view: &mut View<'_>) {
        if view
            .store
            .claimed(connect.cookie)
            .is_some_and(|id| self.waiting.get(&connect.cookie).is_none_or(|known| known.id != id))
            || !view.world.is_wanted(&connect.owner)
        {
            return;
        }
        // A neighbour that does not answer is told as such as soon as the kernel gives up: moments from now.
        if view.world.neighbour_under(connect, view.now_ns).is_some() {
            return;
        }
        let subject = text::subject(connect, view.world);
        let is_new = self.waiting.get(&connect.cookie).is_none();
        let open = view.store.open_id(Kind::ConnectStalled, &subject).map(str::to_owned);
        self.waiting.insert(
            connect.cookie,
            Waiting { connect: *connect, subject: subject.clone(), id: open.clone().unwrap_or_default() },
        );
        if is_new {
            match self.totals.get_mut(&subject) {
                Some(total) => *total += 1,
                None => self.totals.insert(subject.clone(), 1),
            }
        }
        let now_ns = view.now_ns;
        let report = self.report(&subject, now_ns, None, view);
        let id = match open {
            Some(id) => {
                // One connect more is told when their number has doubled; the oldest one's age always is.
                let first = self.longest(&subject).is_some_and(|lead| lead.cookie == connect.cookie);
                if first || (is_new && report.count.is_power_of_two()) {
                    view.store.update(now_ns, view.world, &id, report);
                }
                id
            }
            None => view.store.open(now_ns, view.world, report),
        };
        view.store.claim(connect.cookie, &id);
        if let Some(waiting) = self.waiting.get_mut(&connect.cookie) {
            waiting.id = id;
        }
    }

    fn ended(&mut self, connect: &Connect, ended_ns: u64, view: &mut View<'_>) {
        let Some(known) = self.waiting.get(&connect.cookie) else { return };
        let (subject, id) = (known.subject.clone(), known.id.clone());
        let alone = self.waiting.values().filter(|other| other.subject == subject).count() == 1;
        if alone {
            if let Some(known) = self.waiting.get_mut(&connect.cookie) {
                known.connect = *connect;
            }
            let report = self.report(&subject, ended_ns, Some(connect), view);
            self.totals.remove(&subject);
            view.store.over(ended_ns, &id, report);
        }
        self.waiting.remove(&connect.cookie);
    }

    fn longest(&self, subject: &str) -> Option<Connect> {
        self.waiting
            .values()
            .filter(|waiting| waiting.subject == subject)
            .map(|waiting| waiting.connect)
            .min_by_key(|connect| (connect.started_ns, connect.cookie))
    }

    fn report(&self, subject: &str, now_ns: u64, ended: Option<&Connect>, view: &View<'_>) -> Report {
        let connect = self.longest(subject).unwrap_or_default();
        let waiting = self.waiting.values().filter(|waiting| waiting.subject == subject).count() as u64;
        let world = view.world;
        let destination = world.at(connect.tuple.remote, connect.tuple.remote_port, &connect.owner);
        let process = world.named(&connect.owner);
        let who = process.as_ref().map_or_else(|| "somebody".to_owned(), text::process);
        let age = now_ns.saturating_sub(connect.started_ns);
        let caused_by = neighbours::explaining(&connect, view);
        let fate = if caused_by.is_empty() {
            text::fate(&connect, world)
        } else {
            format!("{}, because a neighbour entry on the way is wrong", text::fate(&connect, world))
        };
        let (port, ip) = (destination.port, destination.ip);
        let mut remedies = Vec::new();
        let why = if !caused_by.is_empty() {
            remedies.extend(neighbours::remedies(&caused_by, view));
            "Packets go to a MAC that is no longer the neighbour's: nothing is wrong with either end."
                .to_owned()
        } else if connect.drops > 0 {
            remedies.push(text::allow_here(ip, port));
            "This host's own kernel drops the packets, so no other machine is to blame.".to_owned()
        } else {
            remedies.push(
                format!("allow tcp/{port} to {ip} in the firewalls and security groups on the way").into(),
            );
            remedies.push(
                Remedy::from(format!("check that {ip} is up and its replies find the way back: "))
                    .and(text::route_get(ip)),
            );
            "Silence is what a firewall that drops, a missing route back or a dead host looks like; a closed port would have refused.".to_owned()
        };
        let verb = if ended.is_some() { "was unanswered" } else { "is unanswered" };
        let mut evidence =
            vec![(connect.started_ns, format!("{who} connects to {}", text::place(&destination)))];
        if connect.retries > 0 || connect.drops > 0 {
            evidence.push((now_ns, fate.clone()));
        }
        if let Some(end) = ended {
            evidence.push((now_ns, format!("it ended: {}", outcome(end))));
        }
        Report {
            kind: Kind::ConnectStalled,
            subject: subject.to_owned(),
            severity: Severity::Warning,
            began_ns: connect.started_ns,
            count: self.totals.get(&subject.to_owned()).copied().unwrap_or(1),
            process,
            summary: format!(
                "{who}'s connect to {} {verb} after {}: {fate}.",
                text::place(&destination),
                text::duration(age)
            ),
            why: vec![why],
            cause: Some(Cause {
                kind: if caused_by.is_empty() { CauseKind::OutboundConnect } else { CauseKind::Neighbour },
                confidence: Confidence::Certain,
                ..text::cause(&connect, world, ended.map_or("pending", outcome), age)
            }),
            caused_by,
            remedies,
            evidence,
            details: Details::ConnectStalled(ConnectStalledDetails {
                destination,
                pending_ms: age / 1_000_000,
                waiting: if ended.is_some() { 0 } else { waiting },
                syn_retransmits: connect.retries,
                dropped_by_host: connect.drops,
                drop_reason: text::drop_reason(&connect, world),
            }),
        }
    }
}

fn outcome(connect: &Connect) -> &'static str {
    outcome_of(connect).0.name()
}
