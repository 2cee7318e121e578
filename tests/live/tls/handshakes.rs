//! Whole handshakes between real libraries: both sides, owners, what the hellos contained.

use std::net::{SocketAddr, TcpStream};

use crate::{
    harness::{
        Culprit, Fact, Netns,
        netns::Pair,
        port,
        sockets::{listen_on_loopback, me},
        soon_ms,
        tls::{Identity, NAME, handshake, openssl_client, openssl_client_as},
    },
    needs,
};

/// The first fact of a kind about a handshake, on one side of a service.
#[track_caller]
pub(crate) fn step(culprit: &Culprit, role: &str, service: SocketAddr, kind: &str) -> Fact {
    culprit.wait_for(&format!("{kind} of the {role}"), |fact| {
        fact.kind() == kind && fact.handshake(role, service)
    })
}

/// The kinds of all facts about handshakes with a service on one side.
pub(crate) fn story(culprit: &Culprit, role: &str, service: SocketAddr) -> Vec<String> {
    culprit.seen(|fact| fact.handshake(role, service)).iter().map(|fact| fact.kind().to_owned()).collect()
}

fn a_handshake_by_openssl(option: &str, version: &str) {
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let server = identity.server(&netns, service, &format!("{option} -alpn h2"));
    let culprit = Culprit::trace("");
    let client = openssl_client(&netns, service, &format!("{option} -alpn h2,http/1.1"));
    for (role, pid) in [("client", client.pid()), ("server", server.pid())] {
        let done = step(&culprit, role, service, "handshake_done");
        let hello = step(&culprit, role, service, "client_hello");
        let answer = step(&culprit, role, service, "server_hello");
        assert!(hello.index < answer.index && answer.index < done.index);
        for fact in [&hello, &answer, &done] {
            assert_eq!((fact.task(), fact.comm(), fact.text("sni")), ((pid, pid), "openssl", NAME));
        }
        assert!(hello.within(&netns), "{hello:?}");
        assert_eq!(hello.list("alpn"), ["h2", "http/1.1"]);
        assert_eq!(hello.list("versions"), [version]);
        assert_eq!((answer.text("version"), done.text("version")), (version, version));
        assert!(answer.text("cipher").starts_with("TLS_"), "{answer:?}");
        assert!(!answer.is("retry_request") && !hello.is("retried"));
        assert!(answer.number("elapsed_ms") <= done.number("duration_ms"));
        assert!(done.number("duration_ms") < soon_ms(), "{done:?}");
    }
    let read = step(&culprit, "server", service, "client_hello").number("read_after_ms");
    assert!((0.0..soon_ms()).contains(&read), "{read}");
    let read = step(&culprit, "client", service, "server_flight_read");
    assert_eq!(read.task(), (client.pid(), client.pid()));
}

#[test]
fn a_tls_1_3_handshake_is_reported_on_both_sides_with_its_owners() {
    needs!(Openssl);
    a_handshake_by_openssl("-tls1_3", "TLS 1.3");
}

#[test]
fn a_tls_1_2_handshake_is_reported_on_both_sides_with_its_owners() {
    needs!(Openssl);
    a_handshake_by_openssl("-tls1_2", "TLS 1.2");
}

#[test]
fn a_handshake_by_rustls_belongs_to_its_thread() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let server = identity.server(&netns, service, "");
    let culprit = Culprit::trace("");
    let mut client = identity.client(|config| config.alpn_protocols = vec![b"h2".to_vec()]);
    let (_stream, task) = netns.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        handshake(&mut client, &mut stream).expect("they agree");
        (stream, me())
    });
    let done = step(&culprit, "client", service, "handshake_done");
    let hello = step(&culprit, "client", service, "client_hello");
    assert_ne!(task.0, task.1, "the test needs a thread that is not the process's first");
    assert_eq!((hello.task(), done.task(), hello.text("sni")), (task, task, NAME));
    assert_eq!((done.text("version"), hello.list("versions")), ("TLS 1.3", vec!["TLS 1.3", "TLS 1.2"]));
    assert_eq!(step(&culprit, "server", service, "handshake_done").pid(), server.pid());
}

#[test]
fn a_server_thread_that_reads_the_hello_is_its_owner_not_the_one_that_listens() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let (listener, service) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let client = openssl_client(&netns, service, "");
    let mut connection = identity.server_connection();
    let (mut stream, _) = listener.accept().expect("a client comes");
    let (_stream, task) = netns.enter(move || {
        handshake(&mut connection, &mut stream).expect("they agree");
        (stream, me())
    });
    let done = step(&culprit, "server", service, "handshake_done");
    assert_eq!((done.task(), done.comm()), (task, "inside"));
    assert_eq!(step(&culprit, "client", service, "handshake_done").pid(), client.pid());
}

