//! Which silent neighbour explains a connect: what neighbours wait for and what connects do, put together.

use std::net::IpAddr;

use ebpf_probes::{abi::Tuple, probes::connect::Connect};

use super::World;
use crate::{
    domains::{
        connect::ConnectOp,
        neighbour::{self, Hop, SilentNeighbour},
    },
    records,
};

/// `EHOSTUNREACH`: what waited for a neighbour gets this when no answer came.
const HOST_UNREACHABLE: i32 = 113;

impl World {
    /// The connect a forwarded packet belongs to, made in another namespace of this host, as it was last seen. Its
    /// source may have been translated on the way, its port seldom is.
    pub fn forwarded_connect(&self, tuple: &Tuple) -> Option<&ConnectOp> {
        self.domains.connect.operations().find(|op| {
            let other = op.connect.way();
            op.ended_ns.is_none()
                && (other.remote, other.remote_port) == (tuple.remote, tuple.remote_port)
                // A connect has no port here until its SYN was sent twice.
                && (other.local_port == tuple.local_port || other.local_port == 0)
        })
    }

    /// The neighbours a connect's packets wait for, or may: its destination, the next hop by which packets to it were seen to
    /// go, and the next hop of the namespace that forwards them.
    pub fn neighbours_on_the_way(&self, connect: &Connect, now_ns: u64) -> Vec<Hop> {
        let neighbours = &self.domains.neighbour;
        let own = connect.owner.netns;
        let remote = connect.way().remote;
        let hop = neighbours.hop(own, remote, now_ns);
        let mut found = vec![hop.filter(|hop| hop.address == remote).unwrap_or(Hop {
            netns: own,
            ifindex: 0,
            address: remote,
        })];
        found.extend(hop.filter(|hop| hop.address != remote));
        found.extend(neighbours.held_up(connect.cookie));
        if connect.established != 0 {
            return found;
        }
        let since = |way: &&neighbour::Forwarded| way.hop.netns != own && way.at_ns >= connect.started_ns;
        // As it left, or as it was translated on the way.
        let known = neighbours.forwarded_to(connect.way()).filter(since);
        match known.or_else(|| neighbours.forwarded_to(&connect.wire).filter(since)) {
            Some(way) => found.push(way.hop),
            // Its destination may have been translated on the way, its own port seldom is.
            None if connect.errno == HOST_UNREACHABLE && connect.way().local_port != 0 => {
                let same_port = |way: &&neighbour::Forwarded| way.local_port == connect.way().local_port;
                found.extend(neighbours.forwarded().filter(since).find(same_port).map(|way| way.hop));
            }
            None => {}
        }
        if connect.errno == HOST_UNREACHABLE
            && found.iter().all(|hop| self.silent_neighbour(hop.netns, hop.address, now_ns).is_none())
        {
            found.extend(self.last_silent_neighbour(own, now_ns).map(|(ip, _)| Hop {
                netns: own,
                ifindex: 0,
                address: records::address_bytes(ip),
            }));
        }
        found
    }

    /// The neighbour by which the other end of a connect answers it, where that is a namespace of this machine and its answers
    /// go unheard.
    pub fn neighbour_back(&self, connect: &Connect) -> Option<Hop> {
        let back = |tuple: &Tuple| self.domains.neighbour.hop_back(tuple);
        back(&connect.tuple).or_else(|| back(connect.way()))
    }

    /// The neighbour that does not answer underneath a connect: its destination, or the next hop on the way.
    pub fn neighbour_under(&self, connect: &Connect, now_ns: u64) -> Option<(IpAddr, SilentNeighbour)> {
        // Nearly always nothing is silent.
        if connect.established != 0 || !self.domains.neighbour.any_silent() {
            return None;
        }
        self.neighbours_on_the_way(connect, now_ns).into_iter().find_map(|hop| {
            let silent = self.silent_neighbour(hop.netns, hop.address, now_ns)?;
            Some((records::address(hop.address), silent))
        })
    }
}
