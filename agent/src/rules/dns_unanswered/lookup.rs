//! What a lookup is to this rule: which one it is, what its situation is about, how it ended, and what is concluded of it.

use std::net::IpAddr;

use crate::{
    domains::dns::LookupOp,
    pipeline::{
        incident::{DnsOutcome, DnsReason},
        world::World,
    },
    records,
    rules::text,
};

/// A lookup: socket cookie, id of its message, and when it began.
pub(super) type Key = (u64, u16, u64);

pub(super) fn key(op: &LookupOp) -> Key {
    (op.cookie, op.id, op.started_ns)
}

/// What a situation is about: the program, wherever it runs, and the server.
pub(super) fn subject(op: &LookupOp, world: &World) -> String {
    let (netns, program, _) = text::program_of(&op.owner, world);
    format!("{netns}|{program}|{}", records::address(op.server))
}

/// A lookup that ended badly.
#[derive(Debug, Clone)]
pub(super) struct Bad {
    pub(super) op: LookupOp,
    pub(super) at_ns: u64,
    pub(super) outcome: DnsOutcome,
    /// It was part of an incident while it waited: all that end together are one occasion of that.
    pub(super) followed: bool,
}

/// What was concluded, as far as a change of it is worth an update: the reason, whether the server answers the same
/// process and others, who is behind it, and what explains it.
pub(super) type Conclusion = (DnsReason, bool, bool, Option<IpAddr>, Vec<String>);
