use ebpf_probes::{abi::Kind as Record, probes::connect::Connect};

use crate::{
    pipeline::incident::{ConnectStalledDetails, Details, Incident, Kind, State},
    rules::scene::{Scene, connect},
};

/// A connect to the `number`th of many destinations.
fn to(number: u16) -> Connect {
    let mut connect = connect(u64::from(number) + 1, 1017, 0, 0);
    connect.tuple.remote[13..].copy_from_slice(&[51, (number >> 8) as u8, number as u8]);
    connect
}

#[track_caller]
fn details(incident: &Incident) -> &ConnectStalledDetails {
    match &incident.details {
        Details::ConnectStalled(details) => details,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thousand_silent_destinations_of_one_program_are_one_incident_with_the_worst_ten() {
    let mut scene = Scene::new();
    for number in 0..1000 {
        scene.connect(3000, Record::CONNECT_PENDING, to(number));
    }
    let opened = scene.opened(Kind::ConnectStalled);
    assert_eq!(opened.len(), 1);
    let id = opened[0].id.clone();
    // Reported when their number doubles, not a thousand times.
    assert!(scene.emitted.len() <= 12, "{}", scene.emitted.len());
    let last = scene.last();
    assert_eq!((&last.id, last.state, last.count), (&id, State::Updated, 512));
    assert_eq!(
        (details(last).destinations, details(last).waiting, details(last).worst.len()),
        (512, 512, 10)
    );
    assert!(last.summary.contains("connects to 512 destinations are unanswered"), "{}", last.summary);
    for number in 0..1000 {
        scene.gives_up(9000, to(number));
    }
    scene.passes(9000, 12_000);
    let last = scene.last();
    assert_eq!((&last.id, last.state, last.count), (&id, State::Resolved, 1000));
    assert_eq!((details(last).destinations, details(last).waiting), (1000, 0));
    assert_eq!(scene.opened(Kind::ConnectStalled).len(), 1);
}

#[test]
fn destinations_of_another_fate_or_another_program_are_an_incident_of_their_own() {
    let mut scene = Scene::new();
    scene.connect(3000, Record::CONNECT_PENDING, to(1));
    scene.connect(3000, Record::CONNECT_PENDING, Connect { drops: 2, drop_reason: 8, ..to(2) });
    let mut other = to(3);
    other.owner.process = 2000;
    other.owner.comm = *b"other\0\0\0\0\0\0\0\0\0\0\0";
    scene.connect(3000, Record::CONNECT_PENDING, other);
    assert_eq!(scene.opened(Kind::ConnectStalled).len(), 3);
}

#[test]
fn more_connects_than_are_followed_are_refused_and_counted() {
    let mut scene = Scene::new();
    for number in 0..5000u16 {
        scene.connect(3000, Record::CONNECT_PENDING, to(number));
    }
    assert_eq!(scene.opened(Kind::ConnectStalled).len(), 1);
    let table = scene.table("connect_stalled_waiting");
    assert_eq!((table.entries, table.capacity, table.evictions), (4096, 4096, 904));
    for number in 0..5000u16 {
        scene.gives_up(9000, to(number));
    }
    scene.passes(9000, 12_000);
    assert_eq!((scene.last().state, scene.table("connect_stalled_waiting").entries), (State::Resolved, 0));
}

/// A connect to 2001:db8::5, port 80.
fn v6(at: u64) -> Connect {
    let mut connect = connect(7, 1017, 0, at);
    connect.tuple.family = 10;
    connect.tuple.remote = "2001:db8::5".parse::<std::net::Ipv6Addr>().expect("an address").octets();
    connect
}

#[test]
fn ipv6_that_is_silent_while_ipv4_works_is_reported_so() {
    let mut scene = Scene::new();
    scene.waits(500, v6(0));
    scene.connect(3000, Record::CONNECT_PENDING, v6(0));
    assert!(!scene.last().why.join(" ").contains("IPv4 works"));
    scene.gives_up(7000, Connect { errno: 110, ..v6(0) });
    scene.connect(7010, Record::CONNECT_END, Connect { established: 1, ..connect(8, 1017, 5, 7005) });
    scene.passes(7500, 10_000);
    let last = scene.last();
    assert_eq!(last.state, State::Resolved);
    assert!(last.why[0].starts_with("IPv6 is silent while IPv4 works: 192.0.2.5:80"), "{:?}", last.why);
    assert!(last.remedies[0].to_string().contains("ip -6 route get 2001:db8::5"), "{:?}", last.remedies);
}

#[test]
fn what_explains_it_stays_when_it_is_over() {
    use ebpf_probes::probes::neigh::state;

    use crate::rules::scene::{entry, unheard};
    let mut scene = Scene::new();
    // The entry of 192.0.2.5 is stale: SYNs to it go unanswered.
    scene.neigh(0, entry(5, (state::NONE, 0), (state::REACHABLE, 1)));
    for (at, unanswered) in [(1000, 2), (2000, 3), (2500, 4)] {
        scene.unheard(at, unheard(5, 50_000, unanswered, 900));
    }
    scene.passes(2500, 3000);
    if scene.opened(Kind::NeighbourStale).is_empty() {
        panic!("the scene has no stale neighbour: {:?}", scene.emitted);
    }
    scene.connect(3000, Record::CONNECT_PENDING, connect(1, 1017, 5, 0));
    let opened = scene.opened(Kind::ConnectStalled)[0].clone();
    assert_eq!(opened.caused_by.len(), 1);
    scene.connect(4000, Record::CONNECT_END, Connect { established: 1, ..connect(1, 1017, 5, 0) });
    scene.passes(4000, 7000);
    let resolved = scene
        .emitted
        .iter()
        .find(|incident| incident.id == opened.id && incident.state == State::Resolved)
        .expect("resolved");
    assert_eq!(resolved.caused_by, opened.caused_by);
}
