//! Neighbours that do not answer.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use super::{Again, FAILING, UNRESOLVED};
use crate::{
    harness::{
        Lan,
        lan::{Host, NOBODY},
        port,
        sockets::{connect, me},
    },
    needs,
};

#[track_caller]
fn nobody_answers(case: &'static str, how: &str, address: impl Fn(&Host) -> IpAddr) {
    let lan = Lan::set(case);
    let host = lan.host(10);
    let absent = if address(&host).is_ipv4() { lan.switch.v4(77) } else { lan.switch.v6(77) };
    let to = SocketAddr::new(absent, port());
    let (failed, task) = connect(&host.netns, to);
    failed.expect_err("nobody has this address");
    let told = lan.culprit.wait_for_incident("who waited, and what became of it", |told| {
        told.about(UNRESOLVED, &host.netns, absent)
            && told.text("/details/waiters/0/outcome") == "host_unreachable"
    });
    assert_eq!(told.task(), (task.0.into(), task.1.into()));
    assert_eq!(told.json["details"]["waiters"][0]["destination"]["port"], to.port());
    assert_eq!((told.text("/details/device"), told.text("/details/resolution")), ("eth0", how));
    assert!(told.number("/details/unanswered_probes") >= 3, "{:#}", told.json);
    assert_eq!(told.json["details"]["is_gateway"], false);
    assert_eq!(told.blame(), ("neighbour", "certain"));
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn a_host_that_does_not_answer_arp_is_named_with_who_waits() {
    needs!();
    nobody_answers("unresolved_host", "arp", |host| host.v4);
}

#[test]
fn a_host_that_does_not_answer_ndp_is_named_with_who_waits() {
    needs!();
    nobody_answers("unresolved_host_ipv6", "ndp", |host| host.v6);
}

#[track_caller]
fn gateway(case: &'static str, beyond: &str, address: impl Fn(&Host) -> IpAddr) {
    let lan = Lan::set(case);
    let host = lan.host(10);
    let gateway = if address(&host).is_ipv4() { lan.switch.v4(1) } else { lan.switch.v6(1) };
    host.netns.ip(&format!("route add default via {gateway} dev eth0"));
    let to = SocketAddr::new(beyond.parse().expect("an address"), port());
    connect(&host.netns, to).0.expect_err("there is no gateway");
    let opened = lan.opened(UNRESOLVED, &host.netns, gateway);
    assert_eq!(
        (opened.json["details"]["is_gateway"].as_bool(), opened.text("/severity")),
        (Some(true), "critical")
    );
    let how = if gateway.is_ipv4() { "ARP" } else { "NDP" };
    let words = format!("The default gateway {gateway} does not answer {how} on eth0");
    assert!(opened.text("/summary").starts_with(&words), "{}", opened.text("/summary"));
    assert_eq!(opened.json["details"]["waiters"][0]["destination"]["ip"], beyond);
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn a_gateway_that_does_not_answer_arp_is_called_one() {
    needs!(Pace);
    gateway("unresolved_gateway", "192.0.2.64", |host| host.v4);
}

#[test]
fn a_gateway_that_does_not_answer_ndp_is_called_one() {
    needs!(Pace);
    gateway("unresolved_gateway_ipv6", "2001:db8::64", |host| host.v6);
}

#[test]
fn a_datagram_waits_as_well() {
    needs!(Pace);
    let lan = Lan::set("unresolved_datagram");
    let host = lan.host(10);
    let to = SocketAddr::new(lan.switch.v4(77), port());
    let task = host.netns.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(b"hello?", to).expect("it is queued");
        // The kernel forgets who waits when the socket is gone.
        std::mem::forget(socket);
        me()
    });
    let opened = lan.opened(UNRESOLVED, &host.netns, to.ip());
    assert_eq!(opened.text("/details/waiters/0/protocol"), "udp");
    assert_eq!(opened.task(), (task.0.into(), task.1.into()));
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn a_host_that_comes_back_resolves_it_and_the_failures_point_to_it() {
    needs!(Pace);
    let lan = Lan::set("unresolved_comes_back");
    let host = lan.host(10);
    let (address, port) = (lan.switch.v4(77), port());
    let to = SocketAddr::new(address, port);
    let patience = Duration::from_millis(1500);
    let _tries = Again::every(Duration::from_millis(100), &host.netns, move || {
        let _ = TcpStream::connect_timeout(&to, patience);
    });
    let opened = lan.opened(UNRESOLVED, &host.netns, address);
    let failing = lan.culprit.wait_for_incident("the failures", |told| {
        told.text("/kind") == FAILING && told.blamed() == to.to_string()
    });
    assert_eq!(failing.json["caused_by"], serde_json::json!([opened.id()]));
    let back = lan.host(77);
    let _listener = crate::harness::sockets::listen(&back.netns, to);
    let resolved = lan.resolved(&opened);
    assert!(resolved.text("/summary").contains("answers ARP on eth0"), "{}", resolved.text("/summary"));
    lan.ends_with(&[&host], &[UNRESOLVED, FAILING]);
}

#[test]
fn an_entry_an_agent_took_away_is_missing_until_the_agent_writes_it_again() {
    needs!();
    let lan = Lan::set("unresolved_withdrawn");
    let (host, absent) = (lan.host(10), lan.switch.v4(77));
    host.believes(absent, NOBODY, "permanent");
    host.netns.ip(&format!("neigh del {absent} dev eth0"));
    connect(&host.netns, SocketAddr::new(absent, port())).0.expect_err("nobody has this address");
    let opened = lan.opened(UNRESOLVED, &host.netns, absent);
    let summary = opened.text("/summary");
    assert!(summary.contains("was removed by ip[") && !summary.contains("does not answer"), "{summary}");
    assert_eq!(opened.text("/details/removed_by/comm"), "ip");
    host.believes(absent, NOBODY, "permanent");
    let resolved = lan.resolved(&opened);
    let summary = resolved.text("/summary");
    assert!(summary.contains("was set again by ip[") && !summary.contains("answers ARP"), "{summary}");
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn a_macvlan_child_of_the_device_that_asks_is_called_one_and_so_is_its_parent() {
    needs!(Macvlan);
    let lan = Lan::set("unresolved_macvlan");
    let (host, child) = (lan.host(10), crate::harness::Netns::make());
    host.netns.ip("link add link eth0 name child type macvlan mode bridge");
    host.netns.ip(&format!("link set child netns {} name inner", child.name()));
    child.ip(&format!("addr add {}/24 dev inner", lan.switch.v4(20)));
    child.ip("link set inner up");
    let there = SocketAddr::new(lan.switch.v4(20), port());
    connect(&host.netns, there).0.expect_err("they never hear each other");
    let opened = lan.opened(UNRESOLVED, &host.netns, there.ip());
    let said = format!(
        "it is inner of this machine's network namespace {}, a macvlan child of eth0 itself",
        child.name()
    );
    assert!(opened.text("/summary").contains(&said), "{}", opened.text("/summary"));
    let back = SocketAddr::new(host.v4, port());
    connect(&child, back).0.expect_err("nor does the child hear the host");
    let opened = lan.opened(UNRESOLVED, &child, back.ip());
    let said = "the parent device of inner, which is a macvlan";
    assert!(opened.text("/summary").contains(said), "{}", opened.text("/summary"));
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn a_gateway_that_ignores_questions_of_foreign_senders_is_not_called_silent() {
    needs!();
    let lan = Lan::set("unresolved_foreign_sender");
    let (host, gateway) = (lan.host(10), lan.host(1));
    gateway.netns.sysctl("net/ipv4/conf/all/arp_ignore", "2");
    host.netns.ip("addr add 198.51.100.7/32 dev lo");
    host.netns.ip(&format!("route add default via {} dev eth0 src 198.51.100.7", gateway.v4));
    let beyond = SocketAddr::new("203.0.113.5".parse().expect("an address"), port());
    connect(&host.netns, beyond).0.expect_err("the gateway does not answer");
    let opened = lan.opened(UNRESOLVED, &host.netns, gateway.v4);
    let summary = opened.text("/summary");
    assert!(summary.contains("when asked in the name of 198.51.100.7"), "{summary}");
    assert!(!summary.contains("nothing beyond"), "{summary}");
    assert_eq!((opened.text("/severity"), opened.blame()), ("warning", ("neighbour", "likely")));
    let (_, remedy) = opened.text("/remedies/0").split_once(": ").expect("a command");
    // No shell takes it: none of its quotes is needed.
    host.carries_out(&remedy.replace('\'', ""));
    let _pending = crate::harness::sockets::begin_connect(&host.netns, beyond);
    let resolved = lan.resolved(&opened);
    assert!(resolved.text("/summary").contains("answers ARP"), "{}", resolved.text("/summary"));
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn what_a_router_forwards_for_a_container_waits_as_well() {
    needs!();
    let lan = Lan::set("unresolved_forwarded");
    let (router, inside) = (lan.host(1), crate::harness::Netns::make());
    router.netns.ip(&format!("link add inside type veth peer name eth0 netns {}", inside.name()));
    router.netns.ip("link set inside up");
    router.netns.ip(&format!("addr add {}/24 dev inside", inside.v4(1)));
    inside.ip("link set eth0 up");
    inside.ip(&format!("addr add {}/24 dev eth0", inside.v4(2)));
    inside.ip(&format!("route add default via {}", inside.v4(1)));
    router.netns.sysctl("net/ipv4/ip_forward", "1");
    let to = SocketAddr::new(lan.switch.v4(77), port());
    let (failed, task) = connect(&inside, to);
    failed.expect_err("nobody has this address");
    let opened = lan.opened(UNRESOLVED, &router.netns, to.ip());
    assert_eq!(opened.json["details"]["waiters"][0]["forwarded"], true, "{:#}", opened.json);
    assert_eq!(opened.task(), (task.0.into(), task.1.into()));
    // It is told once, with the process inside.
    let others = lan.culprit.incidents(|told| told.within(&inside) && told.id() != opened.id());
    assert!(others.is_empty(), "{others:#?}");
    lan.ends_with(&[&router], &[UNRESOLVED]);
}
