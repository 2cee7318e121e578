//! Connects over TCP, and what becomes of them.

use std::net::SocketAddr;

use crate::{
    harness::{
        Culprit, Fact, Netns,
        netns::Pair,
        port,
        process::words,
        sockets::{begin_connect, connect, listen, listen_on_loopback},
        soon_ms,
    },
    needs,
};

/// The end of a connect, with the plausibility every end must have.
#[track_caller]
pub(crate) fn end_of(culprit: &Culprit, to: SocketAddr) -> Fact {
    let end = culprit.wait_for("the connect's end", |fact| fact.is_to("connect_ended", to));
    assert_eq!((end.text("type"), end.text("probe")), ("event", "connect"));
    assert!(end.number("duration_ms") >= 0.0, "{end:?}");
    end
}

#[test]
fn an_accepted_connect_is_reported_with_its_thread_and_both_endpoints() {
    needs!();
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let (stream, task) = connect(&netns, to);
    let from = stream.expect("something listens").local_addr().expect("connected");
    let start = culprit.wait_for("its beginning", |fact| fact.is_to("connect_started", to));
    let end = end_of(&culprit, to);
    assert!(start.index < end.index);
    assert_eq!((start.task(), end.task()), (task, task));
    assert_eq!((end.comm(), end.within(&netns)), ("inside", true));
    assert_eq!((end.text("outcome"), &end.json["errno"]), ("established", &serde_json::Value::Null));
    assert_eq!(end.at("source"), Some(from));
    assert!(end.number("duration_ms") < soon_ms(), "{end:?}");
    let exe = std::env::current_exe().expect("known");
    assert_eq!(end.owner("exe").as_str(), exe.to_str());
}

#[test]
fn a_dropped_syn_is_seen_pending_with_its_owner_before_the_application_gives_up() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    pair.server.drop_tcp("input", to.port());
    let culprit = Culprit::trace("");
    let shell = pair.client.spawn({
        let mut bash = words("bash -c");
        bash.arg(format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port()));
        bash
    });
    let pid = shell.pid();
    let pending = culprit.wait_for("a pending connect", |fact| fact.is_to("connect_pending", to));
    assert_eq!((pending.task(), pending.comm()), ((pid, pid), "bash"));
    assert!(pending.number("syn_retransmits") >= 1.0, "{pending:?}");
    assert!(pending.number("elapsed_ms") >= 3000.0, "{pending:?}");
    let retry = culprit.wait_for("the retry itself", |fact| fact.is_to("syn_retransmitted", to));
    assert!((900.0..3000.0 + soon_ms()).contains(&retry.number("elapsed_ms")), "{retry:?}");
    drop(shell);
    let end = end_of(&culprit, to);
    assert!(retry.index < pending.index && pending.index < end.index);
    assert_eq!((end.pid(), end.text("outcome")), (pid, "aborted"));
    assert!(end.number("syn_retransmits") >= 1.0 && end.number("duration_ms") >= 3000.0, "{end:?}");
}

#[test]
fn a_refused_connect_names_the_error_and_took_no_time() {
    needs!();
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    let (refused, task) = connect(&netns, to);
    refused.expect_err("nothing listens");
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome"), end.text("errno")), (task, "refused", "ECONNREFUSED"));
    assert!(end.number("duration_ms") < soon_ms(), "{end:?}");
    assert_ne!(end.at("source").expect("it had an end").port(), 0, "{end:?}");
}

#[test]
fn a_connect_refused_by_another_host_is_reported_the_same_way() {
    needs!();
    let pair = Pair::make();
    let to = pair.service(port());
    let culprit = Culprit::trace("");
    let (refused, task) = connect(&pair.client, to);
    refused.expect_err("nothing listens");
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome"), end.text("errno")), (task, "refused", "ECONNREFUSED"));
    assert_eq!(end.at("source").expect("it had an end").ip(), pair.v4(1));
}

#[test]
fn a_network_without_a_route_is_reported_although_no_packet_was_sent() {
    needs!();
    let netns = Netns::make();
    let to: SocketAddr = format!("198.51.100.7:{}", port()).parse().expect("an address");
    let culprit = Culprit::trace("");
    let (failed, task) = connect(&netns, to);
    assert_eq!(failed.expect_err("no route").kind(), std::io::ErrorKind::NetworkUnreachable);
    let end = end_of(&culprit, to);
    assert_eq!(
        (end.task(), end.text("outcome"), end.text("errno")),
        (task, "net_unreachable", "ENETUNREACH")
    );
    assert!(end.within(&netns) && end.number("duration_ms") < soon_ms(), "{end:?}");
    assert_eq!(culprit.seen(|fact| fact.is_to("connect_started", to)).len(), 0);
}

