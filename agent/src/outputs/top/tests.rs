//! Whole screens of 80 columns and 24 lines, as people see them: `CULPRIT_BLESS=1` writes them again.

use std::{path::Path, sync::Arc};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};

use super::{
    collect::{Failing, Pending, Snapshot},
    draw::{Head, draw},
    view::View,
};
use crate::{
    fact::{Endpoint, Process},
    pipeline::incident::{
        Cause, CauseKind, Confidence, ConnectStalledDetails, Details, Evidence, Incident, Kind, Remedy,
        SCHEMA, Severity, State,
    },
    text::{hidden, shell::Command},
};

const SECOND: u64 = 1_000_000_000;

fn incident(comm: &str, severity: Severity) -> Arc<Incident> {
    let destination = Endpoint {
        ip: [192, 0, 2, 64].into(),
        port: 80,
        name: Some("apps.identrust.example".into()),
        wire: None,
    };
    Arc::new(Incident {
        schema: SCHEMA,
        id: format!("01M7XZ003GAKM2X3FPEK7VFZ{:02}", severity as u8),
        kind: Kind::ConnectStalled,
        state: State::Open,
        severity,
        began_at: "2026-11-20T14:02:11.204567Z".into(),
        opened_at: "2026-11-20T14:02:14.204567Z".into(),
        resolved_at: None,
        duration_ms: 3000,
        count: 2,
        node: "node-7".into(),
        process: Some(Process { pid: 1017, tid: 1017, comm: comm.into(), ..Process::default() }),
        summary:
            "raven[1017] has been connecting to apps.identrust.example (192.0.2.64:80) for 3.0 s: 2 SYNs, no \
                  answer from the network."
                .into(),
        why: vec![
            "Silence is what a firewall that drops, a missing route back or a dead host looks like.".into(),
        ],
        cause: Some(Cause {
            kind: CauseKind::OutboundConnect,
            confidence: Confidence::Certain,
            destination: Some(destination.clone()),
            ..Cause::default()
        }),
        caused_by: vec![],
        remedies: vec![
            "allow egress tcp/80 to 192.0.2.64".into(),
            Remedy::from("allow tcp/80 in the input chain: ").and(
                Command::new("ip").arg("netns").arg("exec").arg("blue").arg("nft").arg("list").arg("ruleset"),
            ),
        ],
        evidence: vec![
            Evidence { offset_ms: -3000, text: "raven[1017] began to connect to 192.0.2.64:80".into() },
            Evidence { offset_ms: 0, text: "still connecting: 2 SYNs, no answer from the network".into() },
        ],
        details: Details::ConnectStalled(ConnectStalledDetails {
            destination,
            pending_ms: 3000,
            waiting: 2,
            syn_retransmits: 1,
            dropped_by_host: 0,
            drop_reason: None,
            since_before_start: false,
            destinations: 1,
            worst: vec![],
            validates: vec![],
        }),
    })
}

fn snapshot(comm: &str) -> Snapshot {
    Snapshot {
        now_ns: 100 * SECOND,
        wall: "2026-11-20T14:02:16.204567Z".into(),
        facts: 12_345,
        lost: 0,
        incidents: vec![
            (incident("nginx", Severity::Warning), 98 * SECOND),
            (incident(comm, Severity::Critical), 98 * SECOND),
        ],
        pending: vec![
            Pending {
                what: "connect",
                process: "raven[1017]".into(),
                destination: "→ 192.0.2.64:80 (apps.identrust.example)".into(),
                since_ns: 95 * SECOND,
                state: "SYN_SENT, 2 retries".into(),
            },
            Pending {
                what: "neighbour",
                process: "-".into(),
                destination: "10.0.1.90 on eth0".into(),
                since_ns: 99 * SECOND,
                state: "asked for".into(),
            },
        ],
        failing: vec![Failing {
            process: "nc[25216] docker/3f4b1c0d3f4b".into(),
            destination: "10.0.0.9:5432 (db.example)".into(),
            error: "refused (ECONNREFUSED)".into(),
            count: 1200,
            rate: 60,
            last_ns: 99 * SECOND,
        }],
        left_out: [0, 7, 0],
    }
}

