//! `trace -- COMMAND`: the command is followed from its first instruction on, and its exit status is passed on.

use std::{net::SocketAddr, process::Stdio};

use crate::{
    connect::outcomes::end_of,
    harness::{Culprit, Netns, culprit::binary, port, sockets::connect},
    needs,
};

fn status_of(command: &[&str]) -> Option<i32> {
    let mut culprit = binary();
    culprit.args(["trace", "--"]).args(command).stdin(Stdio::null());
    culprit.output().expect("it starts").status.code()
}

#[test]
fn the_commands_status_is_passed_on() {
    needs!(Pace);
    assert_eq!(status_of(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(status_of(&["true"]), Some(0));
}

#[test]
fn a_command_killed_by_a_signal_has_the_exit_status_a_shell_gives_it() {
    needs!(Pace);
    assert_eq!(status_of(&["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
}

#[test]
fn a_command_that_cannot_be_started_is_named() {
    needs!(Pace);
    let output = binary().args(["trace", "--", "/no/such/program"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/no/such/program: cannot be started"), "{said}");
}

#[test]
fn curl_is_followed_and_its_exit_status_is_passed_on() {
    needs!(Curl, Pace);
    const COULD_NOT_CONNECT: i32 = 7;
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let line = format!("trace --format json -- ip netns exec {} curl --silent http://{to}/", netns.name());
    let mut command = binary();
    command.args(line.split(' '));
    command.env_remove("http_proxy").env("no_proxy", "*");
    let culprit = Culprit::spawn(command);
    // Another process's connect is not the command's.
    connect(&netns, to).0.expect_err("nothing listens");
    let ended = culprit.finish();
    assert_eq!(ended.status.code(), Some(COULD_NOT_CONNECT), "{}", ended.stderr);
    let ends: Vec<_> = ended.facts.iter().filter(|fact| fact.is_to("connect_ended", to)).collect();
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert_eq!((ends[0].comm(), ends[0].text("outcome")), ("curl", "refused"));
    assert_eq!(ended.summary["events"], ended.facts.len());
}

#[test]
fn children_of_the_command_are_followed() {
    needs!(Pace);
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let mut command = binary();
    command.args(["trace", "--format", "json", "--", "ip", "netns", "exec", netns.name(), "bash", "-c"]);
    command.arg(format!("(exec 3<>/dev/tcp/{}/{}) & wait; read -r", to.ip(), to.port()));
    let culprit = Culprit::spawn(command);
    let end = end_of(&culprit, to);
    assert_eq!((end.comm(), end.text("outcome")), ("bash", "refused"));
    // ^C ends the command with culprit; nothing of it stays behind.
    let ended = culprit.stop();
    assert!(ended.status.success(), "{ended:?}");
}
