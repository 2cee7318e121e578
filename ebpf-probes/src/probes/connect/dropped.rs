//! Packets of pending connects that this host itself drops: each SYN's way is noted as it leaves the IP layer, and
//! looked for when the kernel frees a packet it did not deliver.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    EbpfContext, Global,
    bindings::__sk_buff,
    helpers::{
        bpf_probe_read_kernel_buf,
        generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock},
    },
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::{BtfTracePointContext, SkBuffContext},
};

use super::{
    Connect, leaves_as_asked,
    program::{PENDING, TCP_SYN_SENT, same, tell},
    translated::{BY_NAT, BY_PROGRAM, LATER},
};
use crate::{
    abi::{AF_INET, IPPROTO_TCP, Kind, ProbeId, Tuple},
    fields, filter,
    kernel::{enabled, mapped, opaque, tuple_of},
    packet::program::Packet,
};

/// The way of each SYN that left the IP layer, to find a connect by a packet dropped further on.
#[map]
static WAYS: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(1 << 13, 0);

/// 1: `kfree_skb` says why.
#[unsafe(no_mangle)]
static HAVE_DROP_REASON: Global<u32> = Global::new(0);
/// 1: this kernel describes conntrack's entries.
#[unsafe(no_mangle)]
static HAVE_CONNTRACK: Global<u32> = Global::new(0);
/// The number of SKB_DROP_REASON_NOT_SPECIFIED here: among others a SYN that came again, taken note of.
#[unsafe(no_mangle)]
static DROP_NOT_SPECIFIED: Global<u32> = Global::new(u32::MAX);
/// The number of SKB_DROP_REASON_OTHERHOST here: a switch on this host handed a copy to everybody.
#[unsafe(no_mangle)]
static DROP_OTHERHOST: Global<u32> = Global::new(u32::MAX);
/// The number of SKB_DROP_REASON_NO_SOCKET here: the SYN was answered with a reset, not dropped.
#[unsafe(no_mangle)]
static DROP_NO_SOCKET: Global<u32> = Global::new(u32::MAX);

/// Runs at each packet the kernel drops: its socket's state, or 40 bytes of it, decide.
#[btf_tracepoint(function = "kfree_skb")]
pub fn drop_skb(ctx: BtfTracePointContext) -> i32 {
    let skb: *const u8 = ctx.arg(0);
    let reason: u32 = if HAVE_DROP_REASON.load() != 0 { ctx.arg(2) } else { 0 };
    if HAVE_DROP_REASON.load() != 0 && reason == DROP_NO_SOCKET.load() {
        return 0;
    }
    // SAFETY: `skb` is a BTF-typed argument; packet memory is read by a helper that cannot fault.
    unsafe {
        let sk = fields::SKB_SK::read(skb);
        let cookie = if sk.is_null() {
            // Without a reason, a SYN answered with a reset, or one that came again, looks as if it had been
            // dropped.
            if HAVE_DROP_REASON.load() == 0
                || reason == DROP_NOT_SPECIFIED.load()
                || reason == DROP_OTHERHOST.load()
            {
                return 0;
            }
            let Some(way) = way_of(skb) else { return 0 };
            match WAYS.get_ptr(&way) {
                Some(cookie) => *cookie,
                None if HAVE_CONNTRACK.load() != 0 => return dropped_later(skb, reason),
                None => return 0,
            }
        } else if i32::from(fields::SK_STATE::read(sk)) == TCP_SYN_SENT {
            fields::SK_COOKIE::read(sk)
        } else {
            return 0;
        };
        if let Some(connect) = PENDING.get_ptr_mut(&cookie) {
            dropped(connect, reason);
        }
    }
    0
}

/// # Safety
/// `connect` must be a live map value.
#[inline(always)]
unsafe fn dropped(connect: *mut Connect, reason: u32) {
    // SAFETY: as promised by the caller.
    unsafe {
        (*connect).drops += 1;
        (*connect).drop_reason = reason;
        if enabled(ProbeId::Connect) && !filter::quiet() {
            tell(Kind::ConnectDrop, &*connect);
        }
    }
}

/// Bytes of `struct nf_conntrack_tuple`.
const TUPLE_LEN: usize = 40;

