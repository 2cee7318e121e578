//! `culprit top`: what is open, pending and failing now, on a whole screen. Facts and incidents are followed where they
//! come by; four times a second at most, and only when the screen has dealt with the last one, a snapshot goes to the
//! thread that draws.

mod collect;
mod draw;
mod evidence;
mod rows;
mod screen;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::Colour,
    domains::Fact,
    fact::{Start, Summary},
    log,
    outputs::{Kind, Output},
    pipeline::incident::Incident,
    pipeline::world::World,
    text::shown,
};

/// Whether there is a screen to draw on.
///
/// # Errors
/// Standard output is no terminal.
pub fn check() -> anyhow::Result<()> {
    anyhow::ensure!(
        io::stdout().is_terminal(),
        "`culprit top` draws on a terminal, and standard output is none: use `culprit trace`, or `culprit trace -i` \
         for incidents only"
    );
    Ok(())
}

/// The live view, among the outputs.
pub(super) const KIND: Kind = Kind {
    open: |outputs| {
        let Some(colour) = outputs.screen else { return Ok(None) };
        check()?;
        Ok(Some(Box::new(move |start| Ok(Box::new(Top::start(start, colour)?)))))
    },
};

/// A live view that runs.
pub struct Top {
    collector: collect::Collector,
    shared: Arc<screen::Shared>,
    snapshots: Option<SyncSender<collect::Snapshot>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Top {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be had.
    fn start(start: &Start, colour: Colour) -> anyhow::Result<Self> {
        let colour = match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        let head =
            draw::Head { node: shown(&start.node).into_owned(), probes: start.probes.attached.join(" ") };
        let shared = Arc::new(screen::Shared::default());
        end_by_signals(&shared)?;
        shared.wanted.store(true, Ordering::SeqCst);
        let (snapshots, taken) = sync_channel(1);
        screen::take().context("taking the terminal")?;
        log::hold();
        let with = shared.clone();
        let run = move || {
            /// However the thread ends, the session hears of it.
            struct Quits(Arc<screen::Shared>);
            impl Drop for Quits {
                fn drop(&mut self) {
                    self.0.quit.store(true, Ordering::SeqCst);
                }
            }
            let _quits = Quits(with.clone());
            screen::run(&with, &taken, &head, colour)
        };
        let thread = std::thread::Builder::new().name("screen".into()).spawn(run);
        let thread = thread
            .inspect_err(|_| {
                screen::give_back();
                log::release();
            })
            .context("starting the screen's thread")?;
        Ok(Self {
            collector: collect::Collector::default(),
            shared,
            snapshots: Some(snapshots),
            thread: Some(thread),
        })
    }

    /// Gives the terminal back.
    ///
    /// # Errors
    /// Drawing had failed.
    fn close(&mut self) -> anyhow::Result<()> {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.snapshots = None;
        let ended = self.thread.take().map(JoinHandle::join);
        screen::give_back();
        log::release();
        match ended {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error).context("drawing on the terminal"),
            Some(Err(_)) => anyhow::bail!("the thread that draws has panicked"),
        }
    }
}

/// Signals that would end the process end it in order, from before the terminal is taken.
fn end_by_signals(shared: &Arc<screen::Shared>) -> anyhow::Result<()> {
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        let mut signal = signal(kind).context("installing a signal handler")?;
        let shared = shared.clone();
        tokio::spawn(async move {
            signal.recv().await;
            shared.quit.store(true, Ordering::SeqCst);
        });
    }
    Ok(())
}

impl Output for Top {
    fn fact(&mut self, fact: &Fact) -> anyhow::Result<()> {
        self.collector.fact(fact);
        Ok(())
    }

    fn incidents(&mut self, incidents: &[Incident]) -> anyhow::Result<()> {
        for incident in incidents {
            self.collector.incident(incident.clone());
        }
        Ok(())
    }

    /// Shows what there is, if the screen has time for it.
    fn show(&mut self, world: &World, now_ns: u64) {
        if let Some(snapshots) = &self.snapshots
            && self.shared.wanted.swap(false, Ordering::SeqCst)
        {
            let _ = snapshots.try_send(self.collector.snapshot(world, now_ns));
        }
    }

    fn done(&self) -> bool {
        self.shared.quit.load(Ordering::SeqCst)
    }

    fn finish(&mut self, _summary: &Summary) -> anyhow::Result<()> {
        self.close()
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = self.close();
    }
}
