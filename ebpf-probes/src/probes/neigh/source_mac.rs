//! Do replies go where packets come from? The Ethernet source of what arrives is compared with the cached
//! MAC of its sender.
//!
//! Cost: each incoming SYN and SYN-ACK pays five loads and one map look, on loopback a compare. Segments of
//! connections that exist are looked at only while some connection to a neighbour has gone unanswered twice in
//! a row, resets while some neighbour is under suspicion; until then they pay one array slot.

use aya_ebpf::{
    bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes_relative, programs::SkBuffContext,
};

use super::{
    MacRecord, NeighKey, PeerKey, UnheardRecord, hops,
    macs::{self, LOOPBACK, Met},
    retransmits::write,
    state,
    suspects::{ROUTING, SUSPECTS, SUSPICION_NS, SUSPICIOUS, WATCHING, expire, routing, until},
    table::NEIGHBOURS,
    unheard,
};
use crate::{
    abi::{Kind, Owner, ProbeId},
    bpf::{
        address::mapped,
        counters, filter,
        packet::{Packet, netns_of},
        ring::{emit, header},
        time::{SECOND, now},
        verifier::{call, opaque},
    },
    metrics::{NeighEvent, counter},
};

/// A SYN is answered by a host on the same link within this long.
const SETTLED_NS: u64 = SECOND / 10;

/// `BPF_HDR_START_MAC` of include/uapi/linux/bpf.h.
const HDR_START_MAC: u32 = 0;
/// Where the source address of an Ethernet frame is, and how long it is.
const ETH_SOURCE: u32 = 6;
const ETH_ALEN: u32 = 6;

/// What kind of segment arrived.
pub(crate) mod segment {
    /// It asks for a connection.
    pub(crate) const SYN: u32 = 1;
    /// It answers such a question of this host.
    pub(crate) const SYN_ACK: u32 = 2;
    /// It ends a connection at once.
    pub(crate) const RESET: u32 = 3;
    /// Any other.
    pub(crate) const OTHER: u32 = 4;
}

/// A SYN or its answer arrived, or, while [`suspicious`], a reset, or, while [`watching`], any segment: is its
/// Ethernet source where a reply would go? Called by the ingress program; `what` is one of [`segment`].
///
/// Compared with the entry of its sender on the very device it came in on; of one behind a router, with that of the next
/// hop its answers take, while these are noted. A socket below a VRF sees the VRF's device and is not compared.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn neigh_came(skb: *mut __sk_buff, ends: u64, payload: u64, what: u64) -> u64 {
    came_inlined(skb, &Packet::of(ends, payload), what as u32);
    opaque(0)
}

/// The sender's address. `0`: it cannot be read. A step of its own, for the stack.
#[inline(never)]
fn sender(skb: *mut __sk_buff, v4: u64, to: &mut [u8; 16]) -> u64 {
    let ctx = SkBuffContext::new(skb.cast());
    let address = if v4 != 0 { ctx.load::<u32>(12).map(mapped) } else { ctx.load::<[u8; 16]>(8) };
    let Ok(address) = address else { return opaque(0) };
    *to = address;
    opaque(1)
}

