//! A DNS server that answers no program at all: one incident, that of the server.

use std::{net::UdpSocket, process::Command};

use serde_json::json;

use super::{Scene, UNANSWERED};
use crate::{
    harness::{
        Running,
        dns::{Answer, ask_unanswered, query},
        stage::python,
    },
    needs,
};

/// Asks once and waits for the answer: `address message-in-hexadecimal`.
const PYTHON: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 53))
s.send(bytes.fromhex(sys.argv[2]))
s.recv(512)";
/// The same in another language, so that it is another program.
const PERL: &str = "use IO::Socket::INET;
my $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => $ARGV[0], PeerPort => 53);
$s->send(pack('H*', $ARGV[1]));
$s->recv(my $answer, 512);";

#[test]
fn a_server_that_answers_three_programs_nothing_is_the_incident_that_theirs_point_to() {
    needs!(Perl, Pace);
    let scene = Scene::set("dns_unanswered/server_answers_no_program");
    let (client, server) = (&scene.pair.client, scene.server);
    let silent = scene.pair.server.enter(move || UdpSocket::bind(server).expect("a free port"));
    let asks = |mut command: Command, code: &str, flag: &str, id: u16| -> Running {
        let message: String = query(id, "db.example.com").iter().map(|byte| format!("{byte:02x}")).collect();
        command.args([flag, code]).arg(server.ip().to_string()).arg(message);
        client.spawn(command)
    };
    let (_socket, task) = ask_unanswered(client, server, query(1, "db.example.com"), 1);
    let mut others = [asks(python(), PYTHON, "-c", 2), asks(Command::new("perl"), PERL, "-e", 3)];
    let root = scene.culprit.wait_for_incident("the server's own", |emitted| {
        emitted.text("/kind") == UNANSWERED
            && emitted.text("/details/reason") == "server_silent"
            && emitted.blamed() == server.to_string()
    });
    assert_eq!(root.blame(), ("dns_lookup", "certain"));
    assert_eq!((root.number("/details/programs"), &root.json["process"]), (3, &json!(null)));
    let pids: Vec<u64> = [task.0, others[0].pid(), others[1].pid()].map(u64::from).into();
    for pid in &pids {
        let listed = root.json["details"]["processes"].as_array().expect("a list");
        assert!(listed.iter().any(|process| process["pid"] == *pid), "{pid}: {:#}", root.json);
        scene.culprit.wait_for_incident("a program's, which points to it", |emitted| {
            emitted.within(client)
                && emitted.task().0 == *pid
                && emitted.json["caused_by"] == json!([root.id()])
        });
    }
    scene.keeper.catches_up();
    // It answers again.
    let mut question = [0; 512];
    for _ in &pids {
        let (len, from) = silent.recv_from(&mut question).expect("asked");
        let answer = Answer::Address([192, 0, 2, 7].into()).to(&question[..len]);
        silent.send_to(&answer, from).expect("it waits");
    }
    for other in &mut others {
        assert!(other.wait().success(), "{}", other.stderr());
    }
    assert!(scene.resolved(&root).text("/summary").contains("3 programs waited for it"));
    scene.ends_with(3);
}
