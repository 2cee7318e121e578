//! Activity of the same process that is unrelated to the stall: connects, lookups and connections that fail or wait for
//! reasons of their own while a handshake waits for something else. None of them may be a certain cause.
//!
//! The two differ by when things happen: not under emulation, where everything takes its time.

use std::{net::SocketAddr, process::Command};

use serde_json::{Value, json};

use crate::{
    harness::{
        Incident, Stage, port,
        sockets::{listen, listen_and_accept},
        stage::{OTHER_VOID, PATIENCE, VOID},
    },
    needs,
};

/// Nine threads that do the same again and again, a tenth of a second apart: whenever a handshake begins,
/// one of them begins with it, and whenever it goes on, one of them has just ended.
fn staggered(action: &Value) -> Vec<Value> {
    (0..9).map(|number| json!(["again", f64::from(number) * 0.1, 60, action])).collect()
}

/// A client connects once the unrelated activity has gone on for a while; every incident about its handshake.
#[track_caller]
fn stall_beside(stage: &mut Stage, decoy: impl Fn(&crate::harness::Fact) -> bool) -> Vec<Incident> {
    // The first of its kind has come to its end, and its repetition has begun.
    stage.culprit.wait_for("the decoys", decoy);
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    stage.resolved(&opened);
    stage.culprit.incidents(|emitted| emitted.id() == opened.id())
}

/// No cause is named but as a possibility.
#[track_caller]
fn at_most_possible(emitted: &[Incident]) {
    for line in emitted {
        let (kind, confidence) = line.blame();
        assert!(kind == "none_seen" || confidence == "possible", "{kind} {confidence}: {:#}", line.json);
    }
}

#[test]
fn connects_that_other_threads_keep_retrying_are_at_most_possible() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/lock_wait_beside_retried_connects");
    let background = staggered(&json!(["fetch", VOID, 6379, 0.9]));
    stage.serve(&json!({ "sni": { "slow.test": ["locked", 1.6] }, "background": background }));
    let gone: SocketAddr = format!("{VOID}:6379").parse().expect("an address");
    let emitted = stall_beside(&mut stage, |fact| fact.is_to("connect_ended", gone));
    at_most_possible(&emitted);
    stage.ends_with(1);
}

#[test]
fn lookups_that_other_threads_keep_repeating_are_at_most_possible() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/lock_wait_beside_repeated_lookups");
    let background = staggered(&json!(["resolve", VOID, 0.9]));
    stage.serve(&json!({ "sni": { "slow.test": ["locked", 1.6] }, "background": background }));
    let server: SocketAddr = format!("{VOID}:53").parse().expect("an address");
    let asked = std::cell::Cell::new(0);
    let emitted = stall_beside(&mut stage, |fact| {
        asked.set(asked.get() + u32::from(fact.kind() == "dns_query" && fact.at("server") == Some(server)));
        asked.get() > 9
    });
    at_most_possible(&emitted);
    // That no lookup is ever answered is an incident of its own.
    stage.culprit.wait_for_incident("the lookups' own", |emitted| {
        emitted.opens() && emitted.within(&stage.pair.server) && emitted.text("/kind") == "dns_unanswered"
    });
    stage.ends_with(2);
}

#[test]
fn connects_an_event_loop_keeps_retrying_are_at_most_possible() {
    needs!(Openssl, Tun, Node, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/timer_beside_retried_connects");
    let mut node = Command::new("node");
    node.arg(stage.program("tls_reconnect.js"))
        .arg(stage.service.ip().to_string())
        .arg(stage.service.port().to_string())
        .args([stage.identity.cert(), stage.identity.key()])
        .args(["slow.test", "timer", VOID, "1600"]);
    stage.act(node);
    let gone: SocketAddr = format!("{VOID}:6379").parse().expect("an address");
    let emitted = stall_beside(&mut stage, |fact| fact.is_to("connect_ended", gone));
    at_most_possible(&emitted);
    stage.ends_with(1);
}

#[test]
fn healthy_connects_beside_a_stall_of_another_kind_are_not_named() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/lock_wait_beside_healthy_connects");
    let busy = SocketAddr::new(stage.pair.v4(1), port());
    listen_and_accept(&stage.pair.client, busy);
    let background = json!(["fetch", busy.ip().to_string(), busy.port(), 1, 500, 0.05]);
    let action = json!(["locked", PATIENCE]);
    stage.serve(&json!({ "sni": { "slow.test": action }, "background": [background] }));
    let emitted = stall_beside(&mut stage, |fact| fact.is_to("connect_ended", busy));
    for line in &emitted {
        assert_eq!((line.blame(), line.blamed().as_str()), (("none_seen", "certain"), ""));
        assert!(!line.json.to_string().contains(&format!(":{}\"", busy.port())), "{:#}", line.json);
    }
    stage.ends_with(1);
}

