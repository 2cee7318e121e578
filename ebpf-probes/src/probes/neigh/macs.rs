//! Which MACs belong together? A machine may speak from another MAC than the one it is reached at (bonding,
//! VRRP and HSRP routers, load balancers, two devices on one link), and that is healthy. What proves it: a
//! connection that was established while the neighbour was cached at one and spoke from the other. What proves
//! the contrary, two machines with one address: the cached MAC resets a connection which the other one goes on
//! asking for.

use aya_ebpf::{
    macros::map,
    maps::{Array, LruHashMap},
};

use super::{NeighKey, PeerKey, table::NEIGHBOURS};
use crate::bpf::{
    time::SECOND,
    verifier::{not, opaque, same},
};

/// The loopback device's index in every namespace: `LOOPBACK_IFINDEX` of include/net/flow.h.
pub(super) const LOOPBACK: u32 = 1;

/// A segment of a neighbour, for the functions that judge it one after the other: the stack is short.
pub(super) struct Met {
    pub(super) key: NeighKey,
    pub(super) peer: PeerKey,
    pub(super) macs: Seen,
}

/// What is known of peers that spoke from another MAC than the cached one. One that gives way starts again.
#[map]
static PAIRED_MACS: LruHashMap<PeerKey, PairedMacs> = LruHashMap::with_max_entries(1 << 10, 0);

/// An empty one, to begin from: the stack is short. Never written.
#[map]
static NO_PAIR: Array<PairedMacs> = Array::with_max_entries(1, 0);

/// MACs remembered of each, the oldest gives way.
const MACS: usize = 4;
/// A SYN is sent again and again for this long at most.
const SYN_NS: u64 = 130 * SECOND;

#[repr(C)]
#[derive(Clone, Copy)]
struct PairedMacs {
    /// The cached MAC the others belong with.
    cached: u64,
    /// MACs from which connections came that were established while `cached` was the cached one.
    macs: [u64; MACS],
    /// Where the last SYN from another MAC came from, and when.
    syn_mac: u64,
    syn_ns: u64,
    /// When it was reported last that the other MAC speaks although nothing is answered.
    speaks_reported_ns: u64,
    /// That SYN's local port and, above it, its remote port.
    syn_ports: u32,
    /// 1: the cached MAC has reset that connection.
    reset: u32,
    /// The device's index.
    ifindex: u32,
    /// Times that a connection the cached MAC had reset was asked for again from the other one.
    resets: u32,
    /// Which of `macs` gives way next.
    next: u32,
    pad: u32,
}

/// A packet of a peer, for the functions here.
pub(super) struct Seen {
    /// Both MACs.
    pub(super) cached: u64,
    pub(super) seen: u64,
    /// Local port and, above it, remote port.
    pub(super) ports: u32,
    pub(super) ifindex: u32,
    pub(super) at: u64,
}

impl PairedMacs {
    /// 1 if it is one of those that belong with the cached MAC, else 0.
    #[inline(always)]
    fn among(&self, mac: u64) -> u64 {
        let [a, b, c, d] = self.macs;
        same(mac, a) | same(mac, b) | same(mac, c) | same(mac, d)
    }

    #[inline(always)]
    fn has(&self, mac: u64) -> bool {
        self.among(mac) != 0
    }

    /// Whether it is the cached MAC, or one that belongs with it.
    #[inline(always)]
    fn family(&self, mac: u64) -> bool {
        (same(mac, self.cached) | self.among(mac)) & not(same(mac, 0)) != 0
    }

    #[inline(always)]
    fn add(&mut self, mac: u64) {
        if self.has(mac) || mac == 0 {
            return;
        }
        match self.next & 3 {
            0 => self.macs[0] = mac,
            1 => self.macs[1] = mac,
            2 => self.macs[2] = mac,
            _ => self.macs[3] = mac,
        }
        self.next = self.next.wrapping_add(1);
    }

    /// The entry may hold another MAC now: one of the family, or a stranger, of whom nothing is known.
    #[inline(always)]
    fn follow(&mut self, cached: u64, ifindex: u32) {
        if self.cached == cached && self.ifindex == ifindex {
            return;
        }
        if self.ifindex == ifindex && self.has(cached) {
            let before = self.cached;
            self.cached = cached;
            self.add(before);
            return;
        }
        self.cached = cached;
        self.ifindex = ifindex;
        self.macs = [0; MACS];
        (self.syn_mac, self.syn_ns, self.syn_ports) = (0, 0, 0);
        (self.reset, self.resets, self.next) = (0, 0, 0);
    }
}

