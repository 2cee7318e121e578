//! What resembles a stale, unresolved or contested entry and is none: no incident opens.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Culprit, Lan,
        culprit::binary,
        port,
        process::words,
        sockets::{connect, give_up_connecting, listen, listen_and_accept},
    },
    needs,
};

#[test]
fn an_announced_failover_that_works_is_no_incident() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/announced_failover_without_fault");
    let (client, one, two) = (lan.host(10), lan.host(21), lan.host(22));
    let shared = SocketAddr::new(lan.switch.v4(90), port());
    let takes = |host: &crate::harness::lan::Host| {
        host.netns.ip(&format!("addr add {}/24 dev eth0", shared.ip()));
        assert!(
            host.netns.spawn(words(&format!("arping -q -c 1 -A -I eth0 {}", shared.ip()))).wait().success()
        );
    };
    takes(&one);
    listen_and_accept(&one.netns, shared);
    connect(&client.netns, shared).0.expect("the first serves");
    one.netns.ip(&format!("addr del {}/24 dev eth0", shared.ip()));
    takes(&two);
    listen_and_accept(&two.netns, shared);
    lan.culprit.wait_for("the move", |fact| {
        fact.kind() == "neighbour_changed"
            && fact.text("netns") == client.netns.name()
            && fact.text("new_mac") == two.mac()
    });
    for _ in 0..5 {
        connect(&client.netns, shared).0.expect("the second serves");
    }
    lan.ends_with(&[&client, &one, &two], &[]);
}

#[test]
fn a_router_that_answers_arp_for_others_is_no_incident() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/proxy_arp_without_fault");
    let (client, router) = (lan.host(10), lan.host(1));
    // Behind the router, with addresses of the same subnet.
    let hidden = crate::harness::Netns::make();
    router.netns.ip(&format!("link add inside type veth peer name eth0 netns {}", hidden.name()));
    router.netns.ip("link set inside up");
    router.netns.sysctl("net/ipv4/ip_forward", "1");
    router.netns.sysctl("net/ipv4/conf/eth0/proxy_arp", "1");
    router.netns.sysctl("net/ipv4/conf/inside/proxy_arp", "1");
    router.netns.sysctl("net/ipv4/neigh/eth0/proxy_delay", "0");
    router.netns.sysctl("net/ipv4/neigh/inside/proxy_delay", "0");
    hidden.ip("link set eth0 up");
    for host in 100..104 {
        let address = lan.switch.v4(host);
        hidden.ip(&format!("addr add {address}/24 dev eth0"));
        router.netns.ip(&format!("route add {address}/32 dev inside"));
    }
    let own = client.service(client.v4);
    listen_and_accept(&client.netns, own);
    for host in 100..104 {
        let there = SocketAddr::new(lan.switch.v4(host), port());
        listen_and_accept(&hidden, there);
        connect(&client.netns, there).0.expect("by way of the router");
    }
    connect(&hidden, own).0.expect("and back");
    lan.ends_with(&[&client, &router], &[]);
}

#[test]
fn an_asymmetric_path_is_no_incident() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/asymmetric_path_without_fault");
    let (server, peer) = (lan.host(10), lan.host(90));
    // The peer answers for its address at one device and sends by another.
    lan.plug(&peer, "eth1");
    peer.netns.sysctl("net/ipv4/conf/all/rp_filter", "0");
    peer.netns.sysctl("net/ipv4/conf/eth1/rp_filter", "0");
    peer.netns.sysctl("net/ipv4/conf/eth0/rp_filter", "0");
    peer.netns.sysctl("net/ipv4/conf/eth0/arp_ignore", "0");
    peer.netns.sysctl("net/ipv4/conf/eth1/arp_ignore", "8");
    let service = server.service(server.v4);
    listen_and_accept(&server.netns, service);
    let back = peer.service(peer.v4);
    listen_and_accept(&peer.netns, back);
    connect(&server.netns, back).0.expect("the server learns the first device's MAC");
    peer.netns.ip(&format!("route add {} dev eth1 src {}", server.v4, peer.v4));
    peer.netns.ip(&format!("neigh replace {} lladdr {} dev eth1 nud permanent", server.v4, server.mac()));
    for _ in 0..5 {
        connect(&peer.netns, service).0.expect("there and back by different ways");
    }
    let other = peer.netns.mac("eth1");
    lan.culprit.wait_for("the difference", |fact| {
        fact.kind() == "neighbour_mac_mismatch" && fact.text("seen_mac") == other
    });
    lan.ends_with(&[&server, &peer], &[]);
}

