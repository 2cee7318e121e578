//! A recording made live replays, on any machine, to what a trace printed at the time.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    harness::{
        Culprit, Netns, Running, Scratch,
        culprit::binary,
        dns::{Answer, PORT, answer_once, ask, query},
        eventually, port,
        sockets::{connect, listen_on_loopback},
        tls::{Identity, openssl_client},
    },
    needs,
    tls::handshakes::step,
};

const UNPRIVILEGED: u32 = 65534;

/// Replays as an ordinary user.
fn replay(file: &Path, args: &[&str]) -> Output {
    let mut command = binary();
    command.arg("replay").arg(file).args(args);
    as_unprivileged_user(&mut command).output().expect("it starts")
}

fn as_unprivileged_user(command: &mut Command) -> &mut Command {
    command.uid(UNPRIVILEGED).gid(UNPRIVILEGED)
}

/// The facts of a JSON stream about this namespace, without what two observers never agree on: when.
fn facts_of(lines: impl Iterator<Item = Value>, netns: &Netns) -> Vec<Value> {
    let mut emitted = Vec::new();
    for mut line in lines {
        let pending = line["kind"].as_str().is_some_and(|kind| kind.ends_with("_pending"));
        if line["type"] != "event" || pending || line["process"]["netns"] != netns.name() {
            continue;
        }
        let fields = line.as_object_mut().expect("an object");
        fields.retain(|name, _| !name.ends_with("_ms") && name != "at" && name != "boot_ns");
        emitted.push(line);
    }
    emitted
}

fn lines(output: &[u8]) -> impl Iterator<Item = Value> + '_ {
    output.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        serde_json::from_slice(line)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
    })
}

/// Something of everything: a lookup, a connect by name, a refused one, a handshake.
fn scenario(netns: &Netns, identity: &Identity, service: SocketAddr) -> [Running; 2] {
    let (_listener, to) = listen_on_loopback(netns);
    let std::net::IpAddr::V4(address) = to.ip() else { unreachable!("loopback is IPv4") };
    let server = SocketAddr::new(to.ip(), PORT);
    let serving = answer_once(netns, server, Answer::Address(address));
    netns.enter(move || ask(server, &query(1, "recorded.test")).expect("an answer"));
    serving.join().expect("served");
    connect(netns, to).0.expect("it listens");
    connect(netns, SocketAddr::new(to.ip(), port())).0.expect_err("nothing listens");
    let server = identity.server(netns, service, "");
    [openssl_client(netns, service, ""), server]
}

/// A `culprit record` that has attached.
fn begin_recording(file: &Path) -> Running {
    let mut command = binary();
    command.arg("record").arg(file);
    let recording = Running::spawn(&mut command);
    eventually("it records", || recording.stderr().contains("recording"));
    recording
}

fn end_recording(mut recording: Running) {
    recording.signal(rustix::process::Signal::INT);
    assert!(recording.wait().success(), "{}", recording.stderr());
}

#[test]
fn an_existing_recording_is_overwritten_only_with_force() {
    needs!();
    let scratch = Scratch::make();
    let file = scratch.join("recording");
    std::fs::write(&file, "precious").expect("room");
    let mut refused = binary();
    refused.arg("record").arg(&file);
    let mut refused = Running::spawn(&mut refused);
    assert_eq!(refused.wait().code(), Some(1));
    let said = refused.stderr();
    assert!(said.contains("it exists") && said.contains("--force"), "{said}");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "precious");
    let mut forced = binary();
    forced.arg("record").arg("--force").arg(&file);
    let forced = Running::spawn(&mut forced);
    eventually("it records", || forced.stderr().contains("recording"));
    end_recording(forced);
    assert!(std::fs::read(&file).expect("it is there").len() > 8);
}

/// A finished recording of the scenario, and the trace of the same.
fn record(scratch: &Scratch, netns: &Netns) -> (std::path::PathBuf, Vec<Value>) {
    let identity = Identity::make();
    let file = scratch.join("recording");
    let recording = begin_recording(&file);
    let culprit = Culprit::trace("");
    let service = SocketAddr::new(netns.loopback(), port());
    let running = scenario(netns, &identity, service);
    step(&culprit, "client", service, "handshake_done");
    culprit.settle(netns);
    let traced = culprit.stop().facts;
    end_recording(recording);
    // Only now: both must have had the chance to look at the processes.
    drop(running);
    (file, traced.into_iter().map(|fact| fact.json).collect())
}

