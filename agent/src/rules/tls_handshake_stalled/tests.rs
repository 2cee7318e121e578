//! Who is blamed, and who is not.

use ebpf_probes::{
    abi::Kind as Record,
    probes::tls::{CLIENT, Handshake, SERVER, stage},
};
use proptest::prelude::*;

use crate::{
    domains::tls::Stage,
    known::context::Posture,
    pipeline::{
        ProcessRef, Request,
        incident::{CauseKind, Confidence, Details, Kind, State, TlsDetails},
    },
    rules::scene::{PROCESS, Scene, connect, flight, hello, owner, thread, unread_hello},
};

const STALLED: Kind = Kind::TlsHandshakeStalled;

fn details(scene: &Scene) -> &TlsDetails {
    match &scene.last().details {
        Details::TlsHandshakeStalled(details) => details,
        other => panic!("{other:?}"),
    }
}

/// One handshake read by thread 43, one connect of `thread`, and what the snapshot shows of thread 43.
fn stall(thread_of_connect: u32, started: u64, posture: Posture, sockets: &[u64]) -> Scene {
    let mut scene = Scene::new();
    scene.waits(1100, connect(7, thread_of_connect, 64, started));
    scene.stalls(1100, &[hello(1, 43, 0)]);
    scene.sees(1101, vec![thread(43, posture, sockets)]);
    scene
}

#[test]
fn a_dropped_port_80_inside_a_handshake_is_blamed_on_that_connect() {
    let scene = stall(43, 5, Posture::Descriptors, &[7]);
    let (incident, cause) = (scene.last(), scene.cause());
    assert_eq!((incident.state, incident.count), (State::Open, 1));
    assert_eq!((cause.kind, cause.confidence), (CauseKind::OutboundConnect, Confidence::Certain));
    assert_eq!(
        cause.destination.as_ref().map(|to| (to.ip.to_string(), to.port)),
        Some(("192.0.2.64".into(), 80))
    );
    assert_eq!(details(&scene).stage, Stage::AwaitingServerHello);
    assert_eq!(
        incident.summary,
        "raven[1017] has not answered the ClientHello of 192.0.2.9:50001 for 1.1 s: thread 43 is waiting for a \
         connect to 192.0.2.64:80: 1 SYN, no answer from the network."
    );
    assert!(incident.why[0].contains("AIA"), "{incident:#?}");
    assert!(incident.remedies[0].to_string().contains("allow egress tcp/80 to 192.0.2.64"), "{incident:#?}");
}

#[test]
fn a_process_is_looked_at_once_and_the_incident_waits_for_the_answer() {
    let mut scene = Scene::new();
    scene.stalls(1100, &[hello(1, 43, 0)]);
    assert_eq!((scene.emitted.len(), scene.requests.len()), (0, 1));
    assert_eq!(scene.requests[0], Request::Process(ProcessRef { process: PROCESS, thread: 43, cookie: 1 }));
    // No answer comes: it is reported at the next sweep all the same.
    scene.tick(1350);
    assert_eq!((scene.opened(STALLED).len(), scene.requests.len()), (1, 1));
    assert_eq!(scene.cause().kind, CauseKind::NoneSeen);
}

#[test]
fn another_thread_that_the_reader_waits_for_is_likely_and_its_end_makes_it_certain() {
    let mut scene = stall(44, 5, Posture::Threads, &[]);
    assert_eq!(
        (scene.cause().kind, scene.cause().confidence),
        (CauseKind::OutboundConnect, Confidence::Likely)
    );
    assert_eq!(scene.cause().process.as_ref().map(|process| process.tid), Some(44));
    scene.gives_up(5000, connect(7, 44, 64, 5));
    scene.moves(5050, hello(1, 43, 0));
    scene.ends();
    assert_eq!((scene.last().state, scene.last().duration_ms), (State::Resolved, 5050));
    assert_eq!(scene.cause().confidence, Confidence::Certain);
}

