//! What depends on the kernel or the machine: a clock set by a 32-bit call, which no tracepoint shows; a cgroup filter.

use std::process::Command;

use crate::{
    clock::steps::{ClockGuard, SECOND},
    harness::{
        Culprit, Netns, Scratch,
        process::{Running, run, words},
        slow,
    },
    needs,
};

/// Calls settimeofday by the 32-bit entry, the wall clock plus one second; 77 when there is no such entry.
const BY_INT_80: &str = r#"
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static int tv[2]; /* below 4 GiB: linked without PIE */
static long call(int number, long first, long second) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second) : "memory", "r8", "r9", "r10", "r11");
    return result;
}
static void none(int signal) { _exit(77); }
int main(void) {
    signal(SIGSEGV, none);
    if (call(20, 0, 0) != getpid()) return 77;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    tv[0] = now.tv_sec + 1;
    tv[1] = now.tv_nsec / 1000;
    return call(79, (long)tv, 0) != 0;
}
"#;

#[test]
fn a_step_by_a_32_bit_call_is_found_although_no_call_was_seen() {
    needs!(Gcc);
    let scratch = Scratch::make();
    let (source, program) = (scratch.join("step.c"), scratch.join("step"));
    std::fs::write(&source, BY_INT_80).expect("scratch");
    run(Command::new("gcc").args(["-O1", "-no-pie", "-o"]).args([&program, &source]));
    let guard = ClockGuard::lock();
    let culprit = Culprit::trace("-e clock");
    let mut step = Running::spawn(&mut Command::new(&program));
    let status = step.wait();
    if status.code() == Some(77) {
        let test = "attach::compat::a_step_by_a_32_bit_call_is_found_although_no_call_was_seen";
        return crate::harness::require::skip(test, "this kernel has no 32-bit system calls");
    }
    assert!(status.success(), "{status}");
    let moved = culprit.wait_for("the move", |fact| fact.kind() == "clock_moved");
    drop(guard);
    let delta = moved.json["delta_ns"].as_i64().expect("a number");
    assert!((delta - SECOND).abs() < (50_000_000.0 * slow()) as i64, "{moved:?}");
    assert!(moved.is("was_set") && moved.json["process"].is_null(), "{moved:?}");
    assert!(culprit.seen(|fact| fact.kind() == "clock_set" && fact.pid() == step.pid()).is_empty());
    let opened = culprit.wait_for_incident("the jump", |incident| {
        incident.text("/kind") == "clock_stepped" && incident.opens()
    });
    assert_eq!((opened.blame(), opened.text("/details/steps/0/how")), (("clock", "possible"), "hypervisor"));
    let why = opened.text("/why/0");
    assert!(why.starts_with("No call set it: ") && why.contains("a 32-bit process"), "{why}");
}

#[test]
fn only_events_of_the_requested_cgroup_are_emitted() {
    needs!();
    let root = culprit::kernel::cgroup::root().expect("a cgroup v2 root");
    let name = format!("culprit-test-{}", std::process::id());
    let group = root.join(&name);
    std::fs::create_dir(&group).expect("root may make a group");
    let netns = Netns::make();
    let address = netns.loopback();
    let culprit = Culprit::trace(&format!("--cgroup {name}"));
    let connect = |port: u16| {
        let mut bash = words("bash -c");
        bash.arg(format!("read line; exec 3<>/dev/tcp/{address}/{port}"));
        netns.spawn(bash)
    };
    let [(mut outside, from), (mut inside, to)] = [crate::harness::port(), crate::harness::port()]
        .map(|port| (connect(port), std::net::SocketAddr::new(address, port)));
    std::fs::write(group.join("cgroup.procs"), inside.pid().to_string()).expect("a process moves");
    for running in [&mut outside, &mut inside] {
        running.say("\n");
        running.wait();
    }
    let end = crate::connect::outcomes::end_of(&culprit, to);
    assert_eq!(end.pid(), inside.pid());
    assert!(culprit.seen(|fact| fact.at("destination") == Some(from)).is_empty());
    drop((outside, inside));
    std::fs::remove_dir(&group).expect("no process is left in it");
}
