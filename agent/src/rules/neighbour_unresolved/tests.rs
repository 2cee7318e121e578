//! Neighbours that do not answer, step by step.

use ebpf_probes::{
    abi::{Kind as Record, Netns},
    probes::{
        connect::Connect,
        neigh::{NeighRecord, WaiterRecord, cause, flag, state},
    },
};

use crate::{
    domains::connect::Outcome,
    known::context::{Context, Gateway, Holder, Holders, Kinship, Network, SeenNeighbour, Stacked},
    pipeline::incident::{Details, Incident, Kind, NeighbourUnresolvedDetails, Severity, State},
    rules::scene::{Scene, connect, entry, mac, owner, waiter},
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
    scene.connect(at + 3001, Record::CONNECT_END, failed);
    scene.passes(at + 3200, at + 3700);
}

#[test]
fn a_neighbour_a_process_waits_for_is_named_with_who_waits_and_what_failed() {
    let mut scene = Scene::new();
    fails(&mut scene, 7, 90, 0);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened.len(), 1);
    let emitted = details(opened[0]);
    assert_eq!(
        (emitted.neighbour.address.to_string(), emitted.neighbour.device.as_str()),
        ("192.0.2.90".into(), "eth0")
    );
    assert_eq!((emitted.unanswered_probes, emitted.waiters.len()), (3, 1));
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
fn a_neighbour_without_a_waiter_is_none() {
    let mut scene = Scene::new();
    scene.neigh(0, asked(90, state::NONE));
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    scene.neigh(3000, timer(90, state::INCOMPLETE, state::FAILED));
    scene.passes(3000, 70_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn one_that_answers_the_second_probe_is_none() {
    let mut scene = Scene::new();
    scene.neigh(0, asked(90, state::NONE));
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    scene.waiter(1000, waiter(7, 90));
    scene.neigh(1001, entry(90, (state::INCOMPLETE, 0), (state::REACHABLE, 2)));
    scene.passes(1000, 70_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
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

/// `flanneld` (4711) sets the entry, or takes it away.
fn by_hand(host: u8, from: (u32, u8), to: (u32, u8)) -> NeighRecord {
    let mut owner = owner(4711, 4711);
    owner.comm = *b"flanneld\0\0\0\0\0\0\0\0";
    NeighRecord { flags: flag::BY_HAND, owner, ..entry(host, from, to) }
}

#[test]
fn an_entry_an_agent_took_away_is_missing_and_not_silent_until_the_agent_writes_it_again() {
    let mut scene = Scene::new();
    scene.neigh(0, by_hand(90, (state::PERMANENT, 2), (state::FAILED, 2)));
    fails(&mut scene, 7, 90, 100);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(
        opened[0].summary,
        "The entry of 192.0.2.90 on eth0 was removed by flanneld[4711] 3.3 s ago and ARP for it gets no answer: raven[1017]'s connection to 192.0.2.90:80 failed."
    );
    assert!(opened[0].why[1].contains("PERMANENT"), "{:?}", opened[0].why);
    scene.neigh(5000, by_hand(90, (state::INCOMPLETE, 0), (state::PERMANENT, 2)));
    scene.passes(5000, 8000);
    let last = scene.last();
    assert_eq!(last.state, State::Resolved);
    assert_eq!(
        last.summary,
        "The entry of 192.0.2.90 on eth0 was set again by flanneld[4711], to 02:00:00:00:00:02, after 4.9 s: ARP had not been answered."
    );
}

#[test]
fn an_entry_set_by_hand_is_not_said_to_have_answered() {
    let mut scene = Scene::new();
    fails(&mut scene, 7, 90, 0);
    scene.neigh(5000, by_hand(90, (state::INCOMPLETE, 0), (state::PERMANENT, 2)));
    scene.passes(5000, 8000);
    let summary = &scene.last().summary;
    assert!(summary.contains("was set by flanneld[4711]") && !summary.contains("answers"), "{summary}");
}

/// The answer to who on this machine has 192.0.2.90, of which eth0 (192.0.2.1/24) asks.
fn found(devices: Vec<Holder>) -> Context {
    let own = vec![("192.0.2.1".parse().expect("an address"), 24)];
    let (netns, address) = (ebpf_probes::abi::Netns::numbered(1), waiter(7, 90).address);
    let holders =
        Holders { netns, ifindex: 2, address, devices, own, arp_announce: Some(0), ..Holders::default() };
    Context::Holders(Box::new(holders))
}

fn child(kinship: Kinship, mode: &str) -> Holder {
    let stacked = Stacked { kinship, kind: "macvlan".into(), mode: mode.into() };
    Holder {
        netns: ebpf_probes::abi::Netns::numbered(9),
        device: "mv0".into(),
        mac: mac(9),
        has_address: true,
        stacked: Some(stacked),
    }
}

/// One that fails as the answer says.
fn fails_with(answer: &Context, waits: WaiterRecord) -> Incident {
    let mut scene = Scene::new();
    scene.neigh(0, asked(90, state::NONE));
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    scene.waiter(1000, waits);
    scene.apply(answer);
    scene.neigh(3000, timer(90, state::INCOMPLETE, state::FAILED));
    scene.passes(3200, 3700);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened.len(), 1);
    opened[0].clone()
}

#[test]
fn a_macvlan_child_of_the_device_that_asks_is_called_one() {
    let emitted = fails_with(&found(vec![child(Kinship::Child, "bridge")]), waiter(7, 90));
    assert_eq!(
        emitted.summary,
        "192.0.2.90 cannot answer ARP on eth0: it is mv0 of this machine's network namespace net:[9], a macvlan child of eth0 itself, and a macvlan child and its parent device never hear each other: raven[1017]'s connection to 192.0.2.90:80 waits for it."
    );
    assert!(emitted.remedies[0].to_string().contains("type macvlan"), "{:?}", emitted.remedies);
}

#[test]
fn siblings_in_bridge_mode_hear_each_other_and_private_ones_do_not() {
    let emitted = |mode| fails_with(&found(vec![child(Kinship::Sibling, mode)]), waiter(7, 90)).summary;
    assert!(emitted("bridge").starts_with("192.0.2.90 does not answer ARP"), "{}", emitted("bridge"));
    assert!(
        emitted("private").contains("in mode private they do not hear each other"),
        "{}",
        emitted("private")
    );
}

#[test]
fn a_stranger_with_the_same_address_elsewhere_on_the_machine_is_not_named() {
    let stranger = Holder { stacked: None, ..child(Kinship::Child, "") };
    let emitted = fails_with(&found(vec![stranger]), waiter(7, 90));
    assert!(emitted.summary.starts_with("192.0.2.90 does not answer ARP on eth0:"), "{}", emitted.summary);
}

#[test]
fn questions_in_the_name_of_another_network_s_address_are_said_to_be_such() {
    let from = |last_but_one: u8| {
        let mut waits = waiter(7, 90);
        waits.tuple.local = waits.tuple.remote;
        waits.tuple.local[14] = last_but_one;
        waits
    };
    let foreign = fails_with(&found(vec![]), from(77));
    assert!(foreign.summary.contains("when asked in the name of 192.0.77.90"), "{}", foreign.summary);
    assert!(
        foreign.remedies[0].to_string().ends_with("sysctl -w 'net/ipv4/conf/eth0/arp_announce=2'"),
        "{:?}",
        foreign.remedies
    );
    let own = fails_with(&found(vec![]), from(2));
    assert!(!own.summary.contains("in the name of"), "{}", own.summary);
}

#[test]
fn the_routes_of_an_ipv6_gateway_are_looked_at_as_ipv6_routes() {
    let address: std::net::IpAddr = "2001:db8::1".parse().expect("an address");
    let place = crate::pipeline::incident::NeighbourPlace {
        address,
        device: "eth0".into(),
        netns: None,
        resolution: "ndp".into(),
        is_gateway: true,
    };
    let remedies = super::say::remedies(&place, None);
    assert!(
        remedies.iter().any(|remedy| remedy.to_string().ends_with("ip -6 route show default")),
        "{remedies:?}"
    );
}

#[test]
fn failures_that_go_on_are_one_incident_with_a_count() {
    let mut scene = Scene::new();
    for round in 0..4 {
        fails(&mut scene, 7 + round, 90, round * 4000);
    }
    assert_eq!(scene.opened(Kind::NeighbourUnresolved).len(), 1);
    let last =
        scene.emitted.iter().rfind(|emitted| emitted.kind == Kind::NeighbourUnresolved).expect("emitted");
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
        .emitted
        .iter()
        .filter(|emitted| emitted.kind == Kind::NeighbourUnresolved)
        .map(|emitted| details(emitted).other_neighbours)
        .max();
    assert_eq!(most, Some(16));
}

#[test]
fn a_connect_below_a_neighbour_that_is_still_asked_for_is_not_reported_twice() {
    let mut scene = Scene::new();
    scene.neigh(0, asked(90, state::NONE));
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    scene.waiter(1000, waiter(7, 90));
    scene.connect(3000, Record::CONNECT_PENDING, connect(7, 1, 90, 0));
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
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
    scene.apply(&Context::Network(Box::new(again)));
    scene.passes(5000, 8000);
    let last = scene.last();
    assert_eq!((last.state, last.kind), (State::Resolved, Kind::NeighbourUnresolved));
    assert!(last.evidence.iter().any(|seen| seen.text.contains("read again")), "{:#?}", last.evidence);
}

#[test]
fn a_gateway_is_called_one_and_is_critical() {
    let mut scene = Scene::new();
    let gateway = Gateway { address: "192.0.2.90".parse().expect("an address"), device: "eth0".into() };
    scene.apply(&Context::Network(Box::new(Network {
        netns: ebpf_probes::abi::Netns::numbered(1),
        gateways: vec![gateway],
        ..Network::default()
    })));
    fails(&mut scene, 7, 90, 0);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened[0].severity, Severity::Critical);
    assert!(opened[0].summary.starts_with("The default gateway 192.0.2.90 does not answer ARP on eth0"));
}

/// So many connects to 192.0.2.90, each closed by its process after `patience` milliseconds; the entry fails.
fn given_up(scene: &mut Scene, attempts: u64, patience: u64, in_time: bool) {
    scene.neigh(0, asked(90, state::NONE));
    let closed = |scene: &mut Scene| {
        for cookie in 1..=attempts {
            let closed = Connect { errno: 0, ..connect(cookie, 1, 90, 0) };
            scene.connect(patience, Record::CONNECT_END, closed);
        }
    };
    if in_time {
        closed(scene);
    }
    scene.neigh(1000, timer(90, state::INCOMPLETE, state::INCOMPLETE));
    (1..=attempts).for_each(|cookie| scene.waiter(1000, waiter(cookie, 90)));
    if !in_time {
        closed(scene);
    }
    scene.neigh(3000, timer(90, state::INCOMPLETE, state::FAILED));
    scene.passes(3200, 3700);
}

#[test]
fn a_neighbour_whose_only_waiter_gave_up_at_once_is_no_incident() {
    let mut scene = Scene::new();
    given_up(&mut scene, 2, 200, true);
    assert!(scene.opened(Kind::NeighbourUnresolved).is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_waiter_that_gave_up_after_its_own_timeout_is_named_as_one_that_gave_up() {
    let mut scene = Scene::new();
    given_up(&mut scene, 1, 1500, false);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened.len(), 1);
    assert!(opened[0].summary.contains("was given up"), "{}", opened[0].summary);
    assert_eq!(details(opened[0]).waiters[0].outcome, Some(Outcome::Aborted));
}

#[test]
fn attempts_that_are_given_up_soon_again_and_again_are_an_incident() {
    let mut scene = Scene::new();
    given_up(&mut scene, 3, 200, true);
    let opened = scene.opened(Kind::NeighbourUnresolved);
    assert_eq!(opened.len(), 1);
    assert!(opened[0].summary.contains("was given up (and 2 more)"), "{}", opened[0].summary);
}

#[test]
fn a_connect_of_before_the_start_that_is_unreachable_as_its_gateway_is_given_up_has_waited_for_it() {
    let opened = |is_gateway: bool, after_ms: u64| {
        let mut scene = Scene::new();
        if is_gateway {
            let address = "192.0.2.90".parse().expect("an address");
            scene.apply(&Context::Network(Box::new(Network {
                netns: Netns::numbered(1),
                gateways: vec![Gateway { address, device: "eth0".into() }],
                ..Network::default()
            })));
        }
        scene.neigh(1000, timer(90, state::INCOMPLETE, state::FAILED));
        let mut beyond = Connect { errno: HOST_UNREACHABLE, ..connect(7, 1, 90, 0) };
        beyond.tuple.remote = crate::records::address_bytes("198.51.100.7".parse().expect("an address"));
        scene.connect(1000 + after_ms, Record::CONNECT_END, beyond);
        scene.passes(1000 + after_ms, 2000);
        scene.opened(Kind::NeighbourUnresolved).len()
    };
    assert_eq!((opened(true, 1), opened(false, 1), opened(true, 400)), (1, 0, 0));
}
