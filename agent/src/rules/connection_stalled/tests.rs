use std::net::IpAddr;

use ebpf_probes::{
    abi::{Header, IPPROTO_TCP, Kind as Record, Netns, Owner, Tuple},
    probes::connect::{Unacked, UnackedRecord, unacked},
};

use crate::{
    known::context::Context,
    pipeline::incident::{
        CauseKind, Confidence, ConnectionStalledDetails, Details, Incident, Kind, Severity, State,
    },
    records::encode,
    rules::scene::{PROCESS, Scene, advice, hello, ns, owner, v4},
};

/// Bytes of a full segment.
const MSS: u32 = 1448;

/// A connection of the process with 192.0.2.9:443 that was busy until it sent a short request at 0, three timeouts ago.
fn stalled(cookie: u64) -> Unacked {
    Unacked {
        cookie,
        owner: owner(PROCESS, PROCESS),
        tuple: Tuple {
            local: v4(1),
            remote: v4(9),
            local_port: 50_000 + cookie as u16,
            remote_port: 443,
            family: 2,
            protocol: IPPROTO_TCP,
        },
        since_ns: ns(0),
        again_ns: ns(1400),
        before_ns: ns(0) - 10_000_000,
        heard_ns: ns(0) - 10_000_000,
        acked: 100_001,
        received: 300_000,
        una: 1000,
        next: 1170,
        written: 1170,
        timeouts: 3,
        window: 64_000,
        mss: MSS,
        path_mtu: 1500,
        segment: 170,
        packets: 1,
        state: 1,
        ..Unacked::default()
    }
}

/// The same at the other end of it: the process has accepted it, and sends a certificate flight.
fn flight(cookie: u64) -> Unacked {
    let tuple = stalled(cookie).tuple;
    Unacked {
        tuple: Tuple { local_port: 443, remote_port: tuple.local_port, ..tuple },
        acked: 1,
        received: 517,
        next: 1000 + 2200,
        written: 1000 + 2200,
        segment: MSS,
        packets: 2,
        sacked: 1,
        heard_ns: ns(600),
        ..stalled(cookie)
    }
}

fn listening(scene: &mut Scene) {
    scene.apply(&Context::Listener {
        netns: Netns::numbered(1),
        address: IpAddr::from([0, 0, 0, 0]),
        port: 443,
        process: PROCESS,
        comm: "raven".into(),
    });
}

fn record(scene: &mut Scene, at: u64, kind: Record, unacked: Unacked) {
    let len = size_of::<UnackedRecord>() as u32;
    scene.record(&encode(UnackedRecord { header: Header { boot_ns: ns(at), kind: kind.0, len }, unacked }));
}

fn waits(scene: &mut Scene, at: u64, unacked: Unacked) {
    record(scene, at, Record::CONNECTION_UNACKED, unacked);
}

fn settles(scene: &mut Scene, at: u64, unacked: Unacked) {
    record(scene, at, Record::CONNECTION_SETTLED, unacked);
    scene.passes(at, at + 3000);
}

