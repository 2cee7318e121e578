//! Packets of a connect that other programs and settings of this host drop: traffic control, XDP, cgroups, filters on
//! sockets, signatures, IPsec, address families. Each is attributed to its place, and never to nft.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::drops::{about, stalled, waits};
use crate::{
    harness::{
        Culprit, Incident, Netns, Running, bpf,
        keep::Keeper,
        netns::Pair,
        port,
        process::{self, run},
        sockets::{begin_connect, listen, listen_and_accept},
        stage::python,
    },
    needs,
};

/// Which packet was dropped, and where.
pub(super) fn drop_of(emitted: &Incident) -> (&str, &str, &str) {
    (
        emitted.text("/cause/drop_reason"),
        emitted.text("/cause/drop/packet"),
        emitted.text("/cause/drop/place"),
    )
}

/// The reason and the remedies name this, and no packet filter.
#[track_caller]
pub(super) fn attributed_to(emitted: &Incident, why: &str, remedy: &str) {
    assert!(emitted.why().contains(why), "{why}: {:#}", emitted.json);
    let remedies = emitted.remedies();
    assert!(remedies.contains(remedy), "{remedy}: {remedies}");
    assert!(!remedies.contains("nft") && !remedies.contains("allow "), "{remedies}");
}

/// A traffic-control filter that drops all IPv4 in this direction: a classic program, `ret TC_ACT_SHOT`.
#[track_caller]
pub(super) fn traffic_control_drops(netns: &Netns, direction: &str) {
    let tc = |words: &str, program: &[&str]| {
        let mut tc = process::words(&format!("tc -n {} {words}", netns.name()));
        run(tc.args(program));
    };
    tc("qdisc add dev wire clsact", &[]);
    tc(&format!("filter add dev wire {direction} protocol ip bpf direct-action bytecode"), &["1,6 0 0 2"]);
}

#[test]
fn a_syn_dropped_by_traffic_control_on_egress_is_attributed_to_it() {
    needs!(TrafficControl, DropReasons);
    let opened = stalled("connect_stalled/syn_dropped_by_tc_egress", |pair, _| {
        traffic_control_drops(&pair.client, "egress");
    });
    assert_eq!(drop_of(&opened), ("TC_EGRESS", "syn", "output"));
    assert_eq!(opened.json["cause"]["drop"]["other_netns"], false);
    attributed_to(&opened, "traffic-control program on wire", "tc -s filter show dev wire egress");
}

#[test]
fn an_answer_dropped_by_an_xdp_program_looks_unanswered_and_is_not_blamed_on_a_firewall() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    listen_and_accept(&pair.server, to);
    let _program = bpf::xdp_drops_ipv4(&pair.client, "wire");
    let culprit = Culprit::trace("");
    let (_socket, _) = begin_connect(&pair.client, to);
    let opened = about(&culprit, "connect_stalled", to, Incident::opens);
    assert_eq!(opened.number("/details/dropped_by_host"), 0);
    assert!(opened.text("/summary").contains("no answer from the network"), "{:#}", opened.json);
    assert!(!opened.remedies().contains("nft"), "{:#}", opened.json);
}

const CONNECTS: &str = "
import socket, sys
sys.stdin.readline()
s = socket.socket()
s.setblocking(False)
s.connect_ex((sys.argv[1], int(sys.argv[2])))
sys.stdin.readline()
";

const SERVES: &str = "
import socket, sys
sys.stdin.readline()
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
sys.stdin.readline()
";

/// A Python program inside, which waits for a line.
#[track_caller]
fn program(netns: &Netns, text: &str, at: SocketAddr) -> Running {
    let mut python = python();
    python.args(["-c", text]).arg(at.ip().to_string()).arg(at.port().to_string());
    netns.spawn(python)
}

#[test]
fn a_syn_that_a_unit_may_not_send_is_attributed_to_its_policy() {
    needs!(DropReasons);
    let (pair, unit) = (Pair::make(), bpf::Unit::make());
    let to = pair.service(port());
    listen_and_accept(&pair.server, to);
    let mut client = program(&pair.client, CONNECTS, to);
    unit.take(client.pid());
    let _denied = unit.denies_egress();
    let mut keeper = Keeper::new("connect_stalled/syn_dropped_by_cgroup_egress");
    keeper.keep_connects(client.pid());
    let culprit = Culprit::trace("");
    client.say("\n");
    let opened = about(&culprit, "connect_stalled", to, |emitted| emitted.json["cause"]["drop"].is_object());
    keeper.catches_up();
    keeper.end();
    assert_eq!(drop_of(&opened), ("BPF_CGROUP_EGRESS", "syn", "output"));
    attributed_to(&opened, "program of the process's cgroup", "bpftool cgroup tree");
    assert!(opened.remedies().contains(&format!("-p IPAddressDeny -- {}", unit.name())), "{:#}", opened.json);
    client.say("\n");
    client.wait();
}

