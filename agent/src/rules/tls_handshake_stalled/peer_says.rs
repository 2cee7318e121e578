//! What is said about clients' handshakes whose ClientHello is not answered.

use super::peer_waits::{End, Group, Waits};
use crate::{
    domains::tls::{Role, Stage, session_ends},
    pipeline::{
        View,
        incident::{Cause, CauseKind, Confidence, Details, Kind, Severity, TlsDetails},
        remedy::Remedy,
        report::Report,
    },
    rules::{
        biography::{Fate, past_of},
        connection_stalled::{Finding, idle_ns},
        neighbours::within,
        text::{self, count, duration, place, times},
    },
    text::{shell::Command, shown},
};

/// The account of a situation, by the handshake that has waited longest; `end`: how that ended.
pub(super) fn report(group: &Group, waits: &Waits, now_ns: u64, end: Option<End>, view: &View<'_>) -> Report {
    let (hs, known) = (&waits.hs, &view.world.known);
    let process = known.named(&hs.owner);
    let who = process.as_ref().map_or_else(|| "A process".to_owned(), text::process);
    let (local, peer) = session_ends(known, hs, &hs.owner);
    let age_ns = now_ns.saturating_sub(hs.moved_ns);
    let age = duration(age_ns);
    let to = place(&peer);
    let finding = waits.unacked.as_ref().map(|unacked| Finding::of(unacked, false));
    let name = waits.sni.as_ref().map(|name| format!(" for {}", shown(&name.text))).unwrap_or_default();
    let many = match group.count() {
        0 | 1 => String::new(),
        many => format!(" ({many} handshakes with it wait)"),
    };
    let hello = count(u64::from(hs.hello_len), "byte", "bytes");
    let summary = match (end, &waits.unacked) {
        (Some((_, then)), _) => format!("{to} had not answered {who}'s ClientHello{name} for {age}; {then}."),
        (None, None) => format!(
            "{to} has acknowledged {who}'s ClientHello{name} and answers nothing for {age}{many}: nothing of this host's is in the way."
        ),
        (None, Some(unacked)) => {
            let again = times(u64::from(unacked.timeouts));
            let fate = match finding {
                Some(Finding::PathMtu(_)) => format!(
                    "segments of {} bytes are lost and small ones pass, as where the path MTU is less than {}",
                    unacked.segment,
                    unacked.path_mtu.max(unacked.segment.saturating_add(40))
                ),
                Some(Finding::Dropped) => "this host itself drops it".to_owned(),
                _ if idle_ns(unacked).is_some() => "the connection had been idle, and something on the way has forgotten it, or the peer is gone".to_owned(),
                _ => "the connection was established, and nothing has come from the peer since".to_owned(),
            };
            format!(
                "{to} has not acknowledged {who}'s ClientHello{name} ({hello}) for {age}, sent again {again}{many}: {fate}."
            )
        }
    };
    let (mut kind, mut confidence) = match finding {
        None => (CauseKind::Peer, Confidence::Likely),
        Some(Finding::PathMtu(_)) => (CauseKind::Path, Confidence::Likely),
        Some(Finding::Dropped) => (CauseKind::Filter, Confidence::Likely),
        Some(_) => (CauseKind::Path, Confidence::Possible),
    };
    let mut why = Vec::new();
    match (&waits.unacked, finding) {
        (None, _) => why.push("Its TCP has the ClientHello: its service does not accept the connection, is busy or waits for something itself; or a proxy on the way has accepted in its place.".to_owned()),
        (Some(unacked), Some(Finding::PathMtu(_))) => {
            why.push(format!("This host believes that packets of {} bytes pass (MSS {}). A ClientHello with post-quantum keys fills more than one segment, and is the first thing on a connection that is large.", unacked.path_mtu, unacked.mss));
        }
        (Some(_), _) => why.push("TCP was established, so that the way was there a moment ago: a balancer that has no server behind it, a firewall that inspects TLS, or a peer that went away.".to_owned()),
    }
    let mut evidence = vec![(hs.moved_ns, format!("{who} sends a ClientHello of {hello}{name} to {to}"))];
    match &waits.unacked {
        Some(unacked) => evidence.push((
            unacked.again_ns,
            format!(
                "a segment of {} is sent again, {} so far",
                count(u64::from(unacked.segment), "byte", "bytes"),
                times(u64::from(unacked.timeouts))
            ),
        )),
        None => evidence.push((now_ns, format!("it is acknowledged, and nothing has come for {age}"))),
    }
    let there = |command| {
        let process = Some(hs.owner.process).filter(|process| *process != 0);
        within(known.namespace(hs.owner.netns).as_deref(), process, command)
    };
    let mut remedies = Vec::new();
    if let Some(Finding::PathMtu(_)) = finding {
        remedies.push(
            Remedy::from("find out what passes: ")
                .and(there(Command::new("tracepath").arg("-n").arg(peer.ip))),
        );
        remedies.push(
            Remedy::from("let ICMP \"fragmentation needed\" through on the way, or let this host find it out by itself: ")
                .and(there(Command::new("sysctl").words("-w net.ipv4.tcp_mtu_probing=1"))),
        );
    } else {
        remedies.push(Remedy::from(format!(
            "look at {to}: what its service does, and what stands before it (balancer, proxy, firewall)"
        )));
        remedies.push(
            Remedy::from("see whether anything comes: ")
                .and(there(Command::new("ss").words("-tnoi sport =").arg(format!(":{}", local.port)))),
        );
    }
    let fate = match finding {
        Some(Finding::Silent | Finding::Forgotten(false)) => Fate::Silent,
        _ => Fate::Other,
    };
    if let Some(past) = past_of((hs.cookie, &hs.tuple, &hs.owner), hs.moved_ns, fate, view) {
        if let Some(blamed) = past.blamed {
            (kind, confidence) = (CauseKind::Neighbour, blamed);
        }
        past.reported(&mut why, &mut remedies, &mut evidence);
    }
    Report {
        kind: Kind::TlsHandshakeStalled,
        subject: group.subject.clone(),
        severity: Severity::Warning,
        began_ns: hs.moved_ns,
        count: group.total,
        process,
        summary,
        why,
        cause: Some(Cause {
            kind,
            confidence,
            destination: Some(peer.clone()),
            outcome: Some(end.map_or("pending", |(word, _)| word).to_owned()),
            elapsed_ms: Some(age_ns / 1_000_000),
            ..Cause::default()
        }),
        caused_by: vec![],
        remedies,
        evidence,
        details: Details::TlsHandshakeStalled(TlsDetails {
            role: Role::Client,
            stage: Stage::AwaitingServerHello,
            sni: waits.sni.as_ref().map(|name| name.text.clone()),
            sni_invalid: waits.sni.as_ref().and_then(|name| name.invalid),
            local,
            peer,
            since_before_start: false,
            stall_ms: age_ns / 1_000_000,
            read_after_ms: None,
            waiting: if end.is_some() { 0 } else { group.count() },
            unread: 0,
            hello_acknowledged: Some(waits.unacked.is_none()),
            threads: vec![],
            threads_left_out: 0,
            obstacle: None,
        }),
    }
}
