//! What becomes of this host's own addresses: who else claims one, which of them duplicate address detection refused, and
//! who would suffer.

use std::net::IpAddr;

use ebpf_probes::abi::Netns;
use serde::{Deserialize, Serialize};

/// Something about an address of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddress {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// The network namespace that has it.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// The index of its device.
    pub ifindex: u32,
    /// The device.
    pub device: String,
    /// The device's MAC.
    pub mac: [u8; 8],
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix: u8,
    /// What.
    pub news: AddressNews,
}

/// What became of an address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressNews {
    /// A packet of another MAC says that the address is its own; the same one is reported once a second at most.
    Claimed {
        /// The other MAC.
        by: [u8; 8],
        /// In which way.
        how: Claim,
    },
    /// Duplicate address detection found another host that has it: it cannot be used.
    DadFailed {
        /// Since when, CLOCK_BOOTTIME in nanoseconds.
        since_ns: u64,
    },
    /// It can be used.
    Usable,
    /// This host has it no more.
    Gone,
}

/// How a host says that an address is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// A gratuitous ARP: a request or reply about itself.
    Announcement,
    /// It asks for a neighbour, as the sender.
    Question,
    /// It answers another one.
    Answer,
    /// An unsolicited neighbour advertisement that overrides.
    Advertisement,
    /// A neighbour advertisement while this host's own detection of duplicates goes on.
    Defence,
}

/// Who listens at an address: when asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// The network namespace.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// The address.
    pub address: IpAddr,
    /// Those who listen for TCP connections at it, or at every address.
    pub listeners: Vec<ListensAt>,
}

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListensAt {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The port.
    pub port: u16,
    /// At this very address; else at every one.
    pub bound: bool,
}
