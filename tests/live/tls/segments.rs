//! ClientHellos whose segments come in another order, more than once, or before their socket exists; and those that are
//! spread over several TLS records. The client is a program that makes its own segments.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    harness::{
        Culprit, Fact, Running, Scratch,
        netns::Pair,
        port,
        process::{run, words},
        sockets::{listen, me},
        stage::python,
        tls::{Identity, NAME, hello_of},
    },
    needs,
    tls::handshakes::{step, story},
};

const CLIENT: &str = include_str!("../../programs/segments.py");

/// A server's host, and a client's that sends given segments.
struct Wire {
    pair: Pair,
    identity: Identity,
    service: SocketAddr,
    programs: Scratch,
}

impl Wire {
    fn make() -> Self {
        let pair = Pair::make();
        let service = SocketAddr::new(pair.v4(2), port());
        let programs = Scratch::make();
        std::fs::write(programs.join("segments.py"), CLIENT).expect("our own directory");
        // The client's address is that of no host: no kernel resets what it does not know.
        let mac = pair.client.mac("wire");
        pair.server.ip(&format!("neigh replace {} lladdr {mac} dev wire nud permanent", pair.v4(77)));
        Self { pair, identity: Identity::make(), service, programs }
    }

    /// A ClientHello as one library writes it.
    fn hello(&self) -> Vec<u8> {
        hello_of(&mut self.identity.client(|_| ()))
    }

    /// Starts a client, once it has sent everything.
    #[track_caller]
    fn client(&self, plan: &Value) -> Running {
        let mut python = python();
        python
            .arg(self.programs.join("segments.py"))
            .args(["wire", &self.pair.v4(77).to_string(), &self.service.ip().to_string()])
            .args([self.service.port().to_string(), self.pair.server.mac("wire"), plan.to_string()]);
        let client = self.pair.client.spawn(python);
        client.wait_for_line("sent");
        client
    }

