//! What is said about an answer that does not come.

use ebpf_probes::abi::{AF_INET, AF_INET6, IPPROTO_TCP, Tuple};

use super::{End, Seen, usual::Answers};
use crate::{
    pipeline::{
        View,
        incident::{Cause, CauseKind, Confidence, Details, Kind, ResponseOverdueDetails, Severity},
        remedy::Remedy,
        report::Report,
    },
    records::address_bytes,
    rules::{
        biography::{Fate, past_of},
        neighbours::within,
        text::{self, count, duration, place},
    },
    text::shell::Command,
};

/// The account of it; `end`: how it ended.
pub(super) fn report(seen: &Seen, usual: Option<Answers>, end: Option<End>, view: &View<'_>) -> Report {
    let known = &view.world.known;
    let (watched, connection) = (&seen.watched, &seen.connection);
    let socket = &connection.socket;
    let owner = watched.owner();
    let process = known.named(&owner);
    let peer = known.at(address_bytes(socket.remote.ip()), socket.remote.port(), &owner);
    let who = process.as_ref().map_or_else(|| "The process".to_owned(), text::process);
    let ns = |ms: u32| watched.boot_ns.saturating_sub(u64::from(ms) * 1_000_000);
    let (sent_ns, waited_ns) = (ns(socket.sent_ms_ago), u64::from(socket.sent_ms_ago) * 1_000_000);
    // An acknowledged SYN counts as a byte.
    let sent = count(socket.acked_bytes.saturating_sub(1), "byte", "bytes");
    let to = place(&peer);
    let summary = match end {
        None => format!(
            "{who} waits for {to}, which has acknowledged {sent} and answered nothing for {}.",
            duration(waited_ns)
        ),
        Some(End::Answered) => format!("{to} has answered {who}, after more than {}.", duration(waited_ns)),
        Some(End::Closed) => {
            format!("{who} no longer waits for {to}, which had answered nothing for {}.", duration(waited_ns))
        }
    };
    let mut why = Vec::new();
    why.push(match usual {
        Some(usual) => format!(
            "{} of it {} seen before: the longest took {}.",
            count(usual.count, "answer", "answers"),
            if usual.count == 1 { "was" } else { "were" },
            duration(usual.longest_ms * 1_000_000)
        ),
        None => "No answer of it was seen before: how long it usually takes is not known.".into(),
    });
    match (&connection.thread, connection.others) {
        (None, _) => why.push(
            "The process waits in an event loop: that it waits for this answer, and not only may be sent one, is not sure."
                .into(),
        ),
        (Some(_), 0) => {}
        (Some(_), others) => why.push(format!(
            "The thread waits on {} as well: that it is this answer it waits for is not sure.",
            count(others.into(), "other connection", "other connections")
        )),
    }
    let mut evidence = vec![(sent_ns, format!("last data to {to}: {sent} acknowledged in all"))];
    if socket.received_bytes > 0 {
        evidence.push((
            ns(socket.received_ms_ago),
            format!("last data from it: {} received in all", count(socket.received_bytes, "byte", "bytes")),
        ));
    }
    if let Some(thread) = &connection.thread {
        evidence.push((watched.boot_ns, format!("thread {}: {}", thread.shown.tid, thread.words())));
    }
    let mut remedies = remedies(seen, &to, view);
    let tuple = Tuple {
        local: address_bytes(socket.local.ip()),
        remote: address_bytes(socket.remote.ip()),
        local_port: socket.local.port(),
        remote_port: socket.remote.port(),
        family: if socket.remote.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
    };
    // It has acknowledged what was sent: whatever became of the entry is no cause.
    if let Some(past) = past_of((socket.cookie, &tuple, &owner), sent_ns, Fate::Other, view) {
        past.reported(&mut why, &mut remedies, &mut evidence);
    }
    let sure = connection.thread.is_some() && connection.others == 0;
    Report {
        kind: Kind::ResponseOverdue,
        subject: format!("{}|{}", watched.process, socket.cookie),
        severity: if sure { Severity::Warning } else { Severity::Info },
        began_ns: sent_ns,
        count: 1,
        remedies,
        process,
        summary,
        why,
        cause: Some(Cause {
            kind: CauseKind::Peer,
            confidence: if sure { Confidence::Likely } else { Confidence::Possible },
            destination: Some(peer.clone()),
            elapsed_ms: Some(waited_ns / 1_000_000),
            ..Cause::default()
        }),
        caused_by: vec![],
        evidence,
        details: Details::ResponseOverdue(ResponseOverdueDetails {
            destination: peer,
            local_port: socket.local.port(),
            waited_ms: waited_ns / 1_000_000,
            sent_bytes: socket.acked_bytes.saturating_sub(1),
            received_bytes: socket.received_bytes,
            thread: connection.thread.as_ref().map(|thread| thread.shown.clone()),
            answers_seen: usual.map_or(0, |usual| usual.count),
            longest_answer_ms: usual.map(|usual| usual.longest_ms),
        }),
    }
}

fn remedies(seen: &Seen, to: &str, view: &View<'_>) -> Vec<Remedy> {
    let socket = &seen.connection.socket;
    let netns = view.world.known.namespace(seen.watched.netns);
    let look = Command::new("ss").arg("-tnoi").arg(format!(
        "sport = :{} dst {} dport = :{}",
        socket.local.port(),
        socket.remote.ip(),
        socket.remote.port()
    ));
    vec![
        format!(
            "look at {to}: it has received what was sent; see what its service is busy with, or waits for"
        )
        .into(),
        Remedy::from("see whether anything comes: ").and(within(
            netns.as_deref(),
            Some(seen.watched.process),
            look,
        )),
        "give the program a time limit for answers: without one it waits as long as the peer is silent"
            .into(),
    ]
}
