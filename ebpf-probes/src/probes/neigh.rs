//! Who is behind an address on the local network, and whether this host still believes the right thing:
//! the life of ARP and NDP entries, and SYNs whose Ethernet source is not the cached MAC.
//!
//! Entries are followed by address, not by the kernel's pointer, so that the agent can fill in those that
//! existed before it from a netlink dump and both sides mean the same thing. What has no neighbour to
//! resolve (loopback, multicast, broadcast, point-to-point: `NUD_NOARP`) is not told. Neither are
//! creations: an entry has no state until something is done to it, and that is told.

use crate::{
    abi::{Header, Owner, ProbeId, Tuple, assert_layout},
    fields,
    spec::{Attach, Field, Hook, Probe, joined},
};

/// States of an entry: `NUD_*` of include/uapi/linux/neighbour.h.
pub mod state {
    /// New, removed, or not known.
    pub const NONE: u32 = 0x00;
    /// Asked for, not answered yet.
    pub const INCOMPLETE: u32 = 0x01;
    /// Answered, and confirmed lately.
    pub const REACHABLE: u32 = 0x02;
    /// Answered once; believed until something is sent.
    pub const STALE: u32 = 0x04;
    /// In use though stale: waits for a hint from above before it asks.
    pub const DELAY: u32 = 0x08;
    /// In use though stale: being asked, by unicast, at the cached MAC.
    pub const PROBE: u32 = 0x10;
    /// Asked for in vain: what waited for it was told EHOSTUNREACH.
    pub const FAILED: u32 = 0x20;
    /// Needs no resolution.
    pub const NOARP: u32 = 0x40;
    /// Set by hand, never asked.
    pub const PERMANENT: u32 = 0x80;
}

/// What made a [`NeighRecord`].
pub mod cause {
    /// An ARP or NDP packet, netlink or an ioctl: `neigh_update`.
    pub const UPDATED: u32 = 1;
    /// Its timer: probes sent, given up, gone stale.
    pub const TIMER: u32 = 2;
    /// Something was sent to it.
    pub const SENT: u32 = 3;
    /// Something was sent to an entry already removed, and dropped. At most once a second, with a count.
    pub const DEAD: u32 = 4;
    /// It was removed: by the garbage collector, with its device, or by netlink (which sets it FAILED first).
    pub const REMOVED: u32 = 5;
    /// The table was full and the entry was not made. At most once a second and family, with a count.
    pub const OVERFLOW: u32 = 6;
}

/// Bits of [`NeighRecord::flags`].
pub mod flag {
    /// culprit had not seen this neighbour before: old state and old MAC are unknown unless given.
    pub const FIRST: u32 = 1;
    /// It failed since the last record, and traffic has it being asked for again already.
    pub const FAILED_BETWEEN: u32 = 2;
    /// Set through netlink or an ioctl: the owner says by whom.
    pub const BY_HAND: u32 = 4;
}

/// What an [`UnheardRecord`] is about.
pub mod unheard {
    /// A SYN-ACK was sent again: this host is the server.
    pub const SYN_ACK: u32 = 1;
    /// A SYN was sent again: this host is the client.
    pub const SYN: u32 = 2;
    /// Data was sent again.
    pub const DATA: u32 = 3;
    /// A connection was established after all: the neighbour hears us.
    pub const ANSWERED: u32 = 4;
}

/// Names a neighbour on this machine: key of the `NEIGHBOURS` map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NeighKey {
    /// Inode number of the device's network namespace.
    pub netns: u32,
    /// The device's index in it.
    pub ifindex: u32,
    /// The neighbour's address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// Names a peer whatever device it is behind: key of the neighbours under suspicion.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Unused, 0.
    pub pad: u32,
}

