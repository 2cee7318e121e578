//! Untrusted names, wherever a rule takes one from: threads, programs, devices, namespaces, units, pods, clocks,
//! files. No incident may show one as a sentence of culprit's, or hand one to a shell.

use ebpf_probes::{
    abi::{Kind as Record, Netns},
    probes::{
        connect::{Connect, Dropped, Icmp, packet, place},
        neigh::{NeighRecord, cause, state},
        tls::{ALERT_BY_CLIENT, CLIENT_HELLO, Handshake, stage},
    },
};
use proptest::prelude::*;

use super::{
    client_hello::client_hello,
    scene::{PROCESS, Scene, connect, entry, hello, owner, thread, unheard, waiter},
    scene_lookups::{Asked, asks},
};
use crate::{
    fact::ReferenceKind,
    known::{
        context::{
            Context, Family, LocalObject, LocalWait, PortHolder, PortUse, Posture, ProcessContext, Reach,
            SeenMount, SeenProcess, SeenThread,
        },
        request::Target,
    },
    pipeline::incident::{Incident, Kind},
    text::{hidden, shown},
};

/// The namespace where things happen: not the host's own, so that its name is said.
const NETNS: Netns = Netns::numbered(2);
const HOST_UNREACHABLE: i32 = 113;

/// Bytes of one sentence at most, and of all sentences of an incident.
const SENTENCE: usize = 2048 * 4 + 16;
const ALL: usize = 256 * 1024;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(";curl${IFS}a|sh".to_owned()),
        Just("-rf {a,b} ~ *".to_owned()),
        Just("x] is to blame".to_owned()),
        Just("\u{202e}gro\u{200b}.a".to_owned()),
        Just("a\n  Try:  sh\x1b[2J".to_owned()),
        Just("'\"\\$(id)`id`".to_owned()),
        "[ -~]{1,15}",
        "\\PC{1,5}",
        "(?s).{1,5}",
    ]
}

/// As the kernel keeps names of threads and devices: 15 bytes, cut anywhere.
fn bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

#[derive(Debug)]
struct Names {
    comm: String,
    device: String,
    netns: String,
    program: String,
    place: String,
    file: String,
    clock: String,
}

fn names() -> impl Strategy<Value = Names> {
    (name(), name(), name(), name(), name(), name(), name()).prop_map(
        |(comm, device, netns, program, place, file, clock)| Names {
            comm,
            device,
            netns,
            program,
            place,
            file,
            clock,
        },
    )
}

fn hostile(names: &Names) -> Scene {
    hostile_on(Scene::new(), names)
}

fn hostile_on(mut scene: Scene, names: &Names) -> Scene {
    let context = |pid| ProcessContext {
        pid,
        comm: names.comm.clone(),
        exe: Some(format!("/opt/{}", names.program)),
        unit: Some(format!("{}.service", names.place)),
        pod: Some(names.place.clone()),
        namespace: Some(names.place.clone()),
        container: Some(names.place.clone()),
        started_ns: 1,
        ..ProcessContext::default()
    };
    for pid in [PROCESS, 4711, 2001] {
        scene.apply(&Context::Process(context(pid)));
    }
    scene.apply(&Context::Netns {
        inode: NETNS.inode,
        generation: NETNS.generation,
        name: names.netns.clone(),
    });
    scene.apply(&Context::Device { netns: NETNS, index: 2, name: names.device.clone() });
    scene
}

fn here(mut connect: Connect, names: &Names) -> Connect {
    connect.owner.netns = NETNS;
    connect.owner.comm = bytes(&names.comm);
    connect
}

