use ebpf_probes::{
    abi::Kind as Record,
    probes::connect::{Connect, Icmp, phase},
};

use crate::{
    known::{
        context::{Context, PortHolder, PortUse, Reach},
        request::Target,
    },
    pipeline::{
        Request,
        incident::{ConnectFailingDetails, Details, Incident, Kind, State},
    },
    rules::scene::{Scene, advice, connect},
};

#[track_caller]
fn details(incident: &Incident) -> &ConnectFailingDetails {
    match &incident.details {
        Details::ConnectFailing(details) => details,
        other => panic!("{other:?}"),
    }
}

/// A connect to the `number`th of many destinations that is refused.
fn refused(number: u16, at: u64) -> Connect {
    let mut connect = connect(u64::from(number) * 100_000 + at, 1017, 0, at);
    connect.tuple.remote[13..].copy_from_slice(&[51, (number >> 8) as u8, number as u8]);
    Connect { errno: 111, ..connect }
}

/// A connect that the call itself refused with this error.
fn at_once(errno: i32, at: u64) -> Connect {
    Connect { errno, syns: 0, phase: phase::CALLED, ..connect(at, 1017, 5, at) }
}

#[test]
fn a_thousand_destinations_that_refuse_one_program_are_one_incident_with_the_worst_ten() {
    let mut scene = Scene::new();
    for round in [0, 1000, 2000, 3000] {
        for number in 0..1000 {
            scene.connect(round + 10, Record::CONNECT_END, refused(number, round));
        }
        scene.passes(round + 300, round + 800);
    }
    assert_eq!(scene.opened(Kind::ConnectFailing).len(), 1);
    assert!(scene.emitted.len() <= 16, "{}", scene.emitted.len());
    let last = scene.last().clone();
    assert!(last.count >= 2048 && details(&last).destinations >= 500, "{last:?}");
    assert_eq!(details(&last).worst.len(), 10);
    // One that works again does not end it; all of them do.
    scene.connect(5000, Record::CONNECT_END, Connect { errno: 0, established: 1, ..refused(3, 4990) });
    scene.passes(5500, 9000);
    assert_ne!(scene.last().state, State::Resolved);
    scene.passes(64_000, 68_000);
    assert_eq!((scene.last().state, &scene.last().id), (State::Resolved, &last.id));
    assert_eq!(scene.last().count, 4000);
}

fn fails(errno: i32) -> Scene {
    let mut scene = Scene::new();
    for at in [0, 1000, 2000] {
        scene.connect(at + 1, Record::CONNECT_END, at_once(errno, at));
    }
    scene.passes(2500, 3500);
    assert_eq!(scene.opened(Kind::ConnectFailing).len(), 1);
    scene
}

fn reach(route_errno: i32, ports: Option<PortUse>) -> Context {
    let target = Target {
        netns: ebpf_probes::abi::Netns::numbered(1),
        process: 1017,
        address: [192, 0, 2, 5].into(),
        port: 80,
    };
    Context::Reach(Box::new(Reach { boot_ns: 1, target, read: true, route_errno, ports }))
}

/// Connects that fail after one SYN, answered by this host with this ICMP message from a namespace.
fn answered_by_this_host(errno: i32, code: u8, netns: u32) -> Scene {
    let mut scene = Scene::new();
    scene.apply(&Context::Netns { inode: 7, generation: 0, name: "node".into() });
    for at in [0, 1000, 2000] {
        let icmp = Icmp { v6: false, code }.word();
        let icmp_netns = ebpf_probes::abi::Netns::numbered(netns);
        let failed = Connect { errno, icmp, icmp_netns, ..connect(at, 1017, 5, at) };
        scene.connect(at + 1, Record::CONNECT_END, failed);
    }
    scene.passes(2500, 3500);
    scene
}