/// A neighbour as last told: value of the `NEIGHBOURS` map.
///
/// The agent adds what existed before it, with `BPF_NOEXIST`: what the kernel wrote meanwhile is newer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// The cached link-layer address, zero when there is none.
    pub mac: [u8; 8],
    /// One of [`state`].
    pub state: u32,
    /// Probes sent in this state.
    pub probes: u32,
    /// CLOCK_BOOTTIME since which it is in this state, nanoseconds, 0 when unknown.
    pub state_since_ns: u64,
    /// CLOCK_BOOTTIME since which it has this MAC, nanoseconds, 0 when unknown.
    pub mac_since_ns: u64,
    /// An ARP or NDP packet from the cached MAC confirmed it last; CLOCK_BOOTTIME, nanoseconds, 0 for never.
    pub confirmed_ns: u64,
    /// The other MAC that its IP packets come from; zero when they come from the cached one.
    pub other_mac: [u8; 8],
    /// Since when, and when last; CLOCK_BOOTTIME, nanoseconds.
    pub other_since_ns: u64,
    /// See `other_since_ns`.
    pub other_last_ns: u64,
    /// When that was told last.
    pub other_told_ns: u64,
    /// Packets from another MAC so far.
    pub others: u64,
    /// When it last answered a connection although its packets come from another MAC: 0 for never.
    pub answered_ns: u64,
    /// When something to it, sent again, was told last.
    pub unheard_told_ns: u64,
    /// When a claim of its address was told last.
    pub claim_told_ns: u64,
    /// Packets to it sent again since its packets come from another MAC, or since it is watched.
    pub unanswered: u32,
    /// 1: what was told of it last was bad, so that its recovery is news.
    pub told_bad: u32,
}

/// A neighbour changed, or could not be made.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NeighRecord {
    /// The header; `kind` is [`crate::abi::Kind::NeighChange`].
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
    /// One of [`cause`].
    pub cause: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// One of [`state`].
    pub old_state: u32,
    /// One of [`state`].
    pub new_state: u32,
    /// `atomic_t probes` of the entry: for a fresh resolution it starts at the `ucast_solicit` setting.
    pub probes: u32,
    /// `NEIGH_UPDATE_F_*` of include/net/neighbour.h; with UPDATED.
    pub update_flags: u32,
    /// Netlink port of who asked, 0 when nobody did; with UPDATED.
    pub netlink_pid: u32,
    /// `NTF_*` of the entry: 0x80 is a router, 0x10 learnt by a control plane.
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
    /// Unused, 0.
    pub pad: u32,
}

/// A SYN came from another MAC than the one cached for its source: replies go elsewhere.
///
/// At most once a second and neighbour while the other MAC stays the same.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MacRecord {
    /// The header; `kind` is [`crate::abi::Kind::NeighMismatch`].
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
    /// One of [`state`].
    pub state: u32,
    /// SYNs of this neighbour from another MAC since the last such record, this one included.
    pub count: u32,
}

/// An ARP or NDP packet from another MAC than the cached one, which the kernel did not believe.
///
/// At most once a second and neighbour.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClaimRecord {
    /// The header; `kind` is [`crate::abi::Kind::NeighClaim`].
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
    /// One of [`state`].
    pub state: u32,
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
    /// The header; `kind` is [`crate::abi::Kind::NeighUnheard`].
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
    /// One of [`unheard`].
    pub what: u32,
    /// Packets sent again so far, this one included.
    pub unanswered: u32,
    /// Packets that came from the other MAC so far.
    pub seen: u32,
}

/// A packet that waits for a neighbour that does not answer, told at each of its unanswered probes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaiterRecord {
    /// The header; `kind` is [`crate::abi::Kind::NeighWaiter`].
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
    /// 1: it has no socket on this host, which forwards it for somebody else.
    pub forwarded: u32,
    /// Unused, 0.
    pub pad: u32,
}

assert_layout!(NeighKey = 24, PeerKey = 24, Neighbour = 112, NeighRecord = 184, MacRecord = 104);
assert_layout!(ClaimRecord = 80, UnheardRecord = 176, WaiterRecord = 144);

/// The `NEIGHBOURS` map, which the agent fills in at start.
pub const NEIGHBOURS_MAP: &str = "NEIGHBOURS";

/// What every look at an entry reads.
const ENTRY: &[Field] = &[
    fields::NEIGH_TBL,
    fields::NEIGH_DEV,
    fields::NEIGH_STATE,
    fields::NEIGH_FLAGS,
    fields::NEIGH_HA,
    fields::NEIGH_KEY,
    fields::NEIGH_PROBES,
    fields::NEIGH_TABLE_FAMILY,
    fields::DEV_IFINDEX,
    fields::DEV_NAME,
    fields::DEV_ADDR_LEN,
    fields::DEV_NET,
    fields::NET_INUM,
];

