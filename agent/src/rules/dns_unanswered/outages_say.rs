//! What an incident about a DNS server that answers no program says: which server, since when, who waits for it.

use std::collections::{BTreeMap, BTreeSet};

use ebpf_probes::{abi::ProbeId, probes::dns::PORT};

use super::outage::{Outage, Sufferer};
use crate::{
    fact::{Endpoint, Process},
    pipeline::{
        View,
        incident::{
            Cause, CauseKind, Confidence, Details, DnsQuestion, DnsReason, DnsUnansweredDetails, Kind,
            Severity,
        },
        report::Report,
    },
    rules::{resolvers, text},
};

/// Programs that are named in the sentence.
const NAMED: usize = 3;
/// Programs listed.
const LISTED: usize = 32;
/// Questions listed.
const QUESTIONS: usize = 10;

/// The account of a silent server at `now_ns`.
pub(super) fn report(outage: &Outage, now_ns: u64, view: &View<'_>) -> Report {
    let world = view.world;
    let server = Endpoint { port: PORT, ip: outage.key.0, ..world.resolver(&outage.lead) };
    let worst = outage.worst();
    let processes: Vec<Process> =
        worst.iter().take(LISTED).filter_map(|sufferer| world.known.named(&sufferer.first.owner)).collect();
    let lasted_ns = now_ns.saturating_sub(outage.began_ns);
    let question = format!("{} {}", outage.lead.query_type, outage.lead.name);
    Report {
        kind: Kind::DnsUnanswered,
        subject: format!("server|{}|{:?}", outage.key.0, outage.key.1),
        severity: Severity::Warning,
        began_ns: outage.began_ns,
        count: outage.total(),
        process: None,
        summary: summary(outage, &server, &processes, lasted_ns),
        why: why(view),
        cause: Some(Cause {
            kind: CauseKind::DnsLookup,
            confidence: confidence(view),
            destination: Some(server.clone()),
            outcome: Some(if outage.waiting() > 0 { "pending" } else { "answered" }.to_owned()),
            query: Some(question),
            elapsed_ms: Some(lasted_ns / 1_000_000),
            ..Cause::default()
        }),
        caused_by: vec![],
        remedies: resolvers::silent(&outage.lead, world),
        evidence: worst.iter().map(|sufferer| evidence(sufferer, view)).collect(),
        details: Details::DnsUnanswered(DnsUnansweredDetails {
            server,
            reason: DnsReason::ServerSilent,
            waiting: outage.waiting(),
            waited_ms: lasted_ns / 1_000_000,
            outcomes: BTreeMap::new(),
            names: worst.iter().map(|sufferer| &sufferer.first.name.text).collect::<BTreeSet<_>>().len()
                as u64,
            questions: worst.iter().take(QUESTIONS).map(|sufferer| asked(sufferer)).collect(),
            answers_to_process: 0,
            answers_to_others: 0,
            answered_type: None,
            searched: vec![],
            reverse_of: None,
            upstream: None,
            edns: None,
            programs: outage.total(),
            processes,
        }),
    }
}

fn summary(outage: &Outage, server: &Endpoint, processes: &[Process], lasted_ns: u64) -> String {
    let mut names: Vec<String> = processes.iter().take(NAMED).map(text::process).collect();
    let more = outage.total().saturating_sub(names.len() as u64);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let names = match names.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    };
    let (place, programs) = (text::place(server), text::count(outage.total(), "program", "programs"));
    let age = text::duration(lasted_ns);
    match outage.waiting() {
        0 => format!("{place} answered no DNS lookup for {age}: {programs} waited for it: {names}."),
        _ => format!("{place} has answered no DNS lookup for {age}: {programs} wait for it: {names}."),
    }
}

fn why(view: &View<'_>) -> Vec<String> {
    let mut why = vec![
        "It answers none of those that ask it, so the server or the way to it is at fault, and no program: silence is what a \
         firewall that drops, a server that is down or a missing route back looks like."
            .to_owned(),
        "Incidents of single programs that wait for it point to this one.".to_owned(),
    ];
    for narrowed in view.world.known.narrowed() {
        why.push(format!("Only {narrowed} were watched: what else was asked and answered is missing here."));
    }
    why
}

fn confidence(view: &View<'_>) -> Confidence {
    let known = &view.world.known;
    let all = known.sees(ProbeId::DNS) && !known.has_lost(&["dns"]) && known.narrowed().is_empty();
    if all { Confidence::Certain } else { Confidence::Likely }
}

fn evidence(sufferer: &Sufferer, view: &View<'_>) -> (u64, String) {
    let (op, world) = (&sufferer.first, view.world);
    let server = text::address(&world.resolver(op));
    let who = world.known.thread(&op.owner);
    (op.started_ns, format!("{who} asked {server} for {} {}", op.query_type, op.name))
}

fn asked(sufferer: &Sufferer) -> DnsQuestion {
    let op = &sufferer.first;
    DnsQuestion {
        name: op.name.text.clone(),
        name_invalid: op.name.invalid,
        query_type: op.query_type.clone(),
        queries: op.queries.into(),
        waiting: sufferer.waits,
    }
}
