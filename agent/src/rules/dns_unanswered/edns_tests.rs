use simple_dns::RCODE;

use super::tests::{details, last};
use crate::{
    pipeline::incident::{Confidence, DnsReason, Kind},
    rules::{
        scene::{PROCESS, Scene, advice},
        scene_lookups::{Asked, asks},
    },
};

/// Another process of the same network namespace, whose resolver knows no EDNS.
const OTHER: u32 = 2000;

fn with_edns(cookie: u64, name: &'static str) -> Asked {
    Asked { edns: true, ..asks(cookie, PROCESS, name) }
}

#[test]
fn a_question_answered_without_edns_alone_is_said_to_be_dropped_for_it() {
    let mut scene = Scene::new();
    scene.asks(0, &with_edns(7, "db.example.net"));
    scene.passes(250, 2750);
    assert_eq!(details(last(&scene)).reason, DnsReason::Unanswered);
    scene.asks(3000, &asks(8, OTHER, "db.example.net"));
    scene.hears(3010, &asks(8, OTHER, "db.example.net"), RCODE::NoError);
    scene.asks(5000, &with_edns(7, "db.example.net"));
    scene.passes(5250, 7500);
    let said = last(&scene);
    assert!(
        said.summary.ends_with(
            "2 queries with EDNS, no answer, while the server answered the same question without it."
        ),
        "{}",
        said.summary
    );
    assert_eq!(details(said).reason, DnsReason::EdnsUnanswered);
    let edns = details(said).edns.as_ref().expect("it is what makes the difference");
    assert_eq!((edns.queries, edns.udp_size, edns.plain_answers, edns.same_question), (2, 1232, 1, true));
    assert_eq!(said.cause.as_ref().expect("a cause").confidence, Confidence::Likely);
    let remedies = advice(said);
    assert!(remedies.contains("dig @192.0.2.53 +noedns"), "{remedies}");
    assert!(remedies.contains("take edns0 out of"), "{remedies}");
    assert!(!remedies.contains("allow udp/53"), "{remedies}");
}

#[test]
fn several_names_without_an_answer_beside_plain_answers_to_others_may_be_for_edns() {
    let mut scene = Scene::new();
    scene.asks(0, &with_edns(7, "db.example.net"));
    scene.asks(0, &with_edns(8, "cache.example.org"));
    scene.asks(500, &asks(9, OTHER, "www.example.com"));
    scene.hears(510, &asks(9, OTHER, "www.example.com"), RCODE::NoError);
    scene.passes(750, 4000);
    let said = last(&scene);
    assert_eq!(details(said).reason, DnsReason::EdnsUnanswered);
    assert_eq!(said.cause.as_ref().expect("a cause").confidence, Confidence::Possible);
    assert!(said.summary.contains("another question without it, and none with it"), "{}", said.summary);
}

#[test]
fn one_name_without_an_answer_is_not_for_edns_when_only_others_are_answered_without() {
    let mut scene = Scene::new();
    scene.asks(0, &with_edns(7, "db.example.net"));
    scene.asks(500, &asks(9, OTHER, "www.example.com"));
    scene.hears(510, &asks(9, OTHER, "www.example.com"), RCODE::NoError);
    scene.asks(5000, &with_edns(7, "db.example.net"));
    scene.passes(5250, 12_000);
    assert_eq!(details(last(&scene)).reason, DnsReason::Unanswered);
}

#[test]
fn queries_with_edns_that_are_answered_show_that_it_is_not_dropped() {
    let mut scene = Scene::new();
    scene.asks(0, &with_edns(7, "db.example.net"));
    scene.asks(0, &with_edns(8, "cache.example.org"));
    for (cookie, asked) in [(9, asks(9, OTHER, "www.example.com")), (10, with_edns(10, "www.example.com"))] {
        scene.asks(500 + cookie, &asked);
        scene.hears(510 + cookie, &asked, RCODE::NoError);
    }
    // A server that knows no EDNS answers queries with it all the same.
    scene.passes(750, 8000);
    assert_eq!(details(last(&scene)).reason, DnsReason::Unanswered);
    assert!(details(last(&scene)).edns.is_none());
}

#[test]
fn a_server_that_knows_no_edns_and_answers_such_queries_drops_none() {
    let mut scene = Scene::new();
    scene.asks(0, &with_edns(7, "db.example.net"));
    scene.asks(0, &with_edns(8, "cache.example.org"));
    scene.asks(500, &with_edns(9, "www.example.com"));
    scene.hears(510, &asks(9, PROCESS, "www.example.com"), RCODE::NoError);
    scene.passes(750, 8000);
    assert_eq!(details(last(&scene)).reason, DnsReason::Unanswered);
}

#[test]
fn an_answer_that_comes_cut_without_edns_and_not_at_all_with_it_is_too_long_for_the_way() {
    let mut scene = Scene::new();
    // Short answers with EDNS pass.
    scene.asks(0, &with_edns(6, "www.example.com"));
    scene.hears(10, &with_edns(6, "www.example.com"), RCODE::NoError);
    scene.asks(100, &with_edns(7, "big.example.net"));
    scene.asks(3000, &asks(8, OTHER, "big.example.net"));
    scene.hears_truncated(3010, &asks(8, OTHER, "big.example.net"));
    scene.asks(5100, &with_edns(7, "big.example.net"));
    scene.passes(5250, 8000);
    let said = last(&scene);
    assert_eq!(details(said).reason, DnsReason::LongAnswerLost);
    assert!(said.summary.contains("was answered, cut"), "{}", said.summary);
    assert!(advice(said).contains("fragments"), "{}", advice(said));
}

#[test]
fn a_resolver_that_asks_again_without_edns_is_late_for_it_each_time() {
    let mut scene = Scene::new();
    for (number, name) in (0..).zip(["a.example.net", "b.example.net", "c.example.net"]) {
        let at = 10_000 * number;
        let again = Asked { edns: false, ..with_edns(20 + number, name) };
        scene.asks(at, &with_edns(20 + number, name));
        scene.asks(at + 1500, &again);
        scene.hears(at + 1510, &again, RCODE::NoError);
        scene.passes(at + 1750, at + 5000);
    }
    let said = last(&scene);
    assert_eq!(scene.opened(Kind::DnsUnanswered).len(), 1);
    assert_eq!(details(said).reason, DnsReason::EdnsUnanswered);
    assert_eq!(details(said).edns.as_ref().expect("compared").queries, 3);
}

#[test]
fn one_query_with_edns_that_is_lost_and_answered_at_the_second_try_is_healthy() {
    let mut scene = Scene::new();
    scene.asks(0, &with_edns(7, "db.example.net"));
    scene.asks(1500, &asks(8, PROCESS, "db.example.net"));
    scene.hears(1510, &asks(8, PROCESS, "db.example.net"), RCODE::NoError);
    scene.passes(1750, 30_000);
    assert!(scene.opened(Kind::DnsUnanswered).is_empty(), "{:#?}", scene.emitted);
}
