//! What a source is to a session: records and context come from the ring, the sweep and the observer, and from those of
//! the [`SOURCES`](super::SOURCES) that the spec asks for.

use bytes::Bytes;

use crate::{
    claims::Counted,
    domains::Event,
    kernel::{
        load::{Kernel, Loss},
        plan::Spec,
    },
    known::{context::Context, request::Sought},
    observe::Wanted,
};

/// A kind of source, and how it is opened.
pub(in crate::run) struct Kind {
    /// Opens it where what is to be attached, or shown, asks for it.
    pub(super) open: fn(&Spec, &Wanted) -> anyhow::Result<Opened>,
}

/// A source, where it is asked for.
pub(super) type Opened = Option<Box<dyn Source>>;

/// Something beside the ring that says what the kernel does not say by itself. It is asked in the session's own thread:
/// it never waits.
pub(in crate::run) trait Source {
    /// What is known before anything happens.
    ///
    /// # Errors
    /// It cannot be read.
    fn at_start(&mut self, _kernel: &mut Kernel) -> anyhow::Result<Vec<Context>> {
        Ok(vec![])
    }

    /// What has to be known before an event is understood.
    fn before(&mut self, _event: &Event) -> Vec<Context> {
        vec![]
    }

    /// A process was started to be followed.
    fn follow(&mut self, _process: u32) {}

    /// What was counted of claims of own addresses.
    fn claims(&self) -> Option<Counted> {
        None
    }

    /// Everybody on a link is to be asked for a neighbour.
    fn ask(&mut self, _sought: &Sought) {}

    /// What became of such questions, where they may be sent.
    fn questions(&self) -> Option<Sent> {
        None
    }

    /// Four times a second; `grown`: what was lost since the last time.
    ///
    /// # Errors
    /// It cannot be read.
    fn look(&mut self, _kernel: &mut Kernel, _grown: &[Loss]) -> anyhow::Result<Found> {
        Ok(Found::default())
    }
}

/// What a look found.
#[derive(Default)]
pub(in crate::run) struct Found {
    /// Context, to be applied first.
    pub(super) contexts: Vec<Context>,
    /// Records, of what happened before the look.
    pub(super) records: Vec<Bytes>,
}

/// What became of questions for neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::run) struct Sent {
    /// There was an answer.
    pub(in crate::run) answered: u64,
    /// There was none.
    pub(in crate::run) unanswered: u64,
    /// They could not be sent.
    pub(in crate::run) failed: u64,
    /// They were not sent: there were too many.
    pub(in crate::run) left_out: u64,
}
