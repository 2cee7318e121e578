//! Network namespaces whose number or name is reused: nothing of the old one is reported of the new one.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    harness::{
        Culprit, Lan, Netns,
        dns::{Answer, PORT, answer_once, ask, query},
        eventually,
        lan::Host,
        port,
        process::{run, words},
        sockets::{begin_connect, connect},
    },
    needs,
};

/// How many are deleted: some other test may get the number of one.
const OLD: usize = 6;

fn number(netns: &Netns) -> u64 {
    std::fs::metadata(Path::new("/run/netns").join(netns.name())).expect("made by the harness").ino()
}

/// Deletes these, and makes new ones until one has the number of one of them: that number, and the new one. The
/// kernel gives the lowest number that is free, and frees one some time after the deletion.
#[track_caller]
fn reuse_a_number(old: Vec<Netns>) -> (u64, Netns) {
    let numbers: Vec<u64> = old.iter().map(number).collect();
    drop(old);
    let (mut others, mut found) = (Vec::new(), None);
    eventually("a number comes again", || {
        let made = Netns::make();
        let this = number(&made);
        if numbers.contains(&this) {
            found = Some((this, made));
            return true;
        }
        others.push(made);
        false
    });
    found.expect("it came true")
}

#[test]
fn names_that_were_looked_up_in_a_deleted_namespace_are_not_used_for_its_successor() {
    needs!();
    let culprit = Culprit::trace("");
    let address = Ipv4Addr::new(127, 9, 9, 9);
    let to = SocketAddr::new(address.into(), port());
    let mut old = Vec::new();
    for _ in 0..OLD {
        let netns = Netns::make();
        let server = SocketAddr::new(netns.loopback(), PORT);
        let serving = answer_once(&netns, server, Answer::Address(address));
        netns.enter(move || ask(server, &query(1, "old.test")).expect("an answer"));
        serving.join().expect("served");
        connect(&netns, to).0.expect_err("nothing listens");
        let end = culprit.wait_for("it", |fact| fact.is_to("connect_ended", to) && fact.within(&netns));
        assert_eq!(end.json["destination"]["name"], "old.test", "{}", end.json);
        old.push(netns);
    }
    let names: Vec<String> = old.iter().map(|netns| netns.name().to_owned()).collect();
    let (number, new) = reuse_a_number(old);
    let thread = new.thread_named("successor", move || {
        TcpStream::connect(to).expect_err("nothing listens");
    });
    thread.join().expect("it only connects");
    let end =
        culprit.wait_for("its connect", |fact| fact.is_to("connect_ended", to) && fact.comm() == "successor");
    assert!(end.within(&new), "number {number}, before {names:?}: {}", end.json);
    assert!(end.json["destination"]["name"].is_null(), "{}", end.json);
}

#[test]
fn a_name_given_to_another_namespace_is_not_shown_for_the_one_that_had_it() {
    needs!();
    let netns = Netns::make();
    netns.drop_tcp("input", 9);
    let to = SocketAddr::new(netns.loopback(), 9);
    let culprit = Culprit::trace("");
    let pending = begin_connect(&netns, to);
    let before = culprit.wait_for("its beginning", |fact| fact.is_to("connect_started", to));
    assert!(before.within(&netns), "{}", before.json);
    let number = number(&netns);
    // The socket keeps the namespace; its name goes to another.
    run(&mut words(&format!("ip netns del {}", netns.name())));
    run(&mut words(&format!("ip netns add {}", netns.name())));
    let stalled = culprit.wait_for_incident("it stalls", |incident| {
        incident.text("/kind") == "connect_stalled" && incident.blamed() == to.to_string()
    });
    assert_eq!(stalled.text("/process/netns"), format!("net:[{number}]"), "{:#}", stalled.json);
    assert!(!stalled.json.to_string().contains(netns.name()), "{:#}", stalled.json);
    drop(pending);
}

/// A host without a neighbour at `.1`.
fn alone(lan: &Lan, netns: Netns) -> Host {
    let host = Host { netns, v4: lan.switch.v4(10), v6: lan.switch.v6(10) };
    lan.plug(&host, "eth0");
    host.netns.ip(&format!("addr add {}/24 dev eth0", host.v4));
    host
}

#[test]
fn a_gateway_of_a_deleted_namespace_is_not_used_for_its_successor() {
    needs!(Pace);
    let lan = Lan::watched_by(Culprit::trace(""));
    let gateway = lan.switch.v4(1);
    let to = SocketAddr::new(gateway, port());
    let mut old = Vec::new();
    for _ in 0..OLD {
        let host = alone(&lan, Netns::make());
        host.netns.ip(&format!("route add default via {gateway} dev eth0"));
        connect(&host.netns, to).0.expect_err("no host has this address");
        let opened = lan.opened("neighbour_unresolved", &host.netns, gateway);
        assert_eq!(opened.json["details"]["is_gateway"], true, "{:#}", opened.json);
        old.push(host.netns);
    }
    let names: Vec<String> = old.iter().map(|netns| netns.name().to_owned()).collect();
    let (_, new) = reuse_a_number(old);
    let host = alone(&lan, new);
    connect(&host.netns, to).0.expect_err("no host has this address");
    let opened = lan.opened("neighbour_unresolved", &host.netns, gateway);
    assert_eq!(opened.json["details"]["is_gateway"], false, "{:#}", opened.json);
    assert!(
        !names.iter().any(|name| opened.json.to_string().contains(&format!("{name} "))),
        "{:#}",
        opened.json
    );
    let remedies = opened.json["remedies"].to_string();
    assert!(remedies.contains(&format!("ip -n {} ", host.netns.name())), "{remedies}");
}
