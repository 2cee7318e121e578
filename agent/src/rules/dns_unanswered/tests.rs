use ebpf_probes::{abi::Kind as Record, probes::connect::Connect};
use simple_dns::{Name, RCODE, TYPE};

use crate::{
    known::{
        context::{Context, Posture, ProcessContext, Snapshot},
        request::Request,
    },
    pipeline::incident::{
        CauseKind, Confidence, Details, DnsReason, DnsUnansweredDetails, Incident, Kind, Severity, State,
    },
    rules::{
        scene::{PROCESS, Scene, advice, connect, hello, ns, thread, v4},
        scene_lookups::{Asked, asks},
    },
};

/// dnsmasq, which answers at 127.0.0.1.
const STUB: u32 = 812;

#[track_caller]
pub(super) fn details(incident: &Incident) -> &DnsUnansweredDetails {
    match &incident.details {
        Details::DnsUnanswered(details) => details,
        other => panic!("{other:?}"),
    }
}

/// What was said last of the situation that was opened first.
#[track_caller]
pub(super) fn last(scene: &Scene) -> &Incident {
    let id = &scene.opened(Kind::DnsUnanswered).first().expect("one was opened").id;
    scene.emitted.iter().rfind(|incident| incident.id == *id).expect("itself at least")
}

fn none(scene: &Scene) -> bool {
    scene.opened(Kind::DnsUnanswered).is_empty()
}

/// `127.0.0.last`, mapped.
fn loopback(last: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, last]
}

/// A look at the process shows these threads; its socket of this cookie is there, or not.
fn seen(scene: &mut Scene, at: u64, cookie: u64, accepted: bool) {
    let threads = vec![thread(PROCESS, Posture::Descriptors, &[])];
    let accepted = Some(accepted);
    let snapshot =
        Snapshot { boot_ns: ns(at), process: PROCESS, threads, cookie, accepted, ..Snapshot::default() };
    scene.apply(&Context::Snapshot(Box::new(snapshot)));
}

#[test]
fn a_lookup_without_an_answer_for_two_seconds_is_an_incident_that_names_process_name_and_server() {
    let mut scene = Scene::new();
    scene.asks(0, &asks(7, PROCESS, "db.example.net"));
    scene.passes(500, 1500);
    assert!(none(&scene), "{:#?}", scene.emitted);
    scene.passes(2000, 2500);
    let said = last(&scene);
    assert_eq!(
        said.summary,
        "raven[1017]'s lookup of A db.example.net at 192.0.2.53:53 is unanswered after 2.5 s: 1 query, no answer."
    );
    assert_eq!((details(said).reason, details(said).waiting, said.count), (DnsReason::Unanswered, 1, 1));
    let cause = said.cause.as_ref().expect("a cause");
    assert_eq!((cause.kind, cause.confidence), (CauseKind::DnsLookup, Confidence::Certain));
    assert_eq!((said.severity, cause.query.as_deref()), (Severity::Warning, Some("A db.example.net")));
    let remedies = advice(said);
    assert!(remedies.contains("dig @192.0.2.53 -t A -q db.example.net"), "{remedies}");
    assert!(remedies.contains("allow udp/53 and tcp/53 to 192.0.2.53"), "{remedies}");
    scene.hears(5000, &asks(7, PROCESS, "db.example.net"), RCODE::NoError);
    scene.passes(5000, 8000);
    assert_eq!((last(&scene).state, last(&scene).duration_ms), (State::Resolved, 5000));
    assert!(last(&scene).summary.contains("was unanswered after 5.0 s"), "{}", last(&scene).summary);
}

#[test]
fn one_lost_packet_that_is_answered_at_the_second_try_is_healthy() {
    let mut scene = Scene::new();
    // By the same socket.
    scene.asks(0, &asks(7, PROCESS, "db.example.net"));
    scene.asks(1000, &asks(7, PROCESS, "db.example.net"));
    scene.hears(1010, &asks(7, PROCESS, "db.example.net"), RCODE::NoError);
    // By another one, or of another server.
    scene.asks(1100, &asks(8, PROCESS, "db.example.net"));
    scene.asks(2100, &Asked { server: v4(54), ..asks(9, PROCESS, "db.example.net") });
    scene.hears(2110, &Asked { server: v4(54), ..asks(9, PROCESS, "db.example.net") }, RCODE::NoError);
    scene.passes(2500, 30_000);
    assert!(none(&scene), "{:#?}", scene.emitted);
}

#[test]
fn a_resolver_s_own_search_for_an_answer_is_not_looked_at() {
    let mut scene = Scene::new();
    scene.asks(0, &Asked { recursive: false, ..asks(7, PROCESS, "db.example.net") });
    scene.passes(500, 30_000);
    assert!(none(&scene), "{:#?}", scene.emitted);
}

