//! Packets that are dropped as they arrive, before IP receives them: those of a sender elsewhere on this host have its
//! socket until then, and are lost in the namespace of the device all the same.

use super::{
    drops::stalled,
    policies::{drop_of, says, traffic_control_drops},
};
use crate::{harness::bpf, needs};

#[test]
fn an_answer_that_traffic_control_drops_as_it_arrives_is_looked_for_there() {
    needs!(TrafficControl, DropReasons);
    let opened = stalled("dropped_tc_ingress", |pair, _| traffic_control_drops(&pair.client, "ingress"));
    assert_eq!(drop_of(&opened), ("TC_INGRESS", "syn_ack", "prerouting"));
    says(&opened, "drops the answers as they arrive", "tc -s filter show dev wire ingress");
}

#[test]
fn a_syn_that_traffic_control_of_another_namespace_drops_is_looked_for_in_it() {
    needs!(TrafficControl, DropReasons);
    let mut server = String::new();
    let opened = stalled("dropped_tc_ingress_elsewhere", |pair, _| {
        server = pair.server.name().to_owned();
        traffic_control_drops(&pair.server, "ingress");
    });
    assert_eq!(drop_of(&opened), ("TC_INGRESS", "syn", "prerouting"));
    assert_eq!(
        (&opened.json["cause"]["drop"]["other_netns"], opened.text("/cause/drop/netns")),
        (&true.into(), server.as_str())
    );
    says(&opened, &format!("wire of network namespace {server}"), &server);
}

#[test]
fn a_syn_that_an_xdp_program_of_another_namespace_drops_is_looked_for_there_as_well() {
    needs!(DropReasons);
    let mut server = String::new();
    let opened = stalled("dropped_xdp_elsewhere", |pair, _| {
        server = pair.server.name().to_owned();
        bpf::xdp_drops_ipv4(&pair.server, "wire")
    });
    // What an XDP program drops has no reason.
    assert_eq!(drop_of(&opened), ("NOT_SPECIFIED", "syn", "prerouting"));
    let look = format!("ip netns exec {server} bpftool net show dev wire");
    assert!(opened.remedies().contains(&look), "{:#}", opened.json);
}
