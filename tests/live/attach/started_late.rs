//! culprit started in the middle of an outage: what was under way before is adopted with its owner, and reported as what it
//! is; what was healthy, or only may have been a handshake, is not.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    harness::{
        Culprit, Fact, Incident, Netns, Running, Stage,
        dns::{PORT, ask_unanswered, query},
        eventually,
        netns::Pair,
        port,
        process::words,
        slow,
        sockets::{begin_connect, listen, me},
        stage::{VOID, python},
        tls::{Identity, openssl_client},
    },
    needs,
};

/// A program with a TLS library that listens and does not accept.
const SERVER: &str = "
import socket, ssl, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
time.sleep(60)
";
/// What is under way when culprit starts is reported this soon.
const SOON: Duration = Duration::from_secs(2);
/// A port by which what a connection began with is known for a ClientHello.
const HTTPS: u16 = 443;
/// Until a fetch is given up that began before culprit did, seconds: longer where culprit is slow to start.
fn patience() -> f64 {
    7.0 * slow()
}

/// The outage lasts for longer than what counts as stalled. How often SYNs were sent again by then differs between kernels
/// (`tcp_syn_linear_timeouts`), and is twice at least.
#[track_caller]
fn lasts(netns: &Netns) {
    std::thread::sleep(Duration::from_millis(3500));
    eventually("SYNs are sent again", || netns.counter("TcpExt", "TCPSynRetrans") >= 2);
}

/// The first incident for which this holds, soon after the start.
#[track_caller]
fn soon(culprit: &Culprit, what: &str, wanted: impl Fn(&Incident) -> bool) -> Incident {
    let began = Instant::now();
    let opened = culprit.wait_for_incident(what, wanted);
    let took = began.elapsed();
    assert!(took < SOON.mul_f64(slow()), "{what} after {took:?}");
    opened
}

#[test]
fn a_connect_that_was_pending_is_reported_with_its_process_and_since_when() {
    needs!(Nftables);
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let (socket, _) = begin_connect(&netns, to);
    lasts(&netns);
    let culprit = Culprit::trace("");
    let is_it = |incident: &Incident| {
        incident.text("/kind") == "connect_stalled" && incident.blamed() == to.to_string()
    };
    let opened = soon(&culprit, "the connect", is_it);
    assert_eq!(opened.task().0, u64::from(std::process::id()), "{:#}", opened.json);
    assert!(opened.within(&netns), "{:#}", opened.json);
    assert!(opened.number("/details/pending_ms") >= 3000, "{:#}", opened.json);
    assert!(opened.number("/cause/syn_retransmits") >= 2, "{:#}", opened.json);
    assert_eq!(opened.json["details"]["since_before_start"], true);
    assert!(opened.text("/summary").contains("since before culprit started"), "{:#}", opened.json);
    drop(socket);
    let ended = culprit.wait_for("its end", |fact| fact.is_to("connect_ended", to));
    assert_eq!((ended.text("outcome"), ended.is("since_before_start")), ("aborted", true), "{}", ended.json);
    assert_eq!(ended.pid(), std::process::id());
    culprit.wait_for_incident("its end", |incident| is_it(incident) && incident.text("/state") == "resolved");
}

#[test]
fn a_syn_that_is_sent_again_shows_that_this_host_drops_it() {
    needs!(Nftables, DropReasons);
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let _pending = begin_connect(&netns, to);
    lasts(&netns);
    let culprit = Culprit::trace("");
    let is_it = |incident: &Incident| {
        incident.text("/kind") == "connect_stalled" && incident.blamed() == to.to_string()
    };
    let opened = soon(&culprit, "the connect", is_it);
    if opened.number("/details/dropped_by_host") == 0 {
        assert!(!opened.json.to_string().contains("firewall"), "{:#}", opened.json);
    }
    let seen = culprit.wait_for_incident("who drops it", |incident| {
        is_it(incident) && incident.number("/details/dropped_by_host") > 0
    });
    assert!(seen.remedies().contains("input chain"), "{:#}", seen.json);
}

#[test]
fn only_connects_that_pass_the_filters_are_adopted() {
    needs!(Nftables);
    let netns = Netns::make();
    netns.nft(
        "table inet test { chain input { type filter hook input priority 0; tcp dport { 9, 10 } drop; }; }",
    );
    let (wanted, other) = (SocketAddr::new(netns.loopback(), 9), SocketAddr::new(netns.loopback(), 10));
    let _pending = [begin_connect(&netns, wanted), begin_connect(&netns, other)];
    lasts(&netns);
    let culprit = Culprit::trace("--port 9");
    soon(&culprit, "the one that is wanted", |incident| incident.blamed() == wanted.to_string());
    let ended = culprit.stop();
    assert!(!ended.incidents.iter().any(|incident| incident.blamed() == other.to_string()), "{ended:#?}");
    // A process that has nothing to do with it, for some sweeps.
    let stranger = Running::spawn(&mut words("sleep 30"));
    let elsewhere = Culprit::trace(&format!("-p {}", stranger.pid()));
    std::thread::sleep(Duration::from_millis(900));
    let ended = elsewhere.stop();
    assert!(ended.incidents.iter().all(|incident| !incident.within(&netns)), "{ended:#?}");
}

/// The server's handshake, as it opens.
#[track_caller]
fn stalled(stage: &Stage) -> Incident {
    soon(&stage.culprit, "the handshake", |incident| stage.serves(incident))
}

