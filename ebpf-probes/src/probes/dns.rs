//! DNS lookups as their client sees them: queries sent to port 53 and the answers that come back,
//! over UDP and TCP. What a message says is parsed in user space by a DNS library.

use crate::{
    abi::{Header, Owner, ProbeId, Tuple, assert_layout},
    spec::Probe,
};

/// Bytes of a DNS message, or of the TCP stream that carries it. `header.len` ends the data.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsBytes<const N: usize> {
    /// The header.
    pub header: Header,
    /// Socket cookie.
    pub cookie: u64,
    /// Who asked; all zero when the socket was connected before culprit started.
    pub owner: Owner,
    /// From where to where; the remote port is 53.
    pub tuple: Tuple,
    /// TCP sequence number of the first byte; 0 for UDP.
    pub seq: u32,
    /// Length of the payload on the wire; more than the captured bytes when it was cut.
    pub wire_len: u32,
    /// 1: it arrived.
    pub ingress: u32,
    /// A held question: how often it was sent so far. 0 for a message that has just passed.
    pub queries: u32,
    /// The bytes.
    pub data: [u8; N],
}

/// Bytes of [`DnsBytes`] before its data.
pub const DNS_BYTES_HEAD: usize = 120;
/// Data of a small [`DnsBytes`].
pub const SMALL: usize = 256;
/// Data of a large [`DnsBytes`].
pub const LARGE: usize = 2048;

assert_layout!(DnsBytes<SMALL> = SMALL + DNS_BYTES_HEAD, DnsBytes<LARGE> = LARGE + DNS_BYTES_HEAD);

/// Bytes of a DNS message that are held at most.
pub const HELD: usize = 512;

/// Names a lookup: key of the `LOOKUPS` and `ANSWERS` maps.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LookupKey {
    /// Socket cookie.
    pub cookie: u64,
    /// Id of the DNS message over UDP; [`ANY_TCP`] over TCP, where one lookup is followed at a time.
    pub id: u64,
}

/// [`LookupKey::id`] over TCP.
pub const ANY_TCP: u64 = 1 << 32;

/// A DNS message held for the agent, should it be needed: a question that waits (`LOOKUPS`), or an
/// answer that may name an address (`ANSWERS`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldMessage {
    /// When it passed, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// See [`DnsBytes`].
    pub owner: Owner,
    /// See [`DnsBytes`].
    pub tuple: Tuple,
    /// See [`DnsBytes`].
    pub seq: u32,
    /// See [`DnsBytes`].
    pub wire_len: u32,
    /// See [`DnsBytes`].
    pub ingress: u32,
    /// Bytes held.
    pub len: u32,
    /// How often a question was sent.
    pub queries: u32,
    /// Unused, 0.
    pub pad: u32,
    /// The bytes.
    pub data: [u8; HELD],
}

assert_layout!(LookupKey = 16, HeldMessage = 112 + HELD, DnsBytes<HELD> = HELD + DNS_BYTES_HEAD);

/// The `LOOKUPS` map, which the agent sweeps.
pub const LOOKUPS_MAP: &str = "LOOKUPS";
/// The `ANSWERS` map.
pub const ANSWERS_MAP: &str = "ANSWERS";
/// Lookups followed at most, and answers kept.
pub const LOOKUPS: u32 = 1 << 11;

/// The `ASKED` map: lookups under way, to time them when `LOOKUPS` does not hold them.
pub const ASKED_MAP: &str = "ASKED";

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::Dns,
    name: "dns",
    about: "DNS lookups over UDP and TCP port 53: question, answer, latency, owner",
    hooks: &[crate::packet::EGRESS, crate::packet::INGRESS],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod counted;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod program;