#[inline(always)]
fn came_inlined(skb: *mut __sk_buff, packet: &Packet, what: u32) {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: a context load.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if ifindex == LOOPBACK {
        return;
    }
    let at = now();
    let other = what == segment::OTHER;
    if other && expire(WATCHING, at) {
        return;
    }
    let Some(netns) = netns_of(&ctx) else { return };
    let mut address = mapped(opaque(0) as u32);
    if call!(sender(skb, u64::from(packet.v4), &mut address)) == 0 {
        return;
    }
    let mut met = Met {
        key: NeighKey { netns, ifindex, pad: 0, address },
        peer: PeerKey { address, netns },
        macs: macs::Seen {
            cached: 0,
            seen: 0,
            ports: u32::from(packet.remote) << 16 | u32::from(packet.local),
            ifindex,
            at,
        },
    };
    let routing = routing() && !expire(ROUTING, at);
    if routing {
        call!(hops::resolve(&mut met));
    }
    if (other || what == segment::RESET) && SUSPECTS.get_ptr(&met.peer).is_none() {
        return;
    }
    let known = NEIGHBOURS.get_ptr_mut(&met.key);
    if known.is_none() && !(routing && what == segment::SYN) {
        return;
    }
    // SAFETY: a live map value, where races between CPUs cost a record too many.
    unsafe {
        if !mac_of(skb, &mut met.macs.seen) {
            return;
        }
        let Some(known) = known else {
            call!(hops::syn_came(&met));
            return;
        };
        met.macs.cached = u64::from_ne_bytes((*known).mac);
        if met.macs.seen == 0 || met.macs.cached == 0 {
            return;
        }
        if met.macs.seen == met.macs.cached {
            if what == segment::RESET {
                call!(macs::reset(&met.peer, &met.macs));
            }
            if (*known).other_mac != [0; 8] || other {
                (*known).other_mac = [0; 8];
                (*known).unanswered = 0;
                let _ = SUSPECTS.remove(&met.peer);
            }
            return;
        }
        if what == segment::RESET
            || (*known).state & (state::INCOMPLETE | state::FAILED) != 0
            || !filter::peer(&address, !packet.v4, packet.local)
        {
            return;
        }
        if what == segment::SYN_ACK {
            // The SYN it answers may have gone where the entry pointed until a moment ago.
            if at.wrapping_sub((*known).mac_since_ns) > SETTLED_NS {
                call!(macs::answered(&met.peer, &met.macs));
            }
            return;
        }
    }
    elsewhere(skb, packet, &met, what == segment::SYN);
}

/// The MAC a frame came from, if it has one.
#[inline(always)]
pub(super) fn mac_of(skb: *mut __sk_buff, to: &mut u64) -> bool {
    let to = (&raw mut *to).cast();
    // SAFETY: six bytes into eight, by a helper that checks that the frame has them.
    unsafe { bpf_skb_load_bytes_relative(skb.cast(), ETH_SOURCE, to, ETH_ALEN, HDR_START_MAC) == 0 }
}

/// A segment came from another MAC than the cached one.
#[inline(always)]
fn elsewhere(skb: *mut __sk_buff, packet: &Packet, met: &Met, syn: bool) {
    counters::add(counter::neigh(NeighEvent::MacMismatch, !packet.v4));
    let reported = differs(met, u64::from(syn));
    if reported & REPORT_RESET != 0 {
        call!(say(skb, packet, met, unheard::RESET, reported));
    } else if reported & REPORT_SPEAKS != 0 {
        call!(say(skb, packet, met, unheard::SPEAKS, reported));
    }
    if reported & REPORT_MISMATCH != 0 {
        call!(mismatch(skb, packet, met));
    }
}

/// The answer to a SYN leaves, and the SYN's MAC is known: is that where the answer goes? `packet` is the answer.
#[inline(always)]
pub(super) fn compare(skb: *mut __sk_buff, packet: &Packet, met: &mut Met) {
    let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) else { return };
    // SAFETY: a live map value; races between CPUs cost a record too many.
    unsafe {
        met.macs.cached = u64::from_ne_bytes((*known).mac);
        if met.macs.cached == 0 {
            return;
        }
        if met.macs.seen == met.macs.cached {
            if (*known).other_mac != [0; 8] {
                (*known).other_mac = [0; 8];
                (*known).unanswered = 0;
                let _ = SUSPECTS.remove(&met.peer);
            }
            return;
        }
        if (*known).state & (state::INCOMPLETE | state::FAILED) != 0 {
            return;
        }
    }
    elsewhere(skb, packet, met, true);
}

/// What [`differs`] says is to be reported; a count stands above.
const REPORT_MISMATCH: u64 = 1;
const REPORT_SPEAKS: u64 = 2;
const REPORT_RESET: u64 = 4;
pub(super) const COUNT_SHIFT: u64 = 32;

