//! Neighbours that do not hear this host, step by step.

use ebpf_probes::{
    abi::{Kind as Record, Netns, Owner},
    probes::{
        connect::{Connect, Dropped, packet, place},
        neigh::{NeighRecord, UnheardRecord, flag, state, unheard, unheard_flag},
    },
};
use proptest::prelude::*;

use crate::{
    known::context::{Context, Network, SeenNeighbour},
    pipeline::incident::{Confidence, Details, Incident, Kind, NeighbourStaleDetails, State},
    records,
    rules::scene::{Scene, connect, entry, mac, unheard as sent_again, waiter},
};

fn details(incident: &Incident) -> &NeighbourStaleDetails {
    match &incident.details {
        Details::NeighbourStale(details) => details,
        other => panic!("{other:?}"),
    }
}

/// A SYN-ACK at 1000 and 3000 ms, to 192.0.2.90, whose SYN came from elsewhere at 0 ms.
fn stale() -> Scene {
    let mut scene = Scene::new();
    scene.unheard(1000, sent_again(90, 50_001, 1, 0));
    scene.passes(1000, 2500);
    scene.unheard(3000, sent_again(90, 50_001, 2, 0));
    scene
}

#[test]
fn a_syn_from_elsewhere_and_an_unanswered_syn_ack_open_it_within_two_seconds() {
    let scene = stale();
    let opened = scene.opened(Kind::NeighbourStale);
    assert_eq!(opened.len(), 1);
    let opened = opened[0];
    assert!(opened.duration_ms <= 2500, "{}", opened.duration_ms);
    let emitted = details(opened);
    assert_eq!(
        (emitted.cached_mac.as_str(), emitted.seen_mac.as_str()),
        ("02:00:00:00:00:01", "02:00:00:00:00:02")
    );
    assert_eq!(
        (emitted.nud_state.as_str(), emitted.neighbour.device.as_str(), &emitted.ports[..]),
        ("STALE", "if2", &[443][..])
    );
    assert_eq!(opened.remedies[0].to_string(), "ip neigh del 192.0.2.90 dev if2");
    assert_eq!(opened.cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Likely));
    assert!(
        opened.summary.contains("go to 02:00:00:00:00:01")
            && opened.summary.contains("come from 02:00:00:00:00:02")
    );
}

