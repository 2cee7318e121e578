use ebpf_probes::{
    abi::{Header, Kind as Record},
    probes::{
        connect::{Unacked, UnackedRecord, unacked},
        tls::{CLIENT, Handshake, SERVER, stage},
    },
};

use crate::{
    pipeline::incident::{CauseKind, Confidence, Details, Kind, State, TlsDetails},
    records::encode,
    rules::scene::{PROCESS, Scene, advice, flight, hello, ns},
};

/// A ClientHello of this host's to 192.0.2.9:443, sent at the beginning.
fn sent(cookie: u64) -> Handshake {
    Handshake { stage: stage::HELLO, hello_len: 1700, ..flight(cookie, PROCESS, 0) }
}

/// It is not acknowledged; its tail is.
fn lost(hs: &Handshake) -> Unacked {
    Unacked {
        cookie: hs.cookie,
        owner: hs.owner,
        tuple: hs.tuple,
        since_ns: ns(0),
        again_ns: ns(1400),
        before_ns: ns(0) - 1_000_000,
        heard_ns: ns(600),
        acked: 1,
        next: 1700,
        written: 1700,
        timeouts: 3,
        window: 64_000,
        mss: 1448,
        path_mtu: 1500,
        segment: 1448,
        sacked: 1,
        packets: 2,
        state: 1,
        ..Unacked::default()
    }
}

fn connection(scene: &mut Scene, at: u64, kind: Record, unacked: Unacked) {
    let len = size_of::<UnackedRecord>() as u32;
    scene.record(&encode(UnackedRecord { header: Header { boot_ns: ns(at), kind: kind.0, len }, unacked }));
}

#[track_caller]
fn details(scene: &Scene) -> &TlsDetails {
    match &scene.last().details {
        Details::TlsHandshakeStalled(details) => details,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_acknowledged_the_hello_and_is_silent_for_ten_seconds_is_named_with_how_many_wait() {
    let mut scene = Scene::new();
    for cookie in [1, 2] {
        scene.stalls(1000, &[sent(cookie)]);
        scene.stalls(8000, &[sent(cookie)]);
    }
    scene.passes(8000, 9500);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    scene.passes(10_000, 10_500);
    assert_eq!(scene.opened(Kind::TlsHandshakeStalled).len(), 1);
    assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::Peer, Confidence::Likely));
    assert_eq!((details(&scene).role as u32, details(&scene).waiting), (0, 2));
    assert_eq!(details(&scene).hello_acknowledged, Some(true));
    assert_eq!(
        scene.last().summary,
        "192.0.2.9:443 has acknowledged raven[1017]'s ClientHello and answers nothing for 10.0 s (2 handshakes with it wait): \
         nothing of this host's is in the way."
    );
    for cookie in [1, 2] {
        scene.moves(12_000, sent(cookie));
    }
    scene.passes(12_000, 15_000);
    assert_eq!(
        (scene.last().state, scene.last().summary.ends_with("; then it did.")),
        (State::Resolved, true)
    );
}

#[test]
fn a_hello_of_which_only_the_tail_passes_is_a_matter_of_the_path_mtu_at_once_and_reported_once() {
    let mut scene = Scene::new();
    scene.stalls(1000, &[sent(1)]);
    connection(&mut scene, 1450, Record::CONNECTION_UNACKED, lost(&sent(1)));
    assert_eq!(scene.opened(Kind::TlsHandshakeStalled).len(), 1);
    assert!(scene.opened(Kind::ConnectionStalled).is_empty());
    assert_eq!((scene.cause().kind, scene.cause().confidence), (CauseKind::Path, Confidence::Likely));
    assert!(scene.last().summary.contains("the path MTU is less than 1500"), "{}", scene.last().summary);
    assert!(advice(scene.last()).contains("net.ipv4.tcp_mtu_probing=1"), "{}", advice(scene.last()));
    assert_eq!(details(&scene).hello_acknowledged, Some(false));
    // It is acknowledged in the end, and the peer is silent.
    connection(
        &mut scene,
        6000,
        Record::CONNECTION_SETTLED,
        Unacked { flags: unacked::ACKED, ..lost(&sent(1)) },
    );
    assert_eq!((scene.cause().kind, details(&scene).hello_acknowledged), (CauseKind::Peer, Some(true)));
}

#[test]
fn a_server_on_this_host_that_is_stalled_is_reported_there() {
    let mut scene = Scene::new();
    let client = sent(7);
    let server = Handshake {
        role: SERVER,
        tuple: ebpf_probes::abi::Tuple {
            local: client.tuple.remote,
            local_port: client.tuple.remote_port,
            remote: client.tuple.local,
            remote_port: client.tuple.local_port,
            ..client.tuple
        },
        ..hello(8, PROCESS, 0)
    };
    scene.stalls(1000, &[client, server]);
    scene.sees(1000, vec![]);
    scene.stalls(8000, &[client, server]);
    scene.passes(8000, 20_000);
    let of_clients = scene.emitted.iter().filter(|incident| match &incident.details {
        Details::TlsHandshakeStalled(details) => details.role as u32 == CLIENT - 1,
        _ => false,
    });
    assert_eq!(of_clients.count(), 0, "{:#?}", scene.emitted);
}
