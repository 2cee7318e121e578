//! What ends a session: signals and a limit of time; and the exit status of a command as a shell gives it.

use std::process::{ExitCode, ExitStatus};

use anyhow::Context as _;
use tokio::{
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

/// The command's own status; a signal as shells write it.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

/// ^C, SIGTERM and, but for daemons, a terminal that hangs up end a session in order.
pub(super) struct Signals([Signal; 3]);

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP: a terminal hung up, or a daemon is to read its configuration again.
    Hangup,
}

impl Signals {
    /// Installs the handlers.
    pub(super) fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("installing a signal handler");
        Ok(Self([on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?]))
    }

    /// The next of them.
    pub(super) async fn next(&mut self) -> Received {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => Received::End,
            _ = terminate.recv() => Received::End,
            _ = hangup.recv() => Received::Hangup,
        }
    }
}
