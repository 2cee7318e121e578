//! Tests of the limits of attribution: no cause without evidence, no "nothing" when something was left out, no critical
//! incident for a single unknown client, no "more threads" where none is busy.

use std::net::{IpAddr, SocketAddr};

use ebpf_probes::{
    abi::{Kind as Record, Netns, ProbeId, Stat},
    probes::tls::{Handshake, SPEAKS_TLS, stage},
};

use crate::{
    known::{
        context::{
            CgroupLimits, Context, Loaded, Posture, ProcessContext, Quota, Runtime, SeenSocket, SeenThread,
            Snapshot,
        },
        select::Select,
    },
    pipeline::incident::{CauseKind, Confidence, Incident, Kind, Severity, State},
    rules::scene::{PROCESS, Scene, advice, connect, flight, hello, owner, thread, unread_hello},
};

const STALLED: Kind = Kind::TlsHandshakeStalled;
/// Where scenes begin, nanoseconds since boot.
const BEGAN: u64 = 100_000_000_000;

fn openssl() -> Loaded {
    Loaded { known: true, dynamic: true, tls: Some("libssl.so.3".into()), runtime: None }
}

/// What was seen of the server at `at`.
fn seen(at: u64, threads: Vec<SeenThread>) -> Snapshot {
    Snapshot {
        boot_ns: BEGAN + at * 1_000_000,
        process: PROCESS,
        threads,
        loaded: openssl(),
        ..Snapshot::default()
    }
}

fn look(scene: &mut Scene, snapshot: Snapshot) {
    scene.apply(&Context::Snapshot(Box::new(snapshot)));
}

/// A server that listens on port 443.
fn listening() -> Scene {
    let mut scene = Scene::new();
    scene.apply(&Context::Listener {
        netns: Netns::numbered(1),
        address: IpAddr::from([0, 0, 0, 0]),
        port: 443,
        process: PROCESS,
        comm: "raven".into(),
    });
    scene
}

/// A connection on which something was sent 900 ms before the look, and nothing came back.
fn owing(cookie: u64, local: u16, remote: u16, inbound: Option<bool>) -> SeenSocket {
    let at = |last, port| SocketAddr::from(([192, 0, 2, last], port));
    SeenSocket {
        cookie,
        fd: 9,
        state: 1,
        local: at(1, local),
        remote: at(20, remote),
        acked_bytes: 300,
        received_bytes: 300,
        unacked: 0,
        sent_ms_ago: 900,
        received_ms_ago: 1000,
        unread_bytes: 0,
        inbound,
    }
}

/// One hello read by an event loop, and a connection of the process.
fn beside(socket: SeenSocket) -> Scene {
    let mut scene = Scene::new();
    scene.moves(0, hello(9, 43, 0));
    scene.stalls(1100, &[hello(1, 43, 0)]);
    let sockets = vec![socket];
    look(&mut scene, Snapshot { sockets, ..seen(1101, vec![thread(43, Posture::EventLoop, &[])]) });
    scene
}

#[test]
fn a_client_of_this_process_is_never_what_a_handshake_waits_for() {
    // Another client of this very service; a client of another port of the process.
    for socket in [owing(5, 443, 50_000, None), owing(5, 8080, 50_000, Some(true))] {
        let scene = beside(socket);
        assert_eq!(scene.cause().kind, CauseKind::NoneSeen, "{:#?}", scene.last());
        assert!(!format!("{:?}", scene.last()).contains("192.0.2.20"), "{:#?}", scene.last());
    }
    let backend = beside(owing(5, 50_000, 5432, Some(false)));
    assert_eq!(backend.cause().kind, CauseKind::Peer, "{:#?}", backend.last());
}

#[test]
fn nothing_is_certain_only_when_nothing_was_left_out() {
    for (posture, confidence) in [
        (Posture::Threads, Confidence::Certain),
        (Posture::Sleep, Confidence::Certain),
        // It may wait for whatever it polls.
        (Posture::EventLoop, Confidence::Likely),
        // In a socket that is no TCP peer, in a pipe, or in what was not known.
        (Posture::Descriptors, Confidence::Possible),
        (Posture::Processes, Confidence::Possible),
        (Posture::Unknown, Confidence::Possible),
    ] {
        let mut scene = Scene::new();
        scene.moves(0, hello(9, 43, 0));
        scene.stalls(1100, &[hello(1, 43, 0)]);
        look(&mut scene, seen(1101, vec![thread(43, posture, &[])]));
        assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::NoneSeen, confidence));
        let silent = scene.last().summary.contains("of the process delays it");
        assert_eq!(silent, confidence == Confidence::Certain, "{}", scene.last().summary);
    }
}

