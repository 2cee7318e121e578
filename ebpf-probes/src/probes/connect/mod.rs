//! Who connects where, and what becomes of it.
//!
//! A connect is timed on the socket, never in the system call: almost every server connects without
//! blocking and waits elsewhere, io_uring never enters `connect(2)` at all. The owner is saved in the
//! cgroup hook, in process context; later stages run in whatever the softirq interrupted.

use crate::{
    abi::{Header, ProbeId, assert_layout, declare},
    fields,
    spec::{
        ADOPTS, Attach, CONNECT4, CONNECT6, EXECUTES, FORKS, Hook, PACKET_IN, PACKET_OUT, Probe, RETRANSMIT,
        SENDMSG4, SENDMSG6, SET_STATE,
    },
};

/// Bytes of [`Connect`] before it knew of translations.
pub const CONNECT_WITHOUT_WIRE: usize = 128;

/// The fields by which a packet's connection is found in conntrack, and the places at which the programs expect them in
/// `struct nf_conntrack_tuple`: only some kernels describe them, and drops are found without.
pub const CONNTRACK: &[crate::spec::Field] = &[fields::SKB_NFCT, fields::CT_TUPLES, fields::CT_TUPLE];
/// See [`CONNTRACK`].
pub const CONNTRACK_TUPLE: &[(&str, u32)] = &[
    ("nf_conntrack_tuple.src.u3", 0),
    ("nf_conntrack_tuple.src.u", 16),
    ("nf_conntrack_tuple.src.l3num", 18),
    ("nf_conntrack_tuple.dst.u3", 20),
    ("nf_conntrack_tuple.dst.u", 36),
    ("nf_conntrack_tuple.dst.protonum", 38),
];

/// An ICMP or ICMPv6 "destination unreachable": its code, and of which family it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// ICMPv6.
    pub v6: bool,
    /// The code: RFC 792, RFC 1812 §5.2.7.1; RFC 4443 §3.1.
    pub code: u8,
}

impl Icmp {
    const SENT: u32 = 1 << 31;
    const V6: u32 = 1 << 8;

    /// As a number other than 0.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        Self::SENT | self.code as u32 | if self.v6 { Self::V6 } else { 0 }
    }

    /// What [`Icmp::word`] wrote; `None` of anything else.
    pub const fn of(word: u32) -> Option<Self> {
        if word & Self::SENT == 0 {
            return None;
        }
        Some(Self { v6: word & Self::V6 != 0, code: word as u8 })
    }

    /// The error a program gets for it: `icmp_err_convert` of net/ipv4/icmp.c, `tab_unreach` of
    /// net/ipv6/icmp.c.
    #[inline(always)]
    pub const fn errno(self) -> i32 {
        const EACCES: i32 = 13;
        const EPROTO: i32 = 71;
        const EMSGSIZE: i32 = 90;
        const ENOPROTOOPT: i32 = 92;
        const EOPNOTSUPP: i32 = 95;
        const ENETUNREACH: i32 = 101;
        const ECONNREFUSED: i32 = 111;
        const EHOSTDOWN: i32 = 112;
        const EHOSTUNREACH: i32 = 113;
        const ENONET: i32 = 64;
        if self.v6 {
            match self.code {
                0 => ENETUNREACH,
                1 | 5 | 6 => EACCES,
                2 | 3 => EHOSTUNREACH,
                4 => ECONNREFUSED,
                _ => EPROTO,
            }
        } else {
            match self.code {
                0 | 6 | 9 | 11 => ENETUNREACH,
                2 => ENOPROTOOPT,
                3 => ECONNREFUSED,
                4 => EMSGSIZE,
                5 => EOPNOTSUPP,
                7 => EHOSTDOWN,
                8 => ENONET,
                _ => EHOSTUNREACH,
            }
        }
    }
}

/// A record about a connect; its kind says what happened.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectRecord {
    /// The header.
    pub header: Header,
    /// The connect as it was then.
    pub connect: Connect,
}

assert_layout!(ConnectRecord = 208);

mod drop_record;
mod overflow_record;
mod unacked_record;

pub use drop_record::{DropRecord, Dropped, packet, place};
pub use overflow_record::{Overflow, OverflowRecord};
pub use unacked_record::{Fresh, PeerAt, Unacked, UnackedRecord, unacked};

pub use crate::abi::connect::{Connect, flag, leaves_as_asked, phase, translated};

/// The `PENDING` map, which the agent sweeps.
pub const PENDING_MAP: &str = "PENDING";

/// The map of connections whose data is not acknowledged, by the address of their socket: the agent sweeps it.
pub const UNACKED_MAP: &str = "UNACKED";
/// The program that looks at one of them again, which the agent runs.
pub const LOOK_UNACKED: &str = "look_unacked";

