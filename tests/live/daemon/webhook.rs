//! Webhooks: signed, in order, retried after a failure and across a crash.

use std::{net::SocketAddr, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use rustix::process::Signal;
use serde_json::Value;
use sha2::Sha256;

use crate::{
    harness::{
        daemon::{Faults, Receiver, Setup, to},
        port, slow,
    },
    needs,
};

fn header<'a>(head: &'a [String], name: &str) -> &'a str {
    let found = head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("{name}: {head:?}"))
}

fn next(receiver: &Receiver) -> (Vec<String>, Value, String) {
    let (head, body) =
        receiver.got.recv_timeout(Duration::from_secs(20).mul_f64(slow())).expect("a delivery");
    (head, serde_json::from_str(&body).expect("JSON"), body)
}

#[test]
fn a_webhook_gets_each_incident_signed_in_order_and_retried_until_accepted() {
    needs!(Nftables, Pace);
    let (setup, faults) = (Setup::make(), Faults::make());
    let receiver = Receiver::start(([127, 0, 0, 1], 0).into(), &[503, 200, 400, 200], &faults);
    let secret = setup.files.join("secret");
    std::fs::write(&secret, "hush\n").expect("room");
    let daemon = setup.start(&format!(
        "--webhook http://{}/hook --webhook-secret-file {}",
        receiver.address,
        secret.display()
    ));
    let (waits, at) = faults.begin();
    let opened = daemon.culprit.wait_for_incident("it", |incident| to(incident, at) && incident.opens());
    let (head, refused, _) = next(&receiver);
    assert_eq!((head[0].as_str(), &refused["id"]), ("post /hook http/1.1", &opened.json["id"]));
    let (head, taken, body) = next(&receiver);
    assert_eq!((&taken["state"], &taken["id"]), (&"open".into(), &refused["id"]));
    let mut hmac = Hmac::<Sha256>::new_from_slice(b"hush").expect("a key");
    hmac.update(format!("{}.{body}", header(&head, "x-culprit-timestamp")).as_bytes());
    let hex: String = hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header(&head, "x-culprit-signature"), format!("sha256={hex}"));
    drop(waits);
    // Refused for good: not sent again.
    let (_, resolved, _) = next(&receiver);
    assert_eq!((&resolved["state"], &resolved["id"]), (&"resolved".into(), &refused["id"]));
    let (_waits, second) = faults.begin();
    let (_, other, _) = next(&receiver);
    assert!(other["summary"].as_str().is_some_and(|text| text.contains(&second.to_string())), "{other}");
}

#[test]
fn undelivered_notifications_outlive_the_daemon() {
    needs!(Nftables, Pace);
    let (setup, faults) = (Setup::make(), Faults::make());
    let at = SocketAddr::from(([127, 0, 0, 1], port()));
    let daemon = setup.start(&format!("--webhook http://{at}/"));
    let (_waits, stalled) = faults.begin();
    let opened = daemon.culprit.wait_for_incident("it", |incident| to(incident, stalled) && incident.opens());
    daemon.culprit.running().signal(Signal::KILL);
    drop(daemon);
    let receiver = Receiver::start(at, &[200], &faults);
    let _daemon = setup.start(&format!("--webhook http://{at}/"));
    loop {
        let (_, emitted, _) = next(&receiver);
        if emitted["id"] == opened.json["id"] {
            break;
        }
    }
}
