//! DNS lookups: what is asked, answered, and not answered.

mod apply;
mod decode;
mod describe;
mod fact;
mod streams;
mod text;
mod words;

use ebpf_probes::abi::Owner;

pub use apply::{Memory, failed};
pub use decode::{DnsMessage, Record, decode};
pub use fact::What;

use crate::text::host::Name;

/// A DNS lookup under way, or one that took long.
#[derive(Debug, Clone, PartialEq)]
pub struct LookupOp {
    /// Socket cookie.
    pub cookie: u64,
    /// Who asked.
    pub owner: Owner,
    /// The server's address.
    pub server: [u8; 16],
    /// The name asked for.
    pub name: Name,
    /// The record type asked for.
    pub query_type: String,
    /// When the first query was sent, CLOCK_BOOTTIME in nanoseconds.
    pub started_ns: u64,
    /// How often it was sent.
    pub queries: u32,
    /// When it was answered or failed; `None` while it is pending.
    pub ended_ns: Option<u64>,
    /// It failed.
    pub failed: bool,
}
