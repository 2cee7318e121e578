//! Which neighbour an incident is about, and what the past of its entry explains, where connects get nowhere.

use ebpf_probes::{
    abi::{Kind as Record, Netns},
    probes::{
        connect::Connect,
        neigh::{NeighRecord, UnheardRecord, cause, flag, state, unheard},
    },
};

use super::scene::{Scene, connect, entry, mac, ns, owner, unheard as sent_again, v4};
use crate::{
    known::context::{AddressNews, Answered, Claim, Context, Holders, OwnAddress},
    pipeline::{
        Request,
        incident::{CauseKind, Confidence, Incident, Kind, State},
    },
    records,
};

const UNREACHABLE: i32 = 113;

/// A connect to 192.0.2.90 that began at `at`, three seconds later.
fn stalls(scene: &mut Scene, at: u64) {
    let silent = Connect { retries: 2, ..connect(7, 1, 90, at) };
    scene.connect(at + 3000, Record::CONNECT_PENDING, silent);
}

#[track_caller]
fn stalled(scene: &Scene) -> &Incident {
    scene.emitted.iter().rfind(|incident| incident.kind == Kind::ConnectStalled).expect("it stalls")
}

#[track_caller]
fn blames(scene: &Scene) -> (CauseKind, Confidence) {
    let cause = stalled(scene).cause.as_ref().expect("a cause");
    (cause.kind, cause.confidence)
}

fn why(scene: &Scene) -> String {
    stalled(scene).why.join(" ")
}

/// Another host claims an address in this namespace; an incident of that.
fn conflict(scene: &mut Scene, netns: u32, host: u8) -> String {
    for at in [0, 1000, 2000] {
        scene.apply(&Context::OwnAddress(Box::new(OwnAddress {
            boot_ns: ns(at),
            netns: Netns::numbered(netns),
            ifindex: 2,
            device: "eth0".into(),
            mac: mac(1),
            address: records::address(v4(host)),
            prefix: 24,
            news: AddressNews::Claimed { by: mac(9), how: Claim::Announcement },
        })));
        scene.passes(at, at + 500);
        // No device of this machine has the other MAC.
        scene.apply(&Context::Holders(Box::new(Holders {
            netns: Netns::numbered(netns),
            ifindex: 2,
            address: v4(host),
            ..Holders::default()
        })));
    }
    scene.tick(2750);
    scene.opened(Kind::AddressConflict).first().expect("a conflict").id.clone()
}

/// A connect from 192.0.2.20 of namespace 1 is silent.
fn stalls_from_own(scene: &mut Scene) {
    let mut silent = Connect { retries: 2, ..connect(7, 1, 90, 0) };
    (silent.tuple.local, silent.tuple.local_port) = (v4(20), 50_001);
    scene.connect(3000, Record::CONNECT_PENDING, silent);
}

#[test]
fn a_conflict_explains_silence_where_the_contested_address_is_the_connect_s_own() {
    let mut scene = Scene::new();
    let conflict = conflict(&mut scene, 1, 20);
    stalls_from_own(&mut scene);
    assert_eq!(stalled(&scene).caused_by, [conflict]);
    assert_eq!(blames(&scene), (CauseKind::Neighbour, Confidence::Likely));
}

#[test]
fn a_conflict_about_the_same_address_in_another_namespace_explains_nothing() {
    let mut scene = Scene::new();
    conflict(&mut scene, 7, 20);
    stalls_from_own(&mut scene);
    assert!(stalled(&scene).caused_by.is_empty());
    // Nor where that address is gone to, and no entry is known to have followed the other host.
    let mut scene = Scene::new();
    conflict(&mut scene, 7, 90);
    stalls(&mut scene, 0);
    assert!(stalled(&scene).caused_by.is_empty());
}

#[test]
fn a_conflict_of_another_namespace_explains_it_where_the_entry_followed_the_other_host() {
    let mut scene = Scene::new();
    let conflict = conflict(&mut scene, 7, 90);
    scene.neigh(2800, entry(90, (state::REACHABLE, 1), (state::REACHABLE, 9)));
    stalls(&mut scene, 3000);
    assert_eq!(stalled(&scene).caused_by, [conflict]);
}

