//! The live tests as xtask runs them: what is built, in which rounds it runs, and what counts as passed.
//!
//! The same rounds run on this machine and inside VMs (`rounds`); what they print is read here (`report`), and
//! what needed a second try is remembered between runs (`history`).

pub(crate) mod history;
pub(crate) mod report;
pub(crate) mod rounds;

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Artifact, Message, Target, TargetKind};
use fs_err as fs;

use crate::{
    cmd,
    setup::{
        unpacked::{CHRONYD, PROMTOOL},
        venv::AXE,
    },
};
use report::Report;

/// Names of the tests that a kernel can decide differently and that CI runs on other kernels, one a line.
const CORE: &str = "tests/live/core.txt";

/// The live tests, built: their executable and the agent they start.
pub(crate) struct Live {
    pub(crate) tests: PathBuf,
    pub(crate) culprit: PathBuf,
    /// Servers and scripts that tests use, where they are here, by the variables that name them.
    pub(crate) servers: Vec<(&'static str, PathBuf)>,
}

impl Live {
    /// The variables that the live tests read.
    pub(crate) fn env(&self) -> Vec<(&'static str, &OsStr)> {
        let mut env = vec![("CULPRIT_LIVE", "require".as_ref()), ("CULPRIT_BIN", self.culprit.as_os_str())];
        env.extend(self.servers.iter().map(|(name, server)| (*name, server.as_os_str())));
        env
    }
}

/// Builds the live tests and the agent without running anything.
pub(crate) fn build() -> Result<Live> {
    let mut command = cmd::cargo();
    // The same selection as the tests without root have: with another, cargo would build the dependencies twice.
    command
        .args(["test", "--workspace", "--features", "xtask/bench", "--test", "live", "--no-run"])
        .arg("--message-format=json-render-diagnostics");
    let built = executables(&cmd::stdout(&mut command)?)?;
    let find = |name: &str, kind: TargetKind| {
        let is_it = |built: &Artifact| built.target.name == name && built.target.kind == [kind.clone()];
        let found = built.iter().filter(|built| is_it(built)).find_map(|built| built.executable.clone());
        found.map(PathBuf::from).with_context(|| {
            format!("`{}` reported no executable for the {kind} target `{name}`", cmd::line(&command))
        })
    };
    Ok(Live {
        tests: find("live", TargetKind::Test)?,
        culprit: find("culprit", TargetKind::Bin)?,
        servers: [
            ("CULPRIT_CHRONYD", CHRONYD.find()),
            ("CULPRIT_PROMTOOL", PROMTOOL.find()),
            ("CULPRIT_PROMETHEUS", PROMTOOL.find_other("prometheus")),
            ("CULPRIT_AXE", AXE.file("axe_playwright_python/axe.min.js")),
        ]
        .into_iter()
        .filter_map(|(name, server)| Some((name, server?)))
        .collect(),
    })
}

/// The names of the workspace's integration tests.
pub(crate) fn targets() -> Result<Vec<String>> {
    let targets = cmd::metadata()?.packages.into_iter().flat_map(|package| package.targets);
    Ok(targets.filter(Target::is_test).map(|target| target.name).collect())
}

/// The core as arguments of the test binary.
pub(crate) fn core() -> Result<Vec<OsString>> {
    let path = cmd::workspace().join(CORE);
    let text = fs::read_to_string(&path)?;
    Ok(iter_core(&text).map(OsString::from).chain(["--exact".into()]).collect())
}

fn iter_core(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Runs the live tests on this machine, as root.
pub(crate) fn here(args: &[OsString]) -> Result<()> {
    let live = build()?;
    if !cmd::is_root() && cmd::which("sudo").is_none() {
        eprintln!("test: live tests skipped: they need root, and there is no sudo here");
        return Ok(());
    }
    let mut keep = live.env();
    let inherited: Vec<_> = ["PATH", "HOME", "RUST_BACKTRACE", "RUST_LOG", "CULPRIT_SCREENSHOTS"]
        .into_iter()
        .filter_map(|name| Some((name, env::var_os(name)?)))
        .collect();
    keep.extend(inherited.iter().map(|(name, value)| (*name, value.as_os_str())));
    let mut command = cmd::as_root(&xtask()?, &keep)?;
    // Where cargo would start them.
    command.args(rounds::command(&live.tests, false, None, args)).current_dir(cmd::workspace().join("agent"));
    eprintln!("test: {}", cmd::line(&command));
    let mut report = Report { kernel: "here".to_owned(), ..Report::default() };
    let status = stream(&mut command, &mut report)?;
    report.ended(status);
    if args.is_empty() {
        report.repeated = history::remember("here", &report.alone)?;
    }
    if !report.is_success() {
        bail!("the live tests failed:\n{}", report.failures());
    }
    Ok(())
}

/// This program.
pub(crate) fn xtask() -> Result<PathBuf> {
    env::current_exe().context("finding xtask's own executable")
}

/// Runs a command, passes on what it prints, and hands each line to the report. Returns its exit status, nothing
/// when a signal ended it.
fn stream(command: &mut Command, report: &mut Report) -> Result<Option<i32>> {
    let line = cmd::line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let errors = thread::spawn(move || lines(err, &mut io::stderr(), |_| {}));
    lines(out, &mut io::stdout(), |line| report.line(line));
    for line in errors.join().unwrap_or_default() {
        report.line(&line);
    }
    Ok(child.wait().with_context(|| format!("waiting for `{line}`"))?.code())
}

/// Passes on each line as it comes; returns those that say why a test was skipped.
fn lines(from: Option<impl Read>, to: &mut impl Write, mut each: impl FnMut(&str)) -> Vec<String> {
    let mut skips = Vec::new();
    let Some(from) = from else { return skips };
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        // The reader may be gone; the tests go on.
        let _ = writeln!(to, "{line}");
        each(&line);
        if line.contains(report::SKIPPED) {
            skips.push(line);
        }
    }
    skips
}

/// The executables that cargo's JSON messages report.
fn executables(messages: &[u8]) -> Result<Vec<Artifact>> {
    let mut built = Vec::new();
    for message in Message::parse_stream(messages) {
        if let Message::CompilerArtifact(artifact) = message.context("reading cargo's messages")? {
            built.push(artifact);
        }
    }
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_is_a_few_tens_of_tests_each_named_once() {
        let text = fs::read_to_string(cmd::workspace().join(CORE)).unwrap();
        let names: Vec<_> = iter_core(&text).collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert!((20..=60).contains(&names.len()) && distinct.len() == names.len(), "{}", names.len());
    }
}
