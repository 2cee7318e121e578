//! What the filters select, and what they exclude.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{
    connect::outcomes::end_of,
    harness::{
        Culprit, Incident, Netns, Running, dns,
        netns::Pair,
        port,
        process::words,
        sockets::{begin_connect, connect, listen, listen_on_loopback},
    },
    needs,
};

/// A server that forks for each line it reads: the child connects to the port the line names.
fn forking_server(netns: &Netns) -> Running {
    let mut bash = words("bash -c");
    bash.arg("while read -r to; do (exec 3<>/dev/tcp/$to; echo $BASHPID); done");
    netns.spawn(bash)
}

#[test]
fn a_process_is_followed_with_the_children_it_forks_and_no_other_process() {
    needs!();
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let mut server = forking_server(&netns);
    let culprit = Culprit::trace(&format!("-p {}", server.pid()));
    connect(&netns, to).0.expect("it listens");
    let mut children = Vec::new();
    for _ in 0..2 {
        server.say(&format!("{}/{}\n", to.ip(), to.port()));
        let line =
            server.next_line(crate::harness::deadline()).expect("in time").expect("the child's number");
        children.push(line.parse::<u32>().expect("a process id"));
    }
    let ended =
        |pid: u32| move |fact: &crate::harness::Fact| fact.is_to("connect_ended", to) && fact.pid() == pid;
    for &child in &children {
        assert_eq!(culprit.wait_for("the child's connect", ended(child)).comm(), "bash");
        assert_ne!(child, server.pid());
    }
    let strangers = culprit.seen(|fact| !children.contains(&fact.pid()));
    assert_eq!(strangers.len(), 0, "{strangers:#?}");
}

#[test]
fn a_child_that_existed_before_is_followed_too() {
    needs!();
    let netns = Netns::make();
    let (_listener, to) = listen_on_loopback(&netns);
    let mut parent = netns.spawn({
        let mut bash = words("bash -c");
        bash.arg(format!(
            "(echo $BASHPID; read -r; exec 3<>/dev/tcp/{}/{}; read -r); true",
            to.ip(),
            to.port()
        ));
        bash
    });
    let child = parent.next_line(crate::harness::deadline()).expect("in time").expect("the child's number");
    let culprit = Culprit::trace(&format!("-p {}", parent.pid()));
    parent.say("\n");
    assert_eq!(end_of(&culprit, to).pid(), child.parse::<u32>().expect("a process id"));
}

#[test]
fn only_the_requested_ports_are_reported() {
    needs!(Pace);
    let netns = Netns::make();
    let [first, second, other] = [port(), port(), port()].map(|port| SocketAddr::new(netns.loopback(), port));
    let culprit = Culprit::trace(&format!("--port {} --port {}", first.port(), second.port()));
    for to in [other, first, second] {
        connect(&netns, to).0.expect_err("nothing listens");
    }
    end_of(&culprit, first);
    end_of(&culprit, second);
    // Elsewhere clocks are set and names looked up, which is emitted whatever the port.
    let others = culprit
        .seen(|fact| fact.within(&netns) && ![Some(first), Some(second)].contains(&fact.at("destination")));
    assert_eq!(others.len(), 0, "{others:#?}");
}

#[test]
fn only_the_requested_networks_are_reported() {
    needs!(Pace);
    let netns = Netns::make();
    let IpAddr::V4(inside) = netns.loopback() else { unreachable!("loopback is IPv4") };
    let [a, b, c, _] = inside.octets();
    let outside = SocketAddr::new(Ipv4Addr::new(a, b, c.wrapping_add(1), 1).into(), port());
    let culprit = Culprit::trace(&format!("--dest {a}.{b}.{c}.0/24"));
    connect(&netns, outside).0.expect_err("nothing listens");
    let to = SocketAddr::new(inside.into(), port());
    connect(&netns, to).0.expect_err("nothing listens");
    end_of(&culprit, to);
    assert_eq!(culprit.seen(|fact| fact.at("destination") == Some(outside)).len(), 0);
}

