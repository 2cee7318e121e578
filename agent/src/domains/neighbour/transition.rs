//! Which changes of a neighbour mean something, and what. A pure function of the kernel's record: it holds
//! the state before and the state after.

use ebpf_probes::probes::neigh::{NeighRecord, cause, flag, state};

use super::NeighbourTransition;

/// Its MAC is known: right now, a while ago, or being confirmed by the way.
const KNOWN: u32 = state::REACHABLE | state::STALE | state::DELAY | state::PROBE;
const NO_MAC: [u8; 8] = [0; 8];

/// What the record means; `None` for a step of the entry's own clockwork that changes nothing for its users.
pub(super) fn of(record: &NeighRecord) -> Option<NeighbourTransition> {
    use NeighbourTransition as M;
    let (old, new) = (record.old_state, record.new_state);
    let had = |states: u32| old & states != 0;
    match record.cause {
        cause::DEAD => Some(M::PacketDropped),
        // An entry that was made and never used is no news.
        cause::REMOVED => (old != state::NONE || record.old_mac != NO_MAC).then_some(M::Removed),
        _ if record.flags & flag::BY_HAND != 0 => Some(M::Set),
        _ if record.flags & flag::FAILED_BETWEEN != 0 => Some(M::Failed),
        _ if new == state::FAILED => (!had(state::FAILED)).then_some(M::Failed),
        _ if new == state::INCOMPLETE => (!had(state::INCOMPLETE)).then_some(M::Resolving),
        _ if is_moved(record) => Some(M::MacChanged),
        // Only a hand does that; who it was is not known where `neigh_update` cannot be attached to.
        _ if new & state::PERMANENT != 0 => (!had(state::PERMANENT)).then_some(M::Set),
        _ if new & state::NOARP != 0 => (!had(state::NOARP)).then_some(M::Noarp),
        _ if new & KNOWN != 0 && had(state::INCOMPLETE | state::FAILED) => Some(M::Resolved),
        // By its timer or by use, an entry that was there before culprit is seen first, not made.
        cause::UPDATED if new & KNOWN != 0 && old == state::NONE => Some(M::Learned),
        _ => None,
    }
}

fn is_moved(record: &NeighRecord) -> bool {
    record.old_mac != NO_MAC && record.new_mac != NO_MAC && record.old_mac != record.new_mac
}
