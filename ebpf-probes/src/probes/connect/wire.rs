//! The way of each SYN on the wire, noted as it leaves the IP layer: what becomes of it and of its answer further on is
//! reported by packets without a socket.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock},
    macros::map,
    maps::LruHashMap,
    programs::SkBuffContext,
};

use super::{
    Connect,
    translated::{BY_NAT, BY_PROGRAM},
};
use crate::{
    abi::{IPPROTO_TCP, Tuple},
    bpf::{
        address::{mapped, same_address, tuple_of},
        filter,
        owner::PENDING,
        packet::Packet,
    },
};

/// The way of each SYN that left the IP layer, to find a connect by a packet dropped further on.
#[map]
pub(super) static WAYS: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(1 << 13, 0);

/// A key of [`WAYS`].
#[inline(always)]
pub(super) fn way(local: [u8; 16], remote: [u8; 16], local_port: u16, remote_port: u16) -> Tuple {
    Tuple { local, remote, local_port, remote_port, family: 0, protocol: IPPROTO_TCP }
}

/// A SYN left the IP layer of the connecting socket. Called by the egress program.
#[inline(always)]
pub(crate) fn syn_left(ctx: &SkBuffContext, packet: &Packet) {
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    left(ctx, cookie, packet);
}

#[inline(always)]
fn left(ctx: &SkBuffContext, cookie: u64, packet: &Packet) {
    let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value, written by this socket's packets only.
    unsafe {
        (*connect).syns += 1;
        // The first SYN of a healthy connect is not looked at: its way is noted with the second.
        if filter::quiet() && (*connect).syns == 1 && goes_there(ctx, &*connect, packet) {
            (*connect).tuple.local_port = packet.local;
            if (*connect).translated != 0 {
                (*connect).wire.local_port = packet.local;
            }
            return;
        }
        let mut wire = Tuple::default();
        if packet.write_tuple(ctx, &raw mut wire).is_none() {
            return;
        }
        note_way(ctx, connect, cookie, wire);
    }
}

/// Whether a SYN goes where its socket does: no further look is needed.
#[inline(always)]
fn goes_there(ctx: &SkBuffContext, connect: &Connect, packet: &Packet) -> bool {
    let socket = if connect.translated & BY_PROGRAM == 0 { &connect.tuple } else { &connect.wire };
    let target: Option<[u8; 16]> =
        if packet.v4 { ctx.load::<u32>(16).ok().map(mapped) } else { ctx.load(24).ok() };
    packet.remote == socket.remote_port && target.is_some_and(|target| same_address(&target, &socket.remote))
}

/// Notes the way a SYN takes, and where that is not the socket's, the ways on which its answer may be met: each end
/// is translated back at another place.
///
/// # Safety
/// `connect` must be a live map value.
#[inline(always)]
unsafe fn note_way(ctx: &SkBuffContext, connect: *mut Connect, cookie: u64, wire: Tuple) {
    // SAFETY: as promised by the caller; a context load, then loads through the BTF-typed socket that the helper
    // returns.
    unsafe {
        let _ = WAYS.insert(&way(wire.local, wire.remote, wire.local_port, wire.remote_port), &cookie, 0);
        // Who answers from another address is looked for once an answer is late.
        if (*connect).syns > 1 {
            let _ = WAYS.insert(&way(wire.local, [0; 16], wire.local_port, 0), &cookie, 0);
        }
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return;
        }
        let socket = bpf_skc_to_tcp_sock(socket.cast()).cast::<u8>();
        if socket.is_null() {
            return;
        }
        let own = tuple_of(socket);
        (*connect).tuple.local = own.local;
        (*connect).tuple.local_port = own.local_port;
        let (local, remote) = (
            own.local_port == wire.local_port && same_address(&own.local, &wire.local),
            own.remote_port == wire.remote_port && same_address(&own.remote, &wire.remote),
        );
        if !local || !remote {
            (*connect).translated |= BY_NAT;
            let _ = WAYS.insert(&way(own.local, own.remote, own.local_port, own.remote_port), &cookie, 0);
            let half = way(own.local, wire.remote, own.local_port, wire.remote_port);
            let _ = WAYS.insert(&half, &cookie, 0);
        }
        if (*connect).translated != 0 {
            (*connect).wire = wire;
        }
    }
}
