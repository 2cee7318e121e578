//! The bounded drain of the ring: takes records out in reservation order, at most so many at a time,
//! and copies each to owned memory before anything else runs.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// Records taken before other tasks get a turn.
const BUDGET: usize = 1024;

/// The ring, ready to be drained.
pub struct Drain {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Drain {
    /// Wraps the ring. Must be called inside a tokio runtime.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its descriptor and keeps it for as long as it lives, inside the AsyncFd.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self { ring: ring? })
    }

    /// Waits until the kernel wakes us: only when the ring fills faster than the caller comes by.
    pub async fn woken(&mut self) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        guard.clear_ready();
        Ok(())
    }

    /// Hands what is there to `each`, up to the budget; `true`: there may be more.
    pub fn take(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let ring = self.ring.get_mut();
        for _ in 0..BUDGET {
            match ring.next() {
                Some(record) => each(&record),
                None => return false,
            }
        }
        true
    }
}
