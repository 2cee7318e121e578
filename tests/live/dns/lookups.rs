//! DNS lookups: answered, refused, unanswered, over UDP and over TCP in pieces.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use simple_dns::RCODE;

use crate::{
    connect::outcomes::end_of,
    harness::{
        Culprit, Fact, Netns,
        dns::{Answer, PORT, answer_once, ask, ask_unanswered, framed, query, read_message},
        sockets::{connect, listen_on_loopback, me},
        soon_ms,
        tls::send_in_pieces,
    },
    needs,
};

fn server_of(netns: &Netns) -> SocketAddr {
    SocketAddr::new(netns.loopback(), PORT)
}

/// The first fact of a kind about a lookup at this server.
#[track_caller]
fn lookup(culprit: &Culprit, kind: &str, server: SocketAddr) -> Fact {
    culprit.wait_for(kind, |fact| fact.kind() == kind && fact.at("server") == Some(server))
}

#[test]
fn an_answer_is_reported_with_its_process_question_and_duration() {
    needs!();
    let netns = Netns::make();
    let server = server_of(&netns);
    let serving = answer_once(&netns, server, Answer::Address(Ipv4Addr::new(192, 0, 2, 7)));
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        ask(server, &query(4711, "answered.test")).expect("an answer");
        me()
    });
    serving.join().expect("served");
    let answer = lookup(&culprit, "dns_answer", server);
    let asked = lookup(&culprit, "dns_query", server);
    assert!(asked.index < answer.index);
    for fact in [&asked, &answer] {
        assert_eq!((fact.task(), fact.comm(), fact.within(&netns)), (task, "inside", true));
        assert_eq!((fact.text("name"), fact.text("query_type")), ("answered.test", "A"));
        assert_eq!((fact.text("protocol"), fact.text("probe")), ("udp", "dns"));
    }
    assert_eq!((answer.text("rcode"), answer.list("answers")), ("NOERROR", vec!["192.0.2.7"]));
    assert!((0.0..soon_ms()).contains(&answer.number("latency_ms")), "{answer:?}");
    assert!(!answer.is("truncated"));
}

#[test]
fn a_name_that_was_looked_up_is_shown_beside_its_address_afterwards() {
    needs!();
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let std::net::IpAddr::V4(address) = to.ip() else { unreachable!("loopback is IPv4") };
    let server = server_of(&netns);
    let serving = answer_once(&netns, server, Answer::Address(address));
    let culprit = Culprit::trace("");
    netns.enter(move || ask(server, &query(1, "named.test")).expect("an answer"));
    serving.join().expect("served");
    connect(&netns, to).0.expect("it listens");
    assert_eq!(end_of(&culprit, to).json["destination"]["name"], "named.test");
    // A name is true where it was looked up, and nowhere else (who may believe it: `hostile`).
    let elsewhere = Netns::make();
    let there = SocketAddr::new(to.ip(), crate::harness::port());
    connect(&elsewhere, there).0.expect_err("nothing listens");
    assert!(end_of(&culprit, there).json["destination"]["name"].is_null());
}

#[test]
fn a_server_that_refuses_to_answer_is_reported_with_its_rcode() {
    needs!(Pace);
    let netns = Netns::make();
    let server = server_of(&netns);
    let serving = answer_once(&netns, server, Answer::No(RCODE::Refused));
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        ask(server, &query(2, "refused.test")).expect("an answer of sorts");
        me()
    });
    serving.join().expect("served");
    let answer = lookup(&culprit, "dns_answer", server);
    assert_eq!((answer.task(), answer.text("rcode"), answer.text("name")), (task, "REFUSED", "refused.test"));
    assert_eq!(answer.list("answers").len(), 0);
}