#[test]
fn lost_records_make_nothing_certain_and_are_said() {
    for (probe, confidence) in [
        (ProbeId::CONNECT, Confidence::Possible),
        (ProbeId::DNS, Confidence::Possible),
        (ProbeId::TLS, Confidence::Possible),
        // What it shows takes part in no handshake.
        (ProbeId::CLOCK, Confidence::Certain),
    ] {
        let mut scene = Scene::new();
        scene.loses(500, probe, Stat::Missed, 1);
        scene.stalls(1100, &[hello(1, 43, 0)]);
        look(&mut scene, seen(1101, vec![thread(43, Posture::Threads, &[])]));
        assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::NoneSeen, confidence));
        let said = scene.last().why.iter().any(|why| why.contains("were lost"));
        assert_eq!(said, confidence != Confidence::Certain, "{probe:?}: {:#?}", scene.last());
    }
}

#[test]
fn what_a_filter_hides_makes_nothing_certain_and_is_said() {
    let filters = [
        (Select { ports: vec![443], ..Select::default() }, "connects to port 443"),
        (Select { only_v6: Some(true), ..Select::default() }, "connects over IPv6"),
    ];
    for (select, watched) in filters {
        let said = |scene: &Scene| {
            let line = format!("Only {watched} were watched");
            assert!(scene.last().why.iter().any(|why| why.contains(&line)), "{:#?}", scene.last());
            assert_ne!(scene.cause().confidence, Confidence::Certain, "{:#?}", scene.last());
            assert!(!scene.last().summary.contains("of the process delays it"), "{}", scene.last().summary);
        };
        let mut scene = Scene::filtered(select.clone());
        scene.stalls(1100, &[hello(1, 43, 0)]);
        look(&mut scene, seen(1101, vec![thread(43, Posture::Threads, &[])]));
        said(&scene);
        // It is not read: a fetch before the first read would not be seen either.
        let mut scene = Scene::filtered(select.clone());
        scene.stalls(1100, &[unread_hello(1, 0)]);
        scene.tick(1350);
        said(&scene);
        // One of its threads is blamed, and its end fits: others of it may have fitted better.
        let mut scene = Scene::filtered(select);
        scene.waits(1100, connect(7, 44, 64, 5));
        scene.stalls(1100, &[hello(1, 43, 0)]);
        look(&mut scene, seen(1101, vec![thread(43, Posture::Threads, &[])]));
        scene.gives_up(5000, connect(7, 44, 64, 5));
        scene.moves(5050, hello(1, 43, 0));
        scene.ends();
        said(&scene);
        assert_eq!(scene.cause().kind, CauseKind::OutboundConnect);
    }
    // Processes are watched whole: nothing of theirs is hidden.
    let mut scene = Scene::filtered(Select { only_bad: true, ..Select::default() });
    scene.stalls(1100, &[hello(1, 43, 0)]);
    look(&mut scene, seen(1101, vec![thread(43, Posture::Threads, &[])]));
    assert_eq!(scene.cause().confidence, Confidence::Certain);
}

#[test]
fn a_thread_that_waits_for_another_is_as_uncertain_as_that_one() {
    let acceptor = || SeenThread { accepts: true, ..thread(44, Posture::Descriptors, &[]) };
    for (other, confidence) in [
        (acceptor(), Confidence::Certain),
        (thread(44, Posture::EventLoop, &[]), Confidence::Certain),
        (thread(44, Posture::Descriptors, &[5]), Confidence::Certain),
        // In a unix socket, in a pipe.
        (thread(44, Posture::Descriptors, &[77]), Confidence::Possible),
        (thread(44, Posture::Processes, &[]), Confidence::Possible),
    ] {
        let mut scene = Scene::new();
        scene.stalls(1100, &[hello(1, 43, 0)]);
        let threads = vec![thread(43, Posture::Threads, &[]), other];
        let sockets = vec![owing(5, 443, 50_000, Some(true))];
        look(&mut scene, Snapshot { sockets, ..seen(1101, threads) });
        assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::NoneSeen, confidence));
    }
}

