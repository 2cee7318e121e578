use ebpf_probes::{
    abi::{Kind as Record, Netns, Tuple},
    probes::connect::{Connect, Dropped, packet, place, translated},
};

use crate::{
    pipeline::incident::Kind,
    rules::scene::{Scene, connect, v4},
};

/// The numbers are the scene's own, as a kernel's BTF would give them.
const REASONS: &[(&str, u32)] = &[
    ("SKB_DROP_REASON_NETFILTER_DROP", 8),
    ("SKB_DROP_REASON_IP_RPFILTER", 16),
    ("SKB_DROP_REASON_TC_EGRESS", 62),
    ("SKB_DROP_REASON_BPF_CGROUP_EGRESS", 55),
    ("SKB_DROP_REASON_XDP", 72),
    ("SKB_DROP_REASON_IP_INADDRERRORS", 87),
    ("SKB_DROP_REASON_OTHERHOST", 13),
    ("SKB_DROP_REASON_SOCKET_FILTER", 5),
];

const INPUT: u32 = place::ARRIVED | place::ROUTED | place::LOCAL;
const FORWARD: u32 = place::ARRIVED | place::ROUTED;

/// What an incident says of a connect whose packets were lost so: its why and its remedies.
fn emitted(reason: u32, at: u32, change: impl FnOnce(&mut Dropped)) -> (String, Vec<String>) {
    emitted_of(connect(1, 1017, 5, 0), reason, at, change)
}

/// The same of this connect.
fn emitted_of(
    connect: Connect,
    reason: u32,
    at: u32,
    change: impl FnOnce(&mut Dropped),
) -> (String, Vec<String>) {
    let mut scene = Scene::with_reasons(REASONS);
    let mut lost =
        Dropped { cookie: 1, netns: Netns::numbered(1), ifindex: 2, reason, at, ..Dropped::default() };
    lost.device[..4].copy_from_slice(b"eth1");
    change(&mut lost);
    scene.dropped(500, lost);
    let pending = Connect { drops: 2, drop_reason: reason, drop_where: lost.at, ..connect };
    scene.connect(3000, Record::CONNECT_PENDING, pending);
    let opened = scene.opened(Kind::ConnectStalled);
    assert_eq!(opened.len(), 1);
    let cause = opened[0].cause.as_ref().expect("a cause");
    assert_eq!(cause.dropped_by_host, Some(2));
    (opened[0].why.join(" "), opened[0].remedies.iter().map(ToString::to_string).collect())
}

#[test]
fn only_a_syn_that_this_hosts_own_netfilter_drops_on_its_way_out_is_to_be_allowed_egress() {
    let egress = |(_, remedies): &(String, Vec<String>)| remedies[0].contains("allow egress tcp/80");
    assert!(egress(&emitted(8, packet::SYN, |_| {})));
    for (reason, at) in [
        (8, packet::ANSWER | INPUT),
        (8, packet::ANSWER | place::ARRIVED),
        (8, packet::SYN | FORWARD | place::FOREIGN),
        (8, packet::SYN | INPUT | place::FOREIGN),
        (16, packet::ANSWER | place::ARRIVED),
        (62, packet::SYN),
        (55, packet::SYN),
        (72, packet::ANSWER | place::ARRIVED),
        (5, packet::ANSWER | INPUT),
        (87, packet::SYN | place::ARRIVED | place::FOREIGN),
        (13, packet::SYN | place::ARRIVED | place::HOLDS | place::FOREIGN),
    ] {
        let said = emitted(reason, at, |_| {});
        assert!(!egress(&said), "{reason} at {at:#x}: {said:?}");
        assert!(!said.0.is_empty() && !said.1.is_empty());
    }
}

#[test]
fn an_answer_dropped_in_the_input_chain_is_to_be_accepted_there() {
    let (why, remedies) = emitted(8, packet::ANSWER | INPUT, |_| {});
    assert!(why.starts_with("192.0.2.5 answers: the answers arrive on eth1"), "{why}");
    assert!(remedies[0].contains("input chain (ct state established,related accept)"), "{remedies:?}");
}

