//! The wall clock: stepped by each call, slewed, read, refused. Steps are of one second and undone at once, even when
//! a test fails; one test at a time steps.

use std::{cell::Cell, env, fs::File};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::{
    harness::{
        Culprit, Fact, Incident, Netns,
        culprit::binary,
        process::{Running, run, words},
        slow,
    },
    needs,
};

pub(crate) const SECOND: i64 = 1_000_000_000;

pub(crate) fn nanoseconds(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * SECOND + now.tv_nsec
}

/// Only one test steps the clock at a time, of this process or another; when this is dropped, the clock is right again.
pub(crate) struct ClockGuard {
    offset_ns: i64,
    is_right: Cell<bool>,
    _alone: File,
}

impl ClockGuard {
    pub(crate) fn lock() -> Self {
        let alone = File::create(env::temp_dir().join("culprit-test-clock.lock")).expect("a file of its own");
        alone.lock().expect("the last one lets go");
        Self {
            offset_ns: nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Monotonic),
            is_right: Cell::new(false),
            _alone: alone,
        }
    }
}

impl ClockGuard {
    /// Sets it right now; until this is dropped no other test steps the clock.
    pub(crate) fn restore(&self) {
        if self.is_right.replace(true) {
            return;
        }
        let right = nanoseconds(ClockId::Monotonic) + self.offset_ns;
        let to = Timespec { tv_sec: right.div_euclid(SECOND), tv_nsec: right.rem_euclid(SECOND) };
        clock_settime(ClockId::Realtime, to).expect("root may set the clock");
    }
}

