//! A SYN, or the answer to one, leaves: its route shows the next hop on the way to its peer, and whether the peer's packets
//! come from there.
//!
//! Cost: nothing until something goes unanswered; then, for [`super::ROUTING_NS`], two map looks for each SYN and for each
//! answer to one. A packet that comes in by another device than its answer leaves by is not judged.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_probe_read_kernel, programs::SkBuffContext};

use super::{
    NeighKey, PeerKey,
    hops::{HOPS, bytes, gateway, of},
    macs::{self, LOOPBACK, Met},
    source_mac::compare,
};
use crate::{
    bpf::{
        address::mapped,
        filter,
        packet::{Packet, netns_of},
        time::{SECOND, now},
        verifier::opaque,
    },
    fields,
};

/// An answer leaves within this long of its SYN.
const ANSWER_NS: u64 = SECOND;
/// `SKB_DST_NOREF` of include/linux/skbuff.h.
const DST_NOREF: u64 = 1;

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
