//! culprit itself: what it leaves behind, how it ends, what it reports of itself.

use std::{collections::HashSet, net::SocketAddr};

use rustix::process::Signal;

use crate::{
    harness::{Culprit, Netns, culprit::binary, eventually, port, require::in_btf, sockets::connect},
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
    // The kernel frees them once no processor can be running them any more.
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
    connect(&netns, to).0.expect_err("nothing listens");
    for culprit in [&first, &second] {
        culprit.wait_for("the refusal", |fact| fact.is_to("connect_ended", to));
    }
    assert!(first.stop().status.success());
    let again = SocketAddr::new(netns.loopback(), port());
    connect(&netns, again).0.expect_err("nothing listens");
    second.wait_for("what the first no longer sees", |fact| fact.is_to("connect_ended", again));
}

#[test]
fn the_summary_counts_what_was_emitted() {
    needs!();
    let netns = Netns::make();
    let culprit = Culprit::trace("");
    culprit.settle(&netns);
    let ended = culprit.stop();
    assert_eq!(ended.summary["events"], ended.facts.len());
    assert!(ended.summary["duration_ms"].as_u64().is_some_and(|ms| ms > 0), "{}", ended.summary);
}

#[test]
fn it_ends_by_itself_after_the_given_time_or_number_of_events() {
    needs!();
    let netns = Netns::make();
    let ended = Culprit::trace("--for 300ms").finish();
    assert!(ended.status.success(), "{ended:?}");
    let to = SocketAddr::new(netns.loopback(), port());
    let culprit = Culprit::trace(&format!("--max-events 3 --port {}", to.port()));
    for _ in 0..4 {
        connect(&netns, to).0.expect_err("nothing listens");
    }
    let ended = culprit.finish();
    assert_eq!((ended.status.code(), ended.facts.len()), (Some(0), 3), "{ended:?}");
}

#[test]
fn doctor_succeeds_where_every_requested_probe_is_supported() {
    needs!();
    let output = binary().args(["doctor", "--probes", "connect,tls,dns"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for probe in ["connect", "tls", "dns"] {
        assert!(said.contains(probe), "{said}");
    }
}

#[test]
fn every_hook_that_this_kernel_supports_attaches() {
    needs!();
    let output = binary().args(["doctor", "--format", "json"]).output().expect("it starts");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = said["probes"].as_array().expect("a list");
    let found = |check: &serde_json::Value| check["found"].as_str().unwrap_or_default().to_owned();
    let probes: Vec<_> = checks.iter().filter(|check| check["name"] != "").collect();
    assert!(probes.len() >= 5 && output.status.success(), "{said:#}");
    for check in checks.iter().filter(|check| check["name"] == "") {
        let missing = found(check);
        let tracepoint = missing.split_once("this kernel has no tracepoint ").map(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
        });
        let excused = tracepoint.is_some_and(|name| !in_btf(&format!("btf_trace_{name}")));
        assert!(excused, "a hook does not attach although the kernel has what it needs: {missing}");
    }
}