/// A neighbour that does not answer, and what waits for it.
fn unresolved(names: &Names) -> Vec<Incident> {
    let mut scene = hostile(names);
    let change = |from, to, cause| NeighRecord {
        cause,
        netns: NETNS.inode,
        device: bytes(&names.device),
        ..entry(90, (from, 0), (to, 0))
    };
    scene.neigh(0, change(state::NONE, state::INCOMPLETE, cause::SENT));
    let mut packet = waiter(7, 90);
    packet.netns = NETNS.inode;
    packet.owner = owner(PROCESS, 1);
    packet.owner.comm = bytes(&names.comm);
    scene.waiter(1000, packet);
    scene.neigh(3000, change(state::INCOMPLETE, state::FAILED, cause::TIMER));
    let failed = Connect { errno: HOST_UNREACHABLE, ..here(connect(7, 1, 90, 0), names) };
    scene.connect(3001, Record::CONNECT_END, failed);
    scene.passes(3200, 3700);
    assert!(!scene.opened(Kind::NeighbourUnresolved).is_empty());
    scene.emitted
}

/// Replies that go to the wrong MAC.
fn stale(names: &Names) -> Vec<Incident> {
    let mut scene = hostile(names);
    for unanswered in 1..6 {
        let mut record = unheard(90, 5000, unanswered, 0);
        record.netns = NETNS.inode;
        record.owner = owner(PROCESS, PROCESS);
        record.owner.comm = bytes(&names.comm);
        scene.unheard(1000 * u64::from(unanswered), record);
        scene.tick(1000 * u64::from(unanswered));
    }
    assert!(!scene.opened(Kind::NeighbourStale).is_empty());
    scene.emitted
}

/// An address that goes to and fro.
fn conflict(names: &Names) -> Vec<Incident> {
    let mut scene = hostile(names);
    for (at, from, to) in [(0, 1, 2), (5000, 2, 1), (10_000, 1, 2), (15_000, 2, 1)] {
        let record = NeighRecord {
            netns: NETNS.inode,
            device: bytes(&names.device),
            ..entry(90, (state::REACHABLE, from), (state::REACHABLE, to))
        };
        scene.neigh(at, record);
        scene.tick(at);
    }
    scene.emitted
}

/// A handshake that waits for a connect, and one that waits for nothing seen.
fn stalled(names: &Names) -> Vec<Incident> {
    let mut scene = hostile(names);
    let mine = |cookie| {
        let mut hs = hello(cookie, 1043, 0);
        (hs.owner.comm, hs.reader.comm) = (bytes(&names.comm), bytes(&names.comm));
        (hs.owner.netns, hs.reader.netns) = (NETNS, NETNS);
        hs
    };
    scene.waits(1100, here(connect(7, 1043, 64, 5), names));
    scene.stalls(1100, &[mine(1)]);
    scene.sees(1101, vec![thread(1043, Posture::Descriptors, &[7])]);
    let mut emitted = std::mem::take(&mut scene.emitted);
    let mut scene = hostile(names);
    scene.stalls(1200, &[mine(1)]);
    let mut seen = thread(1043, Posture::Descriptors, &[]);
    seen.shown.comm.clone_from(&names.comm);
    seen.shown.syscall = Some("read".into());
    seen.shown.waits_on = vec![shown(&names.file).into_owned()];
    scene.sees(1201, vec![seen]);
    assert!(!scene.emitted.is_empty() && !emitted.is_empty());
    emitted.append(&mut scene.emitted);
    for what in local_objects(names) {
        let mut scene = hostile(names);
        scene.stalls(1200, &[mine(1)]);
        let ends = vec![SeenProcess { pid: 88, comm: names.comm.clone(), state: "S".into(), related: false }];
        let local = Some(LocalWait { what, sends: false, ends, ends_cut: false });
        scene.sees(1201, vec![SeenThread { local, ..thread(1043, Posture::Descriptors, &[]) }]);
        assert!(!scene.emitted.is_empty());
        emitted.append(&mut scene.emitted);
    }
    emitted
}

/// A lookup without an answer, of a resolver of this host that waits for its own.
fn unanswered(names: &Names) -> Vec<Incident> {
    let mut scene = hostile(names);
    // One label, whatever it holds.
    let label = format!("x{}", names.file.replace('.', "-"));
    let label = simple_dns::Name::new_unchecked(Box::leak(label.into_boxed_str()));
    let local = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    let mine = |cookie, process, server| {
        let mut asked = Asked { server, name: label.clone(), ..asks(cookie, process, "") };
        (asked.owner.comm, asked.owner.netns) = (bytes(&names.comm), NETNS);
        asked
    };
    scene.asks(0, &mine(7, PROCESS, local));
    scene.asks(1, &mine(8, 2001, [9; 16]));
    scene.passes(500, 3500);
    assert!(!scene.opened(Kind::DnsUnanswered).is_empty());
    scene.emitted
}