/// A SYN or its answer was dropped where it is on another way than it left: conntrack of that namespace knows both.
///
/// # Safety
/// `skb` must be a BTF-typed `struct sk_buff`.
#[inline(always)]
unsafe fn dropped_later(skb: *const u8, reason: u32) -> i32 {
    /// The low bits of `_nfct` say how far the connection has come: include/linux/skbuff.h, NFCT_INFOMASK.
    const INFO: usize = 7;
    // SAFETY: a direct load of a checked field; conntrack's memory by helpers that cannot fault; live map values.
    unsafe {
        let connection = (fields::SKB_NFCT::read(skb) & !INFO) as *const u8;
        if connection.is_null() {
            return 0;
        }
        let hash = fields::CT_TUPLES::address(connection);
        let mut sent = [0u8; TUPLE_LEN];
        let at = fields::CT_TUPLE::address(hash).cast::<u8>();
        if bpf_probe_read_kernel_buf(at, &mut sent).is_err() {
            return 0;
        }
        let (local, remote) = ends(&sent);
        let Some(cookie) = WAYS.get_ptr(&way(local.0, remote.0, local.1, remote.1)) else { return 0 };
        let Some(connect) = PENDING.get_ptr_mut(&*cookie) else { return 0 };
        // The answer's tuple follows the question's, behind a list node of the same size as the one before this.
        let next = at.wrapping_add(TUPLE_LEN + (at as usize - hash as usize));
        let mut answer = [0u8; TUPLE_LEN];
        if leaves_as_asked((*connect).translated) && bpf_probe_read_kernel_buf(next, &mut answer).is_ok() {
            let (remote, local) = ends(&answer);
            let wire = Tuple { family: (*connect).tuple.family, ..way(local.0, remote.0, local.1, remote.1) };
            (*connect).wire = wire;
            (*connect).translated = LATER;
        }
        dropped(connect, reason);
    }
    0
}

/// Source and destination of a `struct nf_conntrack_tuple`.
#[inline(always)]
fn ends(tuple: &[u8; TUPLE_LEN]) -> (([u8; 16], u16), ([u8; 16], u16)) {
    let v4 = u16::from_ne_bytes([tuple[18], tuple[19]]) == AF_INET;
    let mut source = [0u8; 16];
    let mut target = [0u8; 16];
    if v4 {
        source = mapped(u32::from_ne_bytes([tuple[0], tuple[1], tuple[2], tuple[3]]));
        target = mapped(u32::from_ne_bytes([tuple[20], tuple[21], tuple[22], tuple[23]]));
    } else {
        source.copy_from_slice(&tuple[..16]);
        target.copy_from_slice(&tuple[20..36]);
    }
    let ports = (u16::from_be_bytes([tuple[16], tuple[17]]), u16::from_be_bytes([tuple[36], tuple[37]]));
    ((source, ports.0), (target, ports.1))
}

/// The way of a SYN, or the reverse way of a SYN-ACK, seen from the connecting side.
///
/// # Safety
/// `skb` must be a BTF-typed `struct sk_buff`.
#[inline(always)]
unsafe fn way_of(skb: *const u8) -> Option<Tuple> {
    // SAFETY: direct loads of checked fields; the packet through a helper that cannot fault.
    unsafe {
        let packet = fields::SKB_HEAD::read(skb).wrapping_add(fields::SKB_NETWORK_HEADER::read(skb) as usize);
        let mut ip = [0u8; 40];
        bpf_probe_read_kernel_buf(packet, &mut ip).ok()?;
        let v4 = ip[0] >> 4 == 4;
        let (at, next) = if v4 { (usize::from(ip[0] & 15) * 4, ip[9]) } else { (40, ip[6]) };
        if next != IPPROTO_TCP as u8 || (!v4 && ip[0] >> 4 != 6) {
            return None;
        }
        let mut tcp = [0u8; 16];
        bpf_probe_read_kernel_buf(packet.wrapping_add(at), &mut tcp).ok()?;
        if tcp[13] & 0x02 == 0 {
            return None;
        }
        let mut source = [0u8; 16];
        let mut target = [0u8; 16];
        if v4 {
            source = mapped(u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]]));
            target = mapped(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]]));
        } else {
            source.copy_from_slice(&ip[8..24]);
            target.copy_from_slice(&ip[24..40]);
        }
        let source_port = u16::from_be_bytes([tcp[0], tcp[1]]);
        let target_port = u16::from_be_bytes([tcp[2], tcp[3]]);
        let answer = tcp[13] & 0x10 != 0;
        Some(if answer {
            way(target, source, target_port, source_port)
        } else {
            way(source, target, source_port, target_port)
        })
    }
}

#[inline(always)]
fn way(local: [u8; 16], remote: [u8; 16], local_port: u16, remote_port: u16) -> Tuple {
    Tuple { local, remote, local_port, remote_port, family: 0, protocol: IPPROTO_TCP }
}

/// A SYN left the IP layer of the connecting socket. Called by the egress program. Not inlined, for the stack.
#[inline(never)]
pub fn syn_left(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    left(&ctx, cookie, packet);
    opaque(0)
}

#[inline(always)]
fn left(ctx: &SkBuffContext, cookie: u64, packet: &Packet) {
    let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value, written by this socket's packets only.
    unsafe {
        (*connect).syns += 1;
        // The first SYN of a healthy connect is nobody's business: its way is noted with the second.
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
    packet.remote == socket.remote_port && target.is_some_and(|target| same(&target, &socket.remote))
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
            own.local_port == wire.local_port && same(&own.local, &wire.local),
            own.remote_port == wire.remote_port && same(&own.remote, &wire.remote),
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