#[test]
fn a_closed_port_fails_the_lookup_at_once() {
    needs!(SocketErrors);
    let netns = Netns::make();
    let server = server_of(&netns);
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let error = ask(server, &query(3, "closed.test")).expect_err("nothing serves");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        me()
    });
    let failed = lookup(&culprit, "dns_failed", server);
    assert_eq!((failed.task(), failed.text("errno")), (task, "ECONNREFUSED"));
    assert_eq!((failed.text("name"), failed.text("query_type")), ("closed.test", "A"));
    assert!(failed.number("elapsed_ms") < soon_ms(), "{failed:?}");
}

#[test]
fn an_unanswered_lookup_is_reported_while_pending_with_its_number_of_queries() {
    needs!();
    let netns = Netns::make();
    let server = server_of(&netns);
    let _silent = netns.enter(move || UdpSocket::bind(server).expect("a free port"));
    let culprit = Culprit::trace("");
    let (_socket, task) = ask_unanswered(&netns, server, query(4, "silent.test"), 2);
    let pending = lookup(&culprit, "dns_pending", server);
    assert_eq!((pending.task(), pending.text("name")), (task, "silent.test"));
    assert_eq!(pending.number("queries"), 2.0);
    assert!(pending.number("elapsed_ms") >= 1000.0, "{pending:?}");
}

/// One lookup over TCP, question and answer each cut at this byte if at all.
fn over_tcp(cut: Option<usize>) {
    let netns = Netns::make();
    let server = server_of(&netns);
    let listener = netns.enter(move || TcpListener::bind(server).expect("a free port"));
    let culprit = Culprit::trace("");
    let send = move |stream: &mut TcpStream, message: &[u8]| {
        let framed = framed(message);
        let (one, two) = framed.split_at(cut.unwrap_or(0));
        match cut {
            Some(_) => send_in_pieces(stream, &[one, two]),
            None => stream.write_all(&framed).expect("the peer reads"),
        }
    };
    let serving = netns.thread(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let answer = Answer::Address(Ipv4Addr::new(192, 0, 2, 8)).to(&read_message(&mut stream));
        send(&mut stream, &answer);
        stream
    });
    let task = netns.enter(move || {
        let mut stream = TcpStream::connect(server).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("TCP");
        send(&mut stream, &query(5, "streamed.test"));
        read_message(&mut stream);
        me()
    });
    serving.join().expect("served");
    let answer = lookup(&culprit, "dns_answer", server);
    assert_eq!((answer.task(), answer.text("protocol")), (task, "tcp"));
    assert_eq!((answer.text("name"), answer.list("answers")), ("streamed.test", vec!["192.0.2.8"]));
    assert!((0.0..soon_ms()).contains(&answer.number("latency_ms")), "{answer:?}");
    culprit.settle(&netns);
    let emitted = culprit.seen(|fact| fact.text("probe") == "dns" && fact.at("server") == Some(server));
    assert_eq!(emitted.len(), 2, "one question and one answer: {emitted:#?}");
}

#[test]
fn a_lookup_over_tcp_is_reported_like_one_over_udp() {
    needs!();
    over_tcp(None);
}

#[test]
fn a_lookup_over_tcp_split_inside_a_message_is_reassembled() {
    needs!(Pace);
    over_tcp(Some(20));
}

#[test]
fn a_lookup_over_tcp_whose_length_comes_alone_is_reassembled() {
    needs!(Pace);
    over_tcp(Some(2));
}

#[test]
fn a_lookup_of_an_unconnected_socket_belongs_to_the_sending_process() {
    needs!();
    let netns = Netns::make();
    let server = server_of(&netns);
    let serving = answer_once(&netns, server, Answer::No(RCODE::NameError));
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        socket.send_to(&query(6, "nowhere.test"), server).expect("loopback takes it");
        socket.recv(&mut [0; 512]).expect("an answer");
        me()
    });
    serving.join().expect("served");
    let answer = lookup(&culprit, "dns_answer", server);
    assert_eq!((answer.task(), answer.text("rcode")), (task, "NXDOMAIN"));
}
