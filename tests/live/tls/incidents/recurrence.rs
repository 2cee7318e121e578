//! Situations that last and recur: one incident each, whatever their age, however often clients give up and return; and
//! connects that explain a stall open no incident of their own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::Acceptor,
};
use serde_json::json;

use crate::{
    harness::{
        Stage, port,
        sockets::{give_up_connecting, listen, me},
        stage::{PATIENCE, VOID, VOID6},
        tls::hello_of,
    },
    needs,
};

/// Longer than a connect outside any handshake may be pending.
const LONG: f64 = 4.5;

#[test]
fn a_blamed_connect_of_another_thread_is_no_incident_of_its_own_however_old() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_by_pool_thread_for_seconds");
    stage.serve_slowly(&json!(["executor", "fetch", VOID, 80, LONG]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    let gone: SocketAddr = format!("{VOID}:80").parse().expect("an address");
    stage.culprit.wait_for("the connect, three seconds old", |fact| fact.is_to("connect_pending", gone));
    let resolved = stage.resolved(&opened);
    assert_eq!((resolved.blame(), resolved.blamed()), (("outbound_connect", "certain"), gone.to_string()));
    stage.ends_with(1);
}

#[test]
fn a_stall_that_recurs_is_the_same_incident_with_a_count() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_stalls_twice");
    stage.serve_slowly(&json!(["fetch", VOID, 80, 1.3]));
    let client = stage.client("slow.test", "");
    let opened = stage.stalled();
    client.wait_for_line("Verify return code");
    let resolved = stage.resolved(&opened);
    assert_eq!(resolved.number("/count"), 1);
    let _again = stage.client("slow.test", "");
    let again = stage.culprit.wait_for_incident("its return", |emitted| {
        stage.serves(emitted) && emitted.number("/count") == 2 && emitted.opens()
    });
    assert_eq!((again.id(), again.blamed()), (opened.id(), format!("{VOID}:80")));
    assert_eq!(again.text("/opened_at"), opened.text("/opened_at"));
    // Opened twice, and one incident all the same.
    stage.culprit.wait_for_incident("its second end", |emitted| {
        emitted.id() == opened.id() && emitted.text("/state") == "resolved" && emitted.number("/count") == 2
    });
    stage.ends_with(2);
}

#[test]
fn clients_that_give_up_and_return_are_one_incident() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/clients_give_up_and_return");
    stage.serve_slowly(&json!(["fetch", VOID, 80, LONG]));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let client = stage.client("slow.test", "");
        let hello = client.pid();
        stage.culprit.wait_for("its wait", |fact| {
            fact.kind() == "handshake_pending"
                && fact.handshake("client", stage.service)
                && fact.pid() == hello
        });
        ids.push(stage.stalled().id().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let last = stage.culprit.wait_for_incident("its end", |emitted| {
        emitted.id() == ids[0] && emitted.text("/state") == "resolved" && emitted.number("/count") == 3
    });
    assert_eq!(last.blamed(), format!("{VOID}:80"));
    stage.ends_with(1);
}

#[test]
fn a_thread_pool_that_fetches_is_one_incident_with_the_clients_that_wait_for_a_thread() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/thread_pool_behind_fetch");
    let action = json!(["fetch", VOID, 80, PATIENCE]);
    stage.serve(&json!({ "serve": "pool", "sni": { "slow.test": action } }));
    let _clients: Vec<_> = (0..3).map(|_| stage.client("slow.test", "")).collect();
    let opened = stage.culprit.wait_for_incident("the fetch blamed", |emitted| {
        stage.serves(emitted) && emitted.blame() == ("outbound_connect", "certain")
    });
    let all = stage.culprit.wait_for_incident("those who wait for the thread", |emitted| {
        emitted.id() == opened.id() && emitted.number("/details/unread") >= 1
    });
    assert_eq!(all.blamed(), format!("{VOID}:80"));
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_server_that_forks_for_each_client_is_one_service() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_by_forking_server");
    let action = json!(["fetch", VOID, 80, PATIENCE]);
    let pid = stage.serve(&json!({ "serve": "fork", "sni": { "slow.test": action } }));
    let _clients: Vec<_> = (0..5).map(|_| stage.client("slow.test", "")).collect();
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    assert_ne!(opened.task().0, pid);
    let resolved = stage.resolved(&opened);
    assert_eq!((resolved.number("/count"), resolved.blamed()), (5, format!("{VOID}:80")));
    stage.ends_with(1);
}

