//! What an incident about lookups says: who asks whom for what, what became of it, and what it was concluded from.

use ebpf_probes::{
    abi::{IPPROTO_UDP, ProbeId, Tuple},
    probes::{connect::Connect, dns::PORT},
};

use super::{
    edns,
    findings::Findings,
    groups::{Ended, Group},
};
use crate::{
    domains::dns::{Heard, LookupOp},
    fact::{Endpoint, Process},
    pipeline::{
        View,
        incident::{
            Cause, CauseKind, Confidence, Details, DnsOutcome, DnsReason, DnsUnansweredDetails, DnsUpstream,
            Kind, Severity,
        },
        report::Report,
    },
    rules::{drops, text},
};

/// Questions an incident lists.
const WORST: usize = 10;

/// The account of a situation at `now_ns`.
pub(super) fn report(group: &Group, found: &Findings, now_ns: u64, view: &View<'_>) -> Report {
    Says { group, found, op: &group.lead, reason: found.reason(group), now_ns, view }.report()
}

/// A lookup as a connect, for what is asked of the way to its server.
pub(super) fn as_connect(op: &LookupOp) -> Connect {
    Connect {
        cookie: op.cookie,
        owner: op.owner,
        tuple: Tuple {
            local: op.local,
            remote: op.server,
            remote_port: PORT,
            protocol: IPPROTO_UDP,
            ..Tuple::default()
        },
        started_ns: op.started_ns,
        ..Connect::default()
    }
}

/// The lookup that a truncated answer left, and for whose sake a process connects.
pub(super) fn as_lookup(heard: &Heard, connect: &Connect) -> LookupOp {
    LookupOp {
        cookie: connect.cookie,
        owner: connect.owner,
        server: connect.tuple.remote,
        local: connect.tuple.local,
        name: heard.name.as_str().into(),
        query_type: heard.query_type.clone(),
        started_ns: heard.at_ns,
        sent_ns: heard.at_ns,
        queries: 1,
        recursive: true,
        ..LookupOp::default()
    }
}

pub(super) struct Says<'a> {
    pub(super) group: &'a Group,
    pub(super) found: &'a Findings,
    /// The lookup that waits longest.
    pub(super) op: &'a LookupOp,
    pub(super) reason: DnsReason,
    now_ns: u64,
    pub(super) view: &'a View<'a>,
}

