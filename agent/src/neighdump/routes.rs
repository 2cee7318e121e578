//! The gateways of a network namespace, and the bounds of the machine's neighbour tables.

use std::{collections::BTreeMap, io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia},
};

use super::{
    netlink::{ask, dump},
    way::question,
};

/// The next hop of a default route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// Its address.
    pub address: IpAddr,
    /// The index of the device it is behind.
    pub ifindex: u32,
    /// The device's name.
    pub device: String,
}

/// A neighbour table of the machine; all its network namespaces share it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Entries.
    pub entries: u32,
    /// `gc_thresh1` to `gc_thresh3`.
    pub thresholds: [u32; 3],
}

/// The gateways of the namespace the calling thread is in.
pub(super) fn gateways(devices: &BTreeMap<u32, String>) -> io::Result<Vec<Gateway>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        // To the end: the default route of IPv6 comes last.
        dump(RouteNetlinkMessage::GetRoute(request), |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                found.extend(next_hops(&route).into_iter().map(|(address, ifindex)| Gateway {
                    address,
                    ifindex,
                    device: devices.get(&ifindex).cloned().unwrap_or_default(),
                }));
            }
        })?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The error (positive errno) that the routes of the calling thread's namespace give for an address: EACCES for a
/// prohibit route, EINVAL for a blackhole, EHOSTUNREACH or ENETUNREACH; 0 when there is a route.
///
/// # Errors
/// What the netlink socket says when it is not an answer.
pub fn route_error(address: IpAddr) -> io::Result<i32> {
    match ask(RouteNetlinkMessage::GetRoute(question(address))) {
        Ok(_) => Ok(0),
        Err(error) => error.raw_os_error().ok_or(error),
    }
}

/// Gateway and device of each next hop of a default route in the main table; of other routes none.
fn next_hops(route: &RouteMessage) -> Vec<(IpAddr, u32)> {
    let header = &route.header;
    let is_default = header.destination_prefix_length == 0
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast;
    if !is_default {
        return vec![];
    }
    let mut hops = Vec::new();
    let oif = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    hops.extend(gateway(&route.attributes).zip(oif));
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(paths) = attribute {
            hops.extend(
                paths.iter().filter_map(|hop| Some((gateway(&hop.attributes)?, hop.interface_index))),
            );
        }
    }
    hops
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(address))
        | RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        _ => None,
    })
}

/// The machine's neighbour tables for IPv4 and IPv6.
///
/// # Errors
/// What the netlink socket says.
pub fn tables() -> io::Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    let request = RouteNetlinkMessage::GetNeighbourTable(NeighbourTableMessage::default());
    dump(request, |message| {
        if let RouteNetlinkMessage::NewNeighbourTable(message) = message {
            let table = table(&message);
            // Each device has a message with the same name; only the table's own has thresholds.
            if table.thresholds[2] != 0 && tables.iter().all(|known| known.family != table.family) {
                tables.push(table);
            }
        }
    })?;
    tables.retain(|table| !table.family.is_empty());
    Ok(tables)
}

fn table(message: &NeighbourTableMessage) -> Table {
    let mut table = Table::default();
    for attribute in &message.attributes {
        match attribute {
            NeighbourTableAttribute::Name(name) if name == "arp_cache" => table.family = "ipv4".into(),
            NeighbourTableAttribute::Name(name) if name == "ndisc_cache" => table.family = "ipv6".into(),
            NeighbourTableAttribute::Threshold1(bound) => table.thresholds[0] = *bound,
            NeighbourTableAttribute::Threshold2(bound) => table.thresholds[1] = *bound,
            NeighbourTableAttribute::Threshold3(bound) => table.thresholds[2] = *bound,
            NeighbourTableAttribute::Config(config) => table.entries = config.entries,
            _ => {}
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    fn default_route() -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![
            RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 1))),
            RouteAttribute::Oif(3),
        ];
        route
    }

    #[test]
    fn a_default_route_names_its_gateway_and_others_none() {
        let mut route = default_route();
        assert_eq!(next_hops(&route), [(IpAddr::from([10, 0, 0, 1]), 3)]);
        route.header.destination_prefix_length = 8;
        assert_eq!(next_hops(&route), []);
    }

    #[test]
    fn each_path_of_a_default_route_has_a_gateway() {
        let mut route = default_route();
        let hop = |last, index| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, last)))];
            hop
        };
        route.attributes = vec![RouteAttribute::MultiPath(vec![hop(1, 3), hop(2, 4)])];
        assert_eq!(next_hops(&route), [([10, 0, 0, 1].into(), 3), ([10, 0, 0, 2].into(), 4)]);
    }

    #[test]
    fn the_bounds_of_both_tables_are_readable_by_any_process() -> io::Result<()> {
        let tables = tables()?;
        for family in ["ipv4", "ipv6"] {
            assert!(
                tables.iter().any(|table| table.family == family && table.thresholds[2] > 0),
                "{tables:?}"
            );
        }
        Ok(())
    }
}
