//! The call of each thread: what it asks for, noted as connect(2) is entered, who calls, in the cgroup hook, and what
//! the call returns where no socket will say.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    EbpfContext, Global,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user_buf, generated::bpf_get_socket_cookie},
    macros::{map, tracepoint},
    maps::{Array, LruHashMap},
    programs::{SockAddrContext, TracePointContext},
};

use super::{
    Connect, phase,
    report::{end, report},
    translated,
};
use crate::{
    abi::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Kind, Netns, Owner, ProbeId, Tuple},
    bpf::{
        address::{destination, mapped, same_address, unspecified},
        filter::{self, enabled},
        netns::current_netns,
        owner::{PENDING, SOCKETS, current},
        time::now,
        verifier::opaque,
    },
};

/// include/uapi/asm-generic/errno.h.
const EINPROGRESS: i32 = 115;

/// The last call of each thread, in which it may still be. Kept when it returns, and written over by the next one:
/// to take an entry out of such a map and put it in again costs more than all else a connect costs here.
#[map]
static CALLS: LruHashMap<u64, Connect> = LruHashMap::with_max_entries(1 << 12, 0);

/// An empty one, to begin from. Never written.
#[map]
static NO_CONNECT: Array<Connect> = Array::with_max_entries(1, 0);

/// 1: `connect(2)`'s return is watched, so that errors without a socket error wait for it.
#[unsafe(no_mangle)]
pub(super) static HAVE_CONNECT_EXIT: Global<u32> = Global::new(0);
/// The calling thread.
#[inline(always)]
pub(crate) fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// The call a thread is in, or was in last.
#[inline(always)]
pub(crate) fn of(thread: u64) -> Option<*mut Connect> {
    CALLS.get_ptr_mut(&thread)
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
pub(crate) fn asked_of(call: Option<*mut Connect>) -> ([u8; 16], u16) {
    match call {
        // SAFETY: a live map value; this thread alone writes its entry.
        Some(call) => unsafe {
            let entered = (*call).phase == phase::ENTERED && HAVE_CONNECT_EXIT.load() != 0;
            // Or the compiler writes what follows once for each of the two.
            ((*call).tuple.remote, opaque(if entered { (*call).tuple.remote_port.into() } else { 0 }) as u16)
        },
        None => ([0; 16], 0),
    }
}

/// A thread calls connect(): `entry` is its entry as [`of`] found it.
#[inline(always)]
pub(crate) fn called(ctx: &SockAddrContext, v6: bool, thread: u64, entry: Option<*mut Connect>) {
    let asked = asked_of(entry);
    let Some(wanted) = wanted(ctx, v6) else { return };
    let call = match entry {
        Some(call) => call,
        None => {
            let Some(none) = NO_CONNECT.get_ptr(0) else { return };
            // SAFETY: a live array slot that is never written.
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
        ((*call).translated, (*call).icmp, (*call).unread_errno, (*call).flags) = (0, 0, 0, 0);
        (*call).icmp_netns = Netns::numbered(0);
        ask(&mut *call, asked.0, asked.1);
        if wanted.protocol == IPPROTO_UDP {
            let _ = SOCKETS.insert(&(*call).cookie, &(*call).owner, 0);
            if enabled(ProbeId::CONNECT) && filter::beginnings() {
                report(Kind::CONNECT_START, &*call);
            }
        }
    }
}

/// The program asked for this destination: where the socket goes stands in `tuple` and is another place if it differs.
#[inline(always)]
pub(super) fn ask(connect: &mut Connect, remote: [u8; 16], port: u16) {
    if port == 0
        || unspecified(&remote)
        || (port == connect.tuple.remote_port && same_address(&remote, &connect.tuple.remote))
    {
        return;
    }
    connect.wire = connect.tuple;
    connect.translated = translated::BY_PROGRAM;
    connect.tuple.remote = remote;
    connect.tuple.remote_port = port;
}

/// Runs once per connect(2): a call io_uring made in this thread is over, as far as is seen; and what is asked
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
                // One under way whose SYN was not seen: the kernel left `set_state` out, and counts it.
                None => (*call).phase == phase::CALLED && ret != -i64::from(EINPROGRESS),
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
