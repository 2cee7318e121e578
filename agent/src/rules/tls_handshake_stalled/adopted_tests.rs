//! Handshakes and connects that were under way before culprit started: what is concluded of them, and how surely.

use std::net::IpAddr;

use ebpf_probes::{
    abi::Kind as Record,
    probes::{
        connect::{Connect, flag},
        tls::{ADOPTED, Handshake, UNREAD},
    },
};

use crate::{
    known::context::{LocalObject, LocalWait, Posture, SeenProcess, SeenThread},
    pipeline::incident::{CauseKind, Confidence, Details, Incident, Kind},
    rules::scene::{PROCESS, Scene, advice, connect, hello, owner, thread, unread_hello},
};

/// As the socket shows it: read by some thread of the process, and not answered.
fn adopted(cookie: u64, at: u64) -> Handshake {
    let hs = hello(cookie, 0, at);
    Handshake { flags: ADOPTED, hello_len: 517, read_ns: hs.moved_ns, ..hs }
}

/// A connect of the process; by which of its threads is not known.
fn pending(cookie: u64, to: u8, at: u64) -> Connect {
    Connect { owner: owner(PROCESS, 0), flags: flag::ADOPTED, ..connect(cookie, 0, to, at) }
}

fn opened(scene: &Scene) -> &Incident {
    let stalled = |incident: &&Incident| incident.kind == Kind::TlsHandshakeStalled;
    scene.emitted.iter().rfind(stalled).expect("it opened")
}

fn blame(incident: &Incident) -> (CauseKind, Confidence) {
    incident.cause.as_ref().map(|cause| (cause.kind, cause.confidence)).expect("a cause")
}

/// culprit starts six seconds into it.
fn stalls(threads: Vec<SeenThread>, hs: Handshake, connects: &[Connect]) -> Scene {
    let mut scene = Scene::new();
    for connect in connects {
        scene.connect(6000, Record::CONNECT_WAITING, *connect);
    }
    scene.tls(6000, Record::TLS_PENDING, hs);
    scene.sees(6000, threads);
    scene.tick(6001);
    scene
}

#[test]
fn a_connect_begun_after_the_hello_by_a_thread_that_is_not_known_is_likely_at_most() {
    let threads = || vec![thread(PROCESS, Posture::Threads, &[]), thread(44, Posture::Descriptors, &[7])];
    let scene = stalls(threads(), adopted(1, 0), &[pending(7, 64, 5)]);
    let incident = opened(&scene);
    assert_eq!(blame(incident), (CauseKind::OutboundConnect, Confidence::Likely), "{incident:#?}");
    let summary = &incident.summary;
    assert!(
        summary.contains("for 6.0 s, since before culprit started: it is waiting for a connect to"),
        "{summary}"
    );
    assert!(!summary.contains("thread 0"), "{summary}");
    let evidence = &incident.evidence[0].text;
    assert!(
        evidence.starts_with("517 bytes came from 192.0.2.9") && evidence.contains("by port 443"),
        "{evidence}"
    );
    let Details::TlsHandshakeStalled(details) = &incident.details else { panic!("{incident:#?}") };
    assert!(details.since_before_start);
}

#[test]
fn a_connect_that_was_pending_before_the_hello_came_is_not_blamed() {
    let scene = stalls(vec![thread(44, Posture::Running, &[])], adopted(1, 3000), &[pending(7, 64, 0)]);
    let (kind, confidence) = blame(opened(&scene));
    assert_eq!(kind, CauseKind::NoneSeen);
    assert!(confidence < Confidence::Certain, "{confidence:?}");
}

#[test]
fn that_nothing_was_seen_is_never_certain_of_what_began_before_the_start() {
    for posture in [Posture::Threads, Posture::EventLoop, Posture::Unknown] {
        let scene = stalls(vec![thread(44, posture, &[])], adopted(1, 0), &[]);
        assert_eq!(blame(opened(&scene)), (CauseKind::NoneSeen, Confidence::Possible), "{posture:?}");
    }
}

