//! Neighbours that do not answer.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use super::{FAILING, Repeated, UNRESOLVED};
use crate::{
    harness::{
        Lan,
        lan::{ABSENT_MAC, Host},
        port,
        sockets::{connect, give_up_connecting, me},
    },
    needs,
};

#[track_caller]
fn absent_host(case: &'static str, how: &str, address: impl Fn(&Host) -> IpAddr) {
    let lan = Lan::set(case);
    let host = lan.host(10);
    let absent = if address(&host).is_ipv4() { lan.switch.v4(77) } else { lan.switch.v6(77) };
    let to = SocketAddr::new(absent, port());
    let (failed, task) = connect(&host.netns, to);
    failed.expect_err("no host has this address");
    let emitted = lan.culprit.wait_for_incident("who waited, and what became of it", |emitted| {
        emitted.about(UNRESOLVED, &host.netns, absent)
            && emitted.text("/details/waiters/0/outcome") == "host_unreachable"
    });
    assert_eq!(emitted.task(), (task.0.into(), task.1.into()));
    assert_eq!(emitted.json["details"]["waiters"][0]["destination"]["port"], to.port());
    assert_eq!((emitted.text("/details/device"), emitted.text("/details/resolution")), ("eth0", how));
    assert!(emitted.number("/details/unanswered_probes") >= 3, "{:#}", emitted.json);
    assert_eq!(emitted.json["details"]["is_gateway"], false);
    assert_eq!(emitted.blame(), ("neighbour", "certain"));
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn a_host_that_does_not_answer_arp_is_named_with_the_waiting_process() {
    needs!();
    absent_host("neighbour_unresolved/absent_host", "arp", |host| host.v4);
}

#[test]
fn a_host_that_does_not_answer_ndp_is_named_with_the_waiting_process() {
    needs!();
    absent_host("neighbour_unresolved/absent_host_ipv6", "ndp", |host| host.v6);
}

#[test]
fn a_waiter_that_gave_up_after_its_own_timeout_is_said_to_have_given_up() {
    needs!(Pace);
    let lan = Lan::set("neighbour_unresolved/waiter_gave_up");
    let host = lan.host(10);
    let absent = lan.switch.v4(77);
    let to = SocketAddr::new(absent, port());
    host.netns.enter(move || give_up_connecting(to, Duration::from_millis(1500)));
    let opened = lan.opened(UNRESOLVED, &host.netns, absent);
    assert!(opened.text("/summary").contains(" was given up."), "{:#}", opened.json);
    assert_eq!(opened.text("/details/waiters/0/outcome"), "aborted", "{:#}", opened.json);
    lan.ends_with(&[&host], &[UNRESOLVED]);
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
fn a_gateway_that_does_not_answer_arp_is_reported_as_a_gateway() {
    needs!(Pace);
    gateway("neighbour_unresolved/absent_gateway", "192.0.2.64", |host| host.v4);
}

#[test]
fn a_gateway_that_does_not_answer_ndp_is_reported_as_a_gateway() {
    needs!(Pace);
    gateway("neighbour_unresolved/absent_gateway_ipv6", "2001:db8::64", |host| host.v6);
}

#[test]
fn the_sender_of_a_datagram_waits_as_well() {
    needs!(Pace);
    let lan = Lan::set("neighbour_unresolved/absent_host_of_a_datagram");
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
fn a_host_that_comes_back_resolves_the_incident_that_caused_the_failures() {
    needs!(Pace);
    let lan = Lan::set("neighbour_unresolved/absent_host_comes_back");
    let host = lan.host(10);
    let (address, port) = (lan.switch.v4(77), port());
    let to = SocketAddr::new(address, port);
    let patience = Duration::from_millis(1500);
    let _tries = Repeated::every(Duration::from_millis(100), &host.netns, move || {
        let _ = TcpStream::connect_timeout(&to, patience);
    });
    let opened = lan.opened(UNRESOLVED, &host.netns, address);
    let failing = lan.culprit.wait_for_incident("the failures", |emitted| {
        emitted.text("/kind") == FAILING && emitted.blamed() == to.to_string()
    });
    assert_eq!(failing.json["caused_by"], serde_json::json!([opened.id()]));
    let back = lan.host(77);
    let _listener = crate::harness::sockets::listen(&back.netns, to);
    let resolved = lan.resolved(&opened);
    assert!(resolved.text("/summary").contains("answers ARP on eth0"), "{}", resolved.text("/summary"));
    lan.ends_with(&[&host], &[UNRESOLVED, FAILING]);
}

#[test]
fn an_entry_removed_by_an_agent_is_missing_until_the_agent_sets_it_again() {
    needs!();
    let lan = Lan::set("neighbour_unresolved/entry_removed_by_agent");
    let (host, absent) = (lan.host(10), lan.switch.v4(77));
    host.sets_neighbour(absent, ABSENT_MAC, "permanent");
    host.netns.ip(&format!("neigh del {absent} dev eth0"));
    connect(&host.netns, SocketAddr::new(absent, port())).0.expect_err("no host has this address");
    let opened = lan.opened(UNRESOLVED, &host.netns, absent);
    let summary = opened.text("/summary");
    assert!(summary.contains("was removed by ip[") && !summary.contains("does not answer"), "{summary}");
    assert_eq!(opened.text("/details/removed_by/comm"), "ip");
    host.sets_neighbour(absent, ABSENT_MAC, "permanent");
    let resolved = lan.resolved(&opened);
    let summary = resolved.text("/summary");
    assert!(summary.contains("was set again by ip[") && !summary.contains("answers ARP"), "{summary}");
    lan.ends_with(&[&host], &[UNRESOLVED]);
}

#[test]
fn a_macvlan_child_of_the_asking_device_is_reported_as_one_and_so_is_its_parent() {
    needs!(Macvlan);
    let lan = Lan::set("neighbour_unresolved/macvlan_child_and_parent");
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
fn a_gateway_that_ignores_requests_of_foreign_senders_is_not_reported_as_silent() {
    needs!();
    let lan = Lan::set("neighbour_unresolved/gateway_ignores_foreign_sender");
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
fn a_process_behind_a_forwarding_router_waits_as_well() {
    needs!();
    let lan = Lan::set("neighbour_unresolved/absent_host_of_a_container");
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
    failed.expect_err("no host has this address");
    let opened = lan.opened(UNRESOLVED, &router.netns, to.ip());
    assert_eq!(opened.json["details"]["waiters"][0]["forwarded"], true, "{:#}", opened.json);
    assert_eq!(opened.task(), (task.0.into(), task.1.into()));
    // It is reported once, with the process inside.
    let others = lan.culprit.incidents(|emitted| emitted.within(&inside) && emitted.id() != opened.id());
    assert!(others.is_empty(), "{others:#?}");
    lan.ends_with(&[&router], &[UNRESOLVED]);
}