#[test]
fn a_lookup_that_its_process_no_longer_waits_for_is_none() {
    let mut scene = Scene::new();
    scene.asks(0, &asks(7, PROCESS, "db.example.net"));
    scene.tick(2000);
    assert!(matches!(scene.requests[..], [Request::Process(_)]), "{:?}", scene.requests);
    seen(&mut scene, 2001, 7, false);
    scene.passes(2250, 30_000);
    assert!(none(&scene), "{:#?}", scene.emitted);
}

#[test]
fn one_that_gives_up_later_ends_its_incident() {
    let mut scene = Scene::new();
    scene.asks(0, &asks(7, PROCESS, "db.example.net"));
    scene.tick(2000);
    seen(&mut scene, 2001, 7, true);
    assert_eq!(scene.opened(Kind::DnsUnanswered).len(), 1);
    scene.passes(2500, 6000);
    seen(&mut scene, 6001, 7, false);
    scene.passes(6500, 9000);
    let said = last(&scene);
    assert_eq!(said.state, State::Resolved);
    assert_eq!(said.cause.as_ref().and_then(|cause| cause.outcome.as_deref()), Some("aborted"));
}

#[test]
fn a_server_that_answers_others_meanwhile_is_said_to_and_not_certain() {
    let mut scene = Scene::new();
    scene.process(2000, &[], 0);
    scene.asks(0, &asks(7, PROCESS, "dead.example.net"));
    for (at, process) in [(100, 2000), (1500, PROCESS)] {
        let other = Asked { cookie: at, id: 1, ..asks(at, process, "fine.example.net") };
        scene.asks(at, &other);
        scene.hears(at + 1, &other, RCODE::NoError);
    }
    scene.passes(2000, 2500);
    let said = last(&scene);
    assert!(
        said.summary.contains("the server answered 1 other question of this process"),
        "{}",
        said.summary
    );
    assert_eq!((details(said).answers_to_process, details(said).answers_to_others), (1, 1));
    let cause = said.cause.as_ref().expect("a cause");
    assert_eq!((cause.confidence, said.severity), (Confidence::Likely, Severity::Info));
    assert!(!advice(said).contains("allow udp/53"), "{}", advice(said));
}

#[test]
fn the_half_of_a_pair_that_is_lost_while_the_other_is_answered_is_no_silent_resolver() {
    let mut scene = Scene::new();
    let v6 = Asked { id: 8, query_type: TYPE::AAAA, ..asks(7, PROCESS, "www.example.net") };
    scene.asks(0, &asks(7, PROCESS, "www.example.net"));
    scene.asks(0, &v6);
    scene.hears(1, &asks(7, PROCESS, "www.example.net"), RCODE::NoError);
    scene.passes(500, 2500);
    let said = last(&scene);
    assert_eq!((details(said).reason, said.severity), (DnsReason::HalfUnanswered, Severity::Warning));
    assert_eq!(details(said).answered_type.as_deref(), Some("A"));
    assert!(said.summary.contains("lookup of AAAA www.example.net"), "{}", said.summary);
    let remedies = advice(said);
    assert!(remedies.contains("single-request-reopen") && !remedies.contains("allow"), "{remedies}");
    // Both are sent again, and answered.
    for half in [&asks(7, PROCESS, "www.example.net"), &v6] {
        scene.asks(5000, half);
        scene.hears(5001, half, RCODE::NoError);
    }
    scene.passes(5500, 8000);
    let said = last(&scene);
    assert_eq!((said.state, details(said).reason), (State::Resolved, DnsReason::HalfUnanswered));
}

#[test]
fn a_lookup_that_a_stalled_handshake_waits_for_is_that_handshakes_alone() {
    let mut scene = Scene::new();
    scene.asks(5, &asks(7, PROCESS, "ocsp.example.net"));
    scene.stalls(1100, &[hello(1, PROCESS, 0)]);
    scene.sees(1101, vec![thread(PROCESS, Posture::Descriptors, &[7])]);
    for at in (1350..=30_000).step_by(250) {
        scene.tick(at);
    }
    assert_eq!(scene.opened(Kind::TlsHandshakeStalled).len(), 1);
    assert!(none(&scene), "{:#?}", scene.emitted);
}