#[test]
fn a_host_that_does_not_answer_arp_is_unreachable() {
    needs!();
    let pair = Pair::make();
    let to = SocketAddr::new(pair.v4(99), port());
    let culprit = Culprit::trace("");
    let (failed, task) = connect(&pair.client, to);
    assert_eq!(failed.expect_err("no such host").kind(), std::io::ErrorKind::HostUnreachable);
    let end = end_of(&culprit, to);
    assert_eq!(
        (end.task(), end.text("outcome"), end.text("errno")),
        (task, "host_unreachable", "EHOSTUNREACH")
    );
    // Three solicitations, one a second.
    assert!(end.number("duration_ms") >= 1000.0, "{end:?}");
}

#[test]
fn closing_a_socket_while_its_connect_is_pending_aborts_it() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    pair.server.drop_tcp("input", to.port());
    let culprit = Culprit::trace("");
    let (socket, task) = begin_connect(&pair.client, to);
    culprit.wait_for("its beginning", |fact| fact.is_to("connect_started", to));
    drop(socket);
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome")), (task, "aborted"));
    assert!(end.number("duration_ms") < soon_ms(), "{end:?}");
}

#[test]
fn an_unanswered_connect_times_out_after_its_retries() {
    needs!(Nftables);
    let pair = Pair::make();
    let to = pair.service(port());
    pair.server.drop_tcp("input", to.port());
    pair.client.sysctl("net/ipv4/tcp_syn_retries", "1");
    let culprit = Culprit::trace("");
    let (failed, task) = connect(&pair.client, to);
    assert_eq!(failed.expect_err("no answer comes").kind(), std::io::ErrorKind::TimedOut);
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome"), end.text("errno")), (task, "timed_out", "ETIMEDOUT"));
    // How many that sysctl means differs between kernels: the namespace's own counter is the judge.
    let retries = pair.client.counter("TcpExt", "TCPSynRetrans");
    assert!(retries >= 1);
    assert_eq!(end.number("syn_retransmits"), retries as f64);
    assert!(end.number("duration_ms") >= 1900.0, "{end:?}");
}

#[test]
fn a_syn_dropped_by_the_hosts_own_output_rule_is_blamed_on_netfilter() {
    needs!(Nftables, DropReasons);
    let pair = Pair::make();
    let to = pair.service(port());
    pair.client.drop_tcp("output", to.port());
    let culprit = Culprit::trace("");
    let (_socket, task) = begin_connect(&pair.client, to);
    let dropped = culprit.wait_for("the drop", |fact| fact.is_to("connect_dropped", to));
    assert_eq!((dropped.task(), dropped.text("reason")), (task, "NETFILTER_DROP"));
    assert_eq!(dropped.number("drops"), 1.0);
    assert!(dropped.number("elapsed_ms") < soon_ms(), "{dropped:?}");
}

#[test]
fn a_syn_dropped_by_an_input_rule_of_the_same_machine_is_found_by_its_addresses() {
    needs!(Nftables, DropReasons);
    let pair = Pair::make();
    let to = pair.service(port());
    pair.server.drop_tcp("input", to.port());
    let culprit = Culprit::trace("");
    let (_socket, task) = begin_connect(&pair.client, to);
    let dropped = culprit.wait_for("the drop", |fact| fact.is_to("connect_dropped", to));
    assert_eq!((dropped.task(), dropped.text("reason")), (task, "NETFILTER_DROP"));
}

#[test]
fn a_v4_mapped_address_is_shown_as_the_ipv4_address_on_the_wire() {
    needs!();
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("");
    let task = netns.enter(move || {
        let SocketAddr::V4(v4) = to else { unreachable!("loopback is IPv4") };
        let mapped = SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port());
        std::net::TcpStream::connect(mapped).expect("an AF_INET6 socket reaches it");
        crate::harness::sockets::me()
    });
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome")), (task, "established"));
    assert!(end.at("source").expect("it had an end").is_ipv4());
}

#[test]
fn ipv6_is_reported_like_ipv4() {
    needs!();
    let pair = Pair::make();
    let to = SocketAddr::new(pair.v6(2), port());
    let listener = listen(&pair.server, SocketAddr::new("::".parse().expect("any"), to.port()));
    let culprit = Culprit::trace("");
    let (stream, task) = connect(&pair.client, to);
    stream.expect("something listens");
    let end = end_of(&culprit, to);
    assert_eq!((end.task(), end.text("outcome")), (task, "established"));
    assert_eq!(end.at("source").expect("it had an end").ip(), pair.v6(1));
    // Not where the listener was: a program that is just starting may still hold a copy of it.
    let closed = SocketAddr::new(pair.v6(2), port());
    let (refused, task) = connect(&pair.client, closed);
    refused.expect_err("nothing listens there");
    let end = end_of(&culprit, closed);
    drop(listener);
    assert_eq!((end.task(), end.text("errno")), (task, "ECONNREFUSED"));
}