/// Handshakes that a client ends, which asks for a name of its own.
fn refused(names: &Names) -> Vec<Incident> {
    let mut emitted = Vec::new();
    for alert in [45, 48, 112] {
        let mut scene = hostile(names);
        for at in [0, 1200, 2400] {
            let mut hs = hello(at + 1, 1043, at);
            hs.owner.comm = bytes(&names.comm);
            hs.owner.netns = NETNS;
            let ended = Handshake {
                stage: stage::ALERT,
                read_stage: stage::SERVER_FLIGHT,
                alert: 1 << 16 | 2 << 8 | alert,
                flags: if alert == 112 { 0 } else { ALERT_BY_CLIENT },
                ..hs
            };
            scene.bytes(at + 1, hs.cookie, CLIENT_HELLO, &client_hello(Some(names.clock.as_bytes()), 0x0303));
            scene.tls(at + 2, Record::TLS_PHASE, ended);
            scene.tick(at + 250);
        }
        assert!(!scene.opened(Kind::TlsFailing).is_empty());
        emitted.append(&mut scene.emitted);
    }
    emitted
}

/// What a thread may wait on, with names in it that anyone chooses.
fn local_objects(names: &Names) -> [LocalObject; 2] {
    let mount = SeenMount {
        fs_type: Some(names.program.clone()),
        point: Some(names.place.clone()),
        source: Some(format!("{}:/{}", names.device, names.file)),
        path: Some(names.file.clone()),
        family: Family::Nfs,
        ..SeenMount::default()
    };
    [LocalObject::UnixSocket { path: Some(names.file.clone()) }, LocalObject::FileSystem(mount)]
}

/// Connects that fail, answered by this host in the namespace, or for want of a port that another program holds.
fn failing(names: &Names) -> Vec<Incident> {
    let mut emitted = Vec::new();
    for (errno, code) in [(111, 3), (101, 0), (113, 1), (113, 13), (99, 255)] {
        let mut scene = hostile(names);
        for at in [0, 1000, 2000] {
            let refused = here(connect(at, 1043, 64, at), names);
            let icmp = if code == 255 { 0 } else { Icmp { v6: false, code }.word() };
            let syns = u32::from(code != 255);
            let failed = Connect { errno, icmp, icmp_netns: NETNS, syns, ..refused };
            scene.connect(at + 1, Record::CONNECT_END, failed);
        }
        scene.passes(2500, 3500);
        let holders = vec![PortHolder { pid: 77, comm: names.comm.clone(), ports: 4 }];
        let ports = PortUse { first: 40_000, last: 40_003, used: 4, states: vec![], holders };
        let target = Target { netns: NETNS, process: PROCESS, address: [192, 0, 2, 64].into(), port: 80 };
        let reach = Reach { boot_ns: 1, target, read: true, route_errno: 0, ports: Some(ports) };
        scene.apply(&Context::Reach(Box::new(reach)));
        assert!(!scene.opened(Kind::ConnectFailing).is_empty());
        emitted.append(&mut scene.emitted);
    }
    emitted
}

/// A connect whose packets this host drops, here and there.
fn dropped(names: &Names) -> Vec<Incident> {
    let reasons = [("SKB_DROP_REASON_NETFILTER_DROP", 8), ("SKB_DROP_REASON_IP_RPFILTER", 16)];
    let mut emitted = Vec::new();
    let input = place::ARRIVED | place::ROUTED | place::LOCAL;
    for (reason, at) in [
        (8, packet::SYN),
        (8, packet::SYN | place::FOREIGN | place::ARRIVED | place::ROUTED),
        (8, packet::ANSWER | input),
        (16, packet::ANSWER | place::ARRIVED),
    ] {
        let mut scene = hostile_on(Scene::with_reasons(&reasons), names);
        let (cookie, device) = (7, bytes(&names.device));
        scene.dropped(
            500,
            Dropped { cookie, netns: NETNS, ifindex: 2, reason, at, device, ..Dropped::default() },
        );
        let waits = here(connect(cookie, 1043, 64, 0), names);
        let pending = Connect { drops: 2, drop_reason: reason, drop_where: at, ..waits };
        scene.connect(3000, Record::CONNECT_PENDING, pending);
        assert!(!scene.opened(Kind::ConnectStalled).is_empty());
        emitted.append(&mut scene.emitted);
    }
    emitted
}

