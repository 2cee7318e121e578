//! What a probe is made of, as data: its hooks, what each needs of the kernel, and what is lost
//! without it. The agent plans, checks, attaches and reports from this; nothing here does anything.
//! Hooks that several probes share stand here too, each once.

use crate::{
    abi::{Kind, ProbeId},
    fields,
};

pub use crate::fields::Field;

/// A family of facts about the system, and the hooks that deliver it.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Which one.
    pub id: ProbeId,
    /// The kinds of records it writes, or the agent writes for it.
    pub kinds: &'static [Kind],
    /// Its name on the command line, in JSON and in metrics.
    pub name: &'static str,
    /// One sentence for help and documentation.
    pub about: &'static str,
    /// Where it looks. Several probes may name the same program; it is attached once.
    pub hooks: &'static [Hook],
}

/// One program and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// Name of the program in the kernel object.
    pub program: &'static str,
    /// Where it is attached.
    pub attach: Attach,
    /// What the probe cannot say when this hook is missing.
    pub gives: &'static str,
    /// The probe is useless without it.
    pub required: bool,
    /// Kernel fields the program reads.
    pub fields: &'static [Field],
}

impl Hook {
    /// Whether it is on a system call: while one such hook is attached, all system calls of the machine are
    /// slower.
    pub fn is_on_system_call(&self) -> bool {
        matches!(self.attach, Attach::Tracepoint("syscalls", _))
    }
}

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// A BTF-typed raw tracepoint, with the leading arguments the program relies on, as C types.
    BtfTracepoint(&'static str, &'static [&'static str]),
    /// An untyped raw tracepoint, with the leading arguments the program relies on.
    RawTracepoint(&'static str, &'static [&'static str]),
    /// A tracepoint of tracefs: category and name.
    Tracepoint(&'static str, &'static str),
    /// Packets arriving at sockets below the cgroup root.
    CgroupIngress,
    /// Packets leaving sockets below the cgroup root.
    CgroupEgress,
    /// `connect()` to an IPv4 address.
    CgroupConnect4,
    /// `connect()` to an IPv6 address.
    CgroupConnect6,
    /// `sendto()` on an unconnected UDP socket, IPv4.
    CgroupSendmsg4,
    /// `sendto()` on an unconnected UDP socket, IPv6.
    CgroupSendmsg6,
    /// Objects of the kernel, walked through by the agent when it starts: nothing stays attached.
    Iterator(&'static str),
}

impl core::fmt::Display for Attach {
    /// As kernel developers write it: `tp_btf/…`, `tracepoint/…`, `cgroup/…`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BtfTracepoint(name, _) => write!(f, "tp_btf/{name}"),
            Self::RawTracepoint(name, _) => write!(f, "raw_tp/{name}"),
            Self::Tracepoint(category, name) => write!(f, "tracepoint/{category}/{name}"),
            Self::CgroupIngress => f.write_str("cgroup_skb/ingress"),
            Self::CgroupEgress => f.write_str("cgroup_skb/egress"),
            Self::CgroupConnect4 => f.write_str("cgroup/connect4"),
            Self::CgroupConnect6 => f.write_str("cgroup/connect6"),
            Self::CgroupSendmsg4 => f.write_str("cgroup/sendmsg4"),
            Self::CgroupSendmsg6 => f.write_str("cgroup/sendmsg6"),
            Self::Iterator(objects) => write!(f, "iter/{objects}"),
        }
    }
}

/// Follows the children of wanted processes; attached only when processes are asked for, by number or name.
pub const FOLLOW_FORK: Hook = Hook {
    program: "follow_fork",
    attach: Attach::BtfTracepoint("sched_process_fork", &["struct task_struct *", "struct task_struct *"]),
    gives: "children of the processes asked for",
    required: false,
    fields: &[fields::TASK_TGID],
};

/// Notes processes as one of their threads gets a wanted name; attached only when a name is asked for.
pub const FOLLOW_NAME: Hook = Hook {
    program: "follow_name",
    attach: Attach::RawTracepoint("task_rename", &["struct task_struct *", "const char *"]),
    gives: "processes that get the name asked for later on",
    required: false,
    fields: &[],
};

/// Forgets wanted processes that are gone, so that their numbers can be used again; attached likewise.
pub const FOLLOW_EXIT: Hook = Hook {
    program: "follow_exit",
    attach: Attach::BtfTracepoint("sched_process_exit", &["struct task_struct *"]),
    gives: "the end of the processes asked for: their numbers stay wanted",
    required: false,
    fields: &[fields::TASK_TGID, fields::TASK_SIGNAL, fields::SIGNAL_LIVE],
};

/// Notes what processes execute: whatever has an owner names its executable.
pub const EXECUTES: Hook = Hook {
    program: "note_executable",
    attach: Attach::RawTracepoint("sched_process_exec", &[]),
    gives: "executables of processes that end before culprit can look at them",
    required: false,
    fields: &[
        fields::TASK_MM,
        fields::MM_EXE_FILE,
        fields::FILE_DENTRY,
        fields::FILE_MNT,
        fields::MOUNT_INNER,
        fields::MOUNT_ROOT,
        fields::MOUNT_PARENT,
        fields::MOUNT_POINT,
        fields::DENTRY_PARENT,
        fields::DENTRY_NAME,
        fields::DENTRY_HASHED,
    ],
};

/// Notes what children run that execute nothing. Without it nothing is noted: numbers of processes are used again.
pub const FORKS: Hook = Hook {
    program: "inherit_executable",
    attach: Attach::BtfTracepoint("sched_process_fork", &["struct task_struct *", "struct task_struct *"]),
    gives: "executables of children that end before culprit can look at them",
    required: false,
    fields: &[fields::TASK_TGID],
};

/// Adopts what was under way before the programs were attached: shared by connects and handshakes.
pub const ADOPTS: Hook = Hook {
    program: ADOPT,
    attach: Attach::Iterator("task_file"),
    gives: "connects and handshakes that were under way before culprit started",
    required: false,
    fields: &[
        fields::TASK_TGID,
        fields::TASK_COMM,
        fields::TASK_LEADER,
        fields::TASK_SIGNAL,
        fields::SIGNAL_THREADS,
        fields::TASK_CGROUPS,
        fields::CSS_SET_CGROUP,
        fields::CGROUP_SELF,
        fields::CGROUP_PARENT,
        fields::CGROUP_NODE,
        fields::NODE_ID,
        fields::FILE_INODE,
        fields::INODE_MODE,
        fields::FILE_PRIVATE,
        fields::SOCKET_SK,
        fields::SK_FAMILY,
        fields::SK_PROTOCOL,
        fields::SK_STATE,
        fields::SK_COOKIE,
        fields::SK_NET,
        fields::NET_INUM,
        fields::SK_NUM,
        fields::SK_DPORT,
        fields::SK_DADDR,
        fields::SK_RCV_SADDR,
        fields::SK_V6_DADDR,
        fields::SK_V6_RCV_SADDR,
        fields::SK_BOUND_IF,
        fields::ICSK_RETRANSMITS,
        fields::ICSK_RECEIVED,
        fields::ICSK_ACCEPT_HEAD,
        fields::REQ_SK,
        fields::REQ_NEXT,
        fields::TCP_RCV_NXT,
        fields::TCP_COPIED_SEQ,
        fields::TCP_BYTES_RECEIVED,
        fields::TCP_DATA_SENT,
        fields::TCP_RETRANS_STAMP,
        fields::SK_SOCKET,
        fields::ICSK_RTO,
        fields::ICSK_BACKOFF,
        fields::ICSK_PATH_MTU,
        fields::TCP_SND_UNA,
        fields::TCP_SND_NXT,
        fields::TCP_WRITE_SEQ,
        fields::TCP_SND_WND,
        fields::TCP_MSS,
        fields::TCP_PACKETS,
        fields::TCP_SACKED,
        fields::TCP_BYTES_ACKED,
        fields::TCP_HEARD,
    ],
};
/// The program of [`ADOPTS`], which the agent runs.
pub const ADOPT: &str = "adopt";
/// The map of one word by which the agent says that a walk is for owners only.
pub const OWNERS_ONLY_MAP: &str = "OWNERS_ONLY";

/// What a look at the calling thread reads.
const OWNER: &[Field] = &[fields::TASK_NSPROXY, fields::NSPROXY_NET, fields::NET_INUM];

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
    gives: "SYN retries as they happen, connections whose data is not acknowledged, and neighbours that do not hear this host",
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
        fields::RTABLE_GATEWAY_FAMILY,
        fields::RTABLE_GATEWAY,
        fields::RTABLE_GATEWAY6,
        fields::RT6_FLAGS,
        fields::RT6_GATEWAY,
        fields::ICSK_RETRANSMITS,
        fields::DEV_IFINDEX,
        fields::NET_INUM,
        fields::SKB_LEN,
        fields::SK_ERR,
        fields::SK_SOCKET,
        fields::SK_RCV_SADDR,
        fields::SK_V6_RCV_SADDR,
        fields::ICSK_RTO,
        fields::ICSK_BACKOFF,
        fields::ICSK_PATH_MTU,
        fields::ICSK_RECEIVED,
        fields::TCP_RETRANS_STAMP,
        fields::TCP_SND_UNA,
        fields::TCP_SND_NXT,
        fields::TCP_WRITE_SEQ,
        fields::TCP_SND_WND,
        fields::TCP_MSS,
        fields::TCP_PACKETS,
        fields::TCP_SACKED,
        fields::TCP_BYTES_ACKED,
        fields::TCP_BYTES_RECEIVED,
        fields::TCP_HEARD,
    ],
};

