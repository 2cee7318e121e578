//! What happens to neighbours: entries of the ARP and NDP tables. MACs are written `02:00:00:00:00:01`,
//! states as `ip neigh` writes them.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fact::Endpoint;

/// What is known of a neighbour changed. Not emitted: an entry that is only being confirmed (REACHABLE, STALE,
/// DELAY and PROBE with the same MAC all mean the same), and each further probe of a resolution.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourChanged {
    /// What kind of change.
    pub transition: NeighbourTransition,
    /// Its address.
    pub address: IpAddr,
    /// The device it is behind.
    pub device: String,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// What made it change; `process` says who, when a process did.
    pub cause: NeighbourCause,
    /// State before, as `ip neigh` writes it; absent when it was not known.
    pub old_state: Option<String>,
    /// State now. NONE: removed.
    pub new_state: String,
    /// Cached MAC before.
    pub old_mac: Option<String>,
    /// Cached MAC now.
    pub new_mac: Option<String>,
    /// There was no answer: what waited for it got EHOSTUNREACH.
    pub failed: bool,
    /// Probes sent in this state.
    pub probes: u32,
    /// Probes (ARP requests, neighbour solicitations) without an answer; with `failed`, when all of them
    /// were seen.
    pub unanswered: Option<u32>,
    /// How long it was in the old state.
    pub old_state_ms: Option<f64>,
}

/// Kinds of changes of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourTransition {
    /// Resolution began: its MAC is not known.
    Resolving,
    /// It answered: its MAC is known.
    Resolved,
    /// Its MAC is known from a packet of its own, without a resolution.
    Learned,
    /// It has another MAC than before.
    MacChanged,
    /// It was set by hand: through netlink (`ip neigh`, a control plane) or an ioctl.
    Set,
    /// It needs no resolution any more.
    Noarp,
    /// There was no answer: the kernel gave up.
    Failed,
    /// The entry is gone: by hand when there is a process, else by the garbage collector or with its device.
    Removed,
    /// A packet to an entry that had just been removed was dropped.
    PacketDropped,
}

/// What made a neighbour change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourCause {
    /// An ARP or NDP packet arrived.
    Packet,
    /// A process asked for it through netlink, e.g. `ip neigh`.
    Netlink,
    /// The entry's timer ran out.
    Timer,
    /// Something was sent to it.
    Sent,
    /// Something was sent to an entry already removed.
    SentToRemoved,
    /// It was removed.
    Removed,
}

/// The neighbour table was full and an entry was not made.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourTableFull {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The address there was no room for.
    pub address: IpAddr,
    /// The device.
    pub device: String,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Entries in the table, all namespaces together.
    pub entries: u32,
    /// Those of them that count against the bound.
    pub gc_entries: u32,
    /// The bound: `net.ipv4.neigh.default.gc_thresh3`, or ipv6.
    pub gc_thresh3: u32,
    /// How often since the last such event.
    pub count: u32,
}

/// A SYN came from another MAC than the one cached for its source: replies go elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourMacMismatch {
    /// The peer.
    pub address: IpAddr,
    /// The device, when its name is known.
    pub device: Option<String>,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Where replies go.
    pub cached_mac: String,
    /// Where the SYN came from.
    pub seen_mac: String,
    /// State of the entry.
    pub state: String,
    /// How long the MAC has been cached.
    pub cached_for_ms: Option<f64>,
    /// The port the SYN was for.
    pub local_port: u16,
    /// SYNs from another MAC since the last such event.
    pub syns: u32,
}

/// An ARP or NDP packet from another MAC than the cached one, which the kernel did not believe. Emitted at most
/// once a second and neighbour.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourClaimed {
    /// The address that is claimed.
    pub address: IpAddr,
    /// The device, when its name is known.
    pub device: Option<String>,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Where packets go.
    pub cached_mac: String,
    /// The MAC that claims the address too.
    pub claimed_mac: String,
    /// State of the entry.
    pub state: String,
    /// How long the cached MAC has been cached.
    pub cached_for_ms: Option<f64>,
    /// How long ago a packet from the cached MAC confirmed it; absent when none was seen.
    pub confirmed_ms: Option<f64>,
}