#[test]
fn a_service_with_something_under_way_is_not_said_to_speak_no_tls() {
    // Asked 900 ms before the look, and before the hello.
    let mut scene = Scene::new();
    scene.stalls(1700, &[hello(1, 43, 900)]);
    let sockets = vec![owing(5, 50_000, 5432, Some(false))];
    look(&mut scene, Snapshot { sockets, ..seen(1701, vec![thread(43, Posture::EventLoop, &[])]) });
    assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::NoneSeen, Confidence::Possible));
    let said = scene.last();
    assert!(!said.summary.contains("speak no TLS") && said.summary.contains("not blamed"), "{said:#?}");
}

#[test]
fn what_was_set_aside_is_listed_with_the_reason() {
    for (posture, confidence) in
        [(Posture::Threads, Confidence::Possible), (Posture::Sleep, Confidence::Likely)]
    {
        let mut scene = Scene::new();
        scene.waits(400, connect(7, 44, 64, 100));
        scene.stalls(1700, &[hello(1, 43, 600)]);
        look(&mut scene, seen(1701, vec![thread(43, posture, &[])]));
        assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::NoneSeen, confidence));
        let said = &scene.last().evidence;
        let listed = said.iter().any(|seen| {
            seen.text.contains("thread 44's connect to 192.0.2.64:80")
                && seen.text.contains("since before this handshake")
        });
        assert!(listed, "{said:#?}");
        assert!(!scene.last().summary.contains("delays it"), "{}", scene.last().summary);
    }
}

#[test]
fn what_serves_another_handshake_is_set_aside_and_said() {
    let mut scene = Scene::new();
    scene.waits(1300, connect(7, 44, 64, 5));
    scene.stalls(1300, &[hello(1, 43, 0), hello(2, 44, 2)]);
    look(
        &mut scene,
        seen(1301, vec![thread(43, Posture::Threads, &[]), thread(44, Posture::Descriptors, &[7])]),
    );
    let of = |kind: CauseKind| {
        let opened = scene.opened(STALLED);
        opened.into_iter().find(|one| one.cause.as_ref().is_some_and(|cause| cause.kind == kind)).cloned()
    };
    let unnamed: Incident = of(CauseKind::NoneSeen).expect("the other's");
    assert_eq!(unnamed.cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Possible));
    assert!(
        unnamed.evidence.iter().any(|seen| seen.text.contains("serves another handshake")),
        "{unnamed:#?}"
    );
}

#[test]
fn a_fetch_before_the_first_read_is_blamed_and_its_end_proves_it() {
    let mut scene = listening();
    scene.waits(1100, connect(7, 44, 64, 57));
    scene.stalls(1100, &[unread_hello(1, 0)]);
    let runtime = Some(Runtime::Dotnet { major: Some(8) });
    let threads = vec![thread(44, Posture::Descriptors, &[7]), thread(45, Posture::Threads, &[])];
    let loaded = Loaded { runtime, ..openssl() };
    look(&mut scene, Snapshot { accepted: Some(true), loaded, ..seen(1101, threads) });
    let opened = scene.last().clone();
    assert_eq!(
        (scene.cause().kind, scene.cause().confidence),
        (CauseKind::OutboundConnect, Confidence::Likely),
        "{opened:#?}"
    );
    assert!(opened.summary.contains("has not read the ClientHello"), "{}", opened.summary);
    let remedies = advice(&opened);
    assert!(remedies.contains("offline: true") && !remedies.contains("more threads"), "{remedies}");
    scene.gives_up(5000, connect(7, 44, 64, 57));
    let mut read = hello(1, 45, 0);
    read.read_ns += 5_001_000_000;
    scene.tls(5002, Record::TLS_READ, read);
    scene.moves(5010, read);
    scene.ends();
    assert_eq!(scene.last().state, State::Resolved);
    assert_eq!(
        (scene.cause().kind, scene.cause().confidence),
        (CauseKind::OutboundConnect, Confidence::Certain),
        "{:#?}",
        scene.last()
    );
    assert_eq!(scene.opened(Kind::ConnectStalled).len(), 0);
}

