//! Servers whose kernel takes the ClientHello before there is a socket for it, and those that stand behind an address
//! translation of their own host.

use std::net::SocketAddr;

use serde_json::json;

use crate::{
    harness::{
        Stage, port,
        process::words,
        stage::{PATIENCE, VOID},
    },
    needs,
    tls::handshakes::{step, story},
};

#[test]
fn a_fetch_behind_a_deferred_accept_is_blamed_on_the_thread_that_read_the_hello() {
    needs!(Openssl, Tun);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_behind_deferred_accept");
    let plan = json!({ "sni": { "slow.test": ["fetch", VOID, 80, PATIENCE] }, "defer_accept": 5 });
    let pid = stage.serve(&plan);
    let _quick: Vec<_> = (0..3).map(|_| stage.client("quick.test", "")).collect();
    let client = stage.client("slow.test", "");
    let opened = stage.stalled();
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    assert_eq!((opened.task().0, opened.text("/process/comm")), (pid, "python3"));
    assert_eq!(opened.text("/details/stage"), "awaiting_server_hello");
    assert_eq!(opened.text("/details/sni"), "slow.test");
    client.wait_for_line("Verify return code");
    stage.resolved(&opened);
    let done = stage.culprit.seen(|fact| {
        fact.kind() == "handshake_done"
            && fact.handshake("server", stage.service)
            && fact.text("sni") == "quick.test"
    });
    assert_eq!(done.len(), 3, "{done:#?}");
    stage.ends_with(1);
}

#[test]
fn a_fetch_behind_a_hello_in_the_syn_is_blamed_on_the_thread_that_read_it() {
    needs!(Openssl, Tun, Curl);
    let mut stage = Stage::set("tls_handshake_stalled/fetch_behind_fast_open");
    // Both sides, without cookies.
    stage.pair.server.sysctl("net/ipv4/tcp_fastopen", "519");
    stage.pair.client.sysctl("net/ipv4/tcp_fastopen", "519");
    let plan = json!({ "sni": { "slow.test": ["fetch", VOID, 80, PATIENCE] }, "fast_open": 16 });
    let pid = stage.serve(&plan);
    let to = format!("slow.test:{}:{}", stage.service.port(), stage.service.ip());
    let url = format!("https://slow.test:{}/", stage.service.port());
    let _client = stage.pair.client.spawn(words(&format!("curl -sk --tcp-fastopen --resolve {to} {url}")));
    let opened = stage.stalled();
    assert_eq!(stage.pair.server.counter("TcpExt", "TCPFastOpenPassive"), 1, "the hello lay in no SYN");
    assert_eq!((opened.blame(), opened.blamed()), (("outbound_connect", "certain"), format!("{VOID}:80")));
    assert_eq!((opened.task().0, opened.text("/details/sni")), (pid, "slow.test"));
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_server_behind_a_port_redirect_of_its_host_is_followed_to_the_end() {
    needs!(Openssl, Tun, Nftables);
    let mut stage = Stage::set("tls_handshake_stalled/redirected_port_without_fault");
    let asked = SocketAddr::new(stage.service.ip(), port());
    stage.pair.server.nft(&format!(
        "table ip nat {{ chain prerouting {{ type nat hook prerouting priority -100; \
         tcp dport {} redirect to :{}; }}; }}",
        asked.port(),
        stage.service.port()
    ));
    stage.serve(&json!({ "background": [["sleep", 0.1]] }));
    let client = crate::harness::tls::openssl_client_for(&stage.pair.client, asked, "quick.test", "");
    let done = step(&stage.culprit, "server", stage.service, "handshake_done");
    let sent = step(&stage.culprit, "client", asked, "handshake_done");
    assert_eq!((done.text("sni"), sent.pid()), ("quick.test", client.pid()));
    client.wait_for_line("Verify return code");
    let emitted = story(&stage.culprit, "server", stage.service);
    assert_eq!(emitted, ["client_hello", "server_hello", "handshake_done"]);
    stage.ends_with(0);
}

#[test]
fn a_client_whose_host_translates_its_connect_is_followed_under_the_requested_address() {
    needs!(Openssl, Tun, Nftables);
    let mut stage = Stage::set("tls_handshake_stalled/translated_address_without_fault");
    let asked = SocketAddr::new(std::net::Ipv4Addr::new(203, 0, 113, 99).into(), port());
    stage.pair.client.ip(&format!("route add {} dev wire", asked.ip()));
    stage.pair.client.nft(&format!(
        "table ip nat {{ chain output {{ type nat hook output priority -100; \
         ip daddr {} tcp dport {} dnat to {}; }}; }}",
        asked.ip(),
        asked.port(),
        stage.service
    ));
    stage.serve(&json!({ "background": [["sleep", 0.1]] }));
    let client = crate::harness::tls::openssl_client_for(&stage.pair.client, asked, "quick.test", "");
    let done = step(&stage.culprit, "client", asked, "handshake_done");
    assert_eq!((done.pid(), done.text("sni")), (client.pid(), "quick.test"));
    client.wait_for_line("Verify return code");
    let emitted = story(&stage.culprit, "client", asked);
    assert_eq!(emitted, ["client_hello", "server_hello", "server_flight_read", "handshake_done"]);
    stage.ends_with(0);
}