#[test]
fn a_handshake_that_goes_on_without_the_suspect_clears_it() {
    let mut scene = stall(44, 5, Posture::Threads, &[]);
    scene.moves(3000, hello(1, 43, 0));
    scene.ends();
    assert_eq!(scene.cause().confidence, Confidence::Possible, "{:#?}", scene.last());
}

#[test]
fn a_thread_that_waits_for_something_else_waits_for_no_other_thread() {
    for posture in [Posture::Descriptors, Posture::Running, Posture::Disk, Posture::Sleep, Posture::Stopped] {
        let mut scene = stall(44, 5, posture, &[99]);
        scene.passes(1200, 3300);
        assert_eq!(scene.cause().kind, CauseKind::NoneSeen, "{posture:?}");
        assert!(!scene.last().summary.contains("192.0.2.64"), "{}", scene.last().summary);
    }
}

#[test]
fn a_connect_that_was_pending_before_the_hello_is_no_culprit_and_is_said_not_to_be() {
    let mut scene = Scene::new();
    scene.waits(400, connect(7, 44, 64, 100));
    scene.stalls(1700, &[hello(1, 43, 600)]);
    scene.sees(1701, vec![thread(43, Posture::Threads, &[])]);
    assert_eq!(scene.cause().kind, CauseKind::NoneSeen);
    let said = scene.last().evidence.iter().any(|seen| seen.text.contains("not blamed: thread 44"));
    assert!(said, "{:#?}", scene.last().evidence);
}

#[test]
fn a_thread_that_keeps_retrying_the_same_place_is_at_most_possible() {
    let mut scene = Scene::new();
    scene.waits(400, connect(6, 44, 64, 100));
    scene.gives_up(900, connect(6, 44, 64, 100));
    scene.waits(2100, connect(7, 44, 64, 1010));
    scene.stalls(2100, &[hello(1, 43, 1000)]);
    scene.sees(2101, vec![thread(43, Posture::Threads, &[])]);
    assert_eq!(scene.cause().confidence, Confidence::Possible, "{:#?}", scene.last());
}

#[test]
fn of_many_retries_one_ends_as_the_handshake_goes_on_and_that_proves_nothing() {
    let mut scene = Scene::new();
    scene.waits(400, connect(6, 44, 64, 100));
    scene.gives_up(900, connect(6, 44, 64, 100));
    scene.stalls(2100, &[hello(1, 43, 1000)]);
    scene.sees(2101, vec![thread(43, Posture::Threads, &[])]);
    scene.waits(2350, connect(7, 44, 64, 1600));
    scene.gives_up(2550, connect(7, 44, 64, 1600));
    scene.moves(2560, hello(1, 43, 1000));
    scene.ends();
    assert!(scene.emitted.iter().all(|emitted| {
        emitted
            .cause
            .as_ref()
            .is_none_or(|cause| cause.kind == CauseKind::NoneSeen || cause.confidence == Confidence::Possible)
    }));
}

#[test]
fn an_event_loop_that_keeps_retrying_the_same_place_is_at_most_possible() {
    let mut scene = Scene::new();
    scene.waits(400, connect(6, 43, 64, 100));
    scene.gives_up(900, connect(6, 43, 64, 100));
    scene.waits(2100, connect(7, 43, 64, 1010));
    scene.stalls(2100, &[hello(1, 43, 1000)]);
    scene.sees(2101, vec![thread(43, Posture::EventLoop, &[])]);
    assert_eq!(scene.cause().confidence, Confidence::Possible, "{:#?}", scene.last());
}

