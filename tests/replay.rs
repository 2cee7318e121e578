//! Every live case of an incident, replayed from its recording without root and without a kernel: the
//! same incidents, word for word. `CULPRIT_BLESS=1 cargo test -p culprit --test replay` rewrites the
//! goldens; the table below is written by hand, so that nobody blesses nonsense.
//!
//! Recordings are made by the live tests: `cargo xtask test --keep-incidents`.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use serde_json::Value;

/// A case: its directory, and of each incident in order of opening its kind, and the kind of cause and
/// the confidence it ends with.
type Case = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

const STALLED: &str = "tls_handshake_stalled";
const STALE: (&str, &str, &str) = ("neighbour_stale", "neighbour", "certain");
const BEHIND_STALE: (&str, &str, &str) = ("connect_stalled", "neighbour", "certain");
const UNRESOLVED: (&str, &str, &str) = ("neighbour_unresolved", "neighbour", "certain");
const CONFLICT: (&str, &str, &str) = ("neighbour_conflict", "neighbour", "certain");
/// Nobody answers, or this host drops what is answered.
const UNANSWERED: (&str, &str, &str) = ("connect_stalled", "outbound_connect", "certain");
const FETCH: (&str, &str, &str) = (STALLED, "outbound_connect", "certain");

const STEPPED: (&str, &str, &str) = ("clock_stepped", "clock", "certain");

