//! What the programs of the `neighbour` probe put on the ring.

use crate::abi::{Header, Netns, Owner, Tuple, assert_layout};

/// A neighbour changed, or could not be made.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NeighRecord {
    /// The header; `kind` is [`crate::abi::Kind::NEIGH_CHANGE`].
    pub header: Header,
    /// Who changed it; all zero when the kernel did, or a packet.
    pub owner: Owner,
    /// The neighbour's address; IPv4 as `::ffff:a.b.c.d`. With OVERFLOW what there was no room for, which
    /// in IPv6 is often the multicast group a question would have gone to.
    pub address: [u8; 16],
    /// The device's name, NUL-padded.
    pub device: [u8; 16],
    /// The cached MAC before, zero when there was none.
    pub old_mac: [u8; 8],
    /// The cached MAC now. Kept while INCOMPLETE or FAILED: not valid then.
    pub new_mac: [u8; 8],
    /// CLOCK_BOOTTIME since which it was in the old state, nanoseconds, 0 when unknown.
    pub state_since_ns: u64,
    /// CLOCK_BOOTTIME since which it had the old MAC, nanoseconds, 0 when unknown.
    pub mac_since_ns: u64,
    /// Inode number of the device's network namespace.
    pub netns: u32,
    /// The device's index in it.
    pub ifindex: u32,
    /// One of [`super::cause`].
    pub cause: u32,
    /// Bits of [`super::flag`].
    pub flags: u32,
    /// One of [`super::state`].
    pub old_state: u32,
    /// One of [`super::state`].
    pub new_state: u32,
    /// `atomic_t probes` of the entry: for a fresh resolution it starts at the `ucast_solicit` setting.
    pub probes: u32,
    /// `NEIGH_UPDATE_F_*` of include/net/neighbour.h; with UPDATED.
    pub update_flags: u32,
    /// Netlink port of who asked, 0 when none did; with UPDATED.
    pub netlink_pid: u32,
    /// `NTF_*` of the entry: 0x80 is a router, 0x10 NTF_EXT_LEARNED, set by a control plane.
    pub entry_flags: u32,
    /// Entries in the family's table, all namespaces together; with OVERFLOW.
    pub entries: u32,
    /// Those of them the garbage collector may take, which `gc_thresh3` bounds; with OVERFLOW.
    pub gc_entries: u32,
    /// The bound: `net.ipv4.neigh.default.gc_thresh3`, or ipv6; with OVERFLOW.
    pub gc_thresh3: u32,
    /// How often since the last such record, this time included; with OVERFLOW and DEAD.
    pub count: u32,
    /// Address family: [`crate::abi::AF_INET`] or [`crate::abi::AF_INET6`].
    pub family: u16,
    /// Length of the device's link-layer addresses; more than 8 when the MACs here are cut.
    pub mac_len: u16,
    /// The namespace's [`Netns::generation`], 0 when unknown.
    pub generation: u32,
}

/// A SYN came from another MAC than the one cached for its source: replies go elsewhere.
///
/// At most once a second and neighbour while the other MAC stays the same.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MacRecord {
    /// The header; `kind` is [`crate::abi::Kind::NEIGH_MISMATCH`].
    pub header: Header,
    /// The SYN's two ends; the remote one is the neighbour.
    pub tuple: Tuple,
    /// Where replies go.
    pub cached_mac: [u8; 8],
    /// Where the SYN came from.
    pub seen_mac: [u8; 8],
    /// CLOCK_BOOTTIME since which the entry is in its state, nanoseconds, 0 when unknown.
    pub state_since_ns: u64,
    /// CLOCK_BOOTTIME since which the entry holds this MAC, nanoseconds, 0 when unknown.
    pub mac_since_ns: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The device's index in it.
    pub ifindex: u32,
    /// One of [`super::state`].
    pub state: u32,
    /// SYNs of this neighbour from another MAC since the last such record, this one included.
    pub count: u32,
    /// The namespace's [`Netns::generation`], 0 when unknown. Older recordings end before it.
    pub generation: u32,
    /// Unused, 0.
    pub pad: u32,
    /// The neighbour: see [`UnheardRecord::neighbour`].
    pub neighbour: [u8; 16],
}

/// An ARP or NDP packet from another MAC than the cached one, which the kernel did not believe.
///
/// At most once a second and neighbour.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The header; `kind` is [`crate::abi::Kind::NEIGH_CLAIM`].
    pub header: Header,
    /// The neighbour's address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The cached MAC.
    pub cached_mac: [u8; 8],
    /// The one that claims the address too.
    pub claimed_mac: [u8; 8],
    /// CLOCK_BOOTTIME since which the entry holds its MAC, nanoseconds, 0 when unknown.
    pub mac_since_ns: u64,
    /// When a packet from the cached MAC confirmed it last, CLOCK_BOOTTIME in nanoseconds, 0 for never.
    pub confirmed_ns: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The device's index in it.
    pub ifindex: u32,
    /// One of [`super::state`].
    pub state: u32,
    /// The namespace's [`Netns::generation`], 0 when unknown.
    pub generation: u32,
    /// Bits of [`super::flag`]. Older recordings end before it.
    pub flags: u32,
    /// Unused, 0.
    pub pad: u32,
}

