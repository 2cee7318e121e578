//! Start, reload, shutdown, and an unexpected end.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    harness::{
        Culprit,
        culprit::binary,
        daemon::{Faults, Setup, to},
        eventually,
    },
    needs,
};

fn stored(setup: &Setup, args: &str) -> Vec<Value> {
    let mut list = binary();
    list.args(["incidents", "--format", "json", "--store", &setup.store()]).args(args.split_whitespace());
    let output = list.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn an_incident_is_printed_stored_served_and_shown_and_shutdown_closes_open_ones() {
    needs!(Nftables);
    let (mut setup, faults) = (Setup::make(), Faults::make());
    let word = setup.supervise();
    let daemon = setup.start("");
    let mut reader = daemon.listen();
    let mut heard = Vec::new();
    let mut hear = |wanted: &str| {
        let mut bytes = [0; 256];
        while !heard.iter().any(|said: &String| said.contains(wanted)) {
            let len = word.recv(&mut bytes).unwrap_or_else(|_| panic!("{wanted}? {heard:?}"));
            heard.push(String::from_utf8_lossy(&bytes[..len]).into_owned());
        }
    };
    hear("READY=1");
    let (over, first) = faults.begin();
    let opened = reader.wait_for("the incident", |incident| to(incident, first) && incident.opens());
    let printed = daemon.culprit.wait_for_incident("the same", |incident| incident.id() == opened.id());
    assert_eq!(printed.text("/summary"), opened.text("/summary"));
    let one = daemon.get(&format!("/api/v1/incidents/{}", opened.id())).json();
    assert_eq!(one["summary"], opened.json["summary"]);
    drop(over);
    let resolved =
        reader.wait_for("its end", |incident| to(incident, first) && incident.text("/state") == "resolved");
    assert_eq!(resolved.id(), opened.id());
    let (_held, second) = faults.begin();
    let open = reader.wait_for("another", |incident| to(incident, second) && incident.opens());
    hear("WATCHDOG=1");
    daemon.culprit.running().signal(Signal::TERM);
    hear("STOPPING=1");
    let ended = daemon.culprit.finish();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.summary["lost"], 0);
    assert!(ended.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", ended.stderr);
    let kept = stored(&setup, "");
    let find =
        |id: &str| kept.iter().find(|kept| kept["id"] == id).unwrap_or_else(|| panic!("{id}: {kept:?}"));
    assert_eq!(find(opened.id())["state"], "resolved");
    let why = find(open.id())["why"].to_string();
    assert!(find(open.id())["state"] == "resolved" && why.contains("culprit stopped watching"), "{why}");
    assert!(stored(&setup, "--state open").is_empty());
    let shown =
        binary().args(["show", &opened.id()[20..], "--store", &setup.store()]).output().expect("it runs");
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(
        shown.contains("CONNECT STALLED") && shown.contains("Try:") && shown.contains(opened.id()),
        "{shown}"
    );
}

#[test]
fn a_reload_applies_what_can_change_and_an_invalid_file_changes_nothing() {
    needs!(Nftables);
    let (setup, faults) = (Setup::make(), Faults::make());
    let file = setup.files.join("culprit.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("room");
    write("connect_stall = \"1h\"\n");
    let daemon = setup.start(&format!("--config {}", file.display()));
    let said = |text: &str| {
        let running = daemon.culprit.running();
        eventually(text, || running.stderr().contains(text));
    };
    let (_waits, patient) = faults.begin();
    write("connect_stall = \"soon\"\n");
    daemon.culprit.running().signal(Signal::HUP);
    said("culprit.toml:1: connect_stall: invalid value 'soon'");
    write("connect_stall = \"300ms\"\nring_mib = 8\nlog_level = \"debug\"\n");
    daemon.culprit.running().signal(Signal::HUP);
    said("ring-mib has changed: that takes a restart");
    said("changed connect-stall, log-level");
    daemon.culprit.wait_for_incident("a stall", |incident| to(incident, patient) && incident.opens());
    daemon.culprit.running().signal(Signal::HUP);
    said("nothing has changed");
}

#[test]
fn a_second_daemon_runs_beside_it_with_its_own_store_and_address() {
    needs!(Nftables, Pace);
    let (setup, other, faults) = (Setup::make(), Setup::make(), Faults::make());
    let first = setup.start("");
    for (option, value, wanted) in [
        ("--store", setup.store(), "another culprit keeps this store"),
        ("--listen", first.address.to_string(), "Address already in use"),
        ("--listen", "192.0.2.1:1".into(), "Cannot assign requested address"),
    ] {
        let output = binary().args(["run", "--for", "1s", option, &value]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(wanted), "{output:?}");
        assert!(said.contains(&value), "{said}");
    }
    let second = other.start("");
    let (_waits, at) = faults.begin();
    for daemon in [&first, &second] {
        daemon.culprit.wait_for_incident("the incident", |incident| to(incident, at) && incident.opens());
    }
}

#[test]
fn no_incident_that_was_delivered_is_lost_by_a_kill() {
    needs!(Nftables, Pace);
    let (setup, faults) = (Setup::make(), Faults::make());
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..6 {
        let daemon = setup.start("");
        let mut reader = daemon.listen();
        let waiting: Vec<_> = (0..8).map(|_| faults.begin_as_another_program()).collect();
        // At another moment each time: some are delivered, others not yet.
        for _ in 0..=round {
            let incident = reader.incident().expect("it lives");
            acknowledged.push(incident.id().to_owned());
        }
        daemon.culprit.running().signal(Signal::KILL);
        while let Some(incident) = reader.incident() {
            acknowledged.push(incident.id().to_owned());
        }
        drop((waiting, daemon));
        let kept: Vec<String> = stored(&setup, "--limit 1000")
            .iter()
            .filter_map(|one| one["id"].as_str().map(str::to_owned))
            .collect();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !kept.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {acknowledged:?}");
    }
    assert!(acknowledged.len() >= 21, "{acknowledged:?}");
}

#[test]
fn the_daemon_serves_within_a_second() {
    needs!(MeasuredTime);
    let setup = Setup::make();
    let best = (0..5)
        .map(|_| {
            let begun = Instant::now();
            let daemon = setup.start("");
            assert_eq!(daemon.get("/readyz").status, 200);
            begun.elapsed()
        })
        .min()
        .expect("five");
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[test]
fn a_client_that_reads_nothing_delays_neither_the_daemon_nor_its_shutdown() {
    needs!(Nftables, Pace);
    let (setup, faults) = (Setup::make(), Faults::make());
    let mut command = binary();
    command.args(["run", "--format", "json", "--listen", "none", "--connect-stall", "300ms"]);
    command.args(["--store", &setup.store()]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // Soon full.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("small");
    let mut child = command.stdin(std::process::Stdio::null()).stdout(writer).spawn().expect("it runs");
    let pid = rustix::process::Pid::from_child(&child);
    // It has begun; from here on nothing reads.
    let mut reader = std::io::BufReader::with_capacity(64, reader);
    std::io::BufRead::read_line(&mut reader, &mut String::new()).expect("the first line");
    let waiting: Vec<_> = (0..20).map(|_| faults.begin_as_another_program()).collect();
    eventually("all are kept", || {
        std::path::Path::new(&setup.store()).exists() && stored(&setup, "").len() >= waiting.len()
    });
    rustix::process::kill_process(pid, Signal::TERM).expect("our own child");
    let begun = Instant::now();
    while child.try_wait().expect("our own child").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(15), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(reader);
}

#[test]
fn a_damaged_store_is_set_aside_and_reported() {
    needs!(Pace);
    let setup = Setup::make();
    std::fs::write(setup.store(), vec![0x5a; 20_000]).expect("room");
    let daemon = setup.start("");
    let said = daemon.culprit.running().stderr();
    assert!(said.contains("the store was damaged: it is now") && said.contains(".damaged-"), "{said}");
    assert_eq!(daemon.get("/healthz").status, 200);
    let ended = Culprit::stop(daemon.culprit);
    assert!(ended.status.success());
}
