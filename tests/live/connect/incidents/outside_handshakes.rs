//! Connects that stall or fail outside any handshake; and a fallback between address families, which is healthy.

use std::net::{SocketAddr, TcpStream};

use serde_json::json;

use crate::{
    harness::{
        Culprit, Netns, Stage, port,
        sockets::{begin_connect, connect, listen},
        stage::VOID,
    },
    needs,
};

#[test]
fn an_unanswered_connect_outside_any_handshake_is_a_stalled_connect() {
    needs!(Tun, Pace);
    let mut stage = Stage::set("connect_stalled/no_answer_outside_handshake");
    stage.keep_own();
    let to = SocketAddr::new(VOID.parse().expect("an address"), port());
    let (socket, (pid, tid)) = begin_connect(&stage.pair.server, to);
    let opened =
        stage.culprit.wait_for_incident("the stalled connect", |emitted| emitted.blamed() == to.to_string());
    assert_eq!((opened.text("/kind"), opened.task()), ("connect_stalled", (pid.into(), tid.into())));
    let pending = opened.number("/details/pending_ms");
    assert!(pending >= 3000 && (pending as f64) < 3000.0 + 500.0 * crate::harness::slow(), "{pending}");
    assert!(opened.number("/details/syn_retransmits") >= 1);
    assert_eq!(opened.number("/details/dropped_by_host"), 0);
    drop(socket);
    let resolved = stage.resolved(&opened);
    assert_eq!(resolved.text("/cause/outcome"), "aborted");
    stage.ends_with(1);
}

#[test]
fn connects_refused_three_times_are_failing_connects() {
    needs!(Tun, Pace);
    let mut stage = Stage::set("connect_failing/refused_three_times");
    stage.keep_own();
    let to = SocketAddr::new(stage.pair.v4(1), port());
    for _ in 0..3 {
        connect(&stage.pair.server, to).0.expect_err("nothing listens");
    }
    let opened =
        stage.culprit.wait_for_incident("the failing connect", |emitted| emitted.blamed() == to.to_string());
    assert_eq!((opened.text("/kind"), opened.number("/count")), ("connect_failing", 3));
    assert_eq!((opened.text("/cause/outcome"), opened.text("/details/errno")), ("refused", "ECONNREFUSED"));
    assert_eq!(opened.json["details"]["outcomes"], json!({ "refused": 3 }));
    let _listener = listen(&stage.pair.client, to);
    connect(&stage.pair.server, to).0.expect("now it listens");
    stage.resolved(&opened);
    stage.ends_with(1);
}

#[test]
fn a_fallback_to_the_other_address_family_is_healthy() {
    needs!(Pace);
    let netns = Netns::make();
    let v4 = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port());
    let v6 = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), v4.port());
    let _listener = listen(&netns, v4);
    let culprit = Culprit::trace("");
    for _ in 0..5 {
        netns.enter(move || {
            TcpStream::connect(v6).expect_err("nothing listens there");
            TcpStream::connect(v4).expect("it listens here");
        });
    }
    // The same failures alone do open one, which comes last.
    let proof = SocketAddr::new(netns.loopback(), port());
    for _ in 0..3 {
        connect(&netns, proof).0.expect_err("nothing listens");
    }
    culprit.wait_for_incident("the failures without a fallback", |emitted| {
        emitted.blamed() == proof.to_string()
    });
    let opened = culprit.incidents(|emitted| emitted.blamed().ends_with(&format!(":{}", v4.port())));
    assert!(opened.is_empty(), "{opened:#?}");
}
