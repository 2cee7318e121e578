//! What is attached while a load runs: culprit or strace, from its start until it says that it
//! watches, and on to its last line.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use fs_err::{self as fs, File};
use rustix::process::Signal;
use serde::Deserialize;

use super::{
    load_pair::Pair,
    proc::{self, BpfUse},
    report::Condition,
};
use crate::{
    cmd,
    process::{Process, wait_until},
};

/// Until something watches; for what is left in the ring after the end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A culprit with its output.
pub(crate) struct Culprit {
    process: Process,
    out: PathBuf,
    start_ms: f64,
}

/// The last line of culprit's JSON.
#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) events: u64,
    pub(crate) lost: u64,
}

impl Culprit {
    /// `culprit trace` or `culprit run`, which writes JSON to a file in `dir`; returns when its first
    /// line says that everything is attached.
    pub(crate) fn start(culprit: &Path, command: &str, dir: &Path) -> Result<Self> {
        let out = dir.join("out.json");
        // Left by an earlier one it would say "start" too early.
        remove(&out)?;
        let args = [OsStr::new(command), "--format=json".as_ref(), "-o".as_ref(), out.as_ref()];
        let began = Instant::now();
        let mut this = Self::spawn(culprit, &args, out.clone(), dir)?;
        let started = wait_until(PATIENCE, || {
            this.process.check()?;
            Ok(first_line(&out).is_some_and(|line| line.contains(r#""type":"start""#)))
        })?;
        ensure!(started, "`{}` wrote no start line in time{}", this.process.line(), this.process.said());
        this.start_ms = began.elapsed().as_secs_f64() * 1e3;
        Ok(this)
    }

    /// `culprit record FILE`; returns when it says that it records.
    pub(crate) fn record(culprit: &Path, file: &Path, dir: &Path) -> Result<Self> {
        let args = ["record".as_ref(), "--force".as_ref(), file.as_ref()];
        let mut this = Self::spawn(culprit, &args, file.to_owned(), dir)?;
        let started = wait_until(PATIENCE, || {
            this.process.check()?;
            Ok(this.process.said().contains("recording"))
        })?;
        ensure!(started, "`{}` did not say that it records{}", this.process.line(), this.process.said());
        Ok(this)
    }

    fn spawn(culprit: &Path, args: &[&OsStr], out: PathBuf, dir: &Path) -> Result<Self> {
        let mut command = Command::new(culprit);
        // As a daemon is, but where no other is.
        command.env("CULPRIT_STORE", "none").env("CULPRIT_LISTEN", "127.0.0.1:0");
        let process = Process::logged(command.args(args), &dir.join("talk"))?;
        Ok(Self { process, out, start_ms: 0.0 })
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// From its start to its start line.
    pub(crate) fn start_ms(&self) -> f64 {
        self.start_ms
    }

    /// Whether an event has been written; looks at the second line.
    pub(crate) fn has_event(&self) -> bool {
        let Ok(file) = File::open(&self.out) else { return false };
        let mut lines = BufReader::new(file).lines().skip(1);
        lines.any(|line| line.is_ok_and(|line| line.contains(r#""type":"event""#)))
    }

    /// The BPF programs and maps it holds.
    pub(crate) fn held(&self) -> Result<BpfUse> {
        proc::held(self.process.id())
    }

    /// Processor time so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        proc::cpu_seconds(self.process.id())
    }

    /// Memory: resident, at most resident, and its maps, in KiB.
    pub(crate) fn memory(&self) -> Result<[u64; 3]> {
        let pid = self.process.id();
        let maps = proc::held(pid)?.maps.values().sum::<u64>() / 1024;
        let status = proc::of(pid)?.status()?;
        let sizes = status.vmrss.zip(status.vmhwm);
        let (resident, peak) = sizes.with_context(|| format!("process {pid} has no memory"))?;
        Ok([resident, peak, maps])
    }

    /// Interrupts it, as ^C does, and reads its last line.
    pub(crate) fn end(self) -> Result<Summary> {
        let (out, line) = (self.out, self.process.line().to_owned());
        self.process.finish(Signal::INT, PATIENCE)?;
        let last = cmd::output(Command::new("tail").args(["-n", "1"]).arg(&out))?;
        let summary: Summary = serde_json::from_str(&last)
            .with_context(|| format!("the last line of `{line}` is no summary: {last}"))?;
        remove(&out)?;
        Ok(summary)
    }

    /// Interrupts a recording.
    pub(crate) fn end_recording(self) -> Result<()> {
        self.process.finish(Signal::INT, PATIENCE)
    }
}

/// strace of both ends of a load.
pub(crate) struct Strace {
    process: Process,
    out: PathBuf,
}

impl Strace {
    /// Returns when it traces every thread of both.
    pub(crate) fn start(pair: &Pair, dir: &Path) -> Result<Self> {
        let strace = cmd::which("strace").context("strace is not here: `cargo xtask setup` installs it")?;
        let out = dir.join("strace");
        let ids = [pair.server.id(), pair.driver.id()];
        let mut command = Command::new(strace);
        command.args(["-f", "-qq", "-e", "trace=network", "-o"]).arg(&out).stdin(Stdio::null());
        for id in ids {
            command.args(["-p", &id.to_string()]);
        }
        let mut process = Process::start(&mut command)?;
        let traced = wait_until(PATIENCE, || {
            process.check()?;
            ids.iter().try_fold(true, |all, &id| Ok(all && is_traced(id)?))
        })?;
        ensure!(traced, "`{}` did not attach in time", process.line());
        Ok(Self { process, out })
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Makes it let go.
    pub(crate) fn end(mut self) -> Result<()> {
        // Its status is that of the signal.
        self.process.end(Signal::INT, PATIENCE)?;
        remove(&self.out)
    }
}

/// Whether every thread of a process is traced.
fn is_traced(pid: u32) -> Result<bool> {
    for task in proc::of(pid)?.tasks()? {
        if task?.status()?.tracerpid == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The condition's command of culprit.
pub(crate) fn command(condition: Condition) -> Result<&'static str> {
    match condition {
        Condition::Run => Ok("run"),
        Condition::Trace => Ok("trace"),
        other => bail!("{other} is no command of culprit"),
    }
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// The first line of a file, once it is complete.
fn first_line(file: &Path) -> Option<String> {
    let mut line = String::new();
    BufReader::new(File::open(file).ok()?).read_line(&mut line).ok()?;
    line.ends_with('\n').then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_counts_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        assert_eq!(first_line(&file), None);
        fs::write(&file, "half").unwrap();
        assert_eq!(first_line(&file), None);
        fs::write(&file, "whole\nhalf").unwrap();
        assert_eq!(first_line(&file).as_deref(), Some("whole\n"));
    }
}
