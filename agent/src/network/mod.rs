//! What the network looks like at this moment, for rules that ask: the gateways of a namespace, the bounds of
//! the neighbour tables, and who fills them. A few milliseconds for a machine with a few namespaces.

mod reach;

use std::collections::BTreeMap;

use ebpf_probes::{
    abi::{AF_INET6, Netns},
    probes::neigh::state,
};

use crate::{
    known::context::{Gateway, NeighbourTable, NeighbourUse, Network, SeenNeighbour},
    neighdump::{self, Namespace},
};

pub use reach::reach;

/// Devices reported at most, of each family.
const USERS: usize = 10;
/// Neighbours reported at most, of each namespace.
const NEIGHBOURS: usize = 4096;

/// Looks at the gateways of a namespace, at the neighbour tables, and at who fills them. What cannot be read is
/// left out.
pub fn tables(netns: Netns, boot_ns: u64) -> Network {
    let everywhere = neighdump::everywhere().unwrap_or_default();
    let own = everywhere.namespaces.iter().find(|namespace| namespace.netns == netns);
    let gateways = own.map(|namespace| gateways(namespace, boot_ns).gateways).unwrap_or_default();
    let tables = neighdump::tables().unwrap_or_default().into_iter().map(|table| {
        let [gc_thresh1, gc_thresh2, gc_thresh3] = table.thresholds;
        NeighbourTable { family: table.family, entries: table.entries, gc_thresh1, gc_thresh2, gc_thresh3 }
    });
    Network {
        boot_ns,
        netns,
        gateways,
        tables: tables.collect(),
        users: users(&everywhere.namespaces),
        neighbours: None,
    }
}

/// A namespace's gateways alone.
pub fn gateways(namespace: &Namespace, boot_ns: u64) -> Network {
    let gateway =
        |known: &neighdump::Gateway| Gateway { address: known.address, device: known.device.clone() };
    Network {
        boot_ns,
        netns: namespace.netns,
        gateways: namespace.gateways.iter().map(gateway).collect(),
        ..Network::default()
    }
}

/// A namespace after records were lost: what its neighbours are now.
pub fn again(namespace: &Namespace, boot_ns: u64) -> Network {
    let known = |neighbour: &&neighdump::Neighbour| {
        neighbour.mac != [0; 8] && neighbour.state & (state::INCOMPLETE | state::FAILED) == 0
    };
    let seen = |neighbour: &neighdump::Neighbour| SeenNeighbour {
        ifindex: neighbour.ifindex,
        address: neighbour.address,
        mac: neighbour.mac,
    };
    let neighbours = namespace.neighbours.iter().filter(known).take(NEIGHBOURS).map(seen).collect();
    Network { neighbours: Some(neighbours), ..gateways(namespace, boot_ns) }
}

/// The devices with the most neighbours, most first.
fn users(namespaces: &[Namespace]) -> Vec<NeighbourUse> {
    let mut counts: BTreeMap<(&str, Netns, &str), u32> = BTreeMap::new();
    for neighbour in namespaces.iter().flat_map(|namespace| &namespace.neighbours) {
        *counts.entry((family(neighbour.family), neighbour.netns, &neighbour.device)).or_default() += 1;
    }
    let mut users: Vec<NeighbourUse> = counts
        .into_iter()
        .map(|((family, netns, device), entries)| NeighbourUse {
            family: family.to_owned(),
            netns,
            device: device.to_owned(),
            entries,
        })
        .collect();
    users.sort_by_key(|user| (user.family.clone(), std::cmp::Reverse(user.entries)));
    let mut reported: BTreeMap<String, usize> = BTreeMap::new();
    users.retain(|user| {
        let reported = reported.entry(user.family.clone()).or_default();
        *reported += 1;
        *reported <= USERS
    });
    users
}

/// `ipv4` or `ipv6`.
pub fn family(number: u16) -> &'static str {
    if number == AF_INET6 { "ipv6" } else { "ipv4" }
}
