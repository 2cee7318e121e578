//! Steps of a second or so, undone at once; and what is no step.

use std::process::Command;

use rustix::time::ClockId;

use crate::{
    clock::steps::{ClockGuard, SECOND, nanoseconds, perl, timex},
    harness::{Culprit, Incident, Netns, Running, keep::Keeper, process::words},
    needs,
};

fn stepped(incident: &Incident) -> bool {
    incident.text("/kind") == "clock_stepped"
}

/// `date -s` by a shell, as a person who sets the clock by hand does.
#[track_caller]
fn date_minus_a_second() -> Running {
    let then = nanoseconds(ClockId::Realtime) - SECOND;
    let set = format!("date -u -s @{}.{:09} >/dev/null; exit", then / SECOND, then % SECOND);
    let mut shell = Running::spawn(Command::new("sh").args(["-c", &set]));
    assert!(shell.wait().success(), "{}", shell.stderr());
    shell
}

#[test]
fn a_date_set_by_hand_is_named_with_its_program_and_its_shell_in_both_modes() {
    for mode in ["full", "anomalies"] {
        let mut keeper =
            if mode == "full" { Keeper::new("clock_stepped/set_by_date") } else { Keeper::idle() };
        let guard = ClockGuard::lock();
        keeper.keep_clock("");
        let culprit = Culprit::trace(&format!("--mode {mode}"));
        let shell = date_minus_a_second();
        let opened = culprit.wait_for_incident("the step", |emitted| stepped(emitted) && emitted.opens());
        guard.restore();
        let step = &opened.json["details"]["steps"][0];
        assert_eq!(step["process"]["comm"], "date", "{step:#}");
        assert!(step["process"]["exe"].as_str().is_some_and(|exe| exe.ends_with("/bin/date")), "{step:#}");
        assert_eq!((&step["parent"]["pid"], &step["parent"]["comm"]), (&shell.pid().into(), &"sh".into()));
        assert_eq!(opened.json["cause"]["process"]["comm"], "date", "{:#}", opened.json);
        let resolved = culprit
            .wait_for_incident("its end", |emitted| emitted.text("/state") == "resolved" && stepped(emitted));
        assert_eq!(resolved.id(), opened.id());
        assert_eq!(culprit.incidents(|emitted| stepped(emitted) && emitted.opens()).len(), 1);
        keeper.catches_up();
        // The recorder's clock ticks later, and waits as long whether it comes again.
        std::thread::sleep(std::time::Duration::from_secs(if keeper.is_idle() { 0 } else { 12 }));
        keeper.end();
    }
}

#[test]
fn slews_reads_and_refusals_open_nothing_and_emit_nothing_in_anomalies_mode() {
    needs!(Perl);
    let _alone = ClockGuard::lock();
    let netns = Netns::make();
    let culprit = Culprit::trace("--mode anomalies");
    let keep = "$f = (unpack 'Lx4qq', $x)[2]; ";
    // Reads, and sets the frequency to what it is.
    let slew = timex(0, 0, 0)
        + &format!(
            "syscall(159, $x) >= 0 or die $!; {keep}substr($x, 0, 4) = pack('L', 2); syscall(159, $x) >= 0 or die $!; "
        )
        + &timex(0, 0, 0)
        + "syscall(305, 0, $x) >= 0 or die $!";
    let pid = perl(&slew);
    let unprivileged = "$) = '65534 65534'; $> = 65534; ";
    perl(&format!("{unprivileged}{}syscall(159, $x) == -1 or die 'set'", timex(0x100, 0, 1)));
    culprit.settle(&netns);
    let emitted = culprit.seen(|fact| fact.text("probe") == "clock" && fact.pid() == pid);
    assert!(emitted.is_empty(), "{emitted:?}");
    let opened = culprit.incidents(stepped);
    assert!(opened.is_empty(), "{opened:#?}");
}

#[test]
fn a_process_that_steps_the_clock_is_reported_despite_a_process_filter() {
    needs!(Perl, Pace);
    let mut other = Running::spawn(&mut words("sleep 60"));
    let guard = ClockGuard::lock();
    let culprit = Culprit::trace(&format!("-p {}", other.pid()));
    let pid = perl(&(timex(0x100, 0, 1) + "syscall(305, 0, $x) >= 0 or die $!"));
    let opened = culprit.wait_for_incident("the step", |emitted| stepped(emitted) && emitted.opens());
    drop(guard);
    assert_eq!(opened.json["details"]["steps"][0]["process"]["pid"], pid);
    other.signal(rustix::process::Signal::TERM);
    other.wait();
}

