//! culprit itself: what it costs to start, what it leaves behind, what it says when it cannot keep up.

use std::{collections::HashSet, net::SocketAddr, time::Instant};

use rustix::process::Signal;

use crate::{
    harness::{
        Culprit, Netns,
        culprit::{Ended, binary},
        eventually, port, slow,
        sockets::connect,
    },
    needs,
};

/// Programs and links a process holds, by the kernel's numbers for them.
fn held_by(pid: u32) -> (HashSet<u32>, HashSet<u32>) {
    let (mut programs, mut links) = (HashSet::new(), HashSet::new());
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten() {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let number =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok());
        match (number("link_id:"), number("prog_id:")) {
            (Some(link), _) => links.extend([link]),
            (None, Some(program)) => programs.extend([program]),
            _ => {}
        };
    }
    (programs, links)
}

/// Those of them the kernel still has.
fn left(programs: &HashSet<u32>, links: &HashSet<u32>) -> usize {
    let loaded = aya::programs::loaded_programs().filter_map(Result::ok).map(|program| program.id());
    let attached = aya::programs::loaded_links().filter_map(Result::ok).map(|link| link.id());
    loaded.filter(|id| programs.contains(id)).count() + attached.filter(|id| links.contains(id)).count()
}

fn leaves_nothing_when(end: impl FnOnce(Culprit)) {
    let culprit = Culprit::trace("");
    let (programs, links) = held_by(culprit.pid());
    assert!(programs.len() >= 5 && links.len() >= 5, "{} programs, {} links", programs.len(), links.len());
    assert_eq!(left(&programs, &links), programs.len() + links.len());
    end(culprit);
    // The kernel frees them once nobody can be running them any more.
    eventually("everything is detached and unloaded", || left(&programs, &links) == 0);
}

#[test]
fn an_interrupt_leaves_nothing_attached() {
    needs!();
    leaves_nothing_when(|culprit| {
        let ended = culprit.stop();
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(ended.summary["lost"], 0);
    });
}

#[test]
fn being_killed_leaves_nothing_attached() {
    needs!();
    leaves_nothing_when(|culprit| culprit.running().signal(Signal::KILL));
}

#[test]
fn two_instances_do_not_disturb_each_other() {
    needs!();
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let (first, second) = (Culprit::trace(""), Culprit::trace(""));
    connect(&netns, to).0.expect_err("nobody listens");
    for culprit in [&first, &second] {
        culprit.wait_for("the refusal", |fact| fact.is_to("connect_ended", to));
    }
    assert!(first.stop().status.success());
    let again = SocketAddr::new(netns.loopback(), port());
    connect(&netns, again).0.expect_err("nobody listens");
    second.wait_for("what the first no longer sees", |fact| fact.is_to("connect_ended", again));
}

#[test]
fn the_summary_counts_what_was_told() {
    needs!();
    let netns = Netns::make();
    let culprit = Culprit::trace("");
    culprit.settle(&netns);
    let ended = culprit.stop();
    assert_eq!(ended.summary["events"], ended.facts.len());
    assert!(ended.summary["duration_ms"].as_u64().is_some_and(|ms| ms > 0), "{}", ended.summary);
}

#[test]
fn it_ends_by_itself_after_its_time_or_its_number_of_events() {
    needs!();
    let netns = Netns::make();
    let ended = Culprit::trace("--for 300ms").finish();
    assert!(ended.status.success(), "{ended:?}");
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace(&format!("--max-events 3 --port {}", to.port()));
    for _ in 0..4 {
        connect(&netns, to).0.expect_err("nobody listens");
    }
    let ended = culprit.finish();
    assert_eq!((ended.status.code(), ended.facts.len()), (Some(0), 3), "{ended:?}");
}

/// How many connects are a burst: more than a ring of one MiB holds. An emulated machine makes hundreds a
/// second, and every culprit of the tests beside this one has to tell them too.
fn burst_size() -> u64 {
    if slow() > 1.0 { 5_000 } else { 20_000 }
}

/// Refused connects, as fast as one thread can, while `culprit` looks on or does not.
fn burst(args: &str, asleep: bool) -> Ended {
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace(&format!("--probes connect --port {} {args}", to.port()));
    if asleep {
        culprit.running().signal(Signal::STOP);
    }
    netns.enter(move || {
        for _ in 0..burst_size() {
            std::net::TcpStream::connect(to).expect_err("nobody listens");
        }
    });
    if asleep {
        culprit.running().signal(Signal::CONT);
    }
    let ended = culprit.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    ended
}

/// Each connect makes two records: each was told or counted as lost, none twice.
#[track_caller]
fn adds_up(ended: &Ended) -> u64 {
    let told =
        ended.facts.iter().filter(|fact| ["connect_started", "connect_ended"].contains(&fact.kind())).count();
    let lost = ended.summary["lost"].as_u64().expect("a number");
    assert_eq!(told as u64 + lost, 2 * burst_size(), "{}\n{}", ended.summary, ended.stderr);
    lost
}

#[test]
fn in_a_burst_of_connects_each_is_told_or_counted_as_lost() {
    needs!();
    let ended = burst("", false);
    let lost = adds_up(&ended);
    if lost == 0 {
        assert!(ended.stderr.contains("none lost"), "{}", ended.stderr);
    }
}

#[test]
fn losses_of_a_ring_nobody_reads_are_counted_to_the_last_record() {
    needs!();
    let ended = burst("--ring-mib 1", true);
    let lost = adds_up(&ended);
    assert!(lost > 0, "1 MiB cannot hold them all: {}", ended.summary);
    assert_eq!(ended.summary["lost_by"][0]["reason"], "ring_full");
    assert!(ended.stderr.contains(&format!("{lost} LOST")), "{}", ended.stderr);
}

#[test]
fn it_attaches_within_a_second() {
    needs!(HonestClock);
    // Other tests run beside this one: the best of a few tries is what it costs.
    let best = (0..5).map(|_| {
        let before = Instant::now();
        let culprit = Culprit::trace("");
        let took = before.elapsed();
        culprit.stop();
        took
    });
    let best = best.min().expect("five tries");
    assert!(best.as_secs_f64() <= 1.0, "{best:?}");
}

#[test]
fn it_stays_within_forty_mebibytes() {
    needs!();
    let netns = Netns::make();
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace("");
    netns.enter(move || {
        for _ in 0..1000 {
            std::net::TcpStream::connect(to).expect_err("nobody listens");
        }
    });
    culprit.settle(&netns);
    let status = std::fs::read_to_string(format!("/proc/{}/status", culprit.pid())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib <= 40 * 1024, "{kib} KiB");
}

#[test]
fn doctor_agrees_that_everything_asked_for_is_there() {
    needs!();
    let output = binary().args(["doctor", "--probes", "connect,tls,dns"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for probe in ["connect", "tls", "dns"] {
        assert!(said.contains(probe), "{said}");
    }
}
