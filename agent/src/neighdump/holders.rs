//! Who on this machine has a neighbour's address or MAC: devices in every network namespace, and whether one of
//! them sits on the very device that asks (macvlan and the like keep parent and children apart). Refuses to
//! guess from an address alone: private ones are used again and again in namespaces that never meet, so that
//! the reader believes a kinship or a MAC only.

use std::{collections::BTreeMap, fs, fs::File, io, net::IpAddr, os::fd::AsRawFd, path::Path, thread};

use ebpf_probes::abi::Netns;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{InfoData, InfoKind, InfoMacVlan, InfoMacVtap, LinkAttribute, LinkInfo, LinkMessage, MacVlanMode},
    neighbour::NeighbourMessage,
    nsid::{NsidAttribute, NsidMessage},
};

use super::{
    neighbour,
    netlink::{ask, dump, own_address},
};
use crate::{
    known::{
        context::{Holder, Holders, Kinship, SeenNeighbour, Stacked},
        request::Sought,
    },
    namespaces::{self, Found},
    records,
};

/// Devices and neighbours reported at most.
const REPORTED: usize = 16;
/// Namespaces looked into at most.
const NAMESPACES: usize = 1024;

/// A device, as far as it matters here.
#[derive(Clone)]
struct Link {
    netns: Netns,
    ifindex: u32,
    name: String,
    mac: [u8; 8],
    has_address: bool,
    /// What kind of child it is, its mode, its parent's index, and the parent's namespace by the id it has in
    /// this one; `None` for the same.
    child: Option<(String, String, u32, Option<i32>)>,
}

/// Looks for them. What cannot be read is left out.
pub fn holders(sought: &Sought, boot_ns: u64) -> Holders {
    let wanted = sought.clone();
    let nothing = || Holders {
        boot_ns,
        netns: sought.netns,
        ifindex: sought.ifindex,
        address: sought.address,
        ..Holders::default()
    };
    let look = move || look(&wanted);
    let visitor = thread::Builder::new().name("holders".into()).spawn(look);
    let seen = visitor.ok().and_then(|visitor| visitor.join().ok()).and_then(Result::ok);
    let Some(seen) = seen else { return nothing() };
    Holders {
        devices: seen.devices,
        others: seen.others,
        own: seen.own,
        arp_announce: seen.arp_announce,
        ..nothing()
    }
}

/// What is found on the way.
#[derive(Default)]
struct Seen {
    devices: Vec<Holder>,
    others: Vec<SeenNeighbour>,
    own: Vec<(IpAddr, u8)>,
    arp_announce: Option<u8>,
}

fn look(sought: &Sought) -> io::Result<Seen> {
    let found = namespaces::find()?;
    let own = namespaces::own();
    let mut order: Vec<(&u32, &Found)> = found.iter().collect();
    // The own one first, from where this thread is; then the one that asks.
    order.sort_by_key(|(inode, _)| {
        (own.is_none_or(|own| own.inode != **inode), sought.netns.inode != **inode)
    });
    let mut seen = Seen::default();
    let mut asks = None;
    let mut links: Vec<Link> = Vec::new();
    for (_, Found { path, .. }) in order.into_iter().take(NAMESPACES) {
        let Ok(netns) = namespaces::enter(path, own) else { continue };
        let here = here(netns, sought)?;
        if netns == sought.netns {
            asks = here.iter().find(|link| link.ifindex == sought.ifindex).cloned();
            let device = asks.as_ref().map(|link| link.name.as_str()).unwrap_or_default();
            (seen.own, seen.others) = (addresses(sought.ifindex)?, others(netns, sought)?);
            seen.arp_announce = arp_announce(device);
        }
        links.extend(here.into_iter().filter(|link| {
            let itself = link.netns == sought.netns && link.ifindex == sought.ifindex;
            !itself && (link.has_address || sought.macs.contains(&link.mac))
        }));
        // One at the MAC says more than one that has the address, as private ones are had again and again.
        links.sort_by_key(|link| !sought.macs.contains(&link.mac));
        links.truncate(REPORTED);
    }
    let asker_parent = asks.as_ref().and_then(|asks| parent(asks, &found));
    for link in links {
        let stacked = asks.as_ref().and_then(|asks| stacked(asks, asker_parent, &link, &found));
        seen.devices.push(Holder {
            netns: link.netns,
            device: link.name,
            mac: link.mac,
            has_address: link.has_address,
            stacked,
        });
    }
    Ok(seen)
}

