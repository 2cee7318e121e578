//! What the kernel knows of a packet of a pending connect that it did not deliver: which packet it was, whether
//! it was leaving, arriving or passing through, and on which device of which network namespace.
//!
//! Why it was dropped is [`super::Connect::drop_reason`]; who wrote the rule that dropped it is not known here.

use crate::abi::{Header, Netns, assert_layout};

/// Which packet it was: the low bits of [`super::Connect::drop_where`].
pub mod packet {
    /// Not known (an old recording, or no TCP packet).
    pub const UNKNOWN: u32 = 0;
    /// The connecting socket's SYN.
    pub const SYN: u32 = 1;
    /// The peer's SYN-ACK.
    pub const ANSWER: u32 = 2;
    /// A reset.
    pub const RESET: u32 = 3;
    /// Another segment.
    pub const OTHER: u32 = 4;
    /// All of them.
    pub const MASK: u32 = 7;
}

/// Where it was: the other bits of [`super::Connect::drop_where`].
pub mod place {
    /// It had come in by a device (otherwise this host's own stack was sending it).
    pub const ARRIVED: u32 = 1 << 3;
    /// Its route was known: hooks before routing are past.
    pub const ROUTED: u32 = 1 << 4;
    /// Its route ends on this very host.
    pub const LOCAL: u32 = 1 << 5;
    /// The network namespace is not the connecting process's.
    pub const FOREIGN: u32 = 1 << 6;
    /// The listener's accept queue was full: the SYN is ignored, which the kernel does not count as a drop.
    pub const QUEUE_FULL: u32 = 1 << 7;
    /// The device it was on holds the packet's destination address (IPv4).
    pub const HOLDS: u32 = 1 << 8;
    /// Not dropped but refused: an answer from another address than the one that was asked.
    pub const STRAY: u32 = 1 << 9;
    /// The device it was on is a tunnel's end (VXLAN, Geneve): who sent it meant this host.
    pub const TUNNEL: u32 = 1 << 10;
}

/// The last such packet of a connect.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The connect's socket cookie.
    pub cookie: u64,
    /// The kernel code that dropped it: an address in the kernel's text.
    pub location: u64,
    /// The network namespace it was in; zero when unknown.
    pub netns: Netns,
    /// Index of the device it was on, 0 when it had none yet.
    pub ifindex: u32,
    /// `enum skb_drop_reason` of the running kernel; `u32::MAX` when the kernel gave none.
    pub reason: u32,
    /// [`packet`] and [`place`].
    pub at: u32,
    /// The device's name, NUL-padded.
    pub device: [u8; 16],
    /// The frame's destination MAC; zero when it was not read.
    pub frame_mac: [u8; 6],
    /// The device's own MAC; zero when it was not read.
    pub device_mac: [u8; 6],
    /// Port of a stray answer's sender, host order.
    pub stray_port: u16,
    /// Unused, 0.
    pub pad: [u16; 3],
    /// Address of a stray answer's sender.
    pub stray: [u8; 16],
    /// With TUNNEL, an address of the device (IPv4); zero when it has none. Older recordings end before it.
    pub holder: [u8; 16],
}

/// A packet of a pending connect was not delivered: reported the first time, and when it becomes another one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropRecord {
    /// The header.
    pub header: Header,
    /// The packet.
    pub dropped: Dropped,
}

assert_layout!(Dropped = 104, DropRecord = 120);
