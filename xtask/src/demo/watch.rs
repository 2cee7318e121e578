//! culprit beside a demo: started, attached before anything happens, and ended as a reader would end it. Its
//! facts go to stdout, its talk to stderr.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::process::Process;

/// Until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// culprit at work; killed when dropped.
pub(super) struct Watch(Process);

impl Watch {
    /// Starts it and waits until it says that everything is attached.
    pub(super) fn start(culprit: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(culprit);
        // What a daemon keeps and serves would only be in the way here.
        command.env("CULPRIT_STORE", "none").env("CULPRIT_LISTEN", "none");
        let mut process = Process::start(command.args(args).stderr(Stdio::piped()))?;
        let talk = process.child().stderr.take().context("its talk is a pipe")?;
        let mut lines = BufReader::new(talk).lines();
        loop {
            let line = lines.next().context("culprit ended before it was attached")??;
            eprintln!("{line}");
            if line.contains("^C ends") {
                break;
            }
        }
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Ok(Self(process))
    }

    /// ^C.
    pub(super) fn end(self) -> Result<()> {
        self.0.finish(Signal::INT, PATIENCE)
    }
}
