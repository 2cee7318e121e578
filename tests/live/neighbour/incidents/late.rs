//! culprit started five seconds into an outage of a neighbour: the same incident, soon after the start.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use super::{Repeated, STALE, UNRESOLVED};
use crate::{
    harness::{Culprit, Incident, Lan, Netns, lan::ABSENT_MAC, port, slow},
    needs,
};

/// How long an outage lasts before culprit comes.
const LASTS: Duration = Duration::from_secs(5);
/// An incident is open this soon after the start.
const SOON: Duration = Duration::from_secs(2);
/// One that takes packets which are sent again: each a second after it was sent.
const SENT_AGAIN: Duration = Duration::from_secs(4);

/// Programs that go on connecting, each for a while.
fn connects(from: &Netns, to: SocketAddr, patience: Duration) -> [Repeated; 2] {
    [150, 400].map(|every| {
        Repeated::every(Duration::from_millis(every), from, move || {
            let _ = TcpStream::connect_timeout(&to, patience);
        })
    })
}

/// The incident, as culprit opens it when it is started now.
#[track_caller]
fn opens_within(soon: Duration, kind: &str, netns: &Netns, address: IpAddr) -> (Culprit, Incident) {
    let culprit = Culprit::trace("");
    let began = Instant::now();
    let opened =
        culprit.wait_for_incident(kind, |incident| incident.about(kind, netns, address) && incident.opens());
    let took = began.elapsed();
    assert!(took < soon.mul_f64(slow()), "{kind} after {took:?}");
    (culprit, opened)
}

#[test]
fn a_host_that_has_not_answered_for_a_while_is_named_soon_after_the_start() {
    needs!();
    let lan = Lan::watched_by(Culprit::trace("-e clock"));
    let (host, absent) = (lan.host(10), lan.switch.v4(77));
    let _connects = connects(&host.netns, SocketAddr::new(absent, port()), Duration::from_secs(10));
    std::thread::sleep(LASTS);
    let (_culprit, opened) = opens_within(SOON, UNRESOLVED, &host.netns, absent);
    assert_eq!(opened.task().0, u64::from(std::process::id()), "{:#}", opened.json);
    assert_eq!(opened.blame(), ("neighbour", "certain"));
}

#[test]
fn a_gateway_that_has_not_answered_for_a_while_is_named_soon_after_the_start() {
    needs!();
    let lan = Lan::watched_by(Culprit::trace("-e clock"));
    let host = lan.host(10);
    let gateway = lan.switch.v4(1);
    host.netns.ip(&format!("route add default via {gateway} dev eth0"));
    let beyond = SocketAddr::new("192.0.2.64".parse().expect("an address"), port());
    let _connects = connects(&host.netns, beyond, Duration::from_secs(10));
    std::thread::sleep(LASTS);
    let (_culprit, opened) = opens_within(SOON, UNRESOLVED, &host.netns, gateway);
    assert_eq!(opened.json["details"]["is_gateway"], true, "{:#}", opened.json);
    assert_eq!(opened.json["details"]["waiters"][0]["destination"]["ip"], "192.0.2.64");
}

#[test]
fn a_wrong_entry_of_a_while_is_named_soon_after_the_start() {
    needs!();
    let lan = Lan::watched_by(Culprit::trace("-e clock"));
    let (database, worker) = (lan.host(10), lan.host(90));
    let service = database.service(database.v4);
    let _server = database.serves(service);
    worker.sets_neighbour(database.v4, &database.mac(), "permanent");
    database.sets_neighbour(worker.v4, ABSENT_MAC, "permanent");
    let _connects = connects(&worker.netns, service, Duration::from_millis(1500));
    std::thread::sleep(LASTS);
    let (_culprit, opened) = opens_within(SENT_AGAIN, STALE, &database.netns, worker.v4);
    assert_eq!(opened.text("/details/cached_mac"), ABSENT_MAC);
    assert_eq!(opened.text("/details/seen_mac"), worker.mac());
}
