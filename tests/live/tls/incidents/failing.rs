//! Handshakes that fail again and again, by OpenSSL, curl and rustls: who refuses whom, in clear and encrypted; and what
//! is no incident.

mod other_time;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    harness::{
        Culprit, Incident, Running, eventually,
        keep::Keeper,
        netns::Pair,
        port,
        process::words,
        tls::{Identity, NAME, drain, handshake, hello_of, openssl_client},
    },
    needs,
};

/// What may be a scanner's doing, or a restart's, counts when it goes on for two seconds.
const TRIES: usize = 7;

/// As clients do.
fn try_again_later() {
    std::thread::sleep(Duration::from_millis(400));
}

/// Two hosts, a service on one of them, and what watches.
struct Scene {
    pair: Pair,
    identity: Identity,
    service: SocketAddr,
    culprit: Culprit,
    keeper: Keeper,
    _server: Option<Running>,
}

impl Scene {
    /// With an OpenSSL server of this identity. `case` names the recording, `rule/case`.
    #[track_caller]
    fn set(case: &'static str, identity: Identity, options: &str) -> Self {
        let mut scene = Self::bare(Keeper::new(case), identity, "");
        scene._server = Some(scene.identity.server(&scene.pair.server, scene.service, options));
        scene
    }

    #[track_caller]
    fn bare(mut keeper: Keeper, identity: Identity, args: &str) -> Self {
        let pair = Pair::make();
        let service = pair.service(port());
        let culprit = Culprit::trace(args);
        keeper.keep_connects(std::process::id());
        Self { pair, identity, service, culprit, keeper, _server: None }
    }

    /// curl asks for the service by name, as often; it trusts the identity's certificate.
    #[track_caller]
    fn curl(&self, times: usize, options: &str) {
        let (port, ip) = (self.service.port(), self.service.ip());
        for _ in 0..times {
            let mut curl = words(&format!(
                "curl -s -m 5 -o /dev/null --resolve {NAME}:{port}:{ip} {options} https://{NAME}:{port}/"
            ));
            curl.arg("--cacert").arg(self.identity.cert());
            self.pair.client.spawn(curl).wait();
        }
    }

    /// OpenSSL's client asks for the service, which refuses it.
    #[track_caller]
    fn openssl(&self, options: &str) {
        openssl_client(&self.pair.client, self.service, options).wait();
    }

    /// The incident on one side, as it opens.
    #[track_caller]
    fn opened(&self, role: &str) -> Incident {
        let opened = self.culprit.wait_for_incident(&format!("the incident of the {role}"), |emitted| {
            self.concerns(emitted) && emitted.text("/details/role") == role && emitted.opens()
        });
        self.keeper.catches_up();
        opened
    }

    fn concerns(&self, emitted: &Incident) -> bool {
        let end = if emitted.text("/details/role") == "client" { "peer" } else { "local" };
        emitted.text("/kind") == "tls_failing"
            && emitted.text(&format!("/details/{end}/ip")).parse() == Ok(self.service.ip())
            && emitted.json["details"][end]["port"] == self.service.port()
    }

    /// Ends it: exactly as many incidents were opened.
    #[track_caller]
    fn ends_with(mut self, expected: usize) {
        self.culprit.settle(&self.pair.client);
        let opened = self.culprit.incidents(|emitted| {
            emitted.opens() && (emitted.within(&self.pair.client) || emitted.within(&self.pair.server))
        });
        assert_eq!(opened.len(), expected, "{opened:#?}");
        self.keeper.end();
    }
}

fn expired_certificate(case: &'static str, option: &str) {
    let scene = Scene::set(case, Identity::expired(), "");
    scene.curl(4, option);
    for (role, comm) in [("client", "curl"), ("server", "openssl")] {
        let opened = scene.opened(role);
        assert_eq!(opened.text("/process/comm"), comm, "{:#}", opened.json);
        assert_eq!(opened.text("/details/failure"), "server_flight_refused");
        assert_eq!(opened.text("/details/ended_by"), "client");
        assert_eq!((opened.text("/severity"), opened.text("/details/sni")), ("warning", NAME));
        assert_eq!(opened.blame(), ("certificate", "certain"), "{:#}", opened.json);
        assert!(opened.text("/summary").contains("certificate_expired"), "{:#}", opened.json);
        let at = format!("openssl s_client -connect {} -servername {NAME} </dev/null", scene.service);
        assert!(opened.remedies().contains(&at), "{:#}", opened.json);
    }
    // It is renewed, or no longer minded: the client's is over.
    scene.curl(1, &format!("-k {option}"));
    let id = scene.opened("client").id().to_owned();
    scene
        .culprit
        .wait_for_incident("its end", |emitted| emitted.id() == id && emitted.text("/state") == "resolved");
    scene.keeper.catches_up();
    scene.ends_with(2);
}

