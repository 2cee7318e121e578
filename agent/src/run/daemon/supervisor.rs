//! Word to systemd (sd_notify(3)): ready, alive, reloading, stopping. Without systemd nothing is said.

use std::time::{Duration, Instant};

use sd_notify::{NotifyState, notify};

use crate::outputs::http::Status;

/// The service manager.
pub(super) struct Supervisor {
    /// It wants to hear this often that we live.
    every: Option<Duration>,
    rendered: Instant,
}

impl Supervisor {
    pub(super) fn new() -> Self {
        // Twice as often as it asks, as sd_watchdog_enabled(3) has it.
        let every = sd_notify::watchdog_enabled().map(|within| within / 2);
        Self { every, rendered: Instant::now() }
    }

    pub(super) fn ready(&self) {
        say(&[NotifyState::Ready, NotifyState::Status("watching")]);
    }

    /// The pipeline has come by; a thread of its own would say so of a pipeline that hangs.
    pub(super) fn alive(&mut self, status: &Status) {
        if self.every.is_some_and(|every| self.rendered.elapsed() >= every.min(Duration::from_secs(1)))
            && status.health().is_ok()
        {
            self.rendered = Instant::now();
            say(&[NotifyState::Watchdog]);
        }
    }

    /// Between the two, the configuration is read.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => say(&[NotifyState::Reloading, now]),
            Err(_) => say(&[NotifyState::Reloading]),
        }
    }

    pub(super) fn stopping(&self) {
        say(&[NotifyState::Stopping]);
    }
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!("systemd is not known: {error}");
    }
}