#[test]
fn what_no_thread_waits_for_is_at_most_possible() {
    for waits in [&[9][..], &[7]] {
        let mut scene = Scene::new();
        scene.waits(1100, connect(7, 44, 64, 5));
        scene.stalls(1100, &[hello(1, 43, 0)]);
        let others = thread(44, Posture::Descriptors, waits);
        scene.sees(1101, vec![thread(43, Posture::Threads, &[]), others]);
        let expected = if waits == [7] { Confidence::Likely } else { Confidence::Possible };
        assert_eq!(scene.cause().confidence, expected, "{:#?}", scene.last());
    }
}

#[test]
fn several_attempts_within_one_stall_make_no_habit_of_the_next() {
    let mut scene = Scene::new();
    scene.waits(900, connect(7, 44, 64, 5));
    scene.gives_up(1000, connect(7, 44, 64, 5));
    scene.waits(1250, connect(8, 44, 64, 1005));
    scene.stalls(1250, &[hello(1, 43, 0)]);
    scene.sees(1251, vec![thread(43, Posture::Threads, &[])]);
    scene.gives_up(2000, connect(8, 44, 64, 1005));
    scene.moves(2001, hello(1, 43, 0));
    scene.waits(4200, connect(9, 44, 64, 3105));
    scene.stalls(4200, &[hello(2, 43, 3100)]);
    scene.sees(4201, vec![thread(43, Posture::Threads, &[])]);
    assert_eq!((scene.cause().confidence, scene.last().count), (Confidence::Likely, 2));
}

#[test]
fn the_same_fetch_in_every_handshake_is_no_unrelated_habit() {
    let mut scene = stall(44, 5, Posture::Threads, &[]);
    scene.gives_up(3000, connect(7, 44, 64, 5));
    scene.moves(3001, hello(1, 43, 0));
    scene.waits(4200, connect(8, 44, 64, 3105));
    scene.stalls(4200, &[hello(2, 43, 3100)]);
    scene.sees(4201, vec![thread(43, Posture::Threads, &[])]);
    assert_eq!((scene.cause().confidence, scene.last().count), (Confidence::Likely, 2));
    assert_eq!(scene.opened(STALLED).len(), 1, "the repeat folds into the incident");
}

#[test]
fn in_an_event_loop_the_first_connect_after_the_hello_is_likely() {
    let mut scene = Scene::new();
    scene.waits(1300, connect(7, 17, 64, 5));
    scene.waits(1300, connect(8, 17, 65, 250));
    scene.stalls(1300, &[hello(1, 17, 0)]);
    scene.sees(1301, vec![thread(17, Posture::EventLoop, &[])]);
    let to = scene.cause().destination.as_ref().map(|to| to.ip.to_string());
    assert_eq!((scene.cause().confidence, to.as_deref()), (Confidence::Likely, Some("192.0.2.64")));
}

#[test]
fn a_helper_begun_for_the_handshake_is_likely_and_an_older_child_is_none() {
    for (started, kind) in [(3, CauseKind::OutboundConnect), (0, CauseKind::NoneSeen)] {
        let mut scene = Scene::new();
        scene.process(2000, &[1999, PROCESS], started);
        let mut helper = connect(7, 2000, 64, 8);
        helper.owner = owner(2000, 2000);
        scene.waits(1100, helper);
        scene.stalls(1100, &[hello(1, 43, 0)]);
        scene.sees(1101, vec![thread(43, Posture::Processes, &[])]);
        assert_eq!(scene.cause().kind, kind);
        if kind == CauseKind::OutboundConnect {
            assert_eq!(scene.cause().process.as_ref().map(|process| process.pid), Some(2000));
            assert!(scene.last().summary.contains("its helper raven[2000]"), "{}", scene.last().summary);
        }
    }
}

#[test]
fn concurrent_stalls_with_different_causes_stay_apart() {
    let mut scene = Scene::new();
    scene.waits(1100, connect(7, 43, 64, 5));
    scene.waits(1100, connect(8, 44, 65, 6));
    scene.stalls(1100, &[hello(1, 43, 0), hello(2, 44, 0)]);
    scene.sees(1101, vec![thread(43, Posture::Descriptors, &[7]), thread(44, Posture::Descriptors, &[8])]);
    let named: Vec<String> = scene
        .opened(STALLED)
        .iter()
        .filter_map(|incident| incident.cause.as_ref()?.destination.as_ref())
        .map(|to| to.ip.to_string())
        .collect();
    assert_eq!(named, ["192.0.2.64", "192.0.2.65"]);
}

