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
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user_buf,
        generated::bpf_get_socket_cookie,
    },
    macros::{btf_tracepoint, cgroup_sock_addr, map, tracepoint},
    maps::{Array, HashMap, LruHashMap},
    programs::{BtfTracePointContext, SockAddrContext, TracePointContext},
};

use super::{Connect, ConnectRecord, icmp, phase, translated};
use crate::{
    abi::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Kind, Netns, Owner, ProbeId, Stat, Tuple},
    call, fields, filter,
    kernel::{
        SOCKETS, count, current, current_netns, emit, enabled, header, mapped, netns, now, opaque, tuple_of,
    },
    metrics::{Ended, Timed, counter, program as metrics},
    probes::{dns::asked as dns, neigh::road, tls::program as tls},
};

/// TCP states of include/net/tcp_states.h.
const TCP_ESTABLISHED: i32 = 1;
pub(super) const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;

/// Connects in flight, by socket cookie. Gone when the connect ends.
#[map]
pub static PENDING: HashMap<u64, Connect> = HashMap::with_max_entries(1 << 14, 0);

/// The last call of each thread, in which it may still be. Kept when it returns, and written over by the next one:
/// to take an entry out of such a map and put it in again costs more than all else a connect costs here.
#[map]
static CALLS: LruHashMap<u64, Connect> = LruHashMap::with_max_entries(1 << 12, 0);

/// An empty one, to begin from. Never written.
#[map]
static NO_CONNECT: Array<Connect> = Array::with_max_entries(1, 0);

/// Processes and ports of which the last connect failed; used when only the unhealthy is told.
#[map]
static FAILED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1 << 10, 0);

/// 1: `connect(2)`'s return is watched, so that errors without a socket error wait for it.
#[unsafe(no_mangle)]
static HAVE_CONNECT_EXIT: Global<u32> = Global::new(0);
/// 1: errors that SO_ERROR hands out are seen.
#[unsafe(no_mangle)]
static HAVE_SO_ERROR: Global<u32> = Global::new(0);

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
pub(super) fn tell(kind: Kind, connect: &Connect) {
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

/// Destination address, port (host order) and protocol of the call.
#[inline(always)]
pub fn destination(ctx: &SockAddrContext, v6: bool) -> ([u8; 16], u16, u16) {
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

/// A call that is wanted: by whom, and where to.
struct Wanted {
    owner: Owner,
    remote: [u8; 16],
    port: u16,
    protocol: u16,
}

#[inline(always)]
fn wanted(ctx: &SockAddrContext, v6: bool) -> Option<Wanted> {
    let (remote, port, protocol) = destination(ctx, v6);
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return None;
    }
    let is_v6 = v6 && remote[..12] != crate::abi::V4_MAPPED;
    if !filter::peer(&remote, is_v6, port) {
        return None;
    }
    // The namespace of a TCP socket is read from the socket, once it sends its SYN.
    let netns = if protocol == IPPROTO_TCP { Netns::numbered(0) } else { current_netns() };
    let owner = current(netns);
    filter::caller(&owner).then_some(Wanted { owner, remote, port, protocol })
}

#[inline(always)]
pub(super) fn connect_of(ctx: &SockAddrContext, v6: bool) -> Option<Connect> {
    let Wanted { owner, remote, port, protocol } = wanted(ctx, v6)?;
    Some(Connect {
        // SAFETY: the context of a cgroup sock_addr program.
        cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) },
        owner,
        tuple: Tuple {
            local: [0; 16],
            remote,
            local_port: 0,
            remote_port: port,
            family: if v6 { AF_INET6 } else { AF_INET },
            protocol,
        },
        started_ns: now(),
        ..Connect::default()
    })
}

