use ebpf_probes::{
    abi::Kind as Record,
    probes::tls::{
        ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLIENT_HELLO, CLOSED_BY_CLIENT, CLOSED_BY_SERVER,
        Handshake, SERVER, stage,
    },
};

use crate::{
    fact::ReferenceKind,
    pipeline::incident::{
        CauseKind, Confidence, Details, Incident, Kind, Severity, State, TlsFailingDetails, TlsFailure,
    },
    rules::{
        client_hello::client_hello,
        scene::{Scene, advice, hello, v4},
    },
};

const EXPIRED: u32 = 45;
const UNKNOWN_CA: u32 = 48;
const PROTOCOL_VERSION: u32 = 70;

#[track_caller]
fn details(incident: &Incident) -> &TlsFailingDetails {
    match &incident.details {
        Details::TlsFailing(details) => details,
        other => panic!("{other:?}"),
    }
}

/// A handshake of a service with 192.0.2.`peer` that began at a moment.
fn served(peer: u8, at: u64) -> Handshake {
    let mut hs = hello(at % 10_000 + 1, 1017, at);
    hs.tuple.remote = v4(peer);
    Handshake { read_stage: stage::SERVER_FLIGHT, ..hs }
}

/// A handshake of a client with 192.0.2.`peer`:443.
fn asked(peer: u8, at: u64) -> Handshake {
    let mut hs = served(peer, at);
    (hs.role, hs.tuple.local_port, hs.tuple.remote_port) = (CLIENT, 50_000, 443);
    hs
}

/// Its end by an alert in clear.
fn alert(hs: Handshake, number: u32, flags: u32) -> Handshake {
    Handshake { stage: stage::ALERT, alert: 1 << 16 | 2 << 8 | number, flags, ..hs }
}

fn encrypted(hs: Handshake) -> Handshake {
    Handshake { stage: stage::ALERT, flags: ALERT_BY_CLIENT | ALERT_ENCRYPTED, ..hs }
}

fn closed(hs: Handshake, flags: u32) -> Handshake {
    Handshake { stage: stage::CLOSED, flags, ..hs }
}

impl Scene {
    /// The ClientHello of a handshake, with this name and highest version.
    fn says_hello(&mut self, at: u64, cookie: u64, name: Option<&str>, version: u16) {
        self.bytes(at, cookie, CLIENT_HELLO, &client_hello(name.map(str::as_bytes), version));
    }

    /// A handshake that fails, by a client that asks for a name.
    fn fails(&mut self, at: u64, name: Option<&str>, hs: Handshake) {
        self.says_hello(at, hs.cookie, name, 0x0303);
        self.tls(at, Record::TLS_PHASE, hs);
    }
}

/// As many failures, half a second apart, from the beginning on; then two seconds pass.
fn failing(name: Option<&str>, count: u64, hs: impl Fn(u64) -> Handshake) -> Scene {
    let mut scene = Scene::new();
    goes_on(&mut scene, 0, name, count, hs);
    scene
}

fn goes_on(scene: &mut Scene, from: u64, name: Option<&str>, count: u64, hs: impl Fn(u64) -> Handshake) {
    for number in 0..count {
        let at = from + number * 500;
        scene.fails(at + 2, name, hs(at));
        scene.tick(at + 250);
    }
    scene.passes(from + count * 500, from + count * 500 + 2000);
}

#[test]
fn clients_that_refuse_an_expired_certificate_are_one_incident_of_the_service() {
    let scene = failing(Some("www.example.com"), 20, |at| {
        alert(served(9 + (at / 500 % 2) as u8, at), EXPIRED, ALERT_BY_CLIENT)
    });
    let opened = scene.opened(Kind::TlsFailing);
    assert_eq!(opened.len(), 1);
    let last = scene.last();
    assert_eq!(
        last.summary,
        "2 clients refuse the certificate of raven[1017] on port 443 for www.example.com: certificate_expired 16 times within 7.5 s."
    );
    let said = details(last);
    assert_eq!((said.failure, said.peers, said.worst.len()), (TlsFailure::ServerFlightRefused, 2, 2));
    let cause = scene.cause();
    assert_eq!((cause.kind, cause.confidence), (CauseKind::Certificate, Confidence::Certain));
    assert_eq!(last.severity, Severity::Warning);
    assert!(last.why[0].starts_with("certificate_expired: the certificate has expired"), "{:?}", last.why);
    assert!(
        advice(last).contains(
            "openssl s_client -connect 192.0.2.1:443 -servername www.example.com </dev/null | openssl x509 -noout -subject -issuer -dates"
        ),
        "{}",
        advice(last)
    );
}