#[test]
fn many_handshakes_with_one_cause_are_one_incident() {
    let mut scene = Scene::new();
    let handshakes: Vec<_> = (0..5).map(|i| hello(1 + i, 43 + i as u32, 0)).collect();
    for i in 0..5 {
        scene.waits(1100, connect(70 + i, 43 + i as u32, 64, 5));
    }
    scene.stalls(1100, &handshakes);
    scene.sees(1101, vec![thread(43, Posture::Descriptors, &[70])]);
    assert_eq!((scene.opened(STALLED).len(), scene.requests.len()), (1, 1));
    scene.stalls(2100, &handshakes);
    assert_eq!((scene.last().count, details(&scene).waiting), (5, 5));
    for handshake in handshakes {
        scene.moves(5000, handshake);
    }
    scene.ends();
    assert_eq!((scene.opened(STALLED).len(), scene.last().state), (1, State::Resolved));
}

/// A handshake of its own for a process of the same program.
fn of_worker(hs: Handshake, process: u32) -> Handshake {
    Handshake { owner: owner(process, process), reader: owner(process, process), ..hs }
}

/// What each worker of a pool does for its handshake, all to the same place.
fn pool(scene: &mut Scene, workers: &[u32]) {
    for (&worker, cookie) in workers.iter().zip(70..) {
        scene.process(worker, &[PROCESS], 1);
        let mut fetch = connect(cookie, worker, 64, 5);
        fetch.owner = owner(worker, worker);
        scene.waits(1100, fetch);
    }
}

#[test]
fn a_pool_of_processes_with_one_cause_is_one_incident() {
    // Clients; servers on one port each.
    for role in [CLIENT, SERVER] {
        let mut scene = Scene::new();
        let workers = [2001, 2002, 2003, 2004];
        pool(&mut scene, &workers);
        let handshakes: Vec<_> = workers
            .into_iter()
            .zip(1..)
            .map(|(worker, cookie)| {
                let mut hs =
                    if role == CLIENT { flight(cookie, worker, 0) } else { hello(cookie, worker, 0) };
                if role == SERVER {
                    hs.tuple.local_port += worker as u16;
                }
                of_worker(hs, worker)
            })
            .collect();
        scene.stalls(1100, &handshakes);
        scene.tick(1350);
        scene.tick(2600);
        assert_eq!(scene.opened(STALLED).len(), 1, "{:#?}", scene.emitted);
        assert_eq!((scene.last().count, details(&scene).waiting), (4, 4), "{:#?}", scene.last());
        for handshake in handshakes {
            let stage = if role == CLIENT { stage::CLIENT_FINISH } else { stage::SERVER_FLIGHT };
            scene.ends_handshake(5000, Handshake { stage, ..handshake });
        }
        scene.ends();
        assert_eq!((scene.opened(STALLED).len(), scene.last().state), (1, State::Resolved));
    }
}

#[test]
fn processes_of_one_program_with_causes_of_their_own_or_none_stay_apart() {
    let mut scene = Scene::new();
    for worker in [2001, 2002] {
        scene.process(worker, &[PROCESS], 1);
    }
    scene.stalls(1100, &[of_worker(flight(1, 1, 0), 2001), of_worker(flight(2, 1, 0), 2002)]);
    scene.tick(1350);
    assert_eq!(scene.opened(STALLED).len(), 2, "{:#?}", scene.emitted);
}

