//! The page, in a real browser: tests/page/page.test.mjs says what must hold.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    harness::{
        Running,
        daemon::{Faults, Setup, to},
        eventually,
        netns::Pair,
        port,
        sockets::begin_connect,
    },
    needs,
};

/// A browser is load to a small machine, and the page shows what happens to every test on it.
mod load {
    use super::*;

    #[test]
    fn the_page_shows_events_live_by_keyboard_by_mouse_and_on_a_phone() {
        needs!(Chromium, Node, Nftables, Pace);
        let (setup, faults, pair) = (Setup::make(), Faults::make(), Pair::make());
        let daemon = setup.start("");
        let driver = SocketAddr::from(([127, 0, 0, 1], port()));
        let mut chromedriver = Command::new("chromedriver");
        chromedriver.args([&format!("--port={}", driver.port()), "--allowed-ips=127.0.0.1"]);
        let _driver = Running::spawn(&mut chromedriver);
        eventually("chromedriver answers", || std::net::TcpStream::connect(driver).is_ok());
        let (_waits, at) = faults.begin();
        daemon.culprit.wait_for_incident("one to look at", |incident| to(incident, at) && incident.opens());
        let test = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/page/page.test.mjs");
        let mut node = Command::new("node");
        // No host has this address: what connects there waits because of the neighbour.
        let nobody = SocketAddr::new(pair.v4(77), 80);
        node.arg(test).args([format!("http://{}", daemon.address), format!("http://{driver}")]);
        node.args([at.to_string(), nobody.to_string()]);
        // For a person to look at.
        node.args(std::env::var_os("CULPRIT_SCREENSHOTS"));
        let mut node = Running::spawn(&mut node);
        let (mut said, mut held, mut more) = (String::new(), Vec::new(), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Ok(Some(line)) = node.next_line(deadline) {
            match line.as_str() {
                "ask: incident" => more.push(faults.begin_as_another_program()),
                "ask: chain" => held.push(begin_connect(&pair.client, nobody).0),
                "ask: stop" => daemon.culprit.running().signal(Signal::TERM),
                _ => said.push_str(&(line + "\n")),
            }
        }
        assert!(node.wait().success(), "{said}{}", node.stderr());
    }
}