#[test]
fn lost_syn_acks_on_an_asymmetric_path_are_no_incident() {
    needs!(Nftables, Pace);
    let lan = Lan::set("neighbour_stale/asymmetric_path_with_lost_syn_acks");
    let (server, peer) = (lan.host(10), lan.host(90));
    let service = server.service(server.v4);
    listen_and_accept(&server.netns, service);
    peer.sets_neighbour(server.v4, &server.mac(), "permanent");
    // Frames to the cached MAC do reach the peer, as through a router on the way back: the switch rewrites.
    let (cached, own) = ("02:00:5e:10:00:02", peer.mac());
    server.sets_neighbour(peer.v4, cached, "permanent");
    // Every other SYN-ACK is lost.
    lan.switch.nft(&format!(
        "table bridge test {{ chain forward {{ type filter hook forward priority 0; \
         tcp flags & (syn | ack) == syn | ack numgen inc mod 2 < 1 drop; \
         ether daddr {cached} ether daddr set {own}; }}; }}"
    ));
    // Either end sends again after a second, whichever is the first.
    let late = (0..4).filter(|_| {
        let begun = Instant::now();
        connect(&peer.netns, service).0.expect("at the second attempt");
        begun.elapsed() > Duration::from_millis(900)
    });
    assert!(late.count() >= 2, "too few were lost");
    lan.culprit.settle(&peer.netns);
    lan.ends_with(&[&server, &peer], &[]);
}

#[test]
fn a_machine_with_many_addresses_behind_its_own_bridge_is_no_incident() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/bridge_with_many_addresses_without_fault");
    let (server, machine) = (lan.host(10), lan.host(90));
    for command in
        ["link add br0 type bridge", "link set br0 up", "addr flush dev eth0", "link set eth0 master br0"]
    {
        machine.netns.ip(command);
    }
    // As temporary addresses (RFC 8981) are: several of one interface, which come and go.
    let temporary: Vec<IpAddr> = (200..203).map(|number| lan.switch.v6(number)).collect();
    machine.netns.ip(&format!("addr add {}/24 dev br0", machine.v4));
    let service = server.service("::".parse().expect("an address"));
    listen_and_accept(&server.netns, service);
    for address in &temporary {
        machine.netns.ip(&format!("addr add {address}/64 dev br0 nodad"));
        let own = SocketAddr::new(*address, port());
        listen_and_accept(&machine.netns, own);
        // A younger address is preferred as a source: each of them is used in both directions.
        connect(&machine.netns, SocketAddr::new(server.v6, service.port())).0.expect("from there");
        connect(&server.netns, own).0.expect("and back");
    }
    connect(&machine.netns, SocketAddr::new(server.v4, service.port())).0.expect("and by IPv4");
    machine.netns.ip(&format!("addr del {}/64 dev br0", temporary[0]));
    lan.culprit.settle(&machine.netns);
    let different = lan
        .culprit
        .seen(|fact| fact.kind() == "neighbour_mac_mismatch" && fact.text("netns") == server.netns.name());
    assert!(different.is_empty(), "{different:#?}");
    lan.ends_with(&[&server, &machine], &[]);
}

/// A namespace with this many addresses, all of which answer.
#[track_caller]
fn crowd(lan: &Lan, service: u16, many: u8) -> (crate::harness::lan::Host, Vec<SocketAddr>) {
    let host = lan.host(20);
    let all: Vec<SocketAddr> =
        (21..21 + many).map(|number| SocketAddr::new(lan.switch.v4(number), service)).collect();
    for address in &all {
        host.netns.ip(&format!("addr add {}/24 dev eth0", address.ip()));
    }
    let any: IpAddr = "0.0.0.0".parse().expect("an address");
    let listener = listen(&host.netns, SocketAddr::new(any, service));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"hello");
        }
    });
    (host, all)
}

