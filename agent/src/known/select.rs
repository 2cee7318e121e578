//! The filters for what the kernel cannot judge alone. `-Z` and `--min-ms`: whether a handshake or a lookup went
//! badly is known only when it is over, or when it waits. `--dest`, `--port`, `-4` and `-6` of lookups and
//! neighbours: what they teach is needed to report connects that are wanted, they themselves may not be.

use serde::{Deserialize, Serialize};

use std::{fmt, net::IpAddr};

use crate::{fact::Endpoint, records};

/// What the user asked to see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {
    /// Facts without a known owner are left out: processes were asked for.
    pub by_owner: bool,
    /// Only what failed, was retried, is stuck, or was slow.
    pub only_bad: bool,
    /// Only what took at least this long, milliseconds.
    pub min_ms: u64,
    /// Only these networks: IPv4-mapped or IPv6 address and prefix length out of 128. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<([u8; 16], u32)>,
    /// Only these ports. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Only IPv6 (`true`) or IPv4 (`false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_v6: Option<bool>,
}

impl Select {
    /// What alone was watched, where a process that passes may do things that do not: connects to other peers.
    /// Processes, by number or name, cgroups and containers are watched whole, with what they start.
    pub fn narrowed(&self) -> Vec<Narrowed<'_>> {
        let ports = (!self.ports.is_empty()).then_some(Narrowed::Ports(&self.ports));
        let networks = (!self.destinations.is_empty()).then_some(Narrowed::Networks(&self.destinations));
        [ports, networks, self.only_v6.map(|v6| Narrowed::Family { v6 })].into_iter().flatten().collect()
    }

    /// Whether a peer is wanted.
    pub fn peer(&self, peer: &Endpoint) -> bool {
        self.connection(peer.ip, peer.port)
    }

    /// Whether a connection with a peer is wanted, by the port that decides: the client's peer's, a server's own.
    pub fn connection(&self, peer: IpAddr, port: u16) -> bool {
        (self.ports.is_empty() || self.ports.contains(&port)) && self.network(peer)
    }

    /// Whether an address is in a network and of a family that is wanted.
    pub fn network(&self, address: IpAddr) -> bool {
        let bits = u128::from_be_bytes(records::address_bytes(address));
        let within = |(network, length): &([u8; 16], u32)| {
            let differs = bits ^ u128::from_be_bytes(*network);
            differs.checked_shr(128 - (*length).min(128)).unwrap_or(0) == 0
        };
        self.family(address) && (self.destinations.is_empty() || self.destinations.iter().any(within))
    }

    /// Whether the family of an address is wanted.
    pub fn family(&self, address: IpAddr) -> bool {
        self.only_v6.is_none_or(|v6| v6 == address.is_ipv6())
    }
}

/// A filter that lets a process pass, and hides some of what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrowed<'a> {
    /// Only these ports.
    Ports(&'a [u16]),
    /// Only these networks: address and prefix length out of 128.
    Networks(&'a [([u8; 16], u32)]),
    /// Only one family.
    Family {
        /// IPv6.
        v6: bool,
    },
}

/// Ports and networks named at most.
const NAMED: usize = 4;

impl fmt::Display for Narrowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: Vec<String>, count: usize| {
            let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
            all.join(", ") + &more
        };
        match self {
            Self::Ports(ports) => {
                let named = ports.iter().take(NAMED).map(ToString::to_string).collect();
                write!(f, "connects to port {}", list(named, ports.len()))
            }
            Self::Networks(networks) => {
                let network = |(address, length): &([u8; 16], u32)| match records::address(*address) {
                    IpAddr::V4(ip) => format!("{ip}/{}", length.saturating_sub(96)),
                    IpAddr::V6(ip) => format!("{ip}/{length}"),
                };
                let named = networks.iter().take(NAMED).map(network).collect();
                write!(f, "connects to {}", list(named, networks.len()))
            }
            Self::Family { v6 } => write!(f, "connects over IPv{}", if *v6 { 6 } else { 4 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_some_of_a_process_is_distinguished_from_what_hides_others() {
        let words = |select: &Select| {
            select.narrowed().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(words(&Select { by_owner: true, only_bad: true, ..Select::default() }), "");
        let select = Select {
            ports: vec![1, 2, 3, 4, 5, 6],
            destinations: vec![(records::address_bytes([10, 0, 0, 0].into()), 104)],
            only_v6: Some(false),
            ..Select::default()
        };
        assert_eq!(
            words(&select),
            "connects to port 1, 2, 3, 4 and 2 more; connects to 10.0.0.0/8; connects over IPv4"
        );
    }
}
