//! Packets of pending connects that this host itself drops: looked for when the kernel frees a packet it did not
//! deliver, by its socket or by its way on the wire.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext, Global,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use super::{
    Connect, DropRecord, Dropped, conntrack,
    headers::{headers_of, way_of},
    packet, place,
    report::report,
    stray, unacked_program as unacked,
    wire::{WAYS, way},
};
use crate::{
    abi::{AF_INET6, Kind, Netns, ProbeId},
    bpf::{
        address::mapped,
        filter::{self, enabled},
        netns::netns_or_unknown,
        owner::PENDING,
        ring::{emit, header},
        tcp::state,
        verifier::{call, opaque},
    },
    fields,
};

/// `ETH_P_IP` and `ETH_P_IPV6` of include/uapi/linux/if_ether.h.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// 1: `kfree_skb` says why.
#[unsafe(no_mangle)]
static HAVE_DROP_REASON: Global<u32> = Global::new(0);
/// The number of SKB_DROP_REASON_NOT_SPECIFIED here: among others a SYN that came again, taken note of.
#[unsafe(no_mangle)]
static DROP_NOT_SPECIFIED: Global<u32> = Global::new(u32::MAX);
/// The number of SKB_DROP_REASON_OTHERHOST here: a switch on this host handed a copy to everybody.
#[unsafe(no_mangle)]
static DROP_OTHERHOST: Global<u32> = Global::new(u32::MAX);

/// The most addresses of a device that are compared with a packet's destination.
const ADDRESSES: u32 = 8;
/// `RTCF_LOCAL` of include/uapi/linux/in_route.h and `RTF_LOCAL` of include/uapi/linux/ipv6_route.h.
const ROUTE_LOCAL: u32 = 0x8000_0000;
/// `SKB_DST_NOREF` of include/linux/skbuff.h: the bit of `_skb_refdst` that is no part of the address.
const DST_NOREF: u64 = 1;

/// The third argument of `kfree_skb`, where the kernel hands it over.
#[inline(always)]
fn reason_of(ctx: &BtfTracePointContext) -> u32 {
    if HAVE_DROP_REASON.load() != 0 { ctx.arg(2) } else { 0 }
}

/// Runs at each packet the kernel drops: its socket's state, or 40 bytes of it, decide.
#[btf_tracepoint(function = "kfree_skb")]
pub fn drop_skb(ctx: BtfTracePointContext) -> i32 {
    let skb: *const u8 = ctx.arg(0);
    let has_reason = HAVE_DROP_REASON.load() != 0;
    let reason = reason_of(&ctx);
    // SAFETY: `skb` is a BTF-typed argument; packet memory is read by a helper that cannot fault.
    unsafe {
        let sk = fields::SKB_SK::read(skb);
        let mut cookie = 0;
        let now = if sk.is_null() { 0 } else { i32::from(fields::SK_STATE::read(sk)) };
        if now == state::SYN_SENT && !(has_reason && reason == stray::DROP_NO_SOCKET.load()) {
            // Early demultiplexing gives arriving packets their socket too.
            cookie = fields::SK_COOKIE::read(sk);
        } else if !sk.is_null() && (now != state::NEW_SYN_RECV || fields::SKB_IIF::read(skb) == 0) {
            // An answer from a namespace of this host has its sender's socket until IP receives it.
            let is_open = now == state::ESTABLISHED || now == state::CLOSE_WAIT || now == state::FIN_WAIT1;
            if is_open && has_reason && reason != DROP_NOT_SPECIFIED.load() && fields::SKB_IIF::read(skb) == 0
            {
                call!(unacked::dropped(sk, u64::from(reason)));
            }
            return 0;
        } else if !has_reason || reason == DROP_NOT_SPECIFIED.load() {
            // Without a reason, a SYN answered with a reset, or one that came again, looks as if it had been
            // dropped.
            return 0;
        }
        // Each look is a function of its own: kernels count the stack of a call and its caller together.
        if cookie == 0 {
            if reason == stray::DROP_NO_SOCKET.load() {
                call!(stray::refused(ctx.as_ptr()));
                return 0;
            }
            cookie = call!(on_its_way(ctx.as_ptr()));
            if cookie == 0 && conntrack::HAVE_CONNTRACK.load() != 0 {
                cookie = call!(conntrack::translated_later(ctx.as_ptr()));
            }
            if cookie == 0 {
                return 0;
            }
        }
        call!(lost(ctx.as_ptr(), cookie));
    }
    0
}

