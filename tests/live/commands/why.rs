//! `culprit why`: what a process waits for, followed from process to process, once and in time.

use std::{
    net::SocketAddr,
    process::Output,
    time::{Duration, Instant},
};

use crate::{
    harness::{Netns, Running, Scratch, culprit::binary, netns::Pair, port, stage::python},
    needs,
};

/// How long it may watch; it answers within that and what starting takes.
const WATCHES: Duration = Duration::from_secs(4);

#[track_caller]
fn why(args: &[&str]) -> (Output, String) {
    let began = Instant::now();
    let output = binary().arg("why").args(args).args(["--for", "4s"]).output().expect("it starts");
    let (took, most) = (began.elapsed(), (WATCHES + Duration::from_secs(4)).mul_f64(crate::harness::slow()));
    assert!(took < most, "{args:?} took {took:?}");
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    (output, text)
}

/// A Python program inside; it says `ready` first.
#[track_caller]
fn program(netns: &Netns, code: &str, args: &[&str]) -> Running {
    let mut command = python();
    command.arg("-c").arg(code).args(args);
    let running = netns.spawn(command);
    running.wait_for_line("ready");
    running
}

/// Connects to where no answer comes from.
const CONNECTS: &str = "
import socket, sys
print('ready', flush=True)
socket.create_connection((sys.argv[1], int(sys.argv[2])))
";

/// Answers on a unix socket, after a connect of its own.
const DAEMON: &str = "
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[3])
server.listen()
print('ready', flush=True)
client = server.accept()[0]
socket.create_connection((sys.argv[1], int(sys.argv[2])))
";

/// Asks on that unix socket.
const CLIENT: &str = "
import socket, sys
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(sys.argv[1])
daemon.sendall(b'who?')
print('ready', flush=True)
daemon.recv(1)
";

