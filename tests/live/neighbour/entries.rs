//! Neighbours: unanswered requests, changed MACs, entries set by hand, and SYNs from another MAC.

use std::net::{IpAddr, SocketAddr};

use culprit::kernel::{load::Kernel, plan::Spec};
use ebpf_probes::{abi::ProbeId, probes::neigh::state};

use crate::{
    connect::outcomes::end_of,
    harness::{
        Culprit, Fact, Netns,
        netns::Pair,
        port,
        sockets::{connect, listen},
    },
    needs,
};

/// A MAC that no device on the wire has.
const ABSENT_MAC: &str = "02:00:5e:10:00:01";

/// A change of this neighbour in this namespace.
fn changed(fact: &Fact, netns: &Netns, address: IpAddr) -> bool {
    fact.kind() == "neighbour_changed"
        && fact.text("address") == address.to_string()
        && fact.text("netns") == netns.name()
}

/// Both ends know each other: one connect is enough.
#[track_caller]
fn introduce(pair: &Pair, server: SocketAddr) {
    let _listener = listen(&pair.server, server);
    connect(&pair.client, server).0.expect("the server listens");
}

#[track_caller]
fn unanswered(address: impl Fn(&Pair) -> IpAddr) {
    let pair = Pair::make();
    let to = SocketAddr::new(address(&pair), port());
    let culprit = Culprit::trace("");
    let (failed, task) = connect(&pair.client, to);
    failed.expect_err("no host has this address");
    let about = |fact: &Fact| changed(fact, &pair.client, to.ip());
    let asked =
        culprit.wait_for("the question", |fact| about(fact) && fact.text("new_state") == "INCOMPLETE");
    assert_eq!((asked.text("device"), asked.is("failed")), ("wire", false));
    let failed = culprit.wait_for("its failure", |fact| about(fact) && fact.is("failed"));
    assert!(asked.index < failed.index);
    assert_eq!((asked.text("transition"), failed.text("transition")), ("resolving", "failed"));
    assert_eq!(failed.number("unanswered"), 3.0, "{failed:?}");
    let changes = culprit.seen(|fact| about(fact) && fact.index < failed.index);
    assert_eq!(changes.len(), 1, "questions in between are no news: {changes:?}");
    let waits = culprit
        .seen(|fact| fact.kind() == "neighbour_packet_queued" && fact.text("address") == to.ip().to_string());
    let [waits] = &waits[..] else { panic!("emitted once while it waits: {waits:?}") };
    assert_eq!((waits.task(), waits.text("protocol")), (task, "tcp"));
    assert!(failed.json["process"].is_null() && failed.json["new_mac"].is_null(), "{failed:?}");
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome")), (task, "host_unreachable"));
}

#[test]
fn an_unanswered_arp_request_fails_and_so_does_the_connect_that_waited() {
    needs!();
    unanswered(|pair| pair.v4(77));
}

#[test]
fn an_unanswered_neighbour_solicitation_fails_and_so_does_the_connect_that_waited() {
    needs!();
    unanswered(|pair| pair.v6(77));
}

#[test]
fn a_neighbour_that_answers_is_reachable_with_its_mac_and_no_mismatch_is_emitted() {
    needs!();
    let pair = Pair::make();
    let culprit = Culprit::trace("");
    introduce(&pair, pair.service(port()));
    let back = SocketAddr::new(pair.v4(1), port());
    let _listener = listen(&pair.client, back);
    connect(&pair.server, back).0.expect("the client listens too");
    let reachable = culprit.wait_for("the answer", |fact| {
        changed(fact, &pair.client, pair.v4(2)) && fact.text("new_state") == "REACHABLE"
    });
    assert_eq!(reachable.text("new_mac"), pair.server.mac("wire"));
    culprit.settle(&pair.client);
    let mismatches = culprit.seen(|fact| {
        fact.kind() == "neighbour_mac_mismatch"
            && [pair.client.name(), pair.server.name()].contains(&fact.text("netns"))
    });
    assert!(mismatches.is_empty(), "{mismatches:?}");
}

#[test]
fn a_gratuitous_arp_is_reported_with_the_old_and_the_new_mac() {
    needs!();
    let pair = Pair::make();
    introduce(&pair, pair.service(port()));
    let old = pair.server.mac("wire");
    let culprit = Culprit::trace("-e neighbour");
    pair.server.sysctl("net/ipv4/conf/wire/arp_notify", "1");
    pair.server.ip(&format!("link set wire address {ABSENT_MAC}"));
    let moved = culprit.wait_for("the new MAC", |fact| {
        changed(fact, &pair.client, pair.v4(2)) && fact.text("new_mac") == ABSENT_MAC
    });
    assert_eq!((moved.text("old_mac"), moved.text("cause")), (old.as_str(), "packet"));
    assert!(moved.json["process"].is_null() && !moved.is("failed"), "{moved:?}");
}

