//! Connections whose data is not acknowledged: what the way does to them, and what is none.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    harness::{
        Culprit, Incident, Netns, Running, eventually, keep::Keeper, netns::Pair, port, sockets::connect,
        stage::python,
    },
    needs,
};

/// Echoes lines; answers `many` with 2200 bytes; after `stop` it reads no more.
const SERVER: &str = "
import socket, sys, threading
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
def serve(client):
    lines = client.makefile('rb')
    for line in lines:
        if line == b'stop\\n':
            threading.Event().wait()
        client.sendall(b'x' * 2200 if line == b'many\\n' else line)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
";

/// A client, a router, and a host behind it with a server.
struct Way {
    pair: Pair,
    host: Netns,
    server: Running,
    to: SocketAddr,
}

impl Way {
    fn make() -> Self {
        let pair = Pair::make();
        let (host, address) = pair.host_behind();
        pair.client.ip(&format!("route add {address} via {}", pair.v4(2)));
        host.ip(&format!("route add default via {}", host.v4(1)));
        // Each packet is one segment, as on a wire.
        host.ip("link set eth0 gso_max_segs 1");
        pair.client.ip("link set wire gso_max_segs 1");
        let to = SocketAddr::new(address, port());
        let mut command = python();
        command.args(["-c", SERVER]).arg(to.ip().to_string()).arg(to.port().to_string());
        let server = host.spawn(command);
        server.wait_for_line("ready");
        Self { pair, host, server, to }
    }

    /// What the router does to what it forwards.
    fn forwards(&self, rule: &str) {
        self.pair.server.nft(&format!(
            "table inet way {{ chain forward {{ type filter hook forward priority 0; {rule} drop; }}; }}"
        ));
    }

    fn connect(&self) -> TcpStream {
        let (stream, _) = connect(&self.pair.client, self.to);
        let stream = stream.expect("the way is open");
        stream.set_nodelay(true).expect("a socket");
        stream
    }

    fn is_stalled(&self, incident: &Incident, peer: IpAddr) -> bool {
        incident.text("/kind") == "connection_stalled"
            && incident.text("/details/peer/ip").parse() == Ok(peer)
    }

    fn any(&self, incident: &Incident) -> bool {
        self.is_stalled(incident, self.to.ip()) || self.is_stalled(incident, self.pair.v4(1))
    }
}

/// Says a line and hears its echo.
fn echo(stream: &mut TcpStream) {
    stream.write_all(b"hello\n").expect("it is open");
    stream.read_exact(&mut [0; 6]).expect("the echo");
}

#[test]
fn large_segments_that_vanish_on_the_way_are_a_matter_of_the_path_mtu() {
    needs!(Nftables);
    let way = Way::make();
    let mut keeper = Keeper::new("connection_stalled/path_mtu_hole");
    keeper.keep_connects(way.server.pid());
    let culprit = Culprit::trace("");
    let mut stream = way.connect();
    echo(&mut stream);
    way.forwards("meta length > 1300");
    stream.write_all(b"many\n").expect("it is open");
    let client = way.pair.v4(1);
    let opened = culprit.wait_for_incident("the lost segment", |incident| way.is_stalled(incident, client));
    assert_eq!(opened.blame(), ("path", "likely"), "{:#}", opened.json);
    assert_eq!(opened.task().0, u64::from(way.server.pid()), "{:#}", opened.json);
    assert!(opened.within(&way.host), "{:#}", opened.json);
    assert!(opened.text("/summary").contains("the path MTU is less than 1500"), "{:#}", opened.json);
    assert!(opened.remedies().contains("net.ipv4.tcp_mtu_probing=1"), "{}", opened.remedies());
    assert_eq!(opened.number("/details/unacked_bytes"), 2200, "{:#}", opened.json);
    keeper.catches_up();
    keeper.end();
    // The way takes large packets again.
    way.pair.server.nft("flush table inet way");
    let mut all = vec![0; 2200];
    stream.read_exact(&mut all).expect("it is sent again");
    culprit.wait_for_incident("its end", |incident| {
        incident.id() == opened.id() && incident.text("/state") == "resolved"
    });
}

