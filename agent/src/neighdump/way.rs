//! Where packets to an address go in a network namespace, as its routing tables have it; no packet is sent.

use std::{io, net::IpAddr, path::PathBuf};

use ebpf_probes::abi::Netns;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use super::{
    inside::within,
    netlink::{ask, dump},
};

/// The way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: To,
    /// The namespace has a default route of that family: a way out.
    pub default: bool,
    /// Where the namespace's file is; `None` for the one this process is in.
    pub namespace: Option<PathBuf>,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To the namespace itself: the address is its own.
    Itself,
    /// Elsewhere.
    Away,
    /// Nowhere.
    Nowhere,
}

/// The way to `address` in a namespace.
///
/// # Errors
/// What `/proc` or netlink say; [`io::ErrorKind::NotFound`] when there is no such namespace (any more).
pub fn way(netns: Netns, address: IpAddr) -> io::Result<Route> {
    let (found, namespace) = within(netns, 0, move || here(address))?;
    Ok(Route { namespace, ..found? })
}

/// Asks for the way to one address.
pub(super) fn question(address: IpAddr) -> RouteMessage {
    let mut request = RouteMessage::default();
    let (family, bits, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
    };
    request.header.address_family = family;
    request.header.destination_prefix_length = bits;
    request.attributes = vec![RouteAttribute::Destination(destination)];
    request
}

/// The same in the namespace of the calling thread.
fn here(address: IpAddr) -> io::Result<Route> {
    let question = question(address);
    let family = question.header.address_family;
    let to = match ask(RouteNetlinkMessage::GetRoute(question)) {
        Ok(Some(RouteNetlinkMessage::NewRoute(route))) => match route.header.kind {
            RouteType::Local => To::Itself,
            RouteType::Unicast => To::Away,
            _ => To::Nowhere,
        },
        // ENETUNREACH and the like.
        Ok(_) | Err(_) => To::Nowhere,
    };
    let mut default = false;
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    dump(RouteNetlinkMessage::GetRoute(request), |message| {
        if let RouteNetlinkMessage::NewRoute(route) = message {
            default |= route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast;
        }
    })?;
    Ok(Route { to, default, namespace: None })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_way_to_an_own_address_leads_nowhere_else() -> io::Result<()> {
        assert_eq!(here(Ipv4Addr::LOCALHOST.into())?.to, To::Itself);
        assert_eq!(here(Ipv4Addr::new(127, 9, 8, 7).into())?.to, To::Itself);
        Ok(())
    }

    #[test]
    fn a_namespace_that_is_not_there_is_not_found() {
        let error =
            way(Netns::numbered(1), Ipv4Addr::LOCALHOST.into()).expect_err("no namespace has this number");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
