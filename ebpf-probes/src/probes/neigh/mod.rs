//! Who is behind an address on the local network, and whether this host still believes the right thing:
//! the life of ARP and NDP entries, and SYNs whose Ethernet source is not the cached MAC.
//!
//! Entries are followed by address, not by the kernel's pointer, so that the agent can fill in those that
//! existed before it from a netlink dump and both sides mean the same thing. What has no neighbour to
//! resolve (loopback, multicast, broadcast, point-to-point: `NUD_NOARP`) is not reported. Neither are
//! creations: an entry has no state until something is done to it, and that is reported.

mod records;

pub use records::{ClaimRecord, MacRecord, NeighRecord, UnheardRecord, WaiterRecord};

use crate::{
    abi::{Netns, ProbeId, assert_layout, declare},
    fields::{self, Field, joined},
    spec::{Attach, EXECUTES, FORKS, Hook, PACKET_IN, Probe, RETRANSMIT, SET_STATE},
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
    /// Asked for without an answer: what waited for it got EHOSTUNREACH.
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
    /// Old and new MAC (of a claim: the cached and the claimed one) are known to belong together: a connection
    /// was established while one was cached and the other spoke.
    pub const TOGETHER: u32 = 8;
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
    /// The other MAC has spoken again although nothing is answered.
    pub const SPEAKS: u32 = 5;
    /// The cached MAC has reset a connection that is asked for again from the other one: two machines.
    /// `unanswered` counts those times.
    pub const RESET: u32 = 6;
    /// A datagram of the neighbour's came again, the same, each time after it was answered. `unanswered` counts those
    /// times.
    pub const DATAGRAM: u32 = 7;
}

/// Bits of [`UnheardRecord::flags`].
pub mod unheard_flag {
    /// The two MACs belong together: a connection was established while one was cached and the other spoke.
    pub const TOGETHER: u32 = 1;
}

/// Names a neighbour on this machine: key of the `NEIGHBOURS` map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NeighKey {
    /// The device's network namespace.
    pub netns: Netns,
    /// The device's index in it.
    pub ifindex: u32,
    /// Unused, 0.
    pub pad: u32,
    /// The neighbour's address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
}

/// Names a peer whatever device it is behind: key of the neighbours under suspicion.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The network namespace.
    pub netns: Netns,
}

/// A neighbour as last reported: value of the `NEIGHBOURS` map.
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
    /// When that was reported last.
    pub other_reported_ns: u64,
    /// Packets from another MAC so far.
    pub others: u64,
    /// When it last answered a connection although its packets come from another MAC: 0 for never.
    pub answered_ns: u64,
    /// When something to it, sent again, was reported last.
    pub unheard_reported_ns: u64,
    /// When a claim of its address was reported last.
    pub claim_reported_ns: u64,
    /// Packets to it sent again since its packets come from another MAC, or since it is watched.
    pub unanswered: u32,
    /// 1: what was reported of it last was bad, so that its recovery is news.
    pub reported_bad: u32,
}

assert_layout!(NeighKey = 32, PeerKey = 24, Neighbour = 112);

/// The `UNTIL` map and its slot that says until when next hops are noted: set by the agent when it starts, for what was
/// under way before it.
pub const UNTIL_MAP: &str = "UNTIL";
/// See [`UNTIL_MAP`].
pub const ROUTING_SLOT: u32 = 2;
/// The slot that is not 0 once an entry is known that was set for good; and the map of such entries' addresses, to which the
/// agent adds those that were there before it.
pub const PINNED_SLOT: u32 = 3;
/// See [`PINNED_SLOT`].
pub const PINNED_MAP: &str = "PINNED_ADDRESSES";
/// How long next hops are noted after something went unanswered, or the agent started; nanoseconds.
pub const ROUTING_NS: u64 = 120_000_000_000;

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

declare! { NEIGH = 3 {
    /// A neighbour changed: [`NeighRecord`].
    NEIGH_CHANGE = 48,
    /// A SYN came from another MAC than the cached one: [`MacRecord`].
    NEIGH_MISMATCH = 49,
    /// Another MAC claims a neighbour's address: [`ClaimRecord`].
    NEIGH_CLAIM = 50,
    /// A neighbour does not hear us, or does again: [`UnheardRecord`].
    NEIGH_UNHEARD = 51,
    /// A packet waits for a neighbour that does not answer: [`WaiterRecord`].
    NEIGH_WAITER = 52,
} }

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::NEIGH,
    kinds: KINDS,
    name: "neighbour",
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
                fields::REQ_RETRANSMITS,
                fields::REQ_FAMILY,
                fields::REQ_V6_DADDR,
                fields::REQ_V6_RCV_SADDR,
                fields::SK_NET,
                fields::NET_INUM,
            ],
        },
        Hook { required: false, ..RETRANSMIT },
        Hook { required: false, ..SET_STATE },
        Hook { required: false, ..PACKET_IN },
        EXECUTES,
        FORKS,
    ],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod change;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod datagrams;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod hops;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod leaves;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod macs;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod overflow;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod program;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod retransmits;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod source_mac;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod suspects;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod table;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod update;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod waiters;
