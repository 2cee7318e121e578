//! The neighbours, gateways, devices and names of every network namespace, as they are now: what the `neighbour`
//! probe cannot know because it was there before. Asked over rtnetlink, at start and when something is amiss.
//!
//! Blocking: it enters each namespace from a thread of its own, which ends with it. A namespace that only
//! a thread (not a process, nor a file below `/run/netns`) keeps alive is not found.

mod asked;
mod holders;
mod inside;
mod netlink;
mod routes;
mod way;

use std::{collections::BTreeMap, io, thread, time::Duration};

use asked::Asking;
use ebpf_probes::{
    abi::{AF_INET, AF_INET6, Netns, V4_MAPPED},
    probes::neigh,
};
pub use holders::holders;
pub use inside::within;
pub use netlink::{dump, own_address};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};
use routes::gateways;
pub use routes::{Gateway, Table, route_error, tables};
pub use way::{Route, To, way};

use crate::namespaces::{self, Found};

/// Neighbours of a namespace of which it is read how long they have been asked for, at most.
const ASKED: usize = 256;

/// One network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Which one.
    pub netns: Netns,
    /// The name `ip netns` gave it.
    pub name: Option<String>,
    /// Names of its devices, by index.
    pub devices: BTreeMap<u32, String>,
    /// Its neighbours, those that need no resolution left out.
    pub neighbours: Vec<Neighbour>,
    /// The next hops of its default routes.
    pub gateways: Vec<Gateway>,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its network namespace.
    pub netns: Netns,
    /// The device's index in it.
    pub ifindex: u32,
    /// The device's name.
    pub device: String,
    /// [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The first bytes of its link-layer address, zero when there is none.
    pub mac: [u8; 8],
    /// One of [`neigh::state`].
    pub state: u32,
    /// Probes sent in this state.
    pub probes: u32,
    /// How long ago its state or address changed last.
    pub updated: Option<Duration>,
    /// How long ago it was last known to be right.
    pub confirmed: Option<Duration>,
    /// How long it has been asked for, at least; only while it is.
    pub asked: Option<Duration>,
}

impl Neighbour {
    /// The entry for the `NEIGHBOURS` map, to be added unless there is one. `boot_ns`: now.
    pub fn map_entry(&self, boot_ns: u64) -> (neigh::NeighKey, neigh::Neighbour) {
        let since = self
            .asked
            .or(self.updated)
            .map_or(0, |ago| boot_ns.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)));
        // A change of the address would have been an update: the kernel had it no later than that.
        let mac_since_ns = if self.mac == [0; 8] { 0 } else { since };
        (
            neigh::NeighKey { netns: self.netns, ifindex: self.ifindex, pad: 0, address: self.address },
            neigh::Neighbour {
                mac: self.mac,
                state: self.state,
                probes: self.probes,
                state_since_ns: since,
                mac_since_ns,
                ..neigh::Neighbour::default()
            },
        )
    }
}

/// Everything that could be read.
#[derive(Debug, Default)]
pub struct Dump {
    /// The namespaces, this process's own among them.
    pub namespaces: Vec<Namespace>,
    /// Namespaces that could not be entered or read, by inode number, and why.
    pub refused: Vec<(u32, io::Error)>,
}

/// Every network namespace of this machine.
///
/// # Errors
/// When `/proc` cannot be read or no thread can be started; single namespaces end up in `refused`.
pub fn everywhere() -> io::Result<Dump> {
    visit(namespaces::find()?)
}

/// Some network namespaces, those that still exist.
///
/// # Errors
/// As [`everywhere`].
pub fn some(wanted: &[Netns]) -> io::Result<Dump> {
    let mut found = namespaces::find()?;
    found.retain(|inode, _| wanted.iter().any(|wanted| wanted.inode == *inode));
    let mut dump = visit(found)?;
    // The number may be another's by now.
    dump.namespaces.retain(|namespace| wanted.contains(&namespace.netns));
    Ok(dump)
}

fn visit(found: BTreeMap<u32, Found>) -> io::Result<Dump> {
    let own = namespaces::own();
    let visit = move || {
        let mut dump = Dump::default();
        let mut found: Vec<(u32, Found)> = found.into_iter().collect();
        // The own one first, from where this thread is: that takes no privilege.
        found.sort_by_key(|(inode, _)| own.is_none_or(|own| own.inode != *inode));
        for (inode, Found { path, name }) in found {
            // A name may be another's by now.
            let same = |netns: &Netns| netns.inode == inode;
            match namespaces::enter(&path, own)
                .and_then(|netns| current(netns, name.filter(|_| same(&netns))))
            {
                Ok(namespace) => dump.namespaces.push(namespace),
                Err(error) => dump.refused.push((inode, error)),
            }
        }
        dump
    };
    let visitor = thread::Builder::new().name("neighdump".into()).spawn(visit)?;
    visitor.join().map_err(|_| io::Error::other("the thread that visits network namespaces panicked"))
}

