//! A process of the benchmark's own: it never outlives the benchmark, however that ends.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::cmd;

/// Between two looks at something that is about to happen.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A running process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    line: String,
}

impl Process {
    /// Starts it. The kernel ends it when the thread that called this ends: call it from the main one.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let line = cmd::line(&command);
        let end_with_us = || prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from);
        // SAFETY: between fork and exec this makes one system call and allocates nothing.
        unsafe { command.pre_exec(end_with_us) };
        let child = command.spawn().with_context(|| format!("starting `{line}`"))?;
        Ok(Self { child, line })
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
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails if it is not running any more.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("waiting for `{}`", self.line))? {
            Some(status) => bail!("`{}` ended before its time: {status}", self.line),
            None => Ok(()),
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn end(mut self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to `{}`", self.line))?;
        self.wait(within)
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait_until(within, || {
            status = self.child.try_wait().with_context(|| format!("waiting for `{}`", self.line))?;
            Ok(status.is_some())
        })?;
        status.with_context(|| format!("`{}` did not end within {} s", self.line, within.as_secs()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until something has happened or `within` is over; the caller looks which.
pub(crate) fn wait_until(within: Duration, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + within;
    while !happened()? && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
