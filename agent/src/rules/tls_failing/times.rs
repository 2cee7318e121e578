//! In which time the processes live that ended handshakes of a service: their host's, or another.

use crate::{known::context::FakedTime, pipeline::View};

/// What is known of the processes that ended handshakes.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// The last that lives in another time.
    pub(super) another: Option<(u32, FakedTime)>,
    /// One was seen that lives in the host's.
    pub(super) hosts: bool,
}

impl Times {
    /// A process ended another one.
    pub(super) fn note(&mut self, process: u32, view: &View<'_>) {
        let Some(context) = view.world.known.of_process(process) else { return };
        match &context.faked_time {
            Some(faked) => self.another = Some((process, faked.clone())),
            None => self.hosts |= context.leader.is_some(),
        }
    }
}
