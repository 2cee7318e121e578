//! Dumps over rtnetlink: a request, and the messages of its answer until there are no more.

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `sizeof(struct nlmsghdr)`.
const NETLINK_HEADER: usize = 16;
/// Messages taken in at most: as many as the fullest neighbour table has, and some.
const MESSAGES: usize = 1 << 17;

/// Sends a request for one thing, and returns what it is answered with.
///
/// # Errors
/// What the netlink socket says.
pub(super) fn ask(request: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => Ok(Some(message)),
        Ok(NetlinkPayload::Error(error)) => Err(error.to_io()),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Sends a request and hands each message of the answer to `each`. Messages this crate does not understand are
/// left out.
///
/// # Errors
/// What the netlink socket says.
pub fn dump(request: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(request));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut taken = 0;
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
                Ok(NetlinkPayload::InnerMessage(message)) => {
                    taken += 1;
                    // The rest of the answer goes with the socket.
                    each(message);
                    if taken >= MESSAGES {
                        return Ok(());
                    }
                }
                Ok(_) | Err(_) => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// An address, and the length of its prefix. A point-to-point device's own, not its peer's.
pub fn own_address(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    Some((local.or(any)?, message.header.prefix_len))
}