#[test]
fn a_connect_that_has_been_pending_is_named_with_the_thread_that_waits_for_it() {
    needs!(Nftables);
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let waits = program(&netns, CONNECTS, &[&to.ip().to_string(), "9"]);
    std::thread::sleep(Duration::from_secs(1));
    let (output, text) = why(&[&waits.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let first = text.lines().next().expect("a process");
    assert_eq!(first, format!("python3[{}]  1 thread", waits.pid()));
    assert!(text.contains(&format!("└─ thread {}: asleep in connect on TCP ", waits.pid())), "{text}");
    assert!(text.contains(&format!("   └─ waits for a connect to {to}: pending ")), "{text}");
    assert!(text.contains("since before culprit started"), "{text}");
}

/// Gives up a connect, and goes on.
const GIVES_UP: &str = "
import socket, sys, time
print('ready', flush=True)
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2.5)
except OSError:
    time.sleep(60)
";

#[test]
fn a_connect_that_is_given_up_while_it_is_watched_is_what_was_waited_for() {
    needs!(Nftables, Pace);
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let waits = program(&netns, GIVES_UP, &[&to.ip().to_string(), "9"]);
    let (output, text) = why(&[&waits.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let line = format!("waited for a connect to {to}: aborted: closed while pending, after 2.");
    assert!(text.contains(&line) && !text.contains("Nothing"), "{text}");
}

#[test]
fn a_wait_is_followed_over_a_unix_socket_to_the_connect_of_the_daemon_behind_it() {
    needs!(Nftables);
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let scratch = Scratch::make();
    let socket = scratch.join("daemon.sock");
    let socket = socket.to_str().expect("text");
    let daemon = program(&netns, DAEMON, &[&to.ip().to_string(), "9", socket]);
    let client = program(&netns, CLIENT, &[socket]);
    std::thread::sleep(Duration::from_secs(1));
    let (output, text) = why(&[&client.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let daemon = format!("waits for python3[{}] (unix socket {socket})  1 thread", daemon.pid());
    let lines: Vec<&str> = text.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.trim_start().ends_with(&daemon))
        .unwrap_or_else(|| panic!("{text}"));
    let below = lines[at + 1..].iter().any(|line| line.contains(&format!("waits for a connect to {to}")));
    assert!(below, "{text}");
    let (_, json) = why(&[&client.pid().to_string(), "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((answer["type"].as_str(), answer["waits"].as_bool()), (Some("why"), Some(true)), "{answer:#}");
    let on = &answer["processes"][0]["threads"][0]["on"][0];
    assert_eq!(on["threads"][0]["waits"][0]["what"], "connect", "{answer:#}");
}

#[test]
fn a_service_that_waits_for_clients_waits_for_nothing() {
    needs!();
    let netns = Netns::make();
    let at = SocketAddr::new(netns.loopback(), port());
    const SERVES: &str = "
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
server.accept()
";
    let server = program(&netns, SERVES, &[&at.ip().to_string(), &at.port().to_string()]);
    let (output, text) = why(&[&format!(":{}", at.port())]);
    assert!(output.status.success(), "{output:?}");
    assert!(text.starts_with(&format!("python3[{}]  1 thread\n", server.pid())), "{text}");
    assert!(text.ends_with("Nothing is waiting on anything outside.\n"), "{text}");
}

#[test]
fn what_is_no_process_is_named_and_is_an_error() {
    needs!();
    let free = SocketAddr::new(Netns::make().loopback(), port());
    let (output, _) = why(&[&format!(":{}", free.port())]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!(":{}: there is no such process", free.port())), "{said}");
    assert_eq!(binary().args(["why", ":0"]).output().expect("it starts").status.code(), Some(2));
    assert_eq!(binary().arg("why").output().expect("it starts").status.code(), Some(2));
}

/// Accepts nothing: connections stand in its queue.
const LISTENS: &str = "
import socket, sys, time
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
time.sleep(60)
";

/// Asks over TCP.
const ASKS: &str = "
import socket, sys
service = socket.create_connection((sys.argv[1], int(sys.argv[2])))
service.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
print('ready', flush=True)
service.recv(1)
";

#[test]
fn who_waits_for_the_answer_of_a_silent_service_of_this_machine_waits_for_its_process() {
    needs!();
    let netns = Netns::make();
    let at = SocketAddr::new(netns.loopback(), port());
    let args = [at.ip().to_string(), at.port().to_string()];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let server = program(&netns, LISTENS, &args);
    let client = program(&netns, ASKS, &args);
    let (output, text) = why(&[&client.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains(&format!("└─ waits for python3[{}] (TCP {at}: last sent to ", server.pid())),
        "{text}"
    );
    assert!(text.contains(&format!("└─ thread {}: asleep in ", server.pid())), "{text}");
}

#[test]
fn an_event_loop_may_wait_for_a_peer_it_sent_to_last() {
    needs!();
    let netns = Netns::make();
    let at = SocketAddr::new(netns.loopback(), port());
    // One process at both ends: what leads on to itself is not followed.
    const ASKS: &str = "
import selectors, socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
service = socket.create_connection((sys.argv[1], int(sys.argv[2])))
service.sendall(b'PING')
events = selectors.EpollSelector()
events.register(service, selectors.EVENT_READ)
print('ready', flush=True)
events.select()
";
    let client = program(&netns, ASKS, &[&at.ip().to_string(), &at.port().to_string()]);
    let (output, text) = why(&[&client.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("(its event loop)\n"), "{text}");
    assert!(text.contains(&format!("\n└─ may wait for {at}: last sent to ")), "{text}");
    assert!(text.contains("ago, not a byte has come\n"), "{text}");
    assert!(
        text.contains(&format!(
            "Try:  see that connection, and what its peer does: nsenter -t {} -n ss -tnoi 'dst {} dport = :{}'",
            client.pid(),
            at.ip(),
            at.port()
        )),
        "{text}"
    );
}

#[test]
fn who_waits_for_a_child_is_followed_to_what_the_child_waits_for() {
    needs!(Nftables);
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let parent = format!(
        "
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {CONNECTS:?}, *sys.argv[1:]])
child.wait()
"
    );
    let parent = program(&netns, &parent, &[&to.ip().to_string(), "9"]);
    let (output, text) = why(&[&parent.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let line = text.lines().nth(2).expect("a third line");
    assert!(
        line.starts_with("   └─ waits for python3[") && line.ends_with("] (its child)  1 thread"),
        "{text}"
    );
    assert!(text.contains(&format!("waits for a connect to {to}: ")), "{text}");
}

#[test]
fn a_writer_into_a_pipe_that_is_not_read_waits_for_the_process_that_should() {
    needs!();
    let netns = Netns::make();
    const WRITES: &str = "
import os, subprocess
reader = subprocess.Popen(['sleep', '60'], stdin=subprocess.PIPE)
print('ready', flush=True)
while True:
    os.write(reader.stdin.fileno(), b'x' * 4096)
";
    let writer = program(&netns, WRITES, &[]);
    let (output, text) = why(&[&writer.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("asleep in write on a pipe"), "{text}");
    assert!(text.contains("waits for sleep["), "{text}");
    assert!(text.contains("(a pipe, which is full)"), "{text}");
    assert!(text.contains("see that what it writes is read, or write it to a file"), "{text}");
}

#[test]
fn a_process_in_a_dead_file_system_is_looked_at_in_time_and_leads_to_who_serves_it() {
    needs!(Fuse);
    let netns = Netns::make();
    let scratch = Scratch::make();
    let directory = scratch.join("silent");
    std::fs::create_dir(&directory).expect("our own directory");
    let server = scratch.join("silent_fs.py");
    std::fs::write(&server, include_str!("../../programs/silent_fs.py")).expect("our own directory");
    let file = directory.join("www.crt");
    let mut command = python();
    command.arg(server).arg(&directory).arg("3600").arg("/bin/cat").arg(&file);
    let reader = netns.spawn(command);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(format!("/proc/{}/comm", reader.pid())).is_ok_and(|comm| comm != "cat\n") {
        assert!(Instant::now() < deadline, "it becomes cat");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let (output, text) = why(&[&reader.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("waits for silent["), "{text}");
    assert!(text.contains(&format!("(the FUSE file system {}", file.display())), "{text}");
    assert!(text.contains(&format!("umount -l -- {}", directory.display())), "{text}");
}

#[test]
fn a_stopped_process_is_called_stopped() {
    needs!();
    let netns = Netns::make();
    let stopped = program(
        &netns,
        "
import os, signal
print('ready', flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
",
        &[],
    );
    std::thread::sleep(Duration::from_millis(500));
    let (output, text) = why(&[&stopped.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("└─ is stopped, by a signal or a debugger\n"), "{text}");
    assert!(text.contains(&format!("kill -CONT {}\n", stopped.pid())), "{text}");
}

/// As a container asks another one of the same node.
#[test]
fn who_waits_for_a_service_in_another_network_namespace_of_this_machine_waits_for_its_process() {
    needs!();
    let pair = Pair::make();
    let args = [pair.v4(2).to_string(), port().to_string()];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let server = program(&pair.server, LISTENS, &args);
    let client = program(&pair.client, ASKS, &args);
    let (output, text) = why(&[&client.pid().to_string()]);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains(&format!("waits for python3[{}] (TCP ", server.pid())), "{text}");
}