/// A packet was retransmitted to a neighbour whose packets come from another MAC than the cached one: it does
/// not receive what this host sends. The first at once, then at most five a second and neighbour.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourRetransmit {
    /// The neighbour.
    pub address: IpAddr,
    /// The device, when its name is known.
    pub device: Option<String>,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Where packets to it go.
    pub cached_mac: String,
    /// Where its packets come from.
    pub seen_mac: String,
    /// State of the entry.
    pub state: String,
    /// How long its packets have come from there.
    pub seen_for_ms: Option<f64>,
    /// How long the cached MAC has been cached.
    pub cached_for_ms: Option<f64>,
    /// What was retransmitted.
    pub packet: Retransmitted,
    /// The neighbour's end of the connection.
    pub destination: Endpoint,
    /// This host's port.
    pub local_port: u16,
    /// Packets retransmitted since its packets come from another MAC.
    pub unanswered: u32,
}

/// What was retransmitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retransmitted {
    /// The answer to a SYN: this host is the server.
    SynAck,
    /// A SYN: this host is the client.
    Syn,
    /// Data.
    Data,
    /// Not by this host: a datagram of the neighbour's came again, the same, though it was answered.
    Datagram,
}

/// A neighbour whose packets come from another MAC than the cached one answered after retransmissions, and the
/// connection was established: it receives what this host sends, whatever the MACs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourRecovered {
    /// The neighbour.
    pub address: IpAddr,
    /// The device, when its name is known.
    pub device: Option<String>,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Where packets to it go.
    pub cached_mac: String,
    /// Where its packets come from.
    pub seen_mac: String,
    /// State of the entry.
    pub state: String,
    /// The neighbour's end of the connection that was established.
    pub destination: Endpoint,
    /// This host's port.
    pub local_port: u16,
    /// Packets that had been retransmitted before.
    pub unanswered: u32,
}

/// The cached MAC reset a connection that another MAC goes on opening: two machines have the address.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourConnectionReset {
    /// The address both have.
    pub address: IpAddr,
    /// The device, when its name is known.
    pub device: Option<String>,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// Where packets to it go, and where the resets come from.
    pub cached_mac: String,
    /// Where the SYNs come from.
    pub seen_mac: String,
    /// State of the entry.
    pub state: String,
    /// The other end of the connection that is opened.
    pub destination: Endpoint,
    /// This host's port.
    pub local_port: u16,
    /// How often so far.
    pub resets: u32,
}

/// A packet is queued for a neighbour that does not answer. Emitted once while it is, for each socket, or for
/// each two ends when there is no socket.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NeighbourPacketQueued {
    /// The neighbour: the destination, or the next hop towards it.
    pub address: IpAddr,
    /// The device, when its name is known.
    pub device: Option<String>,
    /// The device's network namespace; absent for the host's own.
    pub netns: Option<String>,
    /// The packet's protocol: `tcp`, `udp`, `icmp`, `icmpv6`, or its number.
    pub protocol: String,
    /// Where the packet is from; port 0 unless it is TCP or UDP.
    pub source: Endpoint,
    /// Where it is to; port 0 unless it is TCP or UDP.
    pub destination: Endpoint,
    /// Packets queued for this neighbour.
    pub queued: u32,
}

/// What happened; `kind` names it. Durations are in milliseconds; what is absent is not known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "NeighbourFact")]
pub enum What {
    /// What is known of a neighbour (ARP or NDP entry) changed.
    NeighbourChanged(NeighbourChanged),
    /// The neighbour table was full and an entry was not made.
    NeighbourTableFull(NeighbourTableFull),
    /// A SYN came from another MAC than the one cached for its source: replies go elsewhere.
    NeighbourMacMismatch(NeighbourMacMismatch),
    /// An ARP or NDP packet from another MAC than the cached one, which the kernel did not believe.
    NeighbourClaimed(NeighbourClaimed),
    /// A packet was retransmitted to a neighbour whose packets come from another MAC than the cached one.
    NeighbourRetransmit(NeighbourRetransmit),
    /// A neighbour whose packets come from another MAC than the cached one answered after retransmissions.
    NeighbourRecovered(NeighbourRecovered),
    /// The cached MAC reset a connection that another MAC goes on opening: two machines have the address.
    NeighbourConnectionReset(NeighbourConnectionReset),
    /// A packet is queued for a neighbour that does not answer: emitted once while it is.
    NeighbourPacketQueued(NeighbourPacketQueued),
}