#[test]
fn a_fetch_begun_for_the_connection_before_its_hello_came_is_blamed() {
    // The hello came at 2600; begun at once, long after the accept, before the connection.
    for (established, begun, kind, confidence) in [
        (0, 57, CauseKind::OutboundConnect, Confidence::Likely),
        (0, 1900, CauseKind::OutboundConnect, Confidence::Possible),
        (300, 57, CauseKind::Unread, Confidence::Likely),
    ] {
        let mut scene = listening();
        let mut hs = unread_hello(1, 2600);
        hs.established_ns = BEGAN + established * 1_000_000;
        scene.waits(1000, connect(7, 44, 64, begun));
        scene.stalls(3700, &[hs]);
        let threads = vec![thread(44, Posture::Descriptors, &[7]), thread(45, Posture::Threads, &[])];
        look(&mut scene, Snapshot { accepted: Some(true), ..seen(3701, threads) });
        assert_eq!((scene.cause().kind, scene.cause().confidence), (kind, confidence), "{:#?}", scene.last());
        if kind == CauseKind::Unread {
            let said = &scene.last().evidence;
            assert!(said.iter().any(|seen| seen.text.contains("before this connection was established")));
        }
    }
}

#[test]
fn what_was_over_before_the_hello_came_delayed_nothing() {
    let mut scene = listening();
    let mut hs = unread_hello(1, 2600);
    hs.established_ns = BEGAN;
    scene.waits(1000, connect(7, 44, 64, 57));
    scene.gives_up(2500, connect(7, 44, 64, 57));
    scene.stalls(3700, &[hs]);
    look(&mut scene, Snapshot { accepted: Some(true), ..seen(3701, vec![thread(44, Posture::Sleep, &[])]) });
    assert_eq!(scene.cause().kind, CauseKind::Unread, "{:#?}", scene.last());
}

#[test]
fn a_hello_in_the_accept_queue_is_kept_there_by_what_the_only_thread_waits_for() {
    let mut scene = listening();
    // Begun long before the hello came.
    scene.waits(400, connect(7, PROCESS, 64, 100));
    scene.stalls(1700, &[unread_hello(1, 600)]);
    let only = vec![thread(PROCESS, Posture::Descriptors, &[7])];
    look(&mut scene, Snapshot { accepted: Some(false), ..seen(1701, only) });
    assert_eq!(
        (scene.cause().kind, scene.cause().confidence),
        (CauseKind::OutboundConnect, Confidence::Certain),
        "{:#?}",
        scene.last()
    );
}

/// What is said of an unread hello when the process looks like this.
fn unread_beside(snapshot: Snapshot) -> Incident {
    let incident = unread_behind(snapshot);
    assert_eq!(incident.cause.as_ref().map(|cause| cause.kind), Some(CauseKind::Unread), "{incident:#?}");
    incident
}

/// The same, whatever is to blame.
fn unread_behind(snapshot: Snapshot) -> Incident {
    let mut scene = listening();
    scene.stalls(1100, &[unread_hello(1, 0)]);
    look(&mut scene, snapshot);
    scene.last().clone()
}

#[test]
fn more_threads_are_advised_only_when_all_are_busy_with_their_own() {
    let accepted = |threads| Snapshot { accepted: Some(true), ..seen(1101, threads) };
    let queued = |threads| Snapshot { accepted: Some(false), ..seen(1101, threads) };
    let acceptor = || SeenThread { accepts: true, ..thread(1, Posture::Descriptors, &[]) };
    for (snapshot, words, threads) in [
        (accepted(vec![acceptor(), thread(43, Posture::Sleep, &[])]), "no thread is free", true),
        (accepted(vec![acceptor(), thread(43, Posture::Descriptors, &[99])]), "no thread is free", false),
        (accepted(vec![thread(43, Posture::Disk, &[])]), "no thread is free", false),
        (
            accepted(vec![thread(43, Posture::Sleep, &[]), thread(44, Posture::Threads, &[])]),
            "has read from it",
            false,
        ),
        (queued(vec![thread(43, Posture::Descriptors, &[99])]), "no thread accepts", false),
        (queued(vec![thread(43, Posture::EventLoop, &[])]), "stopped accepting", false),
        (queued(vec![acceptor()]), "no thread has taken it", false),
        (
            Snapshot { threads_left_out: 3, ..accepted(vec![thread(43, Posture::Sleep, &[])]) },
            "has read from it",
            false,
        ),
    ] {
        let said = unread_beside(snapshot);
        assert!(said.summary.contains(words), "{words}: {}", said.summary);
        assert_eq!(advice(&said).contains("more threads"), threads, "{said:#?}");
    }
}

