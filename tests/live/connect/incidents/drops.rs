//! Connects whose packets this host itself drops or refuses: which packet, where, in which network namespace, and the
//! remedy that follows; never "allow egress" where that is not it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{
    harness::{
        Culprit, Incident, Lan, Netns,
        keep::Keeper,
        lan::ABSENT_MAC,
        netns::Pair,
        port,
        sockets::{begin_connect, connect, listen, listen_and_accept},
    },
    needs,
};

/// The incident about connects to `to`, once this holds of it.
#[track_caller]
pub(super) fn about(
    culprit: &Culprit,
    kind: &str,
    to: SocketAddr,
    wanted: impl Fn(&Incident) -> bool,
) -> Incident {
    culprit.wait_for_incident(kind, |emitted| {
        emitted.text("/kind") == kind
            && emitted.blamed() == format!("{}:{}", to.ip(), to.port())
            && wanted(emitted)
    })
}

/// A connect of the client to a service of the server that accepts, which waits because of `hindrance`; the incident.
/// `case` names the recording, `rule/case`.
#[track_caller]
pub(super) fn stalled<T>(case: &'static str, hindrance: impl FnOnce(&Pair, SocketAddr) -> T) -> Incident {
    let pair = Pair::make();
    let to = pair.service(port());
    listen_and_accept(&pair.server, to);
    let _hindered = hindrance(&pair, to);
    waits(case, &pair.client, to)
}

/// A connect from there, of which this host drops a packet; the incident.
#[track_caller]
pub(super) fn waits(case: &'static str, from: &Netns, to: SocketAddr) -> Incident {
    let mut keeper = Keeper::new(case);
    keeper.keep_connects(std::process::id());
    let culprit = Culprit::trace("");
    let (_socket, _) = begin_connect(from, to);
    let opened = about(&culprit, "connect_stalled", to, |emitted| emitted.json["cause"]["drop"].is_object());
    keeper.catches_up();
    keeper.end();
    opened
}

#[test]
fn an_answer_dropped_by_the_hosts_own_input_chain_is_not_blamed_on_egress() {
    needs!(Nftables, DropReasons);
    let opened = stalled("connect_stalled/answer_dropped_in_input", |pair, to| {
        pair.client.nft(&format!(
            "table inet test {{ chain input {{ type filter hook input priority 0; tcp sport {} drop; }}; }}",
            to.port()
        ));
    });
    let drop = |field: &str| opened.text(&format!("/cause/drop/{field}")).to_owned();
    assert_eq!(
        (drop("packet"), drop("place"), drop("device")),
        ("syn_ack".into(), "input".into(), "wire".into())
    );
    assert_eq!(opened.json["cause"]["drop"]["other_netns"], false);
    assert_eq!(opened.text("/cause/drop_reason"), "NETFILTER_DROP");
    assert!(opened.why().contains("the answers arrive on wire"), "{}", opened.why());
    let remedies = opened.remedies();
    assert!(remedies.contains("input chain") && !remedies.contains("egress"), "{remedies}");
}

#[test]
fn an_answer_dropped_before_routing_is_attributed_to_prerouting() {
    needs!(Nftables, DropReasons);
    let opened = stalled("connect_stalled/answer_dropped_before_routing", |pair, to| {
        pair.client.nft(&format!(
            "table inet test {{ chain raw {{ type filter hook prerouting priority raw; tcp sport {} drop; }}; }}",
            to.port()
        ));
    });
    assert_eq!(opened.text("/cause/drop/place"), "prerouting");
    assert!(opened.remedies().contains("prerouting") && !opened.remedies().contains("egress"));
}

#[test]
fn a_syn_that_another_namespaces_input_chain_drops_names_that_namespace() {
    needs!(Nftables, DropReasons);
    let pair = Pair::make();
    let to = pair.service(port());
    listen_and_accept(&pair.server, to);
    pair.server.drop_tcp("input", to.port());
    let opened = waits("connect_stalled/syn_dropped_in_input_of_other_namespace", &pair.client, to);
    assert_eq!((opened.text("/cause/drop/packet"), opened.text("/cause/drop/place")), ("syn", "input"));
    assert_eq!(opened.json["cause"]["drop"]["other_netns"], true);
    assert_eq!(opened.text("/cause/drop/netns"), pair.server.name());
    let remedies = opened.remedies();
    assert!(remedies.contains(pair.server.name()) && !remedies.contains("egress"), "{remedies}");
}

