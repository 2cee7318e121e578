//! An answer that does not come to a process one points at, and none that is reported of others.

use std::{net::SocketAddr, time::Duration};

use crate::{
    harness::{Culprit, Incident, Netns, Running, keep::Keeper, netns::Pair, port, stage::python},
    needs,
};

/// Reads a request, and answers it when a line comes.
const SERVER: &str = "
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
client = server.accept()[0]
client.recv(4096)
print('asked', flush=True)
sys.stdin.readline()
client.sendall(b'HTTP/1.0 204 No Content\\r\\n\\r\\n')
";

fn server(netns: &Netns, at: SocketAddr) -> Running {
    let mut command = python();
    command.args(["-c", SERVER]).arg(at.ip().to_string()).arg(at.port().to_string());
    let server = netns.spawn(command);
    server.wait_for_line("ready");
    server
}

fn is_overdue(incident: &Incident, at: SocketAddr) -> bool {
    incident.text("/kind") == "response_overdue" && incident.blamed() == at.to_string()
}

#[test]
fn an_answer_that_a_process_waits_for_is_overdue_for_the_one_who_points_at_it_alone() {
    needs!(Curl);
    let pair = Pair::make();
    let to = pair.service(port());
    let mut server = server(&pair.server, to);
    let mut command = std::process::Command::new("curl");
    command.args(["-s", "--noproxy", "*", "-o", "/dev/null"]).arg(format!("http://{to}/"));
    let client = pair.client.spawn(command);
    server.wait_for_line("asked");
    let mut keeper = Keeper::new("response_overdue/server_answers_late");
    keeper.keep_connects(client.pid());
    let of_it = Culprit::trace(&format!("-p {}", client.pid()));
    let of_all = Culprit::trace("");
    let opened = of_it.wait_for_incident("the overdue answer", |incident| is_overdue(incident, to));
    assert_eq!(opened.blame(), ("peer", "likely"), "{:#}", opened.json);
    assert_eq!(opened.task().0, u64::from(client.pid()), "{:#}", opened.json);
    assert!(opened.within(&pair.client), "{:#}", opened.json);
    assert!(opened.number("/details/waited_ms") >= 10_000, "{:#}", opened.json);
    assert_eq!(opened.number("/details/received_bytes"), 0);
    assert!(opened.number("/details/sent_bytes") > 50, "the request: {:#}", opened.json);
    keeper.catches_up();
    keeper.end();
    server.say("go\n");
    let over = of_it.wait_for_incident("its end", |incident| {
        incident.id() == opened.id() && incident.text("/state") == "resolved"
    });
    assert!(
        over.text("/summary").contains("has answered") || over.text("/summary").contains("no longer waits"),
        "{:#}",
        over.json
    );
    let ended = of_all.stop();
    assert!(!ended.incidents.iter().any(|incident| is_overdue(incident, to)), "{:#?}", ended.incidents);
}

#[test]
fn a_connection_that_is_kept_for_later_is_not_overdue() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    let mut server = server(&pair.server, to);
    // It keeps the connection after the answer, and reads from it to learn of its end.
    const KEEPS: &str = "
import socket, sys
service = socket.create_connection((sys.argv[1], int(sys.argv[2])))
service.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
service.recv(4096)
print('answered', flush=True)
service.recv(4096)
";
    let mut command = python();
    command.args(["-c", KEEPS]).arg(to.ip().to_string()).arg(to.port().to_string());
    let client = pair.client.spawn(command);
    server.wait_for_line("asked");
    let culprit = Culprit::trace(&format!("-p {}", client.pid()));
    server.say("go\n");
    client.wait_for_line("answered");
    std::thread::sleep(Duration::from_millis(13_000));
    let ended = culprit.stop();
    assert!(!ended.incidents.iter().any(|incident| is_overdue(incident, to)), "{:#?}", ended.incidents);
}
