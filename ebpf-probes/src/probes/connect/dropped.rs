//! Packets of pending connects that this host itself drops: each SYN's way is noted as it leaves the IP layer, and
//! looked for when the kernel frees a packet it did not deliver, or ignores a SYN because a queue is full.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext, Global,
    bindings::__sk_buff,
    helpers::{
        bpf_probe_read_kernel, bpf_probe_read_kernel_buf,
        generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock},
    },
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::{BtfTracePointContext, SkBuffContext},
};

use super::{
    Connect, DropRecord, Dropped, leaves_as_asked, packet, place,
    program::{PENDING, TCP_SYN_SENT, same, tell},
    translated::{BY_NAT, BY_PROGRAM, LATER},
};
use crate::{
    abi::{AF_INET, AF_INET6, IPPROTO_TCP, Kind, Netns, ProbeId, Tuple},
    call, fields, filter,
    kernel::{emit, enabled, header, mapped, netns, opaque, tuple_of},
    packet::program::Packet,
};

/// `TCP_NEW_SYN_RECV` of include/net/tcp_states.h: a connection that a listener has answered and not yet made.
const TCP_NEW_SYN_RECV: i32 = 12;
/// TCP flags, RFC 9293 §3.1.
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// `ETH_P_IP` and `ETH_P_IPV6` of include/uapi/linux/if_ether.h.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

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
        let state = if sk.is_null() { 0 } else { i32::from(fields::SK_STATE::read(sk)) };
        if state == TCP_SYN_SENT && !(has_reason && reason == DROP_NO_SOCKET.load()) {
            // Early demultiplexing gives arriving packets their socket too.
            cookie = fields::SK_COOKIE::read(sk);
        } else if !sk.is_null() && (state != TCP_NEW_SYN_RECV || fields::SKB_IIF::read(skb) == 0) {
            // An answer from a namespace of this host has its sender's socket until IP receives it.
            return 0;
        } else if !has_reason || reason == DROP_NOT_SPECIFIED.load() {
            // Without a reason, a SYN answered with a reset, or one that came again, looks as if it had been
            // dropped.
            return 0;
        }
        // Each look is a function of its own: kernels count the stack of a call and its caller together.
        if cookie == 0 {
            if reason == DROP_NO_SOCKET.load() {
                call!(refused(ctx.as_ptr()));
                return 0;
            }
            cookie = call!(on_its_way(ctx.as_ptr()));
            if cookie == 0 && HAVE_CONNTRACK.load() != 0 {
                cookie = call!(translated_later(ctx.as_ptr()));
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

/// Bytes of `struct nf_conntrack_tuple`.
const TUPLE_LEN: usize = 40;

/// The cookie of the connect whose SYN or answer was dropped where it is on another way than it left: conntrack of
/// that namespace knows both. 0 if there is none. Not inlined, for the stack.
#[inline(never)]
fn translated_later(ctx: *mut c_void) -> u64 {
    opaque(translated_later_inlined(&BtfTracePointContext::new(ctx)))
}

#[inline(always)]
fn translated_later_inlined(ctx: &BtfTracePointContext) -> u64 {
    /// The low bits of `_nfct` say how far the connection has come: include/linux/skbuff.h, NFCT_INFOMASK.
    const INFO: usize = 7;
    let skb: *const u8 = ctx.arg(0);
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
        let cookie = *cookie;
        let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return 0 };
        // The answer's tuple follows the question's, behind a list node of the same size as the one before this.
        let next = at.wrapping_add(TUPLE_LEN + (at as usize - hash as usize));
        let mut answer = [0u8; TUPLE_LEN];
        if leaves_as_asked((*connect).translated) && bpf_probe_read_kernel_buf(next, &mut answer).is_ok() {
            let (remote, local) = ends(&answer);
            let wire = Tuple { family: (*connect).tuple.family, ..way(local.0, remote.0, local.1, remote.1) };
            (*connect).wire = wire;
            (*connect).translated = LATER;
        }
        cookie
    }
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
            netns_of(fields::DEV_NET::read(dev))
        } else if !sk.is_null() {
            netns_of(fields::SK_NET::read(sk))
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

/// Notes a loss with its connect, and tells it.
///
/// # Safety
/// `connect` must be a live map value.
#[inline(always)]
unsafe fn dropped(connect: *mut Connect, seen: &mut Dropped) {
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
        if !enabled(ProbeId::Connect) {
            return;
        }
        if is_news {
            tell_place(seen);
        }
        if !filter::quiet() {
            tell(Kind::ConnectDrop, &*connect);
        }
    }
}

#[inline(always)]
fn tell_place(seen: &Dropped) {
    emit::<DropRecord>(ProbeId::Connect, |record| {
        let header = header::<DropRecord>(Kind::ConnectDropPlace);
        // SAFETY: a fresh reservation of the record's size; every byte is written.
        unsafe { record.write(DropRecord { header, dropped: *seen }) };
        Some(())
    });
}