#[track_caller]
fn greets(from: &crate::harness::Netns, all: &[SocketAddr]) {
    for to in all {
        let (stream, _) = connect(from, *to);
        let mut greeting = String::new();
        stream.expect("it listens").read_to_string(&mut greeting).expect("it greets");
        assert_eq!(greeting, "hello");
    }
}

#[test]
fn a_busy_healthy_subnet_of_200_neighbours_is_no_incident() {
    needs!(Pace);
    let lan = Lan::set("neighbour_unresolved/two_hundred_neighbours_without_fault");
    let client = lan.host(10);
    let (crowded, all) = crowd(&lan, port(), 200);
    for _ in 0..2 {
        greets(&client.netns, &all);
    }
    // Let some of them age, and be confirmed.
    client.netns.ip("neigh flush dev eth0");
    greets(&client.netns, &all[..50]);
    lan.ends_with(&[&client, &crowded], &[]);
}

#[test]
fn healthy_neighbours_put_nothing_on_the_ring_of_a_daemon() {
    needs!();
    let mut run = binary();
    run.args(["trace", "--format", "json", "--mode", "anomalies", "-e", "neighbour"]);
    let lan = Lan::watched_by(Culprit::spawn(run));
    let client = lan.host(10);
    let (crowded, all) = crowd(&lan, port(), 50);
    greets(&client.netns, &all);
    client.netns.ip("neigh flush dev eth0");
    greets(&client.netns, &all);
    // Something that is emitted ends the wait.
    let absent = SocketAddr::new(lan.switch.v4(250), port());
    connect(&client.netns, absent).0.expect_err("no host has this address");
    lan.culprit.wait_for("a failure", |fact| fact.is("failed") && fact.text("netns") == client.netns.name());
    let emitted = lan.culprit.seen(|fact| {
        [client.netns.name(), crowded.netns.name()].contains(&fact.text("netns"))
            && fact.text("address") != absent.ip().to_string()
    });
    assert!(emitted.is_empty(), "{emitted:#?}");
}

#[test]
fn an_unresolved_neighbour_that_no_process_waits_for_is_no_incident() {
    needs!(Pace);
    let lan = Lan::set("neighbour_unresolved/unanswered_without_waiting_process");
    let host = lan.host(10);
    let absent = lan.switch.v4(77);
    // Requested on behalf of no process.
    host.netns.ip(&format!("neigh replace {absent} dev eth0 use"));
    lan.culprit.wait_for("its failure", |fact| {
        fact.is("failed")
            && fact.text("netns") == host.netns.name()
            && fact.text("address") == absent.to_string()
    });
    lan.ends_with(&[&host], &[]);
}

#[test]
fn a_neighbour_that_answers_the_second_request_is_no_incident() {
    needs!(Nftables, Pace);
    let lan = Lan::set("neighbour_unresolved/second_request_answered");
    let (host, slow) = (lan.host(10), lan.host(90));
    let service = slow.service(slow.v4);
    listen_and_accept(&slow.netns, service);
    // One question in three is let through at most.
    slow.netns.nft(
        "table arp test { chain in { type filter hook input priority 0; arp operation request numgen inc mod 3 < 1 drop; }; }",
    );
    slow.sets_neighbour(host.v4, &host.mac(), "permanent");
    connect(&host.netns, service).0.expect("after a second");
    lan.ends_with(&[&host], &[]);
}

#[test]
fn an_unresolved_neighbour_whose_only_waiter_gave_up_at_once_is_no_incident() {
    needs!(Pace);
    for mode in ["full", "anomalies"] {
        let mut run = binary();
        run.args(["trace", "--format", "json", "--mode", mode]);
        let lan = Lan::watched_by(Culprit::spawn(run));
        let host = lan.host(10);
        let to = SocketAddr::new(lan.switch.v4(77), port());
        host.netns.enter(move || give_up_connecting(to, Duration::from_millis(200)));
        lan.culprit.wait_for("its failure", |fact| {
            fact.is("failed")
                && fact.text("netns") == host.netns.name()
                && fact.text("address") == to.ip().to_string()
        });
        lan.ends_with(&[&host], &[]);
    }
}