/// Something sent to a neighbour whose packets come from another MAC than the cached one was not answered
/// in time and was sent again; or such a neighbour answered after all.
///
/// The first at once, then at most five a second and neighbour.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnheardRecord {
    /// The header; `kind` is [`crate::abi::Kind::NEIGH_UNHEARD`].
    pub header: Header,
    /// The connection; the remote end is the neighbour.
    pub tuple: Tuple,
    /// Whose connection; all zero when that is not known, as for a SYN-ACK.
    pub owner: Owner,
    /// Socket cookie, 0 for a SYN-ACK.
    pub cookie: u64,
    /// Where it goes.
    pub cached_mac: [u8; 8],
    /// Where the neighbour's packets come from.
    pub seen_mac: [u8; 8],
    /// Since when they do, CLOCK_BOOTTIME in nanoseconds.
    pub seen_since_ns: u64,
    /// CLOCK_BOOTTIME since which the entry is in its state, nanoseconds, 0 when unknown.
    pub state_since_ns: u64,
    /// CLOCK_BOOTTIME since which the entry holds its MAC, nanoseconds, 0 when unknown.
    pub mac_since_ns: u64,
    /// When it last answered a connection all the same, CLOCK_BOOTTIME in nanoseconds, 0 for never.
    pub answered_ns: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The device's index in it.
    pub ifindex: u32,
    /// State of the entry: one of [`state`].
    pub state: u32,
    /// One of [`super::unheard`].
    pub what: u32,
    /// Packets sent again so far, this one included.
    pub unanswered: u32,
    /// Packets that came from the other MAC so far.
    pub seen: u32,
    /// The namespace's [`Netns::generation`], 0 when unknown. Older recordings end before it.
    pub generation: u32,
    /// Bits of [`super::unheard_flag`].
    pub flags: u32,
    /// When the last packet came from the other MAC, CLOCK_BOOTTIME in nanoseconds, 0 when not recorded.
    pub seen_last_ns: u64,
    /// When an ARP or NDP packet from the cached MAC confirmed it last, CLOCK_BOOTTIME in nanoseconds, 0 for
    /// never.
    pub confirmed_ns: u64,
    /// The neighbour: the remote end itself, or the next hop by which it is reached. Zero in older recordings,
    /// which end before it: the remote end.
    pub neighbour: [u8; 16],
}

/// A packet that waits for a neighbour that does not answer, reported at each of its unanswered probes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaiterRecord {
    /// The header; `kind` is [`crate::abi::Kind::NEIGH_WAITER`].
    pub header: Header,
    /// The neighbour's address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Where the packet is from and where to; ports are 0 unless it is TCP or UDP.
    pub tuple: Tuple,
    /// Whose packet, when that is known.
    pub owner: Owner,
    /// Cookie of its socket, 0 when it has none: it is forwarded, or the kernel's own.
    pub cookie: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The device's index in it.
    pub ifindex: u32,
    /// Packets that wait.
    pub queued: u32,
    /// Probes of the entry so far.
    pub probes: u32,
    /// 1: it has no socket on this host, which forwards it for another host.
    pub forwarded: u32,
    /// The namespace's [`Netns::generation`], 0 when unknown.
    pub generation: u32,
}

assert_layout!(NeighRecord = 184, MacRecord = 128, ClaimRecord = 88, UnheardRecord = 216, WaiterRecord = 144);

macro_rules! has_netns {
    ($($record:ident),+) => { $(impl $record {
        /// The network namespace.
        pub const fn netns(&self) -> Netns {
            Netns { inode: self.netns, generation: self.generation }
        }
    })+ };
}

macro_rules! has_neighbour {
    ($($record:ident),+) => { $(impl $record {
        /// The neighbour's address: the next hop, where the remote end is behind a router.
        pub fn neighbour(&self) -> [u8; 16] {
            if self.neighbour == [0; 16] { self.tuple.remote } else { self.neighbour }
        }

        /// Whether the remote end is behind the neighbour, a router.
        pub fn is_routed(&self) -> bool {
            self.neighbour() != self.tuple.remote
        }
    })+ };
}
has_neighbour!(MacRecord, UnheardRecord);
has_netns!(NeighRecord, MacRecord, ClaimRecord, UnheardRecord, WaiterRecord);