#[test]
fn what_proves_to_have_the_cause_of_another_incident_goes_on_as_part_of_it() {
    let mut scene = Scene::new();
    pool(&mut scene, &[2001, 2002, 2003]);
    // Of the second nothing is seen at first.
    scene.process(2004, &[PROCESS], 1);
    let (first, second) = (of_worker(flight(1, 1, 0), 2001), of_worker(flight(2, 1, 0), 2004));
    scene.stalls(1100, &[first, second]);
    scene.tick(1350);
    assert_eq!(scene.opened(STALLED).len(), 2, "{:#?}", scene.emitted);
    let lead = scene.opened(STALLED)[0].id.clone();
    let mut fetch = connect(80, 2004, 64, 20);
    fetch.owner = owner(2004, 2004);
    scene.waits(1600, fetch);
    scene.tick(1600);
    assert_eq!((&scene.last().id, scene.last().count), (&lead, 2), "{:#?}", scene.emitted);
    scene.passes(1850, 4600);
    let other = scene.emitted.iter().find(|emitted| emitted.id != lead && emitted.state == State::Resolved);
    let other = other.expect("it is over");
    assert_eq!(other.caused_by, std::slice::from_ref(&lead), "{other:#?}");
}

#[test]
fn clients_that_wait_unread_behind_a_stall_are_part_of_it() {
    let mut scene = Scene::new();
    scene.waits(1100, connect(7, 43, 64, 5));
    scene.stalls(1100, &[unread_hello(2, 10), hello(1, 43, 0), unread_hello(3, 11)]);
    scene.sees(1101, vec![thread(43, Posture::Descriptors, &[7])]);
    scene.stalls(2100, &[hello(1, 43, 0)]);
    assert_eq!((scene.opened(STALLED).len(), scene.last().count), (1, 3));
    assert_eq!((details(&scene).waiting, details(&scene).unread), (3, 2));
    assert!(scene.last().why.iter().any(|why| why.contains("2 of those that wait are unread")));
}

#[test]
fn what_no_thread_reads_is_said_to_be_unread() {
    let mut scene = Scene::new();
    scene.stalls(1100, &[unread_hello(1, 0), unread_hello(2, 0)]);
    scene.tick(1350);
    assert_eq!((scene.opened(STALLED).len(), scene.cause().kind), (1, CauseKind::Unread));
    assert_eq!(details(&scene).stage, Stage::ClientHelloUnread);
}

#[test]
fn what_is_read_late_and_answered_at_once_was_unread() {
    let mut scene = Scene::new();
    scene.stalls(1100, &[unread_hello(1, 0)]);
    scene.tick(1350);
    let mut read = hello(1, 43, 0);
    read.read_ns += 4_000_000_000;
    scene.tls(4001, Record::TLS_READ, read);
    scene.tick(4100);
    scene.moves(4102, read);
    scene.ends();
    assert_eq!((scene.last().state, scene.cause().kind), (State::Resolved, CauseKind::Unread));
}

#[test]
fn a_thread_that_waits_for_its_own_peer_is_no_fault_here() {
    let mut scene = Scene::new();
    scene.stalls(1100, &[hello(1, 43, 0)]);
    scene.sees(1101, vec![thread(43, Posture::Descriptors, &[1])]);
    scene.tick(1350);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
}

#[test]
fn what_the_peer_owes_is_no_incident() {
    let mut scene = Scene::new();
    let mut slow_client = hello(1, 43, 0);
    slow_client.stage = ebpf_probes::probes::tls::stage::SERVER_FLIGHT;
    let mut slow_server = flight(2, 43, 0);
    slow_server.stage = ebpf_probes::probes::tls::stage::HELLO;
    scene.stalls(1100, &[slow_client, slow_server]);
    scene.tick(1350);
    assert!(scene.emitted.is_empty() && scene.requests.is_empty());
}

