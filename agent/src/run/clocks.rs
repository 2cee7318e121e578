//! The clocks of a session: looked at every time around, and whoever a wrong one has exposed.

use std::time::Duration;

use bytes::Bytes;

use super::Session;
use crate::{
    enrich::context::{Context, Exposed, Exposure, STARTED},
    reference::{Answer, Watch, kernel},
    snapshot::started,
    time::boot_ns,
};

/// A call that set the clock has returned by then, and its record is in the ring.
const RETURNED: Duration = Duration::from_millis(5);

/// The next reading; never, when nothing is watched.
pub(super) async fn answer(references: Option<&mut Watch>) -> Option<Answer> {
    match references {
        Some(references) => references.next().await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// What became of the clocks since the last look.
    pub(super) fn look_at_clocks(&mut self) -> Vec<Bytes> {
        let Some(clocks) = &mut self.clocks else { return vec![] };
        let changes = clocks.look();
        if changes.moved.is_some() {
            // Whoever set it may not be through with its call yet, and would not be named.
            std::thread::sleep(RETURNED);
        }
        self.look_at_leap_seconds();
        changes.records().collect()
    }

    /// What the kernel says of leap seconds, if that is news: before the move it may explain is told.
    fn look_at_leap_seconds(&mut self) {
        let Ok(state) = kernel::state() else { return };
        let (armed, tai_s) = (state.leap_second, state.tai_s);
        if self.leap_seconds.replace((armed, tai_s)) != Some((armed, tai_s)) {
            self.learn(&Context::LeapState { boot_ns: boot_ns(), armed, tai_s });
        }
    }

    /// A reference clock was read, or cannot be.
    pub(super) fn take_answer(&mut self, answer: Option<Answer>) {
        match answer {
            Some(Ok(reading)) => self.learn(&Context::Reference(reading)),
            Some(Err(failure)) => tracing::warn!("{failure}"),
            None => {
                // Its threads are gone, which nothing they do explains; the rest goes on.
                tracing::error!("the reference clocks are no longer watched");
                self.references = None;
            }
        }
    }

    /// Looks for processes a wrong clock has exposed.
    pub(super) fn look_for_exposed(&mut self, request: &Exposure) {
        let (found, gone) = started::look(request);
        let more = found.len().saturating_sub(STARTED) as u64;
        let started = found
            .into_iter()
            .take(STARTED)
            .map(|one| {
                let mut process = self.observer.look_up(one.pid, &one.comm);
                process.started_ns = one.started_ns;
                process
            })
            .collect();
        self.learn(&Context::Exposed(Box::new(Exposed { boot_ns: boot_ns(), started, more, gone })));
    }
}
