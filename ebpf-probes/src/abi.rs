//! The bytes that cross the ring: a header every record starts with, the parts several records
//! share, and the numbers both sides use for kinds, probes and counters.
//!
//! Everything here is `#[repr(C)]`, `Copy`, integers and byte arrays only, with explicit padding
//! and a size that is a multiple of 8. Byte order is the machine's own; ports are in host order.

pub mod connect;
pub mod executable;

/// Every record starts with this.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// CLOCK_BOOTTIME when the record was written, in nanoseconds.
    pub boot_ns: u64,
    /// What the record is: a [`Kind`] as a number.
    pub kind: u32,
    /// Bytes of the record that carry meaning, this header included.
    pub len: u32,
}

/// Which network namespace. The inode number alone does not say it: the kernel gives that of a deleted
/// namespace to the next one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Netns {
    /// Its inode number, 0 when unknown.
    pub inode: u32,
    /// Reports it from others that have or had this number: the low half of the namespace's cookie (from Linux
    /// 5.12 on; before, bits of a number drawn at its birth). 0 when unknown, as in older recordings.
    pub generation: u32,
}

impl Netns {
    /// A namespace of which only the number is known.
    pub const fn numbered(inode: u32) -> Self {
        Self { inode, generation: 0 }
    }

    /// Whether it is known which one it is.
    pub const fn is_known(self) -> bool {
        self.inode != 0
    }
}

impl core::fmt::Display for Netns {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.generation {
            0 => write!(f, "{}", self.inode),
            generation => write!(f, "{}.{generation}", self.inode),
        }
    }
}

/// How the programs report the generation of a namespace: value of the `GENERATION` global.
pub mod generation {
    /// Not at all.
    pub const UNKNOWN: u32 = 0;
    /// The low half of `net->net_cookie`.
    pub const COOKIE: u32 = 1;
    /// Half of `net->hash_mix`, where cookies are drawn only when asked for (before Linux 5.12).
    pub const HASH_MIX: u32 = 2;
}

/// Who did it: captured in the kernel, in the context of the thread itself.
///
/// All zero when no thread is known.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Process id (the kernel's tgid), in the initial pid namespace.
    pub process: u32,
    /// Thread id (the kernel's pid), in the initial pid namespace.
    pub thread: u32,
    /// The network namespace.
    pub netns: Netns,
    /// cgroup v2 id, 0 when unknown.
    pub cgroup: u64,
    /// The thread's name, NUL-padded.
    pub comm: [u8; 16],
}

/// The two ends of a connection, seen from this host.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Local address; IPv4 as `::ffff:a.b.c.d`.
    pub local: [u8; 16],
    /// Remote address; IPv4 as `::ffff:a.b.c.d`.
    pub remote: [u8; 16],
    /// Local port, host order, 0 when not chosen yet.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// Address family of the socket: [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// IP protocol: 6 TCP, 17 UDP, 262 MPTCP.
    pub protocol: u16,
}

/// A connection where its socket's cookie is not known: by its ends and the network namespace they belong to.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Its addresses and ports.
    pub tuple: Tuple,
    /// Its network namespace.
    pub netns: Netns,
}

/// The map of connections that are to be adopted and have no cookie yet, by [`Connection`]: the device that each is
/// bound to, 0 for none. The agent has their cookies drawn, and walks once more.
pub const LACKING_MAP: &str = "LACKING";

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// `IPPROTO_TCP`.
pub const IPPROTO_TCP: u16 = 6;
/// `IPPROTO_UDP`.
pub const IPPROTO_UDP: u16 = 17;
/// `IPPROTO_ICMP`.
pub const IPPROTO_ICMP: u16 = 1;
/// `IPPROTO_ICMPV6`.
pub const IPPROTO_ICMPV6: u16 = 58;

/// The first twelve bytes of an IPv4-mapped IPv6 address.
pub const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }

        impl TryFrom<u32> for $name {
            type Error = u32;
            fn try_from(number: u32) -> Result<Self, u32> {
                match number { $($value => Ok(Self::$variant),)+ other => Err(other) }
            }
        }
    };
}