    /// Accepts a client, reads this many bytes, and says who did.
    fn read(&self, listener: &TcpListener, bytes: usize) -> (TcpStream, (u32, u32)) {
        let listener = listener.try_clone().expect("a descriptor");
        self.pair.server.enter(move || {
            let (mut stream, _) = listener.accept().expect("a client comes");
            stream.read_exact(&mut vec![0; bytes]).expect("it says so much");
            (stream, me())
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Segments, each with where it stands.
fn sends(pieces: &[(usize, &[u8])]) -> Value {
    pieces.iter().map(|(at, piece)| json!([at, hex(piece)])).collect()
}

/// The same handshake message in records of these sizes, the last one as long as it must be.
fn in_records(hello: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut rest, mut records) = (&hello[5..], Vec::new());
    for size in sizes.iter().copied().chain([rest.len()]) {
        let (part, after) = rest.split_at(size.min(rest.len()));
        if !part.is_empty() {
            records.extend_from_slice(&[22, 3, 1]);
            records.extend_from_slice(&(part.len() as u16).to_be_bytes());
            records.extend_from_slice(part);
        }
        rest = after;
    }
    records
}

/// What the server's side says of a hello that a thread has read and not answered.
#[track_caller]
fn owes_its_own(culprit: &Culprit, service: SocketAddr, task: (u32, u32)) -> Fact {
    let pending = step(culprit, "server", service, "handshake_pending");
    assert_eq!((pending.text("stage"), pending.task()), ("awaiting_server_hello", task));
    assert_eq!(pending.text("sni"), NAME, "{pending:?}");
    let hello = step(culprit, "server", service, "client_hello");
    assert_eq!((hello.task(), hello.text("sni")), (task, NAME));
    pending
}

/// A hello of this form, sent in these segments, is one whole hello with its name, which its reader owes.
fn is_one_hello(form: impl Fn(&[u8]) -> Vec<u8>, cuts: &[usize], order: &[usize]) {
    let wire = Wire::make();
    let listener = listen(&wire.pair.server, wire.service);
    let culprit = Culprit::trace("");
    let bytes = form(&wire.hello());
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let pieces: Vec<(usize, &[u8])> = starts.zip(ends).map(|(from, to)| (from, &bytes[from..to])).collect();
    let ordered: Vec<(usize, &[u8])> = order.iter().map(|number| pieces[*number]).collect();
    let _client = wire.client(&json!({ "sends": sends(&ordered) }));
    let (_stream, task) = wire.read(&listener, bytes.len());
    owes_its_own(&culprit, wire.service, task);
    assert_eq!(story(&culprit, "server", wire.service), ["client_hello", "handshake_pending"]);
}

#[test]
fn a_hello_whose_second_segment_comes_first_is_one_hello() {
    needs!(Openssl);
    is_one_hello(<[u8]>::to_vec, &[60], &[1, 0]);
}

#[test]
fn a_hello_of_five_segments_in_another_order_and_twice_is_one_hello() {
    needs!(Openssl);
    is_one_hello(<[u8]>::to_vec, &[3, 40, 90, 150], &[4, 2, 2, 1, 3, 0, 4, 0]);
}

#[test]
fn a_hello_in_two_records_is_one_hello() {
    needs!(Openssl);
    is_one_hello(|hello| in_records(hello, &[10]), &[], &[0]);
}

#[test]
fn a_hello_in_many_records_and_segments_that_cut_their_headers_is_one_hello() {
    needs!(Openssl);
    is_one_hello(|hello| in_records(hello, &[10, 50, 1]), &[17, 71, 74], &[0, 1, 2, 3]);
}

#[test]
fn a_hello_in_two_records_that_come_in_the_wrong_order_is_one_hello() {
    needs!(Openssl);
    is_one_hello(|hello| in_records(hello, &[10]), &[15], &[1, 0]);
}

/// Of these bytes a server owes nothing, however long it waits for more.
fn is_no_hello(of: impl Fn(&[u8]) -> Vec<u8>) {
    let wire = Wire::make();
    let listener = listen(&wire.pair.server, wire.service);
    let culprit = Culprit::trace("");
    let bytes = of(&wire.hello());
    let _client = wire.client(&json!({ "sends": sends(&[(0, &bytes)]) }));
    let (_stream, _) = wire.read(&listener, bytes.len());
    // Another one, which is a hello: by the time it is said to wait, the first would have been as well.
    let other = SocketAddr::new(wire.pair.v4(2), port());
    let listener = listen(&wire.pair.server, other);
    let whole = wire.hello();
    let _stream = wire.pair.client.enter(move || {
        let mut stream = TcpStream::connect(other).expect("it listens");
        stream.write_all(&whole).expect("it reads");
        stream
    });
    let _other = wire.read(&listener, 100);
    step(&culprit, "server", other, "handshake_pending");
    let owed = culprit.seen(|fact| {
        fact.handshake("server", wire.service) && fact.text("stage") != "client_hello_incomplete"
    });
    assert_eq!(owed.len(), 0, "{owed:#?}");
}

#[test]
fn a_server_that_got_half_a_hello_owes_nothing() {
    needs!(Openssl);
    is_no_hello(|hello| hello[..hello.len() - 1].to_vec());
}

#[test]
fn a_server_that_got_one_record_of_a_hello_in_two_owes_nothing() {
    needs!(Openssl);
    is_no_hello(|hello| in_records(hello, &[100])[..105].to_vec());
}

#[test]
fn a_server_that_got_an_empty_record_owes_nothing() {
    needs!(Openssl);
    is_no_hello(|_| b"\x16\x03\x01\x00\x00\x01\x00\x00\x00\x03\x03".to_vec());
}

#[test]
fn a_server_that_got_an_oversized_record_owes_nothing() {
    needs!(Openssl);
    is_no_hello(|_| [b"\x16\x03\x01\xff\xff\x01\x00\xff\xff\x03\x03".as_slice(), &[65; 1200]].concat());
}

/// A hello that completes the TCP handshake, because the client's acknowledgement got lost, is read by the thread that
/// owes its answer.
fn a_lost_acknowledgement(cookies: bool) {
    let wire = Wire::make();
    if cookies {
        wire.pair.server.sysctl("net/ipv4/tcp_syncookies", "2");
    }
    let listener = listen(&wire.pair.server, wire.service);
    let culprit = Culprit::trace("");
    let hello = wire.hello();
    let _client = wire.client(&json!({ "sends": sends(&[(0, &hello)]), "acks": false }));
    let (_stream, task) = wire.read(&listener, hello.len());
    let cookies_received = wire.pair.server.counter("TcpExt", "SyncookiesRecv");
    assert_eq!(cookies_received != 0, cookies, "{cookies_received} cookies came back");
    owes_its_own(&culprit, wire.service, task);
    assert_eq!(story(&culprit, "server", wire.service), ["client_hello", "handshake_pending"]);
}

#[test]
fn a_hello_in_place_of_a_lost_acknowledgement_belongs_to_its_reader() {
    needs!(Openssl);
    a_lost_acknowledgement(false);
}

#[test]
fn a_hello_that_returns_a_syn_cookie_belongs_to_its_reader() {
    needs!(Openssl);
    a_lost_acknowledgement(true);
}

#[test]
fn hellos_of_several_clients_that_come_before_their_sockets_are_not_mixed_up() {
    needs!(Openssl);
    let wire = Wire::make();
    let listener = listen(&wire.pair.server, wire.service);
    let culprit = Culprit::trace("");
    let hello = wire.hello();
    let clients: Vec<Running> =
        (0..5).map(|_| wire.client(&json!({ "sends": sends(&[(0, &hello)]), "acks": false }))).collect();
    let mut readers = Vec::new();
    for _ in &clients {
        let (stream, task) = wire.read(&listener, hello.len());
        readers.push((stream.peer_addr().expect("connected"), task, stream));
    }
    for (peer, task, _) in &readers {
        let pending = culprit.wait_for("each handshake, by its own reader", |fact| {
            fact.kind() == "handshake_pending"
                && fact.handshake("server", wire.service)
                && fact.at("peer") == Some(*peer)
                // On a slow machine it has waited to be read, too.
                && fact.text("stage") == "awaiting_server_hello"
        });
        assert_eq!(pending.task(), *task);
        assert_eq!(pending.text("sni"), NAME);
    }
}

const READS_AND_WAITS: &str = "
import ssl
import os, socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
client, _ = server.accept()
client.recv(65536)
if sys.argv[3] == 'inherited' and os.fork() == 0:
    print('child', os.getpid(), flush=True)
print('read', flush=True)
sys.stdin.readline()
";

impl Wire {
    /// A process that reads one hello and never answers.
    #[track_caller]
    fn reads_and_waits(&self, how: &str) -> Running {
        let mut python = python();
        python.args(["-c", READS_AND_WAITS, &self.service.ip().to_string()]);
        python.args([&self.service.port().to_string(), how]);
        let server = self.pair.server.spawn(python);
        server.wait_for_line("ready");
        server
    }
}

#[test]
fn a_server_that_exits_while_its_socket_waits_for_the_peer_owes_nothing() {
    needs!(Openssl);
    let wire = Wire::make();
    let server = wire.reads_and_waits("alone");
    let culprit = Culprit::trace("");
    // This client acknowledges nothing, least of all that the server has closed.
    let _client = wire.client(&json!({ "sends": sends(&[(0, &wire.hello())]) }));
    let pending = step(&culprit, "server", wire.service, "handshake_pending");
    assert_eq!(pending.pid(), server.pid());
    let about = |incident: &crate::harness::Incident| {
        incident.text("/kind") == "tls_handshake_stalled" && incident.within(&wire.pair.server)
    };
    culprit.wait_for_incident("the stall", |incident| about(incident) && incident.opens());
    drop(server);
    let closed = step(&culprit, "server", wire.service, "handshake_closed");
    assert_eq!(closed.text("stage"), "awaiting_server_hello");
    culprit.wait_for_incident("its end", |incident| about(incident) && incident.text("/state") == "resolved");
}

#[test]
fn a_server_whose_socket_another_process_has_as_well_still_owes_its_answer() {
    needs!(Openssl);
    let wire = Wire::make();
    let server = wire.reads_and_waits("inherited");
    let culprit = Culprit::trace("");
    let _client = wire.client(&json!({ "sends": sends(&[(0, &wire.hello())]) }));
    server.wait_for_line("child");
    server.signal(Signal::KILL);
    let waits = |fact: &Fact, ms: f64| {
        fact.kind() == "handshake_pending"
            && fact.handshake("server", wire.service)
            && fact.number("stall_ms") >= ms
    };
    // Said again when it has waited twice as long.
    culprit.wait_for("a handshake that is still owed", |fact| waits(fact, 2000.0));
    let closed =
        culprit.seen(|fact| fact.kind() == "handshake_closed" && fact.handshake("server", wire.service));
    assert_eq!(closed.len(), 0, "{closed:#?}");
    drop(server);
    step(&culprit, "server", wire.service, "handshake_closed");
}

/// The first segment of a server's flight is lost, and its second arrives before it is sent again.
#[test]
fn a_server_flight_whose_first_segment_is_lost_once_is_followed_like_any_other() {
    needs!(Openssl, Nftables);
    let (pair, identity) = (Pair::make(), Identity::make());
    let service = pair.service(port());
    // The flight takes several segments, and each goes alone.
    pair.server.ip("link set wire mtu 600 gso_max_segs 1");
    let server = identity.server(&pair.server, service, "-tls1_3");
    pair.client.nft(&format!(
        "table inet test {{ chain prerouting {{ type filter hook prerouting priority -300; \
         tcp sport {} meta length > 500 limit rate 1/hour burst 1 packets counter drop; }}; }}",
        service.port()
    ));
    let culprit = Culprit::trace("");
    let client = crate::harness::tls::openssl_client(&pair.client, service, "-tls1_3");
    for (role, pid) in [("client", client.pid()), ("server", server.pid())] {
        let done = step(&culprit, role, service, "handshake_done");
        assert_eq!((done.pid(), done.text("version")), (pid, "TLS 1.3"));
        let emitted = story(&culprit, role, service);
        let steps: Vec<&str> =
            emitted.iter().map(String::as_str).filter(|kind| *kind != "server_flight_read").collect();
        assert_eq!(steps, ["client_hello", "server_hello", "handshake_done"], "of the {role}");
    }
    let rules = pair.client.enter(|| run(&mut words("nft list ruleset")).stdout);
    let rules = String::from_utf8(rules).expect("text");
    assert!(rules.contains("counter packets 1 "), "nothing was lost: {rules}");
}