/// How a device that has the address sits on the one that asks.
fn stacked(
    asks: &Link,
    asker_parent: Option<(u32, u32)>,
    link: &Link,
    found: &BTreeMap<u32, Found>,
) -> Option<Stacked> {
    if !link.has_address {
        return None;
    }
    let of = |kinship, child: &Link| {
        let (kind, mode, ..) = child.child.clone()?;
        Some(Stacked { kinship, kind, mode })
    };
    if asker_parent == Some((link.netns.inode, link.ifindex)) {
        return of(Kinship::Parent, asks);
    }
    let parent = parent(link, found)?;
    if parent == (asks.netns.inode, asks.ifindex) {
        of(Kinship::Child, link)
    } else if asker_parent == Some(parent) {
        of(Kinship::Sibling, link)
    } else {
        None
    }
}

/// Namespace, by its inode number, and index of a device's parent. Moves the calling thread.
fn parent(link: &Link, found: &BTreeMap<u32, Found>) -> Option<(u32, u32)> {
    let (.., index, id) = link.child.as_ref()?;
    let Some(id) = id else { return Some((link.netns.inode, *index)) };
    let Found { path, .. } = found.get(&link.netns.inode)?;
    namespaces::enter(path, None).ok()?;
    let is = |path: &Path| {
        let file = File::open(path).ok()?;
        let mut request = NsidMessage::default();
        request.attributes = vec![NsidAttribute::Fd(u32::try_from(file.as_raw_fd()).ok()?)];
        match ask(RouteNetlinkMessage::GetNsId(request)).ok()?? {
            RouteNetlinkMessage::NewNsId(answer) => {
                answer.attributes.contains(&NsidAttribute::Id(*id)).then_some(())
            }
            _ => None,
        }
    };
    found
        .iter()
        .take(NAMESPACES)
        .find(|(_, there)| is(&there.path).is_some())
        .map(|(inode, _)| (*inode, *index))
}

/// The devices of the namespace the calling thread is in.
fn here(netns: Netns, sought: &Sought) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            links.push(device(netns, &link));
        }
    })?;
    let wanted = records::address(sought.address);
    dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(message) = message
            && own_address(&message).is_some_and(|(address, _)| address == wanted)
            && let Some(link) = links.iter_mut().find(|link| link.ifindex == message.header.index)
        {
            link.has_address = true;
        }
    })?;
    Ok(links)
}

fn device(netns: Netns, message: &LinkMessage) -> Link {
    let mut link = Link {
        netns,
        ifindex: message.header.index,
        name: String::new(),
        mac: [0; 8],
        has_address: false,
        child: None,
    };
    let (mut below, mut id, mut kind, mut mode) = (None, None, None, String::new());
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => {
                link.mac.iter_mut().zip(mac).for_each(|(to, from)| *to = *from);
            }
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkNetNsId(known) => id = Some(*known),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(known) => kind = stacks(known),
                        LinkInfo::Data(InfoData::MacVlan(data)) => {
                            let found = data.iter().find_map(|data| match data {
                                InfoMacVlan::Mode(mode) => Some(mode_name(mode)),
                                _ => None,
                            });
                            mode = found.unwrap_or_default().to_owned();
                        }
                        LinkInfo::Data(InfoData::MacVtap(data)) => {
                            let found = data.iter().find_map(|data| match data {
                                InfoMacVtap::Mode(mode) => Some(mode_name(mode)),
                                _ => None,
                            });
                            mode = found.unwrap_or_default().to_owned();
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.child = kind.zip(below).map(|(kind, below)| (kind.to_owned(), mode, below, id));
    link
}

/// Kinds of devices whose parent never hears them.
fn stacks(kind: &InfoKind) -> Option<&'static str> {
    Some(match kind {
        InfoKind::MacVlan => "macvlan",
        InfoKind::MacVtap => "macvtap",
        InfoKind::IpVlan => "ipvlan",
        InfoKind::IpVtap => "ipvtap",
        _ => return None,
    })
}

