//! An address of this host that another one has.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use super::ADDRESS;
use crate::{
    harness::{
        Lan, Netns, eventually,
        lan::Host,
        process::{Running, run, words},
        stage::python,
    },
    needs,
};

/// Sends ARP requests by `eth0`: from which MAC, by which sender's address, for which address, how often.
const ARP: &str = "
import socket, struct, sys, time
mac, sender, target, times = bytes.fromhex(sys.argv[1].replace(':', '')), sys.argv[2], sys.argv[3], int(sys.argv[4])
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((sys.argv[5], 0))
body = struct.pack('!HHBBH', 1, 0x800, 6, 4, 1) + mac + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)
for again in range(times):
    time.sleep(0.5 if again else 0)
    wire.send(b'\\xff' * 6 + mac + struct.pack('!H', 0x806) + body)
";

/// Has a namespace send ARP requests, and waits for it.
#[track_caller]
fn sends_arp(from: &Netns, device: &str, mac: &str, sender: &str, target: &str, times: u32) {
    let mut arp = python();
    arp.args(["-c", ARP, mac, sender, target, &times.to_string(), device]);
    assert!(from.spawn(arp).wait().success());
}

/// Announces by gratuitous ARP that it has the address, twice a second until this is dropped.
#[track_caller]
fn announces(from: &Host, address: std::net::IpAddr) -> Running {
    let address = address.to_string();
    let mut arp = python();
    arp.args(["-c", ARP, &from.mac(), &address, &address, "100", "eth0"]);
    from.netns.spawn(arp)
}

#[test]
fn an_address_that_another_host_announces_is_named_with_both_macs_and_who_listens() {
    needs!();
    let lan = Lan::set("address_conflict/announced_by_other_host");
    let (host, other) = (lan.host(20), lan.host(21));
    let server = host.serves(host.service(host.v4));
    other.netns.ip(&format!("addr add {}/24 dev eth0", host.v4));
    let _announces = announces(&other, host.v4);
    let opened = lan.opened(ADDRESS, &host.netns, host.v4);
    assert_eq!(opened.text("/details/own_mac"), host.mac());
    assert_eq!(opened.text("/details/claimed_by/0/mac"), other.mac());
    assert_eq!(opened.blame(), ("neighbour", "certain"));
    assert_eq!(opened.number("/details/listeners/0/pid"), u64::from(server.pid()));
    assert!(opened.why().contains("listens there on port"), "{}", opened.why());
    assert!(opened.remedies().contains(&other.mac()), "{}", opened.remedies());
    // The administrator gives this host another one.
    host.netns.ip(&format!("addr del {}/24 dev eth0", host.v4));
    lan.resolved(&opened);
    lan.ends_with(&[&host], &[ADDRESS]);
}

