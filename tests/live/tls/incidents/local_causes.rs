//! Stalls whose cause is on this machine: a daemon behind a unix socket, a full pipe, a file system that hangs, a limit of
//! the process or of its control group; and an accept loop that one silent client holds.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::json;

use crate::{
    harness::{
        Incident, Running, Stage,
        group::Group,
        stage::{PATIENCE, python},
    },
    needs,
};

/// The process that the cause names.
fn culprit_of(opened: &Incident) -> u64 {
    opened.json["cause"]["process"]["pid"].as_u64().unwrap_or_default()
}

/// Starts a daemon that answers nothing at this place; its process id.
fn silent_daemon(stage: &mut Stage, place: &std::path::Path, how: &[&str]) -> u64 {
    let mut daemon = python();
    daemon.arg(stage.program("silent_daemon.py")).arg(place).args(how);
    stage.act(daemon)
}

#[test]
fn a_daemon_that_does_not_answer_on_its_unix_socket_is_named_with_its_process() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/daemon_answers_nothing");
    let place = stage.program("daemon.socket");
    let daemon = silent_daemon(&mut stage, &place, &[]);
    stage.serve_slowly(&json!(["ask_daemon", place, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("local_service", "certain"), "{:#}", opened.json);
    assert_eq!(culprit_of(&opened), daemon, "{:#}", opened.json);
    let summary = opened.text("/summary");
    assert!(summary.contains(&format!("silent[{daemon}] to answer on unix socket")), "{summary}");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_logger_that_reads_no_lines_is_named_with_its_full_socket() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/log_socket_full");
    let place = stage.program("log");
    let logger = silent_daemon(&mut stage, &place, &["datagrams"]);
    stage.actor().signal(Signal::STOP);
    stage.serve_slowly(&json!(["log_locally", place, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("local_service", "certain"), "{:#}", opened.json);
    assert_eq!(culprit_of(&opened), logger, "{:#}", opened.json);
    assert_eq!(opened.json["details"]["obstacle"]["sends"], true, "{:#}", opened.json);
    let remedies = opened.json["remedies"].to_string();
    assert!(remedies.contains(&format!("kill -CONT {logger}")), "{remedies}");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_pipe_that_is_not_read_is_blamed_on_the_process_that_should() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/pipe_not_read");
    stage.serve_slowly(&json!(["fill_pipe", ["/usr/bin/sleep", "60"], PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("pipe", "certain"), "{:#}", opened.json);
    assert!(opened.text("/summary").contains("reads from a pipe that is full"), "{:#}", opened.json);
    assert_eq!(opened.json["cause"]["process"]["comm"], "sleep", "{:#}", opened.json);
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_file_system_that_hangs_is_named_with_its_mount_and_the_process_that_serves_it() {
    needs!(Openssl, Tun, Fuse, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/file_system_hangs");
    let directory = stage.program("certificates");
    std::fs::create_dir(&directory).expect("our own directory");
    let plan = json!({ "sni": { "slow.test": ["read_file", directory.join("www.crt")] } });
    stage.serve_beside_silent_files(&plan, &directory, PATIENCE);
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("file_system", "certain"), "{:#}", opened.json);
    let obstacle = &opened.json["details"]["obstacle"];
    assert_eq!(obstacle["mount"], json!(directory), "{:#}", opened.json);
    assert_eq!(obstacle["file_system"], "fuse.silent");
    assert!(opened.text("/summary").contains("FUSE"), "{:#}", opened.json);
    stage.resolved(&opened);
    stage.ends_with(1);
}

/// A client that connects and says nothing.
fn silent_client(stage: &Stage) -> (Running, SocketAddr) {
    let mut client = python();
    let SocketAddr::V4(service) = stage.service else { panic!("an IPv4 stage") };
    client.arg("-c").arg(format!(
        "import socket, sys\ns = socket.create_connection(({:?}, {}))\nprint('ready', s.getsockname()[1], \
         flush=True)\nsys.stdin.readline()",
        service.ip().to_string(),
        service.port()
    ));
    let client = stage.pair.client.spawn(client);
    let line = client.wait_for_line("ready");
    let port = line.rsplit(' ').next().and_then(|port| port.trim().parse().ok()).expect("its port");
    (client, SocketAddr::new(stage.pair.v4(1), port))
}

#[test]
fn an_accept_loop_held_by_a_silent_client_names_the_client() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/accept_loop_held_by_silent_client");
    stage.serve(&json!({ "serve": "single" }));
    let (held, address) = silent_client(&stage);
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("peer", "certain"), "{:#}", opened.json);
    assert_eq!(opened.blamed(), address.to_string());
    assert!(!opened.json["remedies"].to_string().contains("more threads"), "{:#}", opened.json);
    drop(held);
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_cpu_quota_that_is_used_up_during_the_stall_is_certain_at_the_second_look() {
    needs!(Openssl, Tun, CpuQuota, Pace);
    let quota = Group::with_quota(5000, 100_000).expect("it was possible before");
    let mut stage = Stage::set("tls_handshake_stalled/cpu_quota_used_up");
    let pid = stage.serve_slowly(&json!(["spin", 2.0 * PATIENCE]));
    quota.holds(pid);
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("throttled", "likely"), "{:#}", opened.json);
    let proven = stage.culprit.wait_for_incident("what two looks prove", |emitted| {
        emitted.id() == opened.id() && emitted.blame() == ("throttled", "certain")
    });
    assert_eq!(proven.json["details"]["obstacle"]["cgroup"], json!(quota.path()), "{:#}", proven.json);
    assert!(proven.text("/summary").contains("throttled"), "{:#}", proven.json);
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_server_without_a_free_descriptor_is_said_to_have_reached_its_limit() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/descriptors_used_up");
    let pid = stage.serve(&json!({ "out_of_descriptors": PATIENCE }));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("resource_limit", "certain"), "{:#}", opened.json);
    assert!(opened.text("/summary").contains("64 of 64 descriptors are in use"), "{:#}", opened.json);
    let remedies = opened.json["remedies"].to_string();
    assert!(remedies.contains(&format!("prlimit --pid {pid}")), "{remedies}");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_server_whose_control_group_is_frozen_is_said_to_be() {
    needs!(Openssl, Tun, Pace);
    let group = Group::freezable();
    let mut stage = Stage::set("tls_handshake_stalled/frozen_server");
    let pid = stage.serve(&json!({}));
    group.holds(pid);
    group.freeze(true);
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("frozen", "certain"), "{:#}", opened.json);
    assert_eq!(opened.json["details"]["obstacle"]["cgroup"], json!(group.path()), "{:#}", opened.json);
    group.freeze(false);
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn an_event_loop_that_is_idle_while_connections_queue_is_said_to_have_stopped_accepting() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/event_loop_stopped_accepting");
    stage.serve(&json!({ "pause": 2.0 * PATIENCE }));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("listen_limit", "likely"), "{:#}", opened.json);
    assert_eq!(opened.json["details"]["obstacle"]["accept_queue"], 1, "{:#}", opened.json);
    stage.resolved(&opened);
    stage.ends_with(1);
}
