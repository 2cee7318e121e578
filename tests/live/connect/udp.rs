//! UDP peers: reported once, when a socket first uses them.

use std::net::{SocketAddr, UdpSocket};

use crate::{
    harness::{Culprit, Netns, port, sockets::me},
    needs,
};

#[test]
fn a_connected_udp_socket_is_reported_with_its_peer_and_not_its_datagrams() {
    needs!();
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let receiver = UdpSocket::bind(to).expect("a free port");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        socket.connect(to).expect("UDP never refuses");
        for _ in 0..3 {
            socket.send(b"datagram").expect("loopback takes it");
        }
        drop(receiver);
        me()
    });
    culprit.settle(&netns);
    let facts = culprit.seen(|fact| fact.at("destination") == Some(to));
    assert_eq!(facts.len(), 1, "{facts:?}");
    assert_eq!((facts[0].kind(), facts[0].text("protocol")), ("connect_started", "udp"));
    assert_eq!((facts[0].task(), facts[0].within(&netns)), (task, true));
}

#[test]
fn an_unconnected_udp_socket_is_reported_once_for_each_destination() {
    needs!();
    let netns = Netns::make();
    let peers = [port(), port()].map(|port| SocketAddr::new(netns.loopback(), port));
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let receivers = peers.map(|peer| UdpSocket::bind(peer).expect("a free port"));
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        for _ in 0..3 {
            for peer in peers {
                socket.send_to(b"datagram", peer).expect("loopback takes it");
            }
        }
        drop(receivers);
        me()
    });
    culprit.settle(&netns);
    for peer in peers {
        let facts = culprit.seen(|fact| fact.at("destination") == Some(peer));
        assert_eq!(facts.len(), 1, "{facts:?}");
        assert_eq!((facts[0].kind(), facts[0].text("protocol")), ("connect_started", "udp"));
        assert_eq!(facts[0].task(), task);
    }
}

#[test]
fn a_udp_peer_that_refuses_is_reported() {
    needs!(SocketErrors);
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        socket.connect(to).expect("UDP never refuses");
        socket.send(b"datagram").expect("loopback takes it");
        socket.recv(&mut [0; 8]).expect_err("an ICMP error came back");
        me()
    });
    let end = culprit.wait_for("the refusal", |fact| fact.is_to("connect_ended", to));
    assert_eq!((end.task(), end.text("protocol")), (task, "udp"));
    assert_eq!((end.text("outcome"), end.text("errno")), ("refused", "ECONNREFUSED"));
}

#[test]
fn a_service_that_answers_its_clients_makes_no_connect() {
    needs!();
    let netns = Netns::make();
    let service = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    let client = netns.enter(move || {
        let server = UdpSocket::bind(service).expect("a free port");
        let client = UdpSocket::bind("0.0.0.0:0").expect("any port");
        client.send_to(b"question", service).expect("loopback takes it");
        let (_, from) = server.recv_from(&mut [0; 16]).expect("it arrived");
        server.send_to(b"answer", from).expect("loopback takes it");
        from
    });
    culprit.settle(&netns);
    assert_eq!(culprit.seen(|fact| fact.at("destination") == Some(service)).len(), 1);
    let answers = culprit.seen(|fact| fact.at("destination") == Some(client));
    assert!(answers.is_empty(), "{answers:?}");
}
