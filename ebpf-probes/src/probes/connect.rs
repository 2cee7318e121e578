//! Who connects where, and what becomes of it.
//!
//! A connect is timed on the socket, never in the system call: almost every server connects without
//! blocking and waits elsewhere, io_uring never enters `connect(2)` at all. The owner is saved in the
//! cgroup hook, in process context; later stages run in whatever the softirq interrupted.

use crate::{
    abi::{Header, Netns, Owner, ProbeId, Tuple, assert_layout},
    fields,
    spec::{Attach, Hook, Probe},
};

/// How far a connect has come.
pub mod phase {
    /// `connect()` was called; no SYN yet.
    pub const CALLED: u32 = 0;
    /// In SYN_SENT.
    pub const SYN_SENT: u32 = 1;
    /// Went back to CLOSE inside the call; the call's return will say why.
    pub const GIVEN_UP: u32 = 2;
    /// The call has returned. Never told.
    pub const RETURNED: u32 = 3;
    /// `connect(2)` was entered: the destination is what the program asked for. Never told.
    pub const ENTERED: u32 = 4;
}

/// Who changed where a connect goes: bits.
pub mod translated {
    /// A cgroup program gave the socket another destination than the program asked for.
    pub const BY_PROGRAM: u32 = 1;
    /// Netfilter gave the packets another way than the socket has.
    pub const BY_NAT: u32 = 2;
    /// Netfilter did so further on, in another network namespace: where they left their own, they went where the
    /// socket goes.
    pub const LATER: u32 = 4;
}

/// A connect in flight, as the kernel keeps it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connect {
    /// Socket cookie.
    pub cookie: u64,
    /// Who called.
    pub owner: Owner,
    /// From where to where, as the program asked for it.
    pub tuple: Tuple,
    /// CLOCK_BOOTTIME of the call, nanoseconds.
    pub started_ns: u64,
    /// SYNs sent again.
    pub retries: u32,
    /// SYNs seen leaving the IP layer towards a device, the first included.
    pub syns: u32,
    /// Packets of this connect dropped on this host.
    pub drops: u32,
    /// Why the last one was dropped: the running kernel's `enum skb_drop_reason`.
    pub drop_reason: u32,
    /// The error it ended with (positive errno), 0 for none.
    pub errno: i32,
    /// One of [`phase`].
    pub phase: u32,
    /// 1 when the connect was established. Meaningful in `ConnectEnd`.
    pub established: u32,
    /// Which packet was dropped last, and where: [`packet`] and [`place`]. 0 in recordings made before this was known.
    pub drop_where: u32,
    /// The ways its packets take, where they differ from `tuple`; otherwise all zero.
    pub wire: Tuple,
    /// Why they differ: bits of [`translated`].
    pub translated: u32,
    /// The ICMP error with which this host itself answered, as [`Icmp::word`] writes it; 0 for none.
    pub icmp: u32,
    /// The network namespace it was sent in.
    pub icmp_netns: Netns,
    /// The error (positive errno) that waited to be handed out when the connect ended, 0 for none.
    pub unread_errno: i32,
    /// Unused, 0.
    pub pad2: u32,
}

/// Bytes of [`Connect`] before it knew of translations.
pub const CONNECT_WITHOUT_WIRE: usize = 128;

impl Connect {
    /// The ways its packets take.
    pub fn way(&self) -> &Tuple {
        if leaves_as_asked(self.translated) { &self.tuple } else { &self.wire }
    }
}

/// Whether packets leave their own namespace on the way the program asked for.
pub const fn leaves_as_asked(by: u32) -> bool {
    by & (translated::BY_PROGRAM | translated::BY_NAT) == 0
}

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

    /// The error a program is told for it: `icmp_err_convert` of net/ipv4/icmp.c, `tab_unreach` of
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

assert_layout!(Connect = 192, ConnectRecord = 208);

mod undelivered;

pub use undelivered::{DropRecord, Dropped, packet, place};

/// The `PENDING` map, which the agent sweeps.
pub const PENDING_MAP: &str = "PENDING";

const OWNER: &[crate::spec::Field] = &[fields::TASK_NSPROXY, fields::NSPROXY_NET, fields::NET_INUM];

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::Connect,
    name: "connect",
    about: "outbound connects, TCP and UDP: owner, SYN retries, outcome, drops on this host",
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
            // From 5.17 a third argument says why; the agent tells the program.
            gives: "packets of a pending connect that this host itself drops, with the reason",
            required: false,
            fields: &[
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
        crate::packet::EGRESS,
        crate::packet::INGRESS,
    ],
};

/// Connects to IPv4 addresses: shared with lookups.
pub const CONNECT4: Hook = Hook {
    program: "connect4",
    attach: Attach::CgroupConnect4,
    gives: "who connects to IPv4 addresses",
    required: true,
    fields: OWNER,
};

/// Connects to IPv6 addresses: shared with lookups.
pub const CONNECT6: Hook = Hook {
    program: "connect6",
    attach: Attach::CgroupConnect6,
    gives: "who connects to IPv6 addresses",
    required: true,
    fields: OWNER,
};

/// Datagrams of unconnected sockets to IPv4 addresses: shared with lookups.
pub const SENDMSG4: Hook = Hook {
    program: "sendmsg4",
    attach: Attach::CgroupSendmsg4,
    gives: "unconnected UDP to IPv4 addresses",
    required: false,
    fields: OWNER,
};

/// Datagrams of unconnected sockets to IPv6 addresses: shared with lookups.
pub const SENDMSG6: Hook = Hook {
    program: "sendmsg6",
    attach: Attach::CgroupSendmsg6,
    gives: "unconnected UDP to IPv6 addresses",
    required: false,
    fields: OWNER,
};

/// Socket state changes: shared by connects and handshakes.
pub const SET_STATE: Hook = Hook {
    program: "set_state",
    attach: Attach::BtfTracepoint("inet_sock_set_state", &["const struct sock *", "int", "int"]),
    gives: "SYN sent, established, failed, closed",
    required: true,
    fields: &[
        fields::SK_DADDR,
        fields::SK_RCV_SADDR,
        fields::SK_DPORT,
        fields::SK_NUM,
        fields::SK_FAMILY,
        fields::SK_NET,
        fields::SK_V6_DADDR,
        fields::SK_V6_RCV_SADDR,
        fields::SK_COOKIE,
        fields::SK_ERR,
        fields::SK_ERR_SOFT,
        fields::INET_SPORT,
        fields::SK_PROTOCOL,
        fields::NET_INUM,
    ],
};

/// What TCP sends again: shared by connects and neighbours.
pub const RETRANSMIT: Hook = Hook {
    program: "retransmit",
    attach: Attach::BtfTracepoint("tcp_retransmit_skb", &["const struct sock *", "const struct sk_buff *"]),
    gives: "SYN retries as they happen, and neighbours that do not hear this host",
    required: false,
    fields: &[
        fields::SK_STATE,
        fields::SK_COOKIE,
        fields::SK_DADDR,
        fields::SK_RCV_SADDR,
        fields::SK_DPORT,
        fields::SK_NUM,
        fields::SK_FAMILY,
        fields::SK_PROTOCOL,
        fields::SK_NET,
        fields::SK_V6_DADDR,
        fields::SK_V6_RCV_SADDR,
        fields::SK_DST_CACHE,
        fields::DST_DEV,
        fields::ICSK_RETRANSMITS,
        fields::DEV_IFINDEX,
        fields::NET_INUM,
    ],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod datagrams;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod dropped;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod handed_out;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod icmp;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod program;

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