#[test]
fn a_connection_that_the_way_forgot_is_reported_with_its_idle_time_and_that_new_ones_work() {
    needs!(Nftables);
    let way = Way::make();
    let mut keeper = Keeper::new("connection_stalled/forgotten_by_nat");
    keeper.keep_connects(std::process::id());
    let culprit = Culprit::trace("");
    let mut stream = way.connect();
    echo(&mut stream);
    let local = stream.local_addr().expect("connected").port();
    way.forwards(&format!("tcp sport {local}"));
    // The situation is that nothing passes for a while.
    std::thread::sleep(Duration::from_millis(2600));
    stream.write_all(b"hello\n").expect("it is open");
    let opened = culprit.wait_for_incident("the silence", |incident| way.is_stalled(incident, way.to.ip()));
    assert_eq!(opened.blame(), ("path", "possible"), "{:#}", opened.json);
    assert_eq!(opened.task().0, u64::from(std::process::id()), "{:#}", opened.json);
    assert!(opened.number("/details/idle_ms") >= 2000, "{:#}", opened.json);
    assert!(opened.text("/summary").contains("had been idle for"), "{:#}", opened.json);
    assert!(opened.remedies().contains("keepalives"), "{}", opened.remedies());
    echo(&mut way.connect());
    let sure = culprit.wait_for_incident("that new ones work", |incident| {
        incident.id() == opened.id() && incident.blame() == ("path", "likely")
    });
    assert_eq!(sure.json["details"]["new_connections_work"], true, "{:#}", sure.json);
    keeper.catches_up();
    keeper.end();
    drop(stream);
    culprit.wait_for_incident("its end", |incident| {
        incident.id() == opened.id() && incident.text("/state") == "resolved"
    });
}

#[test]
fn one_that_was_not_acknowledged_before_culprit_started_is_adopted_with_its_process() {
    needs!(Nftables);
    let way = Way::make();
    let mut stream = way.connect();
    echo(&mut stream);
    way.forwards("meta length > 1300");
    stream.write_all(b"many\n").expect("it is open");
    eventually("it is sent again", || way.host.counter("Tcp", "RetransSegs") >= 4);
    let culprit = Culprit::trace("");
    let client = way.pair.v4(1);
    let opened = culprit.wait_for_incident("the lost segment", |incident| way.is_stalled(incident, client));
    assert_eq!(opened.task().0, u64::from(way.server.pid()), "{:#}", opened.json);
    assert_eq!(opened.json["details"]["since_before_start"], true, "{:#}", opened.json);
    assert!(opened.number("/details/stalled_ms") >= 1400, "{:#}", opened.json);
}

#[test]
fn a_peer_that_does_not_read_and_a_link_that_loses_some_are_none() {
    needs!(Nftables);
    let way = Way::make();
    let culprit = Culprit::trace("");
    // Its window closes.
    let mut full = way.connect();
    full.write_all(b"stop\n").expect("it is open");
    full.set_nonblocking(true).expect("a socket");
    let chunk = vec![b'x'; 1 << 16];
    eventually("its window closes", || {
        while full.write(&chunk).is_ok() {}
        true
    });
    // Every fifth packet is lost.
    way.forwards("tcp flags & (syn | fin) == 0 numgen inc mod 5 0");
    let mut lossy = way.connect();
    for _ in 0..40 {
        lossy.write_all(b"many\n").expect("it is open");
        lossy.read_exact(&mut vec![0; 2200]).expect("it is sent again");
    }
    std::thread::sleep(Duration::from_secs(4));
    let ended = culprit.stop();
    assert!(!ended.incidents.iter().any(|incident| way.any(incident)), "{:#?}", ended.incidents);
}
