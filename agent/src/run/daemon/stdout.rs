//! Standard output as a sink: a reader that is slow, or does not read, holds up nothing else.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::Context as _;

use crate::{
    fact::{Start, Summary},
    outputs::{
        Output as _, Rendered, STDOUT,
        printer::Printer,
        queue::{Counts, Queue, Sink},
    },
};

/// The printer, its thread and what is known of its reader.
#[derive(Clone)]
pub(super) struct Stdout {
    printer: Arc<Mutex<Printer>>,
    gone: Arc<AtomicBool>,
    /// What became of the incidents.
    pub(super) counts: Arc<Counts>,
}

impl Stdout {
    pub(super) fn new(printer: Printer) -> Self {
        Self { printer: Arc::new(Mutex::new(printer)), gone: Arc::default(), counts: Counts::new(STDOUT) }
    }

    fn printer(&self) -> MutexGuard<'_, Printer> {
        self.printer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread.
    pub(super) fn queue(&self) -> anyhow::Result<Queue> {
        Queue::start(self.counts.clone(), Box::new(self.clone())).context("starting the output's thread")
    }

    /// The first line.
    pub(super) fn start(&self, start: &Start) -> anyhow::Result<()> {
        self.printer().start(start)
    }

    /// Its reader has gone away.
    pub(super) fn gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// The last line.
    pub(super) fn finish(&self, summary: &Summary) -> anyhow::Result<()> {
        self.printer().finish(summary)
    }
}

impl Sink for Stdout {
    fn take(&mut self, rendered: &[Arc<Rendered>], counts: &Counts) {
        let mut printer = self.printer();
        let incidents: Vec<_> = rendered.iter().map(|rendered| rendered.incident.clone()).collect();
        let printed = printer.incidents(&incidents).and_then(|()| printer.flush());
        self.gone.store(printer.done(), Relaxed);
        let became = match &printed {
            Ok(()) if !printer.done() => &counts.emitted,
            _ => &counts.failed,
        };
        became.fetch_add(rendered.len() as u64, Relaxed);
        if let Err(error) = printed {
            tracing::error!("{error:#}");
        }
    }
}