#[test]
fn what_is_answered_within_a_second_of_its_retransmission_is_none() {
    let mut scene = Scene::new();
    scene.unheard(1000, sent_again(90, 50_001, 1, 0));
    scene.unheard(1010, UnheardRecord { what: unheard::ANSWERED, ..sent_again(90, 50_001, 1, 0) });
    scene.passes(1000, 10_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_pair_of_macs_that_worked_before_needs_more_than_one_connection_s_silence() {
    let worked = |port, unanswered| UnheardRecord { answered_ns: 7, ..sent_again(90, port, unanswered, 0) };
    let mut scene = Scene::new();
    for (at, unanswered) in [(1000, 1), (3000, 2), (7000, 3), (15_000, 4), (31_000, 5)] {
        scene.unheard(at, worked(50_001, unanswered));
        scene.passes(at, at + 1500);
    }
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    scene.unheard(32_000, worked(50_002, 6));
    scene.passes(32_000, 33_000);
    assert_eq!(scene.opened(Kind::NeighbourStale).len(), 1);
}

#[test]
fn macs_between_which_a_connection_was_established_are_one_machine_that_is_dead_or_deaf() {
    let mut scene = Scene::new();
    for (at, unanswered) in [(1000, 1), (3000, 2), (7000, 3), (15_000, 4)] {
        for port in 50_001..50_005 {
            let together =
                UnheardRecord { flags: unheard_flag::TOGETHER, ..sent_again(90, port, unanswered, 0) };
            scene.unheard(at, together);
        }
        scene.passes(at, at + 1500);
    }
    scene.passes(17_000, 30_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_neighbour_that_fell_silent_itself_is_none() {
    let mut scene = Scene::new();
    // It spoke last four seconds before the first retransmission.
    let silent = |unanswered| UnheardRecord {
        seen_last_ns: sent_again(90, 1, 1, 0).seen_since_ns + 1_000_000_000,
        what: unheard::DATA,
        ..sent_again(90, 50_001, unanswered, 0)
    };
    for (at, unanswered) in [(5000, 1), (5400, 2), (6200, 3), (7800, 4), (11_000, 5)] {
        scene.unheard(at, silent(unanswered));
        scene.passes(at, at + 500);
    }
    scene.passes(11_000, 20_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_neighbour_that_speaks_again_from_elsewhere_is_one() {
    let mut scene = Scene::new();
    let old = sent_again(90, 50_001, 1, 0);
    let at_first = UnheardRecord { seen_last_ns: old.seen_since_ns, ..old };
    scene.unheard(1000, at_first);
    scene.passes(1000, 2500);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    let seen_last_ns = old.seen_since_ns + 3_000_000_000;
    scene.unheard(3000, UnheardRecord { what: unheard::SPEAKS, seen_last_ns, ..at_first });
    scene.passes(3000, 3500);
    assert_eq!(scene.opened(Kind::NeighbourStale).len(), 1);
}

#[test]
fn a_cached_mac_that_answers_arp_is_not_silent() {
    let mut scene = Scene::new();
    let old = sent_again(90, 50_001, 1, 0);
    let answers = UnheardRecord {
        seen_last_ns: old.seen_since_ns + 1_000_000_000,
        confirmed_ns: old.seen_since_ns + 500_000_000,
        ..old
    };
    scene.unheard(1000, answers);
    scene.passes(1000, 6000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn an_entry_set_right_by_hand_ends_it_and_says_who_did() {
    let mut scene = stale();
    let right = NeighRecord {
        flags: flag::BY_HAND,
        owner: Owner { comm: *b"ip\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ..crate::rules::scene::owner(99, 99) },
        ..entry(90, (state::STALE, 1), (state::REACHABLE, 2))
    };
    scene.neigh(4000, right);
    scene.passes(4000, 7000);
    let last = scene.last();
    assert_eq!((last.state, details(last).ended_by.as_deref()), (State::Resolved, Some("corrected")));
    assert!(last.summary.contains("corrected to 02:00:00:00:00:02 by ip[99]"), "{}", last.summary);
}

#[test]
fn an_entry_the_kernel_asks_for_again_heals_and_says_how_long_it_took() {
    let mut scene = stale();
    scene.neigh(6000, entry(90, (state::DELAY, 1), (state::PROBE, 1)));
    scene.neigh(9000, entry(90, (state::PROBE, 1), (state::FAILED, 1)));
    scene.neigh(9100, entry(90, (state::FAILED, 1), (state::INCOMPLETE, 1)));
    scene.neigh(9200, entry(90, (state::INCOMPLETE, 1), (state::REACHABLE, 2)));
    scene.passes(9200, 12_000);
    let last = scene.last();
    assert_eq!((last.state, details(last).ended_by.as_deref()), (State::Resolved, Some("healed")));
    assert!(last.summary.contains("after 9.2 s"), "{}", last.summary);
    assert_eq!(last.duration_ms, 9200);
}

#[test]
fn traffic_that_is_answered_again_ends_it() {
    let mut scene = stale();
    scene.unheard(5000, UnheardRecord { what: unheard::ANSWERED, ..sent_again(90, 50_001, 2, 0) });
    scene.passes(5000, 8000);
    let last = scene.last();
    assert_eq!((last.state, details(last).ended_by.as_deref()), (State::Resolved, Some("answered")));
}

#[test]
fn silence_on_both_sides_ends_it_in_time() {
    let mut scene = stale();
    scene.passes(3000, 140_000);
    let last = scene.last();
    assert_eq!((last.state, details(last).ended_by.as_deref()), (State::Resolved, Some("idle")));
    assert_eq!(scene.opened(Kind::NeighbourStale).len(), 1);
}

#[test]
fn more_of_the_same_is_reported_at_each_doubling() {
    let mut scene = stale();
    for unanswered in 3..=16 {
        scene.unheard(3000 + u64::from(unanswered) * 300, sent_again(90, 50_001, unanswered, 0));
    }
    let emitted: Vec<u32> = scene.emitted.iter().map(|incident| details(incident).unanswered).collect();
    assert_eq!(emitted, [1, 2, 4, 8, 16]);
    assert_eq!(scene.cause().confidence, Confidence::Certain);
}

#[test]
fn a_table_read_again_after_losses_ends_what_was_corrected_unseen() {
    let table = |seen: Vec<SeenNeighbour>| {
        Context::Network(Box::new(Network {
            netns: ebpf_probes::abi::Netns::numbered(1),
            neighbours: Some(seen),
            ..Network::default()
        }))
    };
    let entry =
        |of| SeenNeighbour { ifindex: 2, address: sent_again(90, 1, 1, 0).tuple.remote, mac: mac(of) };
    let mut scene = stale();
    scene.apply(&table(vec![entry(1)]));
    scene.passes(3000, 6000);
    assert!(scene.emitted.iter().all(|emitted| emitted.state != State::Resolved), "{:#?}", scene.emitted);
    scene.apply(&table(vec![entry(2)]));
    scene.passes(6000, 9000);
    let last = scene.last();
    assert_eq!((last.state, details(last).ended_by.as_deref()), (State::Resolved, Some("corrected")));
}

proptest! {
    /// Whatever a hostile recording holds about neighbours, all rules together: no harm, every incident reported
    /// is JSON, and what is open at once is bounded.
    #[test]
    fn any_sequence_of_neighbours_is_judged_without_harm(
        steps in proptest::collection::vec((0u8..9, 1u8..8, any::<u32>(), any::<u8>(), 0u64..400_000), 0..80),
    ) {
        const STATES: [u32; 8] = [
            state::NONE, state::INCOMPLETE, state::REACHABLE, state::STALE,
            state::PROBE, state::FAILED, state::PERMANENT, u32::MAX,
        ];
        let mut scene = Scene::new();
        for (what, host, number, mac, at) in steps {
            let pick = |by: u32| STATES[(number >> by) as usize % STATES.len()];
            let change = NeighRecord {
                cause: number % 8,
                flags: number >> 16,
                ..entry(host, (pick(3), mac % 4), (pick(6), mac / 64))
            };
            match what {
                0..=3 => scene.neigh(at, change),
                4 => scene.waiter(at, waiter(u64::from(mac), host)),
                5 => scene.unheard(at, UnheardRecord { what: number % 6, ..sent_again(host, number as u16, number, at / 2) }),
                6 => scene.claim(at, host, mac, at / 3),
                7 => {
                    let failed = Connect { errno: 113, ..connect(u64::from(mac), 1, host, at / 2) };
                    scene.connect(at, Record::CONNECT_END, failed);
                }
                _ => scene.tick(at),
            }
        }
        scene.ends();
        for incident in &scene.emitted {
            serde_json::to_string(incident).expect("JSON");
        }
        prop_assert!(scene.opened(Kind::NeighbourUnresolved).len() <= 80);
    }
}

/// The same of a peer behind the router 192.0.2.90.
fn routed(host: u8, port: u16, unanswered: u32) -> UnheardRecord {
    let near = sent_again(90, port, unanswered, 0);
    let mut far = near;
    far.neighbour = near.tuple.remote;
    far.tuple.remote = records::address_bytes([198, 51, 100, host].into());
    far
}

#[test]
fn a_router_whose_packets_come_from_elsewhere_is_one_when_a_second_packet_goes_unanswered() {
    let mut scene = Scene::new();
    scene.unheard(1000, routed(10, 50_001, 1));
    scene.passes(1000, 2500);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    scene.unheard(3000, routed(10, 50_001, 3));
    scene.passes(3000, 3500);
    let opened = scene.opened(Kind::NeighbourStale);
    assert_eq!(opened.len(), 1);
    assert!(
        opened[0].summary.starts_with("Replies to 198.51.100.10 go by way of 192.0.2.90 on if2"),
        "{}",
        opened[0].summary
    );
    assert_eq!(opened[0].cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Likely));
    assert_eq!(opened[0].remedies[0].to_string(), "ip neigh del 192.0.2.90 dev if2");
}

#[test]
fn a_shared_mac_of_routers_needs_the_silence_of_several_peers() {
    let shared = |host, unanswered| UnheardRecord {
        cached_mac: [0, 0, 0x5e, 0, 1, 7, 0, 0],
        ..routed(host, 50_001, unanswered)
    };
    let mut scene = Scene::new();
    for (at, unanswered) in [(1000, 2), (3000, 4), (7000, 9)] {
        scene.unheard(at, shared(10, unanswered));
        scene.passes(at, at + 1500);
    }
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    scene.unheard(9000, shared(11, 10));
    scene.unheard(9100, shared(12, 11));
    scene.passes(9100, 9500);
    assert_eq!(scene.opened(Kind::NeighbourStale).len(), 1);
}

#[test]
fn a_datagram_that_comes_again_after_each_answer_opens_it() {
    let asked = |unanswered| UnheardRecord {
        what: unheard::DATAGRAM,
        state: state::PERMANENT,
        ..sent_again(90, 50_001, unanswered, 0)
    };
    let mut scene = Scene::new();
    scene.unheard(3000, asked(3));
    scene.passes(3000, 4500);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    scene.unheard(4600, asked(4));
    scene.passes(4600, 5000);
    let opened = scene.opened(Kind::NeighbourStale);
    assert_eq!(opened.len(), 1);
    assert!(
        opened[0]
            .summary
            .ends_with("the same datagram came to port 443 again 4 times, each time after it was answered."),
        "{}",
        opened[0].summary
    );
    assert_eq!(opened[0].cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Likely));
}

#[test]
fn frames_for_another_mac_at_a_tunnel_s_end_are_an_entry_of_the_past_while_a_connect_waits() {
    let lost = Dropped {
        cookie: 7,
        netns: Netns::numbered(9),
        ifindex: 3,
        at: packet::SYN | place::ARRIVED | place::FOREIGN | place::TUNNEL,
        device: *b"flannel.1\0\0\0\0\0\0\0",
        frame_mac: [2, 0, 0, 0, 0, 0xaa],
        device_mac: [2, 0, 0, 0, 0, 0xbb],
        holder: records::address_bytes([10, 42, 2, 0].into()),
        ..Dropped::default()
    };
    let mut scene = Scene::new();
    scene.dropped(10, lost);
    scene.passes(10, 2000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    let mut pending = connect(7, 1, 5, 0);
    pending.drops = 2;
    scene.connect(2000, Record::CONNECT_RETRY, pending);
    scene.passes(2000, 2500);
    let opened = scene.opened(Kind::NeighbourStale);
    assert_eq!(opened.len(), 1);
    assert!(
        opened[0].summary.contains("flannel.1 in network namespace")
            && opened[0].summary.contains("for 02:00:00:00:00:aa"),
        "{}",
        opened[0].summary
    );
    assert_eq!(
        opened[0].remedies[0].to_string(),
        "on the machine that sends them: ip neigh replace 10.42.2.0 lladdr 02:00:00:00:00:bb dev flannel.1 nud permanent"
    );
}