/// # Safety
/// `net` must be a BTF-typed `struct net` or null.
#[inline(always)]
unsafe fn netns_of(net: *const u8) -> Netns {
    // SAFETY: as promised by the caller.
    if net.is_null() { Netns::numbered(0) } else { unsafe { netns(net) } }
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

/// A frame for another MAC came to the device that holds the packet's address: both MACs are noted.
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
        for _ in 0..ADDRESSES {
            if address.is_null() || is_own {
                break;
            }
            is_own = bpf_probe_read_kernel(fields::IN_ADDRESS_LOCAL::address(address)) == Ok(target);
            address =
                bpf_probe_read_kernel(fields::IN_ADDRESS_NEXT::address(address)).unwrap_or(core::ptr::null());
        }
        if !is_own {
            return false;
        }
        seen.at |= place::HOLDS;
        let frame = head.wrapping_add(fields::SKB_MAC_HEADER::read(skb) as usize);
        seen.frame_mac = bpf_probe_read_kernel(frame.cast::<[u8; 6]>()).unwrap_or([0; 6]);
        let mac = fields::DEV_ADDR::read(dev);
        seen.device_mac = bpf_probe_read_kernel(mac.cast::<[u8; 6]>()).unwrap_or([0; 6]);
        true
    }
}

/// No socket takes an answer: it came from another address than the one a pending connect of this port asked, if
/// there is such a connect here. (The kernel answers it with a reset.) Not inlined, for the stack.
#[inline(never)]
fn refused(ctx: *mut c_void) -> u64 {
    let ctx = BtfTracePointContext::new(ctx);
    let mut way = way([0; 16], [0; 16], 0, 0);
    // SAFETY: the BTF-typed argument.
    if unsafe { way_of(ctx.arg(0), &mut way) } == packet::ANSWER {
        call!(stray(ctx.as_ptr(), &way));
    }
    opaque(0)
}

/// An answer that no socket takes. Not inlined, for the stack.
#[inline(never)]
fn stray(ctx: *mut c_void, from: &Tuple) -> u64 {
    stray_inlined(&BtfTracePointContext::new(ctx), from);
    opaque(0)
}

#[inline(always)]
fn stray_inlined(ctx: &BtfTracePointContext, from: &Tuple) {
    let asked = way(from.local, [0; 16], from.local_port, 0);
    let Some(cookie) = WAYS.get_ptr(&asked) else { return };
    let skb: *const u8 = ctx.arg(0);
    // SAFETY: live map values; direct loads of checked fields.
    unsafe {
        let cookie = *cookie;
        let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
        let dev = fields::SKB_DEV::read(skb);
        if dev.is_null()
            || (*connect).drop_where & place::STRAY != 0
            || is_asked(&*connect, from)
            || netns_of(fields::DEV_NET::read(dev)) != (*connect).owner.netns
        {
            return;
        }
        (*connect).drop_where |= place::STRAY;
        if enabled(ProbeId::Connect) {
            let (netns, ifindex) = ((*connect).owner.netns, fields::DEV_IFINDEX::read(dev));
            let name = fields::DEV_NAME::address(dev);
            // Field by field: a record made first would be on the stack, below two other frames.
            emit::<DropRecord>(ProbeId::Connect, |record| {
                (&raw mut (*record).header).write(header::<DropRecord>(Kind::ConnectDropPlace));
                let seen = &raw mut (*record).dropped;
                (*seen).cookie = cookie;
                (*seen).location = 0;
                (*seen).netns = netns;
                (*seen).ifindex = ifindex;
                (*seen).reason = DROP_NO_SOCKET.load();
                (*seen).at = packet::ANSWER | place::STRAY | place::ARRIVED | place::ROUTED | place::LOCAL;
                (*seen).device = bpf_probe_read_kernel(name.cast::<[u8; 16]>()).unwrap_or([0; 16]);
                (*seen).frame_mac = [0; 6];
                (*seen).device_mac = [0; 6];
                (*seen).stray_port = from.remote_port;
                (*seen).pad = [0; 3];
                (*seen).stray = from.remote;
                Some(())
            });
        }
    }
}

/// Whether an answer comes from where the connect's socket sends its SYNs.
#[inline(always)]
fn is_asked(connect: &Connect, from: &Tuple) -> bool {
    let socket = if connect.translated & BY_PROGRAM == 0 { &connect.tuple } else { &connect.wire };
    socket.remote_port == from.remote_port && same(&socket.remote, &from.remote)
}

