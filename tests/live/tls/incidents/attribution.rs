//! The limits of attribution: no client blamed for a stall of its server, no "nothing on the network" with something
//! left out, no critical incident for a hello to a plaintext port, no wrong process; and fetches before the first read
//! and after the last message, which are blamed like any other.

use std::process::Command;

use serde_json::json;

use crate::{
    harness::{
        Stage, port,
        stage::{PATIENCE, VOID, python},
    },
    needs,
};

#[test]
fn a_keep_alive_client_is_not_named_while_an_event_loop_waits_for_its_own_timer() {
    needs!(Openssl, Tun, Node, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/timer_beside_keep_alive_client");
    let mut node = Command::new("node");
    node.arg(stage.program("tls_timer.js"))
        .arg(stage.service.ip().to_string())
        .arg(stage.service.port().to_string())
        .args([stage.identity.cert(), stage.identity.key()])
        .args(["slow.test", "2500"]);
    stage.act(node);
    let mut other = stage.client("fast.test", "-ign_eof");
    other.wait_for_line("Verify return code");
    let _slow = stage.client("slow.test", "");
    stage.culprit.wait_for("the slow hello", |fact| {
        fact.kind() == "client_hello"
            && fact.handshake("server", stage.service)
            && fact.json["sni"] == "slow.test"
    });
    // Served in the middle of it: from then on its server was the last to speak.
    other.say("GET / HTTP/1.1\r\nHost: fast.test\r\n\r\n");
    other.wait_for_line("served");
    let opened = stage.stalled();
    let resolved = stage.resolved(&opened);
    for emitted in [&opened, &resolved] {
        assert_eq!((emitted.blame().0, emitted.blamed().as_str()), ("none_seen", ""), "{:#}", emitted.json);
    }
    stage.ends_with(1);
}

#[test]
fn a_fetch_between_accept_and_the_first_read_is_likely_and_certain_once_it_ends() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_before_hello_is_read");
    let pid = stage.serve(&json!({ "before": ["fetch", VOID, 80, PATIENCE] }));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.text("/details/stage"), "client_hello_unread");
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "likely"), format!("{VOID}:80")));
    assert_eq!(opened.task().0, pid);
    let remedies = opened.json["remedies"].to_string();
    assert!(remedies.contains(&format!("allow egress tcp/80 to {VOID}")), "{remedies}");
    assert!(!remedies.contains("more threads"), "{remedies}");
    let resolved = stage.resolved(&opened);
    // Emulated, a thread needs longer to go on than what counts as at once.
    if crate::harness::slow() <= 1.0 {
        assert_eq!(
            (resolved.blame(), resolved.blamed()),
            (("outbound_connect", "certain"), format!("{VOID}:80"))
        );
    }
    stage.ends_with(1);
}

#[test]
fn a_hello_to_a_plaintext_port_is_no_incident() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/hello_to_plaintext_port_without_fault");
    let mut server = python();
    server.arg(stage.program("plain_server.py")).arg(stage.service.ip().to_string());
    server.arg(stage.service.port().to_string()).arg("plain");
    stage.act(server);
    let _client = stage.client("slow.test", "");
    stage.culprit.wait_for("two seconds of silence", |fact| {
        fact.kind() == "handshake_pending"
            && fact.handshake("server", stage.service)
            && fact.json["stall_ms"].as_f64().is_some_and(|stalled| stalled >= 2000.0)
    });
    stage.ends_with(0);
}

#[test]
fn a_hello_to_a_port_that_never_answered_one_is_a_warning_at_most() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/hello_to_plaintext_port_of_tls_program");
    let mut server = python();
    server.arg(stage.program("plain_server.py")).arg(stage.service.ip().to_string());
    server.arg(stage.service.port().to_string()).arg("ssl");
    stage.act(server);
    let clients = [stage.client("slow.test", ""), stage.client("other.test", "")];
    let opened = stage.stalled();
    assert_eq!(opened.text("/severity"), "warning");
    assert!(opened.text("/summary").contains("may speak no TLS"), "{:#}", opened.json);
    assert!(!opened.json.to_string().contains("gdb"), "{:#}", opened.json);
    drop(clients);
    let resolved = stage.resolved(&opened);
    assert_eq!(resolved.text("/severity"), "warning");
    stage.ends_with(1);
}

#[test]
fn the_child_that_holds_an_unread_hello_is_the_process_named() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/hello_unread_by_forked_child");
    let parent = stage.serve(&json!({ "serve": "fork", "before": ["sleep", PATIENCE] }));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame().0, "unread");
    assert_ne!(opened.task().0, parent, "{:#}", opened.json);
    let summary = opened.text("/summary");
    assert!(summary.contains("the connection is accepted, and no thread is free"), "{summary}");
    stage.ends_with(1);
}

#[test]
fn a_thread_that_waits_on_a_unix_socket_waits_for_the_process_that_listens_there() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/daemon_accepts_nothing");
    let path = stage.program("daemon.socket");
    // Nothing accepts: it is this test that listens.
    let _daemon = std::os::unix::net::UnixListener::bind(&path).expect("our own directory");
    stage.serve_slowly(&json!(["ask_daemon", path, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("local_service", "certain"), "{:#}", opened.json);
    assert_eq!(opened.json["cause"]["process"]["pid"], std::process::id(), "{:#}", opened.json);
    let summary = opened.text("/summary");
    assert!(summary.contains("daemon.socket") && !summary.contains("did nothing"), "{summary}");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_fetch_after_the_last_message_of_a_handshake_is_attributed_to_validating_the_peer() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("connect_stalled/fetch_after_handshake");
    // The client is on the host with the void; the server on the other.
    let service = std::net::SocketAddr::new(stage.pair.v4(1), port());
    let _server = stage.identity.server(&stage.pair.client, service, "");
    let mut client = python();
    client.arg(stage.program("validating_client.py")).arg(service.ip().to_string());
    client.arg(service.port().to_string()).args([VOID, "80", "4.5"]);
    let pid = stage.act(client);
    stage.actor().say("begin\n");
    let opened = stage.culprit.wait_for_incident("the fetch", |emitted| {
        emitted.opens() && emitted.within(&stage.pair.server) && emitted.text("/kind") == "connect_stalled"
    });
    assert_eq!((opened.task().0, opened.blamed()), (pid, format!("{VOID}:80")));
    let waits = &opened.json["details"]["validates"];
    assert_eq!(waits[0]["ip"], service.ip().to_string(), "{:#}", opened.json);
    assert_eq!(waits[0]["port"], service.port());
    let remedies = opened.json["remedies"].to_string();
    assert!(remedies.contains(&format!("install the full chain on {}", service.ip())), "{remedies}");
    stage.actor().wait_for_line("asked");
    stage.resolved(&opened);
    stage.ends_with(1);
}
