//! The programs behind `connect`: see there for what they tell and why these hooks.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    EbpfContext, Global,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel_buf, generated::bpf_get_socket_cookie},
    macros::{btf_tracepoint, cgroup_sock_addr, map, tracepoint},
    maps::{HashMap, LruHashMap},
    programs::{BtfTracePointContext, SkBuffContext, SockAddrContext, TracePointContext},
};

use super::{Connect, ConnectRecord, phase};
use crate::{
    abi::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Kind, Owner, ProbeId, Stat, Tuple},
    fields, filter,
    kernel::{SOCKETS, count, current, current_netns, emit, enabled, header, mapped, now, tuple_of},
    metrics::{Ended, Timed, counter, program as metrics},
    packet::program::Packet,
    probes::{neigh::road, tls::program as tls},
};

/// TCP states of include/net/tcp_states.h.
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;

/// Connects in flight, by socket cookie. Gone when the connect ends.
#[map]
pub static PENDING: HashMap<u64, Connect> = HashMap::with_max_entries(1 << 14, 0);

/// The call each thread is in, by thread. Overwritten by its next one.
#[map]
static CALLS: LruHashMap<u64, Connect> = LruHashMap::with_max_entries(1 << 12, 0);

/// The way of each SYN that left the IP layer, to find a connect by a packet dropped further on.
#[map]
static WAYS: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(1 << 13, 0);

/// Unconnected UDP destinations already told, by cookie and destination.
#[map]
static TOLD: LruHashMap<Told, u32> = LruHashMap::with_max_entries(1 << 13, 0);

/// Processes and ports of which the last connect failed; used when only the unhealthy is told.
#[map]
static FAILED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1 << 10, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Told {
    cookie: u64,
    remote: [u8; 16],
    port: u64,
}

/// 1: `connect(2)`'s return is watched, so that errors without a socket error wait for it.
#[unsafe(no_mangle)]
static HAVE_CONNECT_EXIT: Global<u32> = Global::new(0);
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

/// Writes whose socket it is, as far as that is known.
///
/// # Safety
/// `to` must be a reservation or another live place.
#[inline(always)]
pub unsafe fn write_owner(cookie: u64, to: *mut Owner) {
    // SAFETY: live map values; `to` as promised by the caller.
    unsafe {
        if let Some(connect) = PENDING.get_ptr(&cookie) {
            to.write((*connect).owner);
        } else if let Some(owner) = SOCKETS.get_ptr(&cookie) {
            to.write(*owner);
        } else {
            to.write(Owner::default());
        }
    }
}

#[inline(always)]
fn tell(kind: Kind, connect: &Connect) {
    emit::<ConnectRecord>(ProbeId::Connect, |record| {
        // SAFETY: a fresh reservation of the record's size; every byte is written.
        unsafe { record.write(ConnectRecord { header: header::<ConnectRecord>(kind), connect: *connect }) };
        Some(())
    });
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    call(&ctx, false);
    1
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    call(&ctx, true);
    1
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    call_udp_send(&ctx, false);
    1
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    call_udp_send(&ctx, true);
    1
}

/// Destination address, port (host order) and protocol of the call.
#[inline(always)]
fn destination(ctx: &SockAddrContext, v6: bool) -> ([u8; 16], u16, u16) {
    let addr: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: context loads of the widths the verifier asks for.
    unsafe {
        let remote = if v6 {
            let at = (&raw const (*addr).user_ip6).cast::<u32>();
            let words = [
                at.read_volatile(),
                at.add(1).read_volatile(),
                at.add(2).read_volatile(),
                at.add(3).read_volatile(),
            ];
            core::mem::transmute::<[u32; 4], [u8; 16]>(words)
        } else {
            mapped((&raw const (*addr).user_ip4).read_volatile())
        };
        let port = u16::from_be((&raw const (*addr).user_port).read_volatile() as u16);
        (remote, port, (&raw const (*addr).protocol).read_volatile() as u16)
    }
}

#[inline(always)]
fn connect_of(ctx: &SockAddrContext, v6: bool) -> Option<Connect> {
    let (remote, remote_port, protocol) = destination(ctx, v6);
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return None;
    }
    let is_v6 = v6 && remote[..12] != crate::abi::V4_MAPPED;
    if !filter::peer(&remote, is_v6, remote_port) {
        return None;
    }
    // The namespace of a TCP socket is read from the socket, once it sends its SYN.
    let netns = if protocol == IPPROTO_TCP { 0 } else { current_netns() };
    let owner = current(netns);
    if !filter::caller(&owner) {
        return None;
    }
    let family = if v6 { AF_INET6 } else { AF_INET };
    Some(Connect {
        // SAFETY: the context of a cgroup sock_addr program.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        owner,
        tuple: Tuple { local: [0; 16], remote, local_port: 0, remote_port, family, protocol },
        started_ns: now(),
        ..Connect::default()
    })
}

