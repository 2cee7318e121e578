//! Untrusted names, at every sink: no hidden character gets out, and every length is bounded.

use proptest::prelude::*;

use super::{
    Rendered,
    json::{self, Line},
    text::{self, Style},
};
use crate::{
    domains::{
        Fact, What, clock, connect, dns,
        tls::{self, Role, Session, Stage},
    },
    fact::{Endpoint, Process, Protocol, Thread},
    pipeline::incident::{
        Cause, Confidence, Details, Evidence, Incident, Kind, ObstacleDetails, Remedy, SCHEMA, Severity,
        State, TlsDetails,
    },
    text::{hidden, host::Name, shell::Command, shown},
};

fn process(name: &str) -> Process {
    Process {
        pid: 1,
        tid: 2,
        comm: name.into(),
        exe: Some(name.into()),
        container_id: Some(name.into()),
        unit: Some(name.into()),
        namespace: Some(name.into()),
        pod: Some(name.into()),
        container: Some(name.into()),
        netns: Some(name.into()),
        ..Process::default()
    }
}

fn endpoint(name: &str) -> Endpoint {
    Endpoint { ip: [192, 0, 2, 1].into(), port: 443, name: Some(name.into()), wire: None }
}

fn session(name: &str) -> Session {
    let sni = Name::of(name.as_bytes());
    Session {
        role: Role::Server,
        local: endpoint(name),
        peer: endpoint(name),
        sni: Some(sni.text),
        sni_invalid: sni.invalid,
        since_before_start: false,
    }
}

fn facts(name: &str) -> Vec<Fact> {
    let dns = Name::of_labels(name.as_bytes().chunks(63));
    let whats = [
        What::Tls(tls::What::ClientHello {
            session: session(name),
            alpn: vec![name.into(); 16],
            alpn_invalid: true,
            versions: vec![],
            hello_bytes: 1,
            read_after_ms: None,
            retried: false,
        }),
        What::Dns(dns::What::DnsAnswer {
            protocol: Protocol::Udp,
            server: endpoint(name),
            name: dns.text.clone(),
            name_invalid: dns.invalid,
            query_type: "A".into(),
            rcode: "NOERROR".into(),
            answers: vec![dns.text.clone(); 100],
            truncated: false,
            latency_ms: None,
        }),
        What::Connect(connect::What::ConnectStarted {
            protocol: Protocol::Tcp,
            source: endpoint(name),
            destination: endpoint(name),
        }),
        What::Clock(clock::What::ClockCompared {
            reference: crate::fact::ReferenceKind::Http,
            name: name.into(),
            ahead_ns: 1,
            error_ns: 1,
        }),
    ];
    let fact = |what| Fact {
        at: "2026-11-20T14:02:11.204567Z".into(),
        boot_ns: 1,
        probe: "tls",
        process: Some(process(name)),
        what,
    };
    whats.into_iter().map(fact).collect()
}

fn incident(name: &str) -> Incident {
    let sni = Name::of(name.as_bytes());
    let said = shown(name).into_owned();
    Incident {
        schema: SCHEMA,
        id: "01M7XZ003GAKM2X3FPEK7VFZ69".into(),
        kind: Kind::TlsHandshakeStalled,
        state: State::Open,
        severity: Severity::Critical,
        began_at: "2026-11-20T14:02:11.204567Z".into(),
        opened_at: "2026-11-20T14:02:12.204567Z".into(),
        resolved_at: None,
        duration_ms: 1000,
        count: 1,
        node: "node-7".into(),
        process: Some(process(name)),
        summary: said.clone(),
        why: vec![said.clone()],
        cause: Some(Cause {
            confidence: Confidence::Likely,
            destination: Some(endpoint(name)),
            ..Cause::default()
        }),
        caused_by: vec![],
        remedies: vec![
            Remedy::from("look: ").and(Command::new("ip").arg("link").arg(name)),
            said.clone().into(),
        ],
        evidence: vec![Evidence { offset_ms: 0, text: said }],
        details: Details::TlsHandshakeStalled(TlsDetails {
            role: Role::Server,
            stage: Stage::AwaitingServerHello,
            sni: Some(sni.text),
            sni_invalid: sni.invalid,
            local: endpoint(name),
            peer: endpoint(name),
            since_before_start: false,
            stall_ms: 1,
            read_after_ms: None,
            waiting: 1,
            unread: 0,
            hello_acknowledged: None,
            threads: vec![Thread { comm: name.into(), waits_on: vec![name.into()], ..Thread::default() }],
            threads_left_out: 0,
            obstacle: Some(Box::new(ObstacleDetails {
                path: Some(name.into()),
                mount: Some(name.into()),
                file_system: Some(name.into()),
                source: Some(name.into()),
                cgroup: Some(name.into()),
                ..ObstacleDetails::default()
            })),
        }),
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,40}",
        "(?s).{0,40}",
        "[ -~]{0,300}",
        Just("shop.example) for 1.0 s. RESOLVED: all is well ".repeat(36)),
        Just("\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}\u{3164}\x1b]0;x\x07".to_owned()),
        Just("a\n14:02:11.204  sshd[1]  connect  → 192.0.2.1:22 established\r".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn lines_show_nothing_hidden_and_are_one_line_each(name in name()) {
        for fact in facts(&name) {
            let mut out = Vec::new();
            text::line(&fact, Style::default(), &mut out).expect("memory");
            let line = String::from_utf8(out).expect("text");
            let line = line.strip_suffix('\n').unwrap_or(&line);
            prop_assert!(!line.chars().any(hidden), "{line:?}");
            prop_assert!(line.len() < 64 * 1024);
        }
    }

    #[test]
    fn paragraphs_show_nothing_hidden(name in name()) {
        let rendered = Rendered::new(incident(&name));
        for line in rendered.text().lines() {
            prop_assert!(!line.chars().any(hidden), "{line:?}");
        }
        prop_assert!(rendered.text().len() < 64 * 1024);
    }

    /// What the stream, the store, the API, the page and webhooks carry.
    #[test]
    fn json_shows_nothing_hidden_and_keeps_what_it_says(name in name()) {
        let rendered = Rendered::new(incident(&name));
        prop_assert!(!rendered.json().chars().any(hidden), "{}", rendered.json());
        let value: serde_json::Value = serde_json::from_str(rendered.json()).expect("JSON");
        prop_assert_eq!(value["process"]["comm"].as_str(), Some(name.as_str()));
        for fact in facts(&name) {
            let mut out = Vec::new();
            json::line(Line::Event(&fact), &mut out).expect("memory");
            let line = String::from_utf8(out).expect("text");
            prop_assert!(!line.trim_end_matches('\n').chars().any(hidden), "{line:?}");
        }
    }
}
