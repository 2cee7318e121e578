//! What is in the way on this machine: it is named when a thread that matters was seen to wait for it, and not when it
//! only could.

use std::net::{IpAddr, SocketAddr};

use ebpf_probes::abi::Netns;

use crate::{
    known::context::{
        CgroupLimits, Context, DescriptorUse, Family, LocalObject, LocalWait, MemoryHigh, Posture, Quota,
        SeenListener, SeenMount, SeenProcess, SeenSocket, SeenThread, Snapshot,
    },
    pipeline::{
        Request,
        incident::{CauseKind, Confidence, Details, Incident, ObstacleDetails},
    },
    rules::scene::{PROCESS, Scene, advice, connect, hello, thread, unread_hello},
};

/// Where scenes begin, nanoseconds since boot.
const BEGAN: u64 = 100_000_000_000;

fn seen(at: u64, threads: Vec<SeenThread>) -> Snapshot {
    Snapshot { boot_ns: BEGAN + at * 1_000_000, process: PROCESS, threads, ..Snapshot::default() }
}

fn end(pid: u32, comm: &str, state: &str) -> SeenProcess {
    SeenProcess { pid, comm: comm.into(), state: state.into(), related: false }
}

fn unix(path: &str, sends: bool, ends: Vec<SeenProcess>) -> LocalWait {
    LocalWait { what: LocalObject::UnixSocket { path: Some(path.into()) }, sends, ends, ends_cut: false }
}

fn mounted(sleeps_in_it: bool) -> LocalWait {
    let mount = SeenMount {
        family: Family::Fuse,
        fs_type: Some("fuse.bindfs".into()),
        point: Some("/srv/certs".into()),
        source: Some("/srv/real".into()),
        path: Some("/srv/certs/www.crt".into()),
        sleeps_in_it,
    };
    let ends = vec![end(55, "bindfs", "T")];
    LocalWait { what: LocalObject::FileSystem(mount), sends: false, ends, ends_cut: false }
}

fn waiting(tid: u32, local: LocalWait) -> SeenThread {
    SeenThread { local: Some(local), ..thread(tid, Posture::Descriptors, &[]) }
}

fn acceptor() -> SeenThread {
    SeenThread { accepts: true, ..thread(1, Posture::Descriptors, &[]) }
}

/// A hello read by thread 43, and what a look shows.
fn read(snapshot: Snapshot) -> Scene {
    let mut scene = Scene::new();
    scene.stalls(1100, &[hello(1, 43, 0)]);
    scene.apply(&Context::Snapshot(Box::new(snapshot)));
    scene
}

/// A hello that no thread has read.
fn unread(snapshot: Snapshot) -> Scene {
    let mut scene = listening();
    scene.stalls(1100, &[unread_hello(1, 0)]);
    scene.apply(&Context::Snapshot(Box::new(snapshot)));
    scene
}

/// A server that listens on port 443.
fn listening() -> Scene {
    let mut scene = Scene::new();
    scene.apply(&Context::Listener {
        netns: Netns::numbered(1),
        address: IpAddr::from([0, 0, 0, 0]),
        port: 443,
        process: PROCESS,
        comm: "raven".into(),
    });
    scene
}

fn verdict(scene: &Scene) -> (CauseKind, Confidence) {
    (scene.cause().kind, scene.cause().confidence)
}

