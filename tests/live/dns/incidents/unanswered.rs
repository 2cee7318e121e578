//! Lookups that get no answer, half of one, a truncated one or failures; and those that are answered after all.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use serde_json::json;
use simple_dns::{RCODE, TYPE};

use super::{Scene, UNANSWERED, opened};
use crate::{
    harness::{
        Culprit, Netns,
        dns::{Answer, PORT, answer_in_turn, ask, ask_unanswered, query, query_for},
        slow,
        sockets::{begin_connect, me},
    },
    needs,
};

const ADDRESS: Answer = Answer::Address(std::net::Ipv4Addr::new(192, 0, 2, 7));

#[test]
fn a_lookup_that_no_server_answers_is_named_with_process_name_and_server_until_it_is_answered() {
    needs!(Pace);
    let scene = Scene::set("dns_unanswered/server_silent");
    let server = scene.server;
    let silent = scene.pair.server.enter(move || UdpSocket::bind(server).expect("a free port"));
    let asked = query(4711, "db.example.com");
    let (_socket, (pid, tid)) = ask_unanswered(&scene.pair.client, server, asked, 1);
    let opened = scene.opened();
    assert_eq!((opened.task(), opened.blamed()), ((pid.into(), tid.into()), server.to_string()));
    assert_eq!(
        (opened.blame(), opened.text("/cause/query")),
        (("dns_lookup", "certain"), "A db.example.com")
    );
    let waited = opened.number("/details/waited_ms");
    assert!(waited >= 2000 && (waited as f64) < 2000.0 + 500.0 * slow(), "{waited}");
    assert!(opened.remedies().contains(&format!("allow udp/53 and tcp/53 to {}", server.ip())));
    let mut question = [0; 512];
    let (len, from) = silent.recv_from(&mut question).expect("asked");
    silent.send_to(&ADDRESS.to(&question[..len]), from).expect("it waits");
    assert_eq!(scene.resolved(&opened).text("/cause/outcome"), "answered");
    scene.ends_with(1);
}

#[test]
fn one_of_a_pair_of_questions_that_is_lost_is_no_silent_server_in_either_mode() {
    needs!(Pace);
    let scene = Scene::set("dns_unanswered/one_of_a_pair_lost");
    let quiet = Culprit::trace("--mode anomalies");
    let (client, server) = (&scene.pair.client, scene.server);
    let plan = vec![Some(ADDRESS), None, Some(ADDRESS), Some(ADDRESS)];
    let serving = answer_in_turn(&scene.pair.server, server, plan);
    let pair = [query(1, "www.example.com"), query_for(2, "www.example.com", TYPE::AAAA)];
    let send = move |socket: &UdpSocket| {
        for query in &pair {
            socket.send(query).expect("the wire takes it");
        }
    };
    let again = send.clone();
    let socket = client.enter(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
        socket.connect(server).expect("UDP never refuses");
        send(&socket);
        socket.recv(&mut [0; 512]).expect("the answer to one of them");
        socket
    });
    for opened in [scene.opened(), opened(&quiet, client)] {
        assert_eq!(opened.text("/cause/query"), "AAAA www.example.com");
        assert_eq!(opened.text("/details/reason"), "half_unanswered", "{:#}", opened.json);
        assert_eq!(opened.text("/details/answered_type"), "A");
        assert!(opened.remedies().contains("single-request-reopen"), "{}", opened.remedies());
        assert!(!opened.remedies().contains("allow"), "{}", opened.remedies());
    }
    let first = opened(&scene.culprit, client);
    client.enter(move || again(&socket));
    serving.join().expect("served");
    scene.resolved(&first);
    scene.ends_with(1);
}

#[test]
fn one_name_without_an_answer_of_a_server_that_answers_others_is_information_alone() {
    needs!(Pace);
    let scene = Scene::set("dns_unanswered/one_name_of_many");
    let (client, server) = (&scene.pair.client, scene.server);
    let serving = answer_in_turn(&scene.pair.server, server, vec![None, Some(ADDRESS)]);
    let (_socket, _) = ask_unanswered(client, server, query(1, "dead.example.com"), 1);
    client.enter(move || ask(server, &query(2, "fine.example.com")).expect("an answer"));
    serving.join().expect("served");
    let opened = scene.opened();
    assert_eq!((opened.text("/severity"), opened.blame()), ("info", ("dns_lookup", "likely")));
    assert_eq!(opened.number("/details/answers_to_process"), 1);
    assert!(!opened.remedies().contains("allow"), "{}", opened.remedies());
    scene.ends_with(1);
}