/// The cookie of the connect whose SYN or answer is on the way on which it left; 0 if there is none.
#[inline(never)]
fn on_its_way(ctx: *mut c_void) -> u64 {
    let skb: *const u8 = BtfTracePointContext::new(ctx).arg(0);
    let mut way = way([0; 16], [0; 16], 0, 0);
    // SAFETY: the BTF-typed argument; a live map value.
    let cookie = unsafe {
        if way_of(skb, &mut way) == packet::UNKNOWN {
            return opaque(0);
        }
        WAYS.get_ptr(&way).map_or(0, |cookie| *cookie)
    };
    opaque(cookie)
}

/// A packet of the connect with this cookie is lost, if there is one. Not inlined, for the stack.
#[inline(never)]
fn lost(ctx: *mut c_void, cookie: u64) -> u64 {
    lost_inlined(&BtfTracePointContext::new(ctx), cookie);
    opaque(0)
}

#[inline(always)]
fn lost_inlined(ctx: &BtfTracePointContext, cookie: u64) {
    let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
    let skb: *const u8 = ctx.arg(0);
    let reason = reason_of(ctx);
    // SAFETY: a live map value; direct loads of checked fields of a BTF-typed argument, or loads by helpers that
    // cannot fault.
    unsafe {
        let sk = fields::SKB_SK::read(skb);
        let dev = fields::SKB_DEV::read(skb);
        let mut seen = Dropped { cookie, location: ctx.arg(1), reason, ..Dropped::default() };
        // What has arrived is its device's: until IP receives it, it may have the socket of a sender elsewhere on this
        // host.
        seen.netns = if !dev.is_null() && (sk.is_null() || fields::SKB_IIF::read(skb) != 0) {
            netns_or_unknown(fields::DEV_NET::read(dev))
        } else if !sk.is_null() {
            netns_or_unknown(fields::SK_NET::read(sk))
        } else {
            Netns::numbered(0)
        };
        seen.at = headers_of(skb).0 | where_is(skb, (*connect).tuple.family);
        if HAVE_DROP_REASON.load() != 0 && reason == DROP_OTHERHOST.load() {
            // A switch on this host hands a copy to every port: it is no loss but where the address is.
            if dev.is_null() || !addressed(skb, dev, &mut seen) {
                return;
            }
        }
        if !dev.is_null() {
            seen.ifindex = fields::DEV_IFINDEX::read(dev);
            let name = bpf_probe_read_kernel_buf(fields::DEV_NAME::address(dev).cast(), &mut seen.device);
            if name.is_err() {
                seen.device = [0; 16];
            }
        }
        dropped(connect, &mut seen);
    }
}

/// Notes a loss with its connect, and reports it.
///
/// # Safety
/// `connect` must be a live map value.
#[inline(always)]
pub(super) unsafe fn dropped(connect: *mut Connect, seen: &mut Dropped) {
    // SAFETY: as promised by the caller.
    unsafe {
        if seen.netns != (*connect).owner.netns {
            seen.at |= place::FOREIGN;
        }
        let was = (*connect).drop_where & !place::STRAY;
        let is_news = (*connect).drops == 0 || (*connect).drop_reason != seen.reason || was != seen.at;
        (*connect).drops += 1;
        (*connect).drop_reason = seen.reason;
        (*connect).drop_where = seen.at | (*connect).drop_where & place::STRAY;
        if !enabled(ProbeId::CONNECT) {
            return;
        }
        if is_news {
            report_place(seen);
        }
        if !filter::quiet() {
            report(Kind::CONNECT_DROP, &*connect);
        }
    }
}

#[inline(always)]
fn report_place(seen: &Dropped) {
    emit::<DropRecord>(ProbeId::CONNECT, |record| {
        let header = header::<DropRecord>(Kind::CONNECT_DROP_PLACE);
        // SAFETY: a fresh reservation of the record's size; every byte is written.
        unsafe { record.write(DropRecord { header, dropped: *seen }) };
        Some(())
    });
}

