//! Addresses that go to and fro, step by step.

use ebpf_probes::probes::neigh::state::REACHABLE;

use ebpf_probes::probes::neigh::{NeighRecord, UnheardRecord, flag, unheard, unheard_flag};

use super::Kind;
use crate::{
    pipeline::incident::{Confidence, ConflictPattern, Details, State},
    rules::scene::{Scene, entry, unheard as sent_again},
};

fn moves(scene: &mut Scene, at: u64, from: u8, to: u8) {
    scene.neigh(at, entry(90, (REACHABLE, from), (REACHABLE, to)));
    scene.tick(at);
}

#[test]
fn an_address_that_goes_to_and_fro_is_one_conflict_that_names_both_macs() {
    let mut scene = Scene::new();
    for (at, from, to) in [(0, 1, 2), (5000, 2, 1), (10_000, 1, 2), (15_000, 2, 1)] {
        moves(&mut scene, at, from, to);
    }
    let opened = scene.opened(Kind::NeighbourConflict);
    assert_eq!(opened.len(), 1);
    assert_eq!(
        opened[0].summary,
        "192.0.2.90 flaps on eth0: it moved 3 times between 02:00:00:00:00:02 and 02:00:00:00:00:01 within 10.0 s."
    );
    scene.passes(15_000, 80_000);
    assert_eq!(scene.last().state, State::Resolved);
}