#[test]
fn a_retry_request_is_part_of_one_handshake() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let _server = identity.server(&netns, service, "-tls1_3 -groups P-384");
    let culprit = Culprit::trace("");
    let _client = openssl_client(&netns, service, "-tls1_3 -groups X25519:P-384");
    for role in ["client", "server"] {
        step(&culprit, role, service, "handshake_done");
        let hellos = culprit.seen(|fact| fact.kind() == "client_hello" && fact.handshake(role, service));
        let retried: Vec<bool> = hellos.iter().map(|hello| hello.is("retried")).collect();
        assert_eq!(retried, [false, true], "{role}: {hellos:#?}");
        assert!(hellos.iter().all(|hello| hello.text("sni") == NAME));
        let answers = culprit.seen(|fact| fact.kind() == "server_hello" && fact.handshake(role, service));
        let asks: Vec<bool> = answers.iter().map(|answer| answer.is("retry_request")).collect();
        assert_eq!(asks, [true, false], "{role}: {answers:#?}");
    }
    culprit.settle(&netns);
    for role in ["client", "server"] {
        let story = story(&culprit, role, service);
        assert_eq!(story.iter().filter(|kind| *kind == "handshake_done").count(), 1, "{story:?}");
    }
}

#[test]
fn a_client_certificate_is_seen_between_the_hellos_and_the_end() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let cert = identity.cert();
    let options = format!("-tls1_3 -Verify 1 -CAfile {}", cert.display());
    let server = identity.server(&netns, service, &options);
    let culprit = Culprit::trace("");
    let client = openssl_client_as(&identity, &netns, service, "-tls1_3");
    for (role, pid) in [("client", client.pid()), ("server", server.pid())] {
        let finished = step(&culprit, role, service, "client_finished");
        let done = step(&culprit, role, service, "handshake_done");
        assert!(finished.is("client_certificate"), "{finished:?}");
        assert!(finished.index < done.index);
        assert_eq!((finished.pid(), done.pid()), (pid, pid));
    }
}

#[test]
fn a_server_without_a_shared_cipher_sends_an_alert() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let server = identity.server(&netns, service, "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256");
    let culprit = Culprit::trace("");
    let client = openssl_client(&netns, service, "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384");
    for (role, pid) in [("client", client.pid()), ("server", server.pid())] {
        let alert = step(&culprit, role, service, "alert");
        assert_eq!((alert.pid(), alert.text("sent_by"), alert.text("sni")), (pid, "server", NAME));
        assert_eq!((alert.text("level"), alert.text("description")), ("fatal", "handshake_failure"));
    }
    culprit.settle(&netns);
    for role in ["client", "server"] {
        assert_eq!(story(&culprit, role, service), ["client_hello", "alert"], "{role}");
    }
}

#[test]
fn a_client_that_rejects_the_certificate_is_the_side_that_alerts() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let _server = identity.server(&netns, service, "-tls1_2");
    let culprit = Culprit::trace("");
    let client = openssl_client(&netns, service, "-tls1_2 -verify_return_error");
    for role in ["client", "server"] {
        let alert = step(&culprit, role, service, "alert");
        assert_eq!((alert.text("sent_by"), alert.text("level")), ("client", "fatal"));
        assert_eq!(alert.text("description"), "unknown_ca");
    }
    assert_eq!(step(&culprit, "client", service, "alert").pid(), client.pid());
}

#[test]
fn a_tls_1_3_alert_is_reported_although_it_is_encrypted() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let _server = identity.server(&netns, service, "-tls1_3");
    let culprit = Culprit::trace("");
    // It trusts another certificate of the same name.
    let mut client = Identity::make().client(|_| ());
    let task = netns.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        handshake(&mut client, &mut stream).expect_err("not the certificate it trusts");
        me()
    });
    for role in ["client", "server"] {
        let alert = step(&culprit, role, service, "alert");
        assert_eq!(alert.text("sent_by"), "client");
        assert!(alert.json["level"].is_null() && alert.json["description"].is_null(), "{alert:?}");
    }
    assert_eq!(step(&culprit, "client", service, "alert").task(), task);
}

#[test]
fn a_handshake_over_ipv6_between_hosts_is_reported_with_its_addresses() {
    needs!(Openssl);
    let (pair, identity) = (Pair::make(), Identity::make());
    let service = SocketAddr::new(pair.v6(2), port());
    let server = identity.server(&pair.server, service, "");
    let culprit = Culprit::trace("");
    let client = openssl_client(&pair.client, service, "");
    let mine = step(&culprit, "client", service, "handshake_done");
    let theirs = step(&culprit, "server", service, "handshake_done");
    assert_eq!((mine.pid(), theirs.pid()), (client.pid(), server.pid()));
    assert_eq!((mine.at("local"), theirs.at("local")), (theirs.at("peer"), mine.at("peer")));
    assert_eq!(theirs.at("peer").expect("an address").ip(), pair.v6(1));
}