#[test]
fn two_failures_are_none_and_neither_are_three_within_five_minutes() {
    let scene = failing(Some("a.example"), 2, |at| alert(served(9, at), EXPIRED, ALERT_BY_CLIENT));
    assert!(scene.emitted.is_empty());
    let mut scene = Scene::new();
    for at in [0, 100_000, 200_000] {
        scene.fails(at + 2, Some("a.example"), alert(served(9, at), EXPIRED, ALERT_BY_CLIENT));
        scene.passes(at + 500, at + 1000);
    }
    scene.passes(201_500, 204_000);
    assert!(scene.emitted.is_empty());
}

#[test]
fn an_encrypted_alert_is_likely_at_most_and_names_no_reason_as_known() {
    let scene = failing(Some("a.example"), 3, |at| encrypted(served(9, at)));
    let last = scene.last();
    assert!(
        last.summary.starts_with("192.0.2.9 rejects the server's flight of raven[1017]"),
        "{}",
        last.summary
    );
    assert!(last.why[0].starts_with("The client rejected the server's flight."), "{:?}", last.why);
    assert_eq!(scene.cause().confidence, Confidence::Likely);
    // One in clear among them says why, for its client.
    let mixed = failing(Some("a.example"), 4, |at| match at {
        0 => alert(served(8, at), UNKNOWN_CA, ALERT_BY_CLIENT),
        _ => encrypted(served(9, at)),
    });
    assert_eq!(mixed.opened(Kind::TlsFailing).len(), 1);
    assert!(mixed.last().why[0].starts_with("unknown_ca: "), "{:?}", mixed.last().why);
    assert_eq!(mixed.cause().confidence, Confidence::Likely);
}

#[test]
fn a_program_that_refuses_a_peer_is_named_with_it_and_a_completed_handshake_ends_it() {
    let refused = |at| alert(asked(9, at), UNKNOWN_CA, ALERT_BY_CLIENT);
    let mut scene = failing(Some("a.example"), 3, refused);
    let opened = scene.last().clone();
    assert_eq!(details(&opened).role, crate::domains::tls::Role::Client);
    assert!(
        opened.summary.starts_with("raven[1017] refuses the certificate of 192.0.2.9:443 for a.example"),
        "{}",
        opened.summary
    );
    assert!(advice(&opened).contains("-showcerts"), "{}", advice(&opened));
    // Of another name it says nothing.
    scene.says_hello(5000, 77, Some("b.example"), 0x0303);
    scene.tls(5001, Record::TLS_PHASE, Handshake { cookie: 77, stage: stage::DONE, ..asked(9, 5000) });
    scene.passes(5500, 8500);
    assert_ne!(scene.last().state, State::Resolved);
    scene.says_hello(9000, 78, Some("a.example"), 0x0303);
    scene.tls(9001, Record::TLS_PHASE, Handshake { cookie: 78, stage: stage::DONE, ..asked(9, 9000) });
    scene.passes(9500, 12_500);
    assert_eq!((scene.last().state, &scene.last().id), (State::Resolved, &opened.id));
    // The same again is the same incident.
    goes_on(&mut scene, 20_000, Some("a.example"), 3, refused);
    assert_eq!((scene.last().state, &scene.last().id), (State::Open, &opened.id));
    assert_eq!(scene.last().count, 6);
}

