//! Packets that are dropped on arrival, before IP receives them: those of a sender elsewhere on this host have its
//! socket until then, and are dropped in the namespace of the device all the same.

use super::{
    drops::stalled,
    policies::{attributed_to, drop_of, traffic_control_drops},
};
use crate::{harness::bpf, needs};

#[test]
fn an_answer_dropped_by_traffic_control_on_ingress_is_attributed_to_it() {
    needs!(TrafficControl, DropReasons);
    let opened = stalled("connect_stalled/answer_dropped_by_tc_ingress", |pair, _| {
        traffic_control_drops(&pair.client, "ingress");
    });
    assert_eq!(drop_of(&opened), ("TC_INGRESS", "syn_ack", "prerouting"));
    attributed_to(&opened, "drops the answers as they arrive", "tc -s filter show dev wire ingress");
}

#[test]
fn a_syn_dropped_by_traffic_control_of_another_namespace_is_attributed_to_it() {
    needs!(TrafficControl, DropReasons);
    let mut server = String::new();
    let opened = stalled("connect_stalled/syn_dropped_by_tc_ingress_of_other_namespace", |pair, _| {
        server = pair.server.name().to_owned();
        traffic_control_drops(&pair.server, "ingress");
    });
    assert_eq!(drop_of(&opened), ("TC_INGRESS", "syn", "prerouting"));
    assert_eq!(
        (&opened.json["cause"]["drop"]["other_netns"], opened.text("/cause/drop/netns")),
        (&true.into(), server.as_str())
    );
    attributed_to(&opened, &format!("wire of network namespace {server}"), &server);
}

#[test]
fn a_syn_dropped_by_an_xdp_program_of_another_namespace_is_attributed_to_it() {
    needs!(DropReasons);
    let mut server = String::new();
    let opened = stalled("connect_stalled/syn_dropped_by_xdp_of_other_namespace", |pair, _| {
        server = pair.server.name().to_owned();
        bpf::xdp_drops_ipv4(&pair.server, "wire")
    });
    // What an XDP program drops has no reason.
    assert_eq!(drop_of(&opened), ("NOT_SPECIFIED", "syn", "prerouting"));
    let look = format!("ip netns exec {server} bpftool net show dev wire");
    assert!(opened.remedies().contains(&look), "{:#}", opened.json);
}
