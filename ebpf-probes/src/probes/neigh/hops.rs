//! Replies to a peer behind a router go to the router's MAC: which neighbour is that, and do the peer's packets come from
//! there? The route of what leaves says it: of an answer to a SYN, of a SYN, or the one that a socket keeps.
//!
//! What is known here of the ways to peers; [`super::leaves`] looks at what leaves.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as read_kernel},
    macros::map,
    maps::{Array, LruHashMap},
};

use super::{PeerKey, macs::Met, table::NEIGHBOURS};
use crate::{
    abi::{AF_INET, AF_INET6},
    bpf::verifier::opaque,
    fields,
};

/// What is known of the ways to peers behind routers.
#[map]
pub(super) static HOPS: LruHashMap<PeerKey, Hop> = LruHashMap::with_max_entries(1 << 10, 0);

/// An empty one, to begin from: the stack is short. Never written.
#[map]
static NO_HOP: Array<Hop> = Array::with_max_entries(1, 0);

/// `RTF_GATEWAY` of include/uapi/linux/route.h.
const RTF_GATEWAY: u32 = 2;
/// The third word of an IPv4-mapped address, in memory 00 00 ff ff.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Hop {
    /// The next hop's address as two words; zero while it is not known.
    pub(super) address: [u64; 2],
    /// Where the peer's last SYN came from that was not compared yet, and when; 0 once it was.
    pub(super) syn_mac: u64,
    pub(super) syn_ns: u64,
    /// Its local port and, above it, its remote port.
    pub(super) syn_ports: u32,
    /// The device's index.
    pub(super) ifindex: u32,
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
pub(super) fn bytes(address: [u64; 2]) -> [u8; 16] {
    // SAFETY: integers become bytes.
    unsafe { core::mem::transmute(address) }
}

/// What is known of the way to a peer, made when there is nothing yet.
#[inline(always)]
pub(super) fn of(peer: &PeerKey) -> Option<*mut Hop> {
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
pub(super) fn gateway(route: *const u8, v4: u64, to: &mut [u64; 2]) -> u64 {
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