#[test]
fn a_minute_without_a_failure_ends_it() {
    let mut scene = failing(Some("a.example"), 3, |at| alert(served(9, at), EXPIRED, ALERT_BY_CLIENT));
    // Another client's success does not.
    scene.tls(5000, Record::TLS_PHASE, Handshake { stage: stage::DONE, ..served(8, 4000) });
    scene.passes(5500, 55_000);
    assert_ne!(scene.last().state, State::Resolved);
    scene.passes(55_500, 66_000);
    assert_eq!(scene.last().state, State::Resolved);
}

#[test]
fn failures_that_were_not_reported_for_there_were_too_many_are_counted() {
    let scene = failing(Some("a.example"), 4, |at| {
        let unreported = if at == 0 { 0 } else { 10 };
        Handshake { unreported, ..alert(served(9, at), EXPIRED, ALERT_BY_CLIENT) }
    });
    assert_eq!(scene.opened(Kind::TlsFailing)[0].count, 23);
    assert_eq!(scene.last().count, 34);
}

#[test]
fn what_one_client_of_many_cannot_do_is_worth_knowing() {
    let scene = failing(Some("a.example"), 3, |at| Handshake {
        served: 1000 + at as u32,
        ..alert(served(9, at), UNKNOWN_CA, ALERT_BY_CLIENT)
    });
    let last = scene.last();
    assert_eq!((last.severity, details(last).completed), (Severity::Info, 1000));
    assert!(last.why.concat().contains("1000 other handshakes were completed"), "{:?}", last.why);
}

#[test]
fn a_scanner_is_no_incident_however_it_fails() {
    // Without a name.
    let scene = failing(None, 8, |at| alert(served(9, at), PROTOCOL_VERSION, 0));
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    // In several ways.
    let scene = failing(Some("a.example"), 12, |at| match at / 500 % 3 {
        0 => alert(served(9, at), PROTOCOL_VERSION, 0),
        1 => closed(served(9, at), CLOSED_BY_CLIENT),
        _ => alert(served(9, at), 120, 0),
    });
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    // With each version in turn.
    let mut scene = Scene::new();
    for number in 0..8_u16 {
        let at = u64::from(number) * 300;
        let hs = alert(served(9, at), PROTOCOL_VERSION, 0);
        scene.says_hello(at + 1, hs.cookie, Some("a.example"), 0x0300 + number % 4);
        scene.tls(at + 2, Record::TLS_PHASE, hs);
        scene.tick(at + 250);
    }
    scene.passes(3000, 6000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_real_client_with_one_version_that_is_too_old_is_an_incident() {
    let mut scene = Scene::new();
    for at in [0, 900, 1800, 2700] {
        let hs = Handshake { read_stage: stage::HELLO, ..alert(served(9, at), PROTOCOL_VERSION, 0) };
        scene.says_hello(at + 1, hs.cookie, Some("a.example"), 0x0301);
        scene.tls(at + 2, Record::TLS_PHASE, hs);
        scene.tick(at + 250);
    }
    let last = scene.last();
    assert!(last.summary.contains("share no TLS version"), "{}", last.summary);
    assert!(last.why.concat().contains("The client offers TLS 1.0 at most"), "{:?}", last.why);
    assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::Parameters, Confidence::Certain));
}

#[test]
fn a_health_check_that_closes_after_the_servers_flight_is_worth_knowing_at_most() {
    let check = |at| closed(served(9, at), CLOSED_BY_CLIENT);
    let scene = failing(Some("a.example"), 8, check);
    assert!(scene.emitted.iter().all(|emitted| emitted.severity == Severity::Info), "{:#?}", scene.emitted);
    assert_eq!(scene.opened(Kind::TlsFailing).len(), 1);
    assert_eq!(scene.cause().confidence, Confidence::Possible);
    assert!(failing(None, 8, check).emitted.is_empty());
    // Several clients do, and none completes.
    let several =
        failing(Some("a.example"), 8, |at| closed(served(9 + (at / 500 % 4) as u8, at), CLOSED_BY_CLIENT));
    assert_eq!(several.last().severity, Severity::Warning);
}