fn mode_name(mode: &MacVlanMode) -> &'static str {
    match mode {
        MacVlanMode::Private => "private",
        MacVlanMode::Vepa => "vepa",
        MacVlanMode::Bridge => "bridge",
        MacVlanMode::Passthrough => "passthru",
        MacVlanMode::Source => "source",
        _ => "",
    }
}

/// The addresses of a device of the namespace the calling thread is in.
fn addresses(ifindex: u32) -> io::Result<Vec<(IpAddr, u8)>> {
    let mut found = Vec::new();
    dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(message) = message
            && message.header.index == ifindex
            && found.len() < REPORTED
        {
            found.extend(own_address(&message));
        }
    })?;
    Ok(found)
}

/// Other neighbours there at the MACs in question.
fn others(netns: Netns, sought: &Sought) -> io::Result<Vec<SeenNeighbour>> {
    let mut found = Vec::new();
    if sought.macs.is_empty() {
        return Ok(found);
    }
    let (devices, ticks) = (BTreeMap::new(), rustix::param::clock_ticks_per_second());
    dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), |message| {
        if let RouteNetlinkMessage::NewNeighbour(entry) = message
            && let Some(entry) = neighbour(netns, &devices, &entry, ticks)
            && entry.ifindex == sought.ifindex
            && entry.address != sought.address
            && sought.macs.contains(&entry.mac)
            && found.len() < REPORTED
        {
            found.push(SeenNeighbour { ifindex: entry.ifindex, address: entry.address, mac: entry.mac });
        }
    })?;
    Ok(found)
}

/// `arp_announce` of the namespace the calling thread is in; the kernel goes by the greater of the two.
fn arp_announce(device: &str) -> Option<u8> {
    let read = |of: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/arp_announce")).ok()?;
        text.trim().parse::<u8>().ok()
    };
    // A device may be called anything but what a path is made of.
    let own = if device.is_empty() || device.contains('/') || device.starts_with('.') {
        None
    } else {
        read(device)
    };
    read("all").max(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(kind: &str, mode: &str, below: u32) -> Option<(String, String, u32, Option<i32>)> {
        Some((kind.into(), mode.into(), below, None))
    }

    fn link(ifindex: u32, child: Option<(String, String, u32, Option<i32>)>) -> Link {
        let netns = Netns::numbered(7);
        Link { netns, ifindex, name: format!("if{ifindex}"), mac: [0; 8], has_address: true, child }
    }

    #[test]
    fn parents_children_and_siblings_are_distinguished_from_strangers() {
        let found = BTreeMap::new();
        let (eth, one, two) =
            (link(2, None), link(3, child("macvlan", "bridge", 2)), link(4, child("macvlan", "private", 2)));
        let kin = |asks: &Link, of: &Link| {
            let parent = parent(asks, &found);
            stacked(asks, parent, of, &found).map(|stacked| (stacked.kinship, stacked.mode))
        };
        assert_eq!(kin(&eth, &one), Some((Kinship::Child, "bridge".into())));
        assert_eq!(kin(&one, &eth), Some((Kinship::Parent, "bridge".into())));
        assert_eq!(kin(&one, &two), Some((Kinship::Sibling, "private".into())));
        assert_eq!(kin(&eth, &link(9, None)), None);
        assert_eq!(kin(&eth, &link(9, child("macvlan", "bridge", 8))), None);
    }

    #[test]
    fn the_own_namespace_is_looked_at_without_privilege() {
        let own = namespaces::own().expect("/proc");
        let lo: IpAddr = "127.0.0.1".parse().expect("an address");
        let sought = Sought { netns: own, ifindex: 1, address: records::address_bytes(lo), macs: vec![] };
        let answer = holders(&sought, 1);
        assert!(answer.own.contains(&(lo, 8)), "{answer:?}");
        assert!(answer.arp_announce.is_some(), "{answer:?}");
    }
}
