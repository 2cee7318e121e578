//! What each kind of incident can be asked, whatever only it has: where its trouble is, in which words, and whom it
//! concerns.

use std::net::SocketAddr;

use super::{
    clocks::{ClockSkewedDetails, ClockSteppedDetails},
    connects::{
        ConnectFailingDetails, ConnectStalledDetails, ConnectionStalledDetails, ListenQueueFullDetails,
        ResponseOverdueDetails,
    },
    handshakes::{TlsDetails, TlsFailingDetails},
    lookups::DnsUnansweredDetails,
    neighbours::{
        AddressConflictDetails, NeighbourConflictDetails, NeighbourPlace, NeighbourStaleDetails,
        NeighbourTableFullDetails, NeighbourUnresolvedDetails,
    },
};
use crate::{
    domains::tls::Role,
    fact::{Endpoint, peer},
    known::select::Select,
    text::{
        duration::{by, off},
        shown,
    },
};

/// What only one kind of incident has, as the rest of the agent asks it.
pub trait DescribeDetails {
    /// Where its trouble is, for a column of a table.
    fn place(&self) -> String;

    /// What distinguishes it from others of its kind, to stand before its duration; empty where the process does.
    fn headline(&self) -> String;

    /// Whether its summary distinguishes its states, where neither cause nor destination does.
    fn summary_distinguishes(&self) -> bool {
        false
    }

    /// Where it goes to, of what goes somewhere.
    fn destination(&self) -> Option<&Endpoint> {
        None
    }

    /// Whether it is about a peer that is wanted.
    fn passes(&self, _select: &Select) -> bool {
        true
    }

    /// Whether filters by process let it pass, whichever process suffers.
    fn concerns_everyone(&self) -> bool {
        false
    }
}

macro_rules! about_a_handshake {
    ($($details:ty),+) => { $(
        impl DescribeDetails for $details {
            fn place(&self) -> String {
                format!("{} ←→ :{}", peer(&self.peer), self.local.port)
            }

            fn headline(&self) -> String {
                match self.role {
                    Role::Server => format!("server on :{}", self.local.port),
                    Role::Client => format!("client of {}", SocketAddr::new(self.peer.ip, self.peer.port)),
                }
            }

            fn passes(&self, select: &Select) -> bool {
                let port = if self.role == Role::Server { self.local.port } else { self.peer.port };
                select.connection(self.peer.ip, port)
            }
        }
    )+ };
}
about_a_handshake!(TlsDetails, TlsFailingDetails);

macro_rules! about_a_destination {
    ($($details:ty),+) => { $(
        impl DescribeDetails for $details {
            fn place(&self) -> String {
                peer(&self.destination)
            }

            fn headline(&self) -> String {
                String::new()
            }

            fn destination(&self) -> Option<&Endpoint> {
                Some(&self.destination)
            }

            fn passes(&self, select: &Select) -> bool {
                select.peer(&self.destination)
                    || self.worst.iter().any(|worst| select.peer(&worst.destination))
            }
        }
    )+ };
}
about_a_destination!(ConnectStalledDetails, ConnectFailingDetails);

impl DescribeDetails for ConnectionStalledDetails {
    fn place(&self) -> String {
        if self.is_service {
            format!("{} ←→ :{}", peer(&self.peer), self.local.port)
        } else {
            peer(&self.peer)
        }
    }

    fn headline(&self) -> String {
        if self.is_service { format!("server on :{}", self.local.port) } else { String::new() }
    }

    fn destination(&self) -> Option<&Endpoint> {
        (!self.is_service).then_some(&self.peer)
    }

    fn passes(&self, select: &Select) -> bool {
        let port = if self.is_service { self.local.port } else { self.peer.port };
        select.connection(self.peer.ip, port)
            || self.peers.iter().any(|address| select.connection(*address, port))
    }
}

impl DescribeDetails for ListenQueueFullDetails {
    fn place(&self) -> String {
        peer(&self.local)
    }

    fn headline(&self) -> String {
        format!("server on :{}", self.local.port)
    }

    fn passes(&self, select: &Select) -> bool {
        self.refused.iter().any(|refused| select.connection(*refused, self.local.port))
    }
}

macro_rules! about_one_end {
    ($($details:ident . $end:ident),+) => { $(
        impl DescribeDetails for $details {
            fn place(&self) -> String {
                peer(&self.$end)
            }

            fn headline(&self) -> String {
                String::new()
            }

            fn destination(&self) -> Option<&Endpoint> {
                Some(&self.$end)
            }

            fn passes(&self, select: &Select) -> bool {
                select.peer(&self.$end)
            }
        }
    )+ };
}
about_one_end!(ResponseOverdueDetails.destination, DnsUnansweredDetails.server);

/// `10.0.1.90 on eth0@blue`.
fn neighbour(place: &NeighbourPlace) -> String {
    let netns = place.netns.as_ref().map(|netns| format!("@{}", shown(netns))).unwrap_or_default();
    format!("{} on {}{netns}", place.address, shown(&place.device))
}

macro_rules! about_a_neighbour {
    ($($details:ty),+) => { $(
        impl DescribeDetails for $details {
            fn place(&self) -> String {
                format!("{} on {}", self.neighbour.address, shown(&self.neighbour.device))
            }

            fn headline(&self) -> String {
                neighbour(&self.neighbour)
            }

            fn passes(&self, select: &Select) -> bool {
                select.network(self.neighbour.address)
            }

            fn concerns_everyone(&self) -> bool {
                true
            }
        }
    )+ };
}
about_a_neighbour!(NeighbourUnresolvedDetails, NeighbourStaleDetails, NeighbourConflictDetails);

impl DescribeDetails for AddressConflictDetails {
    fn place(&self) -> String {
        format!("{} on {}", self.address, shown(&self.device))
    }

    fn headline(&self) -> String {
        let netns = self.netns.as_ref().map(|netns| format!("@{}", shown(netns))).unwrap_or_default();
        format!("{} on {}{netns}", self.address, shown(&self.device))
    }

    fn passes(&self, select: &Select) -> bool {
        select.network(self.address)
    }

    fn concerns_everyone(&self) -> bool {
        true
    }
}

impl DescribeDetails for NeighbourTableFullDetails {
    fn place(&self) -> String {
        self.family.clone()
    }

    fn headline(&self) -> String {
        self.family.clone()
    }

    fn concerns_everyone(&self) -> bool {
        true
    }
}

impl DescribeDetails for ClockSteppedDetails {
    fn place(&self) -> String {
        "clock".into()
    }

    fn headline(&self) -> String {
        if self.wrong_ms.is_some() { "back where it was".to_owned() } else { by(self.delta_ns) }
    }

    fn summary_distinguishes(&self) -> bool {
        true
    }

    fn concerns_everyone(&self) -> bool {
        true
    }
}

impl DescribeDetails for ClockSkewedDetails {
    fn place(&self) -> String {
        "clock".into()
    }

    fn headline(&self) -> String {
        off(self.reference.ahead_ns)
    }

    fn summary_distinguishes(&self) -> bool {
        true
    }

    fn concerns_everyone(&self) -> bool {
        true
    }
}