#[test]
fn a_handshake_whose_fetch_was_pending_is_reported_as_likely_waiting_for_it() {
    needs!(Openssl, Tun);
    let mut stage = Stage::unwatched("tls_handshake_stalled/started_during_fetch", |pair| pair.v4(2), HTTPS);
    let pid = stage.serve_unwatched(&json!({ "sni": { "slow.test": ["fetch", VOID, 80, patience()] } }));
    let _client = stage.client("slow.test", "");
    lasts(&stage.pair.server);
    let stage = stage.watched();
    let opened = stalled(&stage);
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "likely"), format!("{VOID}:80")));
    assert_eq!((opened.task().0, opened.text("/details/stage")), (pid, "awaiting_server_hello"));
    assert_eq!(opened.json["details"]["since_before_start"], true);
    assert!(opened.number("/details/stall_ms") >= 3000, "{:#}", opened.json);
    let summary = opened.text("/summary");
    assert!(summary.contains("since before culprit started") && !summary.contains("thread 0"), "{summary}");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn handshakes_that_wait_to_be_accepted_are_counted_with_the_one_that_holds_the_accept_loop() {
    needs!(Openssl, Tun);
    let mut stage =
        Stage::unwatched("tls_handshake_stalled/started_behind_accept_loop", |pair| pair.v4(2), HTTPS);
    stage.serve_unwatched(
        &json!({ "serve": "single", "sni": { "slow.test": ["fetch", VOID, 80, patience()] } }),
    );
    let _first = stage.client("slow.test", "");
    eventually("the first is being served", || stage.pair.server.counter("TcpExt", "TCPSynRetrans") >= 1);
    let _behind = [stage.client("fast.test", ""), stage.client("fast.test", "")];
    lasts(&stage.pair.server);
    let stage = stage.watched();
    let opened = stalled(&stage);
    // Reported again as their number doubles.
    let more = soon(&stage.culprit, "those behind it", |incident| {
        incident.id() == opened.id() && incident.number("/details/waiting") >= 2
    });
    assert_eq!(
        (more.blame().0, more.blamed()),
        ("outbound_connect", format!("{VOID}:80")),
        "{:#}",
        more.json
    );
    assert!(more.number("/details/unread") >= 1, "{:#}", more.json);
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_hello_that_no_thread_accepts_is_likely_unread_and_names_the_listener() {
    needs!(Openssl);
    let pair = Pair::make();
    let service = pair.service(HTTPS);
    let mut server = python();
    server.args(["-c", SERVER]).arg(service.ip().to_string()).arg(HTTPS.to_string());
    let server = pair.server.spawn(server);
    server.wait_for_line("ready");
    let _client = openssl_client(&pair.client, service, "");
    std::thread::sleep(Duration::from_millis(1500));
    let culprit = Culprit::trace("");
    let opened = soon(&culprit, "the hello", |incident| {
        incident.text("/kind") == "tls_handshake_stalled" && incident.within(&pair.server)
    });
    assert_eq!(opened.blame(), ("unread", "likely"), "{:#}", opened.json);
    assert_eq!(opened.text("/details/stage"), "client_hello_unread");
    assert_eq!(opened.task().0, u64::from(server.pid()), "{:#}", opened.json);
}

#[test]
fn connections_that_are_no_handshake_or_owe_nothing_are_not_adopted() {
    needs!(Openssl);
    let (pair, identity) = (Pair::make(), Identity::make());
    let (secure, plain) = (pair.service(HTTPS), pair.service(port()));
    let _server = identity.server(&pair.server, secure, "");
    // One that is served, one that has said nothing yet, and one that asks another service in another protocol.
    let served = openssl_client(&pair.client, secure, "");
    served.wait_for_line("Verify return code");
    let listener = listen(&pair.server, plain);
    let mut asking = pair.client.enter(move || TcpStream::connect(plain).expect("it listens"));
    asking.write_all(&[b'x'; 300]).expect("a connection");
    let (mut asked, _) = listener.accept().expect("it came");
    asked.read_exact(&mut [0; 300]).expect("what was sent");
    let idle = pair.client.enter(move || TcpStream::connect(secure).expect("it listens"));
    let culprit = Culprit::trace("");
    std::thread::sleep(Duration::from_secs(2));
    culprit.settle(&pair.client);
    let ended = culprit.stop();
    let here = |incident: &&Incident| incident.within(&pair.server) || incident.within(&pair.client);
    let opened: Vec<_> = ended.incidents.iter().filter(here).collect();
    assert!(opened.is_empty(), "{opened:#?}");
    drop((served, asking, asked, idle));
}

#[test]
fn a_lookup_that_is_asked_again_after_the_start_has_its_process_and_passes_its_filter() {
    needs!(Pace);
    let pair = Pair::make();
    let server = pair.service(PORT);
    let silent = pair.server.enter(move || UdpSocket::bind(server).expect("a free port"));
    let (socket, (pid, _)) = ask_unanswered(&pair.client, server, query(4711, "db.example.com"), 1);
    silent.recv(&mut [0; 512]).expect("asked");
    let watching =
        [Culprit::trace(""), Culprit::trace(&format!("-p {pid}")), Culprit::trace("--mode anomalies")];
    let other = Culprit::trace(&format!("-p {}", watching[0].pid()));
    let (_socket, task) = pair.client.enter(move || {
        socket.send(&query(4711, "db.example.com")).expect("the wire takes it");
        (socket, me())
    });
    for culprit in &watching {
        let opened = culprit.wait_for_incident("the lookup", |incident| {
            incident.opens()
                && incident.text("/kind") == "dns_unanswered"
                && incident.blamed() == server.to_string()
        });
        assert_eq!(opened.task(), (task.0.into(), task.1.into()), "{:#}", opened.json);
        assert!(opened.within(&pair.client), "{:#}", opened.json);
    }
    let asked = |fact: &Fact| fact.kind() == "dns_query" && fact.at("server") == Some(server);
    assert_eq!(other.seen(asked).len(), 0);
}
