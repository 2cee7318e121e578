//! Two nodes of an overlay network: a tunnel's device gets another MAC, and the other node keeps the PERMANENT entry that its
//! agent wrote.

use std::net::{IpAddr, SocketAddr};

use super::{STALE, is_established};
use crate::{
    harness::{
        Lan, Netns,
        lan::Host,
        port,
        process::{run, words},
        sockets::{begin_connect, listen_and_accept},
    },
    needs,
};

/// MACs of the tunnel's ends, and the one that the second gets.
const ENDS: [&str; 2] = ["02:00:5e:f1:00:01", "02:00:5e:f1:00:02"];
const REPLACED: &str = "02:00:5e:f1:00:99";

/// The address of a node's tunnel device, the next hop to its pods.
fn end(node: usize) -> String {
    format!("10.42.{}.0", node + 1)
}

/// The agent of `node` writes where the other node's end is.
fn writes(node: &Host, other: usize, underlay: IpAddr, mac: &str) {
    let end = end(other);
    node.netns.ip(&format!("neigh replace {end} lladdr {mac} dev tunnel nud permanent"));
    let fdb = format!("fdb replace {mac} dev tunnel dst {underlay} self permanent");
    run(&mut words(&format!("bridge -n {} {fdb}", node.netns.name())));
    node.netns.ip(&format!("route replace {end}/24 via {end} dev tunnel onlink"));
}

/// A pod of a node, and its address.
fn pod(node: &Host, number: usize) -> (Netns, IpAddr) {
    let pod = Netns::make();
    let network = format!("10.42.{}", number + 1);
    node.netns.ip(&format!("link add pods type veth peer name eth0 netns {}", pod.name()));
    node.netns.ip("link set pods up");
    node.netns.ip(&format!("addr add {network}.1/24 dev pods"));
    pod.ip("link set eth0 up");
    pod.ip(&format!("addr add {network}.10/24 dev eth0"));
    pod.ip(&format!("route add default via {network}.1"));
    (pod, format!("{network}.10").parse().expect("an address"))
}

#[test]
fn an_overlay_entry_set_for_good_is_named_after_the_other_end_got_another_mac() {
    needs!();
    let lan = Lan::set("neighbour_stale/overlay_entry_of_a_replaced_node");
    let nodes = [lan.host(1), lan.host(2)];
    for (number, node) in nodes.iter().enumerate() {
        let local = node.v4;
        node.netns
            .ip(&format!("link add tunnel type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning"));
        node.netns.ip(&format!("link set tunnel address {}", ENDS[number]));
        node.netns.ip(&format!("addr add {}/32 dev tunnel", end(number)));
        node.netns.ip("link set tunnel up");
        node.netns.sysctl("net/ipv4/ip_forward", "1");
    }
    writes(&nodes[0], 1, nodes[1].v4, ENDS[1]);
    writes(&nodes[1], 0, nodes[0].v4, ENDS[0]);
    let ((near, _), (far, address)) = (pod(&nodes[0], 0), pod(&nodes[1], 1));
    let service = SocketAddr::new(address, port());
    listen_and_accept(&far, service);
    let (first, _) = begin_connect(&near, service);
    is_established(&first, service);
    // The node is replaced; its own agent writes what it knows, the other one does not hear of it.
    nodes[1].netns.ip(&format!("link set tunnel address {REPLACED}"));
    writes(&nodes[1], 0, nodes[0].v4, ENDS[0]);
    let (socket, _) = begin_connect(&near, service);
    let opened = lan.culprit.wait_for_incident("the entry of the other node", |incident| {
        incident.text("/kind") == STALE && incident.opens() && incident.text("/details/device") == "tunnel"
    });
    assert_eq!(opened.text("/details/cached_mac"), ENDS[1], "{:#}", opened.json);
    assert_eq!(opened.text("/details/seen_mac"), REPLACED, "{:#}", opened.json);
    assert!(opened.remedies().contains("fdb"), "{}", opened.remedies());
    writes(&nodes[0], 1, nodes[1].v4, REPLACED);
    is_established(&socket, service);
    lan.ends_with(&[&nodes[1]], &[STALE]);
}