/// What the calling thread asked connect(2) for, if it is in such a call: other programs may have changed it since.
/// Port 0: it is not. (No `Option`: the compiler leaves the rest of an empty one undefined, and 5.10 refuses to copy
/// that.)
#[inline(always)]
fn asked_of(call: Option<*mut Connect>) -> ([u8; 16], u16) {
    match call {
        // SAFETY: a live map value; this thread alone writes its entry.
        Some(call) => unsafe {
            let entered = (*call).phase == phase::ENTERED && HAVE_CONNECT_EXIT.load() != 0;
            ((*call).tuple.remote, if entered { (*call).tuple.remote_port } else { 0 })
        },
        None => ([0; 16], 0),
    }
}

/// Runs once per connect, in the calling thread, io_uring workers included; the cheapest hook
/// that has owner, destination and cookie together.
#[inline(always)]
fn call(ctx: &SockAddrContext, v6: bool) {
    let thread = bpf_get_current_pid_tgid();
    let entry = CALLS.get_ptr_mut(&thread);
    let asked = asked_of(entry);
    if enabled(ProbeId::Dns) {
        dns::connects(ctx, v6, asked);
    }
    let Some(wanted) = wanted(ctx, v6) else { return };
    let call = match entry {
        Some(call) => call,
        None => {
            let Some(none) = NO_CONNECT.get_ptr(0) else { return };
            // SAFETY: a live array slot that nobody writes.
            let _ = CALLS.insert(&thread, unsafe { &*none }, 0);
            let Some(call) = CALLS.get_ptr_mut(&thread) else { return };
            call
        }
    };
    // SAFETY: a live map value, which this thread alone writes. Field by field: a connect made first would be on the
    // stack twice, and kernels before 6.12 count that against the 512 bytes of all frames.
    unsafe {
        (*call).cookie = bpf_get_socket_cookie(ctx.as_ptr());
        (*call).owner = wanted.owner;
        (*call).tuple.local = [0; 16];
        (*call).tuple.remote = wanted.remote;
        (*call).tuple.local_port = 0;
        (*call).tuple.remote_port = wanted.port;
        (*call).tuple.family = if v6 { AF_INET6 } else { AF_INET };
        (*call).tuple.protocol = wanted.protocol;
        (*call).started_ns = now();
        ((*call).retries, (*call).syns, (*call).drops, (*call).drop_reason) = (0, 0, 0, 0);
        ((*call).errno, (*call).phase, (*call).established, (*call).drop_where) = (0, phase::CALLED, 0, 0);
        (*call).wire = Tuple::default();
        ((*call).translated, (*call).icmp, (*call).unread_errno) = (0, 0, 0);
        (*call).icmp_netns = Netns::numbered(0);
        ask(&mut *call, asked.0, asked.1);
        if wanted.protocol == IPPROTO_UDP {
            let _ = SOCKETS.insert(&(*call).cookie, &(*call).owner, 0);
            if enabled(ProbeId::Connect) && filter::beginnings() {
                tell(Kind::ConnectStart, &*call);
            }
        }
    }
}

/// The program asked for this destination: where the socket goes stands in `tuple` and is another place if it differs.
#[inline(always)]
fn ask(connect: &mut Connect, remote: [u8; 16], port: u16) {
    if port == 0
        || unspecified(&remote)
        || (port == connect.tuple.remote_port && same(&remote, &connect.tuple.remote))
    {
        return;
    }
    connect.wire = connect.tuple;
    connect.translated = translated::BY_PROGRAM;
    connect.tuple.remote = remote;
    connect.tuple.remote_port = port;
}

/// Whether two addresses are the same: two compares, not a call.
#[inline(always)]
pub fn same(one: &[u8; 16], two: &[u8; 16]) -> bool {
    // SAFETY: bytes become integers.
    let (one, two) = unsafe {
        (core::mem::transmute::<[u8; 16], [u64; 2]>(*one), core::mem::transmute::<[u8; 16], [u64; 2]>(*two))
    };
    one[0] == two[0] && one[1] == two[1]
}

