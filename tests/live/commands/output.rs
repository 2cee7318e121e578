//! Where facts are written, and in which format.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{Netns, Running, Scratch, culprit::binary, eventually, port, sockets::connect},
    needs,
};

/// A text `culprit trace` that has attached.
fn trace(args: &[&str]) -> Running {
    let mut command = binary();
    command.arg("trace").args(args);
    let running = Running::spawn(&mut command);
    eventually("it traces", || running.stderr().contains("tracing"));
    running
}

/// Ends it by ^C and gives the rest of what it wrote.
fn end(mut running: Running) -> Vec<String> {
    running.signal(Signal::INT);
    assert!(running.wait().success(), "{}", running.stderr());
    std::iter::from_fn(|| running.next_line(crate::harness::deadline()).expect("it has ended")).collect()
}

#[test]
fn a_line_of_text_names_thread_peer_outcome_and_error() {
    needs!(Pace);
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = trace(&[]);
    let (_, (pid, tid)) = connect(&netns, to);
    // Others are refused elsewhere at the same time.
    let line = std::iter::repeat_with(|| culprit.wait_for_line("refused"))
        .find(|line| line.contains(&to.to_string()))
        .expect("it never ends");
    for part in [format!("inside[{pid}·{tid}]@{}", netns.name()), format!("→ {to}"), "(ECONNREFUSED)".into()]
    {
        assert!(line.contains(&part), "{part} is not in {line}");
    }
    assert!(!line.contains('\x1b'), "colour without a terminal: {line}");
    end(culprit);
}

#[test]
fn the_summary_table_replaces_the_lines() {
    needs!(Pace);
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = trace(&["-c", "--port", &to.port().to_string()]);
    for _ in 0..3 {
        connect(&netns, to).0.expect_err("nothing listens");
    }
    let table = end(culprit);
    assert!(!table.iter().any(|line| line.contains("SYN")), "{table:#?}");
    let row = table.iter().find(|line| line.contains("refused"));
    assert!(row.is_some_and(|row| row.split_whitespace().any(|word| word == "3")), "{table:#?}");
}

#[test]
fn a_file_gets_what_standard_output_would() {
    needs!(Pace);
    let (netns, scratch) = (Netns::make(), Scratch::make());
    let to = SocketAddr::new(netns.loopback(), port());
    let file = scratch.join("out");
    let culprit = trace(&["-o", file.to_str().expect("a plain path")]);
    connect(&netns, to).0.expect_err("nothing listens");
    let in_file = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("the file has it", || in_file().contains(&format!("→ {to}")));
    assert_eq!(end(culprit), Vec::<String>::new());
}

#[test]
fn a_reader_that_goes_away_is_a_normal_end() {
    needs!(Pace);
    let netns = Netns::make();
    let mut command = binary();
    command.args(["trace", "--format", "json"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut culprit = command.spawn().expect("it starts");
    let mut first = String::new();
    // As `head -1` does.
    BufReader::new(culprit.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    assert!(first.contains("\"start\""), "{first}");
    let mut status = None;
    eventually("it ends", || {
        connect(&netns, SocketAddr::new(netns.loopback(), port())).0.expect_err("nothing listens");
        status = culprit.try_wait().expect("our child");
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn a_hangup_ends_it_with_its_summary() {
    needs!(Pace);
    let mut culprit = trace(&[]);
    let pid = Pid::from_raw(culprit.pid() as i32).expect("a process id");
    kill_process(pid, Signal::HUP).expect("our child");
    assert!(culprit.wait().success(), "{}", culprit.stderr());
    assert!(culprit.stderr().contains("events"), "{}", culprit.stderr());
}

#[test]
fn a_process_that_does_not_exist_cannot_be_followed() {
    needs!(Pace);
    let output = binary().args(["trace", "-p", "4194304"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("-p 4194304: there is no such process"), "{said}");
}