#[test]
fn a_failover_and_its_return_are_none() {
    let mut scene = Scene::new();
    moves(&mut scene, 0, 1, 2);
    moves(&mut scene, 30_000, 2, 1);
    scene.passes(30_000, 100_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_chain_of_successors_is_none() {
    let mut scene = Scene::new();
    for host in 1..6 {
        moves(&mut scene, u64::from(host) * 5000, host, host + 1);
    }
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_failover_whose_first_announcement_was_not_believed_is_none() {
    let mut scene = Scene::new();
    scene.claim(5000, 90, 2, 4500);
    scene.claim(5500, 90, 2, 4500);
    moves(&mut scene, 6000, 1, 2);
    scene.passes(6000, 70_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn two_that_answer_each_question_are_a_conflict_although_the_entry_stays() {
    let mut scene = Scene::new();
    scene.claim(1000, 90, 2, 999);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    scene.claim(20_000, 90, 2, 19_999);
    assert_eq!(scene.opened(Kind::NeighbourConflict).len(), 1);
}

#[test]
fn a_claim_against_an_owner_that_is_silent_is_none() {
    let mut scene = Scene::new();
    for at in [100_000, 110_000, 120_000] {
        scene.claim(at, 90, 2, 1000);
    }
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

fn pattern(incident: &crate::pipeline::incident::Incident) -> ConflictPattern {
    match &incident.details {
        Details::NeighbourConflict(details) => details.pattern,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bond_that_changes_its_link_every_seven_seconds_is_none() {
    let mut scene = Scene::new();
    for round in 0..6u64 {
        let (from, to) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        moves(&mut scene, round * 7000, from, to);
    }
    scene.passes(42_000, 110_000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn moves_in_turn_are_said_to_be_flapping_and_not_said_to_be_two_machines() {
    let mut scene = Scene::new();
    for (at, from, to) in [(0, 1, 2), (3000, 2, 1), (6000, 1, 2)] {
        moves(&mut scene, at, from, to);
    }
    let opened = scene.opened(Kind::NeighbourConflict);
    assert_eq!(opened.len(), 1);
    assert_eq!(pattern(opened[0]), ConflictPattern::Alternating);
    assert_eq!(opened[0].cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Likely));
    assert!(!opened[0].remedies[0].to_string().contains("two machines"), "{:#?}", opened[0].remedies);
}

#[test]
fn what_answers_each_question_twice_claims_at_once() {
    let mut scene = Scene::new();
    scene.claim(1000, 90, 2, 999);
    scene.claim(3000, 90, 2, 2999);
    let opened = scene.opened(Kind::NeighbourConflict);
    assert_eq!((opened.len(), pattern(opened[0])), (1, ConflictPattern::Simultaneous));
}

#[test]
fn macs_that_are_known_to_belong_together_contest_nothing() {
    let mut scene = Scene::new();
    for (at, from, to) in [(0, 1, 2), (1000, 2, 1), (2000, 1, 2), (3000, 2, 1)] {
        let record = entry(90, (REACHABLE, from), (REACHABLE, to));
        scene.neigh(at, NeighRecord { flags: flag::TOGETHER, ..record });
        scene.tick(at);
    }
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_conflict_ends_when_a_connection_shows_that_the_macs_belong_together() {
    let mut scene = Scene::new();
    for (at, from, to) in [(0, 1, 2), (500, 2, 1), (1000, 1, 2)] {
        moves(&mut scene, at, from, to);
    }
    assert_eq!(scene.opened(Kind::NeighbourConflict).len(), 1);
    let record = entry(90, (REACHABLE, 2), (REACHABLE, 1));
    scene.neigh(1500, NeighRecord { flags: flag::TOGETHER, ..record });
    scene.passes(1500, 5000);
    let last = scene.last();
    assert_eq!(last.state, State::Resolved);
    assert!(last.summary.contains("one machine"), "{}", last.summary);
}

#[test]
fn a_reset_of_what_the_other_mac_goes_on_asking_for_is_two_machines_at_once() {
    let mut scene = Scene::new();
    scene.unheard(1000, UnheardRecord { what: unheard::RESET, ..sent_again(90, 50_001, 1, 0) });
    let opened = scene.opened(Kind::NeighbourConflict);
    assert_eq!(opened.len(), 1);
    assert_eq!(pattern(opened[0]), ConflictPattern::TwoMachines);
    assert_eq!(
        opened[0].summary,
        "Two machines have 192.0.2.90 on if2: 02:00:00:00:00:01 resets the connections to port 443 that 02:00:00:00:00:02 asks for."
    );
    assert!(scene.opened(Kind::NeighbourStale).is_empty());
    scene.passes(1000, 80_000);
    assert_eq!(scene.last().state, State::Resolved);
}

#[test]
fn a_reset_between_macs_that_belong_together_is_none() {
    let mut scene = Scene::new();
    let together = UnheardRecord { flags: unheard_flag::TOGETHER, ..sent_again(90, 50_001, 1, 0) };
    scene.unheard(1000, UnheardRecord { what: unheard::RESET, ..together });
    scene.passes(1000, 5000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn two_that_announce_it_in_turn_half_a_minute_apart_are_a_conflict_and_a_failover_pair_is_none() {
    let mut scene = Scene::new();
    moves(&mut scene, 0, 1, 2);
    scene.passes(0, 32_000);
    moves(&mut scene, 32_000, 2, 1);
    scene.passes(32_000, 64_000);
    assert!(scene.emitted.is_empty(), "one return is a failover and its end: {:#?}", scene.emitted);
    moves(&mut scene, 64_000, 1, 2);
    let opened = scene.opened(Kind::NeighbourConflict);
    assert_eq!((opened.len(), pattern(opened[0])), (1, ConflictPattern::Alternating));
    assert_eq!(
        opened[0].summary,
        "192.0.2.90 flaps on eth0: it moved 3 times between 02:00:00:00:00:02 and 02:00:00:00:00:01 within 1 min 4 s."
    );
    // It is open until it has not moved for three times as long as it takes to.
    scene.passes(64_000, 150_000);
    assert_eq!(scene.last().state, State::Open);
    scene.passes(150_000, 170_000);
    assert_eq!(scene.last().state, State::Resolved);
}

#[test]
fn a_pair_that_comes_back_every_hour_is_a_conflict_after_four_returns() {
    let mut scene = Scene::new();
    let hour = 3_600_000;
    for round in 0..4u64 {
        let (from, to) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        moves(&mut scene, round * hour, from, to);
    }
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    moves(&mut scene, 4 * hour, 1, 2);
    assert_eq!(scene.opened(Kind::NeighbourConflict).len(), 1);
}

#[test]
fn successors_that_never_come_back_are_none_however_many() {
    let mut scene = Scene::new();
    for host in 1..30 {
        moves(&mut scene, u64::from(host) * 40_000, host, host + 1);
    }
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}
