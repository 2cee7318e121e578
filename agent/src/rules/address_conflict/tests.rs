//! Addresses of this host that others claim, step by step.

use std::net::IpAddr;

use ebpf_probes::abi::Netns;

use crate::{
    known::context::{AddressNews, Claim, Context, Holder, Holders, Listeners, ListensAt, OwnAddress},
    pipeline::{
        Request,
        incident::{Confidence, Details, Kind, State},
    },
    records,
    rules::scene::{Scene, mac, ns},
};

const OWN: [u8; 4] = [192, 0, 2, 20];

fn own() -> IpAddr {
    OWN.into()
}

fn v6() -> IpAddr {
    "2001:db8::20".parse().expect("an address")
}

fn news(at: u64, address: IpAddr, news: AddressNews) -> Context {
    Context::OwnAddress(Box::new(OwnAddress {
        boot_ns: ns(at),
        netns: Netns::numbered(1),
        ifindex: 2,
        device: "eth0".into(),
        mac: mac(1),
        address,
        prefix: if address.is_ipv4() { 24 } else { 64 },
        news,
    }))
}

fn claims(scene: &mut Scene, at: u64, by: u8) {
    let how = Claim::Announcement;
    scene.apply(&news(at, own(), AddressNews::Claimed { by: mac(by), how }));
}

/// What is found when it is looked whose the MACs are.
fn looked(scene: &mut Scene, address: IpAddr, devices: Vec<Holder>) {
    scene.apply(&Context::Holders(Box::new(Holders {
        netns: Netns::numbered(1),
        ifindex: 2,
        address: records::address_bytes(address),
        devices,
        ..Holders::default()
    })));
}

fn device(netns: u32, of: u8, has_address: bool) -> Holder {
    Holder { netns: Netns::numbered(netns), device: "eth0".into(), mac: mac(of), has_address, stacked: None }
}

fn opened(scene: &Scene) -> usize {
    scene.opened(Kind::AddressConflict).len()
}

#[test]
fn an_address_of_this_host_that_another_mac_announces_is_a_conflict_that_names_both() {
    let mut scene = Scene::new();
    claims(&mut scene, 0, 9);
    scene.tick(250);
    assert!(scene.requests.iter().any(|request| matches!(request, Request::Holders(_))));
    assert!(scene.requests.iter().any(|request| matches!(request, Request::Listeners(_))));
    looked(&mut scene, own(), vec![]);
    scene.apply(&Context::Listeners(Box::new(Listeners {
        boot_ns: ns(250),
        netns: Netns::numbered(1),
        address: own(),
        listeners: vec![ListensAt { pid: 17, comm: "postgres".into(), port: 5432, bound: true }],
    })));
    claims(&mut scene, 1000, 9);
    scene.passes(1000, 3000);
    let opened = scene.opened(Kind::AddressConflict);
    assert_eq!(opened.len(), 1);
    assert_eq!(
        opened[0].summary,
        "02:00:00:00:00:09 claims 192.0.2.20, which is this host's own on eth0 (02:00:00:00:00:01): packets of its peers go to the other one."
    );
    assert!(
        opened[0].why.iter().any(|why| why.contains("postgres[17] listens there on port 5432")),
        "{:#?}",
        opened[0].why
    );
    assert_eq!(opened[0].cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Certain));
    scene.passes(3000, 63_000);
    assert_eq!(scene.last().state, State::Resolved);
}

#[test]
fn one_packet_is_not_enough_to_be_certain() {
    let mut scene = Scene::new();
    claims(&mut scene, 0, 9);
    scene.tick(250);
    looked(&mut scene, own(), vec![]);
    scene.passes(250, 3000);
    let opened = scene.opened(Kind::AddressConflict);
    assert_eq!(opened[0].cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Likely));
}

