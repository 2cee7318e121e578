//! By which neighbour packets to an address go, as records about it have shown: the next hop of a remote end, and whose entry
//! is wrong where what a peer sends again goes unanswered. What was not seen is not guessed from routes.

use ebpf_probes::{
    abi::{Netns, Tuple},
    probes::neigh::{UnheardRecord, WaiterRecord, unheard},
};

use super::Memory;

/// A neighbour as the kernel distinguishes them: an address may be had behind several devices, and in many namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// The network namespace it is a neighbour in.
    pub netns: Netns,
    /// The index of the device it is behind; 0 when that is not known.
    pub ifindex: u32,
    /// Its address.
    pub address: [u8; 16],
}

/// Routes are believed to be the same for so long.
const LATELY_NS: u64 = 120_000_000_000;

/// The ends of a connection: the remote address and port, then the local ones.
pub(super) type Ends = ([u8; 16], u16, [u8; 16], u16);

impl From<&UnheardRecord> for Hop {
    fn from(record: &UnheardRecord) -> Self {
        Self { netns: record.netns(), ifindex: record.ifindex, address: record.neighbour() }
    }
}

impl From<&WaiterRecord> for Hop {
    fn from(record: &WaiterRecord) -> Self {
        Self { netns: record.netns(), ifindex: record.ifindex, address: record.address }
    }
}

fn ends(tuple: &Tuple) -> Ends {
    (tuple.remote, tuple.remote_port, tuple.local, tuple.local_port)
}

impl Memory {
    /// What was sent goes unanswered: by which neighbour it goes.
    pub(super) fn goes_unheard(&mut self, record: &UnheardRecord) {
        let (hop, at_ns) = (Hop::from(record), record.header.boot_ns);
        self.hops.insert((hop.netns, record.tuple.remote), (hop, at_ns));
        if record.what == unheard::ANSWERED {
            self.unheard_ends.remove(&ends(&record.tuple));
        } else {
            self.unheard_ends.insert(ends(&record.tuple), hop);
        }
    }

    /// A packet of this namespace's own waits: by which neighbour it goes.
    pub(super) fn goes_by(&mut self, record: &WaiterRecord) {
        let hop = Hop::from(record);
        self.hops.insert((hop.netns, record.tuple.remote), (hop, record.header.boot_ns));
    }

    /// The neighbour by which packets of a namespace to an address were seen to go, lately: routes change.
    pub fn hop(&self, netns: Netns, remote: [u8; 16], now_ns: u64) -> Option<Hop> {
        let (hop, at_ns) = self.hops.get(&(netns, remote))?;
        (now_ns.saturating_sub(*at_ns) <= LATELY_NS).then_some(*hop)
    }

    /// The neighbour by which the other end of a connection answers, where that is a namespace of this machine and its
    /// answers go unheard.
    pub fn hop_back(&self, tuple: &Tuple) -> Option<Hop> {
        self.unheard_ends.get(&(tuple.local, tuple.local_port, tuple.remote, tuple.remote_port)).copied()
    }
}