#[test]
fn a_lost_half_inside_a_stalled_handshake_explains_it() {
    let mut scene = Scene::new();
    let v6 = Asked { id: 8, query_type: TYPE::AAAA, ..asks(7, PROCESS, "ocsp.example.net") };
    scene.asks(5, &asks(7, PROCESS, "ocsp.example.net"));
    scene.asks(5, &v6);
    scene.hears(6, &asks(7, PROCESS, "ocsp.example.net"), RCODE::NoError);
    scene.stalls(1100, &[hello(1, PROCESS, 0)]);
    scene.sees(1101, vec![thread(PROCESS, Posture::Descriptors, &[7])]);
    scene.passes(1500, 3000);
    let explains = last(&scene).id.clone();
    let stalled = scene.emitted.iter().rfind(|said| said.kind == Kind::TlsHandshakeStalled).expect("one");
    assert_eq!(stalled.caused_by, [explains]);
    assert!(!advice(stalled).contains("allow udp/53"), "{}", advice(stalled));
}

/// `process` asks the resolver of its own host, which asks 192.0.2.53.
fn behind_stub(scene: &mut Scene) -> (Asked, Asked) {
    scene.apply(&Context::Process(ProcessContext {
        pid: STUB,
        comm: "dnsmasq".into(),
        exe: Some("/usr/sbin/dnsmasq".into()),
        started_ns: 1,
        ..ProcessContext::default()
    }));
    let own = Asked { server: loopback(1), ..asks(7, PROCESS, "ocsp.example.net") };
    let mut behind = asks(8, STUB, "ocsp.example.net");
    behind.owner.comm = *b"dnsmasq\0\0\0\0\0\0\0\0\0";
    scene.asks(5, &own);
    scene.asks(6, &behind);
    (own, behind)
}

#[test]
fn a_resolver_of_this_host_that_waits_for_its_own_upstream_is_named_with_it() {
    let mut scene = Scene::new();
    behind_stub(&mut scene);
    scene.passes(500, 3500);
    let opened = scene.opened(Kind::DnsUnanswered);
    assert_eq!(opened.len(), 2, "{opened:#?}");
    let (upstream, own) = (opened[0], opened[1]);
    assert_eq!(upstream.process.as_ref().map(|process| process.pid), Some(STUB));
    assert_eq!(own.caused_by, std::slice::from_ref(&upstream.id));
    assert!(
        own.summary.contains("dnsmasq[812] on this host is asked and itself waits for 192.0.2.53:53"),
        "{}",
        own.summary
    );
    let cause = own.cause.as_ref().expect("a cause");
    assert_eq!((cause.kind, cause.confidence), (CauseKind::LocalService, Confidence::Certain));
    assert!(!advice(own).contains("127.0.0.1"), "{}", advice(own));
    assert!(advice(own).contains("allow udp/53 and tcp/53 to 192.0.2.53"), "{}", advice(own));
}

#[test]
fn a_handshake_that_waits_for_a_resolver_of_this_host_names_what_that_waits_for() {
    let mut scene = Scene::new();
    behind_stub(&mut scene);
    scene.stalls(1100, &[hello(1, PROCESS, 0)]);
    scene.sees(1101, vec![thread(PROCESS, Posture::Descriptors, &[7])]);
    let opened = scene.opened(Kind::TlsHandshakeStalled)[0];
    assert!(
        opened.summary.contains("dnsmasq[812] on this host is asked and itself waits for 192.0.2.53:53"),
        "{}",
        opened.summary
    );
    assert!(!advice(opened).contains("127.0.0.1"), "{}", advice(opened));
    scene.passes(1500, 3500);
    let upstream = scene.opened(Kind::DnsUnanswered)[0].id.clone();
    let stalled = scene.emitted.iter().rfind(|said| said.kind == Kind::TlsHandshakeStalled).expect("one");
    assert_eq!(stalled.caused_by, [upstream]);
    assert_eq!(scene.opened(Kind::DnsUnanswered).len(), 1, "the resolver's own alone");
}

#[test]
fn servfail_again_and_again_is_an_incident_and_a_few_among_many_answers_are_not() {
    let names = ["a.example.net", "b.example.net", "c.example.net", "d.example.net"];
    for healthy in [0, 10] {
        let mut scene = Scene::new();
        for (at, name) in (0u64..).map(|at| at * 3000).zip(names) {
            let asked = asks(100 + at, PROCESS, name);
            scene.asks(at, &asked);
            scene.hears(at + 5, &asked, RCODE::ServerFailure);
        }
        let fine = [
            "1.test", "2.test", "3.test", "4.test", "5.test", "6.test", "7.test", "8.test", "9.test",
            "0.test",
        ];
        for (number, name) in fine.into_iter().enumerate().take(healthy) {
            let asked = asks(500 + number as u64, PROCESS, name);
            scene.asks(6100, &asked);
            scene.hears(6101, &asked, RCODE::NoError);
        }
        scene.passes(9500, 20_000);
        assert!(scene.requests.contains(&Request::Answers));
        assert_eq!(none(&scene), healthy > 0, "{healthy}: {:#?}", scene.emitted);
        if healthy == 0 {
            let said = last(&scene);
            assert_eq!(details(said).reason, DnsReason::Failing);
            assert!(said.summary.contains("end badly: SERVFAIL"), "{}", said.summary);
            scene.passes(60_000, 75_000);
            assert_eq!(last(&scene).state, State::Resolved);
        }
    }
}

