//! What is under way now, for a live view: connects and lookups that wait, as facts that pass the same
//! filters as those that are reported.

use super::World;
use crate::{
    domains::{
        Emitted, Fact, What,
        dns::{self, LookupOp},
        ms,
    },
    fact::Protocol,
};

/// The port that servers answer lookups on.
const DNS: u16 = 53;
/// The sweep reports again of what has waited twice as long as when it was reported last; what it leaves out by more than
/// this has ended, and its end was lost.
const PATIENCE_NS: u64 = 2_000_000_000;

impl World {
    /// Connects and lookups that wait, at most `most` of each: those that wait longest; and how many were left out.
    pub fn under_way(&self, now_ns: u64, most: usize) -> (Vec<Fact>, usize) {
        let waits = |seen_ns: u64, since_ns: u64| {
            now_ns.saturating_sub(seen_ns) <= seen_ns.saturating_sub(since_ns) + PATIENCE_NS
        };
        let mut connects: Vec<_> = self
            .connect_ops()
            .filter(|op| op.ended_ns.is_none() && waits(op.seen_ns, op.connect.started_ns))
            .filter(|op| self.known.is_wanted(&op.connect.owner))
            .collect();
        connects.sort_unstable_by_key(|op| op.connect.started_ns);
        let mut lookups: Vec<LookupOp> = self
            .lookup_ops(|owner| self.known.is_wanted(owner))
            .into_iter()
            .filter(|op| op.ended_ns.is_none())
            .collect();
        lookups.sort_unstable_by_key(|op| op.started_ns);
        let left_out = connects.len().saturating_sub(most) + lookups.len().saturating_sub(most);
        let connects = connects.into_iter().take(most).filter_map(|op| {
            let what = What::Connect(self.domains.connect.pending(&self.known, &op.connect, now_ns));
            let (boot_ns, owner) = (op.connect.started_ns, op.connect.owner);
            self.fact(Emitted { boot_ns, owner, what })
        });
        let lookups = lookups.into_iter().take(most).filter_map(|op| {
            let what = What::Dns(dns::What::DnsPending {
                protocol: Protocol::Udp,
                server: self.known.at(op.server, DNS, &op.owner),
                name: op.name.text,
                name_invalid: op.name.invalid,
                query_type: op.query_type,
                queries: op.queries,
                elapsed_ms: ms(now_ns.saturating_sub(op.started_ns)),
            });
            self.fact(Emitted { boot_ns: op.started_ns, owner: op.owner, what })
        });
        (connects.chain(lookups).collect(), left_out)
    }
}
