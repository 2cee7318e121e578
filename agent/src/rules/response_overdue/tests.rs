use ebpf_probes::abi::Netns;

use crate::{
    known::context::{Context, Posture, SeenSocket, SeenThread, Watched, WatchedConnection},
    pipeline::incident::{CauseKind, Confidence, Details, Incident, Kind, State},
    rules::scene::{PROCESS, Scene, thread},
};

/// A connection's cookie.
const COOKIE: u64 = 9;

fn socket(sent_ms_ago: u32, received_ms_ago: u32) -> SeenSocket {
    SeenSocket {
        cookie: COOKIE,
        fd: 3,
        state: 1,
        local: "10.0.0.1:40000".parse().expect("an address"),
        remote: "10.0.0.9:5432".parse().expect("an address"),
        acked_bytes: 101,
        received_bytes: 50,
        unacked: 0,
        sent_ms_ago,
        received_ms_ago,
        unread_bytes: 0,
        inbound: Some(false),
    }
}

fn by(thread: Option<SeenThread>, socket: SeenSocket) -> WatchedConnection {
    WatchedConnection { socket, event_loop: thread.is_none(), others: 0, thread }
}

fn reader() -> Option<SeenThread> {
    Some(thread(PROCESS, Posture::Descriptors, &[COOKIE]))
}

/// A look at `at` seconds.
fn look(scene: &mut Scene, at: u64, connections: Vec<WatchedConnection>) {
    scene.apply(&Context::Watched(Box::new(Watched {
        boot_ns: (100 + at) * 1_000_000_000,
        process: PROCESS,
        comm: "raven".into(),
        netns: Netns::numbered(1),
        connections,
        cut: false,
    })));
}

fn overdue(scene: &Scene) -> Vec<&Incident> {
    scene.emitted.iter().filter(|incident| incident.kind == Kind::ResponseOverdue).collect()
}

#[test]
fn an_answer_that_does_not_come_for_ten_seconds_is_an_incident_until_it_comes() {
    let mut scene = Scene::new();
    look(&mut scene, 0, vec![by(reader(), socket(9_000, 60_000))]);
    assert!(overdue(&scene).is_empty(), "not for so long");
    look(&mut scene, 2, vec![by(reader(), socket(11_000, 62_000))]);
    let [incident] = overdue(&scene)[..] else { panic!("{:#?}", scene.emitted) };
    let cause = incident.cause.as_ref().expect("a cause");
    assert_eq!((cause.kind, cause.confidence), (CauseKind::Peer, Confidence::Likely));
    assert_eq!(
        incident.summary,
        "raven[1017] waits for 10.0.0.9:5432, which has acknowledged 100 bytes and answered nothing for 11.0 s."
    );
    let Details::ResponseOverdue(details) = &incident.details else { panic!("{incident:#?}") };
    assert_eq!((details.waited_ms, details.sent_bytes, details.longest_answer_ms), (11_000, 100, None));
    look(&mut scene, 4, vec![by(reader(), socket(13_000, 64_000))]);
    assert_eq!(overdue(&scene).len(), 1, "it is open already");
    look(&mut scene, 6, vec![by(None, socket(15_000, 100))]);
    scene.ends();
    let last = overdue(&scene).last().map(|incident| (incident.state, incident.summary.clone()));
    let answered = "10.0.0.9:5432 has answered raven[1017], after more than 13.0 s.".to_owned();
    assert_eq!(last, Some((State::Resolved, answered)));
}

#[test]
fn an_answer_may_take_three_times_as_long_as_one_took() {
    let mut scene = Scene::new();
    // It took 20 s.
    look(&mut scene, 0, vec![by(None, socket(21_000, 1_000))]);
    let waits = |ms: u32| SeenSocket { received_bytes: 51, ..socket(ms, ms + 5_000) };
    look(&mut scene, 60, vec![by(reader(), waits(59_000))]);
    assert!(overdue(&scene).is_empty(), "{:#?}", scene.emitted);
    look(&mut scene, 62, vec![by(reader(), waits(61_000))]);
    let [incident] = overdue(&scene)[..] else { panic!("{:#?}", scene.emitted) };
    assert_eq!(incident.why[0], "1 answer of it was seen before: the longest took 20.0 s.");
}

#[test]
fn an_event_loop_may_wait_for_what_it_asked_again_and_not_for_what_it_only_replied() {
    let mut scene = Scene::new();
    // A window update, a pong, a farewell: sent as soon as something came.
    look(&mut scene, 0, vec![by(None, socket(30_000, 30_020))]);
    assert!(overdue(&scene).is_empty(), "{:#?}", scene.emitted);
    look(&mut scene, 2, vec![by(None, socket(30_000, 90_000))]);
    let [incident] = overdue(&scene)[..] else { panic!("{:#?}", scene.emitted) };
    assert_eq!(incident.cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Possible));
}

#[test]
fn a_thread_that_waits_on_several_connections_may_wait_for_another() {
    let mut scene = Scene::new();
    let one_of_two = WatchedConnection { others: 1, ..by(reader(), socket(30_000, 90_000)) };
    look(&mut scene, 0, vec![one_of_two]);
    let [incident] = overdue(&scene)[..] else { panic!("{:#?}", scene.emitted) };
    assert_eq!(incident.cause.as_ref().map(|cause| cause.confidence), Some(Confidence::Possible));
    assert!(
        incident.why[1].starts_with("The thread waits on 1 other connection as well"),
        "{:?}",
        incident.why
    );
}

#[test]
fn what_is_not_acknowledged_or_was_made_by_a_client_is_no_overdue_answer() {
    let mut scene = Scene::new();
    look(&mut scene, 0, vec![by(reader(), SeenSocket { unacked: 1, ..socket(30_000, 90_000) })]);
    look(&mut scene, 2, vec![by(reader(), SeenSocket { inbound: Some(true), ..socket(30_000, 90_000) })]);
    look(&mut scene, 4, vec![by(reader(), SeenSocket { unread_bytes: 5, ..socket(30_000, 90_000) })]);
    let silent = SeenSocket { acked_bytes: 1, received_bytes: 0, ..socket(30_000, 30_000) };
    look(&mut scene, 6, vec![by(reader(), silent)]);
    assert!(overdue(&scene).is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn a_connection_that_is_closed_is_awaited_no_longer_unless_not_all_were_seen() {
    let mut scene = Scene::new();
    look(&mut scene, 0, vec![by(reader(), socket(11_000, 90_000))]);
    scene.apply(&Context::Watched(Box::new(Watched {
        boot_ns: 102_000_000_000,
        process: PROCESS,
        comm: "raven".into(),
        netns: Netns::numbered(1),
        connections: vec![],
        cut: true,
    })));
    scene.tick(3_000);
    assert_eq!(overdue(&scene).len(), 1, "{:#?}", scene.emitted);
    look(&mut scene, 4, vec![]);
    scene.ends();
    let last = overdue(&scene).last().map(|incident| (incident.state, incident.summary.clone()));
    let closed =
        "raven[1017] no longer waits for 10.0.0.9:5432, which had answered nothing for 11.0 s.".to_owned();
    assert_eq!(last, Some((State::Resolved, closed)));
}
