//! Two machines, one address.

use super::CONFLICT;
use crate::{
    harness::{
        Lan,
        process::words,
        sockets::{begin_connect, connect, listen},
    },
    needs,
};

#[test]
fn an_address_two_hosts_announce_in_turn_is_a_conflict_that_names_both() {
    needs!();
    let lan = Lan::set("neighbour_conflict/announced_in_turn");
    let (host, one, two) = (lan.host(10), lan.host(90), lan.host(90));
    // Without this an entry stays for a second at least after each change.
    host.netns.sysctl("net/ipv4/neigh/eth0/locktime", "0");
    // Asks for the address. (Not by a connection: where both answer, the second resets what the first accepts.)
    let to = one.service(one.v4);
    host.netns.enter(move || {
        std::net::UdpSocket::bind("0.0.0.0:0")
            .and_then(|socket| socket.send_to(b"?", to))
            .expect("it is sent")
    });
    for claims in [&one, &two, &one, &two, &one] {
        let announce = format!("arping -q -c 1 -A -I eth0 {}", one.v4);
        assert!(claims.netns.spawn(words(&announce)).wait().success());
    }
    let opened = lan.opened(CONFLICT, &host.netns, one.v4);
    let mut macs: Vec<&str> = opened.json["details"]["macs"]
        .as_array()
        .expect("both")
        .iter()
        .filter_map(|mac| mac["mac"].as_str())
        .collect();
    macs.sort_unstable();
    let mut wanted = [one.mac(), two.mac()];
    wanted.sort_unstable();
    assert_eq!(macs, wanted);
    assert_eq!(opened.blame().0, "neighbour");
    // By their announcements alone they could be one machine's.
    assert_ne!(opened.text("/details/pattern"), "two_machines");
    assert!(!opened.text("/remedies/0").contains("two machines"), "{}", opened.text("/remedies/0"));
    assert!(opened.number("/details/changes") >= 3);
    lan.ends_with(&[&host], &[CONFLICT]);
}

#[test]
fn a_second_machine_whose_connections_the_first_resets_is_a_conflict_and_no_wrong_entry() {
    needs!();
    let lan = Lan::set("neighbour_conflict/connections_reset_by_other_machine");
    let (host, one, two) = (lan.host(10), lan.host(90), lan.host(90));
    // No host asks for another: only the connections show it.
    host.sets_neighbour(one.v4, &one.mac(), "permanent");
    for machine in [&one, &two] {
        machine.sets_neighbour(host.v4, &host.mac(), "permanent");
    }
    let service = host.service(host.v4);
    let _listener = listen(&host.netns, service);
    let _pending = begin_connect(&two.netns, service);
    let opened = lan.opened(CONFLICT, &host.netns, one.v4);
    assert_eq!((opened.text("/details/pattern"), opened.blame()), ("two_machines", ("neighbour", "certain")));
    let said = format!(
        "Two machines have {} on eth0 in network namespace {}: {} resets the connections to port {} that {} asks for.",
        one.v4,
        host.netns.name(),
        one.mac(),
        service.port(),
        two.mac()
    );
    assert_eq!(opened.text("/summary"), said);
    let known = lan.culprit.wait_for_incident("whose they are", |emitted| {
        emitted.id() == opened.id() && !emitted.json["details"]["macs"][0]["device"].is_null()
    });
    assert_eq!(known.text("/details/macs/0/device"), "eth0");
    lan.ends_with(&[&host], &[CONFLICT]);
}

#[test]
fn an_ipv6_address_that_keeps_moving_is_a_conflict() {
    needs!(Pace);
    let lan = Lan::set("neighbour_conflict/ipv6_address_moves_repeatedly");
    let (host, moves) = (lan.host(10), lan.host(90));
    let service = moves.service(moves.v6);
    let _listener = listen(&moves.netns, service);
    connect(&host.netns, service).0.expect("it answers");
    // Announced by unsolicited advertisements, which override.
    moves.netns.sysctl("net/ipv6/conf/eth0/ndisc_notify", "1");
    let (first, second) = (moves.mac(), "02:00:5e:10:00:66".to_owned());
    for mac in [&second, &first, &second, &first] {
        moves.netns.ip(&format!("link set eth0 address {mac}"));
        lan.culprit.wait_for("the move", |fact| {
            fact.kind() == "neighbour_changed"
                && fact.text("netns") == host.netns.name()
                && fact.text("new_mac") == *mac
        });
    }
    let opened = lan.opened(CONFLICT, &host.netns, moves.v6);
    assert_eq!(opened.text("/details/resolution"), "ndp");
    lan.ends_with(&[&host], &[CONFLICT]);
}
