//! Who connects where, and what becomes of it.
//!
//! A connect is timed on the socket, never in the system call: almost every server connects without
//! blocking and waits elsewhere, io_uring never enters `connect(2)` at all. The owner is saved in the
//! cgroup hook, in process context; later stages run in whatever the softirq interrupted.

use crate::{
    abi::{Header, Owner, ProbeId, Tuple, assert_layout},
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
}

/// A connect in flight, as the kernel keeps it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connect {
    /// Socket cookie.
    pub cookie: u64,
    /// Who called.
    pub owner: Owner,
    /// From where to where.
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

assert_layout!(Connect = 128, ConnectRecord = 144);

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
        Hook {
            program: "connect4",
            attach: Attach::CgroupConnect4,
            gives: "who connects to IPv4 addresses",
            required: true,
            fields: OWNER,
        },
        Hook {
            program: "connect6",
            attach: Attach::CgroupConnect6,
            gives: "who connects to IPv6 addresses",
            required: true,
            fields: OWNER,
        },
        Hook {
            program: "sendmsg4",
            attach: Attach::CgroupSendmsg4,
            gives: "unconnected UDP to IPv4 addresses",
            required: false,
            fields: OWNER,
        },
        Hook {
            program: "sendmsg6",
            attach: Attach::CgroupSendmsg6,
            gives: "unconnected UDP to IPv6 addresses",
            required: false,
            fields: OWNER,
        },
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
            gives: "errors that connect(2) returns at once",
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
        crate::packet::EGRESS,
        crate::packet::INGRESS,
    ],
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
pub mod program;

#[cfg(test)]
mod tests {
    use super::PROBE;

    #[test]
    fn programs_are_named_once() {
        for (i, hook) in PROBE.hooks.iter().enumerate() {
            assert!(PROBE.hooks[..i].iter().all(|other| other.program != hook.program), "{}", hook.program);
        }
    }
}