#[test]
fn a_syn_dropped_by_a_router_has_a_remedy_in_its_forward_chain() {
    needs!(Nftables, DropReasons);
    let pair = Pair::make();
    let router = &pair.server;
    let (_far, address) = pair.host_behind();
    let to = SocketAddr::new(address, port());
    pair.client.ip(&format!("route add {} via {}", to.ip(), pair.v4(2)));
    router.drop_tcp("forward", to.port());
    let opened = waits("connect_stalled/syn_dropped_in_forward", &pair.client, to);
    assert_eq!((opened.text("/cause/drop/packet"), opened.text("/cause/drop/place")), ("syn", "forward"));
    assert_eq!(opened.text("/cause/drop/netns"), router.name());
    let remedies = opened.remedies();
    assert!(remedies.contains("forward chain") && !remedies.contains("egress"), "{remedies}");
}

#[test]
fn an_answer_on_the_wrong_device_is_attributed_to_the_reverse_path_filter() {
    needs!(DropReasons);
    let pair = Pair::make();
    let to = SocketAddr::new(pair.server.v4(77), port());
    let (client, server) = (&pair.client, &pair.server);
    // Answers take a second wire, on which the client's route to the service does not lead.
    client.ip(&format!("link add wire2 type veth peer name wire2 netns {}", server.name()));
    for netns in [client, server] {
        netns.ip("link set wire2 up");
        netns.sysctl("net/ipv4/conf/all/rp_filter", "0");
        netns.sysctl("net/ipv4/conf/wire/rp_filter", "0");
        netns.sysctl("net/ipv4/conf/wire2/rp_filter", "0");
    }
    server.ip(&format!("addr add {}/32 dev lo", to.ip()));
    client.ip(&format!("route add {} via {} dev wire", to.ip(), pair.v4(2)));
    server.ip(&format!("route add {} dev wire2", pair.v4(1)));
    // The filter would drop the question for its MAC as well.
    server.ip(&format!(
        "neigh replace {} lladdr {} dev wire2 nud permanent",
        pair.v4(1),
        client.mac("wire2")
    ));
    listen_and_accept(server, to);
    client.sysctl("net/ipv4/conf/wire2/rp_filter", "1");
    let opened = waits("connect_stalled/answer_dropped_by_reverse_path_filter", client, to);
    assert_eq!(opened.text("/cause/drop_reason"), "IP_RPFILTER");
    assert_eq!((opened.text("/cause/drop/packet"), opened.text("/cause/drop/device")), ("syn_ack", "wire2"));
    let remedies = opened.remedies();
    assert!(
        remedies.contains("net.ipv4.conf.wire2.rp_filter=2") && !remedies.contains("egress"),
        "{remedies}"
    );
}

#[test]
fn a_frame_for_another_mac_is_an_outdated_neighbour_entry() {
    needs!(DropReasons);
    let lan = Lan::set("connect_stalled/frame_for_another_mac");
    let (one, other) = (lan.host(1), lan.host(2));
    let to = SocketAddr::new(other.v4, port());
    listen_and_accept(&other.netns, to);
    one.netns.ip(&format!("neigh replace {} lladdr {ABSENT_MAC} dev eth0 nud permanent", other.v4));
    let (_socket, _) = begin_connect(&one.netns, to);
    let opened =
        about(&lan.culprit, "connect_stalled", to, |emitted| emitted.json["cause"]["drop"].is_object());
    assert_eq!(opened.text("/cause/drop_reason"), "OTHERHOST");
    let why = opened.why();
    assert!(why.contains(ABSENT_MAC) && why.contains(&other.netns.mac("eth0")), "{why}");
    let remedies = opened.remedies();
    assert!(
        remedies.contains(&format!("neigh flush to {}", other.v4)) && !remedies.contains("egress"),
        "{remedies}"
    );
}

