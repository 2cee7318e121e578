use super::*;
use crate::{
    domains::connect::{self, Outcome},
    fact::{Endpoint, Process, Protocol},
};

fn end(last: u8, port: u16) -> Endpoint {
    Endpoint { ip: [192, 0, 2, last].into(), port, name: None, wire: None }
}

fn fact(pid: u32, what: What) -> Fact {
    Fact {
        at: "2026-11-20T14:02:11.204567Z".into(),
        boot_ns: 1,
        probe: "connect",
        process: Some(Process { pid, tid: pid, comm: "raven".into(), ..Process::default() }),
        what,
    }
}

fn begun(last: u8) -> What {
    What::Connect(connect::What::ConnectStarted {
        protocol: Protocol::Tcp,
        source: end(1, 40_000),
        destination: end(last, 80),
    })
}

fn ended(last: u8, outcome: Outcome, duration_ms: f64) -> What {
    What::Connect(connect::What::ConnectEnded {
        protocol: Protocol::Tcp,
        source: end(1, 40_000),
        destination: end(last, 80),
        outcome,
        errno: (outcome != Outcome::Established).then(|| "ECONNREFUSED".to_owned()),
        answered_by_host: None,
        unread_errno: None,
        syn_retransmits: 0,
        since_before_start: false,
        duration_ms,
    })
}

fn written(table: &Table, width: Option<usize>) -> String {
    let mut out = Vec::new();
    table.write(text::Style { width, ..text::Style::default() }, &mut out).expect("a vector");
    String::from_utf8(out).expect("text")
}

fn busy() -> Table {
    let mut table = Table::default();
    for pid in [7, 8] {
        table.add(&fact(pid, begun(64)));
        table.add(&fact(pid, ended(64, Outcome::Established, 2.0)));
    }
    table.add(&fact(9, begun(65)));
    table.add(&fact(9, ended(65, Outcome::Refused, 1.0)));
    table.add(&fact(9, begun(66)));
    table.add(&fact(
        9,
        What::Connect(connect::What::SynRetransmitted {
            source: end(1, 1),
            destination: end(66, 80),
            syn_retransmits: 1,
            elapsed_ms: 1030.0,
        }),
    ));
    table
}

#[test]
fn operations_are_counted_by_what_became_of_them_and_by_process_and_destination() {
    assert_eq!(
        written(&busy(), None),
        "    count         mean          max  probe    what
        4            -            -  connect  connect started
        2      2.00 ms      2.00 ms  connect  established
        1      1.00 ms      1.00 ms  connect  refused (ECONNREFUSED)
        1            -            -  connect  syn retransmitted

  calls  failed  open     mean      max  process              destination
      1       1     0  1.00 ms  1.00 ms  raven[9]             192.0.2.65:80
      1       0     1        -    1.0 s  raven[9]             192.0.2.66:80
      2       0     0  2.00 ms  2.00 ms  raven (2 processes)  192.0.2.64:80
"
    );
}

#[test]
fn the_tables_fit_a_terminal() {
    let narrow = written(&busy(), Some(70));
    assert!(narrow.lines().all(|line| terminal::cells(line) <= 70), "{narrow}");
}

#[test]
fn a_summary_shows_each_incident_once_as_it_stands() {
    use crate::pipeline::incident::State;
    let mut table = busy();
    for state in [State::Open, State::Updated, State::Resolved] {
        table.incident(crate::outputs::store::tests::incident(2, state));
    }
    let written = written(&table, None);
    assert_eq!(written.matches("CONNECT STALLED").count(), 1, "{written}");
    assert!(written.contains("resolved after 1.00 ms"), "{written}");
    assert!(written.ends_with("    raven's connect number 2 is unanswered\n"), "{written}");
}