/// Who sets the clock, by name, path and parent.
fn setters(names: &Names) -> Vec<Incident> {
    let mut scene = hostile(names);
    let (comm, program) = (bytes(&names.comm), bytes(&names.program));
    for (at, author) in [(1000, 4711), (20_000, 2001), (40_000, 4711), (60_000, 2001)] {
        scene.sets_clock_by(at, author, comm, program, if author == 4711 { 900_000 } else { -900_000 });
        scene.tick(at + 500);
    }
    scene.passes(61_000, 66_000);
    assert!(!scene.opened(Kind::ClockStepped).is_empty());
    scene.emitted
}

/// A clock that is set and found to be wrong.
fn clock(names: &Names) -> Vec<Incident> {
    let mut scene = hostile(names);
    let kept: String = names.comm.chars().filter(|c| *c != '\0' && c.is_ascii()).take(15).collect();
    scene.sets_clock(1000, &kept, 900_000);
    scene.tick(2000);
    let mut emitted = std::mem::take(&mut scene.emitted);
    let mut scene = hostile(names);
    for at in [1000, 2000, 70_000, 140_000] {
        scene.compares(at, ReferenceKind::Rtc, &names.clock, 400_000);
        scene.compares(at, ReferenceKind::Http, &names.clock, 400_000);
        scene.tick(at + 100);
    }
    assert!(!emitted.is_empty());
    emitted.append(&mut scene.emitted);
    emitted
}

/// Quotes that open or close a name.
fn quotes(text: &str) -> usize {
    let escaped = text.chars().scan(false, |escape, c| {
        let this = std::mem::take(escape);
        *escape = c == '\\' && !this;
        Some(c == '"' && !this)
    });
    escaped.filter(|quote| *quote).count()
}

/// No sentence shows a name that could be taken for words without its quotes.
fn judge(emitted: &[Incident], names: &Names) -> Result<(), TestCaseError> {
    for incident in emitted {
        let sentences = incident.why.iter().chain(incident.evidence.iter().map(|seen| &seen.text));
        let mut all = 0;
        for text in sentences.chain([&incident.summary]) {
            prop_assert!(!text.chars().any(hidden), "{text:?}");
            prop_assert!(text.len() <= SENTENCE);
            all += text.len();
            for name in [&names.comm, &names.device, &names.netns, &names.place, &names.clock] {
                // Short ones are part of other words.
                if name.len() < 5 || shown(name) == name.as_str() {
                    continue;
                }
                for (at, _) in text.match_indices(name.as_str()) {
                    prop_assert!(quotes(&text[..at]) % 2 == 1, "{name:?} speaks for itself in {text:?}");
                }
            }
        }
        for remedy in &incident.remedies {
            let line = remedy.to_string();
            prop_assert!(!line.chars().any(hidden), "{line:?}");
            all += line.len();
            for command in remedy.commands() {
                let shell = command.to_string();
                prop_assert!(line.contains(&shell));
                if command.refused().is_some() {
                    prop_assert!(shell.starts_with('('), "{shell}");
                    continue;
                }
                let again = shell_words::split(&shell).expect("quotes in pairs");
                prop_assert_eq!(again.as_slice(), command.argv());
            }
        }
        prop_assert!(all <= ALL);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_name_speaks_for_culprit_or_for_a_shell(names in names()) {
        for situation in [unresolved, stale, conflict, stalled, unanswered, refused, failing, dropped, setters, clock] {
            judge(&situation(&names), &names)?;
        }
    }
}