#[test]
fn a_backup_that_gives_the_address_up_when_the_master_is_back_is_no_conflict() {
    let mut scene = Scene::new();
    claims(&mut scene, 0, 9);
    scene.tick(250);
    looked(&mut scene, own(), vec![]);
    scene.apply(&news(900, own(), AddressNews::Gone));
    scene.passes(1000, 70_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn what_a_device_of_the_same_namespace_says_is_no_conflict_whatever_its_mac() {
    let mut scene = Scene::new();
    for at in [0, 1000, 2000, 3000, 4000] {
        claims(&mut scene, at, 9);
        scene.tick(at + 250);
        looked(&mut scene, own(), vec![device(1, 9, true)]);
    }
    scene.passes(4000, 70_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn another_namespace_that_answers_for_the_address_and_does_not_have_it_is_a_proxy() {
    let mut scene = Scene::new();
    claims(&mut scene, 0, 9);
    scene.tick(250);
    looked(&mut scene, own(), vec![device(7, 9, false)]);
    scene.passes(1000, 5000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn another_namespace_of_this_machine_that_has_the_address_as_well_is_a_conflict() {
    let mut scene = Scene::new();
    claims(&mut scene, 0, 9);
    scene.tick(250);
    looked(&mut scene, own(), vec![device(7, 9, true)]);
    scene.passes(1000, 5000);
    assert_eq!(opened(&scene), 1);
    assert!(scene.last().why.iter().any(|why| why.contains("another network namespace")));
}

#[test]
fn a_virtual_routers_mac_that_a_device_of_this_host_has_is_its_own() {
    let mut scene = Scene::new();
    let virtual_mac = [0, 0, 0x5e, 0, 1, 51, 0, 0];
    let claimed = AddressNews::Claimed { by: virtual_mac, how: Claim::Announcement };
    scene.apply(&news(0, own(), claimed));
    scene.tick(250);
    looked(&mut scene, own(), vec![Holder { mac: virtual_mac, ..device(1, 9, false) }]);
    scene.passes(1000, 5000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn nothing_is_said_before_it_was_looked_whose_the_mac_is() {
    let mut scene = Scene::new();
    claims(&mut scene, 0, 9);
    scene.passes(0, 5000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn an_address_that_duplicate_address_detection_refuses_cannot_be_bound_and_is_over_when_it_is_gone() {
    let mut scene = Scene::new();
    let defends = AddressNews::Claimed { by: mac(9), how: Claim::Defence };
    scene.apply(&news(0, v6(), defends));
    scene.apply(&news(1, v6(), AddressNews::DadFailed { since_ns: ns(1) }));
    scene.tick(250);
    looked(&mut scene, v6(), vec![]);
    scene.passes(250, 1500);
    let opened = scene.opened(Kind::AddressConflict);
    assert_eq!(opened.len(), 1);
    assert_eq!(
        opened[0].summary,
        "This host (02:00:00:00:00:01) cannot use its address 2001:db8::20 on eth0: 02:00:00:00:00:09 has it, as duplicate address detection found."
    );
    assert!(opened[0].why[0].contains("EADDRNOTAVAIL"), "{:#?}", opened[0].why);
    let again = opened[0].remedies[1].to_string();
    let commands = "ip -6 addr del 2001:db8::20/64 dev eth0 && ip -6 addr add 2001:db8::20/64 dev eth0";
    assert!(again.ends_with(commands), "{again}");
    match &opened[0].details {
        Details::AddressConflict(details) => assert!(details.dad_failed && details.conflict_ms >= 1000),
        other => panic!("{other:?}"),
    }
    // It stays as long as the address does.
    scene.passes(1500, 120_000);
    assert_eq!(scene.last().state, State::Open);
    scene.apply(&news(120_000, v6(), AddressNews::Gone));
    scene.passes(120_000, 130_000);
    assert_eq!(scene.last().state, State::Resolved);
}

#[test]
fn a_temporary_address_that_is_replaced_at_once_is_none() {
    let mut scene = Scene::new();
    scene.apply(&news(0, v6(), AddressNews::DadFailed { since_ns: ns(0) }));
    scene.apply(&news(50, v6(), AddressNews::Gone));
    scene.passes(50, 5000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_flood_of_claims_with_macs_of_its_own_stays_within_bounds() {
    let mut scene = Scene::new();
    for at in 0..2000u64 {
        let by = [2, 0, 0, 1, (at >> 8) as u8, at as u8, 0, 0];
        let address = IpAddr::from([10, 0, ((at % 700) >> 8) as u8, (at % 700) as u8]);
        scene.apply(&news(at, address, AddressNews::Claimed { by, how: Claim::Question }));
    }
    let table = scene.table("address_conflict_addresses");
    assert_eq!((table.entries, table.capacity), (256, 256));
}

#[test]
fn one_who_announces_the_address_every_hundred_seconds_is_one_incident_once_that_is_known() {
    let mut scene = Scene::new();
    for round in 0..4u64 {
        let at = round * 100_000;
        claims(&mut scene, at, 9);
        scene.tick(at + 250);
        looked(&mut scene, own(), vec![]);
        scene.passes(at + 250, at + 100_000);
    }
    let resolved = scene.emitted.iter().filter(|emitted| emitted.state == State::Resolved).count();
    assert_eq!(resolved, 1, "only before the second one was heard");
}

#[test]
fn another_namespace_of_this_machine_is_asked_again_whether_it_has_the_address_and_ends_it_when_it_has_not() {
    for devices in [vec![device(2, 9, false)], vec![]] {
        let mut scene = Scene::new();
        claims(&mut scene, 0, 9);
        scene.tick(250);
        looked(&mut scene, own(), vec![device(2, 9, true)]);
        scene.passes(250, 3000);
        assert_eq!(opened(&scene), 1);
        scene.requests.clear();
        scene.passes(3000, 9000);
        assert!(scene.requests.iter().any(|request| matches!(request, Request::Holders(_))));
        looked(&mut scene, own(), devices);
        scene.passes(9000, 20_000);
        assert_eq!(scene.last().state, State::Resolved);
        assert!(scene.last().summary.contains("has 192.0.2.20 no more"), "{}", scene.last().summary);
    }
}
