//! A child that never outlives xtask: killed when its owner is dropped, and by the kernel when xtask is killed.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use fs_err::{self as fs, File};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::cmd;

/// Between two looks at something that is about to happen.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    line: String,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts it. The kernel ends it when the thread that called this ends: call it from one that lasts.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let line = cmd::line(command);
        let end_with_us = || set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe { command.pre_exec(end_with_us) };
        let child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        Ok(Self { child, line, log: None })
    }

    /// Starts it without input; what it prints goes to a file, from which failures quote.
    pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<Self> {
        let (file, _) = File::create(log)?.into_parts();
        let copy = file.try_clone().context("duplicating a file descriptor")?;
        let mut process = Self::start(command.stdin(Stdio::null()).stdout(file).stderr(copy))?;
        process.log = Some(log.to_owned());
        Ok(process)
    }

    /// The command, as a shell would take it.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The same, for calls.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The end of what it printed, as a message quotes it.
    pub(crate) fn said(&self) -> String {
        let said = self.log.as_deref().map(tail).unwrap_or_default();
        if said.is_empty() { said } else { format!("; it said:\n{said}") }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for `{}`", self.line))
    }

    /// Fails if it is not running any more.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.ended()? {
            Some(status) => bail!("`{}` ended before its time: {status}{}", self.line, self.said()),
            None => Ok(()),
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until(within, || {
            status = self.ended()?;
            Ok(status.is_some())
        })?;
        status.with_context(|| format!("`{}` did not end within {} s", self.line, within.as_secs()))
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(&mut self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        kill_process(self.pid(), signal).with_context(|| format!("sending {signal:?} to `{}`", self.line))?;
        self.wait(within)
    }

    /// The same; it must have ended well.
    pub(crate) fn finish(mut self, signal: Signal, within: Duration) -> Result<()> {
        let status = self.end(signal, within)?;
        if !status.success() {
            bail!("`{}` failed: {status}{}", self.line, self.said());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until something has happened or `within` is over; whether it has.
pub(crate) fn wait_until(within: Duration, mut happened: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + within;
    while !happened()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_what_the_process_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        let log = dir.path().join("log");
        let mut process = Process::logged(command.args(["-c", "echo why >&2; exit 3"]), &log).unwrap();
        assert_eq!(process.wait(Duration::from_secs(30)).unwrap().code(), Some(3));
        let failure = process.check().unwrap_err().to_string();
        assert!(failure.contains("exit status: 3; it said:\n  why\n"), "{failure}");
    }

    #[test]
    fn a_process_that_is_dropped_is_gone() {
        let process = Process::start(Command::new("sleep").arg("100")).unwrap();
        let directory = format!("/proc/{}", process.id());
        assert!(Path::new(&directory).exists());
        drop(process);
        assert!(!Path::new(&directory).exists());
    }
}
