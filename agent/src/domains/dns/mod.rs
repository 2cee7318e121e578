//! DNS lookups: what is asked, answered, and not answered.

mod apply;
mod decode;
mod describe;
mod fact;
mod heard;
mod memory;
mod streams;
mod text;
mod words;

use ebpf_probes::{abi::Owner, probes::dns::DnsWire};

pub use apply::failed;
pub use decode::{DnsMessage, Record, decode};
pub use fact::What;
pub use heard::{Answers, Edns, Heard, Verdict};
pub use memory::Memory;

use crate::text::host::Name;

/// A DNS lookup under way, or one that took long.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LookupOp {
    /// Socket cookie.
    pub cookie: u64,
    /// Id of its message.
    pub id: u16,
    /// Who asked.
    pub owner: Owner,
    /// The server's address.
    pub server: [u8; 16],
    /// The address it is asked from.
    pub local: [u8; 16],
    /// Whither it went, where that is not the server asked for.
    pub wire: Option<DnsWire>,
    /// The name asked for.
    pub name: Name,
    /// The record type asked for.
    pub query_type: String,
    /// When the first query was sent, CLOCK_BOOTTIME in nanoseconds.
    pub started_ns: u64,
    /// When it was last sent, as far as that is known.
    pub sent_ns: u64,
    /// How often it was sent.
    pub queries: u32,
    /// It wants recursion: it is asked of a resolver, which is to find out.
    pub recursive: bool,
    /// How many of its queries had an OPT record (EDNS), as far as they were seen.
    pub edns_queries: u32,
    /// How long an answer over UDP these accept.
    pub udp_size: u16,
    /// When it was answered or failed; `None` while it is pending.
    pub ended_ns: Option<u64>,
    /// What the answer said, if one came.
    pub verdict: Option<Verdict>,
    /// It failed.
    pub failed: bool,
}