#[test]
fn an_entry_set_by_hand_names_who_set_it_and_removing_it_is_no_failure() {
    needs!();
    let pair = Pair::make();
    introduce(&pair, pair.service(port()));
    let culprit = Culprit::trace("-e neighbour");
    let address = pair.v4(2);
    pair.client.ip(&format!("neigh replace {address} lladdr {ABSENT_MAC} dev wire"));
    let set = culprit.wait_for("the entry set", |fact| {
        changed(fact, &pair.client, address) && fact.text("new_mac") == ABSENT_MAC
    });
    assert_eq!((set.text("cause"), set.comm(), set.text("new_state")), ("netlink", "ip", "PERMANENT"));
    assert_eq!(set.text("old_mac"), pair.server.mac("wire"));
    pair.client.ip(&format!("neigh del {address} dev wire"));
    culprit.wait_for("its removal", |fact| {
        changed(fact, &pair.client, address) && fact.text("cause") == "removed"
    });
    let failures = culprit.seen(|fact| changed(fact, &pair.client, address) && fact.is("failed"));
    assert!(failures.is_empty(), "{failures:?}");
}

/// The client's entry for the server is wrong; the server connects to the client.
#[track_caller]
fn replies_go_elsewhere(from: IpAddr, to: IpAddr, pair: &Pair, culprit: &Culprit) {
    // NDP, unlike ARP, would answer the server's own question by way of the wrong entry.
    pair.server.ip(&format!("neigh replace {to} lladdr {} nud permanent dev wire", pair.client.mac("wire")));
    let to = SocketAddr::new(to, port());
    let _listener = listen(&pair.client, to);
    // Never established: the SYN-ACKs reach no device.
    let server_side = crate::harness::sockets::begin_connect(&pair.server, to);
    let mismatch = culprit.wait_for("the mismatch", |fact| {
        fact.kind() == "neighbour_mac_mismatch"
            && fact.text("address") == from.to_string()
            && fact.text("netns") == pair.client.name()
    });
    assert_eq!(mismatch.text("cached_mac"), ABSENT_MAC);
    assert_eq!(mismatch.text("seen_mac"), pair.server.mac("wire"));
    assert_eq!((mismatch.text("state"), mismatch.text("device")), ("PERMANENT", "wire"));
    assert_eq!(mismatch.number("local_port"), f64::from(to.port()));
    drop(server_side);
}

#[test]
fn a_syn_from_another_mac_than_the_cached_one_is_a_mismatch() {
    needs!();
    let pair = Pair::make();
    let culprit = Culprit::trace("");
    for (from, to) in [(pair.v4(2), pair.v4(1)), (pair.v6(2), pair.v6(1))] {
        pair.client.ip(&format!("neigh replace {from} lladdr {ABSENT_MAC} nud permanent dev wire"));
        replies_go_elsewhere(from, to, &pair, &culprit);
    }
}

#[test]
fn a_wrong_entry_older_than_culprit_is_known_from_the_table() {
    needs!();
    let pair = Pair::make();
    for from in [pair.v4(2), pair.v6(2)] {
        pair.client.ip(&format!("neigh replace {from} lladdr {ABSENT_MAC} nud permanent dev wire"));
    }
    let culprit = Culprit::trace("-e neighbour");
    replies_go_elsewhere(pair.v4(2), pair.v4(1), &pair, &culprit);
    replies_go_elsewhere(pair.v6(2), pair.v6(1), &pair, &culprit);
}

#[test]
fn entries_are_counted_by_family_device_and_state_even_if_none_is_emitted() {
    needs!();
    let pair = Pair::make();
    let netns = std::fs::metadata(format!("/run/netns/{}", pair.client.name())).expect("it is there");
    let netns = std::os::unix::fs::MetadataExt::ino(&netns) as u32;
    // As a daemon does: nothing that is healthy is emitted.
    let request = Spec { probes: vec![ProbeId::NEIGH], quiet: true, ring_bytes: 1 << 16, ..Spec::default() };
    let kernel = Kernel::attach(&request).expect("root may");
    for (address, state) in [(pair.v4(70), "permanent"), (pair.v4(71), "permanent"), (pair.v6(70), "stale")] {
        pair.client.ip(&format!("neigh replace {address} lladdr {ABSENT_MAC} nud {state} dev wire"));
    }
    pair.client.ip(&format!("neigh del {} dev wire", pair.v4(71)));
    let counted: Vec<(bool, u32, u64)> = culprit::kernel::neighbours::counts(&kernel)
        .expect("root may")
        .into_iter()
        .filter(|(kind, _)| kind.netns.inode == netns)
        .map(|(kind, count)| (kind.v6, kind.state, count))
        .collect();
    let (permanent, stale) = (state::PERMANENT, state::STALE);
    assert_eq!(counted, [(false, permanent, 1), (true, stale, 1)]);
}
