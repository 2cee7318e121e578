//! The page, in a real browser: what must hold say tests/page/page.test.mjs of what happens, and tests/page/crowd.test.mjs
//! of incidents in every shape.

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

    /// What drives the browser, and where.
    fn driver() -> (Running, SocketAddr) {
        let driver = SocketAddr::from(([127, 0, 0, 1], port()));
        let mut chromedriver = Command::new("chromedriver");
        chromedriver.args([&format!("--port={}", driver.port()), "--allowed-ips=127.0.0.1"]);
        let running = Running::spawn(&mut chromedriver);
        eventually("chromedriver answers", || std::net::TcpStream::connect(driver).is_ok());
        (running, driver)
    }

    fn script(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/page").join(name)
    }

    #[test]
    fn the_page_bears_chains_crowds_and_names_of_strangers_and_axe_has_nothing_against_it() {
        needs!(Chromium, Node, Axe, Pace);
        let setup = Setup::make();
        let daemon = setup.start("");
        let (_driver, driver) = driver();
        let mut node = Command::new("node");
        node.arg(script("crowd.test.mjs"));
        node.args([format!("http://{}", daemon.address), format!("http://{driver}")]);
        node.args(std::env::var_os("CULPRIT_AXE")).args(std::env::var_os("CULPRIT_SCREENSHOTS"));
        let mut node = Running::spawn(&mut node);
        let mut said = String::new();
        let deadline = Instant::now() + Duration::from_secs(240);
        while let Ok(Some(line)) = node.next_line(deadline) {
            said.push_str(&(line + "\n"));
        }
        assert!(node.wait().success(), "{said}{}", node.stderr());
    }

    #[test]
    fn the_page_shows_events_live_by_keyboard_by_mouse_and_on_a_phone() {
        needs!(Chromium, Node, Nftables, Pace);
        let (setup, faults, pair) = (Setup::make(), Faults::make(), Pair::make());
        let daemon = setup.start("");
        let (_driver, driver) = driver();
        let (_waits, at) = faults.begin();
        daemon.culprit.wait_for_incident("one to look at", |incident| to(incident, at) && incident.opens());
        let mut node = Command::new("node");
        // No host has this address: what connects there waits because of the neighbour.
        let absent = SocketAddr::new(pair.v4(77), 80);
        node.arg(script("page.test.mjs"))
            .args([format!("http://{}", daemon.address), format!("http://{driver}")]);
        node.args([at.to_string(), absent.to_string()]);
        // For a person to look at.
        node.args(std::env::var_os("CULPRIT_SCREENSHOTS"));
        let mut node = Running::spawn(&mut node);
        let (mut said, mut held, mut more) = (String::new(), Vec::new(), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Ok(Some(line)) = node.next_line(deadline) {
            match line.as_str() {
                "ask: incident" => more.push(faults.begin_as_another_program()),
                "ask: chain" => held.push(begin_connect(&pair.client, absent).0),
                "ask: stop" => daemon.culprit.running().signal(Signal::TERM),
                _ => said.push_str(&(line + "\n")),
            }
        }
        assert!(node.wait().success(), "{said}{}", node.stderr());
    }
}