/// Runs once per connect, in the calling thread, io_uring workers included; the cheapest hook
/// that has owner, destination and cookie together.
#[inline(always)]
fn call(ctx: &SockAddrContext, v6: bool) {
    let Some(connect) = connect_of(ctx, v6) else { return };
    let thread = bpf_get_current_pid_tgid();
    let _ = CALLS.insert(&thread, &connect, 0);
    if connect.tuple.protocol == IPPROTO_UDP {
        let _ = SOCKETS.insert(&connect.cookie, &connect.owner, 0);
        if enabled(ProbeId::Connect) && filter::beginnings() {
            tell(Kind::ConnectStart, &connect);
        }
    }
}

/// Below the ports the kernel gives to clients by default: net.ipv4.ip_local_port_range.
const FIRST_EPHEMERAL: u32 = 32768;

/// Whether a datagram answers a client: from a service's port to an ephemeral one.
#[inline(always)]
fn answers(ctx: &SockAddrContext, port: u16) -> bool {
    // SAFETY: context loads, the socket's checked for null.
    unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        if socket.is_null() {
            return false;
        }
        let local = (&raw const (*socket).src_port).read_volatile();
        local != 0 && local < FIRST_EPHEMERAL && u32::from(port) >= FIRST_EPHEMERAL
    }
}

/// Runs once per datagram of an unconnected UDP socket; told once per destination, and not when a
/// service answers its clients.
#[inline(always)]
fn call_udp_send(ctx: &SockAddrContext, v6: bool) {
    let (remote, port, _) = destination(ctx, v6);
    if answers(ctx, port) {
        return;
    }
    // SAFETY: the context of a cgroup sock_addr program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let told = Told { cookie, remote, port: u64::from(port) };
    if TOLD.get_ptr(&told).is_some() {
        return;
    }
    let Some(connect) = connect_of(ctx, v6) else { return };
    let _ = TOLD.insert(&told, &1, 0);
    let _ = SOCKETS.insert(&cookie, &connect.owner, 0);
    if enabled(ProbeId::Connect) && filter::beginnings() {
        tell(Kind::ConnectStart, &connect);
    }
}

/// Runs at each state change of each TCP socket: two loads and two compares for those in between.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    // SAFETY: `sk` is a BTF-typed argument.
    unsafe {
        if new == TCP_ESTABLISHED && enabled(ProbeId::Neigh) {
            road::established(sk);
        }
        if old != TCP_SYN_SENT && new != TCP_SYN_SENT && new != TCP_CLOSE {
            return 0;
        }
        if fields::SK_PROTOCOL::read(sk) != IPPROTO_TCP {
            return 0;
        }
        let cookie = fields::SK_COOKIE::read(sk);
        if cookie == 0 {
            return 0;
        }
        if new == TCP_SYN_SENT {
            syn_sent(sk, cookie);
        } else if old == TCP_SYN_SENT {
            settled(sk, cookie, new == TCP_ESTABLISHED);
        }
        if new == TCP_CLOSE {
            if enabled(ProbeId::Tls) {
                tls::closed(cookie);
            }
            if filter::remember() {
                let _ = SOCKETS.remove(&cookie);
            }
        }
    }
    0
}

/// In the calling thread.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
unsafe fn syn_sent(sk: *const u8, cookie: u64) {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = CALLS.get_ptr_mut(&thread) else { return };
    // SAFETY: a live map value; this thread alone writes its entry. `sk` as promised.
    unsafe {
        if (*call).cookie != cookie {
            return;
        }
        (*call).phase = phase::SYN_SENT;
        (*call).tuple = tuple_of(sk);
        (*call).owner.netns = fields::NET_INUM::read(fields::SK_NET::read(sk));
        if filter::remember() {
            let _ = SOCKETS.insert(&cookie, &(*call).owner, 0);
        }
        if PENDING.insert(&cookie, &*call, 0).is_err() {
            return count(ProbeId::Connect, Stat::MapFull);
        }
        if enabled(ProbeId::Connect) && filter::beginnings() {
            tell(Kind::ConnectStart, &*call);
        }
    }
}

/// In whatever context: `current` means nothing unless it is the thread inside the call.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
unsafe fn settled(sk: *const u8, cookie: u64, established: bool) {
    let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value, written by this socket's transitions only; `sk` as promised.
    unsafe {
        if !established {
            let error = fields::SK_ERR::read(sk);
            if error != 0 {
                (*connect).errno = error;
            }
            if (*connect).errno == 0 && HAVE_CONNECT_EXIT.load() != 0 {
                let thread = bpf_get_current_pid_tgid();
                if let Some(call) = CALLS.get_ptr(&thread)
                    && (*call).cookie == cookie
                {
                    (*connect).phase = phase::GIVEN_UP;
                    return;
                }
            }
        }
        (*connect).established = u32::from(established);
        let local_port = fields::SK_NUM::read(sk);
        if local_port != 0 {
            (*connect).tuple.local_port = local_port;
        }
        end(&*connect);
    }
    let _ = PENDING.remove(&cookie);
}