/// A segment, by `syn` a SYN, came from another MAC than the cached one.
#[inline(never)]
pub(super) fn differs(met: &Met, syn: u64) -> u64 {
    let mut reported = 0;
    let at = met.macs.at;
    if let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) {
        // SAFETY: a live map value; races between CPUs cost a record too many.
        unsafe {
            let seen = met.macs.seen.to_ne_bytes();
            if (*known).other_mac != seen {
                (*known).other_mac = seen;
                (*known).other_since_ns = at;
                (*known).other_reported_ns = 0;
                (*known).others = 0;
                (*known).answered_ns = 0;
                if syn != 0 {
                    (*known).unanswered = 0;
                }
            }
            (*known).other_last_ns = at;
            (*known).others += 1;
            let _ = SUSPECTS.insert(&met.peer, &met.key.ifindex, 0);
            until(SUSPICIOUS, at + SUSPICION_NS);
            let resets = if syn != 0 { macs::syn(&met.peer, &met.macs) } else { 0 };
            if resets != 0 {
                reported |= REPORT_RESET | resets << COUNT_SHIFT;
            } else if (*known).unanswered != 0 && macs::speaks(&met.peer, &met.macs) != 0 {
                reported |= REPORT_SPEAKS | u64::from((*known).unanswered) << COUNT_SHIFT;
            }
            let before = (*known).other_reported_ns;
            // A difference alone is healthy: what goes unanswered as well is reported by `report`.
            if !filter::quiet() && (before == 0 || at.wrapping_sub(before) >= SECOND) {
                (*known).other_reported_ns = at;
                reported |= REPORT_MISMATCH;
            }
        }
    }
    opaque(reported)
}

/// Reports that packets come from another MAC than the cached one.
#[inline(never)]
fn mismatch(skb: *mut __sk_buff, packet: &Packet, met: &Met) -> u64 {
    if let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) {
        emit::<MacRecord>(ProbeId::NEIGH, |record| {
            // SAFETY: a fresh reservation of the record's size, every byte written; a live map value.
            unsafe {
                (&raw mut (*record).header).write(header::<MacRecord>(Kind::NEIGH_MISMATCH));
                packet.write_tuple(&SkBuffContext::new(skb.cast()), &raw mut (*record).tuple)?;
                (&raw mut (*record).cached_mac).write(met.macs.cached.to_ne_bytes());
                (&raw mut (*record).seen_mac).write(met.macs.seen.to_ne_bytes());
                (&raw mut (*record).state_since_ns).write((*known).state_since_ns);
                (&raw mut (*record).mac_since_ns).write((*known).mac_since_ns);
                (&raw mut (*record).netns).write(met.key.netns.inode);
                (&raw mut (*record).ifindex).write(met.key.ifindex);
                (&raw mut (*record).state).write((*known).state);
                (&raw mut (*record).count).write((*known).others as u32);
                (&raw mut (*record).generation).write(met.key.netns.generation);
                (&raw mut (*record).pad).write(0);
                (&raw mut (*record).neighbour).write(met.key.address);
            }
            Some(())
        });
    }
    opaque(0)
}

/// Reports something that a packet itself says; the count stands in `reported`.
#[inline(never)]
pub(super) fn say(skb: *mut __sk_buff, packet: &Packet, met: &Met, what: u32, reported: u64) -> u64 {
    if let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) {
        emit::<UnheardRecord>(ProbeId::NEIGH, |record| {
            // SAFETY: a fresh reservation of the record's size, every byte written; a live map value.
            unsafe {
                packet.write_tuple(&SkBuffContext::new(skb.cast()), &raw mut (*record).tuple)?;
                (&raw mut (*record).owner).write(Owner::default());
                write(record, known, &met.peer, met.key.ifindex, what, (reported >> COUNT_SHIFT) as u32, 0);
            }
            Some(())
        });
    }
    opaque(0)
}
