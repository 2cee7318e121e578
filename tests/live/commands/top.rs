//! `culprit top`, on a terminal: it shows what is pending and failing, opens an incident's evidence, and restores the
//! terminal however it ends.

use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::{
    harness::{Netns, culprit::binary, eventually, port, sockets::connect, terminal::Terminal},
    needs,
};

fn top(args: &str) -> Terminal {
    let mut command = binary();
    command.arg("top").args(args.split_whitespace());
    let mut terminal = Terminal::spawn(&mut command);
    terminal.wait_for(&["Incidents", "Pending", "Failing"]);
    assert!(terminal.is_taken() && terminal.hides_cursor() && !terminal.is_as_before());
    terminal
}

#[track_caller]
fn ends_well(mut terminal: Terminal) {
    assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.screen());
    assert!(terminal.is_as_before(), "the terminal's modes are as they were");
    eventually("the screen is given back", || !terminal.is_taken() && !terminal.hides_cursor());
    eventually("the last line is said", || terminal.screen().contains("events, "));
}

#[test]
fn an_unanswered_connect_is_pending_then_an_incident_whose_evidence_opens() {
    needs!();
    let netns = Netns::make();
    let port = port();
    netns.drop_tcp("input", port);
    let to = SocketAddr::new(netns.loopback(), port);
    let mut terminal = top(&format!("--port {port} --connect-stall 1s"));
    let hangs = netns.thread(move || TcpStream::connect_timeout(&to, std::time::Duration::from_secs(12)));
    terminal.press("2");
    terminal.wait_for(&["connect", &to.to_string(), "SYN_SENT"]);
    terminal.press("1");
    terminal.wait_for(&["WARN", "connect stalled", &to.ip().to_string()]);
    if std::env::var_os("CULPRIT_SHOW_SCREENS").is_some() {
        eprintln!("{}", terminal.screen());
    }
    terminal.press("\r");
    terminal.wait_for(&["Evidence"]);
    terminal.wait_for(&["connects to", &to.to_string()]);
    terminal.resize(12, 60);
    // Drawn again, and cut.
    terminal.wait_for(&["culprit top", "…"]);
    terminal.press("G");
    terminal.wait_for(&["Incident 0"]);
    terminal.press("q");
    ends_well(terminal);
    let _ = hangs.join();
}

#[test]
fn refused_connects_are_counted_by_destination_and_a_filter_hides_the_others() {
    needs!();
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let mut terminal = top(&format!("--port {}", to.port()));
    for _ in 0..3 {
        connect(&netns, to).0.expect_err("nothing listens");
    }
    terminal.press("3");
    terminal.wait_for(&[&to.to_string(), "refused (ECONN", " 3 "]);
    terminal.press("/no such thing\r");
    terminal.wait_for(&["nothing passes the filter"]);
    terminal.press("\x03");
    ends_well(terminal);
}

#[test]
fn a_signal_restores_the_terminal() {
    needs!(Pace);
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let terminal = top("-e dns");
        terminal.signal(signal);
        ends_well(terminal);
    }
}
