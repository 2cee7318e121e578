//! The neighbours, devices and names of every network namespace, as they are now: what the `neigh` probe
//! cannot know because it was there before. Asked over rtnetlink, once, at start.
//!
//! Blocking: it enters each namespace from a thread of its own, which ends with it. A namespace that only
//! a thread (not a process, nor a file below `/run/netns`) keeps alive is not found.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ebpf_probes::{
    abi::{AF_INET, AF_INET6, V4_MAPPED},
    probes::neigh,
};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` and container engines keep namespaces by name.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// One network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode number.
    pub netns: u32,
    /// The name `ip netns` or a container engine gave it.
    pub name: Option<String>,
    /// Names of its devices, by index.
    pub devices: BTreeMap<u32, String>,
    /// Its neighbours, those that need no resolution left out.
    pub neighbours: Vec<Neighbour>,
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Inode number of its network namespace.
    pub netns: u32,
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
}

impl Neighbour {
    /// The entry for the `NEIGHBOURS` map, to be added unless there is one. `boot_ns`: now.
    pub fn map_entry(&self, boot_ns: u64) -> (neigh::NeighKey, neigh::Neighbour) {
        let since = self
            .updated
            .map_or(0, |ago| boot_ns.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)));
        // A change of the address would have been an update: the kernel had it no later than that.
        let mac_since_ns = if self.mac == [0; 8] { 0 } else { since };
        (
            neigh::NeighKey { netns: self.netns, ifindex: self.ifindex, address: self.address },
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

/// A namespace that was found, and how to get there.
struct Found {
    path: PathBuf,
    name: Option<String>,
}

/// Every network namespace of this machine.
///
/// # Errors
/// When `/proc` cannot be read or no thread can be started; single namespaces end up in `refused`.
pub fn everywhere() -> io::Result<Dump> {
    let found = find()?;
    let visit = move || {
        let mut dump = Dump::default();
        for (netns, Found { path, name }) in found {
            match enter(&path).and_then(|()| current(netns, name)) {
                Ok(namespace) => dump.namespaces.push(namespace),
                Err(error) => dump.refused.push((netns, error)),
            }
        }
        dump
    };
    let visitor = thread::Builder::new().name("neighdump".into()).spawn(visit)?;
    visitor.join().map_err(|_| io::Error::other("the thread that visits network namespaces panicked"))
}

/// The namespaces by inode number: of processes, and named ones.
fn find() -> io::Result<BTreeMap<u32, Found>> {
    let mut found = BTreeMap::new();
    let names = names();
    for process in fs::read_dir("/proc")?.flatten() {
        let is_process = process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let path = process.path().join("ns/net");
        // Processes come and go, and not all may be looked at.
        if is_process && let Some(netns) = fs::read_link(&path).ok().and_then(|link| inode_of(&link)) {
            found.entry(netns).or_insert(Found { path, name: None });
        }
    }
    for (netns, (name, path)) in names {
        found.entry(netns).or_insert(Found { path, name: None }).name = Some(name);
    }
    Ok(found)
}

/// `net:[4026531840]`.
fn inode_of(link: &Path) -> Option<u32> {
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Named namespaces, by inode number.
fn names() -> HashMap<u32, (String, PathBuf)> {
    NAMED
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(Iterator::flatten)
        .filter_map(|entry| {
            // A name whose namespace is gone is an empty file on another file system.
            let netns = u32::try_from(fs::metadata(entry.path()).ok()?.ino()).ok()?;
            let is_namespace = rustix::fs::statfs(entry.path()).ok()?.f_type == NSFS_MAGIC;
            is_namespace.then(|| (netns, (entry.file_name().to_string_lossy().into_owned(), entry.path())))
        })
        .collect()
}

/// `NSFS_MAGIC` of include/uapi/linux/magic.h.
const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Moves the calling thread, for good.
fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The namespace the calling thread is in, which the caller knows by number and name.
///
/// # Errors
/// What the netlink socket says.
pub fn current(netns: u32, name: Option<String>) -> io::Result<Namespace> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut devices = BTreeMap::new();
    dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
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
    dump(&socket, RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), |message| {
        if let RouteNetlinkMessage::NewNeighbour(entry) = message {
            neighbours.extend(neighbour(netns, &devices, &entry, ticks));
        }
    })?;
    Ok(Namespace { netns, name, devices, neighbours })
}

/// Sends a request and hands each message of the answer to `each`. Messages this crate does not
/// understand are left out.
fn dump(
    socket: &Socket,
    request: RouteNetlinkMessage,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
            let Some(message) = rest.get(..length).filter(|message| message.len() >= NETLINK_HEADER) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message breaks off"));
            };
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
                Ok(NetlinkPayload::Done(_)) => return Ok(()),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(NetlinkPayload::InnerMessage(message)) => each(message),
                Ok(_) | Err(_) => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// `sizeof(struct nlmsghdr)`.
const NETLINK_HEADER: usize = 16;

/// `None`: no IP neighbour, or one that needs no resolution.
fn neighbour(
    netns: u32,
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
        let mut found = neighbour(9, &devices, &stale(), 100).expect("an IPv4 neighbour");
        assert_eq!((found.device.as_str(), found.family), ("eth0", AF_INET));
        found.updated = Some(Duration::from_secs(2));
        let (key, value) = found.map_entry(5_000_000_000);
        assert_eq!((key.netns, key.ifindex), (9, 7));
        assert_eq!(key.address, Ipv4Addr::new(10, 0, 1, 90).to_ipv6_mapped().octets());
        assert_eq!(value.mac, [2, 0, 0, 0, 0xd, 0xad, 0, 0]);
        assert_eq!((value.state, value.probes), (neigh::state::STALE, 4));
        assert_eq!((value.state_since_ns, value.mac_since_ns), (3_000_000_000, 3_000_000_000));
    }

    #[test]
    fn an_entry_older_than_the_boot_clock_is_of_unknown_age() {
        let mut found = neighbour(9, &BTreeMap::new(), &stale(), 100).expect("an IPv4 neighbour");
        found.updated = Some(Duration::MAX);
        assert_eq!(found.map_entry(1).1.state_since_ns, 0);
    }

    #[test]
    fn what_needs_no_resolution_is_left_out() {
        let mut entry = stale();
        entry.header.state = NeighbourState::Noarp;
        assert_eq!(neighbour(9, &BTreeMap::new(), &entry, 100), None);
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
        let found = neighbour(9, &BTreeMap::new(), &entry, 100).expect("an IPv4 neighbour");
        assert_eq!(found.confirmed, Some(Duration::from_millis(1500)));
        assert_eq!(found.updated, Some(Duration::from_millis(500)));
    }

    #[test]
    fn namespace_links_are_read() {
        assert_eq!(inode_of(Path::new("net:[4026531840]")), Some(4026531840));
        assert_eq!(inode_of(Path::new("mnt:[4026531840]")), None);
        assert_eq!(inode_of(Path::new("net:[]")), None);
    }

    #[test]
    fn anybody_may_read_the_devices_of_the_own_namespace() -> io::Result<()> {
        let here = current(1, None)?;
        assert!(here.devices.values().any(|name| name == "lo"), "{here:?}");
        Ok(())
    }
}
