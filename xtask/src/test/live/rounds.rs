//! One run of the live tests, as root, on whatever kernel this is: tests side by side first, then those that make
//! load or change what the whole machine shares, one at a time, then once more, alone, each test that failed.
//!
//! Decides from names alone: a module `load` makes load, a module `machine` needs a machine of its own, a module
//! `clock` sets the clock.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{self, Write},
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    str::FromStr,
    thread,
};

use anyhow::{Context, Result, ensure};

use super::report::{PASSED_ALONE, Report};
use crate::cmd;

/// A run in which more tests than this need a second try has failed: that is no accident.
pub(crate) const ALONE_AT_MOST: usize = 3;

/// libtest's own: how many tests run at a time.
const THREADS: &str = "RUST_TEST_THREADS";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The test binary
    tests: PathBuf,
    /// This machine is the tests' own: they may set its clock by months
    #[arg(long)]
    own_machine: bool,
    /// Only each N-th test, beginning with the K-th
    #[arg(long, value_name = "K/N")]
    part: Option<Part>,
    /// Arguments of the test binary
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// One of several machines that share the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) of: usize,
}

impl Part {
    /// Its tests: neighbours in the list take about as long, so each part gets some of everything.
    fn take(self, names: Vec<String>) -> Vec<String> {
        names.into_iter().skip(self.number - 1).step_by(self.of).collect()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Part {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = text
            .split_once('/')
            .and_then(|(number, of)| Some(Self { number: number.parse().ok()?, of: of.parse().ok()? }));
        part.filter(|part| (1..=part.of).contains(&part.number)).ok_or("K/N with K from 1 to N")
    }
}

/// The arguments of xtask that run `tests`.
pub(crate) fn command(
    tests: &Path,
    own_machine: bool,
    part: Option<Part>,
    args: &[OsString],
) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec!["live-rounds".into(), tests.into()];
    if own_machine {
        command.push("--own-machine".into());
    }
    if let Some(part) = part {
        command.extend(["--part".into(), part.to_string().into()]);
    }
    command.push("--".into());
    command.extend(args.iter().cloned());
    command
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let names = list(args)?;
    let flags = flags(&args.args);
    let mut report = Report::default();
    for round in ROUNDS {
        let names: Vec<_> = names.iter().filter(|name| (round.takes)(name)).cloned().collect();
        if names.is_empty() || (round.own_machine && !args.own_machine) {
            continue;
        }
        // Tests that set the clock wait for each other: beside the others they keep no other test from running. A machine
        // of the tests' own is emulated, and slow enough with fewer.
        let apart = !round.one_at_a_time && !args.own_machine;
        let (clock, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| apart && sets_clock(name));
        let lanes = [(clock, true), (others, round.one_at_a_time)];
        let ended: Vec<Result<(Report, bool)>> = thread::scope(|scope| {
            let lanes = lanes.iter().filter(|(names, _)| !names.is_empty());
            let running: Vec<_> = lanes
                .map(|(names, one_at_a_time)| {
                    scope.spawn(|| lane(args, &flags, names, *one_at_a_time, round))
                })
                .collect();
            running.into_iter().map(|lane| lane.join().expect("it does not panic")).collect()
        });
        let mut whole = true;
        for lane in ended {
            let (ended, is_whole) = lane?;
            report.merge(ended);
            whole &= is_whole;
        }
        if !whole {
            return Ok(ExitCode::from(2));
        }
    }
    again(args, &flags, &mut report)?;
    for name in &report.alone {
        writeln!(io::stdout(), "{PASSED_ALONE}{name}")?;
    }
    for name in &report.failed {
        writeln!(io::stdout(), "failed: {name}")?;
    }
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) })
}

/// Runs these tests in one process; whether all of them came to an end.
fn lane(
    args: &Args,
    flags: &[OsString],
    names: &[String],
    one_at_a_time: bool,
    round: &Round,
) -> Result<(Report, bool)> {
    let mut command = Command::new(&args.tests);
    command.args(names).arg("--exact").args(flags);
    if one_at_a_time {
        command.arg("--test-threads=1");
    } else if env::var_os(THREADS).is_none() {
        command.env(THREADS, side_by_side().to_string());
    }
    if round.own_machine {
        command.env("CULPRIT_OWN_CLOCK", "1");
    }
    let mut report = Report::default();
    let status = super::stream(&mut command, &mut report)?;
    let counted = report.verdicts();
    let whole = matches!(status, Some(0 | 101)) && counted >= names.len();
    if !whole {
        eprintln!("live: the test binary ended with {status:?} after {counted} of {} tests", names.len());
    }
    Ok((report, whole))
}

/// How many tests run at a time: most of what they do is wait for something to stall, so more than there are
/// processors.
fn side_by_side() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).max(3)
}

