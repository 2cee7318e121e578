//! A machine that receives at one MAC and sends from another, as bonds, virtual routers and balancers do: when it dies,
//! or stops listening, its entry is as right as it was before.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
};

use crate::{
    harness::{
        Lan,
        lan::Host,
        process::words,
        sockets::{begin_connect, connect, listen},
    },
    needs,
};

/// The peer answers for its address at one device and speaks by another; the server never asks for it.
#[track_caller]
fn sends_from_another_device(lan: &Lan, server: &Host, peer: &Host) {
    lan.plug(peer, "eth1");
    for name in ["all", "eth0", "eth1"] {
        peer.netns.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
    }
    peer.netns.ip(&format!("route add {} dev eth1 src {}", server.v4, peer.v4));
    peer.netns.ip(&format!("neigh replace {} lladdr {} dev eth1 nud permanent", server.v4, server.mac()));
    server.sets_neighbour(peer.v4, &peer.mac(), "permanent");
}

/// Connections of the peer, both ends of each, which show that its MACs belong together.
#[track_caller]
fn connections(
    lan: &Lan,
    server: &Host,
    peer: &Host,
    listener: &TcpListener,
    service: SocketAddr,
) -> Vec<(TcpStream, TcpStream)> {
    let connected: Vec<_> = (0..4)
        .map(|_| {
            let near = connect(&peer.netns, service).0.expect("there and back by different ways");
            (near, listener.accept().expect("it connected").0)
        })
        .collect();
    let other = peer.netns.mac("eth1");
    lan.culprit.wait_for("the difference", |fact| {
        fact.kind() == "neighbour_mac_mismatch"
            && fact.text("netns") == server.netns.name()
            && fact.text("seen_mac") == other
    });
    connected
}

/// Waits until as many retransmissions were not answered.
#[track_caller]
fn unanswered(lan: &Lan, server: &Host, sent: &str, packets: f64) {
    lan.culprit.wait_for("the silence", |fact| {
        fact.kind() == "neighbour_retransmit"
            && fact.text("netns") == server.netns.name()
            && fact.text("packet") == sent
            && fact.number("unanswered") >= packets
    });
}

#[test]
fn a_peer_with_two_macs_that_dies_is_no_stale_entry() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/peer_with_two_macs_dies");
    let (server, peer) = (lan.host(10), lan.host(90));
    sends_from_another_device(&lan, &server, &peer);
    let service = server.service(server.v4);
    let listener = listen(&server.netns, service);
    let mut connected = connections(&lan, &server, &peer, &listener, service);
    for device in ["eth0", "eth1"] {
        peer.netns.ip(&format!("link set {device} down"));
    }
    for (_, far) in &mut connected {
        far.write_all(b"is a host there?").expect("a socket buffer");
    }
    unanswered(&lan, &server, "data", 16.0);
    // What is not acknowledged is said of each connection, and of no entry.
    lan.ends_with(&[&server], &["connection_stalled"; 4]);
}

#[test]
fn a_peer_with_two_macs_that_stops_listening_is_no_stale_entry() {
    needs!(Nftables, Pace);
    let lan = Lan::set("neighbour_stale/peer_with_two_macs_stops_listening");
    let (server, peer) = (lan.host(10), lan.host(90));
    sends_from_another_device(&lan, &server, &peer);
    let service = server.service(server.v4);
    let listener = listen(&server.netns, service);
    let _connected = connections(&lan, &server, &peer, &listener, service);
    peer.netns.nft("table inet test { chain input { type filter hook input priority 0; policy drop; }; }");
    let _pending: Vec<_> = (0..4).map(|_| begin_connect(&peer.netns, service)).collect();
    unanswered(&lan, &server, "syn_ack", 8.0);
    lan.ends_with(&[&server], &[]);
}

#[test]
fn two_devices_of_one_machine_that_announce_its_address_in_turn_are_no_conflict() {
    needs!(Pace);
    let lan = Lan::set("neighbour_conflict/announced_in_turn_by_one_machine");
    let (server, peer) = (lan.host(10), lan.host(90));
    sends_from_another_device(&lan, &server, &peer);
    let service = server.service(server.v4);
    let listener = listen(&server.netns, service);
    let _connected = connections(&lan, &server, &peer, &listener, service);
    // Without this an entry stays for a second at least after each change.
    server.netns.sysctl("net/ipv4/neigh/eth0/locktime", "0");
    server.sets_neighbour(peer.v4, &peer.mac(), "reachable");
    for device in ["eth1", "eth0", "eth1", "eth0", "eth1"] {
        let announce = format!("arping -q -c 1 -A -I {device} {}", peer.v4);
        assert!(peer.netns.spawn(words(&announce)).wait().success());
        let mac = peer.netns.mac(device);
        lan.culprit.wait_for("the move", |fact| {
            fact.kind() == "neighbour_changed"
                && fact.text("netns") == server.netns.name()
                && fact.text("transition") == "mac_changed"
                && fact.text("new_mac") == mac
        });
    }
    lan.ends_with(&[&server], &[]);
}
