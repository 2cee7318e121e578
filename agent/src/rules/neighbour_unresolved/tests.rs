//! Neighbours that do not answer, step by step.

use ebpf_probes::{
    abi::Kind as Record,
    probes::{
        connect::Connect,
        neigh::{NeighRecord, cause, state},
    },
};

use crate::{
    correlate::incident::{Details, Incident, Kind, NeighbourUnresolvedDetails, Severity, State},
    enrich::context::{Context, Gateway, Network, SeenNeighbour},
    fact::Outcome,
    rules::scene::{Scene, connect, entry, mac, waiter},
};

const HOST_UNREACHABLE: i32 = 113;

fn details(incident: &Incident) -> &NeighbourUnresolvedDetails {
    match &incident.details {
        Details::NeighbourUnresolved(details) => details,
        other => panic!("{other:?}"),
    }
}

fn asked(host: u8, from: u32) -> NeighRecord {
    NeighRecord { cause: cause::SENT, ..entry(host, (from, 0), (state::INCOMPLETE, 0)) }
}

fn timer(host: u8, from: u32, to: u32) -> NeighRecord {
    NeighRecord { cause: cause::TIMER, ..entry(host, (from, 0), (to, 0)) }
}

/// A connect to 192.0.2.`host` waits from `at` on, and the kernel gives up three seconds later.
fn fails(scene: &mut Scene, cookie: u64, host: u8, at: u64) {
    scene.neigh(at, asked(host, state::NONE));
    for probe in [1000, 2000] {
        scene.neigh(at + probe, timer(host, state::INCOMPLETE, state::INCOMPLETE));
        scene.waiter(at + probe, waiter(cookie, host));
    }
    scene.neigh(at + 3000, timer(host, state::INCOMPLETE, state::FAILED));
    let failed = Connect { errno: HOST_UNREACHABLE, ..connect(cookie, 1, host, at) };
    scene.connect(at + 3001, Record::ConnectEnd, failed);
    scene.passes(at + 3200, at + 3700);
}

#[test]
fn a_neighbour_somebody_waits_for_is_named_with_who_waits_and_what_failed() {
    let mut scene = Scene::new();
    fails(&mut scene, 7, 90, 0);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened.len(), 1);
    let told = details(opened[0]);
    assert_eq!(
        (told.neighbour.address.to_string(), told.neighbour.device.as_str()),
        ("192.0.2.90".into(), "eth0")
    );
    assert_eq!((told.unanswered_probes, told.waiters.len()), (3, 1));
    let last = scene.last();
    assert_eq!(details(last).waiters[0].outcome, Some(Outcome::HostUnreachable));
    assert_eq!(
        last.summary,
        "192.0.2.90 does not answer ARP on eth0: raven[1017]'s connection to 192.0.2.90:80 failed."
    );
    assert_eq!(last.remedies[1].to_string(), "ip neigh show 192.0.2.90 dev eth0");
    assert!(scene.opened(Kind::ConnectStalled).is_empty() && scene.opened(Kind::ConnectFailing).is_empty());
}

#[test]
fn a_neighbour_nobody_waits_for_is_none() {
    let mut scene = Scene::new();
    scene.neigh(0, asked(90, state::NONE));
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    scene.neigh(3000, timer(90, state::INCOMPLETE, state::FAILED));
    scene.passes(3000, 70_000);
    assert!(scene.told.is_empty(), "{:#?}", scene.told);
}

#[test]
fn one_that_answers_the_second_probe_is_none() {
    let mut scene = Scene::new();
    scene.neigh(0, asked(90, state::NONE));
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    scene.waiter(1000, waiter(7, 90));
    scene.neigh(1001, entry(90, (state::INCOMPLETE, 0), (state::REACHABLE, 2)));
    scene.passes(1000, 70_000);
    assert!(scene.told.is_empty(), "{:#?}", scene.told);
}

#[test]
fn an_answer_ends_it() {
    let mut scene = Scene::new();
    fails(&mut scene, 7, 90, 0);
    scene.neigh(5000, entry(90, (state::INCOMPLETE, 0), (state::REACHABLE, 2)));
    scene.passes(5000, 8000);
    let last = scene.last();
    assert_eq!(
        (last.state, last.summary.as_str()),
        (State::Resolved, "192.0.2.90 answers ARP on eth0 again, after 5.0 s.")
    );
}

#[test]
fn failures_that_go_on_are_one_incident_with_a_count() {
    let mut scene = Scene::new();
    for round in 0..4 {
        fails(&mut scene, 7 + round, 90, round * 4000);
    }
    assert_eq!(scene.opened(Kind::NeighbourUnresolved).len(), 1);
    let last = scene.told.iter().rfind(|told| told.kind == Kind::NeighbourUnresolved).expect("told");
    assert_eq!((last.count, details(last).waiters.len()), (4, 4));
    // Three failures of one program to one place are an incident of their own, explained by this one.
    let failing = scene.opened(Kind::ConnectFailing);
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0].caused_by, std::slice::from_ref(&last.id));
}

#[test]
fn a_dead_link_is_five_incidents_at_most() {
    let mut scene = Scene::new();
    for host in 90..110 {
        fails(&mut scene, u64::from(host), host, 0);
    }
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened.len(), 4);
    let most = scene
        .told
        .iter()
        .filter(|told| told.kind == Kind::NeighbourUnresolved)
        .map(|told| details(told).others)
        .max();
    assert_eq!(most, Some(16));
}

#[test]
fn a_connect_below_a_neighbour_that_is_still_asked_for_is_not_told_twice() {
    let mut scene = Scene::new();
    scene.neigh(0, asked(90, state::NONE));
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    scene.waiter(1000, waiter(7, 90));
    scene.connect(3000, Record::ConnectPending, connect(7, 1, 90, 0));
    assert!(scene.told.is_empty(), "{:#?}", scene.told);
    scene.neigh(3050, timer(90, state::INCOMPLETE, state::FAILED));
    scene.passes(3100, 3600);
    assert_eq!(scene.opened(Kind::NeighbourUnresolved).len(), 1);
}

#[test]
fn a_table_read_again_after_losses_ends_what_was_answered_unseen() {
    let mut scene = Scene::new();
    fails(&mut scene, 7, 90, 0);
    let seen = SeenNeighbour { ifindex: 2, address: waiter(7, 90).address, mac: mac(2) };
    let again = Network {
        netns: ebpf_probes::abi::Netns::numbered(1),
        neighbours: Some(vec![seen]),
        ..Network::default()
    };
    scene.learn(&Context::Network(Box::new(again)));
    scene.passes(5000, 8000);
    let last = scene.last();
    assert_eq!((last.state, last.kind), (State::Resolved, Kind::NeighbourUnresolved));
    assert!(last.evidence.iter().any(|seen| seen.text.contains("read again")), "{:#?}", last.evidence);
}

#[test]
fn a_gateway_is_called_one_and_is_critical() {
    let mut scene = Scene::new();
    let gateway = Gateway { address: "192.0.2.90".parse().expect("an address"), device: "eth0".into() };
    scene.learn(&Context::Network(Box::new(Network {
        netns: ebpf_probes::abi::Netns::numbered(1),
        gateways: vec![gateway],
        ..Network::default()
    })));
    fails(&mut scene, 7, 90, 0);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened[0].severity, Severity::Critical);
    assert!(opened[0].summary.starts_with("The default gateway 192.0.2.90 does not answer ARP on eth0"));
}
