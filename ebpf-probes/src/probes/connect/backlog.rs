//! SYNs that a listener ignores because its accept queue is full: nothing is dropped, as the kernel counts it.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skc_to_tcp_sock, programs::SkBuffContext};

use super::{
    Dropped,
    dropped::dropped,
    packet, place,
    wire::{WAYS, way},
};
use crate::{
    bpf::{address::mapped, netns::netns_or_unknown, owner::PENDING, packet::Packet, verifier::opaque},
    fields,
};

/// A SYN came to a listening socket. If its accept queue is full (then `1`) the kernel will ignore it, without a drop
/// reason: the connect that sent it, when it is one of this host's, has its answer here. Called by the ingress
/// program.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn syn_came(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let ctx = SkBuffContext::new(skb.cast());
    let Some(listener) = full(&ctx) else { return opaque(0) };
    answered(&ctx, &Packet::of(ends, payload), listener);
    opaque(1)
}

/// The listener a SYN came to, if its accept queue is full.
#[inline(always)]
fn full(ctx: &SkBuffContext) -> Option<*const u8> {
    // SAFETY: context loads, then direct loads through the BTF-typed socket the helper returns.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let listener = bpf_skc_to_tcp_sock(socket.cast()).cast::<u8>();
        if listener.is_null()
            || fields::SK_ACK_BACKLOG::read(listener) <= fields::SK_MAX_ACK_BACKLOG::read(listener)
        {
            return None;
        }
        Some(listener)
    }
}

#[inline(always)]
fn answered(ctx: &SkBuffContext, packet: &Packet, listener: *const u8) {
    // SAFETY: packet loads by a helper; direct loads through the BTF-typed listener; live map values.
    unsafe {
        let (client, server);
        if packet.v4 {
            let Ok(both) = ctx.load::<[u32; 2]>(12) else { return };
            (client, server) = (mapped(both[0]), mapped(both[1]));
        } else {
            // One after the other: 5.10 refuses to move a pair of which one may not have been read.
            let Ok(source) = ctx.load::<[u8; 16]>(8) else { return };
            client = source;
            let Ok(target) = ctx.load::<[u8; 16]>(24) else { return };
            server = target;
        }
        let Some(cookie) = WAYS.get_ptr(&way(client, server, packet.remote, packet.local)) else { return };
        let cookie = *cookie;
        let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
        let mut seen = Dropped {
            cookie,
            netns: netns_or_unknown(fields::SK_NET::read(listener)),
            ifindex: (*ctx.skb.skb).ifindex,
            reason: u32::MAX,
            at: packet::SYN | place::ARRIVED | place::ROUTED | place::LOCAL | place::QUEUE_FULL,
            ..Dropped::default()
        };
        dropped(connect, &mut seen);
    }
}
