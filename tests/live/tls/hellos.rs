//! ClientHellos that come in pieces, late, unread, too large for a segment; and bytes that only resemble one.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use rustix::process::Signal;

use crate::{
    harness::{
        Culprit, Netns, Running,
        netns::Pair,
        port,
        sockets::{listen_on_loopback, me},
        tls::{Identity, NAME, drain, handshake, hello_of, openssl_client, send_in_pieces},
    },
    needs,
    tls::handshakes::{step, story},
};

/// Sends a real ClientHello cut at these places, completes the handshake, and checks what was emitted.
fn a_hello_cut_at(cuts: &'static [usize]) {
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let server = identity.server(&netns, service, "");
    let culprit = Culprit::trace("");
    let mut client = identity.client(|_| ());
    let (_stream, bytes, task) = netns.enter(move || {
        let hello = hello_of(&mut client);
        let mut pieces = Vec::new();
        let mut rest = hello.as_slice();
        for cut in cuts {
            let (piece, after) = rest.split_at(*cut);
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let mut stream = TcpStream::connect(service).expect("it listens");
        send_in_pieces(&mut stream, &pieces);
        handshake(&mut client, &mut stream).expect("they agree");
        (stream, hello.len(), me())
    });
    for (role, pid) in [("client", task.0), ("server", server.pid())] {
        let done = step(&culprit, role, service, "handshake_done");
        let hello = step(&culprit, role, service, "client_hello");
        assert_eq!((hello.pid(), done.pid(), hello.text("sni")), (pid, pid, NAME));
        assert_eq!(hello.number("hello_bytes"), bytes as f64);
        assert_eq!(story(&culprit, role, service).iter().filter(|kind| *kind == "client_hello").count(), 1);
    }
}

#[test]
fn a_hello_whose_first_segment_is_one_byte_is_reassembled() {
    needs!(Openssl);
    a_hello_cut_at(&[1, 99]);
}

#[test]
fn a_hello_split_inside_its_record_header_and_its_handshake_header_is_reassembled() {
    needs!(Openssl, Pace);
    a_hello_cut_at(&[3, 5]);
}

#[test]
fn a_hello_in_single_bytes_is_reassembled() {
    needs!(Openssl);
    a_hello_cut_at(&[1; 48]);
}

#[test]
fn a_hello_larger_than_a_segment_is_read_whole() {
    needs!(Openssl);
    let (pair, identity) = (Pair::make(), Identity::make());
    // Segments as they are on a real wire: none longer than its MTU.
    pair.client.ip("link set wire gso_max_segs 1");
    let service = pair.service(port());
    let server = identity.server(&pair.server, service, "-alpn last");
    let culprit = Culprit::trace("");
    let mut offered: Vec<String> = (0..220).map(|number| format!("protocol-{number:03}")).collect();
    offered.push("last".into());
    let mut client = identity.client(|config| {
        config.alpn_protocols = offered.iter().map(|name| name.clone().into_bytes()).collect();
    });
    let _stream = pair.client.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        handshake(&mut client, &mut stream).expect("they agree");
        stream
    });
    for (role, pid) in [("client", std::process::id()), ("server", server.pid())] {
        let done = step(&culprit, role, service, "handshake_done");
        let hello = step(&culprit, role, service, "client_hello");
        assert!(hello.number("hello_bytes") > 3000.0, "{}", hello.number("hello_bytes"));
        assert_eq!((hello.pid(), hello.text("sni"), done.text("version")), (pid, NAME, "TLS 1.3"));
        assert_eq!(hello.list("alpn"), offered);
    }
}

/// A hung server and a client that said hello to it.
fn a_hung_server(netns: &Netns, identity: &Identity, service: SocketAddr) -> [Running; 2] {
    let server = identity.server(netns, service, "");
    server.signal(Signal::STOP);
    [openssl_client(netns, service, ""), server]
}

#[test]
fn a_server_that_never_reads_the_hello_is_named_as_the_listening_process() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), Identity::make());
    let service = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    let [client, server] = a_hung_server(&netns, &identity, service);
    let pending = step(&culprit, "server", service, "handshake_pending");
    assert_eq!(pending.text("stage"), "client_hello_unread");
    assert_eq!((pending.task(), pending.comm()), ((server.pid(), server.pid()), "openssl"));
    assert_eq!(pending.text("sni"), NAME);
    assert!(pending.number("stall_ms") >= 1000.0 && pending.number("elapsed_ms") >= 1000.0, "{pending:?}");
    let waiting = step(&culprit, "client", service, "handshake_pending");
    assert_eq!((waiting.pid(), waiting.text("stage")), (client.pid(), "awaiting_server_hello"));
    // It comes back to life: from here on it is a handshake that was slow to be read.
    server.signal(Signal::CONT);
    let done = step(&culprit, "server", service, "handshake_done");
    assert_eq!(done.pid(), server.pid());
    assert!(done.number("duration_ms") >= 1000.0, "{done:?}");
}

#[test]
fn a_hung_server_is_not_confused_with_one_on_the_same_port_of_another_network() {
    needs!(Openssl);
    let (hung, healthy, identity) = (Netns::make(), Netns::make(), Identity::make());
    let service = SocketAddr::new(hung.loopback(), port());
    let culprit = Culprit::trace("");
    let [_client, server] = a_hung_server(&hung, &identity, service);
    let _innocent = identity.server(&healthy, SocketAddr::new(healthy.loopback(), service.port()), "");
    let pending = step(&culprit, "server", service, "handshake_pending");
    assert_eq!((pending.text("stage"), pending.pid()), ("client_hello_unread", server.pid()));
}