#[test]
fn without_syscall_hooks_a_step_is_found_and_no_process_is_named() {
    needs!(Perl, Pace);
    let guard = ClockGuard::lock();
    let culprit = Culprit::trace("-e clock --no-syscalls");
    perl(&(timex(0x100, 0, 1) + "syscall(305, 0, $x) >= 0 or die $!"));
    let opened = culprit.wait_for_incident("the step", |emitted| stepped(emitted) && emitted.opens());
    guard.restore();
    assert_eq!((opened.blame(), opened.text("/details/steps/0/how")), (("clock", "possible"), "unseen"));
    assert!(opened.text("/summary").contains("by whom cannot be seen: "), "{:#}", opened.json);
    let resolved = culprit
        .wait_for_incident("its end", |emitted| emitted.text("/state") == "resolved" && stepped(emitted));
    assert_eq!((resolved.id(), resolved.text("/details/verdict")), (opened.id(), "reverted"));
}

#[test]
fn a_container_is_named_even_if_its_process_exits_at_once() {
    needs!(Pace);
    const ID: &str = "c1d2e3f4c1d2e3f4c1d2e3f4c1d2e3f4c1d2e3f4c1d2e3f4c1d2e3f4c1d2e3f4";
    let root = culprit::kernel::cgroup::root().expect("a cgroup v2 root");
    let group = root.join(format!("docker-{ID}.scope"));
    std::fs::create_dir(&group).expect("root may make a group");
    let guard = ClockGuard::lock();
    let culprit = Culprit::trace("-e clock");
    let then = nanoseconds(ClockId::Realtime) + SECOND;
    let set = format!(
        "echo $$ > '{}/cgroup.procs' && exec date -u -s @{}.{:09}",
        group.display(),
        then / SECOND,
        then % SECOND
    );
    let mut inside = Running::spawn(Command::new("sh").args(["-c", &set]));
    assert!(inside.wait().success(), "{}", inside.stderr());
    let opened = culprit.wait_for_incident("the step", |emitted| stepped(emitted) && emitted.opens());
    guard.restore();
    std::fs::remove_dir(&group).expect("no process is left in it");
    let process = &opened.json["details"]["steps"][0]["process"];
    assert_eq!(
        (&process["pid"], &process["container_id"]),
        (&inside.pid().into(), &ID.into()),
        "{process:#}"
    );
    assert!(opened.text("/why/0").contains(&format!(", in container {}", &ID[..12])), "{:#}", opened.json);
}

#[test]
fn two_programs_that_set_the_clock_in_turns_are_one_incident_that_names_both() {
    needs!(Perl, Pace);
    let guard = ClockGuard::lock();
    let mut keeper = Keeper::new("clock_stepped/set_by_two_programs_in_turn");
    keeper.keep_clock("");
    let culprit = Culprit::trace("");
    for round in 0..3 {
        for (who, by) in [("guest-tools", 1), ("timekeeper", -1)] {
            perl(&format!("$0 = '{who}'; {}syscall(305, 0, $x) >= 0 or die $!", timex(0x100, 0, by)));
            let steps = 2 * round + if by > 0 { 1 } else { 2 };
            // Programs that set it in turns are reported every ten seconds, once that is known.
            if steps <= 3 {
                culprit.wait_for_incident("the step", |emitted| {
                    stepped(emitted) && emitted.number("/count") == steps
                });
            }
        }
    }
    let fought = culprit
        .wait_for_incident("the last step", |emitted| stepped(emitted) && emitted.number("/count") == 6);
    keeper.catches_up();
    keeper.end();
    guard.restore();
    let summary = fought.text("/summary");
    assert!(
        summary.starts_with("Two programs set the wall clock against each other: guest-tools["),
        "{summary}"
    );
    assert!(summary.contains(") forward 1 s, timekeeper["), "{summary}");
    assert!(summary.contains(") back 1 s; 6 steps in "), "{summary}");
    assert!(fought.json["process"].is_null() && fought.json["cause"]["process"].is_null(), "{fought:#?}");
    let all = culprit.incidents(stepped);
    let states = |state| all.iter().filter(|emitted| emitted.text("/state") == state).count();
    assert_eq!((states("open"), states("resolved")), (1, 0), "{all:#?}");
}