/// A SYN came to a listening socket. If its accept queue is full the kernel will ignore it, without a drop
/// reason: the connect that sent it, when it is one of this host's, has its answer here. Called by the ingress
/// program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syn_came(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    syn_came_inlined(&SkBuffContext::new(skb.cast()), &Packet::of(ends, payload));
    opaque(0)
}

#[inline(always)]
fn syn_came_inlined(ctx: &SkBuffContext, packet: &Packet) {
    // SAFETY: context loads, then direct loads through the BTF-typed socket the helper returns.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return;
        }
        let listener = bpf_skc_to_tcp_sock(socket.cast()).cast::<u8>();
        if listener.is_null()
            || fields::SK_ACK_BACKLOG::read(listener) <= fields::SK_MAX_ACK_BACKLOG::read(listener)
        {
            return;
        }
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
            netns: netns_of(fields::SK_NET::read(listener)),
            ifindex: (*ctx.skb.skb).ifindex,
            reason: u32::MAX,
            at: packet::SYN | place::ARRIVED | place::ROUTED | place::LOCAL | place::QUEUE_FULL,
            ..Dropped::default()
        };
        dropped(connect, &mut seen);
    }
}

/// Which packet of a connection that begins it is: one of [`packet`], by its TCP flags.
#[inline(always)]
fn kind_by(flags: u8) -> u32 {
    match (flags & SYN != 0, flags & ACK != 0, flags & RST != 0) {
        (true, false, _) => packet::SYN,
        (true, true, _) => packet::ANSWER,
        (false, _, true) => packet::RESET,
        _ => packet::UNKNOWN,
    }
}

/// The same of a packet, and where its IP and TCP headers begin. Read byte by byte: a buffer for them would be on the
/// stack.
///
/// # Safety
/// `skb` must be a BTF-typed `struct sk_buff`.
#[inline(always)]
unsafe fn headers_of(skb: *const u8) -> (u32, *const u8, *const u8, bool) {
    // SAFETY: direct loads of checked fields; the packet through a helper that cannot fault.
    unsafe {
        let head = fields::SKB_HEAD::read(skb).wrapping_add(fields::SKB_NETWORK_HEADER::read(skb) as usize);
        let byte = |at: *const u8| bpf_probe_read_kernel(at).unwrap_or(0);
        let first = byte(head);
        let v4 = first >> 4 == 4;
        let (at, next) = if v4 {
            (usize::from(first & 15) * 4, byte(head.wrapping_add(9)))
        } else {
            (40, byte(head.wrapping_add(6)))
        };
        let tcp = head.wrapping_add(at);
        let is_tcp = next == IPPROTO_TCP as u8 && (v4 || first >> 4 == 6);
        let kind = if is_tcp { kind_by(byte(tcp.wrapping_add(13))) } else { packet::UNKNOWN };
        (kind, head, tcp, v4)
    }
}

/// The way of a SYN, of an answer to one, or of a reset, seen from the connecting side, into `way`. Which of them it is:
/// [`packet::UNKNOWN`] for none, and then nothing is written.
///
/// # Safety
/// `skb` must be a BTF-typed `struct sk_buff`.
#[inline(always)]
unsafe fn way_of(skb: *const u8, way: &mut Tuple) -> u32 {
    // SAFETY: the packet through a helper that cannot fault.
    unsafe {
        let (kind, ip, tcp, v4) = headers_of(skb);
        if kind == packet::UNKNOWN {
            return kind;
        }
        let (source, target, length) = if v4 { (12, 16, 4) } else { (8, 24, 16) };
        let (local, remote) = if kind == packet::SYN { (source, target) } else { (target, source) };
        if length == 4 {
            way.local = mapped(bpf_probe_read_kernel(ip.wrapping_add(local).cast::<u32>()).unwrap_or(0));
            way.remote = mapped(bpf_probe_read_kernel(ip.wrapping_add(remote).cast::<u32>()).unwrap_or(0));
        } else if bpf_probe_read_kernel_buf(ip.wrapping_add(local), &mut way.local).is_err()
            || bpf_probe_read_kernel_buf(ip.wrapping_add(remote), &mut way.remote).is_err()
        {
            return packet::UNKNOWN;
        }
        let port = |at: usize| u16::from_be(bpf_probe_read_kernel(tcp.wrapping_add(at).cast()).unwrap_or(0));
        (way.local_port, way.remote_port) =
            if kind == packet::SYN { (port(0), port(2)) } else { (port(2), port(0)) };
        kind
    }
}

#[inline(always)]
fn way(local: [u8; 16], remote: [u8; 16], local_port: u16, remote_port: u16) -> Tuple {
    Tuple { local, remote, local_port, remote_port, family: 0, protocol: IPPROTO_TCP }
}

/// A SYN left the IP layer of the connecting socket. Called by the egress program.
#[inline(always)]
pub fn syn_left(ctx: &SkBuffContext, packet: &Packet) {
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