#[test]
fn an_unanswered_log_line_is_not_what_a_handshake_waits_for() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/lock_wait_after_unanswered_log_line");
    let collector = SocketAddr::new(stage.pair.v4(1), port());
    let _silent = listen(&stage.pair.client, collector);
    let log = json!(["log", collector.ip().to_string(), collector.port()]);
    // The connection is there before; the line is sent by another thread, inside the handshake.
    let action = json!(["both", ["executor", log[0], log[1], log[2]], ["locked", PATIENCE]]);
    stage.serve(&json!({ "sni": { "slow.test": action }, "background": [log] }));
    let emitted = stall_beside(&mut stage, |fact| fact.is_to("connect_ended", collector));
    at_most_possible(&emitted);
    stage.ends_with(1);
}

#[test]
fn an_abandoned_lookup_is_not_what_a_handshake_waits_for() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/lock_wait_after_abandoned_lookup");
    // As with a name server that is gone and another that answers: a short wait, and then a long one.
    let action = json!(["both", ["resolve", VOID, 0.2], ["locked", PATIENCE]]);
    stage.serve_slowly(&action);
    let server: SocketAddr = format!("{VOID}:53").parse().expect("an address");
    let client = stage.client("slow.test", "");
    let emitted =
        stall_beside(&mut stage, |fact| fact.kind() == "dns_query" && fact.at("server") == Some(server));
    drop(client);
    at_most_possible(&emitted);
    stage.ends_with(1);
}

#[test]
fn the_cause_of_one_stalled_handshake_is_not_given_to_another() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/server_sleeps_beside_fetching_handshake");
    let plan = json!({ "sni": {
        "slow.test": ["sleep", PATIENCE], "other.test": ["executor", "fetch", VOID, 80, PATIENCE],
    } });
    stage.serve(&plan);
    let _sleeper = stage.client("slow.test", "");
    stage.culprit.wait_for("the first hello read", |fact| {
        fact.kind() == "client_hello" && fact.handshake("server", stage.service)
    });
    let _fetcher = stage.client("other.test", "");
    let opened = stage.stalled();
    // The other's fetch was set aside, and said to be.
    assert_eq!((opened.text("/details/sni"), opened.blame()), ("slow.test", ("none_seen", "likely")));
    let other = stage.culprit.wait_for_incident("the other's own", |emitted| {
        stage.serves(emitted) && emitted.blamed() == format!("{VOID}:80")
    });
    assert_eq!(other.text("/details/sni"), "other.test");
    for opened in [&opened, &other] {
        let resolved = stage.resolved(opened);
        assert_eq!(resolved.blamed(), opened.blamed());
    }
    stage.ends_with(2);
}

#[test]
fn concurrent_fetches_by_pool_threads_are_two_incidents() {
    needs!(Openssl, Tun, MeasuredTime, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/two_fetches_by_pool_threads");
    let plan = json!({ "sni": {
        "slow.test": ["executor", "fetch", VOID, 80, PATIENCE],
        "other.test": ["executor", "fetch", OTHER_VOID, 8080, PATIENCE + 0.3],
    } });
    stage.serve(&plan);
    let _clients = [stage.client("slow.test", ""), stage.client("other.test", "")];
    for (name, to) in [("slow.test", format!("{VOID}:80")), ("other.test", format!("{OTHER_VOID}:8080"))] {
        let opened = stage
            .culprit
            .wait_for_incident(name, |emitted| stage.serves(emitted) && emitted.text("/details/sni") == name);
        // When both hellos were read before both fetches began, nothing shows which is whose.
        let sure = opened.blame() == ("outbound_connect", "likely") && opened.blamed() == to;
        assert!(sure || opened.blame() == ("outbound_connect", "possible"), "{:#}", opened.json);
        let resolved = stage.resolved(&opened);
        assert_eq!((resolved.blame(), resolved.blamed()), (("outbound_connect", "certain"), to));
    }
    stage.ends_with(2);
}
