//! Does a process still wait for its lookup? A UDP socket does not say that its question was given up, and a program that
//! no longer waits does not suffer: a look at the process shows its sockets, and what its threads wait on.

use crate::{
    domains::dns::LookupOp,
    known::{
        bounded::{Bounded, Table},
        context::{Posture, SeenThread, Snapshot},
    },
};

/// Looks remembered at most, one a process.
const LOOKS: usize = 256;
/// A thread that waits on this many descriptors may wait on more than a look lists.
const MANY: usize = 8;

/// The last look at each process.
pub(super) struct Looks(Bounded<u32, Snapshot>);

impl Default for Looks {
    fn default() -> Self {
        Self(Bounded::new(LOOKS))
    }
}

impl Looks {
    pub(super) fn table(&self) -> Table {
        self.0.table("dns_unanswered_looks")
    }

    pub(super) fn add(&mut self, seen: &Snapshot) {
        // What only other rules need is left out.
        let seen = Snapshot { sockets: vec![], ..seen.clone() };
        if seen.asked != 0 {
            self.0.insert(seen.asked, seen.clone());
        }
        self.0.insert(seen.process, seen);
    }

    /// Whether the process was seen to wait for it no longer, in a look at this moment or after it.
    pub(super) fn is_given_up(&self, op: &LookupOp, since_ns: u64) -> bool {
        let Some(seen) = self.0.get(&op.owner.process) else { return false };
        if seen.unfinished || seen.boot_ns < since_ns.max(op.started_ns) || op.owner.process == 0 {
            return false;
        }
        if seen.threads.is_empty() {
            // The process is gone.
            return true;
        }
        if seen.cookie == op.cookie
            && let Some(has) = seen.accepted
        {
            return !has;
        }
        let may_wait = |thread: &SeenThread| {
            thread.sockets.contains(&op.cookie)
                || matches!(thread.posture, Posture::EventLoop | Posture::Unknown)
                || thread.shown.waits_on.len() >= MANY
        };
        seen.threads_left_out == 0 && !seen.sockets_cut && !seen.threads.iter().any(may_wait)
    }
}