fn details(incident: &Incident) -> &ObstacleDetails {
    match &incident.details {
        Details::TlsHandshakeStalled(details) => details.obstacle.as_deref().expect("an obstacle"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_daemon_that_does_not_answer_on_its_unix_socket_is_named() {
    let wait = unix("/run/nscd/socket", false, vec![end(77, "nscd", "S")]);
    let scene = read(seen(1101, vec![waiting(43, wait), acceptor()]));
    assert_eq!(verdict(&scene), (CauseKind::LocalService, Confidence::Certain));
    let incident = scene.last();
    assert!(
        incident
            .summary
            .ends_with("thread 43 is waiting for nscd[77] to answer on unix socket /run/nscd/socket."),
        "{}",
        incident.summary
    );
    assert_eq!(scene.cause().process.as_ref().map(|process| process.pid), Some(77));
    assert_eq!(details(incident).path.as_deref(), Some("/run/nscd/socket"));
    assert!(advice(incident).contains("-p 77"), "{incident:#?}");
}

#[test]
fn a_daemon_that_waits_for_a_connect_itself_is_said_to() {
    let wait = unix("/run/nslcd/socket", false, vec![end(77, "nslcd", "S")]);
    let mut scene = Scene::new();
    let mut ldap = connect(7, 77, 64, 5);
    (ldap.owner.process, ldap.tuple.remote_port) = (77, 636);
    scene.waits(1100, ldap);
    scene.stalls(1100, &[hello(1, 43, 0)]);
    scene.sees(1101, vec![waiting(43, wait)]);
    let why = scene.last().why.join(" ");
    assert!(why.contains("nslcd[77] itself waits for a connect to 192.0.2.64:636"), "{why}");
}

#[test]
fn a_full_log_socket_is_blamed_on_the_logger_that_does_not_read() {
    let wait = || unix("/dev/log", true, vec![end(55, "rsyslogd", "T")]);
    // The others wait for the lock of the one that sends.
    let threads = || vec![waiting(44, wait()), thread(43, Posture::Threads, &[]), acceptor()];
    let scene = read(seen(1101, threads()));
    assert_eq!(verdict(&scene), (CauseKind::LocalService, Confidence::Likely));
    let summary = &scene.last().summary;
    assert!(
        summary.contains("thread 44 of it is waiting until rsyslogd[55] (stopped) takes what is sent to")
            && summary.contains("/dev/log"),
        "{summary}"
    );
    assert!(advice(scene.last()).contains("kill -CONT 55"), "{}", advice(scene.last()));
    let scene = unread(Snapshot { accepted: Some(true), ..seen(1101, threads()) });
    assert_eq!(verdict(&scene), (CauseKind::LocalService, Confidence::Likely));
    let all = Snapshot { accepted: Some(true), ..seen(1101, vec![waiting(44, wait()), acceptor()]) };
    let scene = unread(all);
    assert_eq!(verdict(&scene), (CauseKind::LocalService, Confidence::Certain));
    assert!(!advice(scene.last()).contains("more threads"), "{}", advice(scene.last()));
}

#[test]
fn a_worker_that_waits_for_its_own_kind_is_not_why_a_hello_is_unread() {
    let mut parent = end(55, "raven", "S");
    parent.related = true;
    let wait = unix("/run/raven/control", false, vec![parent]);
    let scene = unread(Snapshot { accepted: Some(true), ..seen(1101, vec![waiting(44, wait)]) });
    assert_eq!(scene.cause().kind, CauseKind::Unread, "{:#?}", scene.last());
    // Nor is one of several that wait for different things.
    let one = unix("/run/one", false, vec![end(55, "one", "S")]);
    let other = unix("/run/other", false, vec![end(56, "other", "S")]);
    let threads = vec![waiting(44, one), waiting(45, other)];
    let scene = unread(Snapshot { accepted: Some(true), ..seen(1101, threads) });
    assert_eq!(scene.cause().kind, CauseKind::Unread, "{:#?}", scene.last());
}

#[test]
fn a_pipe_that_is_not_read_is_blamed_on_who_should_and_one_without_an_end_is_only_possible() {
    let pipe = |ends| LocalWait { what: LocalObject::Pipe, sends: true, ends, ends_cut: false };
    let scene = read(seen(1101, vec![waiting(43, pipe(vec![end(55, "cat", "S")]))]));
    assert_eq!(verdict(&scene), (CauseKind::Pipe, Confidence::Certain));
    let summary = &scene.last().summary;
    assert!(summary.contains("is waiting until cat[55] reads from a pipe that is full"), "{summary}");
    let scene = read(seen(1101, vec![waiting(43, pipe(vec![]))]));
    assert_eq!(verdict(&scene), (CauseKind::Pipe, Confidence::Possible));
    assert!(scene.last().summary.contains("may be waiting"), "{}", scene.last().summary);
}

#[test]
fn a_file_system_that_hangs_is_certain_when_the_thread_sleeps_in_it() {
    for (sleeps, confidence) in [(true, Confidence::Certain), (false, Confidence::Likely)] {
        let mut reader = waiting(43, mounted(sleeps));
        (reader.posture, reader.shown.syscall) = (Posture::Disk, Some("openat".into()));
        let scene = read(seen(1101, vec![reader]));
        assert_eq!(verdict(&scene), (CauseKind::FileSystem, confidence));
        let summary = &scene.last().summary;
        assert!(
            summary.ends_with(
                "thread 43 is waiting in openat of /srv/certs/www.crt for the FUSE file system at /srv/certs \
                 (fuse.bindfs, /srv/real), which does not answer; bindfs[55] (stopped) serves it."
            ),
            "{summary}"
        );
        assert_eq!(details(scene.last()).mount.as_deref(), Some("/srv/certs"));
        assert!(advice(scene.last()).contains("umount -l -- /srv/certs"), "{}", advice(scene.last()));
    }
}

#[test]
fn a_hello_behind_an_only_thread_on_a_hung_file_system_is_blamed_on_that() {
    let worker = SeenThread { posture: Posture::Disk, ..waiting(43, mounted(true)) };
    let scene = unread(Snapshot { accepted: Some(false), ..seen(1101, vec![worker.clone()]) });
    assert_eq!(verdict(&scene), (CauseKind::FileSystem, Confidence::Certain));
    assert!(scene.last().summary.contains("its only thread is waiting"), "{}", scene.last().summary);
    // Another one accepts: the connection is no one's yet, and soon will be.
    let scene = unread(Snapshot { accepted: Some(false), ..seen(1101, vec![worker, acceptor()]) });
    assert_eq!(scene.cause().kind, CauseKind::Unread);
}

#[test]
fn the_next_hello_behind_a_hung_file_system_is_likely_to_wait_for_it_too() {
    let worker = SeenThread { posture: Posture::Disk, ..waiting(43, mounted(true)) };
    let looked = Snapshot { accepted: Some(true), cookie: 1, ..seen(1101, vec![worker]) };
    let mut scene = listening();
    scene.stalls(1100, &[hello(1, 43, 0)]);
    scene.apply(&Context::Snapshot(Box::new(looked)));
    let next = unread_hello(2, 100);
    scene.stalls(1300, &[next]);
    scene.moves(1400, hello(1, 43, 0));
    scene.tick(2600);
    scene.moves(2700, next);
    assert_eq!(verdict(&scene), (CauseKind::FileSystem, Confidence::Likely), "{:#?}", scene.last());
}

/// A client of port 443 that sent `bytes` and then nothing for `silent_ms`.
fn client(cookie: u64, bytes: u64, silent_ms: u32) -> SeenSocket {
    let at = |last, port| SocketAddr::from(([192, 0, 2, last], port));
    SeenSocket {
        cookie,
        fd: 9,
        state: 1,
        local: at(1, 443),
        remote: at(20, 41_000),
        acked_bytes: 0,
        received_bytes: bytes,
        unacked: 0,
        sent_ms_ago: silent_ms,
        received_ms_ago: silent_ms,
        unread_bytes: 0,
        inbound: Some(true),
    }
}

#[test]
fn an_accept_loop_held_by_a_silent_client_names_that_client() {
    let held = |socket: SeenSocket, threads| {
        unread(Snapshot { accepted: Some(false), sockets: vec![socket], ..seen(1101, threads) })
    };
    let reads = || thread(43, Posture::Descriptors, &[5]);
    let scene = held(client(5, 0, 1700), vec![reads()]);
    assert_eq!(verdict(&scene), (CauseKind::Peer, Confidence::Certain));
    let to = scene.cause().destination.as_ref().map(|to| (to.ip.to_string(), to.port));
    assert_eq!(to, Some(("192.0.2.20".into(), 41_000)));
    let summary = &scene.last().summary;
    assert!(
        summary.contains("its only thread is waiting for the client 192.0.2.20:41000, which has connected and had sent nothing"),
        "{summary}"
    );
    assert!(!advice(scene.last()).contains("more threads"), "{}", advice(scene.last()));
    // One that has spoken, one that came later than the hello, and one beside a thread that accepts, hold nothing up.
    for scene in [
        held(client(5, 300, 1700), vec![reads()]),
        held(client(5, 0, 300), vec![reads()]),
        held(client(5, 0, 1700), vec![reads(), acceptor()]),
    ] {
        assert_eq!(scene.cause().kind, CauseKind::Unread, "{:#?}", scene.last());
    }
    // Beside a thread that may be free it is likely.
    let scene = held(client(5, 0, 1700), vec![reads(), thread(44, Posture::Threads, &[])]);
    assert_eq!(verdict(&scene), (CauseKind::Peer, Confidence::Likely));
}

fn quota(periods: u64, throttled: u64) -> CgroupLimits {
    CgroupLimits {
        quota: Some(Quota { allowed_us: 1000, period_us: 100_000, periods, throttled }),
        quota_group: Some("/sys/fs/cgroup/cpu/web".into()),
        ..CgroupLimits::default()
    }
}

fn running(at: u64, limits: CgroupLimits) -> Snapshot {
    Snapshot { limits, ..seen(at, vec![thread(43, Posture::Running, &[])]) }
}

#[test]
fn a_cpu_quota_is_certain_when_two_looks_show_that_it_was_used_up_during_the_stall() {
    let mut scene = read(running(1101, quota(10_000, 5000)));
    assert_eq!(verdict(&scene), (CauseKind::Throttled, Confidence::Likely));
    let looks = |scene: &Scene| {
        scene.requests.iter().filter(|request| matches!(request, Request::Process(_))).count()
    };
    assert_eq!(looks(&scene), 1);
    scene.tick(1500);
    assert_eq!(looks(&scene), 1, "a second look is later");
    scene.tick(2110);
    assert_eq!(looks(&scene), 2);
    scene.apply(&Context::Snapshot(Box::new(running(2111, quota(10_010, 5009)))));
    scene.tick(2360);
    assert_eq!(verdict(&scene), (CauseKind::Throttled, Confidence::Certain));
    let incident = scene.last();
    assert!(incident.summary.contains("throttled") && incident.summary.contains("90 %"), "{incident:#?}");
    assert!(advice(incident).contains("of /sys/fs/cgroup/cpu/web"), "{}", advice(incident));
    let details = details(incident);
    assert_eq!((details.cpu_periods, details.cpu_throttled_periods), (Some(10), Some(9)));
    scene.tick(4000);
    assert_eq!(looks(&scene), 2, "two looks are enough");
}

#[test]
fn a_quota_that_was_used_up_before_the_stall_and_not_during_it_is_not_blamed() {
    let mut scene = read(running(1101, quota(10_000, 5000)));
    scene.tick(2110);
    scene.apply(&Context::Snapshot(Box::new(running(2111, quota(10_010, 5000)))));
    scene.tick(2360);
    assert_eq!(scene.cause().kind, CauseKind::NoneSeen, "{:#?}", scene.last());
    assert!(!scene.last().summary.contains("throttled"), "{}", scene.last().summary);
}

#[test]
fn a_process_that_is_frozen_or_slowed_for_its_memory_is_said_to_be() {
    let limits = CgroupLimits {
        frozen: true,
        frozen_group: Some("/sys/fs/cgroup/web".into()),
        ..CgroupLimits::default()
    };
    let scene = read(Snapshot { limits, ..seen(1101, vec![thread(43, Posture::Frozen, &[])]) });
    assert_eq!(verdict(&scene), (CauseKind::Frozen, Confidence::Certain));
    assert!(advice(scene.last()).contains("of /sys/fs/cgroup/web"), "{}", advice(scene.last()));
    let memory = Some(MemoryHigh {
        current_bytes: 65 << 20,
        high_bytes: 64 << 20,
        group: "/sys/fs/cgroup/web".into(),
    });
    let limits = CgroupLimits { memory, ..CgroupLimits::default() };
    let mut slowed = thread(43, Posture::Disk, &[]);
    slowed.shown.wchan = Some("mem_cgroup_handle_over_high".into());
    let scene = read(Snapshot { limits: limits.clone(), ..seen(1101, vec![slowed]) });
    assert_eq!(verdict(&scene), (CauseKind::Throttled, Confidence::Certain));
    assert!(scene.last().summary.contains("memory.high (64 MiB)"), "{}", scene.last().summary);
    // Above it and not slowed, it is not why.
    let scene = read(Snapshot { limits, ..seen(1101, vec![thread(43, Posture::Sleep, &[])]) });
    assert_eq!(scene.cause().kind, CauseKind::NoneSeen);
}

#[test]
fn a_process_without_a_free_descriptor_cannot_accept() {
    let listeners =
        |queued| vec![SeenListener { local: SocketAddr::from(([0, 0, 0, 0], 443)), queued, limit: 128 }];
    let at = |open, accepted, queued| {
        unread(Snapshot {
            accepted: Some(accepted),
            descriptors: Some(DescriptorUse { open, limit: 24, hard: 4096 }),
            listeners: listeners(queued),
            ..seen(1101, vec![thread(43, Posture::EventLoop, &[])])
        })
    };
    let scene = at(24, false, 3);
    assert_eq!(verdict(&scene), (CauseKind::ResourceLimit, Confidence::Certain));
    assert!(scene.last().summary.contains("24 of 24 descriptors are in use"), "{}", scene.last().summary);
    let said = advice(scene.last());
    assert!(said.contains("LimitNOFILE") && said.contains("prlimit --pid 1017 '--nofile=96:4096'"), "{said}");
    // With some left it has stopped accepting for another reason.
    let scene = at(20, false, 3);
    assert_eq!(verdict(&scene), (CauseKind::ListenLimit, Confidence::Likely));
    assert!(
        scene.last().summary.contains("3 connections wait in the accept queue"),
        "{}",
        scene.last().summary
    );
    assert!(advice(scene.last()).contains("maxconn"), "{}", advice(scene.last()));
    assert_eq!(at(24, true, 0).cause().kind, CauseKind::Unread);
    assert_eq!(at(20, false, 0).cause().kind, CauseKind::Unread);
}

#[test]
fn what_the_thread_was_seen_in_for_certain_counts_for_more_than_what_is_possible() {
    let mut scene = Scene::new();
    // A place that the process keeps trying anyway.
    scene.waits(400, connect(6, 44, 64, 100));
    scene.gives_up(900, connect(6, 44, 64, 100));
    scene.waits(2100, connect(7, 44, 64, 1010));
    scene.stalls(2100, &[hello(1, 43, 1000)]);
    let reader = SeenThread { posture: Posture::Other, ..waiting(43, mounted(true)) };
    scene.sees(2101, vec![reader]);
    assert_eq!(verdict(&scene), (CauseKind::FileSystem, Confidence::Certain), "{:#?}", scene.last());
    // A connect of its own that it is in is what it waits for.
    let mut scene = Scene::new();
    scene.waits(1100, connect(7, 43, 64, 5));
    scene.stalls(1100, &[hello(1, 43, 0)]);
    scene.sees(1101, vec![thread(43, Posture::Descriptors, &[7])]);
    assert_eq!(scene.cause().kind, CauseKind::OutboundConnect);
}

#[test]
fn a_recording_from_before_these_were_looked_at_reads_as_it_did() {
    let old = serde_json::json!({
        "tid": 43, "comm": "raven", "state": "S", "wchan": null, "syscall": "poll", "waits_on": ["a pipe"],
        "stack": [], "posture": "processes",
    });
    let thread: SeenThread = serde_json::from_value(old).expect("a thread of old");
    let scene = read(seen(1101, vec![thread]));
    assert_eq!(verdict(&scene), (CauseKind::NoneSeen, Confidence::Possible));
}
