//! `cargo xtask ci`: is the code in the shape this repository promises? Everything that can be
//! said without running the agent.
//!
//! Each step runs, whatever became of the others; the summary at the end says which failed.

mod deploy;
mod imports;

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    cmd,
    setup::{self, Need},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also check dependencies for known vulnerabilities, which downloads the advisory database
    #[arg(long)]
    advisories: bool,
    /// Only the steps whose names contain this; repeatable
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

/// What a step that did not fail has to say: nothing, or why it did not run.
type Done = Option<&'static str>;

struct Step {
    name: &'static str,
    run: fn(&Args) -> Result<Done>,
}

const STEPS: &[Step] = &[
    Step { name: "format", run: format },
    Step { name: "imports", run: imports },
    Step { name: "clippy", run: clippy },
    Step { name: "clippy of the kernel half", run: clippy_kernel },
    Step { name: "generated docs", run: docs },
    Step { name: "deployment files", run: deploy },
    Step { name: "licences and sources", run: licences },
    Step { name: "advisories", run: advisories },
];

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    setup::ensure(&[Need::Build, Need::Lint, Need::Deploy])?;
    let mut results = Vec::new();
    let wanted =
        |step: &&Step| args.only.is_empty() || args.only.iter().any(|part| step.name.contains(part.as_str()));
    for step in STEPS.iter().filter(wanted) {
        eprintln!("ci: {}", step.name);
        let started = Instant::now();
        let result = (step.run)(args);
        if let Err(error) = &result {
            eprintln!("ci: {} failed: {error:#}", step.name);
        }
        results.push((step.name, result, started.elapsed()));
    }
    if results.is_empty() {
        bail!(
            "no step is called that: {}",
            STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ")
        );
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
    let complaints = imports::check(&cmd::workspace().join("agent/src"))?;
    if !complaints.is_empty() {
        bail!("imports go one way (HOUSE.md):\n{}", complaints.join("\n"));
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

/// The tables and the schema in the docs that derive from the code.
fn docs(_: &Args) -> Result<Done> {
    cmd::run(cmd::cargo().args(["test", "--quiet", "--package", "culprit", "--test", "docs"]))?;
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
    let mut command = Command::new(setup::installed("cargo-deny")?);
    command.current_dir(cmd::workspace());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_a_skip_from_a_pass() {
        let took = Duration::from_secs(2);
        assert!(summary("a", &Ok(None), took).starts_with("pass  a"));
        assert!(summary("a", &Ok(Some("why")), took).ends_with("why"));
        assert!(summary("a", &Err(anyhow::anyhow!("x")), took).starts_with("FAIL  a"));
    }
}
