//! IPv6 and IPv4 side by side: which IPv4 addresses a name has, and whether a process whose connects over IPv6 are met
//! with silence succeeds over IPv4. Successes are remembered only while some connect over IPv6 waits.

use std::net::IpAddr;

use ebpf_probes::{abi::IPPROTO_TCP, probes::connect::Connect};

use super::{ConnectStep, Memory};
use crate::records;

/// Successes remembered, at most.
pub(super) const SUCCESSES: usize = 1024;
/// How long after a silent connect over IPv6 successes over IPv4 are remembered.
const WATCHED_NS: u64 = 600_000_000_000;

impl Memory {
    pub(super) fn family_of(&mut self, boot_ns: u64, step: ConnectStep, connect: &Connect) {
        if connect.tuple.protocol != IPPROTO_TCP {
            return;
        }
        let ip = records::address(connect.tuple.remote);
        if ip.is_ipv6() {
            if matches!(step, ConnectStep::Pending | ConnectStep::Waiting) {
                self.ipv6_waits_ns = boot_ns;
            }
        } else if step == ConnectStep::End
            && connect.established != 0
            && self.ipv6_waits_ns != 0
            && boot_ns.saturating_sub(self.ipv6_waits_ns) < WATCHED_NS
        {
            self.ipv4.insert((connect.owner.process, connect.tuple.remote_port), (ip, boot_ns));
        }
    }

    /// The IPv4 address at which the same process succeeded on the same port since a connect began.
    pub fn ipv4_success(&self, connect: &Connect) -> Option<IpAddr> {
        let (ip, at_ns) = self.ipv4.get(&(connect.owner.process, connect.tuple.remote_port))?;
        (*at_ns >= connect.started_ns).then_some(*ip)
    }
}
