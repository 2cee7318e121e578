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
    /// Unused, 0.
    pub pad: u32,
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

/// What this file contributes.
pub const PROBE: Probe = Probe {
    id: ProbeId::Dns,
    name: "dns",
    about: "DNS lookups over UDP and TCP port 53: question, answer, latency, owner",
    hooks: &[crate::packet::EGRESS, crate::packet::INGRESS],
};

#[cfg(any(target_arch = "bpf", feature = "lint"))]
pub mod program;
