//! What incidents about neighbours (ARP, NDP) have of their own.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    domains::connect::Outcome,
    fact::{Endpoint, Process},
};

/// Which neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NeighbourPlace {
    /// Its address.
    pub address: IpAddr,
    /// The device it should be behind.
    pub device: String,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// How it is asked for: `arp` or `ndp`.
    pub resolution: String,
    /// It is the next hop of a default route.
    pub is_gateway: bool,
}

/// Of `neighbour_unresolved`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourUnresolvedDetails {
    /// Which neighbour.
    #[serde(flatten)]
    pub neighbour: NeighbourPlace,
    /// How long it has been unresolved.
    pub unresolved_ms: u64,
    /// Questions sent without an answer, as far as they were counted.
    pub unanswered_probes: u32,
    /// The MAC it had before, if it ever answered.
    pub last_mac: Option<String>,
    /// Who waited for it, those that waited first.
    pub waiters: Vec<NeighbourWaiter>,
    /// Waiters left out of `waiters`.
    pub waiters_left_out: u32,
    /// Other neighbours behind the same device that did not answer either and have no incident of their own.
    pub other_neighbours: u64,
    /// The process that removed the entry shortly before, where one did.
    pub removed_by: Option<Process>,
}

/// A process whose packet waited for a neighbour.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourWaiter {
    /// Whose packet; absent when that is not known.
    pub process: Option<Process>,
    /// `tcp`, `udp`, or the IP protocol's number.
    pub protocol: String,
    /// Where the packet is from.
    pub source: Endpoint,
    /// Where it was to go.
    pub destination: Endpoint,
    /// This host forwards it for another one, or for a container.
    pub forwarded: bool,
    /// What became of the connect; absent while it is pending, and for what is no connect.
    pub outcome: Option<Outcome>,
}

/// Of `neighbour_stale`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourStaleDetails {
    /// Which neighbour.
    #[serde(flatten)]
    pub neighbour: NeighbourPlace,
    /// The cached MAC: where replies go.
    pub cached_mac: String,
    /// The MAC the neighbour's packets come from.
    pub seen_mac: String,
    /// State of the entry, as `ip neigh` writes it.
    pub nud_state: String,
    /// How long it has been in that state.
    pub state_ms: Option<u64>,
    /// How long the MAC has been cached.
    pub cached_for_ms: Option<u64>,
    /// How long packets have come from the other MAC: since the address changed hands, or was first seen to have.
    pub seen_for_ms: u64,
    /// Packets sent again without an answer.
    pub unanswered: u32,
    /// Connections they belong to.
    pub connections: u32,
    /// Ports of this host they are about (remote ports, where this host is the client), in order.
    pub ports: Vec<u16>,
    /// How it ended: `corrected`, `removed`, `healed` (by the kernel itself), `answered`, `same_neighbour` (both MACs are the neighbour's), `conflict` (two machines have the address) or `idle` (no traffic any more); absent while it goes on.
    pub ended_by: Option<String>,
}

/// Of `neighbour_conflict`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourConflictDetails {
    /// Which neighbour.
    #[serde(flatten)]
    pub neighbour: NeighbourPlace,
    /// The MACs that claim the address, the one seen last first.
    pub macs: Vec<ClaimedMac>,
    /// Changes within the last minute; of an address that flaps more slowly, all that are remembered, for 6 hours at most.
    pub changes: u32,
    /// What kind of conflict it is.
    pub pattern: ConflictPattern,
    /// Times that one MAC reset a connection which the other one went on asking for.
    pub resets: u32,
}

/// What more than one MAC for an address means, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConflictPattern {
    /// They claim it alternately, seconds or more apart: it flaps. One machine, or two that both believe they own it.
    Alternating,
    /// Both claim it within a second, again and again: two machines, or two devices of one.
    Simultaneous,
    /// One resets what the other one asks for: two machines.
    TwoMachines,
}

/// A MAC that claims an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ClaimedMac {
    /// The MAC.
    pub mac: String,
    /// How often it claimed the address within the last minute.
    pub claims: u32,
    /// How long ago it claimed it last.
    pub last_claim_ms: u64,
    /// The device of this machine that has it, if one has.
    pub device: Option<String>,
    /// That device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Other addresses of the same network that this host has at this MAC.
    pub other_addresses: Vec<IpAddr>,
}

/// Of `address_conflict`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AddressConflictDetails {
    /// The address of this host.
    pub address: IpAddr,
    /// The device that has it.
    pub device: String,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// The device's MAC.
    pub own_mac: String,
    /// Duplicate address detection failed: the address cannot be used.
    pub dad_failed: bool,
    /// How long it has gone on.
    pub conflict_ms: u64,
    /// The other MACs, the one seen last first; none where duplicate address detection failed without one being heard.
    pub claimed_by: Vec<AddressClaimant>,
    /// Processes of this host that listen at the address, those at this very address first.
    pub listeners: Vec<AddressListener>,
}

/// Another MAC that claims an address of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AddressClaimant {
    /// The MAC.
    pub mac: String,
    /// How often it was heard to claim the address, once a second at most.
    pub claims: u64,
    /// How long ago it claimed it last.
    pub last_claim_ms: u64,
    /// The device of this machine that has the MAC, if one has: in another network namespace.
    pub claimed_from: Option<String>,
    /// That namespace; absent for the host's own.
    pub claimed_from_netns: Option<String>,
    /// Other addresses that this host has for the same MAC.
    pub other_addresses: Vec<IpAddr>,
}

/// A process that listens at an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AddressListener {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The TCP port.
    pub port: u16,
    /// It listens at this very address; else at every one.
    pub bound: bool,
}

/// Of `neighbour_table_full`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourTableFullDetails {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The device of the last neighbour there was no room for.
    pub device: String,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Entries in the table, all network namespaces together.
    pub entries: u32,
    /// Those of them that count against the bounds.
    pub gc_entries: u32,
    /// Below this the garbage collector leaves the table alone.
    pub gc_thresh1: Option<u32>,
    /// Above this it collects what is older than five seconds.
    pub gc_thresh2: Option<u32>,
    /// The bound.
    pub gc_thresh3: u32,
    /// Neighbours there was no room for.
    pub refused: u64,
    /// Who has the most entries.
    pub users: Vec<NeighbourUser>,
}

/// A device's share of a neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NeighbourUser {
    /// The device.
    pub device: String,
    /// Its network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Its entries.
    pub entries: u32,
}
