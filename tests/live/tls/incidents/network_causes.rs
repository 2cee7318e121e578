//! What a server's handshake waits for on the network: every kind of cause, by real software.

use serde_json::json;

use crate::{
    harness::{
        Stage,
        dns::dnsmasq,
        port,
        sockets::{listen, listen_and_accept},
        stage::{OTHER_VOID, PATIENCE, VOID, VOID6},
    },
    needs,
};

#[test]
fn an_unanswered_fetch_inside_a_tls_1_2_handshake_is_blamed() {
    needs!(Openssl, Tun);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_unanswered_tls12");
    let pid = stage.serve_slowly(&json!(["fetch", VOID, 80, PATIENCE]));
    let client = stage.client("slow.test", "-tls1_2");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    assert_eq!((opened.task().0, opened.text("/process/comm")), (pid, "python3"));
    assert_eq!(opened.text("/details/stage"), "awaiting_server_hello");
    assert_eq!((opened.text("/details/sni"), opened.text("/cause/outcome")), ("slow.test", "pending"));
    assert_eq!(opened.number("/cause/dropped_by_host"), 0, "{:#}", opened.json);
    assert!(opened.text("/summary").contains("no answer from the network"));
    let threads = opened.json["details"]["threads"].as_array().expect("a snapshot");
    assert_eq!(threads[0]["tid"], opened.task().1);
    assert!(threads[0]["waits_on"][0].as_str().is_some_and(|what| what.starts_with("TCP ")), "{threads:?}");
    let remedies = opened.json["remedies"].to_string();
    assert!(remedies.contains(&format!("allow egress tcp/80 to {VOID}")) && remedies.contains("full chain"));
    client.wait_for_line("Verify return code");
    let resolved = stage.resolved(&opened);
    assert_eq!(resolved.text("/cause/outcome"), "aborted");
    let lasted = resolved.number("/duration_ms") as f64 / 1000.0;
    assert!(lasted >= PATIENCE && lasted < PATIENCE + crate::harness::soon_ms() / 1000.0, "{lasted}");
    stage.ends_with(1);
}