#[test]
fn an_expired_certificate_is_named_to_the_service_and_to_its_client() {
    needs!(Openssl, Curl, Pace);
    expired_certificate("tls_failing/expired_certificate_tls12", "--tls-max 1.2");
}

#[test]
fn an_expired_certificate_is_named_in_tls_1_3_where_openssl_says_so_in_clear() {
    needs!(Openssl, Curl, Pace);
    expired_certificate("tls_failing/expired_certificate_tls13", "--tlsv1.3");
}

#[test]
fn a_refusal_that_is_encrypted_is_likely_and_names_no_reason_as_known() {
    needs!(Openssl, Pace);
    let scene = Scene::set("tls_failing/encrypted_alert", Identity::make(), "-tls1_3");
    for _ in 0..4 {
        // It trusts another certificate of the same name.
        let (mut client, to) = (Identity::make().client(|_| ()), scene.service);
        scene.pair.client.enter(move || {
            let mut stream = TcpStream::connect(to).expect("it listens");
            handshake(&mut client, &mut stream).expect_err("not the certificate it trusts");
        });
    }
    for role in ["client", "server"] {
        let opened = scene.opened(role);
        assert_eq!(opened.blame(), ("certificate", "likely"), "{:#}", opened.json);
        let endings = opened.json["details"]["endings"].as_object().expect("counts");
        assert!(endings.keys().eq(["encrypted"]), "{endings:?}");
        assert!(opened.why().contains("The client rejected the server's flight."), "{:#}", opened.json);
    }
    scene.ends_with(2);
}

#[test]
fn versions_that_do_not_overlap_are_named_to_both_sides() {
    needs!(Openssl, Pace);
    let scene = Scene::set("tls_failing/no_version_shared", Identity::make(), "-tls1_3");
    for _ in 0..TRIES {
        scene.openssl("-tls1_2");
        try_again_later();
    }
    for role in ["client", "server"] {
        let opened = scene.opened(role);
        assert_eq!(opened.text("/details/failure"), "nothing_shared");
        assert_eq!(opened.text("/details/ended_by"), "server");
        assert_eq!(opened.blame(), ("parameters", "certain"), "{:#}", opened.json);
        assert!(
            opened.text("/summary").contains("share no TLS version: protocol_version"),
            "{:#}",
            opened.json
        );
        assert!(opened.why().contains("The client offers TLS 1.2 at most"), "{:#}", opened.json);
    }
    scene.ends_with(2);
}

#[test]
fn a_server_that_wants_a_client_certificate_refuses_in_clear_and_encrypted() {
    needs!(Openssl, Pace);
    for (option, confidence) in [("-tls1_2", "likely"), ("-tls1_3", "likely")] {
        let options = format!("-Verify 1 {option}");
        let mut scene = Scene::bare(Keeper::idle(), Identity::make(), "");
        scene._server = Some(scene.identity.server(&scene.pair.server, scene.service, &options));
        for _ in 0..3 {
            scene.openssl("");
        }
        let opened = scene.opened("client");
        assert_eq!(opened.text("/details/failure"), "client_flight_refused", "{option}: {:#}", opened.json);
        assert_eq!(opened.blame(), ("certificate", confidence), "{option}: {:#}", opened.json);
        assert!(opened.remedies().contains("Acceptable client certificate CA names"), "{:#}", opened.json);
    }
}

#[test]
fn tls_to_a_port_that_answers_in_plain_text_is_named_to_the_client() {
    needs!(Curl, Openssl, Pace);
    let scene = Scene::bare(Keeper::new("tls_failing/plain_answer"), Identity::make(), "");
    let service = scene.service;
    let listener = scene.pair.server.enter(move || TcpListener::bind(service).expect("a free port"));
    let answering = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let hello = stream.read(&mut [0; 4096]).expect("the client speaks first");
            assert_ne!(hello, 0);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").expect("it reads");
            stream.shutdown(std::net::Shutdown::Write).expect("our own socket");
            drain(&mut stream);
        }
    });
    scene.curl(3, "");
    answering.join().expect("no panic");
    let opened = scene.opened("client");
    assert_eq!(opened.text("/process/comm"), "curl");
    assert_eq!(opened.text("/details/failure"), "not_tls", "{:#}", opened.json);
    assert_eq!(opened.blame(), ("parameters", "certain"), "{:#}", opened.json);
    assert!(opened.remedies().contains(&format!("http://{service}/")), "{:#}", opened.json);
    scene.ends_with(1);
}