impl Drop for ClockGuard {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Makes system calls by number, as the process whose id it returns.
#[track_caller]
pub(crate) fn perl(code: &str) -> u32 {
    let mut perl = words("perl -MTime::HiRes=clock_gettime -e");
    perl.arg(code);
    let mut running = Running::spawn(&mut perl);
    let pid = running.pid();
    let status = running.wait();
    assert!(status.success(), "{status}: {}", running.stderr());
    pid
}

/// Perl that fills `$x` with a `struct timex`: modes, offset, frequency, and the time's seconds.
pub(crate) fn timex(modes: u32, frequency: i64, seconds: i64) -> String {
    format!(
        "$x = pack('Lx4qqqqlx4qqqqqq', {modes}, 0, {frequency}, 0, 0, 0, 0, 0, 0, {seconds}, 0, 0) . \"\\0\" x 200; "
    )
}

/// Perl that sets `$t` to the wall clock plus some seconds, packed as two words; the second counts
/// `unit` to the second.
pub(crate) fn time_plus(seconds: i64, unit: i64) -> String {
    format!("$n = clock_gettime(0) + {seconds}; $t = pack('qq', int $n, ($n - int $n) * {unit}); ")
}

const CALLED: &str = " >= 0 or die $!";

fn about(fact: &Fact, pid: u32) -> bool {
    fact.text("probe") == "clock" && !fact.json["process"].is_null() && fact.pid() == pid
}

/// Steps by +1 s and −1 s, each reported once, with its author, and with no move left unexplained.
#[track_caller]
fn steps(call: &str, code: impl Fn(i64) -> String) {
    // One way is enough where everything takes long.
    for seconds in [1, -1].into_iter().take(if slow() > 1.0 { 1 } else { 2 }) {
        let guard = ClockGuard::lock();
        let culprit = Culprit::trace("-e clock");
        let pid = perl(&code(seconds));
        let step = culprit.wait_for("the step", |fact| about(fact, pid) && fact.kind() == "clock_set");
        guard.restore();
        assert_eq!((step.text("call"), step.comm(), step.is("refused")), (call, "perl", false));
        let delta = step.json["delta_ns"].as_i64().expect("a number");
        let tolerance = (50_000_000.0 * slow()) as i64;
        assert!((delta - seconds * SECOND).abs() < tolerance, "{step:?}");
        let (before, after) = (time(step.text("before")), time(step.text("after")));
        assert!((after - before - delta).abs() < 10_000, "{step:?}");
        let own_pid = std::process::id();
        culprit.wait_for("the way back", |fact| about(fact, own_pid) && fact.kind() == "clock_set");
        one_incident(&culprit, call, pid, seconds);
        let moves: Vec<Fact> =
            culprit.stop().facts.into_iter().filter(|fact| fact.kind() == "clock_moved").collect();
        assert!(moves.is_empty(), "a call accounts for each move: {moves:?}");
    }
}

/// Both steps are one incident, which names who made each and for how long the clock was wrong.
#[track_caller]
fn one_incident(culprit: &Culprit, call: &str, pid: u32, seconds: i64) {
    one_incident_by(culprit, call, pid, Some(std::process::id()), seconds);
}

/// The same of a program that another process may have started.
#[track_caller]
fn one_incident_by(culprit: &Culprit, call: &str, pid: u32, parent: Option<u32>, seconds: i64) {
    let stepped = |incident: &Incident| incident.text("/kind") == "clock_stepped";
    let opened = culprit.wait_for_incident("the step", |incident| stepped(incident) && incident.opens());
    let way = if seconds > 0 { "forward" } else { "back" };
    let named = format!("The wall clock was set {way} ");
    assert!(opened.text("/summary").starts_with(&named), "{:#}", opened.json);
    assert!(opened.text("/summary").contains(&format!(" by perl[{pid}], from ")), "{:#}", opened.json);
    assert_eq!((opened.blame(), opened.text("/severity")), (("clock", "certain"), "warning"));
    assert_eq!(opened.json["process"]["pid"], pid, "{:#}", opened.json);
    let step = &opened.json["details"]["steps"][0];
    assert_eq!((step["how"].as_str(), step["call"].as_str()), (Some("call"), Some(call)), "{step:#}");
    // The program is gone by the time `/proc` could be read.
    let exe = step["process"]["exe"].as_str().unwrap_or_default();
    assert!(exe.contains("/bin/perl"), "{step:#}");
    assert!(parent.is_none_or(|parent| step["parent"]["pid"] == parent), "{step:#}");
    let resolved = culprit.wait_for_incident("its end", |incident| {
        incident.id() == opened.id() && incident.text("/state") == "resolved"
    });
    assert_eq!((resolved.text("/details/verdict"), resolved.number("/count")), ("reverted", 2));
    assert!(resolved.json["process"].is_null(), "two programs set it: {:#}", resolved.json);
    let wrong = resolved.number("/details/wrong_ms");
    assert!(wrong <= resolved.number("/duration_ms") + 1, "{:#}", resolved.json);
    let summary = resolved.text("/summary");
    assert!(summary.starts_with("The wall clock is back where it was; it was wrong for "), "{summary}");
    assert_eq!(culprit.incidents(|incident| stepped(incident) && incident.opens()).len(), 1);
}

/// RFC 3339 as nanoseconds since 1970.
fn time(text: &str) -> i64 {
    let at: jiff::Timestamp = text.parse().expect("RFC 3339");
    i64::try_from(at.as_nanosecond()).expect("this century")
}

#[test]
fn a_step_by_clock_settime_names_its_author_and_size() {
    needs!(Perl);
    steps("clock_settime", |by| time_plus(by, SECOND) + &format!("syscall(227, 0, $t){CALLED}"));
}

#[test]
fn a_step_by_settimeofday_names_its_author_and_size() {
    needs!(Perl);
    steps("settimeofday", |by| time_plus(by, 1_000_000) + &format!("syscall(164, $t, 0){CALLED}"));
}

#[test]
fn a_step_by_clock_adjtime_names_its_author_and_size() {
    needs!(Perl);
    // ADJ_SETOFFSET.
    steps("clock_adjtime", |by| timex(0x100, 0, by) + &format!("syscall(305, 0, $x){CALLED}"));
}

#[test]
fn a_step_by_adjtimex_names_its_author_and_size() {
    needs!(Perl);
    steps("adjtimex", |by| timex(0x100, 0, by) + &format!("syscall(159, $x){CALLED}"));
}

#[test]
fn reading_the_clock_and_setting_another_one_emit_nothing() {
    needs!(Perl);
    let _alone = ClockGuard::lock();
    let netns = Netns::make();
    let culprit = Culprit::trace("-e clock,connect");
    let reads = timex(0, 0, 0) + &format!("syscall(159, $x){CALLED}; syscall(305, 0, $x){CALLED}; ");
    // CLOCK_MONOTONIC cannot be set: EINVAL.
    let pid = perl(&(reads + &time_plus(0, SECOND) + "syscall(227, 1, $t) == -1 or die 'set'"));
    culprit.settle(&netns);
    let emitted = culprit.seen(|fact| about(fact, pid));
    assert!(emitted.is_empty(), "{emitted:?}");
}

#[test]
fn a_slew_is_reported_as_a_slew() {
    needs!(Perl);
    let _alone = ClockGuard::lock();
    let culprit = Culprit::trace("-e clock");
    // ADJ_FREQUENCY, set to what it is already.
    let keep = "$f = (unpack 'Lx4qq', $x)[2]; ";
    let code = timex(0, 0, 0)
        + &format!(
            "syscall(159, $x){CALLED}; {keep}substr($x, 0, 4) = pack('L', 2); syscall(159, $x){CALLED}"
        );
    let pid = perl(&code);
    let slew = culprit.wait_for("the slew", |fact| about(fact, pid));
    assert_eq!((slew.kind(), slew.text("call")), ("clock_slewed", "adjtimex"));
    assert_eq!((slew.number("modes"), slew.is("refused")), (2.0, false));
}

#[test]
fn a_refused_attempt_is_reported_as_refused() {
    needs!(Perl);
    let _alone = ClockGuard::lock();
    let culprit = Culprit::trace("-e clock");
    let unprivileged = "$) = '65534 65534'; $> = 65534; ";
    let code = format!("{unprivileged}{}syscall(227, 0, $t) == -1 or die 'set'", time_plus(1, SECOND));
    let pid = perl(&code);
    let refused = culprit.wait_for("the refusal", |fact| about(fact, pid));
    assert_eq!((refused.kind(), refused.is("refused")), ("clock_set", true));
    assert_eq!(refused.number("delta_ns"), 0.0);
}

#[test]
fn facts_after_a_step_carry_the_new_time_and_boot_time_goes_on() {
    needs!(Perl);
    let netns = Netns::make();
    let guard = ClockGuard::lock();
    let culprit = Culprit::trace("-e clock,connect");
    let pid = perl(&(time_plus(1, SECOND) + &format!("syscall(227, 0, $t){CALLED}")));
    culprit.wait_for("the step", |fact| about(fact, pid));
    culprit.settle(&netns);
    let off = nanoseconds(ClockId::Realtime) - nanoseconds(ClockId::Boottime);
    drop(guard);
    let ended = culprit.stop();
    let last = ended.facts.iter().rfind(|fact| fact.kind() == "connect_ended" && fact.within(&netns));
    let last = last.expect("settle made one");
    let boot = last.json["boot_ns"].as_i64().expect("a number");
    assert!((time(last.text("at")) - boot - off).abs() < (20_000_000.0 * slow()) as i64, "{last:?}");
    let boots: Vec<i64> = ended.facts.iter().filter_map(|fact| fact.json["boot_ns"].as_i64()).collect();
    // The process that set the clock is emitted before what followed, which a slow machine has seen meanwhile.
    assert!(boots.is_sorted_by(|a, b| a <= &(b + SECOND / 2)), "boot time went back: {boots:?}");
}

/// Ten days by which a time namespace shifts BOOTTIME and MONOTONIC.
const SHIFTED: &str = "unshare --time --boottime 864000 --monotonic 864000 --fork";

/// `at` and `before` are of this minute.
#[track_caller]
fn is_dated_now(step: &Fact) {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("this century");
    for field in ["at", "before"] {
        assert!(time(step.text(field)).abs_diff(now) < 60 * SECOND.unsigned_abs(), "{step:?}");
    }
}

#[test]
fn culprit_started_in_a_time_namespace_prints_correct_dates() {
    needs!(Perl, TimeNamespaces);
    let guard = ClockGuard::lock();
    let mut shifted = words(SHIFTED);
    shifted.arg(binary().get_program()).args(["trace", "--format", "json", "-e", "clock"]);
    let culprit = Culprit::spawn(shifted);
    let pid = perl(&(time_plus(1, SECOND) + &format!("syscall(227, 0, $t){CALLED}")));
    let step = culprit.wait_for("the step", |fact| about(fact, pid));
    guard.restore();
    is_dated_now(&step);
    one_incident(&culprit, "clock_settime", pid, 1);
}

#[test]
fn a_process_in_a_time_namespace_that_sets_the_clock_shifts_no_date() {
    needs!(Perl, TimeNamespaces);
    let guard = ClockGuard::lock();
    let culprit = Culprit::trace("-e clock");
    let mut shifted = words(SHIFTED);
    let code = time_plus(1, SECOND) + &format!("syscall(227, 0, $t){CALLED}; print $$");
    shifted.args(["perl", "-MTime::HiRes=clock_gettime", "-e"]).arg(code);
    let pid = run(&mut shifted).stdout;
    let pid: u32 = String::from_utf8_lossy(&pid).trim().parse().expect("its process id");
    let step = culprit.wait_for("the step", |fact| about(fact, pid));
    guard.restore();
    is_dated_now(&step);
    one_incident_by(&culprit, "clock_settime", pid, None, 1);
    let moves = culprit.seen(|fact| fact.kind() == "clock_moved");
    assert!(moves.is_empty(), "{moves:?}");
}
