//! Replies to a peer behind a router go to the router's MAC: which neighbour is that, and do the peer's packets come from
//! there? The route of what leaves says it: of an answer to a SYN, of a SYN, or the one that a socket keeps.
//!
//! Cost: nothing until something goes unanswered; then, for [`ROUTING_NS`], two map looks for each SYN and for each
//! answer to one. A packet that comes in by another device than its answer leaves by is not judged.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as read_kernel},
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};

use super::{
    NeighKey, PeerKey, ROUTING_NS, macs,
    source_mac::{LOOPBACK, Met, compare},
    suspects::{ROUTING, until},
    table::NEIGHBOURS,
};
use crate::{
    abi::{AF_INET, AF_INET6},
    bpf::{
        address::mapped,
        filter,
        packet::{Packet, netns_of},
        time::{SECOND, now},
        verifier::{call, opaque},
    },
    fields,
};

/// What is known of the ways to peers behind routers.
#[map]
static HOPS: LruHashMap<PeerKey, Hop> = LruHashMap::with_max_entries(1 << 10, 0);

/// An empty one, to begin from: the stack is short. Never written.
#[map]
static NO_HOP: Array<Hop> = Array::with_max_entries(1, 0);

/// An answer leaves within this long of its SYN.
const ANSWER_NS: u64 = SECOND;
/// `SKB_DST_NOREF` of include/linux/skbuff.h.
const DST_NOREF: u64 = 1;
/// `RTF_GATEWAY` of include/uapi/linux/route.h.
const RTF_GATEWAY: u32 = 2;
/// The third word of an IPv4-mapped address, in memory 00 00 ff ff.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

#[repr(C)]
#[derive(Clone, Copy)]
struct Hop {
    /// The next hop's address as two words; zero while it is not known.
    address: [u64; 2],
    /// Where the peer's last SYN came from that was not compared yet, and when; 0 once it was.
    syn_mac: u64,
    syn_ns: u64,
    /// Its local port and, above it, its remote port.
    syn_ports: u32,
    /// The device's index.
    ifindex: u32,
}

/// Something went unanswered: next hops are noted for a while.
#[inline(always)]
pub(super) fn note(at: u64) {
    until(ROUTING, at + ROUTING_NS);
}

#[inline(always)]
fn known(address: &[u64; 2]) -> bool {
    address[0] | address[1] != 0
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u64; 2] {
    // SAFETY: bytes become integers.
    unsafe { core::mem::transmute(*address) }
}

#[inline(always)]
fn bytes(address: [u64; 2]) -> [u8; 16] {
    // SAFETY: integers become bytes.
    unsafe { core::mem::transmute(address) }
}

/// What is known of the way to a peer, made when there is nothing yet.
#[inline(always)]
fn of(peer: &PeerKey) -> Option<*mut Hop> {
    if let Some(hop) = HOPS.get_ptr_mut(peer) {
        return Some(hop);
    }
    // SAFETY: a live array slot that is never written.
    let _ = HOPS.insert(peer, unsafe { &*NO_HOP.get_ptr(0)? }, 0);
    HOPS.get_ptr_mut(peer)
}

/// `peer` becomes the next hop on the way to it: 1, or 0 if none is known.
#[inline(never)]
pub(super) fn towards(peer: &mut PeerKey) -> u64 {
    let Some(hop) = HOPS.get_ptr(&*peer) else { return opaque(0) };
    // SAFETY: a live map value; one torn by another CPU names no neighbour.
    let address = unsafe { (*hop).address };
    if !known(&address) {
        return opaque(0);
    }
    peer.address = bytes(address);
    opaque(1)
}

/// A packet's sender becomes the next hop that its answer takes, if it is no neighbour and that is known.
#[inline(never)]
pub(super) fn resolve(met: &mut Met) -> u64 {
    if NEIGHBOURS.get_ptr(&met.key).is_none()
        && let Some(hop) = HOPS.get_ptr(&met.peer)
    {
        // SAFETY: a live map value; one torn by another CPU names no neighbour.
        let (address, ifindex) = unsafe { ((*hop).address, (*hop).ifindex) };
        if known(&address) && ifindex == met.key.ifindex {
            met.key.address = bytes(address);
            met.peer.address = bytes(address);
        }
    }
    opaque(0)
}

/// A SYN of a peer behind a router, whose answer will show the way.
#[inline(never)]
pub(super) fn syn_came(met: &Met) -> u64 {
    if let Some(hop) = of(&met.peer) {
        // SAFETY: a live map value; races between CPUs cost a comparison.
        unsafe {
            (*hop).syn_mac = met.macs.seen;
            (*hop).syn_ns = met.macs.at;
            (*hop).syn_ports = met.macs.ports;
            (*hop).ifindex = met.key.ifindex;
        }
    }
    opaque(0)
}