/// The entry of 192.0.2.90 in a namespace, behind a device, is stale.
fn stale(scene: &mut Scene, netns: u32, ifindex: u32) {
    for (at, times) in [(1000, 1), (3000, 2)] {
        let record = UnheardRecord { netns, ifindex, ..sent_again(90, 50_001, times, 0) };
        scene.unheard(at, record);
        scene.passes(at, at + 1500);
    }
    assert_eq!(scene.opened(Kind::NeighbourStale).len(), 1);
}

#[test]
fn a_stale_entry_explains_connects_of_its_own_namespace_only() {
    for (netns, explains) in [(1, true), (7, false)] {
        let mut scene = Scene::new();
        stale(&mut scene, netns, 2);
        stalls(&mut scene, 4000);
        assert_eq!(!stalled(&scene).caused_by.is_empty(), explains, "namespace {netns}");
    }
}

#[test]
fn the_same_address_behind_another_device_is_another_neighbour() {
    let mut scene = Scene::new();
    for (index, name) in [(2, "eth0"), (3, "eth1")] {
        let name = name.to_owned();
        scene.apply(&Context::Device { netns: Netns::numbered(1), index, name });
    }
    stale(&mut scene, 1, 3);
    // What goes to it from here was last seen to go by the first device.
    scene.unheard(4900, UnheardRecord { what: unheard::ANSWERED, ..sent_again(90, 50_002, 1, 0) });
    stalls(&mut scene, 5000);
    assert!(stalled(&scene).caused_by.is_empty());
}

/// A SYN of ours to 198.51.100.`host` goes to the gateway 192.0.2.90, whose entry is wrong.
fn by_gateway(host: u8, times: u32) -> UnheardRecord {
    let mut record = sent_again(90, 80, times, 0);
    record.neighbour = v4(90);
    record.tuple.remote[12..].copy_from_slice(&[198, 51, 100, host]);
    (record.tuple.local_port, record.tuple.remote_port) = (50_000 + u16::from(host), 80);
    (record.what, record.cookie) = (unheard::SYN, u64::from(host));
    record
}

#[test]
fn a_stale_gateway_explains_what_was_seen_to_go_by_it() {
    let mut scene = Scene::new();
    for (at, times) in [(1000, 1), (3000, 2)] {
        scene.unheard(at, by_gateway(7, times));
        scene.passes(at, at + 1500);
    }
    let gateway = scene.opened(Kind::NeighbourStale).first().expect("a stale gateway").id.clone();
    let beyond = |host: u8| {
        let mut connect = Connect { retries: 2, ..connect(u64::from(host), 1, 90, 2000) };
        connect.tuple.remote[12..].copy_from_slice(&[198, 51, 100, host]);
        connect
    };
    scene.connect(5000, Record::CONNECT_PENDING, beyond(7));
    assert_eq!(stalled(&scene).caused_by, [gateway]);
    let mut other = beyond(8);
    other.owner = owner(2000, 2000);
    other.owner.comm = *b"other\0\0\0\0\0\0\0\0\0\0\0";
    scene.connect(5000, Record::CONNECT_PENDING, other);
    assert!(stalled(&scene).caused_by.is_empty(), "by which way it goes was not seen");
}

/// 192.0.2.90 answers no question sent to its MAC, and then one sent to everybody.
fn hears_only_broadcast(scene: &mut Scene, at: u64) {
    let timer = |from: (u32, u8), to: (u32, u8)| NeighRecord { cause: cause::TIMER, ..entry(90, from, to) };
    scene.neigh(at, timer((state::PROBE, 1), (state::FAILED, 1)));
    let sent = entry(90, (state::FAILED, 1), (state::INCOMPLETE, 1));
    scene.neigh(at + 10, NeighRecord { cause: cause::SENT, ..sent });
    scene.neigh(at + 11, entry(90, (state::INCOMPLETE, 1), (state::REACHABLE, 1)));
}

#[test]
fn a_neighbour_that_hears_only_what_is_sent_to_everybody_is_blamed_for_silence() {
    let mut scene = Scene::new();
    hears_only_broadcast(&mut scene, 0);
    hears_only_broadcast(&mut scene, 5000);
    stalls(&mut scene, 6000);
    assert_eq!(blames(&scene), (CauseKind::Neighbour, Confidence::Likely));
    assert!(why(&scene).contains("frames to 02:00:00:00:00:01 alone are lost on the way"), "{}", why(&scene));
    assert!(why(&scene).contains("2 times within 5.0 s"), "{}", why(&scene));
}