/// What the programs that see packets read, for all probes together.
const PACKET: &[Field] = &[
    fields::TASK_TGID,
    fields::TASK_PID,
    fields::TASK_COMM,
    fields::SK_NET,
    fields::NET_INUM,
    fields::SK_ACK_BACKLOG,
    fields::SK_MAX_ACK_BACKLOG,
    fields::SK_DADDR,
    fields::SK_RCV_SADDR,
    fields::SK_V6_DADDR,
    fields::SK_V6_RCV_SADDR,
    fields::SK_NUM,
    fields::SK_DPORT,
    fields::SK_STATE,
    fields::SK_FAMILY,
    fields::SK_PROTOCOL,
    fields::SK_COOKIE,
    fields::TCP_RCV_NXT,
    fields::TCP_SND_NXT,
    fields::TCP_MSTAMP,
    fields::TCP_SACKS,
    fields::TCP_NUM_SACKS,
    fields::SKB_REFDST,
    fields::SKB_DEV,
    fields::DEV_NET,
    fields::RTABLE_GATEWAY_FAMILY,
    fields::RTABLE_GATEWAY,
    fields::RTABLE_GATEWAY6,
    fields::RT6_FLAGS,
    fields::RT6_GATEWAY,
];

/// Packets arriving: shared by all probes.
pub const PACKET_IN: Hook = Hook {
    program: "packet_in",
    attach: Attach::CgroupIngress,
    gives: "what arrives: hellos, DNS answers, the MAC a SYN comes from",
    required: true,
    fields: PACKET,
};

/// Packets leaving: shared by connects, handshakes and lookups.
pub const PACKET_OUT: Hook = Hook {
    program: "packet_out",
    attach: Attach::CgroupEgress,
    gives: "what leaves: SYNs with their local port, hellos, DNS queries",
    required: true,
    fields: PACKET,
};