/// What a look at the packets that wait reads besides.
const QUEUE: &[Field] = &[
    fields::NEIGH_QUEUE,
    fields::NEIGH_QUEUED,
    fields::SKB_SK,
    fields::SKB_HEAD,
    fields::SKB_NETWORK_HEADER,
    fields::SK_COOKIE,
];

const NEIGHBOUR: &str = "struct neighbour *";

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::Neigh,
    name: "neigh",
    about: "neighbours (ARP, NDP): resolution, failure, MAC changes, full tables, SYNs from another MAC",
    hooks: &[
        Hook {
            program: "neigh_timer",
            attach: Attach::BtfTracepoint("neigh_timer_handler", &[NEIGHBOUR]),
            gives: "unanswered probes and failures, and who waits",
            required: true,
            fields: &joined::<{ ENTRY.len() + QUEUE.len() }>(ENTRY, QUEUE),
        },
        Hook {
            program: "neigh_updated",
            attach: Attach::BtfTracepoint("neigh_update_done", &[NEIGHBOUR]),
            gives: "answers and MAC changes",
            required: true,
            fields: ENTRY,
        },
        Hook {
            program: "neigh_updating",
            attach: Attach::RawTracepoint("neigh_update", &[NEIGHBOUR, "const u8 *", "u8", "u32", "u32"]),
            gives: "who changes a neighbour by hand, and who else claims its address",
            required: false,
            fields: &[
                fields::NEIGH_STATE,
                fields::NEIGH_HA,
                fields::NEIGH_DEV,
                fields::DEV_ADDR_LEN,
                fields::TASK_NSPROXY,
                fields::NSPROXY_NET,
                fields::NET_INUM,
            ],
        },
        Hook {
            program: "neigh_sent",
            attach: Attach::BtfTracepoint("neigh_event_send_done", &[NEIGHBOUR]),
            gives: "the beginning of a resolution",
            required: false,
            fields: ENTRY,
        },
        Hook {
            program: "neigh_dead",
            attach: Attach::BtfTracepoint("neigh_event_send_dead", &[NEIGHBOUR]),
            gives: "packets dropped because their neighbour was just removed",
            required: false,
            fields: ENTRY,
        },
        Hook {
            program: "neigh_removed",
            attach: Attach::BtfTracepoint("neigh_cleanup_and_release", &[NEIGHBOUR]),
            gives: "removals",
            required: false,
            fields: ENTRY,
        },
        Hook {
            program: "neigh_created",
            attach: Attach::RawTracepoint(
                "neigh_create",
                &["struct neigh_table *", "struct net_device *", "const void *", "const struct neighbour *"],
            ),
            gives: "full neighbour tables",
            required: false,
            fields: &[
                fields::NEIGH_TABLE_FAMILY,
                fields::NEIGH_TABLE_ENTRIES,
                fields::NEIGH_TABLE_GC_ENTRIES,
                fields::NEIGH_TABLE_GC_THRESH3,
                fields::DEV_IFINDEX,
                fields::DEV_NAME,
                fields::DEV_ADDR_LEN,
                fields::DEV_NET,
                fields::NET_INUM,
            ],
        },
        Hook {
            program: "synack_again",
            attach: Attach::BtfTracepoint(
                "tcp_retransmit_synack",
                &["const struct sock *", "const struct request_sock *"],
            ),
            gives: "neighbours that do not hear this host's SYN-ACKs",
            required: false,
            fields: &[
                fields::REQ_DADDR,
                fields::REQ_RCV_SADDR,
                fields::REQ_DPORT,
                fields::REQ_NUM,
                fields::REQ_FAMILY,
                fields::REQ_V6_DADDR,
                fields::REQ_V6_RCV_SADDR,
                fields::SK_NET,
                fields::NET_INUM,
            ],
        },
        Hook { required: false, ..crate::probes::connect::RETRANSMIT },
        Hook { required: false, ..crate::probes::connect::SET_STATE },
        Hook { required: false, ..crate::packet::INGRESS },
    ],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod overflow;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod program;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod road;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod waiters;
