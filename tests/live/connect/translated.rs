//! Connects whose packets go elsewhere than requested: translated by netfilter or by another cgroup program.
//! The requested address and the one on the wire are both kept.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::{
    connect::outcomes::end_of,
    harness::{
        Culprit, Fact, Netns,
        balancer::balance,
        netns::Pair,
        port,
        sockets::{begin_connect, connect, listen},
    },
    needs,
};

/// A service's address that no device has.
fn service(of: &Netns) -> SocketAddr {
    SocketAddr::new(of.v4(200), 443)
}

/// A rule that gives what this namespace sends to `asked` another destination.
fn translate(netns: &Netns, asked: SocketAddr, to: SocketAddr) {
    let (family, any) = if asked.is_ipv4() { ("ip", "0.0.0.0/0") } else { ("ip6", "::/0") };
    netns.nft(&format!(
        "table {family} nat {{ chain out {{ type nat hook output priority -100; \
         {family} daddr {} tcp dport {} dnat to {to}; }}; }}",
        asked.ip(),
        asked.port(),
    ));
    // Without a route nothing is translated either.
    netns.ip(&format!("{} route replace {any} dev wire", if asked.is_ipv4() { "-4" } else { "-6" }));
}

#[track_caller]
fn wire(fact: &Fact, to: SocketAddr, by: &str) {
    let expected = json!({"ip": to.ip().to_string(), "port": to.port(), "by": by});
    assert_eq!(fact.json["destination"]["wire"], expected, "{fact:?}");
}

#[test]
fn a_connect_behind_nat_keeps_the_requested_address_and_names_the_one_on_the_wire() {
    needs!(Nftables);
    let pair = Pair::make();
    let (asked, backend) = (service(&pair.client), pair.service(port()));
    let _listener = listen(&pair.server, backend);
    translate(&pair.client, asked, backend);
    let culprit = Culprit::trace("");
    let (stream, task) = connect(&pair.client, asked);
    let from = stream.expect("the backend listens").local_addr().expect("connected");
    let end = end_of(&culprit, asked);
    assert_eq!((end.task(), end.text("outcome")), (task, "established"));
    assert_eq!(end.at("source"), Some(from));
    wire(&end, backend, "nat");
    // No process connected to the backend by its own address.
    assert!(culprit.seen(|fact| fact.at("destination") == Some(backend)).is_empty());
}

#[test]
fn a_refused_connect_behind_nat_shows_both_addresses_in_both_families() {
    needs!(Nftables);
    let pair = Pair::make();
    let v6 = SocketAddr::new(pair.v6(200), 443);
    let pairs = [(service(&pair.client), pair.service(port())), (v6, SocketAddr::new(pair.v6(2), port()))];
    for (asked, backend) in pairs {
        translate(&pair.client, asked, backend);
    }
    for quiet in ["", "-Z"] {
        let culprit = Culprit::trace(quiet);
        for (asked, backend) in pairs {
            connect(&pair.client, asked).0.expect_err("nothing listens");
            let end = end_of(&culprit, asked);
            assert_eq!((end.text("outcome"), end.text("errno")), ("refused", "ECONNREFUSED"));
            wire(&end, backend, "nat");
        }
    }
}

#[test]
fn a_connect_that_is_not_translated_has_one_address() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    let _listener = listen(&pair.server, to);
    let culprit = Culprit::trace("");
    connect(&pair.client, to).0.expect("it listens");
    assert_eq!(end_of(&culprit, to).json["destination"]["wire"], Value::Null);
    // Asked for no address in particular, the kernel takes its own: that is no translation.
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port());
    connect(&pair.client, any).0.expect_err("nothing listens");
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), any.port());
    assert_eq!(end_of(&culprit, own).json["destination"]["wire"], Value::Null);
}

#[test]
fn an_answer_dropped_here_is_found_although_its_packets_are_translated() {
    needs!(Nftables, DropReasons);
    let pair = Pair::make();
    let (asked, backend) = (service(&pair.client), pair.service(port()));
    let _listener = listen(&pair.server, backend);
    translate(&pair.client, asked, backend);
    pair.client.nft(&format!(
        "table inet test {{ chain input {{ type filter hook input priority 0; tcp sport {} drop; }}; }}",
        backend.port()
    ));
    let culprit = Culprit::trace("");
    let (_socket, task) = begin_connect(&pair.client, asked);
    let dropped = culprit.wait_for("the drop", |fact| fact.is_to("connect_dropped", asked));
    assert_eq!((dropped.task(), dropped.text("reason")), (task, "NETFILTER_DROP"));
    wire(&dropped, backend, "nat");
}

