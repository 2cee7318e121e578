//! What the kernel knows of a listener whose accept queue is full: which, how full, and how many SYNs it ignored.

use crate::abi::{Header, Netns, Tuple, assert_layout};

/// A listener that ignores SYNs. Listeners that share a port (`SO_REUSEPORT`) are one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflow {
    /// The address and port the last of them was sent to, and who sent it.
    pub tuple: Tuple,
    /// The listener's network namespace.
    pub netns: Netns,
    /// CLOCK_BOOTTIME of the first, nanoseconds: none was ignored for ten seconds before it.
    pub since_ns: u64,
    /// When the last was ignored.
    pub last_ns: u64,
    /// When that was last reported.
    pub reported_ns: u64,
    /// SYNs ignored since then.
    pub ignored: u64,
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// How many may: one more is let in.
    pub limit: u32,
}

/// A listener ignores SYNs: reported at the first, and once a second.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OverflowRecord {
    /// The header.
    pub header: Header,
    /// The listener.
    pub overflow: Overflow,
}

assert_layout!(Overflow = 88, OverflowRecord = 104);
