//! culprit beside a demo: started, attached before anything happens, and ended as a reader would end it. Its
//! facts go to stdout, its talk to stderr.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// culprit at work; killed when dropped.
pub(super) struct Watch(Child);

impl Watch {
    /// Starts it and waits until it says that everything is attached.
    pub(super) fn start(culprit: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(culprit);
        // What a daemon keeps and serves would only be in the way here.
        command.env("CULPRIT_STORE", "none").env("CULPRIT_LISTEN", "none");
        let child = command.args(args).stderr(Stdio::piped()).spawn();
        let mut watch = Self(child.context("starting culprit")?);
        let talk = watch.0.stderr.take().context("its talk is a pipe")?;
        let mut lines = BufReader::new(talk).lines();
        loop {
            let line = lines.next().context("culprit ended before it was attached")??;
            eprintln!("{line}");
            if line.contains("^C ends") {
                break;
            }
        }
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        Ok(watch)
    }

    /// ^C.
    pub(super) fn end(mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT).context("interrupting culprit")?;
        }
        let ended = self.0.wait().context("waiting for culprit")?;
        anyhow::ensure!(ended.success(), "culprit ended with {ended}");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