#[test]
fn sixty_clients_that_wait_for_one_fetch_are_one_incident() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/sixty_clients_one_fetch");
    stage.serve_slowly(&json!(["fetch", VOID, 80, PATIENCE]));
    let service = stage.service;
    let mut connection = stage.identity.client_for("slow.test");
    let _streams = stage.pair.client.enter(move || {
        let hello = hello_of(&mut connection);
        let say = |_| {
            let mut stream = TcpStream::connect(service).expect("it listens");
            stream.write_all(&hello).expect("the server buffers");
            stream
        };
        (0..60).map(say).collect::<Vec<_>>()
    });
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    let resolved = stage.resolved(&opened);
    assert_eq!((resolved.number("/count"), resolved.blamed()), (60, format!("{VOID}:80")));
    // The mute clients' host is this one too: there it is an incident as well.
    stage.ends_with(2);
}

#[test]
fn a_destination_that_no_longer_answers_is_likely() {
    needs!(Openssl, Tun, Nftables, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_no_longer_answered");
    let fetched = SocketAddr::new(stage.pair.v4(1), port());
    let _listener = listen(&stage.pair.client, fetched);
    let to = (fetched.ip().to_string(), fetched.port());
    stage.serve_slowly(&json!(["executor", "fetch", to.0, to.1, PATIENCE]));
    for _ in 0..3 {
        stage.client("slow.test", "").wait_for_line("Verify return code");
    }
    stage.pair.client.drop_tcp("input", fetched.port());
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "likely"), fetched.to_string()));
    let resolved = stage.resolved(&opened);
    // Emulated, a thread needs longer to go on than what counts as at once.
    if crate::harness::slow() <= 1.0 {
        assert_eq!(resolved.blame(), ("outbound_connect", "certain"), "{:#}", resolved.json);
    }
    stage.ends_with(1);
}

#[test]
fn a_fetch_by_curl_behind_a_shell_is_named_with_curl() {
    needs!(Openssl, Tun, Curl, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_by_curl");
    // The shell stays: curl is the child of a child.
    let command = format!("curl -s -m {PATIENCE} http://{VOID}/issuer.der; true");
    let pid = stage.serve_slowly(&json!(["shell", command]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    // Emulated, curl takes longer to begin than the handshake to stall: then it is named as soon as it has.
    let named = stage.culprit.wait_for_incident("the fetch blamed", |emitted| {
        emitted.id() == opened.id() && emitted.blame().0 == "outbound_connect"
    });
    assert!(crate::harness::slow() > 1.0 || named.opens(), "{:#}", named.json);
    assert_eq!((named.blame(), named.blamed()), (("outbound_connect", "likely"), format!("{VOID}:80")));
    assert_eq!((named.task().0, named.text("/cause/process/comm")), (pid, "curl"));
    let resolved = stage.resolved(&opened);
    // Emulated, a process needs longer to end than what counts as at once.
    if crate::harness::slow() <= 1.0 {
        assert_eq!(resolved.blame(), ("outbound_connect", "certain"), "{:#}", resolved.json);
    }
    stage.ends_with(1);
}

#[test]
fn a_name_server_that_does_not_answer_an_event_loop_is_likely() {
    needs!(Openssl, Tun, Node, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/dns_unanswered_in_event_loop");
    let mut node = Command::new("node");
    node.arg(stage.program("tls_reconnect.js"))
        .arg(stage.service.ip().to_string())
        .arg(stage.service.port().to_string())
        .args([stage.identity.cert(), stage.identity.key()])
        .args(["slow.test", "dns", VOID, "2500"]);
    stage.act(node);
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("dns_lookup", "likely"), format!("{VOID}:53")));
    assert_eq!(opened.text("/cause/query"), "A issuer.example");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_rustls_server_that_fetches_between_the_hellos_is_named_with_its_thread() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set_v6("tls_handshake_stalled/fetch_by_rustls_server");
    stage.keep_own();
    let service = stage.service;
    let listener = stage.pair.server.enter(move || TcpListener::bind(service).expect("a free port"));
    let cert = CertificateDer::from_pem_file(stage.identity.cert()).expect("made by openssl");
    let key = PrivateKeyDer::from_pem_file(stage.identity.key()).expect("made by openssl");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key);
    let config = Arc::new(config.expect("a sound configuration"));
    let thread = stage.pair.server.thread(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        let mut acceptor = Acceptor::default();
        let accepted = loop {
            acceptor.read_tls(&mut stream).expect("the client speaks first");
            if let Some(accepted) = acceptor.accept().expect("a hello") {
                break accepted;
            }
        };
        let to = SocketAddr::new(VOID6.parse().expect("an address"), 80);
        give_up_connecting(to, Duration::from_secs_f64(PATIENCE));
        let mut connection = accepted.into_connection(config).expect("they agree");
        crate::harness::tls::handshake(&mut connection, &mut stream).expect("they agree");
        let _ = stream.read(&mut [0; 1]);
        me()
    });
    let client = stage.client("slow.test", "-tls1_2");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID6}:80")));
    stage.resolved(&opened);
    drop(client);
    let (pid, tid) = thread.join().expect("no panic");
    assert_eq!(opened.task(), (pid.into(), tid.into()));
    stage.ends_with(1);
}
