//! The filters for what the kernel cannot judge alone. `-Z` and `--min-ms`: whether a handshake or a lookup went
//! badly is known only when it is over, or when it waits. `--dest`, `--port`, `-4` and `-6` of lookups and
//! neighbours: what they teach is needed to report connects that are wanted, they themselves may not be.

use serde::{Deserialize, Serialize};

use std::{fmt, net::IpAddr};

use crate::{
    event,
    fact::{Endpoint, NeighbourTransition, Outcome, What},
};

/// Slower than this is slow, milliseconds.
const SLOW_MS: f64 = 1000.0;

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
    /// Whether a fact is worth reporting.
    pub fn wants(&self, what: &What) -> bool {
        let (bad, ms) = judge(what);
        let long_enough = self.min_ms == 0 || ms.is_some_and(|ms| ms >= self.min_ms as f64);
        (!self.only_bad || bad) && long_enough && self.concerns(what)
    }

    /// Whether a fact is about a peer that is wanted. Connects and handshakes with others never left the kernel;
    /// the clock has no peer.
    fn concerns(&self, what: &What) -> bool {
        match what {
            What::DnsQuery { server, .. }
            | What::DnsAnswer { server, .. }
            | What::DnsPending { server, .. }
            | What::DnsFailed { server, .. } => self.peer(server),
            What::NeighbourPacketQueued(waited) => self.peer(&waited.destination),
            What::NeighbourRetransmit(unheard) => self.network(unheard.destination.ip),
            What::NeighbourRecovered(heard) => self.network(heard.destination.ip),
            // A neighbour has no port: who asks for one wants what goes there.
            What::NeighbourChanged(change) => self.ports.is_empty() && self.network(change.address),
            What::NeighbourMacMismatch(mismatch) => self.network(mismatch.address),
            What::NeighbourClaimed(claimed) => self.ports.is_empty() && self.network(claimed.address),
            // Without room in the table every new address of the family is concerned.
            What::NeighbourTableFull(full) => self.family(full.address),
            _ => true,
        }
    }

    /// What alone was watched, where a process that passes may do things that do not: connects to other peers.
    /// Processes, by number or name, cgroups and containers are watched whole, with what they start.
    pub(super) fn narrowed(&self) -> Vec<Narrowed<'_>> {
        let ports = (!self.ports.is_empty()).then_some(Narrowed::Ports(&self.ports));
        let networks = (!self.destinations.is_empty()).then_some(Narrowed::Networks(&self.destinations));
        [ports, networks, self.only_v6.map(|v6| Narrowed::Family { v6 })].into_iter().flatten().collect()
    }

    fn peer(&self, peer: &Endpoint) -> bool {
        self.connection(peer.ip, peer.port)
    }

    /// Whether a connection with a peer is wanted, by the port that decides: the client's peer's, a server's own.
    pub fn connection(&self, peer: IpAddr, port: u16) -> bool {
        (self.ports.is_empty() || self.ports.contains(&port)) && self.network(peer)
    }

    /// Whether an address is in a network and of a family that is wanted.
    pub fn network(&self, address: IpAddr) -> bool {
        let bits = u128::from_be_bytes(event::address_bytes(address));
        let within = |(network, length): &([u8; 16], u32)| {
            let differs = bits ^ u128::from_be_bytes(*network);
            differs.checked_shr(128 - (*length).min(128)).unwrap_or(0) == 0
        };
        self.family(address) && (self.destinations.is_empty() || self.destinations.iter().any(within))
    }

    fn family(&self, address: IpAddr) -> bool {
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
                let network = |(address, length): &([u8; 16], u32)| match event::address(*address) {
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

/// Whether it is bad news, and how long it took or has taken.
fn judge(what: &What) -> (bool, Option<f64>) {
    match what {
        What::ConnectEnded { outcome, syn_retransmits, duration_ms, .. } => {
            (*outcome != Outcome::Established || *syn_retransmits > 0, Some(*duration_ms))
        }
        What::SynRetransmitted { elapsed_ms, .. }
        | What::ConnectDropped { elapsed_ms, .. }
        | What::ConnectPending { elapsed_ms, .. }
        | What::HandshakePending { elapsed_ms, .. }
        | What::DnsPending { elapsed_ms, .. }
        | What::DnsFailed { elapsed_ms, .. } => (true, Some(*elapsed_ms)),
        What::Alert { duration_ms, .. }
        | What::HandshakeClosed { duration_ms, .. }
        | What::NotTls { duration_ms, .. } => (true, Some(*duration_ms)),
        What::HandshakeDone { duration_ms, .. } => (*duration_ms >= SLOW_MS, Some(*duration_ms)),
        What::DnsAnswer { rcode, latency_ms, .. } => {
            (rcode != "NOERROR" || latency_ms.is_some_and(|ms| ms >= SLOW_MS), *latency_ms)
        }
        What::NeighbourChanged(change) => {
            let lost =
                matches!(change.transition, NeighbourTransition::Failed | NeighbourTransition::PacketDropped);
            let moved = change.new_mac.is_some() && change.old_mac.is_some();
            (lost || (moved && change.old_mac != change.new_mac), None)
        }
        What::NeighbourTableFull(_)
        | What::NeighbourMacMismatch(_)
        | What::NeighbourClaimed(_)
        | What::NeighbourRetransmit(_)
        | What::NeighbourConnectionReset(_)
        | What::NeighbourPacketQueued(_)
        | What::ClockSet { .. }
        | What::ClockMoved { .. }
        | What::LeapSecond { .. }
        | What::Suspended { .. } => (true, None),
        What::ClockSlewed { refused, .. } => (*refused, None),
        // Thirty seconds is where it begins to matter.
        What::ClockCompared { ahead_ns, .. } => (ahead_ns.unsigned_abs() >= 30_000_000_000, None),
        What::ConnectStarted { .. }
        | What::ClientHello { .. }
        | What::ServerHello { .. }
        | What::ServerFlightRead { .. }
        | What::ClientFinished { .. }
        | What::NeighbourRecovered(_)
        | What::DnsQuery { .. } => (false, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rcode: &str, latency_ms: f64) -> What {
        What::DnsAnswer {
            protocol: crate::fact::Protocol::Udp,
            server: crate::fact::Endpoint { ip: [127, 0, 0, 1].into(), port: 53, name: None, wire: None },
            name: "a.example".into(),
            name_invalid: None,
            query_type: "A".into(),
            rcode: rcode.into(),
            answers: vec![],
            truncated: false,
            latency_ms: Some(latency_ms),
        }
    }

    #[test]
    fn failures_only_leaves_out_what_went_well_and_quickly() {
        let only_bad = Select { only_bad: true, ..Select::default() };
        assert!(!only_bad.wants(&answer("NOERROR", 1.0)));
        assert!(only_bad.wants(&answer("SERVFAIL", 1.0)));
        assert!(only_bad.wants(&answer("NOERROR", 2000.0)));
    }

    #[test]
    fn a_minimum_leaves_out_what_has_no_duration() {
        let slow = Select { min_ms: 5, ..Select::default() };
        assert!(!slow.wants(&What::Suspended { suspended_ms: 9.0 }));
        assert!(slow.wants(&answer("NOERROR", 5.0)) && !slow.wants(&answer("NOERROR", 4.9)));
    }

    fn asked(server: &str) -> What {
        let at: std::net::SocketAddr = server.parse().expect("an address");
        What::DnsQuery {
            protocol: crate::fact::Protocol::Udp,
            server: Endpoint { ip: at.ip(), port: at.port(), name: None, wire: None },
            name_invalid: None,
            name: "a.example".into(),
            query_type: "A".into(),
        }
    }

    #[test]
    fn lookups_are_chosen_by_their_server_s_network_port_and_family() {
        let within = |address: &str, length| {
            let address = event::address_bytes(address.parse().expect("an address"));
            Select { destinations: vec![(address, length)], ..Select::default() }
        };
        assert!(within("10.1.0.0", 96 + 16).wants(&asked("10.1.2.3:53")));
        assert!(!within("10.1.0.0", 96 + 16).wants(&asked("10.2.2.3:53")));
        assert!(!within("10.1.0.0", 96 + 16).wants(&asked("[fd00::1]:53")));
        assert!(within("::", 0).wants(&asked("[fd00::1]:53")));
        assert!(within("fd00::1", 128).wants(&asked("[fd00::1]:53")));
        let port = |port| Select { ports: vec![port], ..Select::default() };
        assert!(port(53).wants(&asked("10.1.2.3:53")) && !port(443).wants(&asked("10.1.2.3:53")));
        let only_v6 = Select { only_v6: Some(true), ..Select::default() };
        assert!(only_v6.wants(&asked("[fd00::1]:53")) && !only_v6.wants(&asked("10.1.2.3:53")));
        // What has no peer is reported whatever is asked for.
        assert!(port(443).wants(&What::Suspended { suspended_ms: 9.0 }));
    }

    #[test]
    fn what_hides_some_of_a_process_is_distinguished_from_what_hides_others() {
        let words = |select: &Select| {
            select.narrowed().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(words(&Select { by_owner: true, only_bad: true, ..Select::default() }), "");
        let select = Select {
            ports: vec![1, 2, 3, 4, 5, 6],
            destinations: vec![(event::address_bytes([10, 0, 0, 0].into()), 104)],
            only_v6: Some(false),
            ..Select::default()
        };
        assert_eq!(
            words(&select),
            "connects to port 1, 2, 3, 4 and 2 more; connects to 10.0.0.0/8; connects over IPv4"
        );
    }

    #[test]
    fn without_a_filter_everything_is_reported() {
        assert!(Select::default().wants(&What::Suspended { suspended_ms: 9.0 }));
    }
}