const CASES: &[Case] = &[
    ("a_day_behind", &[("clock_skewed", "clock", "likely"), STEPPED]),
    ("accept_queue", &[(STALLED, "unread", "certain")]),
    ("answered_from_another_address", &[UNANSWERED]),
    ("asleep", &[(STALLED, "none_seen", "certain")]),
    ("asleep_beside_a_fetching_handshake", &[(STALLED, "none_seen", "likely"), FETCH]),
    (
        "asleep_beside_a_stuck_connect",
        &[("connect_stalled", "outbound_connect", "certain"), (STALLED, "none_seen", "likely")],
    ),
    ("asleep_in_a_unix_socket", &[(STALLED, "none_seen", "possible")]),
    ("busy_and_healthy", &[]),
    ("calm_asymmetric", &[]),
    ("calm_asymmetric_loss", &[]),
    ("calm_bridge", &[]),
    ("calm_crowd", &[]),
    ("calm_dnat", &[]),
    ("calm_failover", &[]),
    ("calm_nobody_waits", &[]),
    ("calm_proxy_arp", &[]),
    ("calm_redirect", &[]),
    ("calm_second_question", &[]),
    ("chronyd_step", &[("clock_stepped", "clock", "certain")]),
    ("clients_give_up", &[FETCH]),
    ("computing", &[(STALLED, "none_seen", "certain")]),
    ("conflict_arp", &[CONFLICT]),
    ("conflict_ndp", &[CONFLICT]),
    ("conflict_reset", &[CONFLICT]),
    ("connect_failing_refused", &[("connect_failing", "outbound_connect", "certain")]),
    ("connect_stalled", &[UNANSWERED]),
    ("crowd", &[FETCH]),
    ("date_by_hand", &[STEPPED]),
    ("deferred_accept", &[FETCH]),
    ("dns_unanswered", &[(STALLED, "dns_lookup", "certain")]),
    ("dns_unanswered_over_tcp", &[(STALLED, "dns_lookup", "certain")]),
    ("dropped_before_routing", &[UNANSWERED]),
    ("dropped_behind_a_published_port", &[UNANSWERED]),
    ("dropped_by_a_full_queue", &[UNANSWERED]),
    ("dropped_by_a_qdisc", &[UNANSWERED]),
    ("dropped_by_cgroup_egress", &[UNANSWERED]),
    ("dropped_by_cgroup_ingress", &[UNANSWERED]),
    ("dropped_by_ipsec", &[UNANSWERED]),
    ("dropped_by_reverse_path", &[UNANSWERED]),
    ("dropped_by_socket_filter", &[UNANSWERED]),
    ("dropped_for_its_signature", &[UNANSWERED]),
    ("dropped_in_another_input", &[UNANSWERED]),
    ("dropped_in_forward", &[UNANSWERED]),
    ("dropped_in_input", &[UNANSWERED]),
    ("dropped_not_forwarded", &[UNANSWERED]),
    ("dropped_tc_egress", &[UNANSWERED]),
    ("fast_open", &[FETCH]),
    ("fetch_after_the_handshake", &[UNANSWERED]),
    ("fetch_again", &[FETCH]),
    ("fetch_before_the_read", &[FETCH]),
    ("fetch_by_curl", &[FETCH]),
    ("fetch_by_executor", &[FETCH]),
    ("fetch_by_executor_lasting", &[FETCH]),
    ("fetch_by_helper", &[FETCH]),
    ("fetch_dropped_here", &[FETCH]),
    ("fetch_swallowed_tls12", &[FETCH]),
    ("fetch_swallowed_tls13_ipv6", &[FETCH]),
    ("fetch_that_used_to_work", &[FETCH]),
    ("five_clients_one_cause", &[FETCH]),
    ("forking_server", &[FETCH]),
    ("forking_server_unread", &[(STALLED, "unread", "certain")]),
    ("gateway_of_the_node", &[UNRESOLVED, ("connect_failing", "neighbour", "certain")]),
    ("healthy_background_connects", &[FETCH]),
    ("hello_to_a_plain_port", &[]),
    ("hello_to_a_plain_port_of_a_program_with_tls", &[(STALLED, "none_seen", "likely")]),
    ("hostile_device", &[UNRESOLVED]),
    ("http_date", &[("clock_skewed", "clock", "likely")]),
    ("ipv6_silent", &[UNANSWERED]),
    ("java_aia_client", &[FETCH]),
    ("kin_announces", &[]),
    ("kin_dead", &[]),
    ("kin_deaf", &[]),
    ("local_ports_used_up", &[("connect_failing", "outbound_connect", "certain")]),
    ("locked", &[(STALLED, "none_seen", "certain")]),
    ("locked_after_a_log_line", &[(STALLED, "peer", "possible")]),
    ("locked_after_a_lookup", &[(STALLED, "dns_lookup", "possible")]),
    ("locked_beside_healthy_connects", &[(STALLED, "none_seen", "certain")]),
    ("locked_beside_repeated_lookups", &[(STALLED, "dns_lookup", "possible")]),
    ("locked_beside_retried_connects", &[(STALLED, "outbound_connect", "possible")]),
    ("many_destinations", &[UNANSWERED]),
    ("neighbour_under_the_fetch", &[(STALLED, "neighbour", "certain"), UNRESOLVED]),
    ("neighbour_under_the_fetch_ipv6", &[(STALLED, "neighbour", "certain"), UNRESOLVED]),
    ("node_dns_unanswered", &[(STALLED, "dns_lookup", "likely")]),
    ("node_sni_callback", &[FETCH]),
    ("node_timer_beside_retried_connects", &[(STALLED, "outbound_connect", "possible")]),
    ("ntp_skewed", &[("clock_skewed", "clock", "certain")]),
    ("peer_silent", &[(STALLED, "peer", "certain")]),
    ("peer_stopped", &[(STALLED, "unread", "certain")]),
    ("pool_behind_a_fetch", &[FETCH]),
    ("queue_behind_a_fetch", &[FETCH]),
    ("resume_from_suspend", &[STEPPED]),
    ("rustls_client", &[FETCH]),
    ("rustls_client_certificate", &[FETCH]),
    ("rustls_server", &[FETCH]),
    ("server_stopped", &[(STALLED, "unread", "certain")]),
    ("slow_clients", &[]),
    ("stale_client", &[STALE, BEHIND_STALE, BEHIND_STALE]),
    ("stale_confirmed", &[STALE]),
    ("stale_heals", &[STALE]),
    ("stale_moved", &[STALE]),
    ("stale_permanent", &[STALE]),
    ("stale_permanent_ipv6", &[STALE]),
    ("stale_reused_address", &[STALE]),
    // Made in a VM, whose thresholds nobody else relies on.
    ("stuck_in_the_future", &[STEPPED]),
    ("table_full", &[("neighbour_table_full", "neighbour", "certain")]),
    ("thread_pool_exhausted", &[(STALLED, "unread", "certain")]),
    ("timer_beside_a_keep_alive_client", &[(STALLED, "none_seen", "likely")]),
    ("two_causes", &[FETCH, FETCH]),
    ("two_causes_by_executor", &[FETCH, FETCH]),
    ("two_setters", &[STEPPED]),
    ("unresolved_comes_back", &[UNRESOLVED, ("connect_failing", "neighbour", "certain")]),
    ("unresolved_datagram", &[UNRESOLVED]),
    ("unresolved_foreign_sender", &[("neighbour_unresolved", "neighbour", "likely")]),
    ("unresolved_forwarded", &[UNRESOLVED]),
    ("unresolved_gateway", &[UNRESOLVED]),
    ("unresolved_gateway_ipv6", &[UNRESOLVED]),
    ("unresolved_host", &[UNRESOLVED]),
    ("unresolved_host_ipv6", &[UNRESOLVED]),
    ("unresolved_macvlan", &[UNRESOLVED, UNRESOLVED]),
    ("unresolved_withdrawn", &[UNRESOLVED]),
];

