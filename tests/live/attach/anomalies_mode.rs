//! The mode of `culprit run` (`--mode anomalies`): healthy traffic puts nothing on the ring, and everything else is
//! reported with all that `trace` would have known.

use std::{
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    harness::{
        Culprit, Fact, Incident, Netns,
        dns::{self, Answer, answer_once, ask},
        netns::Pair,
        port,
        sockets::{give_up_connecting, listen_on_loopback, me},
        tls::{Identity, NAME, handshake, openssl_client},
    },
    needs,
};

#[test]
fn healthy_handshakes_connects_and_lookups_put_nothing_on_the_ring() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let _server = identity.server(&netns, service, "");
    let (_listener, elsewhere) = listen_on_loopback(&netns);
    let resolver = SocketAddr::new(netns.loopback(), dns::PORT);
    // Without the clock's probe: after a step, which another test may make, clients' sessions are reported for a while.
    let culprit = Culprit::trace("--mode anomalies -e connect,tls,dns");
    for option in ["-tls1_2", "-tls1_3"] {
        let client = openssl_client(&netns, service, option);
        client.wait_for_line("Verify return code");
    }
    netns.enter(move || TcpStream::connect(elsewhere).expect("it listens"));
    let answering = answer_once(&netns, resolver, Answer::Address(Ipv4Addr::new(192, 0, 2, 7)));
    netns.enter(move || ask(resolver, &dns::query(77, "healthy.test")).expect("it answers"));
    answering.join().expect("no panic");
    // A refused connect is emitted, and comes last.
    culprit.settle(&netns);
    let ours = |fact: &Fact| {
        fact.within(&netns) && fact.kind() != "connect_ended"
            || fact.handshake("server", service)
            || fact.handshake("client", service)
            || fact.is_to("connect_ended", service)
            || fact.is_to("connect_ended", elsewhere)
            || fact.text("name") == "healthy.test"
    };
    let seen = culprit.seen(ours);
    assert!(seen.is_empty(), "{seen:#?}");
}

/// A server that looks a name up and connects there before it answers the hello it has read.
fn fetching_server(
    netns: &Netns,
    identity: &Identity,
    listener: TcpListener,
    resolver: SocketAddr,
    fetched: SocketAddr,
) -> JoinHandle<(u32, u32)> {
    let mut connection = identity.server_connection();
    netns.thread_named("fetcher", move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let mut hello = [0; 4096];
        let len = stream.read(&mut hello).expect("the client speaks first");
        connection.read_tls(&mut &hello[..len]).expect("memory");
        ask(resolver, &dns::query(7, "fetched.test")).expect("it answers");
        give_up_connecting(fetched, Duration::from_millis(2500));
        connection.process_new_packets().expect("a hello");
        handshake(&mut connection, &mut stream).expect("they agree");
        me()
    })
}

/// The same stall, in one of the modes; the incident as it opens and as it ends.
fn a_stall_at(mode: &str) -> [serde_json::Value; 2] {
    let (pair, identity) = (Pair::make(), Identity::make());
    let service = SocketAddr::new(pair.v4(2), port());
    let fetched = SocketAddr::new(pair.v4(1), 80);
    pair.client.drop_tcp("input", 80);
    let resolver = SocketAddr::new(pair.v4(1), dns::PORT);
    let std::net::IpAddr::V4(address) = fetched.ip() else { unreachable!("an IPv4 address") };
    let answering = answer_once(&pair.client, resolver, Answer::Address(address));
    let listener = pair.server.enter(move || TcpListener::bind(service).expect("a free port"));
    let culprit = Culprit::trace(&format!("--mode {mode}"));
    let server = fetching_server(&pair.server, &identity, listener, resolver, fetched);
    let _client = openssl_client(&pair.client, service, "");
    let about = |incident: &Incident| incident.json["details"]["local"]["port"] == service.port();
    let opened = culprit.wait_for_incident("the incident", |emitted| about(emitted) && emitted.opens());
    let resolved = culprit
        .wait_for_incident("its end", |emitted| about(emitted) && emitted.text("/state") == "resolved");
    answering.join().expect("no panic");
    let (pid, tid) = server.join().expect("no panic");
    assert_eq!((opened.task(), resolved.id()), ((pid.into(), tid.into()), opened.id()));
    assert_eq!(culprit.incidents(|emitted| about(emitted) && emitted.opens()).len(), 1);
    assert_eq!(resolved.json["cause"]["outcome"], "aborted", "{resolved:?}");
    assert!(resolved.number("/cause/syn_retransmits") >= 1, "{resolved:?}");
    [opened.json, resolved.json]
}

#[test]
fn a_stalled_handshake_is_the_same_incident_in_both_modes() {
    needs!(Openssl, Nftables);
    let [loud, quiet] = ["full", "anomalies"].map(a_stall_at);
    for [opened, _] in [&loud, &quiet] {
        assert_eq!(opened["kind"], "tls_handshake_stalled");
        assert_eq!(opened["details"]["sni"], NAME, "{opened:#}");
        assert_eq!(opened["details"]["stage"], "awaiting_server_hello");
        assert_eq!(opened["cause"]["kind"], "outbound_connect");
        assert_eq!(opened["cause"]["confidence"], "certain");
        assert_eq!(opened["cause"]["destination"]["port"], 80);
        assert_eq!(opened["cause"]["destination"]["name"], "fetched.test", "{opened:#}");
    }
    // Not as it opens: the first SYN retry comes about then.
    let lines = |[_, resolved]: &[serde_json::Value; 2]| resolved["evidence"].as_array().map_or(0, Vec::len);
    assert_eq!(lines(&loud), lines(&quiet), "{loud:#?} {quiet:#?}");
}
