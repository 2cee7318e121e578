//! Stalls in runtimes that fetch in ways of their own: Node's event loop, Java's AIA fetching, rustls with
//! verifiers that block; on the client's side, and after the client's last flight.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::{
    harness::{
        Stage, port,
        process::{run, words},
        sockets::{give_up_connecting, me},
        stage::{PATIENCE, VOID},
        tls::{NAME, handshake, openssl_client_as},
    },
    needs,
};

#[test]
fn a_fetch_in_an_event_loop_is_likely_and_certain_once_it_ends() {
    needs!(Openssl, Tun, Node);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_in_event_loop");
    let mut node = Command::new("node");
    node.arg(stage.program("tls_server.js"))
        .arg(stage.service.ip().to_string())
        .arg(stage.service.port().to_string())
        .args([stage.identity.cert(), stage.identity.key()])
        .args(["slow.test", VOID, "80", "2500"]);
    let pid = stage.act(node);
    let _client = stage.client("slow.test", "");
    stage.culprit.wait_for("the slow hello", |fact| {
        fact.kind() == "client_hello" && fact.handshake("server", stage.service)
    });
    // The loop goes on serving others meanwhile.
    for _ in 0..3 {
        stage.client("fast.test", "").wait_for_line("Verify return code");
    }
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "likely"), format!("{VOID}:80")));
    assert_eq!((opened.task(), opened.number("/count")), ((pid, pid), 1));
    let resolved = stage.resolved(&opened);
    assert_eq!(resolved.blame(), ("outbound_connect", "certain"), "{:#}", resolved.json);
    stage.ends_with(1);
}

/// A root, an intermediate that only its AIA address leads to, and a leaf: files in the scratch directory.
fn incomplete_chain(stage: &Stage) {
    let at = |name: &str| stage.program(name).display().to_string();
    let extensions = format!(
        "[ca]\nbasicConstraints=critical,CA:TRUE\n[leaf]\nsubjectAltName=DNS:{NAME}\n\
         authorityInfoAccess=caIssuers;URI:http://{VOID}/issuer.der\n"
    );
    std::fs::write(stage.program("extensions"), extensions).expect("our own directory");
    let new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&mut words(&format!(
        "{new} -x509 -days 2 -subj /CN=root -keyout {} -out {}",
        at("root.key"),
        at("root.pem")
    )));
    for (name, issuer, section) in [("middle", "root", "ca"), ("leaf", "middle", "leaf")] {
        run(&mut words(&format!(
            "{new} -subj /CN={name} -keyout {} -out {}",
            at(&format!("{name}.key")),
            at("request")
        )));
        run(&mut words(&format!(
            "openssl x509 -req -days 2 -CAcreateserial -in {} -CA {} -CAkey {} -extfile {} -extensions {section} -out {}",
            at("request"),
            at(&format!("{issuer}.pem")),
            at(&format!("{issuer}.key")),
            at("extensions"),
            at(&format!("{name}.pem")),
        )));
    }
}

#[test]
fn a_java_client_that_fetches_a_missing_issuer_stalls_after_the_servers_flight() {
    needs!(Openssl, Tun, Java);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_by_java_client");
    incomplete_chain(&stage);
    // The client is on the host with the void; the server, which sends its leaf alone, on the other.
    let service = SocketAddr::new(stage.pair.v4(1), port());
    let mut server = words(&format!("openssl s_server -accept {service} -www"));
    server.arg("-cert").arg(stage.program("leaf.pem")).arg("-key").arg(stage.program("leaf.key"));
    let server = stage.pair.client.spawn(server);
    server.wait_for_line("ACCEPT");
    let mut java = Command::new("java");
    java.args(["-Dcom.sun.security.enableAIAcaIssuers=true", "-Dcom.sun.security.ocsp.timeout=3"])
        .arg(stage.program("AiaClient.java"))
        .args([service.ip().to_string(), service.port().to_string()])
        .arg(stage.program("root.pem"))
        .arg(NAME);
    let pid = stage.act(java);
    stage.actor().say("\n");
    let opened = stage.culprit.wait_for_incident("the client's stall", |emitted| {
        emitted.opens() && emitted.within(&stage.pair.server) && emitted.text("/details/role") == "client"
    });
    assert_eq!((opened.task().0, opened.text("/details/stage")), (pid, "awaiting_client_finish"));
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    let remedies = opened.json["remedies"].to_string();
    assert!(remedies.contains("enableAIAcaIssuers=false") && remedies.contains("full chain"), "{remedies}");
    stage.ends_with(1);
}

fn fetch() {
    let to = SocketAddr::new(VOID.parse().expect("an address"), 80);
    give_up_connecting(to, Duration::from_secs_f64(PATIENCE));
}

/// Accepts every signature: rustls asks the same of the verifier on either side.
macro_rules! any_signature {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    };
}

/// Verifies nothing, but fetches first, as one does that wants a revocation list: on either side.
#[derive(Debug)]
struct Fetching;

impl ServerCertVerifier for Fetching {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        fetch();
        Ok(ServerCertVerified::assertion())
    }

    any_signature!();
}

impl ClientCertVerifier for Fetching {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        fetch();
        Ok(ClientCertVerified::assertion())
    }

    any_signature!();
}

#[test]
fn a_rustls_client_that_fetches_before_it_trusts_stalls_after_the_servers_flight() {
    needs!(Openssl, Tun);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_by_rustls_client");
    stage.keep_own();
    let service = SocketAddr::new(stage.pair.v4(1), port());
    let _server = stage.identity.server(&stage.pair.client, service, "");
    let mut client = stage.identity.client(|config| {
        config.dangerous().set_certificate_verifier(Arc::new(Fetching));
    });
    let thread = stage.pair.server.thread(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        handshake(&mut client, &mut stream).expect("they agree");
        me()
    });
    let opened = stage.culprit.wait_for_incident("the client's stall", |emitted| {
        emitted.opens() && emitted.within(&stage.pair.server) && emitted.text("/details/role") == "client"
    });
    assert_eq!(opened.text("/details/stage"), "awaiting_client_finish");
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    let (pid, tid) = thread.join().expect("no panic");
    assert_eq!(opened.task(), (pid.into(), tid.into()));
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_server_that_fetches_before_it_trusts_a_client_stalls_after_the_clients_last_flight() {
    needs!(Openssl, Tun);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_to_verify_client_certificate");
    stage.keep_own();
    let service = stage.service;
    let listener = stage.pair.server.enter(move || TcpListener::bind(service).expect("a free port"));
    let mut connection = stage.identity.server_connection_with(Arc::new(Fetching));
    let thread = stage.pair.server.thread(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        handshake(&mut connection, &mut stream).expect("they agree");
        let _ = stream.read(&mut [0; 1]);
        me()
    });
    let client = openssl_client_as(&stage.identity, &stage.pair.client, service, "-tls1_3");
    let opened = stage.stalled();
    assert_eq!(opened.text("/details/stage"), "awaiting_server_finish");
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    stage.resolved(&opened);
    drop(client);
    let (pid, tid) = thread.join().expect("no panic");
    assert_eq!(opened.task(), (pid.into(), tid.into()));
    stage.ends_with(1);
}
