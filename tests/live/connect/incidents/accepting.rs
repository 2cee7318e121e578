//! Services whose accept queue is full: who does not accept, and who is not.

use std::{net::SocketAddr, process::Command, time::Duration};

use crate::{
    harness::{
        Culprit, Incident, Netns, Running, eventually,
        keep::Keeper,
        netns::Pair,
        port,
        sockets::{begin_connect, connect},
        stage::python,
    },
    needs,
};

/// Listens with a backlog of 1 at an address of its own, and does not accept until a line comes.
const SERVER: &str = "
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1)
print('ready', flush=True)
sys.stdin.readline()
while True:
    server.accept()[0].close()
";

fn server(netns: &Netns, at: SocketAddr) -> Running {
    let mut command: Command = python();
    command.args(["-c", SERVER]).arg(at.ip().to_string()).arg(at.port().to_string());
    let server = netns.spawn(command);
    server.wait_for_line("ready");
    server
}

fn is_full(incident: &Incident, at: SocketAddr) -> bool {
    incident.text("/kind") == "listen_queue_full"
        && incident.text("/details/local/ip").parse() == Ok(at.ip())
        && incident.number("/details/local/port") == u64::from(at.port())
}

#[test]
fn a_service_that_does_not_accept_is_named_with_its_queue_and_what_its_threads_do() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    let mut server = server(&pair.server, to);
    let mut keeper = Keeper::new("listen_queue_full/service_does_not_accept");
    keeper.keep_connects(server.pid());
    let culprit = Culprit::trace("");
    // A backlog of 1 has room for two.
    let _held: Vec<_> = (0..2).map(|_| connect(&pair.client, to).0.expect("there is room")).collect();
    let ignored: Vec<_> = (0..3).map(|_| begin_connect(&pair.client, to)).collect();
    let opened = culprit.wait_for_incident("the full queue", |incident| is_full(incident, to));
    assert_eq!(opened.blame(), ("listen_limit", "certain"), "{:#}", opened.json);
    assert_eq!(opened.task().0, u64::from(server.pid()), "{:#}", opened.json);
    assert!(opened.within(&pair.server), "{:#}", opened.json);
    assert_eq!((opened.number("/details/queued"), opened.number("/details/limit")), (2, 1));
    assert!(opened.number("/details/ignored_syns") >= 3, "{:#}", opened.json);
    assert_eq!(opened.json["details"]["refused"][0], pair.v4(1).to_string());
    assert!(opened.why().contains("Its only thread: asleep in read"), "{}", opened.why());
    // Those of this host that wait for it point to it, and no packet filter is named.
    let stalled = culprit.wait_for_incident("the stalled connects", |incident| {
        incident.text("/kind") == "connect_stalled" && incident.blamed() == to.to_string()
    });
    let explained = culprit.wait_for_incident("its cause", |incident| {
        incident.id() == stalled.id() && incident.json["caused_by"][0] == opened.id()
    });
    assert!(!explained.json.to_string().contains("firewall"), "{:#}", explained.json);
    keeper.catches_up();
    keeper.end();
    // It accepts: the connects go through, and after a while it is over.
    server.say("go\n");
    culprit.wait_for_incident("its end", |incident| {
        incident.id() == opened.id() && incident.text("/state") == "resolved"
    });
    drop(ignored);
}

#[test]
fn a_queue_that_is_full_for_a_moment_is_no_incident() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    let mut server = server(&pair.server, to);
    let culprit = Culprit::trace("");
    let _held: Vec<_> = (0..2).map(|_| connect(&pair.client, to).0.expect("there is room")).collect();
    let (socket, _) = begin_connect(&pair.client, to);
    let seen = culprit.wait_for("the ignored SYN", |fact| {
        fact.kind() == "listen_queue_full" && fact.at("local") == Some(to)
    });
    assert_eq!((seen.pid(), seen.number("ignored_syns")), (server.pid(), 1.0), "{}", seen.json);
    server.say("go\n");
    eventually("it connects at the second try", || socket.peer_addr().is_ok());
    std::thread::sleep(Duration::from_millis(600));
    let ended = culprit.stop();
    assert!(!ended.incidents.iter().any(|incident| is_full(incident, to)), "{:#?}", ended.incidents);
}
