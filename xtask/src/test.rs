//! `cargo xtask test`: does the code do what its tests say, here, on this kernel?
//!
//! The unit and replay tests run as whoever calls. The live tests load programs into the kernel,
//! so their binary is built as the caller and run as root, and told (`CULPRIT_LIVE=require`) that
//! a test that cannot run has failed.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    cmd,
    setup::{self, Need},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the unit and replay tests
    #[arg(long, conflicts_with = "live")]
    unit: bool,
    /// Only the live tests
    #[arg(long)]
    live: bool,
    /// Make the recordings of tests/incidents/ anew from the live tests, one after the other
    #[arg(long, conflicts_with_all = ["unit", "live"])]
    keep_incidents: bool,
    /// Arguments of the test binaries (a filter, `--nocapture`, …)
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// The live tests, built: their executable and the agent they start.
pub(crate) struct Live {
    pub(crate) tests: PathBuf,
    pub(crate) culprit: PathBuf,
    /// A chronyd to be started by tests, if there is one.
    pub(crate) chronyd: Option<PathBuf>,
}

impl Live {
    /// The variables the live tests read.
    pub(crate) fn env(&self) -> Vec<(&'static str, &OsStr)> {
        let mut env = vec![("CULPRIT_LIVE", "require".as_ref()), ("CULPRIT_BIN", self.culprit.as_os_str())];
        env.extend(self.chronyd.iter().map(|chronyd| ("CULPRIT_CHRONYD", chronyd.as_os_str())));
        env
    }
}

pub(crate) fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Test, Need::Deploy])?;
    if args.keep_incidents {
        return keep_incidents(&args.args);
    }
    if !args.live {
        unit(&args.args)?;
    }
    if !args.unit {
        live(&args.args)?;
    }
    Ok(())
}

/// Everything but the live tests, which would run a second time, unprivileged, and skip.
fn unit(args: &[OsString]) -> Result<()> {
    let mut command = cmd::cargo();
    command.args(["test", "--workspace", "--lib", "--bins", "--features", "xtask/bench"]);
    for name in test_targets()?.iter().filter(|name| *name != "live") {
        command.args(["--test", name]);
    }
    cmd::run(command.arg("--").args(args))
}

/// Recordings name the executables they saw: they are made by copies that stand elsewhere than here.
fn keep_incidents(args: &[OsString]) -> Result<()> {
    let live = build_live()?.context("there are no live tests")?;
    let elsewhere = tempfile::Builder::new().prefix("culprit-keep-").tempdir()?;
    let copy = |from: &PathBuf, name: &str| -> Result<PathBuf> {
        let to = elsewhere.path().join(name);
        std::fs::copy(from, &to)
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        Ok(to)
    };
    let copies = Live {
        tests: copy(&live.tests, "live")?,
        culprit: copy(&live.culprit, "culprit")?,
        chronyd: live.chronyd.as_ref().map(|chronyd| copy(chronyd, "chronyd")).transpose()?,
    };
    let mut keep = copies.env();
    keep.push(("CULPRIT_KEEP_INCIDENTS", "1".as_ref()));
    let mut command = cmd::as_root(&copies.tests, &keep)?;
    command.arg("--test-threads=1");
    if args.is_empty() {
        command.arg("incidents::");
    }
    command.args(args);
    cmd::run(command.current_dir(cmd::workspace().join("agent")))?;
    eprintln!("test: now look at them: CULPRIT_BLESS=1 cargo test -p culprit --test replay && git diff");
    Ok(())
}

fn live(args: &[OsString]) -> Result<()> {
    let Some(live) = build_live()? else {
        eprintln!("test: there are no live tests (no test target `live` in agent/Cargo.toml)");
        return Ok(());
    };
    if !cmd::is_root() && cmd::which("sudo").is_none() {
        eprintln!("test: live tests skipped: they need root, and there is no sudo here");
        return Ok(());
    }
    let mut keep = live.env();
    let inherited: Vec<_> = ["PATH", "HOME", "RUST_BACKTRACE", "RUST_LOG"]
        .into_iter()
        .filter_map(|name| Some((name, env::var_os(name)?)))
        .collect();
    keep.extend(inherited.iter().map(|(name, value)| (*name, value.as_os_str())));
    let mut command = cmd::as_root(&live.tests, &keep)?;
    // Where cargo would start it.
    command.args(args).current_dir(cmd::workspace().join("agent"));
    eprintln!("test: {}", cmd::line(&command));
    cmd::run(&mut command)
}

/// Builds the live tests and the agent, without running anything; nothing when there are none.
pub(crate) fn build_live() -> Result<Option<Live>> {
    if !test_targets()?.iter().any(|name| name == "live") {
        return Ok(None);
    }
    let mut command = cmd::cargo();
    command
        .args(["test", "--package", "culprit", "--test", "live", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit());
    let messages = stdout(&mut command)?;
    let built = executables(&messages)?;
    let find = |name: &str, kind: &str| {
        let found = built.iter().find(|target| target.name == name && target.kind == kind);
        found.map(|target| target.executable.clone()).with_context(|| {
            format!("`{}` reported no executable for the {kind} target `{name}`", cmd::line(&command))
        })
    };
    Ok(Some(Live {
        tests: find("live", "test")?,
        culprit: find("culprit", "bin")?,
        chronyd: setup::unpacked::CHRONYD.find(),
    }))
}

/// A command's standard output while its standard error is shown as it comes.
fn stdout(command: &mut Command) -> Result<String> {
    let out = command
        .stdout(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .with_context(|| format!("running `{}`", cmd::line(command)))?;
    if !out.status.success() {
        bail!("`{}` failed: {}", cmd::line(command), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

struct Built {
    name: String,
    kind: String,
    executable: PathBuf,
}

/// The executables that cargo's JSON messages report.
fn executables(messages: &str) -> Result<Vec<Built>> {
    #[derive(Deserialize)]
    struct Message {
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let mut built = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message =
            serde_json::from_str(line).with_context(|| format!("reading cargo's message {line}"))?;
        if let (Some(target), Some(executable)) = (message.target, message.executable) {
            built.push(Built { name: target.name, kind: target.kind.concat(), executable });
        }
    }
    Ok(built)
}

/// The names of the workspace's integration tests.
fn test_targets() -> Result<Vec<String>> {
    let metadata = cmd::metadata(&["--no-deps"])?;
    let targets = metadata.packages.into_iter().flat_map(|package| package.targets);
    Ok(targets.filter(|target| target.kind == ["test"]).map(|target| target.name).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_executable_of_a_target_is_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"x","kind":["lib"]},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"live","kind":["test"]},"executable":"/t/live-1"}"#,
            "\nrunning 0 tests\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let built = executables(messages).unwrap();
        assert_eq!(built.len(), 1);
        assert_eq!((built[0].name.as_str(), built[0].kind.as_str()), ("live", "test"));
        assert_eq!(built[0].executable, Path::new("/t/live-1"));
    }
}
