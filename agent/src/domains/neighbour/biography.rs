//! What became of a neighbour's entry lately: from which MAC to which it moved, when, and by whom; and whether the neighbour
//! answers what is sent to everybody and never what is sent to it alone.

use ebpf_probes::{
    abi::{Netns, Owner},
    probes::neigh::{NeighRecord, cause, flag, state},
};

use super::{Hop, Memory, mac};

/// Questions to the cached MAC that are unanswered further apart than this have nothing to do with each other.
const AGAIN_NS: u64 = 300_000_000_000;
/// One that answers this long after it failed had been gone: nothing is said of the way to it.
const AT_ONCE_NS: u64 = 60_000_000_000;

/// What is remembered of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Biography {
    /// The device.
    pub device: String,
    /// The last change that matters to who is sent to it.
    pub change: Option<Change>,
    /// What is sent to its MAC is lost.
    pub unicast: Option<UnicastLost>,
    /// It has not answered at this MAC, since then: whether it answers what is sent to everybody is not known yet.
    failed: Option<([u8; 8], u64)>,
}

/// A change of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
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

/// A neighbour that answered no question sent to its MAC, and then, at the same MAC, one sent to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnicastLost {
    /// The MAC.
    pub mac: String,
    /// How often, one time after the other.
    pub times: u32,
    /// When it first and last answered so, CLOCK_BOOTTIME in nanoseconds.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
}

impl Memory {
    /// Remembers a change.
    pub(super) fn remember(&mut self, record: &NeighRecord, device: &str, at_ns: u64) {
        if record.cause == cause::OVERFLOW {
            return;
        }
        let key = Hop { netns: record.netns(), ifindex: record.ifindex, address: record.address };
        let change = change(record, at_ns);
        let failed = is_unanswered_at_its_mac(record);
        if change.is_none() && !failed && self.biographies.get(&key).is_none() {
            return;
        }
        let mut known = self.biographies.get(&key).cloned().unwrap_or_default();
        known.device = device.to_owned();
        known.asked(record, failed, at_ns);
        if change.is_some() {
            known.change = change;
        } else if known.is_as_before(record) {
            known.change = None;
        }
        self.biographies.insert(key, known);
    }

    /// What became of a neighbour's entry; index 0 for any device: the one of which there is the latest news.
    pub fn biography(&self, netns: Netns, ifindex: u32, address: [u8; 16]) -> Option<&Biography> {
        if ifindex != 0 {
            return self.biographies.get(&Hop { netns, ifindex, address });
        }
        let all = self.biographies.iter().filter(|(key, _)| (key.netns, key.address) == (netns, address));
        all.max_by_key(|(key, known)| (known.latest_ns(), key.ifindex)).map(|(_, known)| known)
    }
}

impl Biography {
    /// When something was last heard that is reported here.
    fn latest_ns(&self) -> u64 {
        let changed = self.change.as_ref().map_or(0, |change| change.at_ns);
        changed.max(self.unicast.as_ref().map_or(0, |lost| lost.last_ns))
    }

    /// Questions sent to its MAC, and what answers those sent to everybody.
    fn asked(&mut self, record: &NeighRecord, failed: bool, at_ns: u64) {
        let by_hand = record.flags & flag::BY_HAND != 0;
        let has_answered = record.new_state & (state::REACHABLE | state::STALE | state::DELAY) != 0;
        if failed {
            let known = if record.old_mac == [0; 8] { record.new_mac } else { record.old_mac };
            self.failed = (known != [0; 8]).then_some((known, at_ns));
        } else if by_hand || record.cause == cause::REMOVED {
            (self.failed, self.unicast) = (None, None);
        } else if has_answered && record.old_state == state::PROBE {
            // What was sent to it alone has come.
            (self.failed, self.unicast) = (None, None);
        } else if has_answered && let Some((known, since_ns)) = self.failed.take() {
            let same = record.new_mac == known && at_ns.saturating_sub(since_ns) <= AT_ONCE_NS;
            let Some(mac) = mac(&known, record.mac_len).filter(|_| same) else {
                self.unicast = None;
                return;
            };
            let before = self
                .unicast
                .take()
                .filter(|lost| lost.mac == mac && at_ns.saturating_sub(lost.last_ns) <= AGAIN_NS);
            self.unicast = Some(UnicastLost {
                mac,
                times: before.as_ref().map_or(0, |lost| lost.times).saturating_add(1),
                first_ns: before.map_or(at_ns, |lost| lost.first_ns),
                last_ns: at_ns,
            });
        }
    }

    /// An entry that was removed is there again, at the same MAC: nothing has come of that.
    fn is_as_before(&self, record: &NeighRecord) -> bool {
        let Some(Change { what: Turn::Removed { from }, .. }) = &self.change else { return false };
        record.new_state & (state::REACHABLE | state::STALE | state::PERMANENT) != 0
            && mac(&record.new_mac, record.mac_len).as_ref() == Some(from)
    }
}

/// The last question of those sent to the cached MAC alone has gone unanswered.
fn is_unanswered_at_its_mac(record: &NeighRecord) -> bool {
    let by_hand = record.flags & flag::BY_HAND != 0;
    let failed = record.flags & flag::FAILED_BETWEEN != 0 || record.new_state == state::FAILED;
    failed && !by_hand && record.old_state == state::PROBE
}

fn change(record: &NeighRecord, at_ns: u64) -> Option<Change> {
    let by_hand = record.flags & flag::BY_HAND != 0;
    let (from, to) = (mac(&record.old_mac, record.mac_len), mac(&record.new_mac, record.mac_len));
    let was_permanent = record.old_state & state::PERMANENT != 0;
    let what = match (from, to) {
        // Both are the neighbour's.
        (Some(from), Some(to)) if from != to && record.flags & flag::TOGETHER != 0 => return None,
        (Some(from), Some(to)) if from != to => Turn::Moved { from, to },
        (_, Some(to)) if by_hand && !was_permanent && record.new_state & state::PERMANENT != 0 => {
            Turn::SetPermanent { to }
        }
        (Some(from), _) if by_hand && record.new_state == state::FAILED => Turn::Removed { from },
        _ => return None,
    };
    Some(Change { at_ns, what, owner: record.owner })
}
