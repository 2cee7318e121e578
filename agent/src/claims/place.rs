//! One network namespace that is watched: its devices and addresses, and the sockets by which the kernel says what becomes
//! of them. The sockets keep the namespace alive; it is to be dropped as soon as nothing else does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use ebpf_probes::abi::Netns;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use netlink_sys::{Socket as Netlink, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::time::ClockId;

use super::{
    packet::Says,
    sockets::{Arp, Nd},
};
use crate::{
    known::context::{AddressNews, Claim, OwnAddress},
    neighdump::{dump, own_address},
    time::{boot_ns, clock_ns},
};

/// Addresses known of a namespace at most.
const ADDRESSES: usize = 4096;
/// Addresses of which it is reported what becomes of them, at most.
const FOLLOWED: usize = 256;
/// Claims remembered at most, and how long: the same one is not reported again sooner.
const REPORTED: usize = 256;
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Packets taken from one socket at a time.
pub(super) const AT_A_TIME: usize = 64;
/// `RTNLGRP_*` of include/uapi/linux/rtnetlink.h.
const LINK: u32 = 1;
const IPV4_IFADDR: u32 = 5;
const IPV6_IFADDR: u32 = 9;
/// A datagram of netlink is no longer than this.
const DATAGRAM: usize = 32 << 10;
/// Hundredths of a second in nanoseconds.
const HUNDREDTH_NS: u64 = 10_000_000;