#[test]
fn a_replay_by_an_unprivileged_user_prints_what_the_trace_printed() {
    needs!(Openssl, Pace);
    let (scratch, netns) = (Scratch::make(), Netns::make());
    let (file, traced) = record(&scratch, &netns);
    let first = replay(&file, &["--format", "json"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let replayed = facts_of(lines(&first.stdout), &netns);
    let traced = facts_of(traced.into_iter(), &netns);
    assert!(traced.len() > 8, "{traced:#?}");
    assert_eq!(replayed, traced);
    let named = replayed.iter().any(|fact| fact["destination"]["name"] == "recorded.test");
    assert!(named, "names are known in the replay too");
}

#[test]
fn a_recording_ends_with_the_count_that_its_replay_ends_with() {
    needs!();
    let (scratch, netns) = (Scratch::make(), Netns::make());
    let file = scratch.join("recording");
    let mut recording = begin_recording(&file);
    let (_listener, to) = listen_on_loopback(&netns);
    connect(&netns, to).0.expect("it listens");
    recording.signal(rustix::process::Signal::INT);
    assert!(recording.wait().success(), "{}", recording.stderr());
    // All but how long it took, which is by another clock.
    let counted = |said: &str| {
        let last = said.lines().last().and_then(|line| line.rsplit_once(", "));
        last.map(|(count, _)| count.to_owned()).expect("a closing line")
    };
    let recorded = counted(&recording.stderr());
    assert!(recorded.contains(" events, ") && !recorded.contains(" 0 events"), "{recorded}");
    assert_eq!(recorded, counted(&String::from_utf8_lossy(&replay(&file, &[]).stderr)));
}

#[test]
fn two_replays_print_the_same_bytes_in_every_format() {
    needs!(Openssl, Pace);
    let (scratch, netns) = (Scratch::make(), Netns::make());
    let (file, _) = record(&scratch, &netns);
    for form in [&["--format", "json"][..], &["-tt"], &["-c"]] {
        let (first, second) = (replay(&file, form), replay(&file, form));
        assert!(first.status.success() && !first.stdout.is_empty(), "{form:?}: {first:?}");
        assert_eq!(first.stdout, second.stdout, "{form:?}");
        assert_eq!(first.stderr, second.stderr, "{form:?}");
    }
}

#[test]
fn a_truncated_recording_is_replayed_up_to_where_it_is_whole_and_reported() {
    needs!(Openssl, Pace);
    let (scratch, netns) = (Scratch::make(), Netns::make());
    let (file, _) = record(&scratch, &netns);
    let events = |output: &Output| -> Vec<Value> {
        lines(&output.stdout).filter(|line| line["type"] == "event").collect()
    };
    let whole = events(&replay(&file, &["--format", "json"]));
    let bytes = std::fs::read(&file).expect("just written");
    let torn = scratch.join("torn");
    let mut longest = 0;
    for eighth in 1..8 {
        let cut = bytes.len() * eighth / 8;
        std::fs::write(&torn, &bytes[..cut]).expect("our own directory");
        let output = replay(&torn, &["--format", "json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cut at {cut} of {}: {said}", bytes.len());
        let part = events(&output);
        assert!(whole.starts_with(&part), "cut at {cut}: not a beginning of the whole");
        assert!(part.len() >= longest, "cut at {cut}: less than from a shorter recording");
        longest = part.len();
        assert!(said.lines().count() >= 2, "cut at {cut}: it does not say that something is missing: {said}");
    }
}

#[test]
fn a_killed_recording_keeps_what_reached_the_disk() {
    needs!(Pace);
    let (scratch, netns) = (Scratch::make(), Netns::make());
    let file = scratch.join("killed");
    let recording = begin_recording(&file);
    let to = SocketAddr::new(netns.loopback(), port());
    connect(&netns, to).0.expect_err("nothing listens");
    eventually("the connect is on disk", || {
        let output = replay(&file, &["--format", "json"]);
        output.status.success() && lines(&output.stdout).any(|line| line["destination"]["port"] == to.port())
    });
    recording.signal(rustix::process::Signal::KILL);
    drop(recording);
    let output = replay(&file, &["--format", "json"]);
    assert!(output.status.success(), "{output:?}");
    assert!(lines(&output.stdout).any(|line| line["destination"]["port"] == to.port()));
}