/// `0.0.0.0` or `::`, by which the kernel understands its own loopback.
#[inline(always)]
pub fn unspecified(address: &[u8; 16]) -> bool {
    same(address, &[0; 16]) || same(address, &mapped(0))
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
        if old == TCP_SYN_RECV && new == TCP_ESTABLISHED && enabled(ProbeId::Tls) {
            tls::accepted(sk);
        }
        if (new == TCP_FIN_WAIT1 || new == TCP_LAST_ACK) && enabled(ProbeId::Tls) {
            tls::finishing(sk, fields::SK_COOKIE::read(sk));
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
            call!(syn_sent(sk, cookie));
        } else if old == TCP_SYN_SENT {
            call!(settled(sk, cookie, u64::from(new == TCP_ESTABLISHED)));
        }
        if new == TCP_CLOSE {
            if enabled(ProbeId::Tls) {
                call!(tls::tls_closed(cookie));
            }
            if filter::remember() {
                let _ = SOCKETS.remove(&cookie);
            }
        }
    }
    0
}

/// In the calling thread. Not inlined, for the stack.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(never)]
unsafe fn syn_sent(sk: *const u8, cookie: u64) -> u64 {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = CALLS.get_ptr_mut(&thread) else { return opaque(0) };
    // SAFETY: a live map value; this thread alone writes its entry. `sk` as promised.
    unsafe {
        if (*call).cookie != cookie || (*call).phase != phase::CALLED {
            return opaque(0);
        }
        (*call).phase = phase::SYN_SENT;
        let (remote, port) = ((*call).tuple.remote, (*call).tuple.remote_port);
        (*call).tuple = tuple_of(sk);
        (*call).translated = 0;
        ask(&mut *call, remote, port);
        (*call).owner.netns = netns(fields::SK_NET::read(sk));
        if filter::remember() {
            let _ = SOCKETS.insert(&cookie, &(*call).owner, 0);
        }
        if PENDING.insert(&cookie, &*call, 0).is_err() {
            count(ProbeId::Connect, Stat::MapFull);
            return opaque(0);
        }
        if enabled(ProbeId::Connect) && filter::beginnings() {
            tell(Kind::ConnectStart, &*call);
        }
    }
    opaque(0)
}