#[test]
fn a_server_that_reads_the_hello_and_sends_nothing_owes_its_own() {
    needs!(Openssl);
    let netns = Netns::make();
    let (listener, service) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let client = openssl_client(&netns, service, "");
    let (mut stream, _) = listener.accept().expect("a client comes");
    let task = netns.enter(move || {
        stream.read_exact(&mut [0; 100]).expect("a hello");
        (stream, me())
    });
    let pending = step(&culprit, "server", service, "handshake_pending");
    assert_eq!((pending.text("stage"), pending.task()), ("awaiting_server_hello", task.1));
    drop(client);
    let closed = step(&culprit, "client", service, "handshake_closed");
    assert_eq!(closed.text("stage"), "awaiting_server_hello");
}

/// Says this, hears that, line by line, before the real thing begins.
fn plain(stream: &mut TcpStream, lines: &[(&str, &str)]) {
    for (say, hear) in lines {
        stream.write_all(say.as_bytes()).expect("the peer listens");
        let mut heard = vec![0; hear.len()];
        stream.read_exact(&mut heard).expect("the peer answers");
        assert_eq!(String::from_utf8_lossy(&heard), *hear);
    }
}

/// A handshake on a connection that has carried so many bytes of plain talk; who did it, as client and as
/// server.
fn after_plaintext(netns: &Netns, bytes: usize) -> (SocketAddr, [(u32, u32); 2]) {
    let identity = Identity::make();
    let (listener, service) = listen_on_loopback(netns);
    let (mut server, mut client) = (identity.server_connection(), identity.client(|_| ()));
    let serving = netns.thread(move || {
        let (mut stream, _) = listener.accept().expect("a client comes");
        stream.read_exact(&mut vec![0; bytes]).expect("the client talks");
        plain(&mut stream, &[("220 ready\r\n", "STARTTLS\r\n")]);
        stream.write_all(b"220 go ahead\r\n").expect("the client listens");
        handshake(&mut server, &mut stream).expect("they agree");
        (stream, me())
    });
    let (_stream, task) = netns.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        stream.write_all(&vec![b'x'; bytes]).expect("the server reads");
        plain(&mut stream, &[("", "220 ready\r\n"), ("STARTTLS\r\n", "220 go ahead\r\n")]);
        handshake(&mut client, &mut stream).expect("they agree");
        (stream, me())
    });
    let (_stream, serving) = serving.join().expect("served");
    (service, [task, serving])
}

#[test]
fn a_handshake_after_plaintext_is_followed_like_any_other() {
    needs!(Openssl);
    let netns = Netns::make();
    let culprit = Culprit::trace("");
    for bytes in [0, 2 << 20] {
        let (service, tasks) = after_plaintext(&netns, bytes);
        for (role, task) in ["client", "server"].into_iter().zip(tasks) {
            let done = step(&culprit, role, service, "handshake_done");
            assert_eq!((done.task(), done.text("sni")), (task, NAME), "after {bytes} bytes");
        }
    }
}

/// Sends these bytes to a listener that reads them all, and closes.
fn say(netns: &Netns, listener: TcpListener, service: SocketAddr, bytes: &'static [u8]) {
    let reader = netns.thread(move || drain(&mut listener.accept().expect("a client comes").0));
    netns.enter(move || {
        let mut stream = TcpStream::connect(service).expect("it listens");
        stream.write_all(bytes).expect("it reads");
    });
    reader.join().expect("it reads to the end");
}

#[test]
fn other_protocols_whose_bytes_begin_alike_are_not_reported_as_tls() {
    needs!(Pace);
    let netns = Netns::make();
    let culprit = Culprit::trace("");
    let mut services = Vec::new();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: service.test\r\n\r\n".as_slice(),
        b"\x16",
        b"\x16\x03\x03",
        b"\x16\x03\x09\x00\x20\x01\x00\x00\x1c\x03\x03 a version there is not",
        b"\x16\x03\x03\x00\x30\x02\x00\x00\x2c\x03\x03 a ServerHello from nowhere",
        b"\x16\x03\x01\x00\x10\x01\x00\x00\x0c\x03\x03 as a ClientHello begins, and then garbage",
    ] {
        let (listener, service) = listen_on_loopback(&netns);
        say(&netns, listener, service, bytes);
        services.push(service);
    }
    culprit.settle(&netns);
    for service in services {
        let emitted = culprit.seen(|fact| {
            fact.text("probe") == "tls" && [fact.at("peer"), fact.at("local")].contains(&Some(service))
        });
        assert_eq!(emitted.len(), 0, "{emitted:#?}");
    }
}

#[test]
fn a_server_that_answers_a_hello_with_plaintext_is_not_tls() {
    needs!(Openssl, Pace);
    let netns = Netns::make();
    let (listener, service) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let client = openssl_client(&netns, service, "");
    let (mut stream, _) = listener.accept().expect("a client comes");
    let task = netns.enter(move || {
        stream.read_exact(&mut [0; 100]).expect("a hello");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("the client reads");
        me()
    });
    let mine = step(&culprit, "client", service, "not_tls");
    let theirs = step(&culprit, "server", service, "not_tls");
    assert_eq!((mine.pid(), theirs.task()), (client.pid(), task));
    culprit.settle(&netns);
    assert_eq!(story(&culprit, "client", service), ["client_hello", "not_tls"]);
}