declare! { CONNECT = 0 {
    /// A connect began: [`ConnectRecord`].
    CONNECT_START = 1,
    /// A SYN was sent again.
    CONNECT_RETRY = 2,
    /// A connect ended, or failed before it began.
    CONNECT_END = 3,
    /// A packet of a pending connect was dropped on this host.
    CONNECT_DROP = 4,
    /// A connect is still pending (written by the agent's sweep).
    CONNECT_PENDING = 5,
    /// A connect waits (written by the agent's sweep, sooner and oftener than people care to hear).
    CONNECT_WAITING = 6,
    /// A packet of a pending connect was not delivered, and where: [`DropRecord`].
    CONNECT_DROP_PLACE = 7,
    /// A listener ignores SYNs, because its accept queue is full: [`OverflowRecord`].
    LISTEN_QUEUE_FULL = 8,
    /// Data of a connection is sent again and not acknowledged: [`UnackedRecord`] (written by the agent's sweep).
    CONNECTION_UNACKED = 9,
    /// It was acknowledged, or the connection ended: [`UnackedRecord`].
    CONNECTION_SETTLED = 10,
} }

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::CONNECT,
    kinds: KINDS,
    name: "connect",
    about: "outbound connects, TCP and UDP: owner, SYN retries, outcome, drops on this host; accept queues that are full; connections whose data is not acknowledged",
    hooks: &[
        CONNECT4,
        CONNECT6,
        SENDMSG4,
        SENDMSG6,
        SET_STATE,
        Hook {
            program: "sk_error",
            attach: Attach::BtfTracepoint("inet_sk_error_report", &["const struct sock *"]),
            gives: "errors a socket reports while it connects, and ICMP errors of UDP sockets",
            required: false,
            fields: &[fields::SK_ERR, fields::SK_STATE, fields::SK_PROTOCOL, fields::SK_COOKIE],
        },
        RETRANSMIT,
        Hook {
            program: "drop_skb",
            attach: Attach::BtfTracepoint("kfree_skb", &["struct sk_buff *", "void *"]),
            // From 5.17 a third argument says why; the agent sets it in the program.
            gives: "packets of a pending connect, or that are not acknowledged, that this host itself drops, with the reason",
            required: false,
            fields: &[
                fields::ICSK_RETRANSMITS,
                fields::SKB_SK,
                fields::SKB_HEAD,
                fields::SKB_NETWORK_HEADER,
                fields::SKB_MAC_HEADER,
                fields::SKB_DEV,
                fields::SKB_IIF,
                fields::SKB_PROTOCOL,
                fields::SKB_REFDST,
                fields::RTABLE_FLAGS,
                fields::RT6_FLAGS,
                fields::DEV_IFINDEX,
                fields::DEV_NAME,
                fields::DEV_NET,
                fields::DEV_ADDR,
                fields::DEV_LINK_OPS,
                fields::LINK_OPS_KIND,
                fields::DEV_IP,
                fields::IN_DEVICE_ADDRESSES,
                fields::IN_ADDRESS_LOCAL,
                fields::IN_ADDRESS_NEXT,
                fields::SK_NET,
                fields::NET_INUM,
                fields::SK_STATE,
                fields::SK_COOKIE,
            ],
        },
        Hook {
            program: "enter_connect",
            attach: Attach::Tracepoint("syscalls", "sys_enter_connect"),
            gives: "errors that connect(2) returns at once, and what was asked before cgroup programs changed it",
            required: false,
            fields: &[],
        },
        Hook {
            program: "exit_connect",
            attach: Attach::Tracepoint("syscalls", "sys_exit_connect"),
            gives: "errors that connect(2) returns at once",
            required: false,
            fields: &[],
        },
        Hook {
            program: "enter_getsockopt",
            attach: Attach::Tracepoint("syscalls", "sys_enter_getsockopt"),
            gives: "errors that SO_ERROR hands out of a connect that is still pending",
            required: false,
            fields: &[
                fields::TASK_FILES,
                fields::FILES_FDT,
                fields::FDT_FD,
                fields::FDT_MAX,
                fields::FILE_PRIVATE,
                fields::SOCKET_SK,
                fields::SK_COOKIE,
                fields::SK_STATE,
                fields::SK_ERR,
                fields::SK_ERR_SOFT,
            ],
        },
        PACKET_OUT,
        PACKET_IN,
        ADOPTS,
        EXECUTES,
        FORKS,
    ],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod adopt;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod backlog;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod calls;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod conntrack;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod datagrams;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod dropped;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod headers;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod icmp;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod overflow;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod program;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod report;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod so_error;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod stray;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod unacked_program;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod wire;

#[cfg(test)]
mod tests {
    use super::{Icmp, PROBE};

    #[test]
    fn programs_are_named_once() {
        for (i, hook) in PROBE.hooks.iter().enumerate() {
            assert!(PROBE.hooks[..i].iter().all(|other| other.program != hook.program), "{}", hook.program);
        }
    }
    #[test]
    fn an_icmp_error_survives_as_a_word_and_nothing_else_is_one() {
        for v6 in [false, true] {
            for code in [0, 1, 3, 13, 255] {
                assert_eq!(Icmp::of(Icmp { v6, code }.word()), Some(Icmp { v6, code }));
            }
        }
        assert_eq!((Icmp::of(0), Icmp::of(0x103)), (None, None));
        assert_eq!((Icmp { v6: false, code: 3 }.errno(), Icmp { v6: true, code: 4 }.errno()), (111, 111));
        assert_eq!((Icmp { v6: false, code: 13 }.errno(), Icmp { v6: true, code: 1 }.errno()), (113, 13));
    }
}
