use ebpf_probes::{
    abi::Kind as Record,
    probes::tls::{ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, Handshake, stage},
};

use crate::{
    known::context::{Context, FakedTime, ProcessContext},
    pipeline::incident::{CauseKind, Confidence, Details, Kind},
    rules::scene::{Scene, advice, hello, owner, v4},
};

const BAD_CERTIFICATE: u32 = 42;
const EXPIRED: u32 = 45;
const YEAR_S: i64 = 365 * 86_400;

/// A client that refuses the certificate of 192.0.2.9, three times; each process in another time, or its host's.
fn refuses(alert: Option<u32>, times: [Option<i64>; 3]) -> Scene {
    let mut scene = Scene::new();
    for (number, ahead_s) in (0..).zip(times) {
        let (at, pid) = (number * 500, 1017 + number as u32);
        scene.apply(&Context::Process(ProcessContext {
            pid,
            comm: "raven".into(),
            leader: Some("raven".into()),
            exe: Some("/usr/bin/raven".into()),
            faked_time: ahead_s.map(|ahead_s| FakedTime {
                setting: format!("{:+}y", ahead_s / YEAR_S),
                ahead_s: Some(ahead_s),
            }),
            wanted: true,
            ..ProcessContext::default()
        }));
        let mut hs = hello(number + 1, pid, at);
        (hs.role, hs.tuple.local_port, hs.tuple.remote_port) = (CLIENT, 50_000, 443);
        (hs.owner, hs.tuple.remote) = (owner(pid, pid), v4(9));
        let encrypted = if alert.is_none() { ALERT_ENCRYPTED } else { 0 };
        let hs = Handshake {
            stage: stage::ALERT,
            read_stage: stage::SERVER_FLIGHT,
            alert: 1 << 16 | 2 << 8 | alert.unwrap_or_default(),
            flags: ALERT_BY_CLIENT | encrypted,
            ..hs
        };
        scene.tls(at + 2, Record::TLS_PHASE, hs);
        scene.tick(at + 250);
    }
    scene.passes(1500, 3500);
    assert_eq!(scene.opened(Kind::TlsFailing).len(), 1);
    scene
}

fn blamed(scene: &Scene) -> (CauseKind, Confidence) {
    let cause = scene.cause();
    (cause.kind, cause.confidence)
}

#[test]
fn a_process_that_lives_years_ahead_refuses_a_certificate_for_its_own_time() {
    let scene = refuses(Some(EXPIRED), [Some(20 * YEAR_S); 3]);
    assert_eq!(blamed(&scene), (CauseKind::Clock, Confidence::Likely));
    let said = scene.last();
    assert!(said.why[1].contains("libfaketime is preloaded into it, with FAKETIME=+20y: "), "{:?}", said.why);
    assert!(advice(said).contains("take LD_PRELOAD and FAKETIME out"), "{}", advice(said));
    let Details::TlsFailing(details) = &said.details else { panic!("{:?}", said.details) };
    assert_eq!(details.faked_time.as_ref().and_then(|time| time.ahead_s), Some(20 * YEAR_S));
}

#[test]
fn an_encrypted_alert_of_such_a_process_may_be_for_its_time() {
    let scene = refuses(None, [Some(20 * YEAR_S); 3]);
    assert_eq!(blamed(&scene), (CauseKind::Clock, Confidence::Possible));
}

#[test]
fn one_behind_refuses_what_is_not_valid_yet_and_nothing_as_expired() {
    assert_eq!(blamed(&refuses(Some(BAD_CERTIFICATE), [Some(-YEAR_S); 3])).0, CauseKind::Clock);
    assert_eq!(blamed(&refuses(Some(EXPIRED), [Some(-YEAR_S); 3])).0, CauseKind::Certificate);
}

#[test]
fn the_same_alert_of_a_process_in_its_host_s_time_is_not_for_another() {
    let ahead = Some(20 * YEAR_S);
    let scene = refuses(Some(EXPIRED), [None; 3]);
    assert_eq!(blamed(&scene), (CauseKind::Certificate, Confidence::Certain));
    assert!(!advice(scene.last()).contains("FAKETIME"), "{}", advice(scene.last()));
    // Neither where some of them fail without.
    assert_eq!(blamed(&refuses(Some(EXPIRED), [ahead, None, ahead])).0, CauseKind::Certificate);
}