/// What is known of a peer, made when there is nothing yet.
#[inline(always)]
fn of(peer: &PeerKey, seen: &Seen) -> Option<*mut PairedMacs> {
    if let Some(kin) = PAIRED_MACS.get_ptr_mut(peer) {
        // SAFETY: a live map value; races between CPUs cost a proof.
        unsafe { (*kin).follow(seen.cached, seen.ifindex) };
        return Some(kin);
    }
    // SAFETY: a live array slot that is never written; then the value just made.
    unsafe {
        let _ = PAIRED_MACS.insert(peer, &*NO_PAIR.get_ptr(0)?, 0);
        let kin = PAIRED_MACS.get_ptr_mut(peer)?;
        (*kin).cached = seen.cached;
        (*kin).ifindex = seen.ifindex;
        Some(kin)
    }
}

/// A SYN came from another MAC than the cached one. How often so far a connection that the cached MAC had reset
/// was asked for again, when this is such a time; else 0.
#[inline(never)]
pub(super) fn syn(peer: &PeerKey, seen: &Seen) -> u64 {
    let Some(kin) = of(peer, seen) else { return opaque(0) };
    let mut contradicts = 0;
    // SAFETY: a live map value.
    unsafe {
        let same = (*kin).syn_mac == seen.seen
            && (*kin).syn_ports == seen.ports
            && seen.at.wrapping_sub((*kin).syn_ns) < SYN_NS;
        if same && (*kin).reset != 0 && !(*kin).has(seen.seen) {
            (*kin).resets += 1;
            contradicts = (*kin).resets;
        }
        (*kin).syn_mac = seen.seen;
        (*kin).syn_ports = seen.ports;
        (*kin).syn_ns = seen.at;
        (*kin).reset = 0;
    }
    opaque(contradicts.into())
}

/// The cached MAC resets a connection: is it the one that was asked for from another MAC?
#[inline(never)]
pub(super) fn reset(peer: &PeerKey, seen: &Seen) -> u64 {
    if let Some(kin) = PAIRED_MACS.get_ptr_mut(peer) {
        // SAFETY: a live map value.
        unsafe {
            if (*kin).cached == seen.cached && (*kin).syn_ports == seen.ports && (*kin).syn_mac != 0 {
                (*kin).reset = 1;
            }
        }
    }
    opaque(0)
}

/// A SYN that went to the cached MAC was answered from another one: they belong together.
#[inline(never)]
pub(super) fn answered(peer: &PeerKey, seen: &Seen) -> u64 {
    if let Some(kin) = of(peer, seen) {
        // SAFETY: a live map value.
        unsafe { (*kin).add(seen.seen) };
    }
    opaque(0)
}

/// A connection was established: if it was asked for from another MAC, and the answer went to the MAC that is
/// still cached, they belong together.
#[inline(never)]
pub(super) fn established(peer: &PeerKey, ports: u32) -> u64 {
    if let Some(kin) = PAIRED_MACS.get_ptr_mut(peer) {
        // SAFETY: live map values.
        unsafe {
            if (*kin).syn_ports == ports && (*kin).syn_mac != 0 {
                let key =
                    NeighKey { netns: peer.netns, ifindex: (*kin).ifindex, pad: 0, address: peer.address };
                if let Some(known) = NEIGHBOURS.get_ptr(&key)
                    && u64::from_ne_bytes((*known).mac) == (*kin).cached
                {
                    let mac = (*kin).syn_mac;
                    (*kin).add(mac);
                    (*kin).resets = 0;
                }
            }
        }
    }
    opaque(0)
}

/// Whether two MACs are known to belong together.
#[inline(always)]
pub(super) fn together(peer: &PeerKey, one: [u8; 8], other: [u8; 8]) -> bool {
    let (one, other) = (u64::from_ne_bytes(one), u64::from_ne_bytes(other));
    let Some(kin) = PAIRED_MACS.get_ptr(peer) else { return false };
    // SAFETY: a live map value.
    unsafe { (*kin).family(one) && (*kin).family(other) }
}

/// Whether both MACs are known to belong together, whichever of them is cached.
#[inline(never)]
pub(super) fn related(key: &NeighKey, one: u64, other: u64) -> u64 {
    let peer = PeerKey { address: key.address, netns: key.netns };
    let mut related = 0;
    if let Some(kin) = PAIRED_MACS.get_ptr(&peer) {
        // SAFETY: a live map value.
        unsafe {
            if (*kin).ifindex == key.ifindex && (*kin).family(one) && (*kin).family(other) {
                related = 1;
            }
        }
    }
    opaque(related)
}

/// The other MAC speaks although nothing is answered: whether it is time to report that.
#[inline(never)]
pub(super) fn speaks(peer: &PeerKey, seen: &Seen) -> u64 {
    let mut due = 0;
    if let Some(kin) = of(peer, seen) {
        // SAFETY: a live map value.
        unsafe {
            if seen.at.wrapping_sub((*kin).speaks_reported_ns) >= SECOND / 5 {
                (*kin).speaks_reported_ns = seen.at;
                due = 1;
            }
        }
    }
    opaque(due)
}