#[test]
fn a_frozen_or_throttled_service_is_said_to_be_and_given_no_threads() {
    let running = || vec![thread(43, Posture::Running, &[])];
    let quota = Some(Quota { allowed_us: 1000, period_us: 100_000, periods: 100, throttled: 98 });
    let throttled = Snapshot {
        accepted: Some(false),
        limits: CgroupLimits { quota, ..CgroupLimits::default() },
        ..seen(1101, running())
    };
    let said = unread_behind(throttled.clone());
    assert!(said.summary.contains("throttled") && said.summary.contains("98 of 100"), "{}", said.summary);
    assert!(advice(&said).contains("CPU quota"), "{:?}", said.remedies);
    let held = CgroupLimits { frozen: true, ..CgroupLimits::default() };
    let said = unread_behind(Snapshot { limits: held, ..seen(1101, vec![thread(43, Posture::Frozen, &[])]) });
    assert!(said.summary.contains("frozen") && advice(&said).contains("thaw"), "{said:#?}");
    assert_eq!(said.severity, Severity::Critical);
    // One that has read it is as slow.
    let mut scene = Scene::new();
    scene.stalls(1100, &[hello(1, 43, 0)]);
    look(&mut scene, throttled);
    assert!(scene.last().summary.contains("throttled"), "{}", scene.last().summary);
}

/// A hello that an event loop has read, by a program that has loaded this.
fn hello_to(loaded: Loaded, answered_before: bool, peers: u8) -> Scene {
    let mut scene = Scene::new();
    if answered_before {
        scene.moves(0, hello(99, 43, 0));
    }
    let mut hellos: Vec<_> = (1..=u64::from(peers)).map(|cookie| hello(cookie, 43, 0)).collect();
    for (hello, last) in hellos.iter_mut().zip(10..) {
        hello.tuple.remote[15] = last;
    }
    scene.stalls(1100, &hellos);
    look(&mut scene, Snapshot { loaded, ..seen(1101, vec![thread(43, Posture::EventLoop, &[])]) });
    scene.stalls(2200, &hellos);
    scene
}

#[test]
fn a_hello_to_a_port_without_tls_is_no_critical_and_without_a_library_none_at_all() {
    let plain = Loaded { known: true, dynamic: true, ..Loaded::default() };
    let scene = hello_to(plain.clone(), false, 2);
    assert!(scene.opened(STALLED).is_empty(), "{:#?}", scene.emitted);
    let scene = hello_to(openssl(), false, 1);
    let said = scene.last();
    assert_eq!((scene.opened(STALLED).len(), said.severity), (1, Severity::Warning));
    assert!(said.summary.contains("may speak no TLS"), "{}", said.summary);
    assert!(!format!("{said:?}").contains("gdb"), "{said:#?}");
    // However many ask, as long as none was ever answered.
    assert!(
        hello_to(openssl(), false, 3).emitted.iter().all(|emitted| emitted.severity == Severity::Warning)
    );
    for loaded in [plain, openssl()] {
        let scene = hello_to(loaded, true, 1);
        assert_eq!((scene.opened(STALLED).len(), scene.last().severity), (1, Severity::Critical));
    }
}

#[test]
fn a_service_that_the_kernel_saw_answer_is_a_tls_service() {
    let plain = Loaded { known: true, dynamic: true, ..Loaded::default() };
    for (flags, opened) in [(0, 0), (SPEAKS_TLS, 1)] {
        let mut scene = Scene::new();
        scene.stalls(1100, &[Handshake { flags, ..hello(1, 43, 0) }]);
        let threads = vec![thread(43, Posture::EventLoop, &[])];
        look(&mut scene, Snapshot { loaded: plain.clone(), ..seen(1101, threads) });
        let emitted = scene.opened(STALLED);
        assert_eq!(emitted.len(), opened, "{emitted:#?}");
        assert!(emitted.iter().all(|emitted| emitted.severity == Severity::Critical), "{emitted:#?}");
    }
}

