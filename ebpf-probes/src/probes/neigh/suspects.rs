//! Peers whose packets come from another MAC than the cached one, or that do not answer: until when what they send is
//! looked at, and what goes to them.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};

use super::{NeighKey, Neighbour, PINNED_SLOT, PeerKey, ROUTING_NS, ROUTING_SLOT, hops, table::NEIGHBOURS};
use crate::bpf::{time::SECOND, verifier::call};

/// Peers whose packets come from another MAC than the cached one, or that are watched: their device's index.
#[map]
pub(super) static SUSPECTS: LruHashMap<PeerKey, u32> = LruHashMap::with_max_entries(1 << 10, 0);

/// Moments, CLOCK_BOOTTIME in nanoseconds, 0 once they are past: until when [`SUSPECTS`] holds any, until when segments
/// of connections that exist are compared, and until when the next hops of those behind routers are noted. The agent
/// sets the last one when it starts.
#[map]
static UNTIL: Array<u64> = Array::with_max_entries(4, 0);
pub(super) const SUSPICIOUS: u32 = 0;
pub(super) const WATCHING: u32 = 1;
pub(super) const ROUTING: u32 = ROUTING_SLOT;
/// For ever, once an entry is known that was set for good.
pub(super) const PINNED: u32 = PINNED_SLOT;

/// How long a packet from another MAC explains what goes unanswered.
pub(super) const SUSPICION_NS: u64 = 120 * SECOND;
/// How long segments are compared after something went unanswered.
pub(super) const WATCH_NS: u64 = 10 * SECOND;

/// Whether some moment of [`UNTIL`] is not past, as far as was noticed.
#[inline(always)]
pub(super) fn pending(which: u32) -> bool {
    // SAFETY: a load from a live array slot.
    UNTIL.get_ptr(which).is_some_and(|until| unsafe { *until } != 0)
}

#[inline(always)]
pub(super) fn until(which: u32, at: u64) {
    if let Some(until) = UNTIL.get_ptr_mut(which) {
        // SAFETY: a live array slot; every writer writes about the same.
        unsafe { *until = at }
    }
}

/// Clears a moment that is past.
#[inline(always)]
pub(super) fn expire(which: u32, at: u64) -> bool {
    let Some(until) = UNTIL.get_ptr_mut(which) else { return true };
    // SAFETY: a live array slot.
    unsafe {
        if at > *until {
            *until = 0;
            return true;
        }
    }
    false
}

/// Whether segments of connections that exist are to be compared too.
#[inline(always)]
pub(crate) fn watching() -> bool {
    pending(WATCHING)
}

/// Whether SYNs are to be compared with next hops too.
#[inline(always)]
pub(crate) fn routing() -> bool {
    pending(ROUTING)
}

/// Something went unanswered: next hops are noted for a while.
#[inline(always)]
pub(super) fn note_hops(at: u64) {
    until(ROUTING, at + ROUTING_NS);
}

/// Whether some entry is known that was set for good.
#[inline(always)]
pub(crate) fn pinned() -> bool {
    pending(PINNED)
}

/// Whether resets are to be compared too.
#[inline(always)]
pub(crate) fn suspicious() -> bool {
    pending(SUSPICIOUS)
}

/// What is known of a peer under suspicion whose packets came from another MAC lately. `peer` becomes the next hop by
/// which it is reached, if it is behind one.
#[inline(always)]
pub(super) fn suspect(peer: &mut PeerKey, at: u64) -> Option<(*mut Neighbour, u32)> {
    let known = match SUSPECTS.get_ptr(&*peer) {
        None if routing() && call!(hops::towards(peer)) != 0 => SUSPECTS.get_ptr(&*peer)?,
        known => known?,
    };
    // SAFETY: a live map value.
    let ifindex = unsafe { *known };
    let key = NeighKey { netns: peer.netns, ifindex, pad: 0, address: peer.address };
    let known = NEIGHBOURS.get_ptr_mut(&key)?;
    // SAFETY: a live map value.
    unsafe {
        let other = (*known).other_mac;
        if other == [0; 8] || other == (*known).mac || at.wrapping_sub((*known).other_last_ns) > SUSPICION_NS
        {
            return None;
        }
    }
    Some((known, ifindex))
}