/// A set of tests that run together.
struct Round {
    takes: fn(&str) -> bool,
    one_at_a_time: bool,
    own_machine: bool,
}

const ROUNDS: &[Round] = &[
    Round {
        takes: |name| !makes_load(name) && !needs_machine(name),
        one_at_a_time: false,
        own_machine: false,
    },
    Round { takes: makes_load, one_at_a_time: true, own_machine: false },
    Round { takes: needs_machine, one_at_a_time: true, own_machine: true },
];

fn has_module(name: &str, module: &str) -> bool {
    name.split("::").any(|part| part == module)
}

fn makes_load(name: &str) -> bool {
    has_module(name, "load")
}

fn sets_clock(name: &str) -> bool {
    has_module(name, "clock")
}

fn needs_machine(name: &str) -> bool {
    has_module(name, "machine")
}

/// Runs what failed once more, each test alone. Not when that many failed that the run has failed in any case.
fn again(args: &Args, flags: &[OsString], report: &mut Report) -> Result<()> {
    if report.failed.len() > ALONE_AT_MOST {
        eprintln!(
            "live: {} tests failed: more than {ALONE_AT_MOST}, so none is run again",
            report.failed.len()
        );
        return Ok(());
    }
    for name in report.failed.clone() {
        eprintln!("live: {name} failed among others; once more, alone");
        let mut command = Command::new(&args.tests);
        command.args([&name, "--exact", "--test-threads=1"]).args(flags);
        if needs_machine(&name) {
            command.env("CULPRIT_OWN_CLOCK", "1");
        }
        let mut second = Report::default();
        let status = super::stream(&mut command, &mut second)?;
        if status == Some(0) && second.passed == [name.clone()] {
            report.passed_alone(&name);
        }
    }
    Ok(())
}

/// The tests that the arguments select; each exact name must be one.
fn list(args: &Args) -> Result<Vec<String>> {
    let mut command = Command::new(&args.tests);
    command.args(&args.args).args(["--list", "--format", "terse"]);
    let listed = cmd::output(&mut command).context("asking the test binary for its tests")?;
    let names: Vec<_> =
        listed.lines().filter_map(|line| line.strip_suffix(": test").map(str::to_owned)).collect();
    if args.args.iter().any(|arg| arg == "--exact") {
        for asked in filters(&args.args) {
            ensure!(
                names.iter().any(|name| asked == name.as_str()),
                "there is no live test {}: correct the list that names it",
                asked.to_string_lossy()
            );
        }
    }
    ensure!(!names.is_empty(), "no live test is called that");
    Ok(match args.part {
        Some(part) => part.take(names),
        None => names,
    })
}

/// libtest's options that take a value of their own.
const WITH_VALUE: &[&str] =
    &["--skip", "--test-threads", "--color", "--format", "--logfile", "--shuffle-seed"];

/// The arguments that are no filters.
fn flags(args: &[OsString]) -> Vec<OsString> {
    split(args).0
}

/// The arguments that select tests.
fn filters(args: &[OsString]) -> Vec<OsString> {
    split(args).1
}

fn split(args: &[OsString]) -> (Vec<OsString>, Vec<OsString>) {
    let (mut flags, mut filters, mut is_value) = (Vec::new(), Vec::new(), false);
    for arg in args {
        let text = arg.to_string_lossy();
        if is_value || text.starts_with('-') {
            is_value = !is_value && WITH_VALUE.contains(&text.as_ref());
            if text != "--exact" {
                flags.push(arg.clone());
            }
        } else {
            filters.push(arg.clone());
        }
    }
    (flags, filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_belongs_to_one_round() {
        for name in ["tls::hellos::a", "attach::load::a", "clock::incidents::machine::a", "loaded::machinery"]
        {
            assert_eq!(ROUNDS.iter().filter(|round| (round.takes)(name)).count(), 1, "{name}");
        }
        assert!(makes_load("attach::load::a") && !makes_load("loaded::a"));
    }

    #[test]
    fn each_test_belongs_to_one_part() {
        let names: Vec<_> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        let parts: Vec<Part> = ["1/2", "2/2"].map(|part| part.parse().unwrap()).into();
        assert_eq!(parts[0].take(names.clone()), ["a", "c", "e"]);
        assert_eq!(parts[1].take(names), ["b", "d"]);
        for wrong in ["", "1", "0/2", "3/2", "1/0", "a/b"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_keep_their_values_and_filters_are_distinguished() {
        let args: Vec<OsString> =
            ["tls", "--skip", "slow", "--nocapture", "--exact", "dns"].map(Into::into).into();
        assert_eq!(flags(&args), ["--skip", "slow", "--nocapture"]);
        assert_eq!(filters(&args), ["tls", "dns"]);
    }
}