/// Names itself and connects to the place each line names, or has a program of another name connect there.
fn named_server(netns: &Netns, name: &str) -> Running {
    let mut bash = words("bash -c");
    bash.arg(format!(
        "printf %s {name} > /proc/self/comm; echo ready
        while read -r how to; do
            if [ $how = itself ]; then exec 3<>/dev/tcp/$to; else bash -c \"exec 3<>/dev/tcp/$to\"; fi; echo done
        done"
    ));
    let running = netns.spawn(bash);
    running.wait_for_line("ready");
    running
}

#[test]
fn only_processes_with_a_thread_of_the_requested_name_and_their_children_are_reported() {
    needs!();
    let netns = Netns::make();
    let name = format!("picked-{}", crate::harness::unique());
    let before = named_server(&netns, &name);
    let culprit = Culprit::trace(&format!("--comm {name} --comm another-name"));
    let stranger = named_server(&netns, &format!("other-{}", crate::harness::unique()));
    let after = named_server(&netns, &name);
    let mut listeners = Vec::new();
    let mut connects = |mut server: Running, how: &str| {
        let (listener, to) = listen_on_loopback(&netns);
        listeners.push(listener);
        server.say(&format!("{how} {}/{}\n", to.ip(), to.port()));
        server.wait_for_line("done");
        (server, to)
    };
    let (_stranger, not_reported) = connects(stranger, "itself");
    let (before, first) = connects(before, "itself");
    let (before, of_another_program) = connects(before, "another");
    let (after, second) = connects(after, "itself");
    assert_eq!((end_of(&culprit, first).pid(), end_of(&culprit, second).pid()), (before.pid(), after.pid()));
    let child = end_of(&culprit, of_another_program);
    assert_eq!(child.comm(), "bash");
    assert_ne!(child.pid(), before.pid());
    assert_eq!(culprit.seen(|fact| fact.at("destination") == Some(not_reported)).len(), 0);
}

#[test]
fn only_the_requested_address_family_is_reported() {
    needs!(Pace);
    let netns = Netns::make();
    let v4 = SocketAddr::new(netns.loopback(), port());
    let v6 = SocketAddr::new("::1".parse().expect("an address"), port());
    let culprit = Culprit::trace("-6");
    connect(&netns, v4).0.expect_err("nothing listens");
    connect(&netns, v6).0.expect_err("nothing listens");
    end_of(&culprit, v6);
    let v4 = culprit.seen(|fact| fact.at("destination").is_some_and(|to| to.is_ipv4()));
    assert_eq!(v4.len(), 0, "{v4:#?}");
}

#[test]
fn only_the_requested_probes_emit() {
    needs!(Pace);
    let netns = Netns::make();
    let culprit = Culprit::trace("--probes connect");
    assert_eq!(culprit.start["probes"]["attached"], serde_json::json!(["connect"]));
    culprit.settle(&netns);
    assert!(culprit.seen(|fact| fact.text("probe") != "connect").is_empty());
}

#[test]
fn failures_only_emits_no_start_and_no_success() {
    needs!(Pace);
    let netns = Netns::make();
    let (_listener, good) = listen_on_loopback(&netns);
    let culprit = Culprit::trace("-Z");
    connect(&netns, good).0.expect("it listens");
    culprit.settle(&netns);
    assert_eq!(culprit.seen(|fact| fact.at("destination") == Some(good)).len(), 0);
    let emitted = culprit.seen(|fact| fact.within(&netns));
    assert_eq!(emitted.len(), 1, "the refusal and nothing else: {emitted:#?}");
}

#[test]
fn only_what_exceeds_the_minimum_duration_is_reported() {
    needs!(Nftables);
    let pair = Pair::make();
    let slow = pair.service(port());
    pair.server.drop_tcp("input", slow.port());
    pair.client.sysctl("net/ipv4/tcp_syn_retries", "1");
    let culprit = Culprit::trace("--min-ms 500");
    let quick = SocketAddr::new(pair.client.loopback(), port());
    connect(&pair.client, quick).0.expect_err("nothing listens");
    let (_socket, task) = begin_connect(&pair.client, slow);
    let end = end_of(&culprit, slow);
    assert_eq!((end.task(), end.text("outcome")), (task, "timed_out"));
    assert!(end.number("duration_ms") >= 500.0, "{end:?}");
    assert_eq!(culprit.seen(|fact| fact.at("destination") == Some(quick)).len(), 0);
}