/// What a record is, as its header says. Each probe declares its own ([`declare!`], in its folder); these are the
/// agent's.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u32);

impl Kind {
    /// Time passed (written by the agent); nothing but a header.
    pub const TICK: Self = Self(80);
    /// Records were lost (written by the agent): [`LostRecord`].
    pub const LOST: Self = Self(81);
}

/// A probe by its number: its place in [`crate::probes::PROBES`], its row of the `STATS` map, and its bit among the
/// probes that are asked for. Each probe declares its own in its folder.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeId(pub u32);

impl ProbeId {
    /// Probes there is room for.
    pub const MOST: usize = 16;
}

/// What a probe's folder declares of itself: its number, and the kinds of records it writes with theirs. No two in the
/// table may be the same, which [`crate::probes`] asserts.
macro_rules! declare {
    ($id:ident = $number:literal { $($(#[$doc:meta])* $kind:ident = $value:literal,)+ }) => {
        impl crate::abi::ProbeId {
            #[doc = concat!("The `", stringify!($id), "` probe.")]
            pub const $id: Self = Self($number);
        }

        impl crate::abi::Kind {
            $($(#[$doc])* pub const $kind: Self = Self($value);)+
        }

        /// The kinds of records it writes.
        pub const KINDS: &[crate::abi::Kind] = &[$(crate::abi::Kind::$kind,)+];
    };
}
pub(crate) use declare;

numbered! {
    /// Per-probe counters the kernel keeps, one column each of the `STATS` map.
    Stat {
        /// Records handed to the ring.
        Emitted = 0,
        /// Records lost because the ring was full.
        RingFull = 1,
        /// Operations not followed because a map was full.
        MapFull = 2,
        /// Records given up because kernel or packet memory could not be read.
        Unreadable = 3,
        /// Runs of a program that the kernel left out because it ran already on that processor. The kernel counts
        /// them, no program does: its column stays 0.
        Missed = 4,
    }
}

impl Stat {
    /// Those that count losses, in the order in which they are shown.
    pub const LOSSES: &'static [Self] = &[Self::RingFull, Self::MapFull, Self::Unreadable, Self::Missed];

    /// The word for it in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Emitted => "emitted",
            Self::RingFull => "ring_full",
            Self::MapFull => "map_full",
            Self::Unreadable => "unreadable",
            Self::Missed => "missed",
        }
    }
}

/// Columns of the `STATS` map.
pub const STATS_COLUMNS: usize = 5;

/// Records lost since the last such record, by probe.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostRecord {
    /// The header; `kind` is [`Kind::Lost`].
    pub header: Header,
    /// The [`ProbeId`] as a number.
    pub probe: u32,
    /// The [`Stat`] that grew: `RingFull`, `MapFull`, `Unreadable` or `Missed`.
    pub stat: u32,
    /// By how much.
    pub count: u64,
}

/// Types any bytes are a value of, and whose every byte is written: `#[repr(C)]`, integers and byte arrays only, with
/// explicit padding.
///
/// # Safety
/// Implementors have no padding of the compiler's and no bit patterns that mean nothing.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}

/// Asserts sizes, and with them that what the ring carries is [`Plain`].
macro_rules! assert_layout {
    ($($ty:ty = $size:expr),+ $(,)?) => {
        $(
            const _: () = assert!(core::mem::size_of::<$ty>() == $size && $size % 8 == 0);
            // SAFETY: declared `#[repr(C)]` with integers, byte arrays and such structs, padding spelt out: its size,
            // asserted above, is that of its fields.
            unsafe impl crate::abi::Plain for $ty {}
        )+
    };
}
pub(crate) use assert_layout;

assert_layout!(Header = 16, Netns = 8, Owner = 40, Tuple = 40, Connection = 48, LostRecord = 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_there_and_back_and_strangers_are_refused() {
        for stat in Stat::ALL {
            assert_eq!(Stat::try_from(*stat as u32), Ok(*stat));
        }
        assert_eq!(Stat::try_from(5), Err(5));
        assert_eq!(Stat::ALL.len(), STATS_COLUMNS);
    }
}
