//! What can be said of one neighbour that does not answer by looking at it alone: whether that does harm, and why no answer
//! comes where that is known.

use super::{ATTEMPTS, PATIENCE_NS, Reason, Unanswered, Waiter};
use crate::{
    domains::connect::{Outcome, outcome},
    known::context::Kinship,
    pipeline::View,
    rules::neighbours::{self, Key},
};

impl Waiter {
    /// Its process gave up so soon that the neighbour need not be why: a scan, or an attempt beside another one.
    pub(super) fn gave_up_soon(&self) -> bool {
        self.ended.as_ref().is_some_and(|(connect, at_ns)| {
            outcome(connect).0 == Outcome::Aborted && at_ns.saturating_sub(connect.started_ns) < PATIENCE_NS
        })
    }
}

impl Unanswered {
    /// Something waits, has failed or has waited in earnest; or attempts are given up soon again and again.
    pub(super) fn does_harm(&self) -> bool {
        let soon = self.waiters.iter().filter(|waiter| waiter.gave_up_soon()).count();
        soon < self.waiters.len() || soon >= ATTEMPTS
    }

    /// Whether any waiter passes the filters by process.
    pub(super) fn is_wanted(&self, view: &View<'_>) -> bool {
        self.waiters.iter().any(|waiter| {
            waiter.record.owner.process == 0 || view.world.known.is_wanted(&waiter.record.owner)
        })
    }

    /// What is known of why no answer comes.
    pub(super) fn reason(&self) -> Option<Reason<'_>> {
        let stacked = self.holders.iter().flat_map(|holders| &holders.devices).find_map(|holder| {
            let stacked = holder.stacked.as_ref().filter(|_| holder.has_address)?;
            // Siblings hear each other unless they are kept apart.
            let apart =
                stacked.kinship != Kinship::Sibling || matches!(stacked.mode.as_str(), "private" | "vepa");
            apart.then_some(Reason::Stacked(stacked, holder.netns, &holder.device))
        });
        stacked.or_else(|| self.withdrawn.as_ref().map(Reason::Withdrawn)).or_else(|| self.foreign())
    }

    /// The sender address of the questions, when all of them carry one of no network of the device's: the kernel
    /// takes the waiting packet's own unless `arp_announce` says otherwise.
    fn foreign(&self) -> Option<Reason<'_>> {
        let holders = self.holders.as_ref()?;
        let target = crate::records::address(holders.address);
        if holders.arp_announce != Some(0) || !target.is_ipv4() {
            return None;
        }
        let sources = self.waiters.iter().map(|waiter| &waiter.record).filter(|record| record.forwarded == 0);
        let mut foreign = None;
        for record in sources {
            let source = crate::records::address(record.tuple.local);
            let shares = |(own, prefix): &(std::net::IpAddr, u8)| {
                within(source, *own, *prefix) && within(target, *own, *prefix)
            };
            if source.is_unspecified() || holders.own.iter().any(shares) {
                return None;
            }
            foreign = Some(source);
        }
        foreign.map(Reason::Foreign)
    }

    pub(super) fn subject(&self, key: &Key) -> String {
        neighbours::subject(key, &self.device)
    }
}

/// Whether an address is of the network of another one.
fn within(address: std::net::IpAddr, of: std::net::IpAddr, prefix: u8) -> bool {
    let (std::net::IpAddr::V4(one), std::net::IpAddr::V4(other)) = (address, of) else { return false };
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (one.to_bits() ^ other.to_bits()) & mask == 0
}
