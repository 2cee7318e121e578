//! How many neighbours there are, by family, device and state: from the map the programs keep up to date,
//! whatever is reported. For metrics: no namespace is entered, nothing is asked of the kernel's tables.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData};
use ebpf_probes::{
    abi::{Netns, V4_MAPPED},
    probes::neigh::{NEIGHBOURS_MAP, NeighKey, Neighbour, state},
};

use super::load::{Error, Kernel, Key, Value};

/// What is counted alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// It is IPv6 (or IPv4).
    pub v6: bool,
    /// The device's network namespace.
    pub netns: Netns,
    /// The device's index in it.
    pub ifindex: u32,
    /// One of [`state`].
    pub state: u32,
}

/// Counts them; one look through a map of at most 16,384 entries.
///
/// # Errors
/// When the map cannot be read.
pub fn counts(kernel: &Kernel) -> Result<BTreeMap<Kind, u64>, Error> {
    let entries = kernel.entries::<Key, Value>(NEIGHBOURS_MAP)?;
    Ok(fold(entries.into_iter().map(|(key, value)| (key.0, value.0))))
}

/// Counts them in a map opened for it alone, for another thread.
pub(super) fn counts_in(map: &HashMap<MapData, Key, Value>) -> BTreeMap<Kind, u64> {
    fold(map.iter().filter_map(Result::ok).map(|(key, value)| (key.0, value.0)))
}

fn fold(entries: impl Iterator<Item = (NeighKey, Neighbour)>) -> BTreeMap<Kind, u64> {
    let mut counts = BTreeMap::new();
    for (key, neighbour) in entries {
        if neighbour.state == state::NONE || neighbour.state & state::NOARP != 0 {
            continue;
        }
        let v6 = !key.address.starts_with(&V4_MAPPED);
        let kind = Kind { v6, netns: key.netns, ifindex: key.ifindex, state: neighbour.state };
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_count_by_family_device_and_state_and_those_without_resolution_do_not() {
        let entry = |address: [u8; 16], state| {
            let key = NeighKey { netns: Netns::numbered(1), ifindex: 2, pad: 0, address };
            (key, Neighbour { state, ..Neighbour::default() })
        };
        let v4 = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last];
        let counted = fold(
            [
                entry(v4(1), state::REACHABLE),
                entry(v4(2), state::REACHABLE),
                entry(v4(3), state::FAILED),
                entry([0xfd; 16], state::REACHABLE),
                entry(v4(4), state::NOARP),
                entry(v4(5), state::NONE),
            ]
            .into_iter(),
        );
        let kind = |v6, state| Kind { v6, netns: Netns::numbered(1), ifindex: 2, state };
        let wanted = [
            (kind(false, state::REACHABLE), 2),
            (kind(false, state::FAILED), 1),
            (kind(true, state::REACHABLE), 1),
        ];
        assert_eq!(counted, BTreeMap::from(wanted));
    }
}
