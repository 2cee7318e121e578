//! Packets of pending connects that this host itself drops: each SYN's way is noted as it leaves the IP layer, and
//! looked for when the kernel frees a packet it did not deliver.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    Global,
    helpers::bpf_probe_read_kernel_buf,
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::{BtfTracePointContext, SkBuffContext},
};

use super::program::{PENDING, TCP_SYN_SENT, tell};
use crate::{
    abi::{IPPROTO_TCP, Kind, ProbeId, Tuple},
    fields, filter,
    kernel::{enabled, mapped},
    packet::program::Packet,
};

/// The way of each SYN that left the IP layer, to find a connect by a packet dropped further on.
#[map]
static WAYS: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(1 << 13, 0);

/// 1: `kfree_skb` says why.
#[unsafe(no_mangle)]
static HAVE_DROP_REASON: Global<u32> = Global::new(0);
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
            match way_of(skb) {
                Some(way) => match WAYS.get_ptr(&way) {
                    Some(cookie) => *cookie,
                    None => return 0,
                },
                None => return 0,
            }
        } else if i32::from(fields::SK_STATE::read(sk)) == TCP_SYN_SENT {
            fields::SK_COOKIE::read(sk)
        } else {
            return 0;
        };
        if let Some(connect) = PENDING.get_ptr_mut(&cookie) {
            (*connect).drops += 1;
            (*connect).drop_reason = reason;
            if enabled(ProbeId::Connect) && !filter::quiet() {
                tell(Kind::ConnectDrop, &*connect);
            }
        }
    }
    0
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

/// A SYN left the IP layer of the connecting socket. Called by the egress program.
#[inline(always)]
pub fn syn_left(ctx: &SkBuffContext, cookie: u64, packet: &Packet) {
    let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value, written by this socket's packets only.
    unsafe {
        (*connect).syns += 1;
        // The first SYN of a healthy connect is nobody's business: its way is noted with the second.
        if filter::quiet() && (*connect).syns == 1 {
            return;
        }
        let family = (*connect).tuple.family;
        if packet.write_tuple(ctx, &raw mut (*connect).tuple).is_some() {
            let tuple = &(*connect).tuple;
            let _ = WAYS.insert(&way(tuple.local, tuple.remote, packet.local, packet.remote), &cookie, 0);
        }
        (*connect).tuple.family = family;
    }
}
