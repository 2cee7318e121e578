//! What the kernel knows of a connection whose data is sent again and again and not acknowledged.

use crate::abi::{Header, Netns, Owner, Tuple, assert_layout};

/// What else is known of it: bits.
pub mod unacked {
    /// It was so when culprit started.
    pub const ADOPTED: u32 = 1;
    /// Its process has closed it: no process waits for it any more.
    pub const ORPHAN: u32 = 2;
    /// The socket was closed: `errno` says why.
    pub const CLOSED: u32 = 4;
    /// Something of it was acknowledged.
    pub const ACKED: u32 = 8;
    /// The socket is another connection's by now: it was closed, and that was not seen.
    pub const GONE: u32 = 16;

    /// Its process is not among those asked for.
    pub const UNWANTED: u32 = 32;

    /// It is over, or of no interest.
    pub const OVER: u32 = ORPHAN | CLOSED | ACKED | GONE | UNWANTED;
}

/// A connection whose data is not acknowledged.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unacked {
    /// Socket cookie; 0 when it has none.
    pub cookie: u64,
    /// Whose it is, as far as that is known; the network namespace always is.
    pub owner: Owner,
    /// Its ends.
    pub tuple: Tuple,
    /// CLOCK_BOOTTIME, nanoseconds, of the first sending of what is not acknowledged: as nearly as the socket shows.
    pub since_ns: u64,
    /// When it was last sent again.
    pub again_ns: u64,
    /// When anything last came from the peer before it was sent; 0 when that is not known.
    pub before_ns: u64,
    /// When the peer last acknowledged anything, or said something: a tick's accuracy.
    pub heard_ns: u64,
    /// When another connection with the peer's address was last established since; 0 for none.
    pub fresh_ns: u64,
    /// Bytes the peer has acknowledged over the whole connection, the SYN included.
    pub acked: u64,
    /// Bytes it has sent over the whole connection.
    pub received: u64,
    /// The first sequence number that is not acknowledged.
    pub una: u32,
    /// The next one to be sent.
    pub next: u32,
    /// The next one that the program writes.
    pub written: u32,
    /// Timeouts in a row after which it was sent again.
    pub timeouts: u32,
    /// The peer's window.
    pub window: u32,
    /// The largest segment that is sent, bytes of data.
    pub mss: u32,
    /// The largest packet that this host believes to pass.
    pub path_mtu: u32,
    /// Bytes of data in the segment that was last sent again; 0 when none was seen.
    pub segment: u32,
    /// Segments sent after it that the peer has acknowledged out of order.
    pub sacked: u32,
    /// The port of that other connection: of one that was accepted the own one.
    pub fresh_port: u32,
    /// Packets of it that this host dropped.
    pub drops: u32,
    /// Why the last of them was: the running kernel's `enum skb_drop_reason`.
    pub drop_reason: u32,
    /// The socket's state, as include/net/tcp_states.h numbers it.
    pub state: u32,
    /// The error (positive errno) that ended it, 0 for none.
    pub errno: i32,
    /// Bits of [`unacked`].
    pub flags: u32,
    /// Segments sent and not acknowledged in order.
    pub packets: u32,
}

impl Unacked {
    /// Bytes sent and not acknowledged.
    pub fn bytes(&self) -> u32 {
        self.next.wrapping_sub(self.una)
    }

    /// Bytes that the program has written and that wait behind them.
    pub fn waiting(&self) -> u32 {
        self.written.wrapping_sub(self.next)
    }

    /// Whether anything has come from the peer since: both moments are known to a tick or two.
    pub fn is_heard(&self) -> bool {
        self.heard_ns > self.since_ns.saturating_add(150_000_000)
    }

    /// It was so when culprit started.
    pub fn is_adopted(&self) -> bool {
        self.flags & unacked::ADOPTED != 0
    }

    /// It is over.
    pub fn is_over(&self) -> bool {
        self.flags & unacked::OVER != 0 || self.una == self.next
    }
}

/// A connection whose data is not acknowledged, or was not: written by the agent's sweep.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnackedRecord {
    /// The header.
    pub header: Header,
    /// The connection.
    pub unacked: Unacked,
}

/// The address of a peer, and where it is one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerAt {
    /// The address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The network namespace.
    pub netns: Netns,
}

/// Another connection with such a peer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fresh {
    /// When it was established.
    pub at_ns: u64,
    /// Its port.
    pub port: u32,
    /// Always 0.
    pub pad: u32,
}

assert_layout!(Unacked = 208, UnackedRecord = 224, PeerAt = 24, Fresh = 16);
