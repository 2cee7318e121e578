//! Replies to peers behind a router whose entry is wrong, datagrams to an entry that was set for good, and what only looks
//! like them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{Repeated, STALE, is_established};
use crate::{
    harness::{
        Lan, Netns,
        lan::{ABSENT_MAC, Host},
        sockets::{begin_connect, connect, listen_and_accept},
    },
    needs,
};

/// Where the clients are that the router forwards.
const BEYOND: [&str; 2] = ["198.51.100.10", "198.51.100.11"];

/// The server's default gateway, an address that no host has any more.
fn gateway(lan: &Lan) -> IpAddr {
    lan.switch.v4(1)
}

/// Clients behind a router that has taken over: it knows the server, which has not heard of it.
fn behind(server: &Host, router: &Host) -> Netns {
    let clients = Netns::make();
    router.netns.ip(&format!("link add inside type veth peer name eth0 netns {}", clients.name()));
    router.netns.ip("link set inside up");
    router.netns.ip("addr add 198.51.100.1/24 dev inside");
    router.netns.sysctl("net/ipv4/ip_forward", "1");
    router.sets_neighbour(server.v4, &server.mac(), "permanent");
    clients.ip("link set eth0 up");
    for client in BEYOND {
        clients.ip(&format!("addr add {client}/24 dev eth0"));
    }
    clients.ip("route add default via 198.51.100.1");
    clients
}

/// The gateway has failed over, and the server keeps the old MAC in `state`, until the remedy is carried out.
#[track_caller]
fn failed_over(case: &'static str, state: &str) {
    let lan = Lan::set(case);
    let (server, router) = (lan.host(10), lan.host(2));
    let gateway = gateway(&lan);
    let clients = behind(&server, &router);
    server.netns.ip(&format!("route add default via {gateway}"));
    server.sets_neighbour(gateway, ABSENT_MAC, state);
    let service = server.service(server.v4);
    listen_and_accept(&server.netns, service);
    let (socket, _) = begin_connect(&clients, service);
    let opened = lan.opened(STALE, &server.netns, gateway);
    assert_eq!(opened.text("/details/cached_mac"), ABSENT_MAC);
    assert_eq!(opened.text("/details/seen_mac"), router.mac());
    assert_eq!(opened.blame(), ("neighbour", "likely"));
    assert!(opened.text("/summary").contains("go by way of"), "{:#}", opened.json);
    let remedy = opened.text("/remedies/1").split_once(": ").expect("a command").1.to_owned();
    server.carries_out(&remedy);
    let resolved = lan.resolved(&opened);
    assert_eq!(resolved.text("/details/ended_by"), "corrected");
    is_established(&socket, service);
    lan.ends_with(&[&server], &[STALE]);
}

#[test]
fn a_gateway_that_failed_over_behind_a_static_entry_is_named_and_its_remedy_works() {
    needs!();
    failed_over("neighbour_stale/gateway_failed_over_static", "permanent");
}

#[test]
fn a_gateway_that_failed_over_unannounced_is_named_and_its_remedy_works() {
    needs!();
    failed_over("neighbour_stale/gateway_failed_over", "reachable");
}

#[test]
fn a_router_that_answers_by_another_mac_is_no_incident_though_one_client_is_deaf() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/asymmetric_router_without_fault");
    let (server, router) = (lan.host(10), lan.host(2));
    let gateway = gateway(&lan);
    let clients = behind(&server, &router);
    // Replies go by way of another machine, which forwards them to the same clients, but not to the second.
    let out = lan.host(3);
    out.netns.sysctl("net/ipv4/ip_forward", "1");
    out.netns.ip(&format!("route add 198.51.100.0/24 via {}", router.v4));
    out.netns.ip(&format!("route add blackhole {}/32", BEYOND[1]));
    router.netns.sysctl("net/ipv4/conf/eth0/rp_filter", "0");
    server.netns.ip(&format!("route add default via {gateway}"));
    server.sets_neighbour(gateway, &out.mac(), "permanent");
    let service = server.service(server.v4);
    listen_and_accept(&server.netns, service);
    let healthy = clients.name().to_owned();
    connect(&clients, service).0.unwrap_or_else(|error| panic!("{healthy} is served: {error}"));
    let deaf: SocketAddr = format!("{}:0", BEYOND[1]).parse().expect("an address");
    let socket = clients.enter(move || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&deaf.into()).expect("its address");
        socket.set_nonblocking(true).expect("a socket");
        let _ = socket.connect(&service.into());
        socket
    });
    for _ in 0..12 {
        connect(&clients, service).0.expect("others are served");
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(socket);
    lan.ends_with(&[&server], &[]);
}

#[test]
fn an_entry_set_for_good_whose_neighbour_asks_again_by_datagram_is_named_and_its_remedy_works() {
    needs!();
    let lan = Lan::set("neighbour_stale/permanent_wrong_entry_of_datagrams");
    let (server, client) = (lan.host(10), lan.host(90));
    client.sets_neighbour(server.v4, &server.mac(), "permanent");
    server.sets_neighbour(client.v4, ABSENT_MAC, "permanent");
    let service = server.service(server.v4);
    let socket = server.netns.enter(move || UdpSocket::bind(service).expect("our address"));
    let _serving = server.netns.thread_named("answers", move || {
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let mut asked = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut asked) {
            let _ = socket.send_to(b"answer", from);
        }
    });
    let mut socket = None;
    let _asking = Repeated::every(Duration::from_millis(500), &client.netns, move || {
        let socket = socket.get_or_insert_with(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
        let _ = socket.send_to(b"question", service);
    });
    let opened = lan.opened(STALE, &server.netns, client.v4);
    assert_eq!(opened.text("/details/seen_mac"), client.mac());
    assert_eq!(opened.blame(), ("neighbour", "likely"));
    assert!(opened.text("/summary").contains("the same datagram came"), "{:#}", opened.json);
    server.carries_out(opened.text("/remedies/0"));
    let resolved = lan.resolved(&opened);
    assert_eq!(resolved.text("/details/ended_by"), "removed");
    lan.ends_with(&[&server], &[STALE]);
}