#[test]
fn a_client_that_fetches_while_it_checks_the_chain_is_the_one_who_stalls() {
    let mut scene = Scene::new();
    scene.waits(1100, connect(7, 43, 64, 5));
    scene.stalls(1100, &[flight(1, 43, 0)]);
    scene.sees(1101, vec![thread(43, Posture::Descriptors, &[7])]);
    assert_eq!(
        (details(&scene).stage, scene.cause().confidence),
        (Stage::AwaitingClientFinish, Confidence::Certain)
    );
    assert!(scene.last().summary.contains("has not answered the ServerHello of 192.0.2.9:443"));
}

#[test]
fn a_blamed_connect_opens_no_incident_of_its_own() {
    let mut scene = stall(43, 5, Posture::Descriptors, &[7]);
    scene.connect(3100, Record::CONNECT_PENDING, connect(7, 43, 64, 5));
    scene.connect(3100, Record::CONNECT_PENDING, connect(8, 50, 66, 5));
    assert_eq!(scene.opened(Kind::ConnectStalled).len(), 1, "{:#?}", scene.emitted);
    assert!(scene.last().summary.contains("192.0.2.66:80"));
}

#[test]
fn the_same_stream_gives_the_same_incidents() {
    let once = stall(43, 5, Posture::Descriptors, &[7]).emitted;
    assert_eq!(once, stall(43, 5, Posture::Descriptors, &[7]).emitted);
    assert_eq!(once[0].id.len(), 26);
}

proptest! {
    /// Whatever a hostile recording holds: no harm, and every incident reported is JSON.
    #[test]
    fn any_sequence_of_stalls_is_judged_without_harm(
        steps in proptest::collection::vec((0u8..8, 0u64..6, 0u32..4, any::<u8>(), 0u64..8000), 0..60),
    ) {
        let mut scene = Scene::new();
        for (what, cookie, tid, last, at) in steps {
            let postures = [Posture::Threads, Posture::EventLoop, Posture::Descriptors, Posture::Running];
            match what {
                0 => scene.waits(at, connect(cookie, tid, last, at / 2)),
                1 => scene.gives_up(at, connect(cookie, tid, last, at / 2)),
                2 => scene.stalls(at, &[hello(cookie, tid, at / 2)]),
                3 => scene.stalls(at, &[unread_hello(cookie, at / 3)]),
                4 => scene.moves(at, hello(cookie, tid, at / 2)),
                5 => scene.sees(at, vec![thread(tid, postures[usize::from(last) % 4], &[cookie])]),
                6 => scene.connect(at, Record::CONNECT_PENDING, connect(cookie, tid, last, at / 2)),
                _ => scene.tick(at),
            }
        }
        scene.ends();
        for incident in &scene.emitted {
            serde_json::to_string(incident).expect("JSON");
            prop_assert!(incident.duration_ms < 1_000_000, "{incident:?}");
        }
    }
}

#[test]
fn a_thread_that_only_lacks_a_processor_has_three_seconds_to_go_on() {
    let runs = || vec![thread(43, Posture::Running, &[])];
    let stalls = || {
        let mut scene = Scene::new();
        scene.stalls(1100, &[hello(1, 43, 0)]);
        scene.sees(1101, runs());
        scene.passes(1101, 2200);
        assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
        scene
    };
    // It goes on.
    let mut scene = stalls();
    scene.moves(2300, hello(1, 43, 0));
    scene.passes(2300, 9000);
    assert!(scene.emitted.is_empty(), "{:#?}", scene.emitted);
    // It does not.
    let mut scene = stalls();
    scene.passes(2200, 3300);
    assert_eq!(scene.cause().kind, CauseKind::NoneSeen);
    assert!(scene.last().summary.contains("running"), "{}", scene.last().summary);
    // It is seen to wait for something after all.
    let mut scene = stalls();
    scene.sees(2201, vec![thread(43, Posture::Sleep, &[])]);
    scene.passes(2201, 2700);
    assert!(scene.last().summary.contains("asleep"), "{}", scene.last().summary);
}
