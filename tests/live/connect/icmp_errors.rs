//! Errors that come by ICMP, also while the socket is locked: which error the program got, and whether this host itself
//! sent it.

use std::net::SocketAddr;

use crate::{
    connect::outcomes::end_of,
    harness::{
        Culprit, Fact, Netns,
        netns::Pair,
        port,
        sockets::{begin_connect, connect},
    },
    needs,
};

/// Rejects TCP segments to a port where `hook` (`input`, `output`) says.
fn reject(netns: &Netns, hook: &str, to: SocketAddr, with: &str) {
    netns.nft(&format!(
        "table inet test {{ chain {hook} {{ type filter hook {hook} priority 0; tcp dport {} reject {with}; }}; }}",
        to.port()
    ));
}

/// A connect that does not block; its program asks for the error until there is one, and gives up.
fn ask_for_the_error(netns: &Netns, to: SocketAddr) -> (i32, (u32, u32)) {
    let (socket, task) = begin_connect(netns, to);
    let mut errno = 0;
    crate::harness::eventually("an error", || {
        errno = socket.take_error().expect("a socket").and_then(|error| error.raw_os_error()).unwrap_or(0);
        errno != 0
    });
    (errno, task)
}

#[track_caller]
fn answered_by(end: &Fact, says: &str, netns: &Netns) {
    let answered = &end.json["answered_by_host"];
    assert_eq!(
        (answered["error"].as_str(), answered["netns"].as_str()),
        (Some(says), Some(netns.name())),
        "{end:?}"
    );
}

#[test]
fn a_connect_that_is_rejected_ends_with_the_error_its_program_got() {
    needs!(Nftables);
    let pair = Pair::make();
    let culprit = Culprit::trace("");
    for to in [pair.service(port()), SocketAddr::new(pair.v6(2), port())] {
        let reject_here = |netns: &Netns| {
            netns.nft("flush ruleset");
            reject(netns, "input", to, "");
        };
        reject_here(&pair.server);
        let (errno, task) = ask_for_the_error(&pair.client, to);
        assert_eq!(errno, rustix::io::Errno::CONNREFUSED.raw_os_error());
        let end = end_of(&culprit, to);
        assert_eq!((end.task(), end.text("outcome"), end.text("errno")), (task, "refused", "ECONNREFUSED"));
        answered_by(&end, "port_unreachable", &pair.server);
    }
}

#[test]
fn a_connect_that_its_own_host_rejects_on_output_is_reported_likewise() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    reject(&pair.client, "output", to, "with icmpx admin-prohibited");
    let culprit = Culprit::trace("");
    let (errno, _) = ask_for_the_error(&pair.client, to);
    assert_eq!(errno, rustix::io::Errno::HOSTUNREACH.raw_os_error());
    let end = end_of(&culprit, to);
    assert_eq!((end.text("outcome"), end.text("errno")), ("host_unreachable", "EHOSTUNREACH"));
    answered_by(&end, "prohibited", &pair.client);
}

#[test]
fn without_syscall_hooks_an_error_the_socket_no_longer_has_is_reported() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    reject(&pair.server, "input", to, "");
    let culprit = Culprit::trace("--no-syscalls");
    ask_for_the_error(&pair.client, to);
    let end = end_of(&culprit, to);
    assert_eq!((end.text("outcome"), end.text("errno")), ("refused", "ECONNREFUSED"));
}

#[test]
fn an_error_that_no_program_read_leaves_the_connect_aborted() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    reject(&pair.server, "input", to, "");
    for args in ["", "--no-syscalls"] {
        let culprit = Culprit::trace(args);
        let (socket, task) = begin_connect(&pair.client, to);
        drop(socket);
        let end = end_of(&culprit, to);
        let outcome = (end.task(), end.text("outcome"));
        // Where another CPU delivers the message it may come in time, or too late for anything.
        if end.text("outcome") != "refused" {
            assert_eq!(outcome, (task, "aborted"));
            if !end.json["answered_by_host"].is_null() && !end.json["unread_errno"].is_null() {
                assert_eq!(end.text("unread_errno"), "ECONNREFUSED");
            }
        }
        culprit.stop();
    }
}

/// A client behind a router that forwards.
fn behind_a_router() -> Pair {
    let pair = Pair::make();
    pair.server.sysctl("net/ipv4/ip_forward", "1");
    pair.server.sysctl("net/ipv6/conf/all/forwarding", "1");
    pair.client.ip(&format!("route add default via {}", pair.v4(2)));
    pair.client.ip(&format!("-6 route add default via {}", pair.v6(2)));
    pair
}

#[test]
fn a_router_of_this_host_that_has_no_route_or_forbids_one_is_named() {
    needs!();
    let pair = behind_a_router();
    let (v4, v6): (SocketAddr, SocketAddr) = (
        format!("203.0.113.7:{}", port()).parse().expect("an address"),
        format!("[2001:db8:7::7]:{}", port()).parse().expect("an address"),
    );
    let culprit = Culprit::trace("");
    for to in [v4, v6] {
        connect(&pair.client, to).0.expect_err("no route");
        let end = end_of(&culprit, to);
        assert_eq!((end.text("outcome"), end.text("errno")), ("net_unreachable", "ENETUNREACH"));
        answered_by(&end, "net_unreachable", &pair.server);
    }
    pair.server.ip("route add prohibit 203.0.113.0/24");
    pair.server.ip("-6 route add prohibit 2001:db8:7::/64");
    let again = |to: SocketAddr| SocketAddr::new(to.ip(), port());
    for (to, outcome) in [(again(v4), "host_unreachable"), (again(v6), "denied")] {
        connect(&pair.client, to).0.expect_err("forbidden");
        let end = end_of(&culprit, to);
        assert_eq!(end.text("outcome"), outcome);
        answered_by(&end, "prohibited", &pair.server);
    }
}

#[test]
fn a_reset_is_no_icmp_error_of_this_host() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    let culprit = Culprit::trace("");
    connect(&pair.client, to).0.expect_err("nothing listens");
    let end = end_of(&culprit, to);
    assert_eq!(end.text("outcome"), "refused");
    assert!(end.json["answered_by_host"].is_null() && end.json["unread_errno"].is_null(), "{end:?}");
}

#[test]
fn connects_that_are_rejected_while_no_program_waits_are_failing() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    reject(&pair.server, "input", to, "");
    let culprit = Culprit::trace("");
    for _ in 0..3 {
        ask_for_the_error(&pair.client, to);
    }
    let failing = culprit.wait_for_incident("the incident", |incident| {
        incident.text("/kind") == "connect_failing" && incident.blamed() == to.to_string()
    });
    assert_eq!(failing.number("/details/outcomes/refused"), 3, "{:#}", failing.json);
}
