//! One question for a neighbour to everybody on its link (an ARP request, a neighbour solicitation), in the name of an address
//! of the device, and the MACs that answer. Blocking, for a second.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6},
    time::{Duration, Instant},
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkMessage},
};
use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{filter, packet};
use crate::{
    known::{context::Answered, request::Sought},
    neighdump::{dump, own_address, within},
    records,
    time::boot_ns,
};

/// Answers are waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);
/// MACs reported at most, and packets looked at.
const MACS: usize = 8;
const PACKETS: usize = 64;

/// Asks in the neighbour's namespace, from a thread of its own.
///
/// # Errors
/// The namespace is gone or may not be entered, or the device has no MAC or takes no packet.
pub fn ask(sought: &Sought) -> io::Result<Answered> {
    let (netns, ifindex, address) = (sought.netns, sought.ifindex, sought.address);
    let (macs, _) = within(netns, 0, move || here(ifindex, records::address(address)))?;
    let (sent_ns, macs) = macs?;
    Ok(Answered { boot_ns: sent_ns, netns, ifindex, address, macs })
}

/// The same in the namespace of the calling thread: when it was sent, and who answered.
fn here(ifindex: u32, address: IpAddr) -> io::Result<(u64, Vec<[u8; 8]>)> {
    let mac = mac_of(ifindex)?.ok_or(io::ErrorKind::Unsupported)?;
    let (socket, sent_ns) = match address {
        IpAddr::V4(v4) => arp(ifindex, mac, v4)?,
        IpAddr::V6(v6) => solicit(ifindex, mac, v6)?,
    };
    let deadline = Instant::now() + PATIENCE;
    let mut macs = Vec::new();
    for _ in 0..PACKETS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || macs.len() >= MACS {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let mut room = [0; 256];
        let Ok(len) = io::Read::read(&mut &socket, &mut room) else { break };
        let taken = room.get(..len).unwrap_or_default();
        let says = if address.is_ipv4() { packet::arp(taken) } else { packet::solicited(taken) };
        if let Some(says) = says.filter(|says| says.address == address)
            && !macs.contains(&says.mac)
        {
            macs.push(says.mac);
        }
    }
    Ok((sent_ns, macs))
}

/// The Ethernet address of a device.
fn mac_of(ifindex: u32) -> io::Result<Option<[u8; 6]>> {
    let mut found = None;
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message
            && link.header.index == ifindex
        {
            found = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
                _ => None,
            });
        }
    })?;
    Ok(found.filter(|mac| *mac != [0; 6]))
}

/// The address in whose name to ask: one of the neighbour's network, or any of the device's.
fn sender(ifindex: u32, target: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let mut own = Vec::new();
    dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(message) = message
            && message.header.index == ifindex
            && let Some((IpAddr::V4(address), prefix)) = own_address(&message)
        {
            own.push((address, prefix));
        }
    })?;
    let shares = |(address, prefix): &&(Ipv4Addr, u8)| {
        let mask = u32::MAX.checked_shl(32 - u32::from((*prefix).min(32))).unwrap_or(0);
        (address.to_bits() ^ target.to_bits()) & mask == 0
    };
    let best = own.iter().find(shares).or(own.first());
    Ok(best.map_or(Ipv4Addr::UNSPECIFIED, |(address, _)| *address))
}

fn arp(ifindex: u32, mac: [u8; 6], target: Ipv4Addr) -> io::Result<(Socket, u64)> {
    let kind = (libc::ETH_P_ARP as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(kind))))?;
    socket.attach_filter(&filter::answers_arp(target))?;
    let everybody = link(ifindex, kind)?;
    socket.bind(&everybody)?;
    let mut question = vec![0, 1, 8, 0, 6, 4, 0, 1];
    question.extend(mac);
    question.extend(sender(ifindex, target)?.octets());
    question.extend([0; 6]);
    question.extend(target.octets());
    let sent_ns = boot_ns();
    socket.send_to(&question, &everybody)?;
    Ok((socket, sent_ns))
}

/// Everybody on the link of a device.
fn link(ifindex: u32, kind: u16) -> io::Result<SockAddr> {
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: kind,
        sll_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    };
    // SAFETY: an address of this family fits into the storage, and its length is set.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            storage.cast::<libc::sockaddr_ll>().write(to);
            *len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

fn solicit(ifindex: u32, mac: [u8; 6], target: Ipv6Addr) -> io::Result<(Socket, u64)> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.attach_filter(&filter::answers_nd(target))?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_if_v6(ifindex)?;
    let [.., a, b, c] = target.octets();
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    // The kernel fills in the checksum.
    let mut question = vec![135, 0, 0, 0, 0, 0, 0, 0];
    question.extend(target.octets());
    question.extend([1, 1]);
    question.extend(mac);
    let sent_ns = boot_ns();
    socket.send_to(&question, &SocketAddrV6::new(everybody, 0, 0, ifindex).into())?;
    Ok((socket, sent_ns))
}