/// In whatever context: `current` means nothing unless it is the thread inside the call. Not inlined, for the stack.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(never)]
unsafe fn settled(sk: *const u8, cookie: u64, established: u64) -> u64 {
    let established = established != 0;
    let Some(connect) = PENDING.get_ptr_mut(&cookie) else { return opaque(0) };
    // SAFETY: a live map value, written by this socket's transitions only; `sk` as promised.
    unsafe {
        if !established {
            let error = fields::SK_ERR::read(sk);
            if error != 0 {
                (*connect).errno = error;
            }
            if (*connect).tuple.local_port == 0 {
                // No SYN got as far as leaving; the port is given back already, and still stands here.
                let port = bpf_probe_read_kernel(fields::INET_SPORT::address(sk)).unwrap_or(0);
                (*connect).tuple.local_port = u16::from_be(port);
            }
            icmp::note(&mut *connect);
            (*connect).unread_errno = fields::SK_ERR_SOFT::read(sk);
            if (*connect).errno == 0 && HAVE_SO_ERROR.load() == 0 && (*connect).unread_errno == 0 {
                // The error that this host's ICMP left with the socket is gone: somebody was told it.
                (*connect).errno = icmp::errno(&*connect);
            }
            if (*connect).errno == 0 && HAVE_CONNECT_EXIT.load() != 0 {
                let thread = bpf_get_current_pid_tgid();
                if let Some(call) = CALLS.get_ptr(&thread)
                    && (*call).cookie == cookie
                    && (*call).phase != phase::RETURNED
                {
                    (*connect).phase = phase::GIVEN_UP;
                    return opaque(0);
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
    opaque(0)
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
            let mut connect = Connect {
                cookie,
                owner: *owner,
                tuple: tuple_of(sk),
                started_ns: at,
                errno: error,
                ..Connect::default()
            };
            icmp::note_datagram(&mut connect);
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
            if filter::quiet() && (*connect).retries == 1 {
                // What the process succeeds with meanwhile, or falls back to, is news.
                let way = u64::from((*connect).owner.process) << 16 | u64::from((*connect).tuple.remote_port);
                let _ = FAILED.insert(&way, &1, 0);
            }
            if (*connect).tuple.local_port == 0 {
                (*connect).tuple.local_port = fields::SK_NUM::read(sk);
            }
            icmp::note(&mut *connect);
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

/// Runs once per connect(2): a call io_uring made in this thread is over, as far as anybody sees; and what is asked
/// for now is noted before any cgroup program changes it.
#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
pub fn enter_connect(ctx: TracePointContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let (remote, port) = user_address(&ctx);
    match CALLS.get_ptr_mut(&thread) {
        // SAFETY: a live map value; this thread alone writes its entry.
        Some(call) => unsafe {
            (*call).phase = if port == 0 { phase::RETURNED } else { phase::ENTERED };
            (*call).tuple.remote = remote;
            (*call).tuple.remote_port = port;
        },
        None if port != 0 => {
            let tuple = Tuple { remote, remote_port: port, ..Tuple::default() };
            let call = Connect { tuple, phase: phase::ENTERED, ..Connect::default() };
            let _ = CALLS.insert(&thread, &call, 0);
        }
        None => {}
    }
    0
}

/// The address and port that a thread hands to connect(2), a `struct sockaddr_in` or `sockaddr_in6`; port 0 of anything
/// else. (No `Option`: the compiler leaves the rest of an empty one undefined, which the verifier refuses to store.)
#[inline(always)]
fn user_address(ctx: &TracePointContext) -> ([u8; 16], u16) {
    const V4_LEN: u64 = 16;
    const V6_LEN: u64 = 24;
    const NONE: ([u8; 16], u16) = ([0; 16], 0);
    // SAFETY: the arguments are at offsets 16, 24 and 32 on every kernel (kernel/trace/trace_syscalls.c); user
    // memory is read by a helper that cannot fault.
    unsafe {
        let (Ok(at), Ok(len)) = (ctx.read_at::<u64>(24), ctx.read_at::<u64>(32)) else { return NONE };
        if len < V4_LEN {
            return NONE;
        }
        let at = at as *const u8;
        let mut head = [0u8; 8];
        if bpf_probe_read_user_buf(at, &mut head).is_err() {
            return NONE;
        }
        let port = u16::from_be_bytes([head[2], head[3]]);
        let family = u16::from_ne_bytes([head[0], head[1]]);
        if family == AF_INET {
            return (mapped(u32::from_ne_bytes([head[4], head[5], head[6], head[7]])), port);
        }
        let mut address = [0u8; 16];
        if family != AF_INET6
            || len < V6_LEN
            || bpf_probe_read_user_buf(at.wrapping_add(8), &mut address).is_err()
        {
            return NONE;
        }
        (address, port)
    }
}

/// Runs once per connect(2): the error of a connect that never got to send a SYN.
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn exit_connect(ctx: TracePointContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = CALLS.get_ptr_mut(&thread) else { return 0 };
    // SAFETY: a live map value; this thread alone writes its entry.
    let phase = unsafe { (*call).phase };
    if phase == phase::RETURNED || phase == phase::ENTERED {
        // It never got as far as the hook that writes the entry.
        // SAFETY: as above.
        unsafe { (*call).phase = phase::RETURNED };
        return 0;
    }
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
                if !(*call).owner.netns.is_known() {
                    (*call).owner.netns = current_netns();
                }
                end(&*call);
                let _ = PENDING.remove(&cookie);
            }
        }
        (*call).phase = phase::RETURNED;
    }
    0
}
