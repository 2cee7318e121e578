//! What holds for a whole machine: the bounds of its neighbour tables, shared by all its namespaces.

use crate::{
    harness::{
        Culprit, Netns,
        process::{run, words},
    },
    needs,
};

#[test]
fn a_full_neighbour_table_is_reported_with_its_bound() {
    // The bound holds for all namespaces together.
    needs!(OwnMachine);
    let culprit = Culprit::trace("");
    for (name, value) in [("gc_thresh1", "8"), ("gc_thresh2", "16"), ("gc_thresh3", "32")] {
        std::fs::write(format!("/proc/sys/net/ipv4/neigh/default/{name}"), value)
            .expect("root's own machine");
    }
    let netns = Netns::make();
    netns.ip("link add wire type veth peer name other");
    netns.ip("link set other up");
    netns.ip("link set wire up");
    netns.ip("addr add 10.9.0.1/16 dev wire");
    netns.enter(|| {
        let socket = std::net::UdpSocket::bind("10.9.0.1:0").expect("our address");
        for host in 2..200 {
            // Refused once the table is full.
            let _ = socket.send_to(b"?", format!("10.9.1.{host}:9"));
        }
    });
    let full = culprit.wait_for("a full table", |fact| fact.kind() == "neighbour_table_full");
    assert_eq!((full.text("family"), full.text("device")), ("ipv4", "wire"));
    assert_eq!((full.text("netns"), full.number("gc_thresh3")), (netns.name(), 32.0));
    assert!(full.number("gc_entries") >= 32.0, "{full:?}");
    let emitted =
        culprit.wait_for_incident("the incident", |emitted| emitted.text("/kind") == "neighbour_table_full");
    assert_eq!((emitted.text("/details/family"), emitted.text("/details/device")), ("ipv4", "wire"));
    assert_eq!((emitted.number("/details/gc_thresh1"), emitted.number("/details/gc_thresh3")), (8, 32));
    let most = &emitted.json["details"]["users"][0];
    assert_eq!((most["device"].as_str(), most["netns"].as_str()), (Some("wire"), Some(netns.name())));
    let remedy = emitted.text("/remedies/0").split_once(": ").expect("where it holds").1.to_owned();
    assert!(remedy.starts_with("sysctl -w 'net.ipv4.neigh.default.gc_thresh3="), "{remedy}");
    // Word for word: there is room again.
    run(&mut words(&remedy));
    let bound =
        std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").expect("root's own machine");
    assert!(remedy.contains(&format!("gc_thresh3={}", bound.trim())), "{remedy}: {bound}");
    assert_eq!(
        culprit.incidents(|emitted| emitted.text("/kind") == "neighbour_table_full" && emitted.opens()).len(),
        1
    );
}