#[test]
fn connections_that_a_restart_closes_at_once_are_none() {
    let mut scene = Scene::new();
    for number in 0..10 {
        let hs = Handshake { read_stage: stage::HELLO, ..closed(asked(9, number), CLOSED_BY_SERVER) };
        scene.fails(100 + number, Some("a.example"), hs);
    }
    scene.passes(500, 8000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    let scene = failing(Some("a.example"), 4, |at| Handshake {
        read_stage: stage::HELLO,
        ..closed(asked(9, at), CLOSED_BY_SERVER)
    });
    assert!(scene.last().summary.contains("in place of a ServerHello"), "{}", scene.last().summary);
    assert_eq!(scene.cause().kind, CauseKind::Peer);
}

#[test]
fn an_answer_that_is_not_tls_names_the_port() {
    let plain = |at| Handshake { stage: stage::NOT_TLS, read_stage: stage::HELLO, ..asked(9, at) };
    let scene = failing(Some("a.example"), 3, plain);
    let last = scene.last();
    assert!(last.why[0].starts_with("Port 443 speaks another protocol than TLS"), "{:?}", last.why);
    assert!(advice(last).contains("http://192.0.2.9:443/"), "{}", advice(last));
    assert_eq!(scene.cause().confidence, Confidence::Certain);
    // Of a service by strangers that ask for no name it is none.
    let here = |at| Handshake { role: SERVER, stage: stage::NOT_TLS, ..served(9, at) };
    assert!(failing(None, 9, here).emitted.is_empty());
}

#[test]
fn a_server_that_wants_a_certificate_says_so_to_the_client() {
    let wants = |at| Handshake { read_stage: stage::CLIENT_FINISH, ..alert(asked(9, at), 116, 0) };
    let scene = failing(Some("a.example"), 3, wants);
    let last = scene.last();
    assert!(
        last.summary.contains("wants a client certificate, and raven[1017] sends none"),
        "{}",
        last.summary
    );
    assert!(advice(last).contains("Acceptable client certificate CA names"), "{}", advice(last));
}

#[test]
fn a_clock_of_this_host_that_is_ahead_explains_expired_certificates() {
    let ahead = |scene: &mut Scene| {
        for at in [1000, 2000, 70_000] {
            scene.compares(at, ReferenceKind::Ntp, "192.0.2.123", 86_400_000 * 90);
            scene.tick(at + 100);
        }
    };
    let mut scene = Scene::new();
    ahead(&mut scene);
    let clock = scene.opened(Kind::ClockSkewed)[0].id.clone();
    goes_on(&mut scene, 71_000, Some("a.example"), 3, |at| alert(asked(9, at), EXPIRED, ALERT_BY_CLIENT));
    let opened = scene.opened(Kind::TlsFailing)[0].clone();
    assert_eq!(opened.caused_by, [clock]);
    assert!(opened.why.concat().contains("This host's clock is 90 days ahead"), "{:?}", opened.why);
    let cause = opened.cause.as_ref().expect("a cause");
    assert_eq!((cause.kind, cause.confidence), (CauseKind::Clock, Confidence::Likely));
    assert!(advice(&opened).contains("chronyc makestep"), "{}", advice(&opened));
    // What a remote client says of this host's certificate it says by its own clock.
    let mut scene = Scene::new();
    ahead(&mut scene);
    goes_on(&mut scene, 71_000, Some("a.example"), 3, |at| alert(served(9, at), EXPIRED, ALERT_BY_CLIENT));
    assert!(scene.opened(Kind::TlsFailing)[0].caused_by.is_empty());
}

#[test]
fn many_services_are_bounded_and_what_finds_no_room_is_counted() {
    let mut scene = Scene::new();
    for number in 0..3000_u64 {
        let name = format!("a{number}.example");
        scene.fails(number, Some(&name), alert(asked(9, number), UNKNOWN_CA, ALERT_BY_CLIENT));
    }
    let table = scene.table("tls_failing_services");
    assert_eq!((table.entries, table.evictions), (1024, 3000 - 1024));
    assert!(scene.table("tls_failing_parties").entries <= 4096);
}
