//! Replies that go to a MAC whose machine is gone.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{Repeated, STALE, STALLED, is_established};
use crate::{
    harness::{
        Culprit, Incident, Lan, eventually,
        lan::{ABSENT_MAC, Host},
        sockets::{begin_connect, connect, listen},
    },
    needs,
};

/// The database's entry of the worker is wrong; the worker has one of the database, so that its own requests do not
/// correct it.
#[track_caller]
fn sets_wrong_entry(database: &Host, worker: &Host, address: IpAddr, state: &str) {
    worker.sets_neighbour(database.like(address), &database.mac(), "permanent");
    database.sets_neighbour(address, ABSENT_MAC, state);
}

/// What every such incident says.
#[track_caller]
fn names_both_macs(opened: &Incident, worker: &Host, service: SocketAddr) {
    assert_eq!(opened.text("/details/cached_mac"), ABSENT_MAC);
    assert_eq!(opened.text("/details/seen_mac"), worker.mac());
    assert_eq!(opened.text("/details/device"), "eth0");
    assert_eq!(opened.json["details"]["ports"], serde_json::json!([service.port()]));
    assert_eq!(opened.blame().0, "neighbour");
    // At most two seconds after the first unanswered retransmission, which is one after the SYN.
    let most = 3000.0 * crate::harness::slow();
    assert!((opened.number("/duration_ms") as f64) < most, "{:#}", opened.json);
}

/// The worker connects; nothing comes back until the first remedy is carried out.
#[track_caller]
fn permanent_entry(case: &'static str, state: &str, address: impl Fn(&Host) -> IpAddr) {
    let lan = Lan::set(case);
    let (database, worker) = (lan.host(10), lan.host(90));
    let service = database.service(address(&database));
    let server = database.serves(service);
    sets_wrong_entry(&database, &worker, address(&worker), state);
    let (socket, _) = begin_connect(&worker.netns, service);
    let opened = lan.opened(STALE, &database.netns, address(&worker));
    names_both_macs(&opened, &worker, service);
    assert_eq!(opened.text("/details/nud_state"), state.to_uppercase());
    assert_eq!(opened.task().0, u64::from(server.pid()));
    let remedy = opened.text("/remedies/0").to_owned();
    assert_eq!(remedy, format!("ip -n {} neigh del {} dev eth0", database.netns.name(), address(&worker)));
    database.carries_out(&remedy);
    let resolved = lan.resolved(&opened);
    assert_eq!(resolved.text("/details/ended_by"), "removed");
    assert!(resolved.text("/summary").contains("removed by ip["), "{}", resolved.text("/summary"));
    is_established(&socket, service);
    lan.ends_with(&[&database], &[STALE]);
}

#[test]
fn a_permanent_wrong_entry_is_named_and_its_remedy_works() {
    needs!();
    permanent_entry("neighbour_stale/permanent_wrong_entry", "permanent", |host| host.v4);
}

#[test]
fn a_permanent_wrong_entry_of_an_ipv6_neighbour_is_named_and_its_remedy_works() {
    needs!();
    permanent_entry("neighbour_stale/permanent_wrong_entry_ipv6", "permanent", |host| host.v6);
}

#[test]
fn a_wrong_entry_from_before_the_start_is_named_as_soon_as_a_syn_comes_again() {
    needs!();
    // What watches while the outage begins sees none of it.
    let lan = Lan::watched_by(Culprit::trace("-e clock"));
    let (database, worker) = (lan.host(10), lan.host(90));
    let service = database.service(database.v4);
    let server = database.serves(service);
    sets_wrong_entry(&database, &worker, worker.v4, "permanent");
    let (socket, _) = begin_connect(&worker.netns, service);
    std::thread::sleep(Duration::from_millis(3500));
    let culprit = Culprit::trace("");
    let stalled = culprit.wait_for_incident("the worker's connect", |incident| {
        incident.text("/kind") == STALLED && incident.within(&worker.netns)
    });
    assert_eq!(stalled.json["details"]["since_before_start"], true, "{:#}", stalled.json);
    let opened = culprit.wait_for_incident("the wrong entry", |incident| {
        incident.about(STALE, &database.netns, worker.v4) && incident.opens()
    });
    assert_eq!(opened.text("/details/cached_mac"), ABSENT_MAC);
    assert_eq!(opened.text("/details/seen_mac"), worker.mac());
    assert_eq!(opened.task().0, u64::from(server.pid()));
    culprit.wait_for_incident("its cause", |incident| {
        incident.id() == stalled.id() && incident.json["caused_by"][0] == opened.id()
    });
    database.carries_out(opened.text("/remedies/0"));
    is_established(&socket, service);
}