#[test]
fn one_such_time_is_reported_and_blames_nothing() {
    let mut scene = Scene::new();
    hears_only_broadcast(&mut scene, 0);
    stalls(&mut scene, 1000);
    assert_eq!(blames(&scene).0, CauseKind::OutboundConnect);
    assert!(why(&scene).contains("alone are lost on the way"), "{}", why(&scene));
}

#[test]
fn one_that_answers_what_is_sent_to_it_alone_in_between_is_blamed_for_nothing() {
    let mut scene = Scene::new();
    hears_only_broadcast(&mut scene, 0);
    scene.neigh(3000, entry(90, (state::PROBE, 1), (state::REACHABLE, 1)));
    hears_only_broadcast(&mut scene, 5000);
    stalls(&mut scene, 6000);
    assert_eq!(blames(&scene).0, CauseKind::OutboundConnect);
}

#[test]
fn one_that_comes_back_at_another_mac_has_moved_and_is_not_deaf() {
    let mut scene = Scene::new();
    hears_only_broadcast(&mut scene, 0);
    hears_only_broadcast(&mut scene, 2000);
    let timer = entry(90, (state::PROBE, 1), (state::FAILED, 1));
    scene.neigh(4000, NeighRecord { cause: cause::TIMER, ..timer });
    scene.neigh(4100, entry(90, (state::INCOMPLETE, 1), (state::REACHABLE, 2)));
    stalls(&mut scene, 6000);
    assert!(
        !why(&scene).contains("lost on the way") && why(&scene).contains("moved from"),
        "{}",
        why(&scene)
    );
}

#[test]
fn packets_that_this_host_drops_are_no_neighbour_s_fault() {
    let mut scene = Scene::new();
    hears_only_broadcast(&mut scene, 0);
    hears_only_broadcast(&mut scene, 5000);
    let dropped = Connect { retries: 2, drops: 3, drop_reason: 8, ..connect(7, 1, 90, 6000) };
    scene.connect(9000, Record::CONNECT_PENDING, dropped);
    assert_eq!(blames(&scene).0, CauseKind::Filter);
}

#[test]
fn an_entry_that_moved_just_before_is_likely_why_nothing_answers() {
    let mut scene = Scene::new();
    scene.neigh(0, entry(90, (state::REACHABLE, 1), (state::REACHABLE, 2)));
    stalls(&mut scene, 3000);
    assert_eq!(blames(&scene), (CauseKind::Neighbour, Confidence::Likely));
    assert!(
        why(&scene).contains("moved from 02:00:00:00:00:01 to 02:00:00:00:00:02 3.0 s before by a packet"),
        "{}",
        why(&scene)
    );
}

#[test]
fn an_entry_that_moves_while_nothing_answers_is_reported_and_blamed_for_nothing() {
    let mut scene = Scene::new();
    scene.neigh(2000, entry(90, (state::REACHABLE, 1), (state::REACHABLE, 2)));
    stalls(&mut scene, 0);
    assert_eq!(blames(&scene).0, CauseKind::OutboundConnect);
    assert!(why(&scene).contains("2.0 s after it began"), "{}", why(&scene));
}

#[test]
fn two_macs_of_one_neighbour_are_no_move() {
    let mut scene = Scene::new();
    let both = entry(90, (state::REACHABLE, 1), (state::REACHABLE, 2));
    scene.neigh(0, NeighRecord { flags: flag::TOGETHER, ..both });
    stalls(&mut scene, 3000);
    assert_eq!(blames(&scene).0, CauseKind::OutboundConnect);
    assert!(!why(&scene).contains("moved"), "{}", why(&scene));
}

#[test]
fn an_entry_set_for_good_at_a_mac_that_does_not_answer_is_named_with_who_set_it() {
    let mut scene = Scene::new();
    let set = entry(90, (state::REACHABLE, 1), (state::PERMANENT, 1));
    scene.neigh(0, NeighRecord { flags: flag::BY_HAND, owner: owner(1017, 1017), ..set });
    stalls(&mut scene, 3000);
    assert_eq!(blames(&scene), (CauseKind::Neighbour, Confidence::Likely));
    assert!(
        why(&scene).contains(
            "was set PERMANENT at 02:00:00:00:00:01 3.0 s before by raven[1017], and no answer comes"
        ),
        "{}",
        why(&scene)
    );
}

