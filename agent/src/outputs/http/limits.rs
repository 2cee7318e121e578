//! What bounds requests: connections, time, size; and their counts, for metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Duration,
};

/// Connections at once.
pub(super) const CONNECTIONS: usize = 512;
/// Readers of the live stream at once.
pub(super) const READERS: usize = 256;
/// A request's head must have come by then, and a TLS handshake be done.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// A request must be answered by then; a stream's beginning.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// A reader that takes nothing for this long is cut off.
pub(super) const WRITE: Duration = Duration::from_secs(20);
/// A request's head at most, in bytes.
pub(super) const HEAD_BYTES: usize = 16 << 10;
/// What is smaller is sent as it is: with TCP's and TLS's own bytes it fits into one packet either way.
pub(super) const COMPRESSED: u64 = 1024;
/// What the kernel holds for a connection whose other end does not read, in bytes.
pub(super) const SEND_BYTES: usize = 128 << 10;
/// How long open connections have to end when the daemon does.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// Requests and connections so far.
#[derive(Default)]
pub struct Traffic {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Open now.
    pub connections: AtomicUsize,
    /// Turned away because there were too many.
    pub refused: AtomicU64,
}

impl Traffic {
    /// A request was answered. `path` is one of the routes', never the request's own.
    pub(crate) fn answered(&self, path: &'static str, code: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((path, code)).or_default() += 1;
    }

    /// Requests by route and status code.
    pub fn requests(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