#[test]
fn that_no_thread_has_read_it_is_likely_and_the_connect_that_keeps_the_process_busy_is_named() {
    let unread = Handshake { flags: ADOPTED | UNREAD, owner: owner(PROCESS, 0), ..unread_hello(1, 3000) };
    let scene = stalls(vec![thread(PROCESS, Posture::Disk, &[])], unread, &[]);
    assert_eq!(blame(opened(&scene)), (CauseKind::Unread, Confidence::Likely));
    let only = vec![thread(PROCESS, Posture::Descriptors, &[7])];
    let scene = stalls(only, unread, &[pending(7, 64, 0)]);
    let incident = opened(&scene);
    assert_eq!(blame(incident).0, CauseKind::OutboundConnect, "{incident:#?}");
    assert!(incident.summary.contains("192.0.2.64"), "{}", incident.summary);
}

fn waiting(tid: u32, what: LocalObject, ends: Vec<SeenProcess>) -> SeenThread {
    let local = Some(LocalWait { what, sends: false, ends, ends_cut: false });
    SeenThread { local, ..thread(tid, Posture::Descriptors, &[]) }
}

fn asks(tid: u32, server: &str) -> SeenThread {
    let what = LocalObject::DnsServer { server: format!("{server}:53").parse().expect("an address") };
    waiting(tid, what, vec![])
}

fn acceptor() -> SeenThread {
    SeenThread { accepts: true, ..thread(PROCESS, Posture::Descriptors, &[]) }
}

#[test]
fn a_lookup_that_was_asked_before_the_start_is_named_by_the_socket_it_waits_on() {
    let threads = vec![acceptor(), asks(44, "192.0.2.53"), thread(45, Posture::Sleep, &[])];
    let scene = stalls(threads, adopted(1, 0), &[]);
    let incident = opened(&scene);
    assert_eq!(blame(incident), (CauseKind::DnsLookup, Confidence::Likely), "{incident:#?}");
    assert!(
        incident.summary.contains("thread 44 of it is waiting for the DNS server 192.0.2.53:53 to answer"),
        "{}",
        incident.summary
    );
    let destination = scene.cause().destination.as_ref().expect("the server");
    assert_eq!((destination.ip, destination.port), (IpAddr::from([192, 0, 2, 53]), 53));
    assert!(advice(incident).contains("dig @192.0.2.53"), "{}", advice(incident));
}

#[test]
fn the_process_of_this_host_that_serves_the_dns_server_is_named() {
    let what = LocalObject::DnsServer { server: "127.0.0.53:53".parse().expect("an address") };
    let dnsmasq = SeenProcess { pid: 55, comm: "dnsmasq".into(), state: "S".into(), related: false };
    let scene = stalls(vec![acceptor(), waiting(44, what, vec![dnsmasq])], adopted(1, 0), &[]);
    let incident = opened(&scene);
    assert!(
        incident.summary.contains("127.0.0.53:53, which dnsmasq[55] serves, to answer"),
        "{}",
        incident.summary
    );
    assert_eq!(scene.cause().process.as_ref().map(|process| process.pid), Some(55));
}

#[test]
fn a_daemon_that_one_of_several_threads_waits_for_is_named_only_when_the_others_have_nothing_to_do() {
    let nscd = || {
        let what = LocalObject::UnixSocket { path: Some("/run/nscd/socket".into()) };
        waiting(
            44,
            what,
            vec![SeenProcess { pid: 77, comm: "nscd".into(), state: "S".into(), related: false }],
        )
    };
    let scene = stalls(vec![acceptor(), nscd()], adopted(1, 0), &[]);
    assert_eq!(blame(opened(&scene)), (CauseKind::LocalService, Confidence::Likely));
    for other in [asks(45, "192.0.2.53"), thread(45, Posture::Running, &[])] {
        let scene = stalls(vec![acceptor(), nscd(), other], adopted(1, 0), &[]);
        assert_eq!(blame(opened(&scene)), (CauseKind::NoneSeen, Confidence::Possible));
    }
}
