//! A neighbour that receives what is sent to everybody and not what is sent to its MAC, as where a switch has that MAC at a
//! wrong port; and one that receives both while its service is silent.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use super::{Repeated, STALLED, is_established};
use crate::{
    harness::{
        Incident, Lan, Netns, Running,
        lan::Host,
        port,
        process::{run, words},
        sockets,
        stage::python,
    },
    needs,
};

/// The host's entries are confirmed again within a second or two, and not after half a minute.
fn confirms_often(host: &Host) {
    let set = |name: &str, value: &str| host.netns.sysctl(&format!("net/ipv4/neigh/eth0/{name}"), value);
    set("base_reachable_time_ms", "1000");
    set("delay_first_probe_time", "1");
    set("retrans_time_ms", "200");
}

/// A device `sink` (`tap` or `tun`) where all that is sent vanishes, as on another machine.
#[track_caller]
fn vanish(netns: &Netns, kind: &str) -> Running {
    let mut void = python();
    void.args(["-c", include_str!("../../../programs/void.py"), "sink", kind]);
    let running = netns.spawn(void);
    running.wait_for_line("ready");
    running
}

/// Sends datagrams to a neighbour, and so has its entry confirmed.
fn talks_to(host: &Host, to: SocketAddr) -> Repeated {
    let mut socket = None;
    Repeated::every(Duration::from_millis(100), &host.netns, move || {
        let socket = socket.get_or_insert_with(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
        let _ = socket.send_to(b"?", to);
    })
}

fn stalls(incident: &Incident, service: SocketAddr) -> bool {
    incident.text("/kind") == STALLED && incident.blamed() == service.to_string()
}

#[test]
fn a_neighbour_that_hears_only_what_is_sent_to_everybody_is_named_as_cause_of_silence() {
    needs!(Tun);
    let lan = Lan::set("connect_stalled/unicast_lost_on_the_switch");
    let (host, peer) = (lan.host(10), lan.host(20));
    confirms_often(&host);
    let service = peer.service(peer.v4);
    let _listener = sockets::listen(&peer.netns, service);
    // The switch has its MAC at another port, where frames vanish.
    let _void = vanish(&lan.switch, "tap");
    lan.switch.ip("link set sink master br0 up");
    let wrong =
        |what: &str| format!("bridge -n {} fdb {what} {} dev sink master", lan.switch.name(), peer.mac());
    run(&mut words(&format!("{} static sticky", wrong("replace"))));
    let (socket, _) = sockets::begin_connect(&host.netns, service);
    let talks = talks_to(&host, service);
    let blamed = lan.culprit.wait_for_incident("the neighbour is blamed", |incident| {
        stalls(incident, service) && incident.blame() == ("neighbour", "likely")
    });
    let lost = format!("frames to {} alone are lost on the way", peer.mac());
    assert!(blamed.why().contains(&lost), "{:#}", blamed.json);
    assert!(blamed.text("/remedies/0").contains(&peer.mac()), "{:#}", blamed.json);
    // The switch learns the port again.
    run(&mut words(&wrong("del")));
    is_established(&socket, service);
    drop(talks);
    lan.resolved(&blamed);
    lan.ends_with(&[&host], &[STALLED]);
}

#[test]
fn a_neighbour_that_answers_what_is_sent_to_it_alone_is_not_blamed_for_a_silent_service() {
    needs!(Tun);
    let lan = Lan::set("connect_stalled/silent_service_of_a_confirmed_neighbour");
    let (host, router) = (lan.host(10), lan.host(20));
    confirms_often(&host);
    // The router answers ARP for it, and forwards to where frames vanish.
    let service = SocketAddr::new(lan.switch.v4(30), port());
    let _void = vanish(&router.netns, "tun");
    router.netns.ip("link set sink up");
    router.netns.ip(&format!("route add {}/32 dev sink", service.ip()));
    router.netns.sysctl("net/ipv4/ip_forward", "1");
    router.netns.sysctl("net/ipv4/conf/eth0/proxy_arp", "1");
    router.netns.sysctl("net/ipv4/neigh/eth0/proxy_delay", "0");
    let (socket, _) = sockets::begin_connect(&host.netns, service);
    let _talks = talks_to(&host, service);
    // As long as the other one took to be seen.
    let stalled = lan.culprit.wait_for_incident("the connect, for a while", |incident| {
        stalls(incident, service) && incident.number("/details/pending_ms") >= 6_000
    });
    assert_eq!(stalled.blame(), ("outbound_connect", "certain"), "{:#}", stalled.json);
    assert!(!stalled.why().contains("lost on the way"), "{:#}", stalled.json);
    drop(socket);
    lan.ends_with(&[&host], &[STALLED]);
}
