//! Clients whose ClientHello is not answered: by a peer that has it, and because the way swallows it.

use std::net::SocketAddr;

use crate::{
    harness::{Culprit, Incident, Running, netns::Pair, port, sockets::listen, stage::python},
    needs,
};

/// Begins a handshake when a line comes, with a ClientHello of more than one segment.
const CLIENT: &str = "
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(['p%03d' % n + 'x' * 20 for n in range(60)])
print('ready', flush=True)
sys.stdin.readline()
plain = socket.create_connection((sys.argv[1], int(sys.argv[2])))
try:
    context.wrap_socket(plain, server_hostname='silent.test')
except OSError:
    pass
";

fn client(pair: &Pair, to: SocketAddr) -> Running {
    let mut command = python();
    command.args(["-c", CLIENT]).arg(to.ip().to_string()).arg(to.port().to_string());
    let client = pair.client.spawn(command);
    client.wait_for_line("ready");
    client
}

fn is_stalled(incident: &Incident) -> bool {
    incident.text("/kind") == "tls_handshake_stalled" && incident.text("/details/role") == "client"
}

#[test]
fn a_peer_that_has_the_hello_and_is_silent_is_named_to_who_looks_at_the_client() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    let _server = listen(&pair.server, to);
    let mut client = client(&pair, to);
    // The server is on this host too, and would be reported as the one that owes the answer.
    let culprit = Culprit::trace(&format!("-p {}", client.pid()));
    client.say("go\n");
    let opened = culprit.wait_for_incident("the silent peer", is_stalled);
    assert_eq!((opened.blame(), opened.blamed()), (("peer", "likely"), to.to_string()), "{:#}", opened.json);
    assert_eq!(opened.task().0, u64::from(client.pid()), "{:#}", opened.json);
    assert_eq!(opened.text("/details/sni"), "silent.test");
    assert_eq!(opened.json["details"]["hello_acknowledged"], true, "{:#}", opened.json);
    assert!(opened.number("/details/stall_ms") >= 10_000, "{:#}", opened.json);
}

#[test]
fn a_hello_of_which_the_way_passes_the_tail_alone_is_a_matter_of_the_path_mtu() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    let _server = listen(&pair.server, to);
    pair.client.ip("link set wire gso_max_segs 1");
    pair.server.nft(
        "table inet way { chain prerouting { type filter hook prerouting priority 0; meta length > 1300 drop; }; }",
    );
    let mut client = client(&pair, to);
    let culprit = Culprit::trace("");
    client.say("go\n");
    let opened = culprit.wait_for_incident("the lost hello", |incident| {
        is_stalled(incident) && incident.blamed() == to.to_string()
    });
    assert_eq!(opened.blame(), ("path", "likely"), "{:#}", opened.json);
    assert_eq!(opened.task().0, u64::from(client.pid()), "{:#}", opened.json);
    assert_eq!(opened.json["details"]["hello_acknowledged"], false, "{:#}", opened.json);
    assert!(opened.text("/summary").contains("the path MTU is less than 1500"), "{:#}", opened.json);
    let ended = culprit.stop();
    let twice = |incident: &Incident| {
        incident.text("/kind") == "connection_stalled" && incident.blamed() == to.to_string()
    };
    assert!(!ended.incidents.iter().any(twice), "reported once: {:#?}", ended.incidents);
}
