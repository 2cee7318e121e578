//! Neighbours that do not answer, and what waits for them: what explains connects that fail.

use std::net::IpAddr;

use ebpf_probes::{
    abi::{Netns, Tuple},
    probes::{connect::Connect, neigh::WaiterRecord},
};

use super::{
    World,
    ask::SilentNeighbour,
    context::{Gateway, Network},
    operations::ConnectOp,
};
use crate::event;

/// Connects known to wait for a neighbour, at most.
pub(super) const HELD_UP: usize = 4096;
/// `EHOSTUNREACH`: what waited for a neighbour is told this when nobody answered.
const HOST_UNREACHABLE: i32 = 113;

impl World {
    /// The next hop of a default route of a namespace, if the address is one.
    pub fn gateway(&self, netns: Netns, device: &str, address: IpAddr) -> Option<&Gateway> {
        // Link-local addresses are not unique to a device.
        let is_it = |gateway: &&Gateway| gateway.address == address && gateway.device == device;
        self.gateways.get(&netns)?.iter().find(is_it)
    }

    pub(super) fn network(&mut self, network: &Network) {
        // An answer about tables may not have been able to read the namespace itself.
        if network.tables.is_empty() || !network.gateways.is_empty() {
            self.namespaces.lives(network.netns);
            self.gateways.insert(network.netns, network.gateways.clone());
        }
    }

    pub(super) fn waits(&mut self, record: &WaiterRecord) {
        let cookie = if record.forwarded == 0 { record.cookie } else { self.forwarded(&record.tuple) };
        if cookie != 0 {
            self.held_up.insert(cookie, (record.netns(), record.address));
        }
    }

    /// The connect a forwarded packet belongs to, made in another namespace of this host: its cookie, 0 for none.
    fn forwarded(&self, tuple: &Tuple) -> u64 {
        self.forwarded_connect(tuple).map_or(0, |op| op.connect.cookie)
    }

    /// The same, as it was last seen. Its source may have been translated on the way, its port seldom is.
    pub fn forwarded_connect(&self, tuple: &Tuple) -> Option<&ConnectOp> {
        self.operations.connects.values().find(|op| {
            let other = op.connect.way();
            op.ended_ns.is_none()
                && (other.remote, other.remote_port, other.local_port)
                    == (tuple.remote, tuple.remote_port, tuple.local_port)
        })
    }

    /// The neighbour that does not answer underneath a connect: its destination, or the next hop on the way.
    pub fn neighbour_under(&self, connect: &Connect, now_ns: u64) -> Option<(IpAddr, SilentNeighbour)> {
        if connect.established != 0 {
            return None;
        }
        let netns = connect.owner.netns;
        let next = connect.way().remote;
        if let Some(silent) = self.silent_neighbour(netns, next, now_ns) {
            return Some((event::address(next), silent));
        }
        if let Some((netns, address)) = self.held_up.get(&connect.cookie)
            && let Some(silent) = self.silent_neighbour(*netns, *address, now_ns)
        {
            return Some((event::address(*address), silent));
        }
        if connect.errno == HOST_UNREACHABLE {
            return self.last_silent_neighbour(netns, now_ns);
        }
        None
    }

    /// The name of a network namespace other than the host's own.
    pub fn namespace(&self, netns: Netns) -> Option<String> {
        self.netns_name(netns)
    }

    /// The name of a device.
    pub fn device_at(&self, netns: Netns, ifindex: u32) -> Option<String> {
        self.device_name(netns, ifindex)
    }
}