#[test]
fn syns_to_a_full_accept_queue_are_not_blamed_on_a_firewall() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    // A backlog of 1 has room for two connections that are not accepted.
    let _listener = pair.server.enter(move || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&to.into()).expect("our own address");
        socket.listen(1).expect("bound");
        socket
    });
    let _held: Vec<_> = (0..2).map(|_| connect(&pair.client, to).0.expect("there is room")).collect();
    let mut keeper = Keeper::new("connect_stalled/syn_dropped_by_full_accept_queue");
    keeper.keep_connects(std::process::id());
    let culprit = Culprit::trace("");
    let (_socket, _) = begin_connect(&pair.client, to);
    let opened =
        about(&culprit, "connect_stalled", to, |emitted| emitted.number("/details/dropped_by_host") > 0);
    keeper.catches_up();
    keeper.end();
    assert!(opened.why().contains("accept queue is full"), "{}", opened.why());
    assert!(opened.text("/summary").contains("accept queue is full"), "{}", opened.text("/summary"));
    let all = opened.json.to_string();
    assert!(!all.contains("firewall") && !all.contains("nft"), "{all}");
}

#[test]
fn an_answer_from_another_address_is_asymmetric_translation() {
    needs!(Nftables, DropReasons);
    let pair = Pair::make();
    let to = pair.service(port());
    listen_and_accept(&pair.server, to);
    // The answers' source is rewritten without a memory of it, as by a router that translates one way only.
    let other = pair.v4(99);
    pair.server.nft(&format!(
        "table ip test {{ chain out {{ type filter hook postrouting priority 300; tcp sport {} ip saddr set {other} notrack; }}; }}",
        to.port()
    ));
    let mut keeper = Keeper::new("connect_stalled/answered_from_another_address");
    keeper.keep_connects(std::process::id());
    let culprit = Culprit::trace("");
    let (_socket, _) = begin_connect(&pair.client, to);
    let opened = about(&culprit, "connect_stalled", to, |emitted| {
        emitted.text("/summary").contains("answered from another address")
    });
    keeper.catches_up();
    keeper.end();
    assert!(opened.text("/summary").contains(&SocketAddr::new(other, to.port()).to_string()));
    assert!(opened.why().contains("asymmetric NAT"), "{}", opened.why());
    assert!(!opened.remedies().contains("allow"), "{}", opened.remedies());
}

#[test]
fn routes_that_refuse_are_named_with_their_type() {
    needs!();
    for (index, kind) in ["prohibit", "blackhole", "unreachable"].into_iter().enumerate() {
        let netns = Netns::make();
        let to = SocketAddr::new(netns.v4(50 + index as u8), port());
        netns.ip(&format!("route add {kind} {}", to.ip()));
        let culprit = Culprit::trace("");
        for _ in 0..3 {
            connect(&netns, to).0.expect_err("a route refuses");
        }
        let named = format!("A route of type {kind} on this host");
        let opened = about(&culprit, "connect_failing", to, |emitted| emitted.why().contains(&named));
        assert!(!opened.remedies().contains("strace") && !opened.remedies().contains("bpftool"));
    }
}

#[test]
fn exhausted_local_ports_are_reported_with_the_range_and_their_holder() {
    needs!();
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let listener = listen(&netns, to);
    netns.sysctl("net/ipv4/ip_local_port_range", "61000 61003");
    let mut keeper = Keeper::new("connect_failing/local_ports_exhausted");
    keeper.keep_connects(std::process::id());
    let culprit = Culprit::trace("");
    let _held: Vec<_> = (0..4).map(|_| connect(&netns, to).0.expect("a port is left")).collect();
    for _ in 0..3 {
        let error = connect(&netns, to).0.expect_err("no port is left");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    }
    let opened = about(&culprit, "connect_failing", to, |emitted| emitted.why().contains("61000–61003"));
    keeper.catches_up();
    keeper.end();
    assert_eq!(opened.text("/details/errno"), "EADDRNOTAVAIL");
    let why = opened.why();
    assert!(why.contains("has 4 ports, and 4 of them are in use"), "{why}");
    assert!(why.contains(&format!("[{}] ", std::process::id())), "{why}");
    assert!(!opened.remedies().contains("strace"), "{}", opened.remedies());
    drop(listener);
}

