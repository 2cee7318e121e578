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
/// Destinations of forwarded packets that wait for a neighbour, at most.
pub(super) const FORWARDED: usize = 1024;
/// `EHOSTUNREACH`: what waited for a neighbour gets this when no answer came.
const HOST_UNREACHABLE: i32 = 113;

/// A packet that was to be forwarded and waits for a neighbour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forwarded {
    netns: Netns,
    address: [u8; 16],
    local_port: u16,
    at_ns: u64,
}

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
        if record.forwarded != 0 {
            let to = (record.tuple.remote, record.tuple.remote_port);
            let local_port = record.tuple.local_port;
            let way = Forwarded {
                netns: record.netns(),
                address: record.address,
                local_port,
                at_ns: record.header.boot_ns,
            };
            self.forwarded.insert(to, way);
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
                && (other.remote, other.remote_port) == (tuple.remote, tuple.remote_port)
                // A connect has no port here until its SYN was sent twice.
                && (other.local_port == tuple.local_port || other.local_port == 0)
        })
    }

    /// The neighbours a connect's packets wait for, or may: its destination, the next hop on the way, and the next hop of
    /// the namespace that forwards them. Network namespace and address of each.
    pub fn neighbours_on_the_way(&self, connect: &Connect, now_ns: u64) -> Vec<(Netns, [u8; 16])> {
        let own = connect.owner.netns;
        let mut found = vec![(own, connect.way().remote)];
        found.extend(self.held_up.get(&connect.cookie).copied());
        if connect.established != 0 {
            return found;
        }
        let to = |tuple: &Tuple| (tuple.remote, tuple.remote_port);
        let since = |way: &&Forwarded| way.netns != own && way.at_ns >= connect.started_ns;
        // As it left, or as it was translated on the way.
        let known = self.forwarded.get(&to(connect.way())).filter(since);
        match known.or_else(|| self.forwarded.get(&to(&connect.wire)).filter(since)) {
            Some(way) => found.push((way.netns, way.address)),
            // Its destination may have been translated on the way, its own port seldom is.
            None if connect.errno == HOST_UNREACHABLE && connect.way().local_port != 0 => {
                let same_port = |way: &&Forwarded| way.local_port == connect.way().local_port;
                found.extend(
                    self.forwarded.values().filter(since).find(same_port).map(|way| (way.netns, way.address)),
                );
            }
            None => {}
        }
        if connect.errno == HOST_UNREACHABLE
            && found.iter().all(|(netns, address)| self.silent_neighbour(*netns, *address, now_ns).is_none())
        {
            found.extend(
                self.last_silent_neighbour(own, now_ns).map(|(ip, _)| (own, event::address_bytes(ip))),
            );
        }
        found
    }

    /// The neighbour that does not answer underneath a connect: its destination, or the next hop on the way.
    pub fn neighbour_under(&self, connect: &Connect, now_ns: u64) -> Option<(IpAddr, SilentNeighbour)> {
        // Nearly always nothing is silent.
        if connect.established != 0 || self.silent.is_empty() {
            return None;
        }
        self.neighbours_on_the_way(connect, now_ns).into_iter().find_map(|(netns, address)| {
            let silent = self.silent_neighbour(netns, address, now_ns)?;
            Some((event::address(address), silent))
        })
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
