//! A resolver of the same host is asked, and waits for its own upstream: who is to blame, and whose remedy it is.

use serde_json::json;

use super::{Scene, UNANSWERED};
use crate::{
    harness::dns::{Answer, PORT, ask_unanswered, dnsmasq, query},
    needs,
};

#[test]
fn a_resolver_of_this_host_whose_upstream_is_silent_is_named_with_that_upstream() {
    needs!(Dnsmasq, Pace);
    let scene = Scene::set("dns_unanswered/upstream_of_local_resolver_silent");
    let (client, upstream) = (&scene.pair.client, scene.server);
    let silent = scene.pair.server.enter(move || std::net::UdpSocket::bind(upstream).expect("a free port"));
    let local = client.loopback();
    let dnsmasq = dnsmasq(client, local, upstream.ip());
    let (_socket, task) = ask_unanswered(client, (local, PORT).into(), query(4711, "db.example.com"), 1);
    let of = |pid: u64, what: &str| {
        scene.culprit.wait_for_incident(what, |emitted| {
            emitted.opens()
                && emitted.text("/kind") == UNANSWERED
                && emitted.within(client)
                && emitted.task().0 == pid
        })
    };
    let behind = of(dnsmasq.pid().into(), "the resolver's own");
    assert_eq!((behind.blame(), behind.blamed()), (("dns_lookup", "certain"), upstream.to_string()));
    let opened = of(task.0.into(), "who asks the resolver");
    assert_eq!((opened.blame(), opened.blamed()), (("local_service", "certain"), upstream.to_string()));
    assert_eq!(opened.number("/cause/process/pid"), u64::from(dnsmasq.pid()));
    assert_eq!(opened.json["caused_by"], json!([behind.id()]));
    assert_eq!(opened.text("/details/reason"), "upstream_unanswered");
    assert!(!opened.remedies().contains(&local.to_string()), "{}", opened.remedies());
    scene.keeper.catches_up();
    // The upstream answers, and so does the resolver.
    let mut question = [0; 512];
    let (len, from) = silent.recv_from(&mut question).expect("asked");
    let answer = Answer::Address([192, 0, 2, 7].into()).to(&question[..len]);
    silent.send_to(&answer, from).expect("it waits");
    scene.resolved(&behind);
    scene.resolved(&opened);
    scene.ends_with(2);
}
