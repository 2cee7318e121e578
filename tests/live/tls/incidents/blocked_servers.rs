//! Stalls that nothing on the network explains: what the process was doing instead, and whose hello was not read.

use std::{cell::RefCell, collections::BTreeSet};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    harness::{
        Running, Stage,
        stage::{PATIENCE, VOID},
    },
    needs,
};

/// The server does something that is no network's business; culprit says so, and what it saw.
fn nothing_on_the_network(case: &'static str, action: &serde_json::Value, seen: &str, after_ms: u64) {
    let mut stage = Stage::set(case);
    stage.serve_slowly(action);
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled_after(after_ms);
    assert_eq!((opened.blame(), opened.blamed().as_str()), (("none_seen", "certain"), ""));
    let summary = opened.text("/summary");
    assert!(
        summary.contains(seen) && summary.contains("no connect, lookup or request of the process delays it"),
        "{summary}"
    );
    let threads = opened.json["details"]["threads"].as_array().expect("a snapshot");
    assert_eq!(threads[0]["tid"], opened.task().1, "{threads:?}");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_server_that_sleeps_in_its_handshake_is_reported_as_sleeping() {
    needs!(Openssl, Tun, Pace);
    nothing_on_the_network(
        "tls_handshake_stalled/server_sleeps",
        &json!(["sleep", PATIENCE]),
        "nanosleep",
        1000,
    );
}

#[test]
fn a_server_that_waits_for_a_lock_is_reported_as_waiting_for_a_thread() {
    needs!(Openssl, Tun, Pace);
    let case = "tls_handshake_stalled/lock_wait";
    nothing_on_the_network(case, &json!(["locked", PATIENCE]), "waiting for another thread", 1000);
}

#[test]
fn a_server_that_computes_is_reported_as_running() {
    needs!(Openssl, Tun, Pace);
    nothing_on_the_network(
        "tls_handshake_stalled/server_computes",
        &json!(["spin", 2.0 * PATIENCE]),
        "running",
        3000,
    );
}

#[test]
fn an_older_pending_connect_of_another_thread_is_not_blamed() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/server_sleeps_beside_pending_connect");
    let action = json!(["sleep", PATIENCE]);
    stage.serve(&json!({ "sni": { "slow.test": action }, "background": [["fetch", VOID, 443, 30]] }));
    // Its own incident, as a connect outside any handshake, comes after three seconds.
    let stuck = stage.culprit.wait_for_incident("the stuck connect", |emitted| {
        emitted.within(&stage.pair.server) && emitted.text("/kind") == "connect_stalled"
    });
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame().0, opened.blamed().as_str()), ("none_seen", ""));
    assert!(opened.json["evidence"].to_string().contains("not blamed: thread"), "{:#}", opened.json);
    assert_eq!(stuck.blamed(), format!("{VOID}:443"));
    stage.resolved(&opened);
    stage.ends_with(2);
}

fn five_clients(stage: &Stage) -> Vec<Running> {
    (0..5).map(|_| stage.client("slow.test", "")).collect()
}

#[test]
fn hellos_a_stopped_server_does_not_read_are_one_incident_that_reports_the_stop() {
    // Emulated, five handshakes at once are a stall of their own.
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/stopped_server_five_clients");
    let pid = stage.serve(&json!({}));
    stage.actor().signal(Signal::STOP);
    let _clients = five_clients(&stage);
    let opened = stage.stalled();
    assert_eq!(
        (opened.blame(), opened.text("/details/stage")),
        (("unread", "certain"), "client_hello_unread")
    );
    assert_eq!(opened.task().0, pid);
    assert!(opened.text("/summary").contains("the process is stopped"), "{:#}", opened.json);
    assert!(opened.json["remedies"].to_string().contains(&format!("kill -CONT {pid}")));
    // A client that starts late stalls late: all of them shall have before the server goes on.
    let stalled = RefCell::new(BTreeSet::new());
    stage.culprit.wait_for("five handshakes of the server that make no progress", |fact| {
        if fact.kind() == "handshake_pending" && fact.text("role") == "server" {
            stalled.borrow_mut().insert(fact.json["peer"]["port"].as_u64());
        }
        stalled.borrow().len() == 5
    });
    stage.actor().signal(Signal::CONT);
    let resolved = stage.resolved(&opened);
    assert_eq!(resolved.number("/count"), 5, "{:#}", resolved.json);
    stage.ends_with(1);
}

#[test]
fn hellos_in_the_accept_queue_of_a_busy_server_are_reported_as_waiting_there() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/hellos_in_accept_queue");
    // Busy with its first customer, of whom it has not read a word either.
    stage.serve(&json!({ "serve": "single", "before": ["sleep", PATIENCE] }));
    let _clients = five_clients(&stage);
    let opened = stage.stalled();
    assert_eq!(opened.blame(), ("unread", "certain"));
    let emitted = stage.culprit.wait_for_incident("all five", |emitted| {
        emitted.id() == opened.id() && emitted.number("/details/waiting") >= 4
    });
    assert_eq!(emitted.text("/details/stage"), "client_hello_unread");
    stage.ends_with(1);
}

#[test]
fn hellos_accepted_by_an_exhausted_thread_pool_are_reported_as_waiting_for_a_thread() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/thread_pool_exhausted");
    stage.serve(&json!({ "serve": "pool", "before": ["sleep", PATIENCE] }));
    let _clients = five_clients(&stage);
    let opened = stage.stalled();
    assert_eq!(
        (opened.blame(), opened.text("/details/stage")),
        (("unread", "certain"), "client_hello_unread")
    );
    assert!(opened.text("/summary").contains("is accepted, and no thread is free"), "{:#}", opened.json);
    stage.ends_with(1);
}

#[test]
fn clients_that_queue_behind_a_stalled_handshake_are_part_of_its_incident() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/accept_queue_behind_fetch");
    let action = json!(["fetch", VOID, 80, PATIENCE * crate::harness::slow()]);
    stage.serve(&json!({ "serve": "single", "sni": { "slow.test": action } }));
    let _first = stage.client("slow.test", "");
    stage.culprit.wait_for("the hello read", |fact| {
        fact.kind() == "client_hello" && fact.handshake("server", stage.service)
    });
    let _others: Vec<_> = (0..5).map(|_| stage.client("fast.test", "")).collect();
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    let all = stage.culprit.wait_for_incident("all six", |emitted| {
        emitted.id() == opened.id() && emitted.number("/count") >= 4 && emitted.number("/details/unread") >= 3
    });
    assert_eq!(all.blamed(), format!("{VOID}:80"));
    stage.resolved(&opened);
    stage.ends_with(1);
}