#[test]
fn an_ipv6_address_that_another_host_advertises_is_a_conflict() {
    needs!();
    let lan = Lan::set("address_conflict/advertised_by_other_host");
    let (host, other) = (lan.host(20), lan.host(21));
    other.netns.sysctl("net/ipv6/conf/eth0/ndisc_notify", "1");
    other.netns.ip(&format!("addr add {}/64 dev eth0 nodad", host.v6));
    // The kernel advertises what it has when its MAC changes; the first times may be before anything listens.
    let over = AtomicBool::new(false);
    let opened = std::thread::scope(|scope| {
        scope.spawn(|| {
            for last in (0..=9).cycle() {
                if over.load(Relaxed) {
                    break;
                }
                other.netns.ip(&format!("link set eth0 address 02:00:5e:20:00:6{last}"));
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let opened = catch_unwind(AssertUnwindSafe(|| lan.opened(ADDRESS, &host.netns, host.v6)));
        over.store(true, Relaxed);
        opened.unwrap_or_else(|panic| resume_unwind(panic))
    });
    assert_eq!(opened.text("/details/own_mac"), host.mac());
    assert!(opened.text("/details/claimed_by/0/mac").starts_with("02:00:5e:20:00:6"), "{:#}", opened.json);
    host.netns.ip(&format!("addr del {}/64 dev eth0", host.v6));
    lan.resolved(&opened);
    lan.ends_with(&[&host], &[ADDRESS]);
}

#[test]
fn an_address_that_duplicate_address_detection_refuses_is_named_with_who_has_it_and_the_remedy_works() {
    needs!();
    let lan = Lan::set("address_conflict/duplicate_address_detected");
    let (host, other) = (lan.host(20), lan.host(21));
    let taken = lan.switch.v6(77);
    other.netns.ip(&format!("addr add {taken}/64 dev eth0 nodad"));
    host.netns.sysctl("net/ipv6/conf/eth0/accept_dad", "1");
    host.netns.sysctl("net/ipv6/conf/eth0/dad_transmits", "1");
    host.netns.ip(&format!("addr add {taken}/64 dev eth0"));
    let opened = lan.opened(ADDRESS, &host.netns, taken);
    assert_eq!(opened.json["details"]["dad_failed"], true);
    assert_eq!(opened.text("/details/claimed_by/0/mac"), other.mac());
    assert_eq!(opened.blame(), ("neighbour", "certain"));
    assert!(opened.why().contains("EADDRNOTAVAIL"), "{}", opened.why());
    other.netns.ip(&format!("addr del {taken}/64 dev eth0"));
    // Word for word: it is checked again, and free.
    let (_, remedy) = opened.text("/remedies/1").rsplit_once(": ip ").expect("two commands");
    for command in format!("ip {remedy}").split(" && ") {
        run(&mut words(command));
    }
    lan.resolved(&opened);
    lan.ends_with(&[&host], &[ADDRESS]);
}

#[test]
fn own_devices_virtual_routers_and_hosts_that_only_ask_claim_nothing() {
    needs!(Pace);
    let lan = Lan::set("address_conflict/own_devices_and_questions");
    let (host, other, real) = (lan.host(20), lan.host(21), lan.host(22));
    let own = host.v4.to_string();
    // A second device of the host speaks for the first one's address, as Linux does by itself.
    lan.plug(&host, "eth1");
    sends_arp(&host.netns, "eth1", &host.netns.mac("eth1"), &own, &own, 2);
    // The virtual router's MAC, which a device of this host has: the other master, or this one's echo.
    let virtual_mac = "00:00:5e:00:01:33";
    host.netns.ip(&format!("link add link eth0 name vrrp51 address {virtual_mac} type macvlan mode private"));
    host.netns.ip("link set vrrp51 up");
    sends_arp(&other.netns, "eth0", virtual_mac, &own, &own, 2);
    // Another host looks whether the address is free, and asks for it.
    sends_arp(&other.netns, "eth0", &other.mac(), "0.0.0.0", &own, 3);
    sends_arp(&other.netns, "eth0", &other.mac(), &other.v4.to_string(), &own, 2);
    // Another namespace of this machine answers for the address without having it: a proxy.
    sends_arp(&other.netns, "eth0", &other.mac(), &own, &own, 2);
    // This one is real, and alone named; the others would have been before.
    real.netns.ip(&format!("addr add {own}/24 dev eth0"));
    let _announces = announces(&real, host.v4);
    let opened = lan.opened(ADDRESS, &host.netns, host.v4);
    assert_eq!(opened.json["details"]["claimed_by"].as_array().map(Vec::len), Some(1), "{opened:#?}");
    assert_eq!(opened.text("/details/claimed_by/0/mac"), real.mac());
    assert!(opened.json["details"]["conflict_ms"].as_u64() < Some(6000), "{opened:#?}");
    lan.ends_with(&[&host, &other], &[ADDRESS]);
}

#[test]
fn a_namespace_that_is_watched_goes_when_it_is_deleted() {
    needs!();
    let lan = Lan::watched_by(crate::harness::Culprit::trace(""));
    let (host, other) = (lan.host(20), lan.host(21));
    other.netns.ip(&format!("addr add {}/24 dev eth0", host.v4));
    let announces = announces(&other, host.v4);
    lan.opened(ADDRESS, &host.netns, host.v4);
    drop(announces);
    let ports = || {
        let shown = run(&mut words(&format!("ip -n {} -o link show type veth", lan.switch.name())));
        String::from_utf8_lossy(&shown.stdout).lines().count()
    };
    assert_eq!(ports(), 2);
    let Host { netns, .. } = host;
    let began = std::time::Instant::now();
    drop(netns);
    eventually("its end of the wire is gone", || ports() == 1);
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
    lan.ends_with(&[], &[]);
}