#[test]
fn the_next_handshake_is_reported_with_its_own_process() {
    let mut scene = listening();
    scene.process(2001, &[PROCESS], 1);
    let child = |process: u32, cookie: u64| {
        let mut hs = hello(cookie, process, 0);
        (hs.owner, hs.reader) = (owner(process, process), owner(process, process));
        hs
    };
    scene.stalls(1100, &[child(2001, 1), unread_hello(2, 1)]);
    scene.tick(1350);
    assert_eq!(scene.last().process.as_ref().map(|process| process.pid), Some(2001));
    scene.moves(1500, child(2001, 1));
    scene.tick(2500);
    let mut closed = unread_hello(2, 1);
    closed.stage = stage::CLOSED;
    scene.tls(3000, Record::TLS_PHASE, closed);
    scene.ends();
    let last = scene.last();
    assert_eq!(last.process.as_ref().map(|process| process.pid), Some(PROCESS), "{last:#?}");
    assert!(!format!("{last:?}").contains("this host"), "{last:#?}");
}

#[test]
fn a_translated_handshake_is_reported_with_the_address_on_the_wire_too() {
    let mut hs = flight(1, 43, 0);
    hs.wire = hs.tuple;
    (hs.wire.remote[15], hs.wire.remote_port) = (77, 8443);
    let mut scene = Scene::new();
    scene.stalls(1100, &[hs]);
    look(&mut scene, seen(1101, vec![thread(43, Posture::Sleep, &[])]));
    let said = scene.last();
    assert!(said.summary.contains("192.0.2.9:443, by NAT 192.0.2.77:8443 for 1.1 s"), "{}", said.summary);
    let json = serde_json::to_value(said).expect("JSON");
    assert_eq!(json["details"]["peer"]["wire"]["port"], 8443, "{json:#}");
    // Redirected to the server: the port that the client asked for.
    let mut hs = hello(1, 43, 0);
    hs.wire = hs.tuple;
    hs.tuple.local_port = 8443;
    let mut scene = Scene::new();
    scene.stalls(1100, &[hs]);
    look(&mut scene, seen(1101, vec![thread(43, Posture::Sleep, &[])]));
    let came = &scene.last().evidence[0].text;
    assert_eq!(came, "ClientHello came from 192.0.2.9:50001 to 192.0.2.1:8443, by NAT 192.0.2.1:443");
}

#[test]
fn a_handshake_without_a_known_process_is_reported_by_its_service() {
    let mut scene = Scene::new();
    scene.stalls(1100, &[unread_hello(1, 0)]);
    scene.tick(1350);
    assert!(
        scene.last().summary.starts_with("the service at 192.0.2.1:443 has not read"),
        "{}",
        scene.last().summary
    );
}

#[test]
fn the_child_that_holds_the_connection_is_the_one_looked_at() {
    let mut scene = listening();
    scene.process(2001, &[PROCESS], 1);
    scene.stalls(1100, &[unread_hello(1, 0)]);
    let threads = vec![thread(2001, Posture::Sleep, &[])];
    let child =
        Snapshot { process: 2001, asked: PROCESS, accepted: Some(true), cookie: 1, ..seen(1101, threads) };
    look(&mut scene, child);
    let last = scene.last();
    assert_eq!(last.process.as_ref().map(|process| process.pid), Some(2001), "{last:#?}");
    assert!(last.summary.contains("the connection is accepted"), "{}", last.summary);
}

#[test]
fn a_client_that_sent_no_certificate_is_not_said_to_have() {
    for (flags, words) in [(0, "the client's Finished"), (64, "the client's certificate and Finished")] {
        let mut scene = Scene::new();
        let mut hs = hello(1, 43, 0);
        (hs.stage, hs.flags) = (stage::CLIENT_FINISH, flags);
        scene.stalls(1100, &[hs]);
        look(&mut scene, seen(1101, vec![thread(43, Posture::Sleep, &[])]));
        assert!(scene.last().summary.contains(words), "{}", scene.last().summary);
    }
}

#[test]
fn a_process_has_one_name_and_the_thread_s_stands_beside_it() {
    let mut scene = Scene::new();
    scene.apply(&Context::Process(ProcessContext {
        pid: PROCESS,
        comm: "raven".into(),
        leader: Some("nest".into()),
        started_ns: 1,
        ..ProcessContext::default()
    }));
    scene.waits(1100, connect(7, 44, 64, 5));
    scene.stalls(1100, &[hello(1, 43, 0)]);
    look(&mut scene, seen(1101, vec![thread(43, Posture::Threads, &[])]));
    let process = scene.last().process.as_ref().expect("it is known");
    assert_eq!((process.comm.as_str(), process.thread.as_deref()), ("nest", Some("raven")));
    let summary = &scene.last().summary;
    assert!(summary.starts_with("nest[1017]") && summary.contains("thread 44 (raven) of it"), "{summary}");
}