#[inline(always)]
fn end(connect: &Connect) {
    let lasted = now() - connect.started_ns;
    if enabled(ProbeId::Connect) && connect.tuple.protocol == IPPROTO_TCP {
        let established = connect.established != 0;
        let ended = if established { Ended::Established } else { Ended::by_error(connect.errno) };
        metrics::add(counter::CONNECTS + ended as u32);
        let timed = if established { Timed::ConnectEstablished } else { Timed::ConnectFailed };
        metrics::took(timed as u32, lasted);
    }
    let mut bad = connect.established == 0 || connect.retries != 0 || connect.drops != 0;
    if filter::quiet() {
        // A success after a failure is news: it was a fallback, or it is over.
        let way = u64::from(connect.owner.process) << 16 | u64::from(connect.tuple.remote_port);
        if connect.established == 0 {
            let _ = FAILED.insert(&way, &1, 0);
        } else if FAILED.get_ptr(&way).is_some() {
            let _ = FAILED.remove(&way);
            bad = true;
        }
    }
    if enabled(ProbeId::Connect) && filter::worth(lasted, bad) {
        tell(Kind::ConnectEnd, connect);
    }
}

/// Runs when a socket is given an error to report; rare.
#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn sk_error(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: `sk` is a BTF-typed argument.
    unsafe {
        let error = fields::SK_ERR::read(sk);
        let cookie = fields::SK_COOKIE::read(sk);
        if error == 0 || cookie == 0 {
            return 0;
        }
        let protocol = fields::SK_PROTOCOL::read(sk);
        if protocol == IPPROTO_TCP && i32::from(fields::SK_STATE::read(sk)) == TCP_SYN_SENT {
            if let Some(connect) = PENDING.get_ptr_mut(&cookie) {
                (*connect).errno = error;
            }
        } else if protocol == IPPROTO_UDP
            && let Some(owner) = SOCKETS.get_ptr(&cookie)
        {
            let at = now();
            let connect = Connect {
                cookie,
                owner: *owner,
                tuple: tuple_of(sk),
                started_ns: at,
                errno: error,
                ..Connect::default()
            };
            tell(Kind::ConnectEnd, &connect);
        }
    }
    0
}

/// Runs at each TCP retransmission: a few loads for those of established connections.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn retransmit(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: `sk` is a BTF-typed argument; the map value is live.
    unsafe {
        let syn = i32::from(fields::SK_STATE::read(sk)) == TCP_SYN_SENT;
        if enabled(ProbeId::Neigh) {
            road::sent_again(sk, syn);
        }
        if syn && let Some(connect) = PENDING.get_ptr_mut(&fields::SK_COOKIE::read(sk)) {
            (*connect).retries += 1;
            if enabled(ProbeId::Connect) {
                metrics::add(counter::SYN_RETRIES);
            }
            if enabled(ProbeId::Connect) && filter::MIN_NS.load() == 0 && !filter::quiet() {
                tell(Kind::ConnectRetry, &*connect);
            }
        }
    }
    0
}

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

/// Runs once per connect(2): forgets a call io_uring left behind.
#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
pub fn enter_connect(_: TracePointContext) -> u32 {
    let _ = CALLS.remove(&bpf_get_current_pid_tgid());
    0
}

/// Runs once per connect(2): the error of a connect that never got to send a SYN.
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn exit_connect(ctx: TracePointContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = CALLS.get_ptr_mut(&thread) else { return 0 };
    // SAFETY: `ret` is at offset 16 on every kernel (kernel/trace/trace_syscalls.c).
    let Ok(ret) = (unsafe { ctx.read_at::<i64>(16) }) else { return 0 };
    // SAFETY: a live map value; this thread alone writes its entry.
    unsafe {
        if ret < 0 {
            let cookie = (*call).cookie;
            let over = match PENDING.get_ptr(&cookie) {
                Some(connect) => (*connect).phase == phase::GIVEN_UP,
                None => (*call).phase == phase::CALLED,
            };
            if over {
                (*call).errno = -ret as i32;
                if (*call).owner.netns == 0 {
                    (*call).owner.netns = current_netns();
                }
                end(&*call);
                let _ = PENDING.remove(&cookie);
            }
        }
    }
    let _ = CALLS.remove(&thread);
    0
}
