//! Standard output as a sink: whoever reads it slowly, or not at all, holds up nobody else.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::Context as _;

use crate::{
    fact::{Start, Summary},
    output::Printer,
    sinks::{
        STDOUT, Told,
        queue::{Counts, Queue, Sink},
    },
};

/// The printer, its thread and what is known of its reader.
#[derive(Clone)]
pub(super) struct Stdout {
    printer: Arc<Mutex<Printer>>,
    gone: Arc<AtomicBool>,
}

impl Stdout {
    pub(super) fn new(printer: Printer) -> Self {
        Self { printer: Arc::new(Mutex::new(printer)), gone: Arc::default() }
    }

    fn printer(&self) -> MutexGuard<'_, Printer> {
        self.printer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread.
    pub(super) fn queue(&self) -> anyhow::Result<Queue> {
        Queue::start(Counts::new(STDOUT), Box::new(self.clone())).context("starting the output's thread")
    }

    /// The first line.
    pub(super) fn start(&self, start: Start) -> anyhow::Result<()> {
        self.printer().start(start)
    }

    /// Whoever read it is gone.
    pub(super) fn gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// The last line.
    pub(super) fn finish(&self, summary: &Summary) -> anyhow::Result<()> {
        self.printer().finish(summary)
    }
}

impl Sink for Stdout {
    fn take(&mut self, told: &[Arc<Told>], counts: &Counts) {
        let mut printer = self.printer();
        let incidents = told.iter().map(|told| told.incident.clone()).collect();
        let printed = printer.incidents(incidents).and_then(|()| printer.flush());
        self.gone.store(printer.gone(), Relaxed);
        let became = match &printed {
            Ok(()) if !printer.gone() => &counts.emitted,
            _ => &counts.failed,
        };
        became.fetch_add(told.len() as u64, Relaxed);
        if let Err(error) = printed {
            tracing::error!("{error:#}");
        }
    }
}
