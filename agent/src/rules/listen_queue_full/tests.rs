use std::net::IpAddr;

use ebpf_probes::{
    abi::{Header, IPPROTO_TCP, Kind as Record, Netns, Tuple},
    probes::connect::{Connect, Dropped, Overflow, OverflowRecord, flag, packet, place},
};

use crate::{
    known::context::{Context, Posture},
    pipeline::incident::{CauseKind, Confidence, Details, Incident, Kind, State},
    records::encode,
    rules::scene::{PROCESS, Scene, connect, thread, v4},
};

/// Where scenes begin, milliseconds since boot.
const BEGAN: u64 = 100_000;

/// A process that listens on port 443.
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

/// The `ignored`th SYN is ignored at `at`; the first was at `since`.
fn overflows(scene: &mut Scene, since: u64, at: u64, ignored: u64) {
    let ns = |ms: u64| (BEGAN + ms) * 1_000_000;
    let overflow = Overflow {
        tuple: Tuple {
            local: v4(1),
            remote: v4(9),
            local_port: 443,
            remote_port: 50_000,
            family: 2,
            protocol: IPPROTO_TCP,
        },
        netns: Netns::numbered(1),
        since_ns: ns(since),
        last_ns: ns(at),
        reported_ns: ns(at),
        ignored,
        queued: 129,
        limit: 128,
    };
    let len = size_of::<OverflowRecord>() as u32;
    let header = Header { boot_ns: ns(at), kind: Record::LISTEN_QUEUE_FULL.0, len };
    scene.record(&encode(OverflowRecord { header, overflow }));
}

fn full(scene: &Scene) -> Vec<&Incident> {
    scene.emitted.iter().filter(|incident| incident.kind == Kind::ListenQueueFull).collect()
}

/// A connect of this host that was pending when culprit started, and whose SYN the listener ignores now.
#[test]
fn a_queue_that_ignores_a_connect_of_before_the_start_is_an_incident_with_its_first_syn() {
    let ignored = |flags| {
        let mut scene = listening();
        overflows(&mut scene, 4000, 4000, 1);
        let drop_where = place::QUEUE_FULL;
        let own = Connect { flags, drops: 1, drop_where, ..connect(7, 44, 1, 0) };
        let tuple = Tuple { remote_port: 443, ..own.tuple };
        scene.connect(4001, Record::CONNECT_WAITING, Connect { tuple, ..own });
        scene.sees(4001, vec![thread(PROCESS, Posture::Sleep, &[])]);
        scene.tick(4002);
        full(&scene).len()
    };
    assert_eq!((ignored(flag::ADOPTED), ignored(0)), (1, 0));
}

#[test]
fn a_queue_that_stays_full_is_an_incident_with_what_the_listener_does() {
    let mut scene = listening();
    overflows(&mut scene, 0, 0, 1);
    overflows(&mut scene, 0, 1000, 4);
    scene.sees(1000, vec![thread(PROCESS, Posture::Sleep, &[])]);
    scene.tick(1001);
    let opened = full(&scene);
    assert_eq!(opened.len(), 1, "{opened:#?}");
    let incident = opened[0];
    assert_eq!(incident.process.as_ref().map(|process| process.pid), Some(PROCESS));
    let cause = incident.cause.as_ref().expect("a cause");
    assert_eq!((cause.kind, cause.confidence), (CauseKind::ListenLimit, Confidence::Certain));
    assert_eq!(
        incident.summary,
        "raven[1017] does not accept the connections that wait at 192.0.2.1:443: its accept queue is full (129 wait, \
         its limit is 128), and 4 SYNs of new ones were ignored in 1.0 s."
    );
    assert!(incident.why.iter().any(|why| why == "Its only thread: asleep."), "{:?}", incident.why);
    let Details::ListenQueueFull(details) = &incident.details else { panic!("{incident:#?}") };
    assert_eq!((details.ignored_syns, details.refused.len(), details.threads.len()), (4, 1, 1));
}

#[test]
fn a_burst_that_the_service_catches_up_with_is_none() {
    let mut scene = listening();
    overflows(&mut scene, 0, 0, 1);
    overflows(&mut scene, 0, 300, 200);
    scene.tick(300);
    scene.tick(20_000);
    overflows(&mut scene, 20_000, 20_000, 1);
    scene.tick(20_001);
    assert!(full(&scene).is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_listener_that_is_not_known_is_reported_all_the_same() {
    let mut scene = Scene::new();
    overflows(&mut scene, 0, 1500, 2);
    scene.tick(1501);
    let opened = full(&scene);
    assert_eq!(opened.len(), 1);
    assert!(
        opened[0].process.is_none() && opened[0].summary.starts_with("The listener does not"),
        "{opened:#?}"
    );
}

#[test]
fn it_is_over_when_no_syn_was_ignored_for_a_while() {
    let mut scene = listening();
    overflows(&mut scene, 0, 2000, 9);
    scene.tick(2001);
    for at in [12_001, 14_002, 16_000] {
        scene.tick(at);
    }
    let states: Vec<State> = full(&scene).iter().map(|incident| incident.state).collect();
    assert_eq!(states, [State::Open, State::Resolved]);
}

#[test]
fn the_stalled_connect_of_a_client_on_the_same_host_points_to_it() {
    let mut scene = listening();
    let mut pending = connect(7, 44, 1, 0);
    pending.tuple.remote_port = 443;
    (pending.drops, pending.drop_where) = (3, packet::SYN | place::QUEUE_FULL);
    overflows(&mut scene, 0, 1500, 3);
    scene.tick(1501);
    let at = packet::SYN | place::QUEUE_FULL;
    scene.dropped(10, Dropped { cookie: 7, netns: Netns::numbered(1), at, ..Dropped::default() });
    scene.connect(1600, Record::CONNECT_WAITING, pending);
    scene.connect(3000, Record::CONNECT_PENDING, pending);
    scene.tick(3001);
    let root = full(&scene)[0].id.clone();
    let stalled = scene.emitted.iter().rfind(|incident| incident.kind == Kind::ConnectStalled);
    assert_eq!(stalled.map(|incident| incident.caused_by.clone()), Some(vec![root]), "{:#?}", scene.emitted);
}
