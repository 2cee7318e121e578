//! Neighbours that do not answer, and what is known to wait for them.

use std::net::IpAddr;

use ebpf_probes::{
    abi::{Netns, Tuple},
    probes::neigh::{NeighRecord, WaiterRecord, cause, flag, state},
};

use super::{Hop, Memory};
use crate::{
    known::context::{Gateway, Network},
    records,
};

/// A neighbour that does not answer ARP or NDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentNeighbour {
    /// The network namespace it is looked for in.
    pub netns: Netns,
    /// The device it should be behind.
    pub device: String,
    /// Since when it has been asked without an answer, CLOCK_BOOTTIME in nanoseconds.
    pub since_ns: u64,
    /// When the kernel gave up, if it has.
    pub failed_ns: Option<u64>,
}

impl SilentNeighbour {
    /// A failure explains what failed within the seconds after it.
    const EXPLAINS_NS: u64 = 2_000_000_000;

    fn holds_at(&self, now_ns: u64) -> bool {
        self.failed_ns.is_none_or(|failed| now_ns.saturating_sub(failed) < Self::EXPLAINS_NS)
    }
}

/// A packet that was to be forwarded and waits for a neighbour.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded {
    /// The neighbour, where it is forwarded.
    pub hop: Hop,
    /// The port it comes from.
    pub local_port: u16,
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub at_ns: u64,
}

impl Memory {
    /// Remembers who does not answer.
    pub(super) fn silence(&mut self, boot_ns: u64, record: &NeighRecord, device: &str) {
        let key = (record.netns(), record.address);
        let failed = record.flags & flag::FAILED_BETWEEN != 0 || record.new_state == state::FAILED;
        let since_ns = self.silent.get(&key).map_or(boot_ns, |known| known.since_ns);
        if record.new_state == state::INCOMPLETE || failed {
            let failed_ns = failed.then_some(boot_ns);
            self.silent.remove(&key);
            self.silent.insert(
                key,
                SilentNeighbour { netns: key.0, device: device.to_owned(), since_ns, failed_ns },
            );
        } else if self.silent.remove(&key).is_some_and(|known| known.failed_ns.is_some())
            && record.cause == cause::REMOVED
        {
            // Removed after it failed: it still explains what failed with it.
            let known = SilentNeighbour {
                netns: key.0,
                device: device.to_owned(),
                since_ns,
                failed_ns: Some(boot_ns),
            };
            self.silent.insert(key, known);
        }
    }

    /// The gateways of a network namespace.
    pub(super) fn network(&mut self, network: &Network) {
        if network.has_read_namespace() {
            self.gateways.insert(network.netns, network.gateways.clone());
        }
    }

    /// A packet waits for a neighbour. Which connect a forwarded one belongs to is not known here: see
    /// [`Memory::holds_up`].
    pub(super) fn waits(&mut self, record: &WaiterRecord) {
        if record.forwarded == 0 {
            self.goes_by(record);
            self.holds_up(record.cookie, record);
            return;
        }
        let to = (record.tuple.remote, record.tuple.remote_port);
        let way = Forwarded {
            hop: Hop::from(record),
            local_port: record.tuple.local_port,
            at_ns: record.header.boot_ns,
        };
        self.forwarded.insert(to, way);
    }

    /// The connect of this cookie, 0 for none, waits for the neighbour of a record.
    pub fn holds_up(&mut self, cookie: u64, record: &WaiterRecord) {
        if cookie != 0 {
            self.held_up.insert(cookie, Hop::from(record));
        }
    }

    /// The neighbour that a connect is known to wait for.
    pub fn held_up(&self, cookie: u64) -> Option<Hop> {
        self.held_up.get(&cookie).copied()
    }

    /// What was last forwarded towards the remote end and waits.
    pub fn forwarded_to(&self, tuple: &Tuple) -> Option<&Forwarded> {
        self.forwarded.get(&(tuple.remote, tuple.remote_port))
    }

    /// All that was forwarded and waits, in no particular order.
    pub fn forwarded(&self) -> impl Iterator<Item = &Forwarded> {
        self.forwarded.values()
    }

    /// The next hop of a default route of a namespace, if the address is one.
    pub fn gateway(&self, netns: Netns, device: &str, address: IpAddr) -> Option<&Gateway> {
        // Link-local addresses are not unique to a device.
        let is_it = |gateway: &&Gateway| gateway.address == address && gateway.device == device;
        self.gateways.get(&netns)?.iter().find(is_it)
    }

    /// The next hops of a namespace's default routes.
    pub fn gateways_of(&self, netns: Netns) -> impl Iterator<Item = &Gateway> {
        self.gateways.get(&netns).into_iter().flatten()
    }

    /// Whether any neighbour is silent.
    pub fn any_silent(&self) -> bool {
        !self.silent.is_empty()
    }

    /// A neighbour of the namespace that does not answer, or did not within the last second: its device.
    pub fn silent(&self, netns: Netns, address: [u8; 16], now_ns: u64) -> Option<SilentNeighbour> {
        self.silent.get(&(netns, address)).filter(|silent| silent.holds_at(now_ns)).cloned()
    }

    /// The last neighbour of the namespace that did not answer.
    pub fn last_silent(&self, netns: Netns, now_ns: u64) -> Option<(IpAddr, SilentNeighbour)> {
        self.silent
            .iter()
            .filter(|((at, _), silent)| *at == netns && silent.holds_at(now_ns))
            .max_by_key(|(_, silent)| silent.since_ns)
            .map(|((_, address), silent)| (records::address(*address), silent.clone()))
    }
}
