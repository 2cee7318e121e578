//! A connect in flight, as the kernel keeps it and several probes read it: `connect` follows it, `neighbour` takes from it
//! who waits for a neighbour, `dns` says in its words whither a question goes.

use super::{Netns, Owner, Tuple, assert_layout};

/// How far a connect has come.
pub mod phase {
    /// `connect()` was called; no SYN yet.
    pub const CALLED: u32 = 0;
    /// In SYN_SENT.
    pub const SYN_SENT: u32 = 1;
    /// Went back to CLOSE inside the call; the call's return will say why.
    pub const GIVEN_UP: u32 = 2;
    /// The call has returned. Never reported.
    pub const RETURNED: u32 = 3;
    /// `connect(2)` was entered: the destination is what the program asked for. Never reported.
    pub const ENTERED: u32 = 4;
    /// Over, and its end was not seen: the agent says so of one that sends no SYN any more.
    pub const UNSEEN: u32 = 5;
}

/// What else is known of a connect: bits.
pub mod flag {
    /// It was under way when culprit started: of what happened before, only what its socket remembers is known. Which
    /// thread called is not, where the process has several.
    pub const ADOPTED: u32 = 1;
    /// Of such a one: a SYN has been sent again since, and whether this host drops it was seen.
    pub const SENT_SINCE: u32 = 2;
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
    /// Which packet was dropped last, and where: [`packet`](crate::probes::connect::packet) and
    /// [`place`](crate::probes::connect::place). 0 in recordings made before this was known.
    pub drop_where: u32,
    /// The ways its packets take, where they differ from `tuple`; otherwise all zero.
    pub wire: Tuple,
    /// Why they differ: bits of [`translated`].
    pub translated: u32,
    /// The ICMP error with which this host itself answered, as [`Icmp::word`](crate::probes::connect::Icmp::word)
    /// writes it; 0 for none.
    pub icmp: u32,
    /// The network namespace it was sent in.
    pub icmp_netns: Netns,
    /// The error (positive errno) that waited to be handed out when the connect ended, 0 for none.
    pub unread_errno: i32,
    /// Bits of [`flag`].
    pub flags: u32,
}

impl Connect {
    /// It was under way when culprit started.
    pub fn is_adopted(&self) -> bool {
        self.flags & flag::ADOPTED != 0
    }

    /// What becomes of its SYNs on this host has been seen.
    pub fn is_seen(&self) -> bool {
        !self.is_adopted() || self.flags & flag::SENT_SINCE != 0 || self.drops > 0
    }

    /// The ways its packets take.
    pub fn way(&self) -> &Tuple {
        if leaves_as_asked(self.translated) { &self.tuple } else { &self.wire }
    }
}

/// Whether packets leave their own namespace on the way the program asked for.
pub const fn leaves_as_asked(by: u32) -> bool {
    by & (translated::BY_PROGRAM | translated::BY_NAT) == 0
}

assert_layout!(Connect = 192);
