//! What must open no incident, or none at this host's expense: healthy handshakes, slow clients, remote servers.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    harness::{
        Culprit, Netns, Stage, port,
        sockets::listen_and_accept,
        tls::{Identity, drain, handshake, hello_of},
    },
    needs,
};

#[test]
fn a_busy_healthy_server_that_connects_in_every_handshake_opens_nothing() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/busy_server_without_fault");
    let elsewhere = SocketAddr::new(stage.pair.v4(1), port());
    listen_and_accept(&stage.pair.client, elsewhere);
    let action = json!(["fetch", elsewhere.ip().to_string(), elsewhere.port(), 5]);
    stage.serve(&json!({ "sni": { "service.test": action } }));
    for _ in 0..4 {
        let (service, clients) = (stage.service, 25);
        let mut connections: Vec<_> = (0..clients).map(|_| stage.identity.client(|_| ())).collect();
        stage.pair.client.enter(move || {
            for connection in &mut connections {
                let mut stream = TcpStream::connect(service).expect("it listens");
                handshake(connection, &mut stream).expect("they agree");
            }
        });
    }
    stage.culprit.settle(&stage.pair.server);
    let done =
        stage.culprit.seen(|fact| fact.kind() == "handshake_done" && fact.handshake("server", stage.service));
    assert_eq!(done.len(), 100);
    stage.ends_with(0);
}

#[test]
fn a_slow_client_is_not_this_hosts_fault() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/slow_clients_without_fault");
    stage.serve(&json!({}));
    let service = stage.service;
    let (mut half, mut mute) = (stage.identity.client(|_| ()), stage.identity.client(|_| ()));
    let _streams = stage.pair.client.enter(move || {
        let mut one = TcpStream::connect(service).expect("it listens");
        one.write_all(&hello_of(&mut half)[..90]).expect("loopback takes it");
        let mut two = TcpStream::connect(service).expect("it listens");
        two.write_all(&hello_of(&mut mute)).expect("loopback takes it");
        (one, two)
    });
    // Reported twice means that it would have opened long since.
    stage.culprit.wait_for("a wait of two seconds and more", |fact| {
        fact.kind() == "handshake_pending"
            && fact.handshake("server", service)
            && fact.number("stall_ms") > 1900.0
    });
    let about = stage.culprit.incidents(|emitted| stage.serves(emitted));
    assert!(about.is_empty(), "{about:#?}");
    // The mute client's host is this one too: there it is an incident, and the only one.
    let client =
        stage.culprit.wait_for_incident("the client's own", |emitted| emitted.within(&stage.pair.client));
    assert_eq!(
        (client.text("/details/role"), client.text("/details/stage")),
        ("client", "awaiting_client_finish")
    );
    stage.ends_with(1);
}

#[test]
fn a_remote_server_that_does_not_answer_is_not_this_clients_fault() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/stopped_server_one_client");
    stage.serve(&json!({}));
    stage.actor().signal(Signal::STOP);
    let client = stage.client("service.test", "");
    stage.culprit.wait_for("the client's wait", |fact| {
        fact.kind() == "handshake_pending"
            && fact.handshake("client", stage.service)
            && fact.number("stall_ms") > 1900.0
    });
    let about = stage
        .culprit
        .incidents(|emitted| emitted.text("/details/role") == "client" && emitted.within(&stage.pair.client));
    assert!(about.is_empty(), "{about:#?}");
    drop(client);
    stage.actor().signal(Signal::CONT);
    // The server's host is this one too: there it is an incident, and the only one.
    stage.ends_with(1);
}

#[test]
fn a_handshake_that_is_merely_closed_opens_nothing() {
    needs!(Openssl, Pace);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let _server = identity.server(&netns, service, "");
    let culprit = Culprit::trace("");
    let mut connection = identity.client(|_| ());
    netns.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        stream.write_all(&hello_of(&mut connection)).expect("loopback takes it");
        stream.shutdown(std::net::Shutdown::Write).expect("our own socket");
        drain(&mut stream);
    });
    culprit.settle(&netns);
    let emitted = culprit.incidents(|emitted| emitted.within(&netns));
    assert!(emitted.is_empty(), "{emitted:#?}");
}
