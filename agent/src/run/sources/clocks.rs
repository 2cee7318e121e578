//! The clocks of a session: the wall clock, looked at every time around; what the kernel says of leap seconds; the
//! reference clocks' answers; and processes that a wrong clock has exposed.

use std::time::Duration;

use anyhow::Context as _;
use ebpf_probes::abi::ProbeId;

use super::{
    Sources,
    source::{Found, Kind, Source},
};
use crate::{
    clockwatch::Clockwatch,
    fact::LeapKind,
    kernel::load::{Kernel, Loss},
    known::{
        context::{Context, Exposed, STARTED},
        request::Exposure,
    },
    observe::Observer,
    reference::{Answer, Watch, built, kernel},
    snapshot::started,
    time::boot_ns,
};

/// A call that set the clock has returned by then, and its record is in the ring.
const RETURNED: Duration = Duration::from_millis(5);

/// The next reading; never, when nothing is watched.
pub(in crate::run) async fn next_answer(references: Option<&mut Watch>) -> Option<Answer> {
    match references {
        Some(references) => references.next().await,
        None => std::future::pending().await,
    }
}

impl Sources {
    /// A reference clock was read, or cannot be.
    pub(in crate::run) fn answered(&mut self, answer: Option<Answer>) -> Option<Context> {
        match answer {
            Some(Ok(reading)) => return Some(Context::Reference(reading)),
            Some(Err(failure)) => tracing::warn!("{failure}"),
            None => {
                // Its threads are gone, which nothing they do explains; the rest goes on.
                tracing::error!("the reference clocks are no longer watched");
                self.references = None;
            }
        }
        None
    }
}

/// The wall clock, among the sources.
pub(super) const KIND: Kind = Kind {
    open: |spec, _| {
        if !super::wants(spec, ProbeId::CLOCK) {
            return Ok(None);
        }
        let watch = Clockwatch::new().context("watching the clock")?;
        Ok(Some(Box::new(Clocks { watch, account: Account::default() })))
    },
};

/// The wall clock, and what the kernel says of it.
struct Clocks {
    watch: Clockwatch,
    account: Account,
}

impl Source for Clocks {
    fn at_start(&mut self, _: &mut Kernel) -> anyhow::Result<Vec<Context>> {
        Ok(built::built().map(|(name, utc_ns)| Context::Built { name, utc_ns }).into_iter().collect())
    }

    /// What became of the wall clock since the last look.
    fn look(&mut self, _: &mut Kernel, _: &[Loss]) -> anyhow::Result<Found> {
        let changes = self.watch.look();
        if changes.moved.is_some() {
            // The process that set it may not have returned from its call yet, and would not be named.
            std::thread::sleep(RETURNED);
        }
        Ok(Found { contexts: self.account.look(), records: changes.records().collect() })
    }
}

/// What the kernel said last: the leap second that is armed, TAI − UTC, and the length of a tick.
#[derive(Default)]
struct Account {
    leap: Option<(Option<LeapKind>, i32)>,
    tick_us: Option<i64>,
}

impl Account {
    /// What the kernel says now, as far as that has changed. It is applied before the move that it may explain.
    fn look(&mut self) -> Vec<Context> {
        let Ok(state) = kernel::state() else { return vec![] };
        let mut found = Vec::new();
        let (armed, tai_s, tick_us) = (state.leap_second, state.tai_s, state.tick_us);
        if self.leap.replace((armed, tai_s)) != Some((armed, tai_s)) {
            found.push(Context::LeapState { boot_ns: boot_ns(), armed, tai_s });
        }
        if self.tick_us.replace(tick_us) != Some(tick_us) {
            found.push(Context::Tick { boot_ns: boot_ns(), tick_us });
        }
        found
    }
}

/// Processes that a wrong clock has exposed.
pub(super) fn exposed(exposure: &Exposure, observer: &mut Observer) -> Context {
    let (found, gone) = started::look(exposure);
    let more = found.len().saturating_sub(STARTED) as u64;
    let started = found
        .into_iter()
        .take(STARTED)
        .map(|one| {
            let mut process = observer.look_up(one.pid, &one.comm);
            process.started_ns = one.started_ns;
            process
        })
        .collect();
    Context::Exposed(Box::new(Exposed { boot_ns: boot_ns(), started, more, gone }))
}
