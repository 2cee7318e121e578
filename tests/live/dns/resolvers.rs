//! Which process a lookup belongs to, and which server was asked: behind a port NAT, behind another cgroup program, and
//! with the `dns` probe alone.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use serde_json::{Value, json};

use crate::{
    harness::{
        Culprit, Fact, Netns,
        balancer::balance,
        dns::{Answer, PORT, answer_once, ask, ask_unanswered, framed, query, read_message},
        port,
        sockets::me,
        soon_ms,
    },
    needs,
};

const ADDRESS: Answer = Answer::Address(Ipv4Addr::new(192, 0, 2, 7));

/// The server asked, and where it really listens: as Docker has it in each of its containers.
fn behind_nat(netns: &Netns) -> (SocketAddr, SocketAddr) {
    let (asked, real) = (SocketAddr::new(netns.loopback(), PORT), SocketAddr::new(netns.loopback(), port()));
    for protocol in ["udp", "tcp"] {
        netns.nft(&format!(
            "table ip nat {{ chain out {{ type nat hook output priority -100; \
             ip daddr {} {protocol} dport {PORT} dnat to {real}; }}; }}",
            asked.ip()
        ));
    }
    (asked, real)
}

/// Asks on a socket that is not connected.
fn ask_unconnected(server: SocketAddr, query: &[u8]) -> (u32, u32) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
    socket.send_to(query, server).expect("loopback takes it");
    socket.recv(&mut [0; 512]).expect("an answer");
    me()
}

#[track_caller]
fn fact_about(culprit: &Culprit, kind: &str, name: &str) -> Fact {
    culprit.wait_for(kind, |fact| fact.kind() == kind && fact.text("name") == name)
}

#[track_caller]
fn asked_there(fact: &Fact, asked: SocketAddr, real: SocketAddr, by: &Value) {
    assert_eq!(fact.at("server"), Some(asked), "{fact:?}");
    let wire = json!({"ip": real.ip().to_string(), "port": real.port(), "by": by});
    assert_eq!(fact.json["server"]["wire"], wire, "{fact:?}");
}

#[test]
fn a_lookup_through_a_port_nat_is_seen_and_its_server_is_the_one_asked() {
    needs!(Nftables);
    let netns = Netns::make();
    let (asked, real) = behind_nat(&netns);
    for args in ["", "-e dns"] {
        let culprit = Culprit::trace(args);
        let serving = answer_once(&netns, real, ADDRESS);
        let task = netns.enter(move || {
            ask(asked, &query(4711, "translated.test")).expect("an answer");
            me()
        });
        serving.join().expect("served");
        for kind in ["dns_query", "dns_answer"] {
            let fact = fact_about(&culprit, kind, "translated.test");
            assert_eq!((fact.task(), fact.within(&netns)), (task, true), "{fact:?}");
            asked_there(&fact, asked, real, &json!("nat"));
        }
        let answer = fact_about(&culprit, "dns_answer", "translated.test");
        assert_eq!(answer.list("answers"), ["192.0.2.7"]);
        assert!((0.0..soon_ms()).contains(&answer.number("latency_ms")), "{answer:?}");
        culprit.stop();
    }
}

#[test]
fn a_datagram_of_an_unconnected_socket_through_a_port_nat_is_a_lookup_too() {
    needs!(Nftables);
    let netns = Netns::make();
    let (asked, real) = behind_nat(&netns);
    let culprit = Culprit::trace("");
    let serving = answer_once(&netns, real, ADDRESS);
    let task = netns.enter(move || ask_unconnected(asked, &query(4712, "unconnected.test")));
    serving.join().expect("served");
    let answer = fact_about(&culprit, "dns_answer", "unconnected.test");
    assert_eq!(answer.task(), task);
    asked_there(&answer, asked, real, &Value::Null);
}

#[test]
fn an_unanswered_lookup_through_a_port_nat_names_the_server_asked() {
    needs!(Nftables);
    let netns = Netns::make();
    let (asked, real) = behind_nat(&netns);
    let _silent = netns.enter(move || UdpSocket::bind(real).expect("a free port"));
    let culprit = Culprit::trace("");
    let _asking = ask_unanswered(&netns, asked, query(4713, "silent.test"), 1);
    asked_there(&fact_about(&culprit, "dns_pending", "silent.test"), asked, real, &json!("nat"));
}

/// One lookup over TCP that a server at `real` answers.
fn over_tcp(netns: &Netns, asked: SocketAddr, real: SocketAddr, name: &'static str) -> (u32, u32) {
    let listener = netns.enter(move || TcpListener::bind(real).expect("a free port"));
    let serving = netns.thread(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let answer = ADDRESS.to(&read_message(&mut stream));
        stream.write_all(&framed(&answer)).expect("the client reads");
        stream
    });
    let task = netns.enter(move || {
        let mut stream = TcpStream::connect(asked).expect("it listens");
        stream.write_all(&framed(&query(5, name))).expect("the server reads");
        read_message(&mut stream);
        me()
    });
    serving.join().expect("served");
    task
}