struct Device {
    name: String,
    mac: [u8; 8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Usable,
    Tentative,
    DadFailed { since_ns: u64 },
}

#[derive(Clone, Copy)]
struct Own {
    prefix: u8,
    state: State,
}

type At = (u32, IpAddr);

/// A namespace.
pub(super) struct Place {
    netns: Netns,
    netlink: Netlink,
    arp: Arp,
    /// `None`: the namespace has no IPv6.
    nd: Option<Nd>,
    devices: BTreeMap<u32, Device>,
    addresses: BTreeMap<At, Own>,
    /// Addresses something was reported of.
    followed: BTreeSet<At>,
    reported: HashMap<(At, [u8; 8]), Instant>,
    /// The filters are those of other addresses.
    stale: bool,
    /// The kernel had more to say than it could keep: what is known is not what is.
    pub(super) overrun: bool,
    /// What could not be kept or reported, and packets taken.
    pub(super) left_out: u64,
    pub(super) packets: u64,
    /// What the kernel dropped because it was not taken, of both sockets, when that was looked at last.
    dropped: u64,
}

impl Place {
    /// Watches the namespace of the calling thread.
    pub(super) fn open(netns: Netns) -> io::Result<Self> {
        let mut netlink = Netlink::new(NETLINK_ROUTE)?;
        netlink.bind_auto()?;
        netlink.connect(&SocketAddr::new(0, 0))?;
        for group in [LINK, IPV4_IFADDR, IPV6_IFADDR] {
            netlink.add_membership(group)?;
        }
        netlink.set_non_blocking(true)?;
        let mut place = Self {
            netns,
            netlink,
            arp: Arp::open()?,
            nd: Nd::open()?,
            devices: BTreeMap::new(),
            addresses: BTreeMap::new(),
            followed: BTreeSet::new(),
            reported: HashMap::new(),
            stale: true,
            overrun: false,
            left_out: 0,
            packets: 0,
            dropped: 0,
        };
        dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            place.learn(message, true);
        })?;
        let mut addresses = Vec::new();
        dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| addresses.push(message))?;
        for message in addresses {
            place.learn(message, true);
        }
        place.narrow();
        Ok(place)
    }

    pub(super) fn netns(&self) -> Netns {
        self.netns
    }

    /// What has to be waited for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // SAFETY: the socket lives as long as what is borrowed from it.
        let netlink = unsafe { BorrowedFd::borrow_raw(self.netlink.as_raw_fd()) };
        [netlink, self.arp.fd()].into_iter().chain(self.nd.as_ref().map(Nd::fd))
    }

    /// Addresses that are refused already.
    pub(super) fn at_start(&mut self) -> Vec<OwnAddress> {
        let failed: Vec<(At, u64)> = self
            .addresses
            .iter()
            .filter_map(|(at, own)| match own.state {
                State::DadFailed { since_ns } => Some((*at, since_ns)),
                _ => None,
            })
            .collect();
        failed
            .into_iter()
            .filter_map(|(at, since_ns)| self.follow(at, AddressNews::DadFailed { since_ns }))
            .collect()
    }

    /// The namespace is gone, or what is known of it is not what is: of what was reported nothing holds.
    pub(super) fn at_end(&self) -> Vec<OwnAddress> {
        self.followed.iter().map(|at| self.news(*at, AddressNews::Gone)).collect()
    }

    /// What has happened since.
    pub(super) fn take(&mut self, report: &mut impl FnMut(OwnAddress)) {
        self.notifications(report);
        let mut says: Vec<(u32, Says)> = Vec::new();
        for _ in 0..AT_A_TIME {
            let Some(taken) = self.arp.take() else { break };
            self.packets += 1;
            says.extend(taken);
        }
        for _ in 0..AT_A_TIME {
            let Some(taken) = self.nd.as_ref().and_then(Nd::take) else { break };
            self.packets += 1;
            says.extend(taken);
        }
        for (ifindex, says) in says {
            if let Some(claim) = self.claim(ifindex, &says) {
                report(claim);
            }
        }
    }

    /// Packets the kernel dropped since this was asked last.
    pub(super) fn newly_dropped(&mut self) -> u64 {
        let dropped = self.arp.dropped() + self.nd.as_ref().map_or(0, Nd::dropped);
        dropped.saturating_sub(std::mem::replace(&mut self.dropped, dropped))
    }

    fn claim(&mut self, ifindex: u32, says: &Says) -> Option<OwnAddress> {
        let at = (ifindex, says.address);
        let own = self.addresses.get(&at)?;
        // A frame of its own that came back is no other host's.
        if self.devices.values().any(|device| device.mac == says.mac) {
            return None;
        }
        let how = match (says.how, own.state) {
            (Claim::Advertisement, State::Tentative | State::DadFailed { .. }) => Claim::Defence,
            // What does not override is a proxy's, or an anycast address: hosts share it.
            (Claim::Advertisement, State::Usable) if !says.overrides => return None,
            (how, _) => how,
        };
        let now = Instant::now();
        let key = (at, says.mac);
        if self.reported.get(&key).is_some_and(|last| now.duration_since(*last) < AGAIN_AFTER) {
            return None;
        }
        if self.reported.len() >= REPORTED {
            self.reported.retain(|_, last| now.duration_since(*last) < AGAIN_AFTER);
            if self.reported.len() >= REPORTED {
                self.left_out += 1;
                return None;
            }
        }
        self.reported.insert(key, now);
        self.follow(at, AddressNews::Claimed { by: says.mac, how })
    }

    /// Says something of an address, of which from now on all is said.
    fn follow(&mut self, at: At, news: AddressNews) -> Option<OwnAddress> {
        if self.followed.len() >= FOLLOWED && !self.followed.contains(&at) {
            self.left_out += 1;
            return None;
        }
        self.followed.insert(at);
        Some(self.news(at, news))
    }

    fn news(&self, at: At, news: AddressNews) -> OwnAddress {
        let device = self.devices.get(&at.0);
        OwnAddress {
            boot_ns: boot_ns(),
            netns: self.netns,
            ifindex: at.0,
            device: device.map(|device| device.name.clone()).unwrap_or_default(),
            mac: device.map_or([0; 8], |device| device.mac),
            address: at.1,
            prefix: self.addresses.get(&at).map_or(0, |own| own.prefix),
            news,
        }
    }

    fn notifications(&mut self, report: &mut impl FnMut(OwnAddress)) {
        let mut datagram: Vec<u8> = Vec::with_capacity(DATAGRAM);
        for _ in 0..AT_A_TIME {
            datagram.clear();
            match self.netlink.recv_from(&mut datagram, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.overrun = true;
                    break;
                }
            }
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram) else { continue };
            let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
            if let Some(news) = self.learn(message, false) {
                report(news);
            }
        }
        if std::mem::take(&mut self.stale) {
            self.narrow();
        }
    }

    /// What the kernel says of a device or an address; what is to be reported of it.
    fn learn(&mut self, message: RouteNetlinkMessage, at_start: bool) -> Option<OwnAddress> {
        match message {
            RouteNetlinkMessage::NewLink(link) => {
                let device = device(&link);
                self.devices.insert(link.header.index, device);
                None
            }
            RouteNetlinkMessage::DelLink(link) => {
                self.devices.remove(&link.header.index);
                None
            }
            RouteNetlinkMessage::NewAddress(message) => {
                let (at, prefix) = place_of(&message)?;
                let before = self.addresses.get(&at).map(|own| own.state);
                let state = match (state(&message), before) {
                    // It failed when it was first heard of.
                    (State::DadFailed { .. }, Some(State::DadFailed { since_ns })) => {
                        State::DadFailed { since_ns }
                    }
                    (State::DadFailed { .. }, _) if !at_start => State::DadFailed { since_ns: boot_ns() },
                    (now, _) => now,
                };
                if before.is_none() && self.addresses.len() >= ADDRESSES {
                    self.left_out += 1;
                    return None;
                }
                self.stale |= before.is_none();
                self.addresses.insert(at, Own { prefix, state });
                match state {
                    _ if at_start || before == Some(state) => None,
                    State::DadFailed { since_ns } => self.follow(at, AddressNews::DadFailed { since_ns }),
                    State::Usable => self.followed.contains(&at).then(|| self.news(at, AddressNews::Usable)),
                    State::Tentative => None,
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                let (at, _) = place_of(&message)?;
                let gone = self.followed.remove(&at).then(|| self.news(at, AddressNews::Gone));
                self.stale |= self.addresses.remove(&at).is_some();
                gone
            }
            _ => None,
        }
    }

    /// Has the kernel compare with the addresses there are. Where it refuses it goes on as before.
    fn narrow(&mut self) {
        self.stale = false;
        let own = || self.addresses.keys().map(|(_, address)| *address);
        self.arp.narrow(own());
        if let Some(nd) = &self.nd {
            nd.narrow(own());
        }
    }
}