#[test]
fn an_entry_that_was_removed_and_is_back_at_the_same_mac_is_no_news() {
    let mut scene = Scene::new();
    let removed = entry(90, (state::REACHABLE, 1), (state::FAILED, 1));
    scene.neigh(0, NeighRecord { flags: flag::BY_HAND, owner: owner(1017, 1017), ..removed });
    stalls(&mut scene, 500);
    assert!(why(&scene).contains("was removed 500 ms before by raven[1017]"), "{}", why(&scene));
    let mut scene = Scene::new();
    scene.neigh(0, NeighRecord { flags: flag::BY_HAND, owner: owner(1017, 1017), ..removed });
    scene.neigh(100, entry(90, (state::INCOMPLETE, 0), (state::REACHABLE, 1)));
    stalls(&mut scene, 500);
    assert!(!why(&scene).contains("removed"), "{}", why(&scene));
}

#[test]
fn a_host_that_is_unreachable_has_failed_though_no_record_says_so() {
    let mut scene = Scene::new();
    let asked = entry(90, (state::NONE, 0), (state::INCOMPLETE, 0));
    scene.neigh(0, NeighRecord { cause: cause::SENT, ..asked });
    scene.waiter(1000, super::scene::waiter(7, 90));
    scene.connect(3000, Record::CONNECT_END, Connect { errno: UNREACHABLE, ..connect(7, 1, 90, 0) });
    scene.passes(3000, 4000);
    assert_eq!(scene.opened(Kind::NeighbourUnresolved).len(), 1);
}

/// Everybody on the link was asked for 192.0.2.90, and these answered.
fn answers(at: u64, macs: &[u8]) -> Context {
    Context::Answered(Box::new(Answered {
        boot_ns: ns(at),
        netns: Netns::numbered(1),
        ifindex: 2,
        address: v4(90),
        macs: macs.iter().map(|last| mac(*last)).collect(),
    }))
}

fn evidence(incident: &Incident) -> String {
    incident.evidence.iter().map(|seen| format!("{}\n", seen.text)).collect()
}

#[test]
fn the_other_mac_alone_answers_everybody_and_that_is_certain() {
    for (macs, confidence) in
        [(&[2][..], Confidence::Certain), (&[1, 2], Confidence::Likely), (&[], Confidence::Likely)]
    {
        let mut scene = Scene::new();
        stale(&mut scene, 1, 2);
        assert_eq!(scene.requests.iter().filter(|request| matches!(request, Request::Ask(_))).count(), 1);
        scene.apply(&answers(5000, macs));
        assert_eq!(scene.cause().confidence, confidence, "{macs:?}");
        assert!(evidence(scene.last()).contains("culprit itself asks everybody on if2 for 192.0.2.90"));
    }
}

#[test]
fn an_answer_that_corrects_the_entry_is_reported_with_the_end() {
    let mut scene = Scene::new();
    stale(&mut scene, 1, 2);
    scene.neigh(5050, entry(90, (state::STALE, 1), (state::REACHABLE, 2)));
    scene.apply(&answers(5000, &[2]));
    scene.passes(5250, 8000);
    assert_eq!(scene.last().state, State::Resolved);
    assert!(evidence(scene.last()).contains("02:00:00:00:00:02 answers"), "{}", evidence(scene.last()));
}

#[test]
fn that_no_answer_comes_is_reported_of_a_neighbour_that_is_silent() {
    let mut scene = Scene::new();
    let asked = entry(90, (state::NONE, 0), (state::INCOMPLETE, 0));
    scene.neigh(0, NeighRecord { cause: cause::SENT, ..asked });
    scene.waiter(1000, super::scene::waiter(7, 90));
    let failed = entry(90, (state::INCOMPLETE, 0), (state::FAILED, 0));
    scene.neigh(3000, NeighRecord { cause: cause::TIMER, ..failed });
    scene.passes(3000, 3500);
    assert!(scene.requests.iter().any(|request| matches!(request, Request::Ask(_))));
    scene.apply(&answers(4000, &[]));
    assert!(evidence(scene.last()).contains("no answer within a second"), "{}", evidence(scene.last()));
}
