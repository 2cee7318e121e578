//! What became of a neighbour's entry lately: from which MAC to which it moved, when, and by whom.

use ebpf_probes::{
    abi::{Netns, Owner},
    probes::neigh::{NeighRecord, cause, flag, state},
};

use super::{Memory, mac};

/// The last change of an entry that matters to who is sent to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Biography {
    /// The device.
    pub device: String,
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub at_ns: u64,
    /// What happened.
    pub what: Turn,
    /// Who did it, all zero when a packet or the kernel did.
    pub owner: Owner,
}

/// What happened to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It got another MAC.
    Moved {
        /// The one before.
        from: String,
        /// The one since.
        to: String,
    },
    /// It was set for good.
    SetPermanent {
        /// To this MAC.
        to: String,
    },
    /// It was removed by hand.
    Removed {
        /// The MAC it had.
        from: String,
    },
}

impl Memory {
    /// Remembers a change.
    pub(super) fn remember(&mut self, record: &NeighRecord, device: &str, at_ns: u64) {
        let by_hand = record.flags & flag::BY_HAND != 0;
        let (from, to) = (mac(&record.old_mac, record.mac_len), mac(&record.new_mac, record.mac_len));
        let was_permanent = record.old_state & state::PERMANENT != 0;
        let what = match (from, to) {
            (Some(from), Some(to)) if from != to => Turn::Moved { from, to },
            (_, Some(to)) if by_hand && !was_permanent && record.new_state & state::PERMANENT != 0 => {
                Turn::SetPermanent { to }
            }
            (Some(from), _) if by_hand && record.new_state == state::FAILED => Turn::Removed { from },
            _ => return,
        };
        if record.cause == cause::OVERFLOW {
            return;
        }
        let turn = Biography { device: device.to_owned(), at_ns, what, owner: record.owner };
        self.biographies.insert((record.netns(), record.address), turn);
    }

    /// The last change of a neighbour's entry.
    pub fn biography(&self, netns: Netns, address: [u8; 16]) -> Option<&Biography> {
        self.biographies.get(&(netns, address))
    }
}
