//! Listeners that ignore SYNs because their accept queue is full: counted by listener, and reported once a second.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::bpf_skc_to_tcp_sock,
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};

use super::{Overflow, OverflowRecord};
use crate::{
    abi::{Kind, ProbeId},
    bpf::{
        filter,
        netns::netns_or_unknown,
        packet::Packet,
        ring::{emit, header},
        time::now,
        verifier::{atomic_add, opaque},
    },
    fields,
};

/// By network namespace and port. Least recently used ones give way.
#[map]
static OVERFLOWS: LruHashMap<[u32; 3], Overflow> = LruHashMap::with_max_entries(1 << 9, 0);

/// An empty one, to begin from. Never written.
#[map]
static NO_OVERFLOW: Array<Overflow> = Array::with_max_entries(1, 0);

/// A listener that has ignored none for this long has caught up.
const CAUGHT_UP_NS: u64 = 10_000_000_000;
/// How often one is reported.
const EVERY_NS: u64 = 1_000_000_000;

/// A SYN came to a listener whose accept queue is full, which the caller has seen.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn syn_ignored(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let _ = ignored(&SkBuffContext::new(skb.cast()), &Packet::of(ends, payload));
    opaque(0)
}

#[inline(always)]
fn ignored(ctx: &SkBuffContext, packet: &Packet) -> Option<()> {
    // SAFETY: context loads, then direct loads through the BTF-typed socket the helper returns; live map values.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let listener = bpf_skc_to_tcp_sock(socket.cast()).cast::<u8>();
        if listener.is_null() {
            return None;
        }
        let netns = netns_or_unknown(fields::SK_NET::read(listener));
        let key = [netns.inode, netns.generation, u32::from(packet.local)];
        if OVERFLOWS.get_ptr(&key).is_none() {
            let _ = OVERFLOWS.insert(&key, &*NO_OVERFLOW.get_ptr(0)?, 0);
        }
        let overflow = OVERFLOWS.get_ptr_mut(&key)?;
        let at = now();
        if at.wrapping_sub((*overflow).last_ns) > CAUGHT_UP_NS {
            (*overflow).since_ns = at;
            (*overflow).reported_ns = 0;
            (*overflow).ignored = 0;
        }
        (*overflow).last_ns = at;
        atomic_add(&raw mut (*overflow).ignored, 1);
        (*overflow).queued = fields::SK_ACK_BACKLOG::read(listener);
        (*overflow).limit = fields::SK_MAX_ACK_BACKLOG::read(listener);
        (*overflow).netns = netns;
        packet.write_tuple(ctx, &raw mut (*overflow).tuple)?;
        if at.wrapping_sub((*overflow).reported_ns) < EVERY_NS
            || !filter::peer(&(*overflow).tuple.remote, !packet.v4, packet.local)
        {
            return None;
        }
        (*overflow).reported_ns = at;
        emit::<OverflowRecord>(ProbeId::CONNECT, |record| {
            (&raw mut (*record).header).write(header::<OverflowRecord>(Kind::LISTEN_QUEUE_FULL));
            core::ptr::copy_nonoverlapping(overflow, &raw mut (*record).overflow, 1);
            Some(())
        });
    }
    Some(())
}
