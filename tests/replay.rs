//! Every live case of an incident, replayed from its recording without root and without a kernel: the
//! same incidents, word for word. A case stands below the rule it is about, also where that rule must open
//! nothing. `CULPRIT_BLESS=1 cargo test -p culprit --test replay` rewrites the goldens; the table below is
//! written by hand, so that a wrong result cannot be blessed by mistake.
//!
//! Recordings are made by the live tests: `cargo xtask test --keep-incidents`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// An incident: its kind, and the kind of cause and the confidence it ends with.
type Opened = (&'static str, &'static str, &'static str);

/// A case: its folder, and its incidents in order of opening.
type Case = (&'static str, &'static [Opened]);

const STALLED: &str = "tls_handshake_stalled";
const FAILING: &str = "tls_failing";
const STALE: Opened = ("neighbour_stale", "neighbour", "certain");
/// Of a router, or of datagrams: what does not hear this host may not for other reasons.
const STALE_LIKELY: Opened = ("neighbour_stale", "neighbour", "likely");
const BEHIND_STALE: Opened = ("connect_stalled", "neighbour", "certain");
const UNRESOLVED: Opened = ("neighbour_unresolved", "neighbour", "certain");
const CONFLICT: Opened = ("neighbour_conflict", "neighbour", "certain");
/// Another host that has an address of this one.
const ADDRESS: Opened = ("address_conflict", "neighbour", "certain");
/// No answer comes, or this host drops it by no rule.
const UNANSWERED: Opened = ("connect_stalled", "outbound_connect", "certain");
/// A rule of this host drops it.
const DROPPED: Opened = ("connect_stalled", "filter", "certain");
/// No answer comes to a lookup.
const LOOKUP: Opened = ("dns_unanswered", "dns_lookup", "certain");
const FETCH: Opened = (STALLED, "outbound_connect", "certain");
const STEPPED: Opened = ("clock_stepped", "clock", "certain");

/// The cases of each rule: those in which it opens an incident, and those in which it must not.
const CASES: &[(&str, &[Case])] = &[
    (
        "tls_handshake_stalled",
        &[
            ("accept_queue_behind_fetch", &[FETCH]),
            ("busy_server_without_fault", &[]),
            ("clients_give_up_and_return", &[FETCH]),
            ("cpu_quota_used_up", &[(STALLED, "throttled", "certain")]),
            ("daemon_accepts_nothing", &[(STALLED, "local_service", "certain")]),
            ("descriptors_used_up", &[(STALLED, "resource_limit", "certain")]),
            ("dns_unanswered", &[(STALLED, "dns_lookup", "certain")]),
            ("dns_unanswered_behind_local_resolver", &[(STALLED, "dns_lookup", "certain"), LOOKUP]),
            ("dns_unanswered_in_event_loop", &[(STALLED, "dns_lookup", "likely")]),
            ("dns_unanswered_over_tcp", &[(STALLED, "dns_lookup", "certain")]),
            ("event_loop_stopped_accepting", &[(STALLED, "listen_limit", "likely")]),
            ("fetch_before_hello_is_read", &[FETCH]),
            ("fetch_behind_deferred_accept", &[FETCH]),
            ("fetch_behind_fast_open", &[FETCH]),
            ("fetch_behind_unresolved_neighbour", &[(STALLED, "neighbour", "certain"), UNRESOLVED]),
            ("fetch_behind_unresolved_neighbour_ipv6", &[(STALLED, "neighbour", "certain"), UNRESOLVED]),
            ("fetch_beside_healthy_connects", &[FETCH]),
            ("fetch_by_curl", &[FETCH]),
            ("fetch_by_forking_server", &[FETCH]),
            ("fetch_by_helper_process", &[FETCH]),
            ("fetch_by_java_client", &[FETCH]),
            ("fetch_by_pool_thread", &[FETCH]),
            ("fetch_by_pool_thread_for_seconds", &[FETCH]),
            ("fetch_by_rustls_client", &[FETCH]),
            ("fetch_by_rustls_server", &[FETCH]),
            ("fetch_dropped_by_own_firewall", &[FETCH]),
            ("fetch_in_event_loop", &[FETCH]),
            ("fetch_no_longer_answered", &[FETCH]),
            ("fetch_stalls_twice", &[FETCH]),
            ("fetch_to_verify_client_certificate", &[FETCH]),
            ("fetch_unanswered_tls12", &[FETCH]),
            ("fetch_unanswered_tls13_ipv6", &[FETCH]),
            ("file_system_hangs", &[(STALLED, "file_system", "certain")]),
            ("five_clients_one_fetch", &[FETCH]),
            ("hello_to_plaintext_port_of_tls_program", &[(STALLED, "none_seen", "likely")]),
            ("hello_to_plaintext_port_without_fault", &[]),
            ("hello_unread_by_forked_child", &[(STALLED, "unread", "certain")]),
            ("hellos_in_accept_queue", &[(STALLED, "unread", "certain")]),
            ("lock_wait", &[(STALLED, "none_seen", "certain")]),
            ("lock_wait_after_abandoned_lookup", &[(STALLED, "dns_lookup", "possible")]),
            ("lock_wait_after_unanswered_log_line", &[(STALLED, "peer", "possible")]),
            ("lock_wait_beside_healthy_connects", &[(STALLED, "none_seen", "certain")]),
            ("lock_wait_beside_repeated_lookups", &[(STALLED, "dns_lookup", "possible"), LOOKUP]),
            ("lock_wait_beside_retried_connects", &[(STALLED, "outbound_connect", "possible")]),
            ("peer_accepts_without_answer", &[(STALLED, "peer", "certain")]),
            ("pipe_not_read", &[(STALLED, "pipe", "certain")]),
            ("redirected_port_without_fault", &[]),
            ("server_computes", &[(STALLED, "none_seen", "certain")]),
            ("server_sleeps", &[(STALLED, "none_seen", "certain")]),
            ("server_sleeps_beside_fetching_handshake", &[(STALLED, "none_seen", "likely"), FETCH]),
            ("server_sleeps_beside_pending_connect", &[UNANSWERED, (STALLED, "none_seen", "likely")]),
            ("server_waits_on_unix_socket", &[(STALLED, "none_seen", "possible")]),
            ("sixty_clients_one_fetch", &[FETCH]),
            ("slow_clients_without_fault", &[]),
            ("started_behind_accept_loop", &[(STALLED, "outbound_connect", "likely")]),
            ("started_during_fetch", &[(STALLED, "outbound_connect", "likely")]),
            ("stopped_server_five_clients", &[(STALLED, "unread", "certain")]),
            ("stopped_server_one_client", &[(STALLED, "unread", "certain")]),
            ("thread_pool_behind_fetch", &[FETCH]),
            ("thread_pool_exhausted", &[(STALLED, "unread", "certain")]),
            ("timer_beside_keep_alive_client", &[(STALLED, "none_seen", "likely")]),
            ("timer_beside_retried_connects", &[(STALLED, "outbound_connect", "possible")]),
            ("translated_address_without_fault", &[]),
            ("two_fetches", &[FETCH, FETCH]),
            ("two_fetches_by_pool_threads", &[FETCH, FETCH]),
        ],
    ),
    (
        "tls_failing",
        &[
            ("encrypted_alert", &[(FAILING, "certificate", "likely"), (FAILING, "certificate", "likely")]),
            (
                "expired_beside_faketime",
                &[(FAILING, "certificate", "certain"), (FAILING, "certificate", "certain")],
            ),
            (
                "expired_certificate_tls12",
                &[(FAILING, "certificate", "certain"), (FAILING, "certificate", "certain")],
            ),
            (
                "expired_certificate_tls13",
                &[(FAILING, "certificate", "certain"), (FAILING, "certificate", "certain")],
            ),
            ("health_check", &[(FAILING, "peer", "possible"), (FAILING, "peer", "possible")]),
            ("no_version_shared", &[(FAILING, "parameters", "certain"), (FAILING, "parameters", "certain")]),
            ("other_time_tls12", &[(FAILING, "clock", "likely"), (FAILING, "clock", "likely")]),
            ("other_time_tls13", &[(FAILING, "clock", "likely"), (FAILING, "clock", "likely")]),
            ("plain_answer", &[(FAILING, "parameters", "certain")]),
            ("scanner_without_fault", &[]),
        ],
    ),
    (
        "connect_stalled",
        &[
            ("answer_dropped_before_routing", &[DROPPED]),
            ("answer_dropped_by_ipsec_policy", &[DROPPED]),
            ("answer_dropped_by_reverse_path_filter", &[DROPPED]),
            ("answer_dropped_in_input", &[DROPPED]),
            ("answered_from_another_address", &[UNANSWERED]),
            ("fetch_after_handshake", &[UNANSWERED]),
            ("hundred_unanswered_destinations", &[DROPPED]),
            ("ipv6_unanswered_while_ipv4_answers", &[DROPPED]),
            ("no_answer_outside_handshake", &[UNANSWERED]),
            ("silent_service_of_a_confirmed_neighbour", &[UNANSWERED]),
            ("syn_dropped_behind_published_port", &[DROPPED]),
            ("syn_dropped_by_cgroup_egress", &[DROPPED]),
            ("syn_dropped_by_cgroup_ingress", &[DROPPED]),
            ("syn_dropped_by_full_accept_queue", &[("connect_stalled", "listen_limit", "certain")]),
            ("syn_dropped_by_qdisc", &[UNANSWERED]),
            ("syn_dropped_by_socket_filter", &[DROPPED]),
            ("syn_dropped_by_tc_egress", &[DROPPED]),
            ("syn_dropped_in_forward", &[DROPPED]),
            ("syn_dropped_in_input_of_other_namespace", &[DROPPED]),
            ("syn_dropped_without_forwarding", &[UNANSWERED]),
            ("syn_dropped_without_signature", &[UNANSWERED]),
            ("unicast_lost_on_the_switch", &[("connect_stalled", "neighbour", "likely")]),
        ],
    ),
    (
        "dns_unanswered",
        &[
            ("edns_dropped", &[("dns_unanswered", "dns_lookup", "likely")]),
            ("edns_lost_once_without_fault", &[]),
            ("one_name_of_many", &[("dns_unanswered", "dns_lookup", "likely")]),
            ("one_of_a_pair_lost", &[("dns_unanswered", "dns_lookup", "likely")]),
            ("second_attempt_answered_without_fault", &[]),
            ("server_answers_no_program", &[LOOKUP; 4]),
            ("server_silent", &[LOOKUP]),
            ("servfail_three_times", &[LOOKUP]),
            ("truncated_and_tcp_dropped", &[("dns_unanswered", "outbound_connect", "certain")]),
            ("upstream_of_local_resolver_silent", &[LOOKUP, ("dns_unanswered", "local_service", "certain")]),
        ],
    ),
    (
        "connect_failing",
        &[
            ("local_ports_exhausted", &[("connect_failing", "resource_limit", "certain")]),
            (
                "pod_behind_unresolved_node_gateway",
                &[UNRESOLVED, ("connect_failing", "neighbour", "certain")],
            ),
            ("refused_three_times", &[("connect_failing", "outbound_connect", "certain")]),
        ],
    ),
    (
        "connection_stalled",
        &[
            ("forgotten_by_nat", &[("connection_stalled", "path", "likely")]),
            ("path_mtu_hole", &[("connection_stalled", "path", "likely")]),
        ],
    ),
    (
        "neighbour_unresolved",
        &[
            ("absent_gateway", &[UNRESOLVED]),
            ("absent_gateway_ipv6", &[UNRESOLVED]),
            ("absent_host", &[UNRESOLVED]),
            ("absent_host_comes_back", &[UNRESOLVED, ("connect_failing", "neighbour", "certain")]),
            ("absent_host_ipv6", &[UNRESOLVED]),
            ("absent_host_of_a_container", &[UNRESOLVED]),
            ("absent_host_of_a_datagram", &[UNRESOLVED]),
            ("device_named_like_a_command", &[UNRESOLVED]),
            ("entry_removed_by_agent", &[UNRESOLVED]),
            ("gateway_ignores_foreign_sender", &[("neighbour_unresolved", "neighbour", "likely")]),
            ("macvlan_child_and_parent", &[UNRESOLVED, UNRESOLVED]),
            ("second_request_answered", &[]),
            ("two_hundred_neighbours_without_fault", &[]),
            ("unanswered_without_waiting_process", &[]),
            ("waiter_gave_up", &[UNRESOLVED]),
        ],
    ),
    (
        "neighbour_stale",
        &[
            ("announced_failover_without_fault", &[]),
            ("asymmetric_path_with_lost_syn_acks", &[]),
            ("asymmetric_path_without_fault", &[]),
            ("bridge_with_many_addresses_without_fault", &[]),
            ("gateway_failed_over", &[STALE_LIKELY, BEHIND_STALE]),
            ("gateway_failed_over_static", &[STALE_LIKELY, BEHIND_STALE]),
            ("overlay_entry_of_a_replaced_node", &[STALE_LIKELY]),
            ("peer_moved_under_open_connection", &[STALE]),
            ("peer_with_two_macs_dies", &[]),
            ("peer_with_two_macs_stops_listening", &[]),
            ("permanent_wrong_entry", &[STALE]),
            ("permanent_wrong_entry_ipv6", &[STALE]),
            ("permanent_wrong_entry_of_datagrams", &[STALE_LIKELY]),
            ("proxy_arp_without_fault", &[]),
            ("reused_address", &[STALE]),
            ("unheard_client_of_stale_entry", &[STALE, BEHIND_STALE, BEHIND_STALE]),
            ("wrong_entry_confirmed_by_datagrams", &[STALE]),
            ("wrong_entry_corrected_by_kernel", &[STALE]),
        ],
    ),
    (
        "neighbour_conflict",
        &[
            ("announced_in_turn", &[CONFLICT]),
            ("announced_in_turn_by_one_machine", &[]),
            ("connections_reset_by_other_machine", &[CONFLICT]),
            ("ipv6_address_moves_repeatedly", &[CONFLICT]),
        ],
    ),
    (
        "listen_queue_full",
        &[("service_does_not_accept", &[("listen_queue_full", "listen_limit", "certain")])],
    ),
    ("response_overdue", &[("server_answers_late", &[("response_overdue", "peer", "likely")])]),
    (
        "address_conflict",
        &[
            ("advertised_by_other_host", &[ADDRESS]),
            ("announced_by_other_host", &[ADDRESS]),
            ("duplicate_address_detected", &[ADDRESS]),
            ("own_devices_and_questions", &[ADDRESS]),
        ],
    ),
    ("neighbour_table_full", &[("bound_reached", &[("neighbour_table_full", "neighbour", "certain")])]),
    (
        "clock_stepped",
        &[
            ("months_ahead_and_set_right", &[STEPPED]),
            ("resumed_from_suspend", &[STEPPED]),
            ("set_by_chronyd", &[("clock_stepped", "clock", "certain")]),
            ("set_by_date", &[STEPPED]),
            ("set_by_two_programs_in_turn", &[STEPPED]),
        ],
    ),
    (
        "clock_skewed",
        &[
            ("a_day_behind_by_http", &[("clock_skewed", "clock", "likely")]),
            ("ahead_by_ntp", &[("clock_skewed", "clock", "certain")]),
            ("paused_for_a_day", &[("clock_skewed", "clock", "likely"), STEPPED]),
        ],
    ),
];

/// Every case with its folder below `incidents()`.
fn cases() -> impl Iterator<Item = (String, &'static [Opened])> {
    let named = |(rule, cases): &(&str, &'static [Case])| {
        let rule = (*rule).to_owned();
        cases.iter().map(move |(case, expected)| (format!("{rule}/{case}"), *expected))
    };
    CASES.iter().flat_map(named)
}

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

fn folders(path: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
}

#[test]
fn every_kept_case_has_its_row_and_every_row_its_recording() {
    let kept: BTreeSet<String> = folders(&incidents())
        .flat_map(|rule| {
            let cases: Vec<_> = folders(&incidents().join(&rule)).collect();
            cases.into_iter().map(move |case| format!("{rule}/{case}"))
        })
        .collect();
    let rows: Vec<String> = cases().map(|(case, _)| case).collect();
    assert_eq!(kept, rows.iter().cloned().collect());
    assert_eq!(kept.len(), rows.len(), "a row stands twice");
    for (case, expected) in cases() {
        let path = incidents().join(&case).join("recording.culprit");
        assert!(path.is_file(), "{case} has no recording");
        let is_about = |rule: &str| expected.is_empty() || expected.iter().any(|(kind, ..)| *kind == rule);
        let (rule, _) = case.split_once('/').expect("a rule and a case");
        assert!(is_about(rule), "{case} opens no incident of the rule it stands below");
    }
}

#[test]
fn every_recording_replays_to_the_incidents_that_were_seen_live() {
    for (case, expected) in cases() {
        let case = &case;
        let json = replayed(case, "json");
        let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let emitted: Vec<&Value> = lines.iter().filter(|line| line["type"] == "incident").collect();
        let is_first = |at: usize| emitted[..at].iter().all(|before| before["id"] != emitted[at]["id"]);
        let found: Vec<(&str, &str, &str)> = (0..emitted.len())
            .filter(|&at| is_first(at))
            .map(|at| {
                let last =
                    emitted.iter().rfind(|line| line["id"] == emitted[at]["id"]).expect("itself at least");
                let text = |path: &str| last.pointer(path).and_then(Value::as_str).unwrap_or_default();
                (text("/kind"), text("/cause/kind"), text("/cause/confidence"))
            })
            .collect();
        assert_eq!(found, expected, "{case}");
        golden(case, "expected.jsonl", &json);
        golden(case, "expected.txt", &replayed(case, "text"));
    }
}

#[test]
fn recordings_are_small_and_name_no_checkout() {
    for (case, _) in cases() {
        let recording = incidents().join(&case).join("recording.culprit");
        let bytes = fs::metadata(recording).expect("kept").len();
        assert!(bytes < 100_000, "{case}: {bytes} bytes");
        let everything = Command::new(env!("CARGO_BIN_EXE_culprit"))
            .args(["replay", "--format", "json"])
            .arg(incidents().join(&case).join("recording.culprit"))
            .output()
            .expect("the binary under test");
        let text = String::from_utf8_lossy(&everything.stdout).into_owned();
        assert!(!text.contains("/target/"), "{case} names a build directory");
    }
}
