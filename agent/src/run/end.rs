//! What ends a session: signals, a limit, the command's exit; and what becomes of the command.

use std::{
    io,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    process::Child,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

/// The moment a session is to end, if there is one.
pub(super) async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The command's exit, if there is a command.
pub(super) async fn exit_of(child: Option<&mut Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// The session ended first (a signal, a limit): the command is asked to end, and made to after a while.
pub(super) async fn end_command(child: &mut Child) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// The command's own status; a signal as shells write it.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

/// ^C, SIGTERM and, but for daemons, a terminal that hangs up end a session in order.
pub(super) struct Signals([Signal; 3]);

impl Signals {
    /// Installs the handlers.
    pub(super) fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("installing a signal handler");
        Ok(Self([on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?]))
    }

    /// The next of them; `true`: a terminal hung up, or somebody wants a daemon to read its configuration.
    pub(super) async fn any(&mut self) -> bool {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
            _ = hangup.recv() => true,
        }
    }
}