#[test]
fn the_attempts_of_one_lookup_are_one() {
    let mut scene = Scene::new();
    // As a C library asks: A and AAAA, twice each.
    for (number, query_type) in [(0, TYPE::A), (1, TYPE::AAAA), (2, TYPE::A), (3, TYPE::AAAA)] {
        let asked = Asked { query_type, ..asks(20 + number, PROCESS, "broken.example.net") };
        scene.asks(number, &asked);
        scene.hears(number + 1, &asked, RCODE::ServerFailure);
    }
    scene.passes(500, 20_000);
    assert!(none(&scene), "{:#?}", scene.emitted);
}

#[test]
fn a_truncated_answer_whose_tcp_connect_is_silent_is_an_incident_of_the_lookup_alone() {
    let mut scene = Scene::new();
    scene.asks(0, &asks(7, PROCESS, "big.example.net"));
    scene.hears_truncated(1, &asks(7, PROCESS, "big.example.net"));
    let mut tcp = connect(9, PROCESS, 53, 2);
    tcp.tuple.remote_port = 53;
    scene.waits(500, tcp);
    scene.passes(500, 2500);
    scene.connect(3010, Record::CONNECT_PENDING, tcp);
    scene.passes(3000, 3500);
    let said = last(&scene);
    assert_eq!(details(said).reason, DnsReason::TcpUnanswered);
    assert!(said.summary.contains("truncated"), "{}", said.summary);
    assert!(advice(said).contains("allow tcp/53 to 192.0.2.53"), "{}", advice(said));
    assert!(scene.opened(Kind::ConnectStalled).is_empty());
    scene.connect(9000, Record::CONNECT_END, Connect { errno: 110, ..tcp });
    scene.passes(9000, 12_000);
    assert_eq!(last(&scene).state, State::Resolved);
}

#[test]
fn names_of_a_search_list_that_do_not_exist_are_counted() {
    let mut scene = Scene::new();
    for (at, name) in [
        (0u64, "db.example.net.default.svc.cluster.local"),
        (1, "db.example.net.svc.cluster.local"),
        (2, "db.example.net.cluster.local"),
    ] {
        let asked = asks(100 + at, PROCESS, name);
        scene.asks(at, &asked);
        scene.hears(at + 1, &asked, RCODE::NameError);
    }
    scene.asks(4, &asks(7, PROCESS, "db.example.net"));
    scene.passes(500, 3000);
    let said = last(&scene);
    assert_eq!(details(said).searched.len(), 3);
    assert!(said.why.join(" ").contains("3 names of its search list"), "{:?}", said.why);
    assert!(advice(said).contains("ndots"), "{}", advice(said));
}

#[test]
fn a_database_that_looks_up_its_clients_is_given_its_own_setting() {
    for (program, setting) in
        [("mariadbd", "skip_name_resolve"), ("postgres", "log_hostname"), ("sshd", "UseDNS")]
    {
        let mut scene = Scene::new();
        scene.apply(&Context::Process(ProcessContext {
            pid: PROCESS,
            comm: program.into(),
            exe: Some(format!("/usr/sbin/{program}")),
            started_ns: 1,
            ..ProcessContext::default()
        }));
        let asked = Asked { query_type: TYPE::PTR, ..asks(7, PROCESS, "20.1.77.10.in-addr.arpa") };
        scene.asks(0, &asked);
        scene.passes(500, 2500);
        let said = last(&scene);
        assert!(advice(said).contains(setting), "{program}: {}", advice(said));
        assert!(said.why.join(" ").contains("the name of 10.77.1.20"), "{:?}", said.why);
    }
}

#[test]
fn a_thousand_lookups_of_one_program_are_one_incident() {
    let mut scene = Scene::new();
    for number in 0..1000u64 {
        let name = Name::new_unchecked(Box::leak(format!("n{number}.example.net").into_boxed_str()));
        scene.asks(number, &Asked { name, ..asks(100 + number, PROCESS, "") });
    }
    scene.passes(2000, 5000);
    assert_eq!(scene.opened(Kind::DnsUnanswered).len(), 1);
    assert!(scene.emitted.len() <= 16, "{}", scene.emitted.len());
    let said = last(&scene);
    assert_eq!((details(said).names, details(said).questions.len()), (said.count, 10));
    // Nothing is asked again: they are given up.
    scene.passes(5500, 30_000);
    assert_eq!((last(&scene).state, scene.table("dns_unanswered_waiting").entries), (State::Resolved, 0));
}