#[track_caller]
fn details(incident: &Incident) -> &ConnectionStalledDetails {
    match &incident.details {
        Details::ConnectionStalled(details) => details,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn blame(scene: &Scene) -> (CauseKind, Confidence) {
    let cause = scene.last().cause.as_ref().expect("a cause");
    (cause.kind, cause.confidence)
}

#[test]
fn a_certificate_flight_of_which_only_the_small_segment_passes_is_a_matter_of_the_path_mtu() {
    let mut scene = Scene::new();
    listening(&mut scene);
    let mut hs = hello(5, PROCESS, 0);
    hs.stage = ebpf_probes::probes::tls::stage::SERVER_FLIGHT;
    scene.tls(0, Record::TLS_PHASE, hs);
    waits(&mut scene, 1450, flight(5));
    let incident = scene.last();
    assert_eq!(blame(&scene), (CauseKind::Path, Confidence::Likely));
    assert_eq!((incident.kind, incident.severity), (Kind::ConnectionStalled, Severity::Warning));
    assert_eq!(
        incident.summary,
        "raven[1017] sends its certificate flight to 192.0.2.9, and 2200 bytes of it are not acknowledged for 1.4 s, sent \
         again 3 times: segments of 1448 bytes are lost and small ones pass, as where the path MTU is less than 1500."
    );
    assert!(advice(incident).contains("net.ipv4.tcp_mtu_probing=1"), "{}", advice(incident));
    assert!(incident.why.iter().any(|why| why.contains("MSS 1448")), "{:?}", incident.why);
    let details = details(incident);
    assert_eq!((details.small_segments_pass, details.is_service), (Some(true), true));
}

#[test]
fn a_lost_segment_among_others_as_large_is_not_a_matter_of_the_path_mtu() {
    let mut scene = Scene::new();
    let large = Unacked { next: 1000 + MSS * 10, packets: 10, sacked: 9, segment: MSS, ..flight(5) };
    waits(&mut scene, 1450, large);
    assert_eq!(blame(&scene), (CauseKind::Path, Confidence::Possible));
    assert!(!scene.last().summary.contains("MTU"), "{}", scene.last().summary);
}

#[test]
fn a_connection_that_had_been_idle_was_forgotten_on_the_way_for_sure_once_a_new_one_works() {
    let mut scene = Scene::new();
    let idle = Unacked { heard_ns: 0, ..stalled(1) };
    let idle = Unacked { since_ns: ns(400_000), before_ns: ns(50_000), again_ns: ns(401_400), ..idle };
    waits(&mut scene, 401_450, idle);
    assert_eq!(blame(&scene), (CauseKind::Path, Confidence::Possible));
    assert!(scene.last().summary.contains("had been idle for 5 min 50 s"), "{}", scene.last().summary);
    assert!(advice(scene.last()).contains("keepalives oftener than every 350 s"), "{}", advice(scene.last()));
    waits(&mut scene, 403_050, Unacked { timeouts: 4, fresh_ns: ns(402_000), fresh_port: 443, ..idle });
    assert_eq!(blame(&scene), (CauseKind::Path, Confidence::Likely));
    assert!(details(scene.last()).new_connections_work);
    assert_eq!(scene.opened(Kind::ConnectionStalled).len(), 1);
}

#[test]
fn a_silent_peer_is_named_and_so_is_how_it_ended() {
    let mut scene = Scene::new();
    waits(&mut scene, 1450, stalled(1));
    assert_eq!(blame(&scene), (CauseKind::Peer, Confidence::Possible));
    assert_eq!(
        scene.last().summary,
        "raven[1017] sends its data to 192.0.2.9:443, and 170 bytes of it are not acknowledged for 1.4 s, sent again 3 \
         times: nothing comes from the peer."
    );
    settles(&mut scene, 9000, Unacked { flags: unacked::CLOSED, errno: 104, ..stalled(1) });
    let last = scene.last();
    assert_eq!(last.state, State::Resolved);
    assert!(last.why.iter().any(|why| why.contains("restarted")), "{:?}", last.why);
    assert_eq!(last.cause.as_ref().and_then(|cause| cause.outcome.as_deref()), Some("reset"));
}

#[test]
fn a_large_segment_is_not_called_too_large_where_large_ones_had_passed() {
    let mut scene = Scene::new();
    let large = Unacked { segment: MSS, next: 1000 + MSS, fresh_ns: ns(1000), ..stalled(1) };
    waits(&mut scene, 1450, large);
    assert!(!scene.last().summary.contains("MTU"), "{}", scene.last().summary);
    waits(&mut scene, 1450, Unacked { acked: 1, cookie: 2, ..stalled(2) });
    assert!(!scene.last().summary.contains("MTU"), "{}", scene.last().summary);
    let first = Unacked { acked: 1, cookie: 3, before_ns: ns(0) - 1, ..large };
    waits(&mut scene, 1450, Unacked { tuple: stalled(3).tuple, ..first });
    // One more of the same peer's: reported when it is the oldest, or their number has doubled.
    assert_eq!(scene.opened(Kind::ConnectionStalled).len(), 1);
}

#[test]
fn connections_of_one_program_with_one_peer_are_one_incident_that_ends_with_the_last_of_them() {
    let mut scene = Scene::new();
    for cookie in 1..=100 {
        waits(&mut scene, 1450, stalled(cookie));
    }
    assert_eq!(scene.opened(Kind::ConnectionStalled).len(), 1);
    assert!(scene.emitted.len() <= 8, "{}", scene.emitted.len());
    assert_eq!(details(scene.last()).waiting, 64);
    for cookie in 1..=100 {
        record(
            &mut scene,
            9000,
            Record::CONNECTION_SETTLED,
            Unacked { flags: unacked::ACKED, ..stalled(cookie) },
        );
    }
    scene.passes(9000, 12_000);
    let last = scene.last();
    assert_eq!((last.state, last.count, details(last).waiting), (State::Resolved, 100, 0));
    assert_eq!(scene.table("connection_stalled_waiting").entries, 0);
}

#[test]
fn clients_that_are_gone_are_one_incident_of_their_service_and_no_warning() {
    let mut scene = Scene::new();
    listening(&mut scene);
    for cookie in 1..=10 {
        let gone = Unacked { sacked: 0, heard_ns: 0, acked: 90_000, ..flight(cookie) };
        let remote = v4(100 + cookie as u8);
        waits(&mut scene, 1450, Unacked { tuple: Tuple { remote, ..gone.tuple }, ..gone });
    }
    let opened = scene.opened(Kind::ConnectionStalled);
    assert_eq!((opened.len(), opened[0].severity), (1, Severity::Info));
    assert_eq!(details(scene.last()).peers.len(), 8);
}

#[test]
fn one_that_this_host_drops_is_blamed_on_it() {
    let mut scene = Scene::new();
    waits(&mut scene, 1450, Unacked { drops: 3, drop_reason: 8, ..stalled(1) });
    assert_eq!(blame(&scene), (CauseKind::Filter, Confidence::Likely));
    let said = scene.last();
    assert!(said.summary.contains("this host itself drops them (NETFILTER_DROP)"));
    assert!(said.why[0].contains("no other machine is to blame"), "{:?}", said.why);
    let remedies = advice(said);
    assert!(remedies.contains("in this host's own firewall: "), "{remedies}");
    assert!(remedies.contains("nft list ruleset") && remedies.contains("ss -tnoi"), "{remedies}");
}

#[test]
fn a_process_that_is_not_known_is_reported_all_the_same() {
    let mut scene = Scene::new();
    let unknown = Owner { netns: Netns::numbered(1), ..Owner::default() };
    waits(&mut scene, 1450, Unacked { owner: unknown, flags: unacked::ADOPTED, ..stalled(1) });
    assert!(scene.last().process.is_none());
    assert!(scene.last().summary.starts_with("A process sends"), "{}", scene.last().summary);
    assert!(details(scene.last()).since_before_start);
}