#[test]
fn a_syn_dropped_by_the_backend_behind_nat_is_found_by_its_addresses() {
    needs!(Nftables, DropReasons);
    let pair = Pair::make();
    let (asked, backend) = (service(&pair.client), pair.service(port()));
    translate(&pair.client, asked, backend);
    pair.server.drop_tcp("input", backend.port());
    let culprit = Culprit::trace("");
    let (_socket, task) = begin_connect(&pair.client, asked);
    let dropped = culprit.wait_for("the drop", |fact| fact.is_to("connect_dropped", asked));
    assert_eq!((dropped.task(), dropped.text("reason")), (task, "NETFILTER_DROP"));
    wire(&dropped, backend, "nat");
}

/// An address that only this test's namespace asks for, and a backend on its loopback.
fn balanced(netns: &Netns) -> (SocketAddr, SocketAddr) {
    (service(netns), SocketAddr::new(netns.loopback(), port()))
}

#[test]
fn an_address_changed_by_an_earlier_cgroup_program_is_reported_with_both_addresses() {
    needs!(Perl);
    let netns = Netns::make();
    let (asked, backend) = balanced(&netns);
    let _listener = listen(&netns, backend);
    let _balancer = balance(asked, backend);
    let culprit = Culprit::trace("");
    let (stream, task) = connect(&netns, asked);
    assert_eq!(stream.expect("it listens").peer_addr().expect("connected"), backend);
    let end = end_of(&culprit, asked);
    assert_eq!((end.task(), end.text("outcome")), (task, "established"));
    wire(&end, backend, "cgroup_program");
}

#[test]
fn an_address_changed_by_a_later_cgroup_program_is_reported_with_both_addresses() {
    needs!(Perl);
    let netns = Netns::make();
    let (asked, backend) = balanced(&netns);
    let culprit = Culprit::trace("");
    let _balancer = balance(asked, backend);
    let (refused, task) = connect(&netns, asked);
    refused.expect_err("nothing listens");
    let end = end_of(&culprit, asked);
    assert_eq!((end.task(), end.text("outcome"), end.text("errno")), (task, "refused", "ECONNREFUSED"));
    wire(&end, backend, "cgroup_program");
}

#[test]
fn an_address_changed_by_a_cgroup_program_and_then_by_nat_is_attributed_to_both() {
    needs!(Perl, Nftables);
    let pair = Pair::make();
    let (asked, backend) = (SocketAddr::new(pair.v4(201), 443), pair.service(port()));
    let between = service(&pair.client);
    translate(&pair.client, between, backend);
    let culprit = Culprit::trace("");
    let _balancer = balance(asked, between);
    connect(&pair.client, asked).0.expect_err("nothing listens");
    wire(&end_of(&culprit, asked), backend, "cgroup_program_and_nat");
}

#[test]
fn without_syscall_hooks_the_address_requested_before_a_later_program_is_kept() {
    needs!(Perl);
    let netns = Netns::make();
    let (asked, backend) = balanced(&netns);
    let culprit = Culprit::trace("--no-syscalls");
    let _balancer = balance(asked, backend);
    connect(&netns, asked).0.expect_err("nothing listens");
    let end = culprit.wait_for("its end", |fact| {
        fact.kind() == "connect_ended" && fact.at("destination").map(|to| to.ip()) == Some(asked.ip())
    });
    wire(&end, backend, "cgroup_program");
}

#[test]
fn a_syn_that_another_namespace_translates_and_drops_is_found_by_its_conntrack_entry() {
    needs!(Nftables, DropReasons, ConntrackTypes);
    let pair = Pair::make();
    let node = &pair.server;
    let backend: SocketAddr = format!("203.0.113.7:{}", port()).parse().expect("an address");
    let asked = SocketAddr::new(pair.v4(200), 443);
    node.sysctl("net/ipv4/ip_forward", "1");
    node.ip("link add beyond type veth peer name other");
    node.ip("link set other up");
    node.ip("link set beyond up");
    node.ip("route add 203.0.113.0/24 dev beyond");
    node.nft(&format!(
        "table ip nat {{ chain pre {{ type nat hook prerouting priority -100; \
         ip daddr {} tcp dport {} dnat to {backend}; }}; \
         chain forward {{ type filter hook forward priority 0; tcp dport {} drop; }}; }}",
        asked.ip(),
        asked.port(),
        backend.port(),
    ));
    pair.client.ip(&format!("route add {} via {}", asked.ip(), pair.v4(2)));
    let culprit = Culprit::trace("");
    let (_socket, task) = begin_connect(&pair.client, asked);
    let dropped = culprit.wait_for("the drop", |fact| fact.is_to("connect_dropped", asked));
    assert_eq!((dropped.task(), dropped.text("reason")), (task, "NETFILTER_DROP"));
    wire(&dropped, backend, "nat_later");
}