#[test]
fn a_syn_that_the_listeners_unit_may_not_receive_is_attributed_to_its_policy() {
    needs!(DropReasons);
    let (pair, unit) = (Pair::make(), bpf::Unit::make());
    let to = pair.service(port());
    let mut server = program(&pair.server, SERVES, to);
    unit.take(server.pid());
    let _denied = unit.denies_ingress();
    server.say("\n");
    server.wait_for_line("ready");
    let opened = waits("connect_stalled/syn_dropped_by_cgroup_ingress", &pair.client, to);
    assert_eq!(drop_of(&opened), ("SOCKET_FILTER", "syn", "input"));
    attributed_to(&opened, "reached the listener", "bpftool cgroup tree");
    server.say("\n");
    server.wait();
}

#[test]
fn a_syn_dropped_by_a_filter_on_the_listening_socket_is_not_blamed_on_a_firewall() {
    needs!(DropReasons);
    let pair = Pair::make();
    let to = pair.service(port());
    let listener = listen(&pair.server, to);
    bpf::drop_all_received(&listener);
    let opened = waits("connect_stalled/syn_dropped_by_socket_filter", &pair.client, to);
    assert_eq!(drop_of(&opened), ("SOCKET_FILTER", "syn", "input"));
    attributed_to(&opened, "a filter on its socket", "cgroup_inet_ingress");
}

#[test]
fn an_answer_dropped_by_a_filter_on_the_connecting_socket_is_attributed_to_it() {
    needs!(DropReasons);
    let pair = Pair::make();
    let to = pair.service(port());
    listen_and_accept(&pair.server, to);
    let culprit = Culprit::trace("");
    let _socket = pair.client.enter(move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        bpf::drop_all_received(&socket);
        socket.set_nonblocking(true).expect("our own socket");
        socket.connect(&to.into()).expect_err("its answer is not heard");
        socket
    });
    let opened = about(&culprit, "connect_stalled", to, |emitted| emitted.json["cause"]["drop"].is_object());
    assert_eq!(drop_of(&opened), ("SOCKET_FILTER", "syn_ack", "input"));
    attributed_to(&opened, "or a filter on its socket, drops the answers", "bpftool cgroup tree");
}

#[test]
fn a_syn_without_the_signature_that_its_listener_requires_is_attributed_to_the_keys() {
    needs!(DropReasons, Pace);
    let pair = Pair::make();
    let to = pair.service(port());
    let listener = listen(&pair.server, to);
    let IpAddr::V4(client) = pair.v4(1) else { unreachable!("IPv4") };
    bpf::requires_signatures(&listener, client);
    let opened = waits("connect_stalled/syn_dropped_without_signature", &pair.client, to);
    assert_eq!((opened.text("/cause/drop/packet"), opened.text("/cause/drop/place")), ("syn", "input"));
    assert!(opened.text("/cause/drop_reason").starts_with("TCP_MD5"), "{:#}", opened.json);
    attributed_to(&opened, "no TCP MD5 or TCP-AO signature", "compare the keys of both ends");
}

#[test]
fn an_answer_blocked_by_an_ipsec_policy_is_attributed_to_it() {
    needs!(DropReasons, Pace);
    let opened = stalled("connect_stalled/answer_dropped_by_ipsec_policy", |pair, to| {
        pair.client.ip(&format!(
            "xfrm policy add dir in src {}/32 dst {}/32 action block",
            to.ip(),
            pair.v4(1)
        ));
    });
    assert_eq!(drop_of(&opened), ("XFRM_POLICY", "syn_ack", "input"));
    attributed_to(&opened, "IPsec policy", "xfrm policy");
}

