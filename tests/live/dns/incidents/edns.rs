//! A server, or something on the way to it, that drops queries with EDNS: glibc asks with it where resolv.conf says so.

use std::{net::Ipv4Addr, process::Command};

use super::{Scene, UNANSWERED, opened};
use crate::{
    harness::{
        Culprit, Running,
        dns::{Answer, ResolvConf, answer_in_turn, answer_without_edns, ask, query},
    },
    needs,
};

const ADDRESS: Answer = Answer::Address(Ipv4Addr::new(192, 0, 2, 7));
const NAME: &str = "db.example.com";

impl Scene {
    /// glibc looks a name up in the client's namespace, by this resolv.conf.
    #[track_caller]
    fn getent(&self, name: &str) -> Running {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.pair.client.name(), "getent", "ahostsv4", name]);
        Running::spawn(&mut command)
    }
}

#[test]
fn queries_with_edns_that_are_dropped_while_the_same_without_is_answered_are_named_in_either_mode() {
    needs!(Pace);
    let scene = Scene::set("dns_unanswered/edns_dropped");
    let quiet = Culprit::trace("--mode anomalies");
    let (client, server) = (&scene.pair.client, scene.server);
    let _conf = ResolvConf::naming(server.ip(), "edns0 trust-ad timeout:2 attempts:5", client);
    let serving = answer_without_edns(&scene.pair.server, server, 1, ADDRESS);
    let getent = scene.getent(NAME);
    let first = scene.opened();
    assert_eq!((first.text("/process/comm"), first.text("/cause/query")), ("getent", "A db.example.com"));
    opened(&quiet, client);
    client.enter(move || ask(server, &query(1, NAME)).expect("an answer without EDNS"));
    serving.join().expect("served");
    for (culprit, confidence) in [(&scene.culprit, "likely"), (&quiet, "possible")] {
        let said = culprit.wait_for_incident("that it is EDNS", |emitted| {
            emitted.text("/kind") == UNANSWERED
                && emitted.within(client)
                && emitted.text("/details/reason") == "edns_unanswered"
        });
        assert_eq!(said.blame(), ("dns_lookup", confidence), "{:#}", said.json);
        assert_eq!(said.json["details"]["edns"]["same_question"], true, "{:#}", said.json);
        assert!(said.number("/details/edns/queries") >= 2, "{:#}", said.json);
        assert!(said.remedies().contains("take edns0 out of"), "{}", said.remedies());
    }
    scene.keeper.catches_up();
    drop(getent);
    scene.ends_with(1);
}

#[test]
fn one_query_with_edns_that_is_lost_and_answered_at_the_second_try_is_healthy() {
    needs!(Pace);
    let scene = Scene::set("dns_unanswered/edns_lost_once_without_fault");
    let (client, server) = (&scene.pair.client, scene.server);
    let _conf = ResolvConf::naming(server.ip(), "edns0 trust-ad timeout:1 attempts:3", client);
    let serving = answer_in_turn(&scene.pair.server, server, vec![None, Some(ADDRESS), Some(ADDRESS)]);
    // Others ask without meanwhile.
    let mut getent = scene.getent(NAME);
    assert!(getent.wait().success(), "{}", getent.stderr());
    client.enter(move || ask(server, &query(1, "www.example.com")).expect("an answer"));
    serving.join().expect("served");
    scene.keeper.catches_up();
    scene.ends_with(0);
}