fn view() -> View {
    let mut view = View::new();
    view.update(snapshot("raven"));
    view
}

fn press(view: &mut View, code: KeyCode) {
    assert!(!view.key(KeyEvent::new(code, KeyModifiers::NONE)));
}

fn terminal(view: &mut View, width: u16, height: u16, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    let head = Head { node: "node-7".into(), probes: "connect tls dns neighbour clock".into() };
    terminal.draw(|frame| draw(frame, view, &head, colour)).expect("memory");
    terminal
}

fn text(terminal: &Terminal<TestBackend>) -> String {
    let buffer = terminal.backend().buffer();
    let lines = buffer.content.chunks(usize::from(buffer.area.width)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

#[track_caller]
fn is_golden(name: &str, screen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outputs/top/screens").join(name);
    if std::env::var_os("CULPRIT_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("room");
        std::fs::write(&path, screen).expect("room");
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(screen == wanted, "{name} is not what is drawn:\n{screen}\nwanted:\n{wanted}");
}

#[test]
fn each_table_reads_well_on_a_screen_of_80_by_24() {
    let mut view = view();
    is_golden("incidents.txt", &text(&terminal(&mut view, 80, 24, false)));
    press(&mut view, KeyCode::Tab);
    is_golden("pending.txt", &text(&terminal(&mut view, 80, 24, false)));
    press(&mut view, KeyCode::Tab);
    is_golden("failing.txt", &text(&terminal(&mut view, 80, 24, false)));
    press(&mut view, KeyCode::Char('?'));
    is_golden("help.txt", &text(&terminal(&mut view, 80, 24, false)));
}

#[test]
fn the_evidence_of_an_incident_is_wrapped_and_scrolls_no_further_than_its_end() {
    let mut view = view();
    press(&mut view, KeyCode::Enter);
    is_golden("evidence.txt", &text(&terminal(&mut view, 80, 24, false)));
    terminal(&mut view, 40, 10, false);
    press(&mut view, KeyCode::End);
    let end = text(&terminal(&mut view, 40, 10, false));
    assert!(end.contains("Incident 01M7XZ003GAKM2X3FPEK7VFZ02"), "{end}");
    press(&mut view, KeyCode::Esc);
    assert!(text(&terminal(&mut view, 80, 24, false)).contains("DESTINATION"));
}

#[test]
fn every_size_can_be_drawn_on() {
    for (width, height) in [(1, 1), (10, 3), (40, 12), (79, 23), (200, 60)] {
        let mut view = view();
        for key in [KeyCode::Enter, KeyCode::Char('?'), KeyCode::Esc, KeyCode::Tab, KeyCode::Char('/')] {
            terminal(&mut view, width, height, true);
            press(&mut view, key);
        }
    }
    let wide = text(&terminal(&mut view(), 200, 24, false));
    assert!(wide.contains("192.0.2.64:80 (apps.identrust.example)"), "{wide}");
}

#[test]
fn colour_is_left_out_when_it_is_not_wanted_and_says_nothing_alone() {
    let coloured = |colour| {
        let screen = terminal(&mut view(), 80, 24, colour);
        let is = screen
            .backend()
            .buffer()
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        (is, text(&screen))
    };
    let ((with, said), (without, plain)) = (coloured(true), coloured(false));
    assert!(with && !without && said == plain && plain.contains("CRIT") && plain.contains("WARN"));
}

#[test]
fn nothing_in_a_strangers_name_reaches_the_terminal_as_it_is() {
    let mut view = View::new();
    view.update(snapshot("\x1b]0;x\x07\u{202e}a"));
    let seen = text(&terminal(&mut view, 120, 24, false));
    press(&mut view, KeyCode::Enter);
    let full = text(&terminal(&mut view, 120, 24, false));
    for screen in [&seen, &full] {
        assert!(!screen.lines().any(|line| line.chars().any(hidden)), "{screen}");
        assert!(screen.contains("\"\\u{1b}]0;x"), "{screen}");
    }
}
