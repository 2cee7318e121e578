//! Who answers for a neighbour when everybody on its link is asked.

use ebpf_probes::abi::Netns;
use serde::{Deserialize, Serialize};

/// The answers to one question (ARP request, neighbour solicitation) that culprit itself sent to everybody on a link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// When it was sent, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// The network namespace it was sent in.
    #[serde(with = "crate::known::netns")]
    pub netns: Netns,
    /// The index of the device it was sent on.
    pub ifindex: u32,
    /// The address that was asked for; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The MACs that answered within a second.
    pub macs: Vec<[u8; 8]>,
}