#[test]
fn the_daemon_hears_of_failing_handshakes_and_of_the_first_that_is_completed() {
    needs!(Openssl, Curl);
    let mut scene = Scene::bare(Keeper::idle(), Identity::expired(), "--mode anomalies -e connect,tls");
    scene._server = Some(scene.identity.server(&scene.pair.server, scene.service, ""));
    scene.curl(3, "-k");
    scene.culprit.settle(&scene.pair.client);
    let healthy = scene
        .culprit
        .seen(|fact| fact.handshake("client", scene.service) || fact.handshake("server", scene.service));
    assert!(healthy.is_empty(), "{healthy:#?}");
    scene.curl(12, "");
    let client = scene.opened("client");
    let server = scene.opened("server");
    assert_eq!((client.text("/details/sni"), server.text("/details/sni")), (NAME, NAME));
    // Those that were too many at once are counted with the next one.
    let count = |id: &str| {
        let emitted = scene.culprit.incidents(|emitted| emitted.id() == id);
        emitted.last().expect("it was opened").number("/count")
    };
    eventually("all of them are counted", || {
        scene.curl(1, "");
        scene.culprit.settle(&scene.pair.client);
        count(server.id()) >= 12
    });
    scene.curl(1, "-k");
    scene.culprit.wait_for_incident("its end", |emitted| {
        emitted.id() == client.id() && emitted.text("/state") == "resolved"
    });
    assert_eq!(scene.culprit.incidents(|emitted| scene.concerns(emitted) && emitted.opens()).len(), 2);
}

#[test]
fn a_few_failures_and_a_scanner_are_no_incident() {
    needs!(Openssl, Curl, Pace);
    // As the service sees them: the clients are this machine's own here, and theirs is another matter.
    let (pair, identity) = (Pair::make(), Identity::expired());
    let service = pair.service(port());
    let server = identity.server(&pair.server, service, "-tls1_2");
    let culprit = Culprit::trace(&format!("-p {}", server.pid()));
    let mut keeper = Keeper::new("tls_failing/scanner_without_fault");
    keeper.keep_connects(server.pid());
    // Without a name.
    for _ in 0..TRIES {
        let scan = words(&format!("openssl s_client -connect {service} -tls1_3 -noservername"));
        pair.client.spawn(scan).wait();
        try_again_later();
    }
    // Two clients refuse the certificate.
    for _ in 0..2 {
        let (port, ip) = (service.port(), service.ip());
        let url = format!("https://{NAME}:{port}/");
        let mut curl = words(&format!("curl -s -m 5 -o /dev/null --resolve {NAME}:{port}:{ip} {url}"));
        curl.arg("--cacert").arg(identity.cert());
        pair.client.spawn(curl).wait();
    }
    // What comes later is seen later.
    let mut client = identity.client(|_| ());
    let _late = pair.client.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        stream.write_all(&hello_of(&mut client)).expect("loopback takes it");
        stream
    });
    culprit.wait_for("a wait of a second and more", |fact| {
        fact.kind() == "handshake_pending" && fact.handshake("server", service)
    });
    let alerts = culprit.seen(|fact| fact.kind() == "alert" && fact.handshake("server", service));
    assert_eq!(alerts.len(), TRIES + 2, "{alerts:#?}");
    let emitted = culprit.incidents(|emitted| emitted.within(&pair.server));
    assert!(emitted.is_empty(), "{emitted:#?}");
    keeper.end();
}

#[test]
fn a_health_check_that_goes_after_the_servers_flight_is_worth_knowing_at_most() {
    needs!(Openssl, Pace);
    let scene = Scene::set("tls_failing/health_check", Identity::make(), "");
    for _ in 0..TRIES {
        let (mut client, service) = (scene.identity.client(|_| ()), scene.service);
        scene.pair.client.enter(move || {
            // One that says nothing, and one that reads the answer and goes.
            drop(TcpStream::connect(service).expect("it listens"));
            let mut stream = TcpStream::connect(service).expect("it listens");
            stream.write_all(&hello_of(&mut client)).expect("loopback takes it");
            assert_ne!(stream.read(&mut [0; 4096]).expect("a ServerHello"), 0);
        });
        try_again_later();
    }
    for role in ["client", "server"] {
        let opened = scene.opened(role);
        assert_eq!(opened.text("/details/failure"), "closed_after_server_flight", "{:#}", opened.json);
        assert_eq!((opened.text("/severity"), opened.blame()), ("info", ("peer", "possible")));
    }
    scene.ends_with(2);
}
