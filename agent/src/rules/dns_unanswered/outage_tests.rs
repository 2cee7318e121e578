use simple_dns::RCODE;

use super::tests::{details, last};
use crate::{
    known::context::{Context, ProcessContext},
    pipeline::incident::{Confidence, DnsReason, Incident, Kind, State},
    rules::{
        scene::{Scene, hello, thread},
        scene_lookups::{Asked, asks},
    },
};

/// A program of its own that asks 192.0.2.53 for its own name.
fn program(scene: &mut Scene, at: u64, pid: u32) -> Asked {
    scene.apply(&Context::Process(ProcessContext {
        pid,
        comm: format!("shop{pid}"),
        exe: Some(format!("/usr/bin/shop{pid}")),
        started_ns: 1,
        ..ProcessContext::default()
    }));
    let asked = asks(u64::from(pid), pid, "db.example.net");
    scene.asks(at, &asked);
    asked
}

#[track_caller]
fn root(scene: &Scene) -> &Incident {
    let silent = |incident: &&Incident| {
        incident.kind == Kind::DnsUnanswered && details(incident).reason == DnsReason::ServerSilent
    };
    scene.emitted.iter().rfind(silent).expect("one was opened")
}

#[test]
fn a_server_that_answers_no_program_is_one_incident_and_those_of_the_programs_point_to_it() {
    let mut scene = Scene::new();
    let asked: Vec<Asked> = (2001..2004).map(|pid| program(&mut scene, 0, pid)).collect();
    scene.passes(500, 4000);
    let (said, opened) = (root(&scene).clone(), scene.opened(Kind::DnsUnanswered));
    assert_eq!(opened.len(), 4, "{opened:#?}");
    assert!(said.summary.starts_with("192.0.2.53:53 has answered no DNS lookup for "), "{}", said.summary);
    assert!(said.summary.contains("3 programs wait for it: "), "{}", said.summary);
    assert_eq!((details(&said).programs, details(&said).processes.len(), &said.process), (3, 3, &None));
    assert_eq!(said.cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Certain));
    for child in opened.iter().filter(|child| child.id != said.id) {
        let now = scene.emitted.iter().rfind(|emitted| emitted.id == child.id).expect("itself at least");
        assert_eq!(now.caused_by, std::slice::from_ref(&said.id), "{now:#?}");
    }
    // A program that comes later is listed, and has none of its own.
    let late: Vec<Asked> = (2004..2104).map(|pid| program(&mut scene, 4100, pid)).collect();
    scene.passes(4500, 8000);
    assert_eq!(scene.opened(Kind::DnsUnanswered).len(), 4);
    // It is emitted again each time their number has doubled.
    let listed = details(root(&scene));
    assert!((48..=103).contains(&listed.programs) && listed.processes.len() == 32, "{listed:#?}");
    for asked in asked.iter().chain(&late) {
        scene.hears(8100, asked, RCODE::NoError);
    }
    scene.passes(8500, 12_000);
    assert_eq!((root(&scene).state, last(&scene).state), (State::Resolved, State::Resolved));
    assert!(root(&scene).summary.contains("103 programs waited for it"), "{}", root(&scene).summary);
    assert_eq!(scene.table("dns_servers_silent").entries, 0);
}

#[test]
fn a_server_that_has_answered_one_of_them_is_not_silent() {
    let mut scene = Scene::new();
    for pid in 2001..2004 {
        program(&mut scene, 0, pid);
    }
    let other = Asked { cookie: 9, id: 9, ..asks(9, 2001, "fine.example.net") };
    scene.asks(1000, &other);
    scene.hears(1001, &other, RCODE::NoError);
    scene.passes(1500, 6000);
    assert_eq!(scene.opened(Kind::DnsUnanswered).len(), 3, "each its own");
}

#[test]
fn a_program_that_was_listed_has_its_own_incident_once_the_server_answers_others() {
    let mut scene = Scene::new();
    for pid in 2001..2004 {
        program(&mut scene, 0, pid);
    }
    scene.passes(500, 4000);
    program(&mut scene, 4000, 2004);
    scene.passes(4250, 7000);
    assert_eq!(scene.opened(Kind::DnsUnanswered).len(), 4);
    let other = Asked { cookie: 9, id: 9, ..asks(9, 2001, "fine.example.net") };
    scene.asks(7100, &other);
    scene.hears(7101, &other, RCODE::NoError);
    scene.passes(7250, 9000);
    let opened = scene.opened(Kind::DnsUnanswered);
    assert_eq!(opened.len(), 5, "{opened:#?}");
    assert_eq!(opened[4].process.as_ref().map(|process| process.pid), Some(2004));
    scene.passes(9250, 12_000);
    assert_eq!(root(&scene).state, State::Resolved);
}

#[test]
fn a_handshake_that_waits_for_a_silent_server_points_to_it_and_counts() {
    let mut scene = Scene::new();
    let waits = crate::rules::scene::PROCESS;
    scene.asks(5, &asks(7, waits, "ocsp.example.net"));
    program(&mut scene, 5, 2001);
    program(&mut scene, 5, 2002);
    scene.stalls(1100, &[hello(1, waits, 0)]);
    scene.sees(1101, vec![thread(waits, crate::known::context::Posture::Descriptors, &[7])]);
    scene.passes(1500, 4000);
    let said = root(&scene).clone();
    assert_eq!(details(&said).programs, 3);
    let stalled = scene.emitted.iter().rfind(|said| said.kind == Kind::TlsHandshakeStalled).expect("one");
    assert_eq!(stalled.caused_by, [said.id]);
}