impl Says<'_> {
    fn report(&self) -> Report {
        let world = self.view.world;
        let process = world.known.named(&self.op.owner);
        let server = world.resolver(self.op);
        Report {
            kind: Kind::DnsUnanswered,
            subject: self.group.subject.clone(),
            severity: self.severity(),
            began_ns: self.group.began_ns,
            count: self.group.total,
            summary: self.summary(process.as_ref(), &server),
            why: self.why(),
            cause: Some(self.cause(&server)),
            caused_by: self.caused_by(),
            remedies: self.remedies(process.as_ref()),
            evidence: self.evidence(),
            details: Details::DnsUnanswered(DnsUnansweredDetails {
                server,
                reason: self.reason,
                waiting: self.group.waiting.len() as u64,
                waited_ms: self.waited_ns() / 1_000_000,
                outcomes: self.group.outcomes.clone(),
                names: self.group.names(),
                questions: self.group.worst(WORST),
                answers_to_process: self.found.to_process,
                answers_to_others: self.found.to_others,
                answered_type: self.found.answered_type.clone(),
                searched: self.found.searched.clone(),
                reverse_of: self.found.reverse_of,
                upstream: self.found.upstream.as_ref().map(|upstream| DnsUpstream {
                    process: upstream.process.clone(),
                    server: upstream.server.clone(),
                }),
                edns: self.edns().map(|edns| edns.details.clone()),
                programs: 0,
                processes: vec![],
            }),
            process,
        }
    }

    /// What was found out about EDNS, where that is the reason.
    pub(super) fn edns(&self) -> Option<&edns::Found> {
        self.found.edns.as_ref().filter(|edns| edns.reason == self.reason)
    }

    /// No lookup of it waits.
    pub(super) fn over(&self) -> bool {
        self.group.waiting.is_empty()
    }

    /// How the lookup it is reported by ended.
    fn ended(&self) -> Option<&Ended> {
        self.group.ended.last().filter(|_| self.over())
    }

    fn waited_ns(&self) -> u64 {
        let until = self.ended().map_or(self.now_ns, |ended| ended.at_ns);
        until.saturating_sub(self.op.started_ns)
    }

    /// The server answers others meanwhile.
    pub(super) fn answers(&self) -> bool {
        self.found.to_process + self.found.to_others > 0
    }

    /// One name alone gets no answer from a server that answers others: that may be the name's own servers.
    fn severity(&self) -> Severity {
        let one = self.reason == DnsReason::Unanswered && self.group.names() == 1 && self.answers();
        if one { Severity::Info } else { Severity::Warning }
    }

    fn question(&self) -> String {
        format!("{} {}", self.op.query_type, self.op.name)
    }

    fn summary(&self, process: Option<&Process>, server: &Endpoint) -> String {
        let who = process.map_or_else(|| "a process".to_owned(), text::process);
        let (place, age) = (text::place(server), text::duration(self.waited_ns()));
        if self.reason == DnsReason::Failing {
            let outcomes: Vec<String> =
                self.group.outcomes.iter().map(|(outcome, count)| outcome.words(*count)).collect();
            let span = text::duration(self.group.bad_ns.saturating_sub(self.group.began_ns));
            return format!("{who}'s lookups at {place} end badly: {} within {span}.", outcomes.join(", "));
        }
        let head = match (self.group.names(), self.over()) {
            (0 | 1, over) => {
                let verb = if over { "was" } else { "is" };
                format!("{who}'s lookup of {} at {place} {verb} unanswered after {age}", self.question())
            }
            (names, over) => format!(
                "{who}'s lookups of {names} names at {place} {} unanswered, that of {} for {age}",
                if over { "were" } else { "are" },
                self.question()
            ),
        };
        format!("{head}: {}.", self.tail())
    }

    /// What is known of the silence.
    fn tail(&self) -> String {
        let asked = text::count(self.op.queries.into(), "query", "queries");
        if let Some(edns) = self.edns().filter(|_| self.group.explained_by.is_empty()) {
            return edns.words(&asked);
        }
        match (self.reason, &self.found.upstream, &self.found.answered_type) {
            (DnsReason::UpstreamUnanswered, Some(upstream), _) => upstream.words(self.over()),
            (DnsReason::HalfUnanswered, _, Some(answered)) => format!(
                "{asked}, while the server answered {answered} of the same name at once: a packet was lost on the way"
            ),
            (DnsReason::TcpUnanswered, ..) => {
                let fate = self.found.connect.map(|op| drops::fate(&op.connect, self.view.world));
                let fate = fate.map(|fate| format!(" ({fate})")).unwrap_or_default();
                format!(
                    "the answer over UDP came truncated, and TCP port 53 of the server does not answer{fate}"
                )
            }
            _ if !self.group.explained_by.is_empty() => {
                format!("{asked}, no answer, because a neighbour entry on the way is wrong")
            }
            _ => format!("{asked}, no answer{}", self.meanwhile()),
        }
    }

    /// What the server answered meanwhile.
    fn meanwhile(&self) -> String {
        let answered = |number: u64, whom: &str| {
            let questions = text::count(number, "other question", "other questions");
            format!("; the server answered {questions} of {whom} meanwhile")
        };
        match (self.found.to_process, self.found.to_others) {
            (0, 0) => String::new(),
            (0, others) => answered(others, "other processes"),
            (own, _) => answered(own, "this process"),
        }
    }

    /// How sure it is that the server does not answer: that it gave no answer here is certain if nothing was left out.
    fn confidence(&self) -> Confidence {
        let known = &self.view.world.known;
        let all = known.sees(ProbeId::DNS) && !known.has_lost(&["dns"]) && known.narrowed().is_empty();
        if let Some(edns) = self.edns() {
            return if all { edns.confidence } else { Confidence::Possible };
        }
        let sure = match self.reason {
            DnsReason::UpstreamUnanswered => {
                self.found.upstream.as_ref().is_some_and(|upstream| upstream.is_sure)
            }
            DnsReason::HalfUnanswered | DnsReason::EdnsUnanswered | DnsReason::LongAnswerLost => false,
            DnsReason::Unanswered => !self.answers(),
            DnsReason::TcpUnanswered | DnsReason::Failing | DnsReason::ServerSilent => true,
        };
        if all && sure { Confidence::Certain } else { Confidence::Likely }
    }

    fn cause(&self, server: &Endpoint) -> Cause {
        let outcome = match self.ended().map(|ended| ended.outcome) {
            None => "pending",
            Some(DnsOutcome::Slow | DnsOutcome::AnsweredElsewhere) => "answered",
            Some(DnsOutcome::Servfail | DnsOutcome::Failed) => "failed",
            Some(DnsOutcome::GivenUp) => "aborted",
        };
        let lookup = Cause {
            kind: CauseKind::DnsLookup,
            confidence: self.confidence(),
            destination: Some(server.clone()),
            outcome: Some(outcome.to_owned()),
            query: Some(self.question()),
            elapsed_ms: Some(self.waited_ns() / 1_000_000),
            ..Cause::default()
        };
        match (self.reason, &self.found.upstream, &self.found.connect) {
            (DnsReason::UpstreamUnanswered, Some(upstream), _) => Cause {
                kind: CauseKind::LocalService,
                destination: Some(upstream.server.clone()),
                process: Some(upstream.process.clone()),
                ..lookup
            },
            (DnsReason::TcpUnanswered, _, Some(op)) => Cause {
                kind: CauseKind::OutboundConnect,
                confidence: lookup.confidence,
                query: lookup.query.clone(),
                ..text::cause(&op.connect, self.view.world, outcome, self.waited_ns())
            },
            _ if !self.group.explained_by.is_empty() => Cause { kind: CauseKind::Neighbour, ..lookup },
            _ => lookup,
        }
    }

    /// What explains it: a neighbour on the way, or what the process behind the server waits for.
    fn caused_by(&self) -> Vec<String> {
        let mut ids = self.group.explained_by.clone();
        let behind = self.found.upstream.as_ref().and_then(|upstream| {
            let (id, kind) = self.view.store.live_claim(upstream.op.cookie)?;
            (kind == Kind::DnsUnanswered && id != self.group.id).then(|| id.to_owned())
        });
        ids.extend(behind.filter(|id| !self.group.explained_by.contains(id)));
        ids
    }

    fn evidence(&self) -> Vec<(u64, String)> {
        let (world, op) = (self.view.world, self.op);
        let asks = |op: &LookupOp| {
            let server = text::address(&world.resolver(op));
            format!("asked {server} for {} {}", op.query_type, op.name)
        };
        let mut seen = Vec::new();
        if self.reason != DnsReason::Failing {
            let who = world.known.thread(&op.owner);
            match self.reason {
                DnsReason::TcpUnanswered => {
                    seen.push((op.started_ns, format!("the answer to {} came truncated", self.question())));
                }
                _ => seen.push((op.started_ns, format!("{who} {}", asks(op)))),
            }
            if let Some(answered) = &self.found.answered_type {
                seen.push((op.started_ns, format!("{answered}, asked for with it, was answered at once")));
            }
            if op.queries > 1 {
                seen.push((op.sent_ns, format!("sent again: {} queries so far", op.queries)));
            }
        }
        if let Some(upstream) = &self.found.upstream {
            let who = text::process(&upstream.process);
            seen.push((upstream.op.started_ns, format!("{who} {}", asks(&upstream.op))));
        }
        if let Some(connect) = &self.found.connect {
            let to = text::place(&world.known.destination(&connect.connect));
            seen.push((connect.connect.started_ns, format!("the process connects to {to} over TCP")));
        }
        seen.extend(self.group.ended.iter().map(|Ended { op, at_ns, outcome }| {
            let after = text::duration(at_ns.saturating_sub(op.started_ns));
            let how = match outcome {
                DnsOutcome::Slow => format!("answered after {after}"),
                DnsOutcome::Servfail => format!("SERVFAIL after {after}"),
                DnsOutcome::Failed => format!("failed after {after}"),
                DnsOutcome::AnsweredElsewhere => {
                    format!("answered after {after}, by another server or at a later attempt")
                }
                DnsOutcome::GivenUp => {
                    format!("still unanswered when it was given up, {after} after it began")
                }
            };
            (*at_ns, format!("{} {}: {how}", op.query_type, op.name))
        }));
        seen
    }
}
