//! Connects that are under way, and those that ended slowly or badly. Healthy ones are never kept, so this is small
//! whatever the traffic.

use ebpf_probes::{abi::IPPROTO_TCP, probes::connect::Connect};

use super::ConnectStep;
use crate::known::bounded::Bounded;

/// Connects kept at most.
const CONNECTS: usize = 8192;
/// A connect that was established after more than this is kept.
const SLOW_NS: u64 = 100_000_000;

/// A connect that waits, or ended slowly or badly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConnectOp {
    /// As it was when it was last seen.
    pub connect: Connect,
    /// When that was, CLOCK_BOOTTIME in nanoseconds.
    pub seen_ns: u64,
    /// When it ended; `None` while it is pending.
    pub ended_ns: Option<u64>,
}

pub(super) struct Operations {
    pub(super) connects: Bounded<u64, ConnectOp>,
}

impl Default for Operations {
    fn default() -> Self {
        Self { connects: Bounded::new(CONNECTS) }
    }
}

impl Operations {
    pub(super) fn connect(&mut self, boot_ns: u64, step: ConnectStep, connect: &Connect) {
        if connect.tuple.protocol != IPPROTO_TCP || step == ConnectStep::Start {
            return;
        }
        let ended = step == ConnectStep::End;
        let op = ConnectOp { connect: *connect, seen_ns: boot_ns, ended_ns: ended.then_some(boot_ns) };
        match self.connects.get_mut(&connect.cookie) {
            // A cookie is never used twice, but a socket may connect again after a failure.
            Some(known) => *known = op,
            None => {
                let slow = boot_ns.saturating_sub(connect.started_ns) > SLOW_NS;
                if !ended || slow || connect.established == 0 {
                    self.connects.insert(connect.cookie, op);
                }
            }
        }
    }
}
