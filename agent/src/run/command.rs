//! The command a session runs and follows, if it was given one.

use std::{ffi::OsString, io, process::ExitStatus, time::Duration};

use anyhow::Context as _;
use tokio::process::{Child, Command as Tokio};

/// How long a command has to end by itself when it is asked to.
const PATIENCE: Duration = Duration::from_secs(2);

/// A command, or none.
pub(super) struct Command {
    child: Option<Child>,
    status: Option<ExitStatus>,
}

impl Command {
    /// Starts it; without words there is none.
    pub(super) fn start(words: &[OsString]) -> anyhow::Result<Self> {
        let start = |(program, args): (&OsString, &[OsString])| {
            Tokio::new(program)
                .args(args)
                .spawn()
                .with_context(|| format!("{}: cannot be started", program.to_string_lossy()))
        };
        Ok(Self { child: words.split_first().map(start).transpose()?, status: None })
    }

    /// Its process.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Resolves when it exits; without a command never.
    pub(super) async fn exited(&mut self) -> io::Result<()> {
        match &mut self.child {
            Some(child) => {
                self.status = Some(child.wait().await?);
                Ok(())
            }
            None => std::future::pending().await,
        }
    }

    /// Its status, once it has exited by itself.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// The session ended first (a signal, a limit): the command is asked to end, and killed after a while.
    pub(super) async fn end(&mut self) {
        let Some(child) = self.child.as_mut().filter(|_| self.status.is_none()) else { return };
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }
}