#[test]
fn a_rule_that_drops_a_translated_syn_sees_the_address_on_the_wire_once_it_is_translated() {
    let elsewhere = packet::SYN | place::FOREIGN | place::ARRIVED;
    let pending = connect(1, 1017, 5, 0);
    let wire = Tuple { remote: v4(9), remote_port: 8443, ..pending.tuple };
    for (by, at, seen) in [
        (translated::BY_NAT, packet::SYN, "tcp/8443 to 192.0.2.9"),
        (translated::BY_PROGRAM, packet::SYN, "tcp/8443 to 192.0.2.9"),
        (translated::LATER, elsewhere | place::ROUTED, "tcp/8443 to 192.0.2.9"),
        (translated::LATER, elsewhere, "tcp/80 to 192.0.2.5"),
    ] {
        let (_, remedies) = emitted_of(Connect { translated: by, wire, ..pending }, 8, at, |_| {});
        assert!(remedies[0].contains(seen), "{by} at {at:#x}: {remedies:?}");
    }
}

#[test]
fn an_answer_dropped_by_the_reverse_path_filter_names_device_and_setting() {
    let (why, remedies) = emitted(16, packet::ANSWER | place::ARRIVED, |_| {});
    assert!(why.contains("arrived on eth1") && why.contains("rp_filter"), "{why}");
    assert!(remedies[0].contains("net.ipv4.conf.eth1.rp_filter=2"), "{remedies:?}");
}

#[test]
fn programs_are_looked_for_where_they_are_attached() {
    assert_eq!(emitted(62, packet::SYN, |_| {}).1[0], "tc -s filter show dev eth1 egress");
    assert_eq!(emitted(72, packet::ANSWER | place::ARRIVED, |_| {}).1[0], "bpftool net show dev eth1");
    assert!(emitted(55, packet::SYN, |_| {}).1[0].ends_with("bpftool cgroup tree"));
    for reason in [62, 72, 55] {
        let (_, remedies) = emitted(reason, packet::SYN, |_| {});
        assert!(remedies.iter().all(|remedy| !remedy.contains("nft")), "{remedies:?}");
    }
}

#[test]
fn a_frame_for_another_mac_is_a_neighbour_entry_out_of_date() {
    let at = packet::SYN | place::ARRIVED | place::HOLDS | place::FOREIGN;
    let (why, remedies) = emitted(13, at, |lost| {
        lost.netns = Netns::numbered(7);
        lost.frame_mac = [2, 0, 0, 0, 0, 0xaa];
        lost.device_mac = [2, 0, 0, 0, 0, 0xbb];
    });
    assert!(why.contains("MAC 02:00:00:00:00:bb") && why.contains("to 02:00:00:00:00:aa"), "{why}");
    assert_eq!(remedies[0], "ip neigh flush to 192.0.2.5");
}

#[test]
fn a_full_accept_queue_is_no_packet_filters_doing() {
    let at = packet::SYN | INPUT | place::QUEUE_FULL;
    let (why, remedies) = emitted(u32::MAX, at, |_| {});
    assert!(why.contains("accept queue is full") && why.contains("192.0.2.5:80"), "{why}");
    assert!(remedies.iter().all(|remedy| !remedy.contains("firewall") && !remedy.contains("nft")));
}

#[test]
fn an_answer_from_another_address_is_reported_as_asymmetric_translation() {
    let mut scene = Scene::with_reasons(REASONS);
    let mut stray = [0; 16];
    stray[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 2]);
    scene.dropped(500, Dropped { cookie: 1, at: place::STRAY, stray, stray_port: 80, ..Dropped::default() });
    scene.connect(3000, Record::CONNECT_PENDING, connect(1, 1017, 5, 0));
    let opened = scene.opened(Kind::ConnectStalled);
    assert!(
        opened[0].summary.contains("answered from another address (10.0.0.2:80)"),
        "{}",
        opened[0].summary
    );
    assert!(opened[0].why[0].contains("asymmetric NAT"), "{:?}", opened[0].why);
    assert_eq!(opened[0].cause.as_ref().and_then(|cause| cause.dropped_by_host), Some(0));
}

#[test]
fn a_recording_that_does_not_say_which_packet_blames_no_direction() {
    let (why, remedies) = emitted(8, packet::UNKNOWN, |_| {});
    assert!(why.contains("own kernel drops the packets"), "{why}");
    assert!(remedies[0].contains("tcp/80") && !remedies[0].contains("egress"), "{remedies:?}");
}