#[test]
fn a_lookup_over_tcp_through_a_port_nat_is_seen() {
    needs!(Nftables);
    let netns = Netns::make();
    let (asked, real) = behind_nat(&netns);
    for args in ["", "-e dns"] {
        let culprit = Culprit::trace(args);
        let task = over_tcp(&netns, asked, real, "streamed.test");
        let answer = fact_about(&culprit, "dns_answer", "streamed.test");
        assert_eq!((answer.task(), answer.text("protocol")), (task, "tcp"));
        asked_there(&answer, asked, real, &json!("nat"));
        culprit.stop();
    }
}

#[test]
fn a_lookup_whose_server_another_cgroup_program_changes_is_of_the_server_asked() {
    needs!(Perl);
    let netns = Netns::make();
    let (asked, real) = (SocketAddr::new(netns.v4(200), PORT), SocketAddr::new(netns.loopback(), port()));
    for later in [false, true] {
        let first = (!later).then(|| balance(asked, real));
        let culprit = Culprit::trace("");
        let second = later.then(|| balance(asked, real));
        let serving = answer_once(&netns, real, ADDRESS);
        let task = netns.enter(move || {
            ask(asked, &query(4714, "balanced.test")).expect("an answer");
            me()
        });
        serving.join().expect("served");
        let answer = fact_about(&culprit, "dns_answer", "balanced.test");
        assert_eq!(answer.task(), task);
        asked_there(&answer, asked, real, &json!("cgroup_program"));
        drop((first, second));
        culprit.stop();
    }
}

#[test]
fn lookups_have_owners_with_their_probe_alone() {
    needs!();
    let netns = Netns::make();
    let server = SocketAddr::new(netns.loopback(), PORT);
    for args in ["-e dns", "-e dns --comm inside"] {
        let culprit = Culprit::trace(args);
        let serving = answer_once(&netns, server, ADDRESS);
        let connected = netns.enter(move || {
            ask(server, &query(1, "connected.test")).expect("an answer");
            me()
        });
        serving.join().expect("served");
        let serving = answer_once(&netns, server, ADDRESS);
        let unconnected = netns.enter(move || ask_unconnected(server, &query(2, "unconnected.test")));
        serving.join().expect("served");
        let streamed = over_tcp(&netns, server, server, "streamed.test");
        for (name, task) in
            [("connected.test", connected), ("unconnected.test", unconnected), ("streamed.test", streamed)]
        {
            for kind in ["dns_query", "dns_answer"] {
                let fact = fact_about(&culprit, kind, name);
                assert_eq!(
                    (fact.task(), fact.comm(), fact.within(&netns)),
                    (task, "inside", true),
                    "{fact:?}"
                );
                assert!(fact.json["server"]["wire"].is_null(), "{fact:?}");
            }
        }
        culprit.stop();
    }
    let culprit = Culprit::trace("-e dns --comm stranger");
    let serving = answer_once(&netns, server, ADDRESS);
    netns.enter(move || ask(server, &query(3, "unwanted.test")).expect("an answer"));
    serving.join().expect("served");
    let ended = culprit.stop();
    assert!(ended.facts.iter().all(|fact| fact.text("name") != "unwanted.test"), "{:?}", ended.facts);
}

#[test]
fn threads_that_share_a_socket_each_own_their_lookups() {
    needs!();
    let netns = Netns::make();
    let server = SocketAddr::new(netns.loopback(), PORT);
    let culprit = Culprit::trace("");
    let serving = netns.enter(move || UdpSocket::bind(server).expect("a free port"));
    let tasks = netns.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        let mut tasks = Vec::new();
        for name in ["first.test", "second.test"] {
            let socket = socket.try_clone().expect("a descriptor");
            let asking = std::thread::spawn(move || {
                socket.send_to(&query(7 + name.len() as u16, name), server).expect("loopback takes it");
                me()
            });
            tasks.push((name, asking.join().expect("asked")));
        }
        for _ in 0..2 {
            let mut buffer = [0; 512];
            let (len, from) = serving.recv_from(&mut buffer).expect("a query");
            serving.send_to(&ADDRESS.to(&buffer[..len]), from).expect("the client waits");
            socket.recv(&mut buffer).expect("an answer");
        }
        tasks
    });
    for (name, task) in tasks {
        for kind in ["dns_query", "dns_answer"] {
            assert_eq!(fact_about(&culprit, kind, name).task(), task, "{kind} {name}");
        }
    }
}