/// Datagrams with MSG_CONFIRM confirm the entry to the kernel, whatever it is.
fn confirms(host: &Host, to: SocketAddr) -> Repeated {
    let mut socket = None;
    Repeated::every(Duration::from_millis(200), &host.netns, move || {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        let socket = socket.get_or_insert_with(|| UdpSocket::bind(any).expect("a socket"));
        let flags = rustix::net::SendFlags::CONFIRM;
        let _ = rustix::net::sendto(socket, b"still there", flags, &to);
    })
}

#[test]
fn a_wrong_entry_kept_reachable_by_confirmations_is_named() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/wrong_entry_confirmed_by_datagrams");
    let (database, worker) = (lan.host(10), lan.host(90));
    let service = database.service(database.v4);
    let _listener = listen(&database.netns, service);
    sets_wrong_entry(&database, &worker, worker.v4, "stale");
    database.netns.sysctl("net/ipv4/neigh/eth0/delay_first_probe_time", "1");
    let _confirming = confirms(&database, SocketAddr::new(worker.v4, 9));
    eventually("the confirmation", || database.entry(worker.v4).contains("REACHABLE"));
    let (socket, _) = begin_connect(&worker.netns, service);
    let opened = lan.opened(STALE, &database.netns, worker.v4);
    names_both_macs(&opened, &worker, service);
    assert_eq!(opened.text("/details/nud_state"), "REACHABLE");
    assert!(opened.text("/why/1").contains("REACHABLE"), "{:#}", opened.json);
    database.sets_neighbour(worker.v4, &worker.mac(), "reachable");
    let resolved = lan.resolved(&opened);
    assert_eq!(resolved.text("/details/ended_by"), "corrected");
    is_established(&socket, service);
    lan.ends_with(&[&database], &[STALE]);
}

#[test]
fn an_entry_the_kernel_corrects_itself_is_resolved_with_its_duration() {
    needs!();
    let lan = Lan::set("neighbour_stale/wrong_entry_corrected_by_kernel");
    let (database, worker) = (lan.host(10), lan.host(90));
    database.netns.sysctl("net/ipv4/neigh/eth0/delay_first_probe_time", "2");
    database.netns.sysctl("net/ipv4/neigh/eth0/ucast_solicit", "1");
    let service = database.service(database.v4);
    let _listener = listen(&database.netns, service);
    sets_wrong_entry(&database, &worker, worker.v4, "stale");
    let (socket, _) = begin_connect(&worker.netns, service);
    let opened = lan.opened(STALE, &database.netns, worker.v4);
    names_both_macs(&opened, &worker, service);
    let resolved = lan.resolved(&opened);
    assert_eq!(resolved.text("/details/ended_by"), "healed");
    assert!(resolved.text("/summary").contains("by the kernel itself"), "{}", resolved.text("/summary"));
    assert!(resolved.number("/duration_ms") >= 2000, "{:#}", resolved.json);
    is_established(&socket, service);
    lan.ends_with(&[&database], &[STALE]);
}

#[test]
fn a_reused_address_whose_arp_requests_are_lost_is_a_stale_entry() {
    needs!(Nftables);
    let lan = Lan::set("neighbour_stale/reused_address");
    let database = lan.host(10);
    let service = database.service(database.v4);
    let _listener = listen(&database.netns, service);
    let old = lan.host(90);
    connect(&old.netns, service).0.expect("the old worker works");
    let gone = old.mac();
    drop(old);
    let worker = lan.host(90);
    worker.sets_neighbour(database.v4, &database.mac(), "permanent");
    lan.drops_arp_and_ndp();
    let (socket, _) = begin_connect(&worker.netns, service);
    let opened = lan.opened(STALE, &database.netns, worker.v4);
    assert_eq!(
        (opened.text("/details/cached_mac"), opened.text("/details/seen_mac")),
        (gone.as_str(), worker.mac().as_str())
    );
    database.carries_out(opened.text("/remedies/0"));
    lan.forwards_arp_and_ndp();
    lan.resolved(&opened);
    is_established(&socket, service);
    lan.ends_with(&[&database], &[STALE]);
}