/// The namespace the calling thread is in: which one that is and its name the caller knows.
///
/// # Errors
/// What the netlink socket says.
pub fn current(netns: Netns, name: Option<String>) -> io::Result<Namespace> {
    let mut devices = BTreeMap::new();
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            let name = link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            devices.insert(link.header.index, name.unwrap_or_default());
        }
    })?;
    let mut neighbours = Vec::new();
    let ticks = rustix::param::clock_ticks_per_second();
    dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), |message| {
        if let RouteNetlinkMessage::NewNeighbour(entry) = message {
            neighbours.extend(neighbour(netns, &devices, &entry, ticks));
        }
    })?;
    let incomplete = |neighbour: &&mut Neighbour| neighbour.state == neigh::state::INCOMPLETE;
    for neighbour in neighbours.iter_mut().filter(incomplete).take(ASKED) {
        let ages = neighbour.updated.zip(neighbour.confirmed);
        let asking = Asking::of(neighbour);
        neighbour.asked =
            ages.zip(asking).map(|((updated, confirmed), asking)| asking.asked(updated, confirmed));
    }
    let gateways = gateways(&devices)?;
    Ok(Namespace { netns, name, devices, neighbours, gateways })
}

/// `None`: no IP neighbour, or one that needs no resolution.
fn neighbour(
    netns: Netns,
    devices: &BTreeMap<u32, String>,
    entry: &NeighbourMessage,
    ticks: u64,
) -> Option<Neighbour> {
    let state = u32::from(u16::from(entry.header.state));
    if state == neigh::state::NOARP || state == neigh::state::NONE {
        return None;
    }
    let ifindex = entry.header.ifindex;
    let device = devices.get(&ifindex).cloned().unwrap_or_default();
    let ago = |count: u32| Some(Duration::from_millis(u64::from(count) * 1000 / ticks.max(1)));
    let mut found = Neighbour {
        netns,
        ifindex,
        device,
        family: 0,
        address: [0; 16],
        mac: [0; 8],
        state,
        probes: 0,
        updated: None,
        confirmed: None,
        asked: None,
    };
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                found.family = AF_INET;
                found.address = address.to_ipv6_mapped().octets();
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                found.family = AF_INET6;
                found.address = address.octets();
            }
            NeighbourAttribute::LinkLayerAddress(mac) => {
                found.mac.iter_mut().zip(mac).for_each(|(to, from)| *to = *from);
            }
            NeighbourAttribute::Probes(probes) => found.probes = *probes,
            NeighbourAttribute::CacheInfo(info) => {
                found.updated = ago(info.updated);
                found.confirmed = ago(info.confirmed);
            }
            _ => {}
        }
    }
    debug_assert!(found.family != AF_INET || found.address.starts_with(&V4_MAPPED));
    (found.family != 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::neighbour::{NeighbourCacheInfo, NeighbourState};

    use super::*;

    fn stale() -> NeighbourMessage {
        let mut entry = NeighbourMessage::default();
        entry.header.ifindex = 7;
        entry.header.state = NeighbourState::Stale;
        entry.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 1, 90))),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0xd, 0xad]),
            NeighbourAttribute::Probes(4),
        ];
        entry
    }

    #[test]
    fn an_entry_becomes_the_key_and_value_the_programs_use() {
        let devices = BTreeMap::from([(7, "eth0".to_owned())]);
        let mut found = neighbour(Netns::numbered(9), &devices, &stale(), 100).expect("an IPv4 neighbour");
        assert_eq!((found.device.as_str(), found.family), ("eth0", AF_INET));
        found.updated = Some(Duration::from_secs(2));
        let (key, value) = found.map_entry(5_000_000_000);
        assert_eq!((key.netns, key.ifindex), (Netns::numbered(9), 7));
        assert_eq!(key.address, Ipv4Addr::new(10, 0, 1, 90).to_ipv6_mapped().octets());
        assert_eq!(value.mac, [2, 0, 0, 0, 0xd, 0xad, 0, 0]);
        assert_eq!((value.state, value.probes), (neigh::state::STALE, 4));
        assert_eq!((value.state_since_ns, value.mac_since_ns), (3_000_000_000, 3_000_000_000));
    }

    #[test]
    fn an_entry_older_than_the_boot_clock_is_of_unknown_age() {
        let mut found =
            neighbour(Netns::numbered(9), &BTreeMap::new(), &stale(), 100).expect("an IPv4 neighbour");
        found.updated = Some(Duration::MAX);
        assert_eq!(found.map_entry(1).1.state_since_ns, 0);
    }

    #[test]
    fn what_needs_no_resolution_is_left_out() {
        let mut entry = stale();
        entry.header.state = NeighbourState::Noarp;
        assert_eq!(neighbour(Netns::numbered(9), &BTreeMap::new(), &entry, 100), None);
    }

    #[test]
    fn ages_are_counted_in_the_kernel_s_ticks() {
        let info: NeighbourCacheInfo = NeighbourCacheInfo::parse(&{
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&150u32.to_ne_bytes());
            bytes[8..12].copy_from_slice(&50u32.to_ne_bytes());
            bytes
        })
        .expect("sixteen bytes");
        let mut entry = stale();
        entry.attributes.push(NeighbourAttribute::CacheInfo(info));
        let found = neighbour(Netns::numbered(9), &BTreeMap::new(), &entry, 100).expect("an IPv4 neighbour");
        assert_eq!(found.confirmed, Some(Duration::from_millis(1500)));
        assert_eq!(found.updated, Some(Duration::from_millis(500)));
    }

    #[test]
    fn any_process_may_read_the_devices_of_the_own_namespace() -> io::Result<()> {
        let here = current(Netns::numbered(1), None)?;
        assert!(here.devices.values().any(|name| name == "lo"), "{here:?}");
        Ok(())
    }
}
