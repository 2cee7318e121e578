//! What the programs count whatever is reported: numbers of counters, numbers of histograms, and which bucket
//! a duration falls into. Nothing here depends on the ring, on the mode or on what `-Z` leaves out;
//! only what the filters watch is counted.

/// Counters there is room for: a power of two, which the verifier can follow.
pub const COUNTERS: usize = 64;

/// The `COUNTERS` map: one value of [`COUNTERS`] numbers per processor.
pub const COUNTERS_MAP: &str = "COUNTERS";

/// The `HISTOGRAMS` map: one [`Histogram`] per processor for each [`Timed`].
pub const HISTOGRAMS_MAP: &str = "HISTOGRAMS";

/// Numbers of counters. Groups that are counted by a number known only at run time stand together.
pub mod counter {
    use super::{Ended, NeighEvent};

    /// SYNs sent again.
    pub const SYN_RETRANSMITS: u32 = 0;
    /// SYN-ACKs sent again.
    pub const SYNACK_RETRANSMITS: u32 = 1;
    /// DNS questions sent, those sent again included.
    pub const DNS_QUERIES: u32 = 2;
    /// TCP connects that ended, by [`Ended`].
    pub const CONNECTS: u32 = 4;
    /// TLS handshakes that ended: see [`crate::probes::tls::ended`].
    pub const TLS: u32 = CONNECTS + Ended::ALL.len() as u32;
    /// Ways in which they end: two roles, four stages.
    pub const TLS_ENDINGS: u32 = 8;
    /// DNS answers, by the response code of their header.
    pub const DNS_RESPONSES: u32 = TLS + TLS_ENDINGS;
    /// What happened to neighbours: see [`neigh`].
    pub const NEIGH: u32 = DNS_RESPONSES + DNS_RCODES;
    /// Response codes a header has room for.
    pub const DNS_RCODES: u32 = 16;

    const _: () = assert!(NEIGH as usize + 2 * NeighEvent::ALL.len() <= super::COUNTERS);

    /// What happened to neighbours of a family.
    pub const fn neigh(event: NeighEvent, v6: bool) -> u32 {
        NEIGH + event as u32 * 2 + v6 as u32
    }
}

macro_rules! listed {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// Their names.
            pub const NAMES: &'static [&'static str] = &[$($label,)+];

            /// As a metric's label writes it.
            pub const fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }
        }
    };
}

listed! {
    /// What became of a TCP connect.
    Ended {
        /// The peer accepted.
        Established = "established",
        /// ECONNREFUSED.
        Refused = "refused",
        /// ECONNRESET, EPIPE.
        Reset = "reset",
        /// ETIMEDOUT.
        TimedOut = "timed_out",
        /// EHOSTUNREACH, EHOSTDOWN.
        HostUnreachable = "host_unreachable",
        /// ENETUNREACH, ENETDOWN.
        NetUnreachable = "net_unreachable",
        /// Closed while pending.
        Aborted = "aborted",
        /// EPERM, EACCES.
        Denied = "denied",
        /// Any other error.
        Other = "other",
    }
}

impl Ended {
    /// What an error means: a positive errno of asm-generic/errno.h, 0 for none at all.
    ///
    /// The same as the agent says in words (agent/src/domains/connect/apply.rs, which tests it).
    #[inline(always)]
    pub const fn by_error(errno: i32) -> Self {
        match errno {
            0 | 103 => Self::Aborted,
            1 | 13 => Self::Denied,
            32 | 104 => Self::Reset,
            100 | 101 => Self::NetUnreachable,
            110 => Self::TimedOut,
            111 => Self::Refused,
            112 | 113 => Self::HostUnreachable,
            _ => Self::Other,
        }
    }
}

