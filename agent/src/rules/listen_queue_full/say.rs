//! What is said about a service whose accept queue is full.

use super::Full;
use crate::{
    fact::Process,
    pipeline::{
        View,
        incident::{Cause, CauseKind, Confidence, Details, Kind, ListenQueueFullDetails, Severity},
        remedy::Remedy,
        report::Report,
    },
    records,
    rules::{
        neighbours::within,
        text::{self, address, count, duration},
        threads,
    },
    text::shell::Command,
};

/// Threads shown at most.
const THREADS: usize = 8;

/// The account of it; `ended`: no SYN has been ignored for a while.
pub(super) fn report(full: &Full, ended: bool, view: &View<'_>) -> Report {
    let (last, known) = (&full.last, &view.world.known);
    let process = known.named(&full.listener(view.world));
    let local = known.local(&last.tuple);
    let threads: Vec<_> = full
        .snapshot
        .iter()
        .flat_map(|seen| seen.threads.iter().map(|thread| thread.shown.clone()))
        .take(THREADS)
        .collect();
    let seen = full.snapshot.as_ref();
    let left_out = seen.map_or(0, |seen| seen.threads_left_out + (seen.threads.len() - threads.len()) as u32);
    let who = process.as_ref().map_or_else(|| "The listener".to_owned(), text::process);
    let ignored = count(last.ignored, "SYN", "SYNs");
    let lasted = duration(last.last_ns.saturating_sub(last.since_ns));
    let queue = format!("{} wait, its limit is {}", last.queued, last.limit);
    let place = address(&local);
    let summary = if ended {
        format!(
            "{who} has room again in the accept queue of {place}: {ignored} of new connections had been ignored in {lasted}."
        )
    } else {
        format!(
            "{who} does not accept the connections that wait at {place}: its accept queue is full ({queue}), and {ignored} of new ones were ignored in {lasted}."
        )
    };
    let mut why = vec![
        "A full accept queue ignores SYNs and sends nothing back: to a client it looks like a packet filter."
            .to_owned(),
    ];
    why.extend(full.snapshot.iter().flat_map(threads::doing));
    let mut evidence =
        vec![(last.since_ns, format!("the accept queue of {place} is full, and a SYN is ignored"))];
    if let Some(snapshot) = seen.filter(|seen| !seen.threads.is_empty()) {
        evidence.push((snapshot.boot_ns, threads::doing(snapshot).join(" ")));
    }
    evidence.push((
        last.last_ns,
        format!("{ignored} ignored so far, the last one of {}", records::address(last.tuple.remote)),
    ));
    Report {
        kind: Kind::ListenQueueFull,
        subject: format!("{}|{}", last.netns, last.tuple.local_port),
        severity: Severity::Warning,
        began_ns: last.since_ns,
        count: 1,
        remedies: remedies(full, &who, process.as_ref(), view),
        process,
        summary,
        why,
        cause: Some(Cause {
            kind: CauseKind::ListenLimit,
            confidence: Confidence::Certain,
            elapsed_ms: Some(last.last_ns.saturating_sub(last.since_ns) / 1_000_000),
            ..Cause::default()
        }),
        caused_by: vec![],
        evidence,
        details: Details::ListenQueueFull(ListenQueueFullDetails {
            local,
            queued: last.queued,
            limit: last.limit,
            ignored_syns: last.ignored,
            refused: full.clients.iter().map(|client| records::address(*client)).collect(),
            threads,
            threads_left_out: left_out,
        }),
    }
}

fn remedies(full: &Full, who: &str, process: Option<&Process>, view: &View<'_>) -> Vec<Remedy> {
    let last = &full.last;
    let netns = view.world.known.namespace(last.netns);
    let pid = process.map(|process| process.pid);
    let there = |command| within(netns.as_deref(), pid, command);
    let sockets = Command::new("ss").words("-Hlnt sport =").arg(format!(":{}", last.tuple.local_port));
    let somaxconn = last.limit.saturating_mul(4).max(4096);
    vec![
        Remedy::from(format!(
            "find out what {who} does instead of accepting: what its threads were in is said above"
        )),
        Remedy::from("compare the queue with its limit (Recv-Q above Send-Q): ").and(there(sockets)),
        Remedy::from(format!(
            "if these are bursts, give listen() a backlog above {}, and raise what bounds it: ",
            last.limit
        ))
        .and(there(Command::new("sysctl").arg("-w").arg(format!("net.core.somaxconn={somaxconn}")))),
    ]
}
