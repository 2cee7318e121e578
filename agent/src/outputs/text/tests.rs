use super::*;
use crate::{
    domains::{What, connect},
    fact::{Endpoint, Process},
};

fn fact(what: What) -> Fact {
    Fact {
        at: "2026-11-20T14:02:11.204567Z".into(),
        boot_ns: 1,
        probe: "connect",
        process: Some(Process { pid: 1017, tid: 1043, comm: "raven".into(), ..Process::default() }),
        what,
    }
}

fn text(fact: &Fact, time: Time) -> String {
    let mut out = Vec::new();
    line(fact, Style { time, ..Style::default() }, &mut out).expect("a vector");
    String::from_utf8(out).expect("text")
}

fn pending() -> What {
    What::Connect(connect::What::ConnectPending {
        source: Endpoint { ip: [192, 0, 2, 1].into(), port: 41_234, name: None, wire: None },
        destination: Endpoint {
            ip: "192.35.177.64".parse().expect("an address"),
            port: 80,
            name: Some("apps.identrust.com".into()),
            wire: None,
        },
        syn_retransmits: 2,
        drops: 0,
        answered_by_host: None,
        since_before_start: false,
        elapsed_ms: 3000.4,
    })
}

#[test]
fn a_pending_connect_says_who_where_how_long_and_how_often() {
    assert_eq!(
        text(&fact(pending()), Time::Milliseconds),
        "14:02:11.204  raven[1017·1043]             connect   → 192.35.177.64:80 (apps.identrust.com) pending 3.0 s, 2 SYN retries\n"
    );
}

#[test]
fn this_hosts_port_stands_before_the_arrow_when_it_is_asked_for() {
    let mut out = Vec::new();
    line(&fact(pending()), Style { ports: true, ..Style::default() }, &mut out).expect("a vector");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("connect   :41234 → 192.35.177.64:80 (apps.identrust.com) pending"), "{text}");
}

#[test]
fn times_are_written_as_strace_does() {
    assert!(text(&fact(pending()), Time::Seconds).starts_with("14:02:11  "));
    assert!(text(&fact(pending()), Time::Microseconds).starts_with("14:02:11.204567  "));
    assert!(text(&fact(pending()), Time::Epoch).starts_with("1795183331.204567  "));
}

#[test]
fn a_narrow_terminal_has_lines_broken_at_words_and_the_rest_hangs_below() {
    let at = |width, fact: &Fact| {
        let mut out = Vec::new();
        line(fact, Style { width: Some(width), ..Style::default() }, &mut out).expect("a vector");
        String::from_utf8(out).expect("text")
    };
    assert_eq!(
        at(80, &fact(pending())),
        "14:02:11.204  raven[1017·1043]   connect   → 192.35.177.64:80\n                (apps.identrust.com)  pending 3.0 s, 2 SYN retries\n"
    );
    assert_eq!(at(200, &fact(pending())), text(&fact(pending()), Time::Milliseconds));
    let mut forged = fact(pending());
    forged.process.as_mut().expect("set").comm = "x 14:02:11.204  sshd[1] connect → 192.0.2.1:22".repeat(2);
    let lines = at(40, &forged);
    assert!(lines.lines().skip(1).all(|line| line.starts_with("                ")), "{lines}");
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let mut fact = fact(pending());
    fact.process.as_mut().expect("set").comm = "\x1b[31mx".into();
    assert!(!text(&fact, Time::Milliseconds).contains('\x1b'));
}