/// Whether a packet has come in, whether its route is known, and whether that ends here: bits of [`place`].
///
/// # Safety
/// `skb` must be a BTF-typed `struct sk_buff`.
#[inline(always)]
unsafe fn where_is(skb: *const u8, family: u16) -> u32 {
    // SAFETY: direct loads of checked fields; the route, whose type the verifier does not know, by a helper.
    unsafe {
        let mut at = 0;
        if fields::SKB_IIF::read(skb) != 0 {
            at |= place::ARRIVED;
        }
        let route = (fields::SKB_REFDST::read(skb) & !DST_NOREF) as *const u8;
        if !route.is_null() {
            at |= place::ROUTED;
            // Of an IPv4 packet of an AF_INET6 socket too: the packet's protocol, not the socket's family, decides.
            let is_v6 = family == AF_INET6 && u16::from_be(fields::SKB_PROTOCOL::read(skb)) == ETH_P_IPV6;
            let flags =
                if is_v6 { fields::RT6_FLAGS::address(route) } else { fields::RTABLE_FLAGS::address(route) };
            if bpf_probe_read_kernel(flags).unwrap_or(0) & ROUTE_LOCAL != 0 {
                at |= place::LOCAL;
            }
        }
        at
    }
}

/// A frame for another MAC came to the device that holds the packet's address, or to a tunnel's end: both MACs are noted.
///
/// # Safety
/// `skb` and `dev` must be BTF-typed.
#[inline(always)]
unsafe fn addressed(skb: *const u8, dev: *const u8, seen: &mut Dropped) -> bool {
    // SAFETY: direct loads of checked fields; everything behind them by helpers that cannot fault.
    unsafe {
        let head = fields::SKB_HEAD::read(skb);
        let packet = head.wrapping_add(fields::SKB_NETWORK_HEADER::read(skb) as usize);
        let target = packet.wrapping_add(16).cast::<u32>();
        let Ok(target) = bpf_probe_read_kernel(target) else { return false };
        if u16::from_be(fields::SKB_PROTOCOL::read(skb)) != ETH_P_IP {
            return false;
        }
        let device = fields::DEV_IP::read(dev);
        if device.is_null() {
            return false;
        }
        let mut address =
            bpf_probe_read_kernel(fields::IN_DEVICE_ADDRESSES::address(device)).unwrap_or(core::ptr::null());
        let mut is_own = false;
        let mut first = 0;
        for _ in 0..ADDRESSES {
            if address.is_null() || is_own {
                break;
            }
            let local = bpf_probe_read_kernel(fields::IN_ADDRESS_LOCAL::address(address)).unwrap_or(0);
            is_own = local == target;
            first = if first == 0 { local } else { first };
            address =
                bpf_probe_read_kernel(fields::IN_ADDRESS_NEXT::address(address)).unwrap_or(core::ptr::null());
        }
        if is_own {
            seen.at |= place::HOLDS;
        } else if is_tunnel(dev) {
            seen.at |= place::TUNNEL;
            if first != 0 {
                seen.holder = mapped(first);
            }
        } else {
            return false;
        }
        let frame = head.wrapping_add(fields::SKB_MAC_HEADER::read(skb) as usize);
        seen.frame_mac = bpf_probe_read_kernel(frame.cast::<[u8; 6]>()).unwrap_or([0; 6]);
        let mac = fields::DEV_ADDR::read(dev);
        seen.device_mac = bpf_probe_read_kernel(mac.cast::<[u8; 6]>()).unwrap_or([0; 6]);
        true
    }
}

/// Whether a device is a tunnel's end, which gets what others mean for it and no copies for everybody.
///
/// # Safety
/// `dev` must be BTF-typed.
#[inline(always)]
unsafe fn is_tunnel(dev: *const u8) -> bool {
    /// The first bytes of `rtnl_link_ops.kind`, up to its NUL: drivers/net/vxlan, drivers/net/geneve.c.
    const KINDS: [u32; 2] = [u32::from_ne_bytes(*b"vxla"), u32::from_ne_bytes(*b"gene")];
    // SAFETY: a direct load of a checked field; helpers that cannot fault.
    unsafe {
        let ops = fields::DEV_LINK_OPS::read(dev);
        if ops.is_null() {
            return false;
        }
        let kind = bpf_probe_read_kernel(fields::LINK_OPS_KIND::address(ops)).unwrap_or(core::ptr::null());
        let kind = bpf_probe_read_kernel(kind.cast::<u32>()).unwrap_or(0);
        kind == KINDS[0] || kind == KINDS[1]
    }
}
