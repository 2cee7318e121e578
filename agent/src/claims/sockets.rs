//! The two sockets of a namespace: ARP by a packet socket, neighbour discovery by a raw ICMPv6 socket. Neither is in the
//! way of other packets: the kernel hands an IPv6 packet that is no ICMPv6 to neither.

use std::{
    io::{self, IoSliceMut},
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessageOwned, LinkAddr, MsgFlags, SockaddrIn6, recvfrom, recvmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    filter,
    packet::{self, Says},
};

/// What waits to be taken, at most: a flood is dropped by the kernel, and counted.
const WAITING_BYTES: usize = 64 << 10;
/// As much of a packet as is read.
const PACKET: usize = 512;

/// ARP packets that speak for an own address.
pub(super) struct Arp(Socket);

impl Arp {
    /// In the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        let protocol = Protocol::from(i32::from((libc::ETH_P_ARP as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), Some(protocol))?;
        socket.attach_filter(&filter::arp(std::iter::empty()))?;
        socket.set_recv_buffer_size(WAITING_BYTES)?;
        Ok(Self(socket))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn narrow(&self, own: impl Iterator<Item = IpAddr>) {
        let _ = self.0.attach_filter(&filter::arp(own));
    }

    /// The next packet: by the index of the device it came in by, what it says. `None`: there is none.
    pub(super) fn take(&self) -> Option<Option<(u32, Says)>> {
        let mut packet = [0; PACKET];
        let (len, from) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut packet).ok()?;
        let says = packet.get(..len).and_then(packet::arp);
        Some(from.zip(says).and_then(|(from, says)| Some((u32::try_from(from.ifindex()).ok()?, says))))
    }

    pub(super) fn dropped(&self) -> u64 {
        dropped(&self.0)
    }
}

/// Neighbour discovery messages that speak for an own address.
pub(super) struct Nd(Socket);

impl Nd {
    /// In the calling thread's namespace; `None` where there is no IPv6.
    pub(super) fn open() -> io::Result<Option<Self>> {
        let socket = match Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6)) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            socket => socket?,
        };
        socket.attach_filter(&filter::nd(std::iter::empty()))?;
        socket.set_recv_buffer_size(WAITING_BYTES)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        Ok(Some(Self(socket)))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn narrow(&self, own: impl Iterator<Item = IpAddr>) {
        let _ = self.0.attach_filter(&filter::nd(own));
    }

    /// The next message: by the index of the device it came in by, what it says. `None`: there is none.
    pub(super) fn take(&self) -> Option<Option<(u32, Says)>> {
        let mut message = [0; PACKET];
        let mut control = cmsg_space!(libc::in6_pktinfo);
        let mut room = [IoSliceMut::new(&mut message)];
        let fd = self.0.as_raw_fd();
        let taken = recvmsg::<SockaddrIn6>(fd, &mut room, Some(&mut control), MsgFlags::empty()).ok()?;
        let ifindex = taken.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
                _ => None,
            })
        });
        let (len, source) = (taken.bytes, taken.address.map(|from| from.ip()));
        let says = message.get(..len).zip(source).and_then(|(message, source)| packet::nd(message, source));
        Some(ifindex.zip(says))
    }

    pub(super) fn dropped(&self) -> u64 {
        dropped(&self.0)
    }
}

/// Packets that the kernel dropped because none were taken, since the socket was opened.
fn dropped(socket: &Socket) -> u64 {
    /// `SK_MEMINFO_DROPS` and `SK_MEMINFO_VARS` of include/uapi/linux/sock_diag.h.
    const DROPS: usize = 8;
    const VARS: usize = 9;
    let mut memory = [0u32; VARS];
    let mut len = size_of_val(&memory) as libc::socklen_t;
    // SAFETY: the kernel writes at most the bytes `len` says.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if failed == 0 { memory[DROPS].into() } else { 0 }
}