#[test]
fn an_icmp_error_of_this_host_s_own_is_reported_as_its_own() {
    for (errno, code, netns, why, remedy) in [
        (111, 3, 1, "This host rejects the SYN itself", "nft list ruleset"),
        (111, 3, 7, "in network namespace node, rejects", "ip netns exec node nft list ruleset"),
        (101, 0, 7, "has no route to 192.0.2.5 and says so itself", "ip -n node route get 192.0.2.5"),
        (113, 13, 1, "prohibits it itself", "ip route get 192.0.2.5"),
        (113, 1, 1, "says itself that 192.0.2.5 is unreachable", "ip route get 192.0.2.5"),
    ] {
        let scene = answered_by_this_host(errno, code, netns);
        let (last, remedies) = (scene.last(), advice(scene.last()));
        assert!(last.why[0].contains(why) && remedies.contains(remedy), "{last:#?}");
        assert!(last.summary.contains("this host"), "{}", last.summary);
        assert!(details(last).answered_by_host.is_some());
        // Nothing there is to be blamed, and nothing is to be started there.
        assert!(!format!("{last:?}").contains("nothing listens"), "{last:#?}");
        assert!(!remedies.contains("start the service"), "{remedies}");
    }
    // A reset that came from there.
    let mut scene = Scene::new();
    for at in [0, 1000, 2000] {
        scene.connect(at + 1, Record::CONNECT_END, Connect { errno: 111, ..connect(at, 1017, 5, at) });
    }
    scene.passes(2500, 3500);
    assert!(scene.last().why[0].contains("nothing listens on port 80"), "{:?}", scene.last().why);
    assert_eq!(details(scene.last()).answered_by_host, None);
}

#[test]
fn used_up_local_ports_are_reported_with_the_range_and_who_holds_them() {
    let mut scene = fails(99);
    let asked = matches!(&scene.requests[..], [Request::Reach(target)] if target.port == 80);
    assert!(asked, "{:?}", scene.requests);
    // Before it was looked at the port range is named already.
    let opened = scene.last();
    assert!(opened.why[0].contains("net.ipv4.ip_local_port_range"), "{:?}", opened.why);
    assert!(
        opened.remedies.iter().all(|remedy| !remedy.to_string().contains("strace")),
        "{:?}",
        opened.remedies
    );
    scene.apply(&reach(
        0,
        Some(PortUse {
            first: 40_000,
            last: 40_003,
            used: 4,
            states: vec![("ESTAB".into(), 4)],
            holders: vec![PortHolder { pid: 77, comm: "nginx".into(), ports: 4 }],
        }),
    ));
    let why = scene.last().why.join(" ");
    assert!(why.contains("40000–40003") && why.contains("has 4 ports, and 4 of them are in use"), "{why}");
    assert!(why.contains("nginx[77] 4"), "{why}");
}

#[test]
fn a_range_with_room_is_not_blamed() {
    let mut scene = fails(99);
    let ports = PortUse { first: 32_768, last: 60_999, used: 1, states: vec![], holders: vec![] };
    scene.apply(&reach(0, Some(ports)));
    assert!(scene.last().why[0].contains("although only 1 of 28232"), "{:?}", scene.last().why);
}

#[test]
fn routes_that_refuse_are_named_by_type_and_policies_are_not_when_the_route_does() {
    for (errno, kind) in [(13, "prohibit"), (22, "blackhole"), (113, "unreachable")] {
        let mut scene = fails(errno);
        scene.apply(&reach(errno, None));
        let last = scene.last();
        assert!(last.why[0].contains(&format!("A route of type {kind}")), "{:?}", last.why);
        assert!(
            last.remedies
                .iter()
                .all(|remedy| !["bpftool", "strace"].iter().any(|tool| remedy.to_string().contains(tool)))
        );
    }
    // The route is fine: it was a policy.
    let mut scene = fails(13);
    scene.apply(&reach(0, None));
    assert!(scene.last().why[0].contains("policy"), "{:?}", scene.last().why);
    assert!(fails(1).last().why[0].contains("policy"));
}