fn incidents() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/incidents")
}

/// The incidents of a recording, as `culprit replay` prints them.
fn replayed(case: &str, format: &str) -> String {
    let recording = incidents().join(case).join("recording.culprit");
    let mut culprit = Command::new(env!("CARGO_BIN_EXE_culprit"));
    culprit.args(["replay", "--incidents-only", "--format", format]).arg(recording);
    let output = culprit.output().expect("the binary under test");
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn golden(case: &str, name: &str, found: &str) {
    let path = incidents().join(case).join(name);
    if std::env::var_os("CULPRIT_BLESS").is_some() {
        fs::write(&path, found).expect("the checkout is writable");
    }
    let wanted = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{case}/{name}: {error}"));
    assert!(found == wanted, "{case}/{name} is no longer what comes of the recording; it is:\n{found}");
}

#[test]
fn every_kept_case_has_its_row_and_every_row_its_recording() {
    let kept: BTreeSet<String> = fs::read_dir(incidents())
        .expect("the cases")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    let rows: BTreeSet<String> = CASES.iter().map(|(case, _)| (*case).to_owned()).collect();
    assert_eq!(kept, rows);
}

#[test]
fn every_recording_replays_to_the_incidents_that_were_seen_live() {
    for (case, expected) in CASES {
        let json = replayed(case, "json");
        let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let told: Vec<&Value> = lines.iter().filter(|line| line["type"] == "incident").collect();
        let is_first = |at: usize| told[..at].iter().all(|before| before["id"] != told[at]["id"]);
        let found: Vec<(&str, &str, &str)> = (0..told.len())
            .filter(|&at| is_first(at))
            .map(|at| {
                let last = told.iter().rfind(|line| line["id"] == told[at]["id"]).expect("itself at least");
                let text = |path: &str| last.pointer(path).and_then(Value::as_str).unwrap_or_default();
                (text("/kind"), text("/cause/kind"), text("/cause/confidence"))
            })
            .collect();
        assert_eq!(found, *expected, "{case}");
        golden(case, "expected.jsonl", &json);
        golden(case, "expected.txt", &replayed(case, "text"));
    }
}

#[test]
fn recordings_are_small_and_name_no_checkout() {
    for (case, _) in CASES {
        let recording = incidents().join(case).join("recording.culprit");
        let bytes = fs::metadata(recording).expect("kept").len();
        assert!(bytes < 100_000, "{case}: {bytes} bytes");
        let everything = Command::new(env!("CARGO_BIN_EXE_culprit"))
            .args(["replay", "--format", "json"])
            .arg(incidents().join(case).join("recording.culprit"))
            .output()
            .expect("the binary under test");
        let text = String::from_utf8_lossy(&everything.stdout).into_owned();
        assert!(!text.contains("/target/"), "{case} names a build directory");
    }
}