fn device(link: &LinkMessage) -> Device {
    let mut device = Device { name: String::new(), mac: [0; 8] };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(mac) if !link.header.flags.contains(LinkFlags::Loopback) => {
                device.mac.iter_mut().zip(mac).for_each(|(to, from)| *to = *from);
            }
            _ => {}
        }
    }
    device
}

/// Which address that is.
fn place_of(message: &AddressMessage) -> Option<(At, u8)> {
    let (address, prefix) = own_address(message)?;
    Some(((message.header.index, address), prefix))
}

fn state(message: &AddressMessage) -> State {
    let mut flags = u32::from(message.header.flags.bits());
    let mut updated = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Flags(all) => flags |= all.bits(),
            AddressAttribute::CacheInfo(info) => updated = Some(info.tstamp),
            _ => {}
        }
    }
    let flags = AddressFlags::from_bits_retain(flags);
    if flags.contains(AddressFlags::Dadfailed) {
        return State::DadFailed { since_ns: changed_ns(updated) };
    }
    let tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if tentative { State::Tentative } else { State::Usable }
}

/// When an address changed last, by the kernel's count of hundredths of a second without suspends: CLOCK_BOOTTIME.
fn changed_ns(updated: Option<u32>) -> u64 {
    let now = boot_ns();
    let Some(updated) = updated else { return now };
    let monotonic = clock_ns(ClockId::Monotonic).unsigned_abs();
    now.saturating_sub(monotonic.saturating_sub(u64::from(updated).saturating_mul(HUNDREDTH_NS)))
}