#[test]
fn an_unanswered_fetch_inside_a_tls_1_3_handshake_over_ipv6_is_blamed() {
    needs!(Openssl, Tun);
    let mut stage = Stage::set_v6("tls_handshake_stalled/fetch_unanswered_tls13_ipv6");
    stage.serve_slowly(&json!(["fetch", VOID6, 80, PATIENCE]));
    let _client = stage.client("slow.test", "-tls1_3");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID6}:80")));
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_fetch_dropped_by_this_host_is_reported_as_dropped_here() {
    needs!(Openssl, Tun, Nftables, DropReasons);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_dropped_by_own_firewall");
    stage.pair.server.drop_tcp("output", 80);
    stage.serve_slowly(&json!(["fetch", VOID, 80, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    assert!(opened.number("/cause/dropped_by_host") >= 1);
    assert_eq!(opened.text("/cause/drop_reason"), "NETFILTER_DROP");
    assert!(
        opened.json["remedies"][0].as_str().is_some_and(|text| text.contains("this host's own firewall"))
    );
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_fetch_by_a_pool_thread_is_likely_and_certain_once_it_ends() {
    needs!(Openssl, Tun);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_by_pool_thread");
    stage.serve_slowly(&json!(["executor", "fetch", VOID, 80, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "likely"), format!("{VOID}:80")));
    assert_ne!(opened.number("/cause/process/tid"), opened.task().1);
    let resolved = stage.resolved(&opened);
    // Emulated, a thread needs longer to go on than what counts as at once.
    if crate::harness::slow() <= 1.0 {
        assert_eq!(resolved.blame(), ("outbound_connect", "certain"), "{:#}", resolved.json);
    }
    stage.ends_with(1);
}

#[test]
fn a_fetch_by_a_helper_process_is_named_with_that_process() {
    needs!(Openssl, Tun);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_by_helper_process");
    let pid = stage.serve_slowly(&json!(["helper", VOID, 80, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!(opened.task().0, pid);
    // On a slow machine the helper may not be there yet when the incident opens.
    let named = stage.culprit.wait_for_incident("the helper named", |emitted| {
        emitted.id() == opened.id() && emitted.blame().0 == "outbound_connect"
    });
    assert_eq!((named.blame().1, named.blamed()), ("likely", format!("{VOID}:80")));
    assert_ne!(named.number("/cause/process/pid"), pid);
    let resolved = stage.resolved(&opened);
    // Emulated, a process needs longer to end than what counts as at once.
    if crate::harness::slow() <= 1.0 {
        assert_eq!(resolved.blame(), ("outbound_connect", "certain"), "{:#}", resolved.json);
    }
    stage.ends_with(1);
}

#[test]
fn a_dns_server_that_does_not_answer_is_blamed_with_the_name_looked_up() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/dns_unanswered");
    stage.serve_slowly(&json!(["resolve", VOID, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("dns_lookup", "certain"), format!("{VOID}:53")));
    assert_eq!(opened.text("/cause/query"), "A apps.identrust.example");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_resolver_of_the_same_host_that_waits_for_its_upstream_is_named_with_it() {
    needs!(Openssl, Tun, Dnsmasq, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/dns_unanswered_behind_local_resolver");
    stage.keep_own();
    let (local, upstream) = (stage.pair.server.loopback(), VOID.parse().expect("an address"));
    let dnsmasq = dnsmasq(&stage.pair.server, local, upstream);
    stage.serve_slowly(&json!(["resolve", local.to_string(), PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("dns_lookup", "certain"), format!("{local}:53")));
    let named = format!("dnsmasq[{}] on this host is asked and itself waits for {VOID}:53", dnsmasq.pid());
    assert!(opened.text("/summary").contains(&named), "{:#}", opened.json);
    let remedies = opened.remedies();
    assert!(remedies.contains(&format!("tcp/53 to {VOID}")), "{remedies}");
    assert!(!remedies.contains(&local.to_string()), "{remedies}");
    // What the resolver waits for is an incident of its own, which explains the handshake's.
    let behind = stage.culprit.wait_for_incident("the resolver's own", |emitted| {
        emitted.opens() && emitted.text("/kind") == "dns_unanswered" && emitted.within(&stage.pair.server)
    });
    assert_eq!((behind.text("/process/comm"), behind.blamed()), ("dnsmasq", format!("{VOID}:53")));
    let resolved = stage.resolved(&opened);
    assert_eq!(resolved.json["caused_by"], json!([behind.id()]), "{:#}", resolved.json);
    stage.ends_with(2);
}

#[test]
fn a_dns_server_that_accepts_over_tcp_and_does_not_answer_is_blamed() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/dns_unanswered_over_tcp");
    let resolver = std::net::SocketAddr::new(stage.pair.v4(1), 53);
    let _silent = listen(&stage.pair.client, resolver);
    stage.serve_slowly(&json!(["resolve_tcp", resolver.ip().to_string(), PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("dns_lookup", "certain"), resolver.to_string()));
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_peer_that_accepts_and_sends_nothing_is_blamed() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/peer_accepts_without_answer");
    let peer = std::net::SocketAddr::new(stage.pair.v4(1), 80);
    let _silent = listen(&stage.pair.client, peer);
    stage.serve_slowly(&json!(["request", peer.ip().to_string(), 80, PATIENCE]));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("peer", "certain"), peer.to_string()));
    assert!(opened.text("/summary").contains("accepted the connection and does not answer"));
    stage.resolved(&opened);
    stage.ends_with(1);
}

/// A fetch whose neighbour does not answer: the handshake's incident, the neighbour's own, and the second causes the
/// first.
fn a_silent_neighbour(mut stage: Stage, absent: std::net::IpAddr, options: &str) {
    stage.serve_slowly(&json!(["fetch", absent.to_string(), 80, PATIENCE]));
    let _client = stage.client("slow.test", options);
    let opened = stage.stalled();
    let blamed = stage.blames_neighbour(&opened);
    assert_eq!(blamed.blamed(), format!("{absent}:80"));
    assert!(blamed.text("/summary").contains("does not answer ARP or NDP on wire"), "{:#}", blamed.json);
    let resolved = stage.resolved(&opened);
    let neighbour = stage.culprit.wait_for_incident("the neighbour", |emitted| {
        emitted.about("neighbour_unresolved", &stage.pair.server, absent)
    });
    assert_eq!(resolved.json["caused_by"], json!([neighbour.id()]), "{:#}", resolved.json);
    stage.ends_with(2);
}

#[test]
fn a_neighbour_that_does_not_answer_under_the_fetch_is_blamed() {
    needs!(Openssl, Tun);
    let stage = Stage::set("tls_handshake_stalled/fetch_behind_unresolved_neighbour");
    let absent = stage.pair.v4(77);
    a_silent_neighbour(stage, absent, "");
}

#[test]
fn an_ipv6_neighbour_that_does_not_answer_under_the_fetch_is_blamed() {
    needs!(Openssl, Tun, Pace);
    let stage = Stage::set_v6("tls_handshake_stalled/fetch_behind_unresolved_neighbour_ipv6");
    let absent = stage.pair.v6(77);
    a_silent_neighbour(stage, absent, "-tls1_2");
}

#[test]
fn concurrent_fetches_from_two_servers_are_two_incidents_each_with_its_own_cause() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/two_fetches");
    let plan = json!({ "sni": {
        "slow.test": ["fetch", VOID, 80, PATIENCE], "other.test": ["fetch", OTHER_VOID, 8080, PATIENCE],
    } });
    stage.serve(&plan);
    let _clients = [stage.client("slow.test", ""), stage.client("other.test", "")];
    let blamed = |to: String| {
        stage
            .culprit
            .wait_for_incident(&to.clone(), |emitted| stage.serves(emitted) && emitted.blamed() == to)
    };
    let (one, other) = (blamed(format!("{VOID}:80")), blamed(format!("{OTHER_VOID}:8080")));
    assert_ne!(one.id(), other.id());
    assert_eq!((one.text("/details/sni"), other.text("/details/sni")), ("slow.test", "other.test"));
    for opened in [&one, &other] {
        assert_eq!(opened.blame(), ("outbound_connect", "certain"));
        stage.resolved(opened);
    }
    stage.ends_with(2);
}

#[test]
fn five_clients_behind_one_cause_are_one_incident() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/five_clients_one_fetch");
    stage.serve_slowly(&json!(["fetch", VOID, 80, PATIENCE]));
    let _clients: Vec<_> = (0..5).map(|_| stage.client("slow.test", "")).collect();
    let opened = stage.stalled();
    let resolved = stage.resolved(&opened);
    assert_eq!((resolved.number("/count"), resolved.blamed()), (5, format!("{VOID}:80")));
    stage.ends_with(1);
}

#[test]
fn healthy_connects_of_other_threads_during_a_stall_are_not_named() {
    needs!(Openssl, Tun, Pace);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_beside_healthy_connects");
    let busy = std::net::SocketAddr::new(stage.pair.v4(1), port());
    listen_and_accept(&stage.pair.client, busy);
    let background = json!(["fetch", busy.ip().to_string(), busy.port(), 1, 1000, 0.02]);
    let action = json!(["executor", "fetch", VOID, 80, PATIENCE]);
    stage.serve(&json!({ "sni": { "slow.test": action }, "background": [background, background] }));
    let _client = stage.client("slow.test", "");
    let opened = stage.stalled();
    let resolved = stage.resolved(&opened);
    for emitted in [&opened, &resolved] {
        assert_eq!(emitted.blamed(), format!("{VOID}:80"));
        assert!(!emitted.json.to_string().contains(&format!(":{}\"", busy.port())), "{:#}", emitted.json);
    }
    stage.ends_with(1);
}
