//! What an incident about failing connects says.

use super::{
    advice::{self, Advice},
    groups::{Group, Groups},
};
use crate::{
    domains::connect::Outcome,
    fact::{Endpoint, HostIcmp, Process},
    pipeline::{
        View,
        incident::{
            Cause, CauseKind, Confidence, ConnectFailingDetails, Details, FailingDestination, Kind, Severity,
        },
        report::Report,
    },
    records,
    rules::{
        biography::{Fate, Past, past},
        neighbours, text,
    },
};

/// A connect that its process closes sooner has hardly waited.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Destinations an incident lists.
const WORST: usize = 10;

/// The account of a situation; `None` when there is no such situation.
pub(super) fn report(groups: &Groups, number: u64, view: &View<'_>) -> Option<Report> {
    groups.get(number).map(|group| of(group, view))
}

fn of(group: &Group, view: &View<'_>) -> Report {
    let (connect, world) = (&group.last, view.world);
    let destination = world.known.destination(connect);
    let process = world.known.named(&connect.owner);
    let worst = group.worst_outcome();
    let (last_ns, _, lasted) = group.recent.last().copied().unwrap_or((group.began_ns, worst, 0));
    let Advice { mut why, mut remedies } = if group.explained_by.is_empty() {
        advice::of(worst, &destination, group, view)
    } else {
        Advice {
            why: vec![neighbours::why(&group.explained_by, view).to_owned()],
            remedies: neighbours::remedies(&group.explained_by, view),
        }
    };
    let evidence = group.recent.iter().map(|(at, outcome, lasted)| {
        (*at, format!("connect {} after {}", outcome.name().replace('_', " "), text::duration(*lasted)))
    });
    let mut evidence: Vec<(u64, String)> = evidence.collect();
    let past = entry_past(group, (worst, lasted), view);
    let blamed = past.as_ref().and_then(|past| past.blamed).filter(|_| group.explained_by.is_empty());
    if let Some(past) = past {
        past.reported(&mut why, &mut remedies, &mut evidence);
    }
    let destinations = group.destinations.len() as u64;
    let listed = if destinations > 1 { group.worst(WORST) } else { vec![] };
    Report {
        kind: Kind::ConnectFailing,
        subject: group.subject.clone(),
        severity: Severity::Warning,
        began_ns: group.began_ns,
        count: group.total(),
        summary: summary(
            group,
            process.as_ref(),
            &destination,
            last_ns,
            world.known.host_icmp(connect).as_ref(),
        ),
        process,
        why,
        cause: Some(Cause {
            kind: match (group.explained_by.is_empty(), blamed) {
                (true, None) => advice::cause(worst, group, world),
                _ => CauseKind::Neighbour,
            },
            confidence: match blamed {
                Some(confidence) => confidence,
                // It was answered: by whom is not known.
                None if !group.explained_by.is_empty() && is_answer(worst) => Confidence::Likely,
                None => neighbours::confidence(&group.explained_by, view),
            },
            ..text::cause(connect, world, worst.name(), lasted)
        }),
        caused_by: group.explained_by.clone(),
        remedies,
        evidence,
        details: Details::ConnectFailing(ConnectFailingDetails {
            destination,
            outcomes: group.outcomes.clone(),
            errno: group.errno.clone(),
            answered_by_host: world.known.host_icmp(connect),
            last_attempt_ms: lasted / 1_000_000,
            destinations,
            worst: listed
                .into_iter()
                .map(|((ip, port), count)| FailingDestination {
                    destination: world.known.at(records::address_bytes(ip), port, &connect.owner),
                    count,
                })
                .collect(),
        }),
    }
}

/// What became of the neighbour's entry, where nothing else explains the failures.
fn entry_past(group: &Group, (worst, lasted_ns): (Outcome, u64), view: &View<'_>) -> Option<Past> {
    if !neighbours::says_nothing_of_entries(&group.explained_by, view) {
        return None;
    }
    let connect = &group.last;
    let fate = match worst {
        _ if group.destinations.len() > 1 || connect.drops > 0 || connect.syns == 0 => Fate::Other,
        _ if view.world.stray_answer(connect).is_some() => Fate::Other,
        Outcome::TimedOut => Fate::Silent,
        // Its process has waited in earnest.
        Outcome::Aborted if lasted_ns >= PATIENCE_NS => Fate::Silent,
        Outcome::Refused if connect.icmp == 0 => Fate::Refused,
        _ => Fate::Other,
    };
    past(connect, group.began_ns, fate, view)
}

fn summary(
    group: &Group,
    process: Option<&Process>,
    destination: &Endpoint,
    last_ns: u64,
    answered: Option<&HostIcmp>,
) -> String {
    let who = process.map_or_else(|| "a process".to_owned(), text::process);
    let outcomes: Vec<String> = group
        .outcomes
        .iter()
        .map(|(outcome, count)| format!("{} {}", outcome.name().replace('_', " "), text::times(*count)))
        .collect();
    let outcomes = outcomes.join(", ");
    let span = text::duration(last_ns.saturating_sub(group.began_ns));
    let errno = group.errno.as_ref().map(|errno| format!(", last {errno}")).unwrap_or_default();
    let answered = answered.map(|icmp| format!(": {icmp}")).unwrap_or_default();
    let place = text::place(destination);
    match group.destinations.len() {
        0 | 1 => format!("{who}'s connects to {place} fail: {outcomes} within {span}{errno}{answered}."),
        many => {
            let more = if group.left_out > 0 { "more than " } else { "" };
            format!(
                "{who}'s connects to {more}{many} destinations fail: {outcomes} within {span}{errno}; the last to {place}{answered}."
            )
        }
    }
}

/// Something out there answered.
pub(super) fn is_answer(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused | Outcome::Reset)
}
