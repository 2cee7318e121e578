//! DNS lookups as their client sees them: queries sent to port 53 and the answers that come back,
//! over UDP and TCP. What a message says is parsed in user space by a DNS library.

use crate::{
    abi::{Header, Owner, ProbeId, Tuple, assert_layout, declare},
    spec::{CONNECT4, CONNECT6, EXECUTES, FORKS, Hook, PACKET_IN, PACKET_OUT, Probe, SENDMSG4, SENDMSG6},
};

/// The port of a DNS server.
pub const PORT: u16 = 53;

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
    /// From where to where, as the program asked for it.
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

/// Whither the questions of a socket really go, where that is not the server asked for. Comes before the question.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsWire {
    /// The header.
    pub header: Header,
    /// Socket cookie.
    pub cookie: u64,
    /// From where to where on the wire.
    pub wire: Tuple,
    /// Why they differ, as far as that is known: bits of [`translated`](crate::abi::connect::translated).
    pub translated: u32,
    /// Unused, 0.
    pub pad: u32,
}

assert_layout!(DnsWire = 72);

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
pub struct DeferredMessage {
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
    /// See [`DnsWire`].
    pub translated: u32,
    /// From where to where on the wire, where that differs from `tuple`; otherwise all zero.
    pub wire: Tuple,
    /// The bytes.
    pub data: [u8; HELD],
}

assert_layout!(LookupKey = 16, DeferredMessage = 152 + HELD, DnsBytes<HELD> = HELD + DNS_BYTES_HEAD);

/// The `LOOKUPS` map, which the agent sweeps.
pub const LOOKUPS_MAP: &str = "LOOKUPS";
/// The `ANSWERS` map.
pub const ANSWERS_MAP: &str = "ANSWERS";
/// Lookups followed at most, and answers kept.
pub const LOOKUPS: u32 = 1 << 11;

/// The `ASKED` map: lookups under way, to time them when `LOOKUPS` does not hold them.
pub const ASKED_MAP: &str = "ASKED";

declare! { DNS = 2 {
    /// A DNS message: [`DnsBytes`].
    DNS_MESSAGE = 32,
    /// Whither a socket's questions go, where that is not the server asked for: [`DnsWire`].
    DNS_WIRE = 33,
} }

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::DNS,
    kinds: KINDS,
    name: "dns",
    about: "DNS lookups over UDP and TCP port 53: question, answer, latency, owner",
    hooks: &[
        asks(CONNECT4),
        asks(CONNECT6),
        asks(SENDMSG4),
        asks(SENDMSG6),
        PACKET_OUT,
        PACKET_IN,
        EXECUTES,
        FORKS,
    ],
};

/// A lookup without these is a lookup nevertheless.
const fn asks(hook: Hook) -> Hook {
    Hook { required: false, ..hook }
}

#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod clients;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod lookups;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub(crate) mod program;
#[cfg(any(target_arch = "bpf", feature = "lint"))]
mod stats;