listed! {
    /// What happens to a neighbour (ARP, NDP).
    NeighEvent {
        /// An entry that was not there is put to use.
        Created = "created",
        /// It was asked for and answered.
        Resolved = "resolved",
        /// It was asked for without an answer.
        Failed = "failed",
        /// Another MAC took the place of the cached one.
        MacChanged = "mac_changed",
        /// A packet came from another MAC than the cached one.
        MacMismatch = "mac_mismatch",
        /// There was no room for an entry.
        TableFull = "table_full",
    }
}

listed! {
    /// What is timed. Of TLS, clients come before servers, in steps of one.
    Timed {
        /// TCP connects that were established.
        ConnectEstablished = "connect established",
        /// TCP connects that failed.
        ConnectFailed = "connect failed",
        /// DNS lookups, from the first question to the answer.
        Dns = "dns",
        /// Handshakes that were done, from the first byte of the ClientHello on.
        TlsClient = "tls client",
        /// The same of servers.
        TlsServer = "tls server",
        /// From the arrival of the peer's hello until a thread read it.
        ReadClient = "read client",
        /// The same of servers.
        ReadServer = "read server",
        /// From the ClientHello to the ServerHello.
        ServerFlightClient = "server_flight client",
        /// The same of servers.
        ServerFlightServer = "server_flight server",
        /// From the end of the server's flight to the client's answer.
        ClientFinishClient = "client_finish client",
        /// The same of servers.
        ClientFinishServer = "client_finish server",
        /// From the client's flight to the server's last answer, where there is one.
        ServerFinishClient = "server_finish client",
        /// The same of servers.
        ServerFinishServer = "server_finish server",
    }
}

/// Buckets of a [`Histogram`], room that is not used included: a power of two.
pub const BUCKETS: usize = 32;
/// Buckets that are used; the last one holds whatever is longer than the bound before it.
pub const BUCKETS_USED: usize = 23;
/// The bound of the first bucket, as a power of two of microseconds: 64 µs.
const FIRST: u32 = 6;

/// How long something took, as often as it happened. How often that was is the sum of the buckets, so that
/// the two never disagree.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    /// All durations together, nanoseconds.
    pub sum_ns: u64,
    /// How many fell into each bucket and into none before it.
    pub buckets: [u64; BUCKETS],
}

const _: () = assert!(size_of::<Histogram>() == 8 + 8 * BUCKETS);

/// The bucket of a duration: the first one whose bound is not below it. With one branch, for the verifier.
#[inline(always)]
pub const fn bucket(ns: u64) -> u32 {
    // 1 unless it took no time at all. What is longer than a bound by a nanosecond is beyond it.
    let some = (ns | ns.wrapping_neg()) >> 63;
    let below = ((ns - some) / 1000) | ((1 << FIRST) - 1);
    let at = u64::BITS - below.leading_zeros() - FIRST;
    if at < BUCKETS_USED as u32 { at } else { BUCKETS_USED as u32 - 1 }
}

/// The inclusive bound of a bucket in nanoseconds; none of the last one.
pub const fn bound_ns(bucket: usize) -> Option<u64> {
    if bucket + 1 < BUCKETS_USED { Some(1000 << (FIRST as usize + bucket)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_whose_bound_is_not_below_it() {
        for ns in [0, 1, 999, 1000, 63_999, 64_000] {
            assert_eq!(bucket(ns), 0, "{ns}");
        }
        for at in 0..BUCKETS_USED - 1 {
            let bound = bound_ns(at).expect("a bound");
            assert_eq!(bucket(bound) as usize, at, "{bound}");
            assert_eq!(bucket(bound - 1) as usize, at, "{bound} - 1");
            assert_eq!(bucket(bound + 1) as usize, at + 1, "{bound} + 1");
        }
        assert_eq!(bound_ns(0), Some(64_000));
        assert_eq!(bound_ns(BUCKETS_USED - 2), Some(134_217_728_000));
        assert_eq!((bound_ns(BUCKETS_USED - 1), bucket(u64::MAX) as usize), (None, BUCKETS_USED - 1));
    }
}
