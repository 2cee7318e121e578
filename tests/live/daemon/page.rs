//! The page, in a real browser: tests/page/page.test.mjs says what must hold.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use crate::{
    harness::{
        Running,
        daemon::{Setup, Trouble, to},
        eventually, port,
    },
    needs,
};

#[test]
fn the_page_shows_what_happens_as_it_happens_to_keys_and_clicks_and_on_a_phone() {
    needs!(Chromium, Node, Nftables, Pace);
    let (setup, trouble) = (Setup::make(), Trouble::make());
    let daemon = setup.start("");
    let driver = SocketAddr::from(([127, 0, 0, 1], port()));
    let mut chromedriver = Command::new("chromedriver");
    chromedriver.args([&format!("--port={}", driver.port()), "--allowed-ips=127.0.0.1"]);
    let _driver = Running::spawn(&mut chromedriver);
    eventually("chromedriver answers", || std::net::TcpStream::connect(driver).is_ok());
    let (_waits, at) = trouble.begin();
    daemon.culprit.wait_for_incident("one to look at", |incident| to(incident, at) && incident.opens());
    let test = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/page/page.test.mjs");
    let mut node = Command::new("node");
    node.arg(test).arg(format!("http://{}", daemon.address)).arg(format!("http://{driver}"));
    let output = node.output().expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