#[test]
fn a_stalled_connect_of_an_unheard_client_is_caused_by_the_entry() {
    needs!(Pace);
    let lan = Lan::set("neighbour_stale/unheard_client_of_stale_entry");
    let (database, worker) = (lan.host(10), lan.host(90));
    let back = worker.service(worker.v4);
    let _listener = listen(&worker.netns, back);
    sets_wrong_entry(&database, &worker, worker.v4, "permanent");
    // No process listens here: the worker's SYN shows where it is, and the refusal goes to the wrong MAC.
    let service = database.service(database.v4);
    let _own = listen(&database.netns, service);
    let (_socket, _) = begin_connect(&worker.netns, service);
    let (_pending, _) = begin_connect(&database.netns, back);
    let opened = lan.opened(STALE, &database.netns, worker.v4);
    let stalled = lan.culprit.wait_for_incident("the connect", |emitted| {
        emitted.text("/kind") == STALLED && emitted.blamed() == back.to_string()
    });
    assert_eq!(stalled.json["caused_by"], serde_json::json!([opened.id()]));
    assert_eq!(stalled.blame(), ("neighbour", "certain"));
    lan.ends_with(&[&database], &[STALE, STALLED]);
}

#[test]
fn a_peer_that_moves_under_an_open_connection_is_found_by_what_it_sends() {
    needs!();
    let lan = Lan::set("neighbour_stale/peer_moved_under_open_connection");
    let (database, worker) = (lan.host(10), lan.host(90));
    let service = database.service(database.v4);
    let listener = listen(&database.netns, service);
    worker.sets_neighbour(database.v4, &database.mac(), "permanent");
    let mut near = connect(&worker.netns, service).0.expect("it listens");
    let (mut far, _) = listener.accept().expect("it connected");
    // The machine moves, unannounced; the entry stays valid as long as datagrams confirm it.
    let _confirming = confirms(&database, SocketAddr::new(worker.v4, 9));
    worker.netns.ip("link set eth0 down");
    worker.netns.ip("link set eth0 address 02:00:5e:10:00:77");
    worker.netns.ip("link set eth0 up");
    worker.sets_neighbour(database.v4, &database.mac(), "permanent");
    far.write_all(b"is a host there?").expect("a socket buffer");
    let _says = Repeated::every(Duration::from_millis(300), &worker.netns, move || {
        let _ = near.write_all(b"still here");
    });
    let opened = lan.opened(STALE, &database.netns, worker.v4);
    assert_eq!(opened.text("/details/seen_mac"), "02:00:5e:10:00:77");
    database.carries_out(opened.text("/remedies/0"));
    lan.resolved(&opened);
    lan.ends_with(&[&database], &[STALE]);
}

#[test]
fn a_stale_entry_is_the_same_incident_in_both_modes() {
    needs!(Pace);
    let emitted = ["full", "anomalies"].map(|mode| {
        let lan = Lan::watched_by(Culprit::trace(&format!("--mode {mode}")));
        let (database, worker) = (lan.host(10), lan.host(90));
        let service = database.service(database.v4);
        let _server = database.serves(service);
        sets_wrong_entry(&database, &worker, worker.v4, "permanent");
        let (socket, _) = begin_connect(&worker.netns, service);
        let opened = lan.opened(STALE, &database.netns, worker.v4);
        names_both_macs(&opened, &worker, service);
        database.carries_out(opened.text("/remedies/0"));
        let resolved = lan.resolved(&opened);
        assert_eq!(resolved.text("/details/ended_by"), "removed", "{mode}");
        is_established(&socket, service);
        opened.json
    });
    let shape = |json: &serde_json::Value| {
        (json["cause"]["kind"].clone(), json["details"]["nud_state"].clone(), json["process"]["comm"].clone())
    };
    assert_eq!(shape(&emitted[0]), shape(&emitted[1]));
}