#[test]
fn many_unanswered_destinations_of_one_program_are_one_incident() {
    needs!(Nftables);
    let pair = Pair::make();
    pair.client.ip(&format!("route add 198.51.100.0/24 via {}", pair.v4(2)));
    pair.server.nft(
        "table inet test { chain raw { type filter hook prerouting priority raw; tcp flags syn drop; }; }",
    );
    let mut keeper = Keeper::new("connect_stalled/hundred_unanswered_destinations");
    keeper.keep_connects(std::process::id());
    let culprit = Culprit::trace("");
    let port = port();
    let at = |host: u8| SocketAddr::new(IpAddr::from([198, 51, 100, host]), port);
    let sockets: Vec<_> = (1..=100).map(|host| begin_connect(&pair.client, at(host)).0).collect();
    let last = at(100);
    let is_ours =
        |emitted: &Incident| emitted.text("/kind") == "connect_stalled" && emitted.within(&pair.client);
    let grown = culprit.wait_for_incident("the crowd", |emitted| {
        is_ours(emitted) && emitted.number("/details/destinations") >= 64
    });
    assert_eq!(grown.json["details"]["worst"].as_array().map(Vec::len), Some(10));
    // What is given up before it has waited for long enough is none of them.
    culprit.wait_for("the last to be begun stalls", |fact| {
        fact.kind() == "connect_pending" && fact.at("destination") == Some(last)
    });
    drop(sockets);
    let resolved = culprit.wait_for_incident("its end", |emitted| {
        emitted.id() == grown.id() && emitted.text("/state") == "resolved"
    });
    keeper.catches_up();
    keeper.end();
    assert_eq!((resolved.number("/count"), resolved.number("/details/destinations")), (100, 100));
    let opened = culprit.incidents(|emitted| is_ours(emitted) && emitted.opens());
    assert_eq!(opened.len(), 1, "{opened:#?}");
}

#[test]
fn unanswered_ipv6_is_reported_while_ipv4_works() {
    needs!(Nftables);
    let pair = Pair::make();
    let v4 = pair.service(port());
    let v6 = SocketAddr::new(pair.v6(2), v4.port());
    listen_and_accept(&pair.server, v4);
    pair.server.nft(
        "table ip6 test { chain raw { type filter hook prerouting priority raw; tcp flags syn drop; }; }",
    );
    pair.client.sysctl("net/ipv4/tcp_syn_retries", "2");
    let mut keeper = Keeper::new("connect_stalled/ipv6_unanswered_while_ipv4_answers");
    keeper.keep_connects(std::process::id());
    let culprit = Culprit::trace("");
    pair.client.enter(move || {
        std::net::TcpStream::connect(v6).expect_err("no answer comes");
        std::net::TcpStream::connect(v4).expect("it listens");
    });
    let resolved = about(&culprit, "connect_stalled", v6, |emitted| emitted.text("/state") == "resolved");
    keeper.catches_up();
    keeper.end();
    assert!(resolved.why().contains("IPv6 is silent while IPv4 works"), "{}", resolved.why());
}

#[test]
fn a_pods_failures_are_caused_by_the_unresolved_gateway_of_its_node() {
    needs!(Pace);
    let pair = Pair::make();
    let (pod, node) = (&pair.client, &pair.server);
    let gateway = node.v4(254);
    node.ip("link add uplink type veth peer name peer");
    node.ip("link set uplink up");
    node.ip("link set peer up");
    node.ip(&format!("addr add {}/24 dev uplink", node.v4(1)));
    node.ip(&format!("route add default via {gateway} dev uplink"));
    node.sysctl("net/ipv4/ip_forward", "1");
    pod.ip(&format!("route add default via {}", pair.v4(2)));
    let to = SocketAddr::new("198.51.100.200".parse().expect("an address"), port());
    let mut keeper = Keeper::new("connect_failing/pod_behind_unresolved_node_gateway");
    keeper.keep(std::process::id());
    let culprit = Culprit::trace("");
    for _ in 0..3 {
        pod.enter(move || {
            let error =
                std::net::TcpStream::connect_timeout(&to, Duration::from_secs(60)).expect_err("no gateway");
            assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
        });
    }
    let failing = about(&culprit, "connect_failing", to, |emitted| {
        emitted.json["caused_by"].as_array().is_some_and(|ids| !ids.is_empty())
    });
    let neighbour = culprit
        .wait_for_incident("the gateway", |emitted| emitted.about("neighbour_unresolved", node, gateway));
    keeper.catches_up();
    keeper.end();
    assert_eq!(failing.json["caused_by"], serde_json::json!([neighbour.id()]));
}
