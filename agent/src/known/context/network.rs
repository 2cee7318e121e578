//! What is known of networks: routes and ports towards a destination, who has an address, gateways and neighbour
//! tables.

use ebpf_probes::abi::Netns;
use serde::{Deserialize, Serialize};

use crate::known::request::Target;

/// Whether a packet can leave for a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// What was asked.
    pub target: Target,
    /// The namespace could be entered and read.
    pub read: bool,
    /// The error (positive errno) the kernel's routes give for the address, 0 for none.
    pub route_errno: i32,
    /// The local ports, when they could be read.
    pub ports: Option<PortUse>,
}

/// Local ports in use towards a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// The first port of net.ipv4.ip_local_port_range.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Ports of the range in use towards the destination.
    pub used: u32,
    /// States of those connections as `ss` writes them, and how many are in each, the commonest first.
    pub states: Vec<(String, u32)>,
    /// The processes that hold most of them.
    pub holders: Vec<PortHolder>,
}

impl PortUse {
    /// How many ports the range has.
    pub fn all(&self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)) + 1
    }

    /// Most are in use: that is why none is free.
    pub fn is_used_up(&self) -> bool {
        self.used >= self.all() / 2
    }
}

/// A process that holds local ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// How many.
    pub ports: u32,
}

/// The answer: devices of this machine, in whatever namespace, and how questions for the neighbour are asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Holders {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// As it was asked.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// As it was asked.
    pub ifindex: u32,
    /// As it was asked.
    pub address: [u8; 16],
    /// Devices that have the address or one of the MACs.
    #[serde(default)]
    pub devices: Vec<Holder>,
    /// Other neighbours of the namespace at these MACs.
    #[serde(default)]
    pub others: Vec<SeenNeighbour>,
    /// Addresses of the device the neighbour should be behind, with the lengths of their prefixes.
    #[serde(default)]
    pub own: Vec<(std::net::IpAddr, u8)>,
    /// Which sender address its ARP questions carry: `arp_announce`, the greater of all devices' and its own.
    #[serde(default)]
    pub arp_announce: Option<u8>,
}

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its namespace.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// Its name.
    pub device: String,
    /// Its MAC.
    pub mac: [u8; 8],
    /// It has the address that is asked for.
    pub has_address: bool,
    /// How it sits on the same device as the one that asks.
    #[serde(default)]
    pub stacked: Option<Stacked>,
}

/// Two devices of one parent, or parent and child: macvlan and the like, which keep them apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stacked {
    /// How.
    pub kinship: Kinship,
    /// What kind of device the child is: `macvlan`, `macvtap`, `ipvlan` or `ipvtap`.
    pub kind: String,
    /// The child's mode: `bridge`, `private`, `vepa`, …; empty when it has none.
    pub mode: String,
}

/// How a device sits on the one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kinship {
    /// It is a child of the device that asks.
    Child,
    /// The device that asks is its child.
    Parent,
    /// Both are children of one device.
    Sibling,
}

/// The gateways of a network namespace; and, when asked for, the neighbour tables and who fills them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// The namespace.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// The next hops of its default routes.
    #[serde(default)]
    pub gateways: Vec<Gateway>,
    /// The machine's neighbour tables; empty unless asked for.
    #[serde(default)]
    pub tables: Vec<NeighbourTable>,
    /// The devices with the most neighbours, all namespaces together; empty unless asked for.
    #[serde(default)]
    pub users: Vec<NeighbourUse>,
    /// Its neighbours, when records about neighbours were lost and the tables were read again.
    #[serde(default)]
    pub neighbours: Option<Vec<SeenNeighbour>>,
}

impl Network {
    /// Whether it says what there is in the namespace: an answer about tables may not have been able to read it.
    pub fn has_read_namespace(&self) -> bool {
        self.tables.is_empty() || !self.gateways.is_empty()
    }
}

/// A neighbour that has a MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenNeighbour {
    /// The index of its device.
    pub ifindex: u32,
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// Its MAC.
    pub mac: [u8; 8],
}

/// The next hop of a default route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its address.
    pub address: std::net::IpAddr,
    /// The device it is behind.
    pub device: String,
}

/// A neighbour table, which all network namespaces share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourTable {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Entries.
    pub entries: u32,
    /// Below this the garbage collector leaves the table alone.
    pub gc_thresh1: u32,
    /// Above this it collects what is older than five seconds.
    pub gc_thresh2: u32,
    /// The bound.
    pub gc_thresh3: u32,
}

/// A device's share of a neighbour table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourUse {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The device's network namespace.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// The device.
    pub device: String,
    /// Its entries.
    pub entries: u32,
}