#[test]
fn a_syn_to_a_host_that_neither_holds_the_address_nor_forwards_is_attributed_to_routing() {
    needs!(DropReasons, Pace);
    let pair = Pair::make();
    let to = SocketAddr::new(pair.v4(77), port());
    pair.client.ip(&format!("route add {} via {}", to.ip(), pair.v4(2)));
    pair.server.sysctl("net/ipv4/ip_forward", "0");
    let opened = waits("connect_stalled/syn_dropped_without_forwarding", &pair.client, to);
    assert_eq!(drop_of(&opened), ("IP_INADDRERRORS", "syn", "forward"));
    attributed_to(&opened, "neither holds", "sysctl net.ipv4.ip_forward");
    assert!(opened.remedies().contains(pair.server.name()), "{}", opened.remedies());
}

#[test]
fn a_syn_to_a_device_with_ipv6_disabled_is_attributed_to_that_setting() {
    needs!(DropReasons, Pace);
    let pair = Pair::make();
    let to = SocketAddr::new(pair.v6(2), port());
    // With the device's own switch its neighbour would no longer be found.
    pair.client.ip(&format!(
        "neigh replace {} lladdr {} dev wire nud permanent",
        to.ip(),
        pair.server.mac("wire")
    ));
    pair.server.sysctl("net/ipv6/conf/wire/disable_ipv6", "1");
    let opened = waits("connect_stalled/syn_dropped_with_ipv6_disabled", &pair.client, to);
    assert_eq!(drop_of(&opened).0, "IPV6DISABLED");
    assert_eq!(opened.text("/cause/drop/netns"), pair.server.name());
    attributed_to(&opened, "IPv6 is switched off on wire", "net.ipv6.conf.wire.disable_ipv6");
}

#[test]
fn a_syn_dropped_by_a_queueing_discipline_is_attributed_to_it() {
    needs!(TrafficControl, QdiscReasons);
    let opened = stalled("connect_stalled/syn_dropped_by_qdisc", |pair, _| {
        // Nothing longer than 60 bytes gets through: no SYN, but ARP.
        run(&mut process::words(&format!(
            "tc -n {} qdisc add dev wire root tbf rate 1mbit burst 60 limit 1000",
            pair.client.name()
        )));
    });
    assert_eq!((opened.text("/cause/drop/packet"), opened.text("/cause/drop/place")), ("syn", "output"));
    attributed_to(&opened, "queueing discipline of wire", "tc -s qdisc show dev wire");
}

#[test]
fn a_published_port_whose_node_does_not_forward_it_is_reported_with_both_addresses() {
    needs!(Nftables, DropReasons, ConntrackTypes);
    let pair = Pair::make();
    let node = &pair.server;
    let (_pod, address) = pair.host_behind();
    let backend = SocketAddr::new(address, port());
    let published = pair.service(port());
    node.nft(&format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
         tcp dport {} dnat to {backend}; }}; }}",
        published.port()
    ));
    node.drop_tcp("forward", backend.port());
    let opened = waits("connect_stalled/syn_dropped_behind_published_port", &pair.client, published);
    assert_eq!(drop_of(&opened), ("NETFILTER_DROP", "syn", "forward"));
    assert_eq!(opened.text("/cause/drop/netns"), node.name());
    let summary = opened.text("/summary");
    assert!(summary.contains(&published.to_string()) && summary.contains(&backend.to_string()), "{summary}");
    let remedies = opened.remedies();
    assert!(remedies.contains(node.name()) && remedies.contains("forward chain"), "{remedies}");
    assert!(remedies.contains(&format!("tcp/{} to {}", backend.port(), backend.ip())), "{remedies}");
}

#[test]
fn a_service_translated_to_a_backend_that_does_not_answer_is_reported_as_unanswered() {
    needs!(Nftables);
    let pair = Pair::make();
    let node = &pair.server;
    let service = SocketAddr::new(pair.v4(200), 443);
    let backend: SocketAddr = format!("203.0.113.7:{}", port()).parse().expect("an address");
    node.sysctl("net/ipv4/ip_forward", "1");
    node.ip("link add beyond type veth peer name other");
    node.ip("link set other up");
    node.ip("link set beyond up");
    node.ip("route add 203.0.113.0/24 dev beyond");
    node.ip("neigh replace 203.0.113.7 lladdr 02:00:5e:10:00:01 dev beyond nud permanent");
    node.nft(&format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
         ip daddr {} tcp dport 443 dnat to {backend}; }}; }}",
        service.ip()
    ));
    pair.client.ip(&format!("route add {} via {}", service.ip(), pair.v4(2)));
    let culprit = Culprit::trace("");
    let (_socket, _) = begin_connect(&pair.client, service);
    let opened = about(&culprit, "connect_stalled", service, Incident::opens);
    assert_eq!(opened.number("/details/dropped_by_host"), 0);
}
