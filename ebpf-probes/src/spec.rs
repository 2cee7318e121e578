//! What a probe is made of, as data: its hooks, what each needs of the kernel, and what is lost
//! without it. The agent plans, checks, attaches and reports from this; nothing here does anything.

use crate::abi::ProbeId;

/// A family of facts about the system, and the hooks that deliver it.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Which one.
    pub id: ProbeId,
    /// Its name on the command line, in JSON and in metrics.
    pub name: &'static str,
    /// One sentence for help and documentation.
    pub about: &'static str,
    /// Where it looks. Several probes may name the same program; it is attached once.
    pub hooks: &'static [Hook],
}

/// Two lists of fields as one.
pub const fn joined<const N: usize>(one: &[Field], two: &[Field]) -> [Field; N] {
    let mut all = [one[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < one.len() { one[at] } else { two[at - one.len()] };
        at += 1;
    }
    all
}

/// One program and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// Name of the program in the kernel object.
    pub program: &'static str,
    /// Where it is attached.
    pub attach: Attach,
    /// What the probe cannot tell when this hook is missing.
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
        }
    }
}

/// A field of a kernel structure, found in the running kernel's BTF when the program is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The `.rodata` global that receives its offset, in bytes.
    pub global: &'static str,
    /// Where it is: `struct.member.member`.
    pub path: &'static str,
    /// Its size in bytes; 0 accepts any (flexible arrays).
    pub size: u32,
}

/// The value of an offset the agent has not filled in: reading through it is refused by the verifier.
pub const NO_OFFSET: u32 = u32::MAX;

/// Follows the children of wanted processes; attached only when processes are asked for, by number or name.
pub const FOLLOW_FORK: Hook = Hook {
    program: "follow_fork",
    attach: Attach::BtfTracepoint("sched_process_fork", &["struct task_struct *", "struct task_struct *"]),
    gives: "children of the processes asked for",
    required: false,
    fields: &[crate::fields::TASK_TGID],
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
    fields: &[crate::fields::TASK_TGID, crate::fields::TASK_SIGNAL, crate::fields::SIGNAL_LIVE],
};