/// Writes the next hop of a route to `to`: 1, or 0 if it leads straight to where it goes. `v4`: it is of IPv4.
#[inline(never)]
fn gateway(route: *const u8, v4: u64, to: &mut [u64; 2]) -> u64 {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let at = if v4 != 0 {
            let family = bpf_probe_read_kernel(fields::RTABLE_GATEWAY_FAMILY::address(route)).unwrap_or(0);
            if u16::from(family) == AF_INET {
                let gateway = bpf_probe_read_kernel(fields::RTABLE_GATEWAY::address(route)).unwrap_or(0);
                to[1] = u64::from(gateway) << 32 | u64::from(MAPPED);
                return opaque(u64::from(gateway != 0));
            }
            if u16::from(family) != AF_INET6 {
                return opaque(0);
            }
            fields::RTABLE_GATEWAY6::address(route)
        } else {
            let flags = bpf_probe_read_kernel(fields::RT6_FLAGS::address(route)).unwrap_or(0);
            if flags & RTF_GATEWAY == 0 {
                return opaque(0);
            }
            fields::RT6_GATEWAY::address(route)
        };
        opaque(u64::from(read_kernel((&raw mut *to).cast(), 16, at.cast()) == 0))
    }
}

/// Notes the next hop on the way to a socket's peer, which the socket keeps.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(never)]
pub(super) unsafe fn learn(sk: *const u8, peer: &PeerKey) -> u64 {
    // SAFETY: helpers that cannot fault, and a live map value.
    unsafe {
        let Ok(route) = bpf_probe_read_kernel(fields::SK_DST_CACHE::address(sk)) else { return opaque(0) };
        let Ok(device) = bpf_probe_read_kernel(fields::DST_DEV::address(route)) else { return opaque(0) };
        let Ok(ifindex) = bpf_probe_read_kernel(fields::DEV_IFINDEX::address(device)) else {
            return opaque(0);
        };
        let mut address = [0; 2];
        let [first, second] = words(&peer.address);
        let v4 = first == 0 && second as u32 == MAPPED;
        if gateway(route, v4.into(), &mut address) != 0
            && let Some(hop) = of(peer)
        {
            (*hop).address = address;
            (*hop).ifindex = ifindex;
        }
    }
    opaque(0)
}

/// A SYN, or the answer to one, leaves: its route shows the next hop, and the answer's is compared with the MAC its
/// SYN came from. Called by the egress program while next hops are noted.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn neigh_leaves(skb: *mut __sk_buff, ends: u64, payload: u64, answer: u64) -> u64 {
    leaves_inlined(skb, &Packet::of(ends, payload), opaque(answer) != 0);
    opaque(0)
}

#[inline(always)]
fn leaves_inlined(skb: *mut __sk_buff, packet: &Packet, answer: bool) {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: a context load.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if ifindex == LOOPBACK {
        return;
    }
    let Some(netns) = netns_of(&ctx) else { return };
    let address = if packet.v4 { ctx.load::<u32>(16).map(mapped) } else { ctx.load::<[u8; 16]>(24) };
    let Ok(address) = address else { return };
    let mut peer = PeerKey { address, netns };
    // Whose SYN was not noted is a neighbour, or asked before.
    if answer && HOPS.get_ptr(&peer).is_none() {
        return;
    }
    // SAFETY: the packet's own memory by helpers that cannot fault; a live map value.
    unsafe {
        let Ok(route) = bpf_probe_read_kernel(fields::SKB_REFDST::address(skb.cast_const().cast())) else {
            return;
        };
        let mut address = [0; 2];
        if gateway((route & !DST_NOREF) as *const u8, packet.v4.into(), &mut address) == 0 {
            return;
        }
        let Some(hop) = of(&peer) else { return };
        (*hop).address = address;
        if !answer {
            (*hop).ifindex = ifindex;
            return;
        }
        let at = now();
        let (seen, since) = ((*hop).syn_mac, (*hop).syn_ns);
        (*hop).syn_mac = 0;
        if (*hop).ifindex != ifindex
            || seen == 0
            || at.wrapping_sub(since) > ANSWER_NS
            || !filter::peer(&peer.address, !packet.v4, packet.local)
        {
            return;
        }
        let ports = (*hop).syn_ports;
        peer.address = bytes(address);
        let key = NeighKey { netns, ifindex, pad: 0, address: peer.address };
        let mut met = Met { key, peer, macs: macs::Seen { cached: 0, seen, ports, ifindex, at } };
        compare(skb, packet, &mut met);
    }
}