#[test]
fn a_connect_reported_as_stalled_is_resolved_although_it_ends_below_the_minimum_duration() {
    needs!(Nftables);
    let pair = Pair::make();
    let late = pair.service(port());
    let _listener = listen(&pair.server, late);
    pair.server.drop_tcp("input", late.port());
    let culprit = Culprit::trace("--min-ms 60000 --connect-stall 300ms");
    let (_socket, _) = begin_connect(&pair.client, late);
    let about =
        |incident: &Incident| incident.text("/kind") == "connect_stalled" && incident.within(&pair.client);
    culprit.wait_for_incident("the connect that waits", |incident| about(incident) && incident.opens());
    pair.server.nft("flush ruleset");
    culprit.wait_for_incident("its end", |incident| about(incident) && incident.text("/state") == "resolved");
    assert_eq!(culprit.seen(|fact| fact.at("destination") == Some(late)).len(), 0);
}

#[test]
fn filters_apply_to_handshakes_too() {
    needs!(Openssl);
    let (netns, identity) = (Netns::make(), crate::harness::tls::Identity::make());
    let services = [port(), port()].map(|port| SocketAddr::new(netns.loopback(), port));
    let _servers = services.map(|service| identity.server(&netns, service, ""));
    let culprit = Culprit::trace(&format!("--port {}", services[1].port()));
    let _clients = services.map(|service| {
        let client = crate::harness::tls::openssl_client(&netns, service, "");
        client.wait_for_line("Verify return code");
        client
    });
    for role in ["client", "server"] {
        crate::tls::handshakes::step(&culprit, role, services[1], "handshake_done");
        assert_eq!(crate::tls::handshakes::story(&culprit, role, services[0]).len(), 0);
    }
}

#[test]
fn lookups_are_reported_of_the_requested_servers_and_ports() {
    needs!();
    let netns = Netns::make();
    let server = SocketAddr::new(netns.loopback(), dns::PORT);
    let elsewhere = SocketAddr::new(netns.loopback(), port());
    let other_port = Culprit::trace(&format!("--port {}", elsewhere.port()));
    let other_network = Culprit::trace("--dest 192.0.2.0/24");
    let this = Culprit::trace(&format!("--dest {}/32 --port {}", server.ip(), dns::PORT));
    let serving = dns::answer_once(&netns, server, dns::Answer::Address(Ipv4Addr::new(192, 0, 2, 7)));
    netns.enter(move || dns::ask(server, &dns::query(7, "chosen.test")).expect("an answer"));
    serving.join().expect("served");
    this.wait_for("the answer", |fact| fact.kind() == "dns_answer" && fact.at("server") == Some(server));
    connect(&netns, elsewhere).0.expect_err("nothing listens");
    end_of(&other_port, elsewhere);
    let leaked = other_port.seen(|fact| fact.at("server") == Some(server));
    assert_eq!(leaked.len(), 0, "{leaked:#?}");
    let leaked = other_network.stop().facts;
    assert!(!leaked.iter().any(|fact| fact.at("server") == Some(server)), "{leaked:#?}");
}

#[test]
fn a_filter_that_no_process_matches_is_pointed_out() {
    needs!();
    let culprit = Culprit::trace("--pod absent-0f3a");
    let netns = Netns::make();
    connect(&netns, SocketAddr::new(netns.loopback(), port())).0.expect_err("nothing listens");
    let ended = culprit.stop();
    assert!(ended.stderr.contains("no process is in --pod absent-0f3a now"), "{}", ended.stderr);
    let emitted: Vec<_> = ended.facts.iter().filter(|fact| fact.within(&netns)).collect();
    assert!(emitted.is_empty(), "{emitted:#?}");
}
