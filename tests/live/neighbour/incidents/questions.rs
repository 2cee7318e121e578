//! `--probe-neighbours`: one question to everybody on the link while an incident is open, and what answers.

use std::net::{IpAddr, SocketAddr};

use super::{STALE, UNRESOLVED};
use crate::{
    harness::{
        Culprit, Incident, Lan,
        lan::{ABSENT_MAC, Host},
        port,
        sockets::{begin_connect, connect},
    },
    needs,
};

const ASKS: &str = "culprit itself asks everybody on eth0 for";

fn evidence(incident: &Incident) -> String {
    incident.json["evidence"].to_string()
}

/// A worker whose entry is wrong on the database answers the question: that leaves no doubt.
#[track_caller]
fn stale(address: impl Fn(&Host) -> IpAddr) {
    let lan = Lan::watched_by(Culprit::trace("--probe-neighbours"));
    let (database, worker) = (lan.host(10), lan.host(90));
    let service = database.service(address(&database));
    let _server = database.serves(service);
    worker.sets_neighbour(address(&database), &database.mac(), "permanent");
    database.sets_neighbour(address(&worker), ABSENT_MAC, "permanent");
    let (_socket, _) = begin_connect(&worker.netns, service);
    let opened = lan.opened(STALE, &database.netns, address(&worker));
    let said = format!("{ASKS} {}: {} answers", address(&worker), worker.mac());
    let asked = lan.culprit.wait_for_incident("who answers", |incident| {
        incident.id() == opened.id() && evidence(incident).contains(&said)
    });
    assert_eq!(asked.blame(), ("neighbour", "certain"), "{:#}", asked.json);
}

#[test]
fn who_answers_arp_for_a_wrong_entry_is_evidence() {
    needs!();
    stale(|host| host.v4);
}

#[test]
fn who_answers_ndp_for_a_wrong_entry_is_evidence() {
    needs!();
    stale(|host| host.v6);
}

#[test]
fn an_answer_that_corrects_the_entry_is_reported_with_the_end() {
    needs!();
    let lan = Lan::watched_by(Culprit::trace("--probe-neighbours"));
    let (database, worker) = (lan.host(10), lan.host(90));
    let service = database.service(database.v4);
    let _server = database.serves(service);
    worker.sets_neighbour(database.v4, &database.mac(), "permanent");
    database.netns.sysctl("net/ipv4/neigh/eth0/locktime", "0");
    database.sets_neighbour(worker.v4, ABSENT_MAC, "reachable");
    let (_socket, _) = begin_connect(&worker.netns, service);
    let opened = lan.opened(STALE, &database.netns, worker.v4);
    let resolved = lan.resolved(&opened);
    assert!(evidence(&resolved).contains(&format!("{} answers", worker.mac())), "{:#}", resolved.json);
}

#[test]
fn that_no_answer_comes_for_an_absent_host_is_evidence() {
    needs!();
    let lan = Lan::watched_by(Culprit::trace("--probe-neighbours"));
    let (host, absent) = (lan.host(10), lan.switch.v4(77));
    connect(&host.netns, SocketAddr::new(absent, port())).0.expect_err("no host has this address");
    let opened = lan.opened(UNRESOLVED, &host.netns, absent);
    let said = format!("{ASKS} {absent}: no answer within a second");
    lan.culprit.wait_for_incident("that no answer comes", |incident| {
        incident.id() == opened.id() && evidence(incident).contains(&said)
    });
}