#[test]
fn a_truncated_answer_whose_connect_over_tcp_is_silent_is_the_lookups_incident() {
    needs!(Nftables, Pace);
    let scene = Scene::set("dns_unanswered/truncated_and_tcp_dropped");
    let (client, server) = (&scene.pair.client, scene.server);
    scene.pair.server.drop_tcp("input", PORT);
    let serving = answer_in_turn(&scene.pair.server, server, vec![Some(Answer::Truncated)]);
    client.enter(move || ask(server, &query(1, "big.example.com")).expect("an answer of sorts"));
    serving.join().expect("served");
    let (socket, (pid, _)) = begin_connect(client, server);
    let opened = scene.opened();
    assert_eq!((opened.task().0, opened.blame()), (pid.into(), ("outbound_connect", "certain")));
    assert_eq!(opened.text("/details/reason"), "tcp_unanswered");
    assert_eq!(opened.json["details"]["questions"][0]["name"], "big.example.com");
    assert!(opened.text("/summary").contains("truncated"), "{:#}", opened.json);
    // As a connect it stalls, too, and that is part of it.
    scene.culprit.wait_for("the connect pending", |fact| fact.is_to("connect_pending", server));
    drop(socket);
    scene.resolved(&opened);
    scene.ends_with(1);
}

#[test]
fn servfail_three_times_is_an_incident_that_says_so() {
    needs!(Pace);
    let scene = Scene::set("dns_unanswered/servfail_three_times");
    let server = scene.server;
    let plan = vec![Some(Answer::No(RCODE::ServerFailure)); 3];
    let serving = answer_in_turn(&scene.pair.server, server, plan);
    let task = scene.pair.client.enter(move || {
        for (id, name) in [(1, "a.example.com"), (2, "b.example.com"), (3, "c.example.com")] {
            ask(server, &query(id, name)).expect("an answer of sorts");
        }
        me()
    });
    serving.join().expect("served");
    let opened = scene.opened();
    assert_eq!((opened.task().0, opened.text("/details/reason")), (task.0.into(), "failing"));
    assert_eq!(opened.json["details"]["outcomes"], json!({ "servfail": 3 }));
    scene.ends_with(1);
}

/// Sends the question, waits a second for an answer, and sends it again.
fn ask_twice(server: SocketAddr, query: &[u8]) {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("any port");
    socket.connect(server).expect("UDP never refuses");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    socket.send(query).expect("the wire takes it");
    socket.recv(&mut [0; 512]).expect_err("it was lost");
    socket.send(query).expect("the wire takes it");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    socket.recv(&mut [0; 512]).expect("an answer");
}

#[test]
fn a_lost_packet_that_is_answered_at_the_second_attempt_is_healthy() {
    needs!(Pace);
    let mut scene = Scene::set("dns_unanswered/second_attempt_answered_without_fault");
    let server = scene.server;
    let plan = vec![None, Some(ADDRESS), None, Some(ADDRESS)];
    let serving = answer_in_turn(&scene.pair.server, server, plan);
    scene.pair.client.enter(move || {
        for (id, name) in [(1, "a.example.com"), (2, "b.example.com")] {
            ask_twice(server, &query(id, name));
        }
    });
    serving.join().expect("served");
    scene.keeper.catches_up();
    scene.keeper.end();
    // One that is not answered does open one, which comes last.
    let elsewhere = Netns::make();
    let at = SocketAddr::new(elsewhere.loopback(), PORT);
    let _silent = elsewhere.enter(move || UdpSocket::bind(at).expect("a free port"));
    let (_socket, _) = ask_unanswered(&elsewhere, at, query(3, "c.example.com"), 1);
    let proof = opened(&scene.culprit, &elsewhere);
    assert_eq!(proof.text("/kind"), UNANSWERED);
    scene.ends_with(0);
}
