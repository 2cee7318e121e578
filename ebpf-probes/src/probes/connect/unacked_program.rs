//! Connections whose data is sent again and again and not acknowledged: noted at the second timeout in a row, which
//! healthy loss does not come to, and asked by the agent how they do until something is acknowledged or they end. Nothing
//! of them crosses the ring.
//!
//! They are known by the address of their socket: connections from before the start have no cookie. The kernel gives that
//! address to another one: what is read there is believed only when ends and cookie are the same.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel, generated::bpf_jiffies64},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};

use super::{Fresh, PeerAt, Unacked, unacked};
use crate::{
    abi::{ProbeId, Stat, V4_MAPPED},
    bpf::{
        address::{tuple_at, write_tuple_at},
        counters::count,
        filter::{self, enabled},
        netns::netns_at,
        owner::{write_of_task, write_owner},
        tcp::state,
        time::{SECOND, TICK_NS, now},
        verifier::{call, opaque},
    },
    fields,
};

/// By the address of the socket. The agent removes what is over.
#[map]
static UNACKED: HashMap<u64, Unacked> = HashMap::with_max_entries(1 << 11, 0);

/// An empty one, to begin from. Never written.
#[map]
static NO_UNACKED: Array<Unacked> = Array::with_max_entries(1, 0);

/// Connections established with a peer while some connection is not acknowledged. Least recently used ones give way.
#[map]
static FRESH: LruHashMap<PeerAt, Fresh> = LruHashMap::with_max_entries(1 << 10, 0);

/// Until when some connection is not acknowledged, CLOCK_BOOTTIME in nanoseconds: what else happens is of interest then.
#[map]
static UNACKED_UNTIL: Array<u64> = Array::with_max_entries(1, 0);

/// Timeouts in a row from which on a connection is noted.
const TIMEOUTS: u8 = 2;
/// The next timeout comes within this long (`TCP_RTO_MAX` of include/net/tcp.h is 120 s).
const INTEREST_NS: u64 = 130 * SECOND;
/// A stamp older than this is none.
const FORGOTTEN_MS: u32 = 3_600_000;

/// Whether some connection is not acknowledged now.
#[inline(always)]
pub(crate) fn any() -> bool {
    // SAFETY: a load from a live array slot.
    UNACKED_UNTIL.get_ptr(0).is_some_and(|until| unsafe { *until != 0 && *until > now() })
}

#[inline(always)]
fn interest(at: u64) {
    if let Some(until) = UNACKED_UNTIL.get_ptr_mut(0) {
        // SAFETY: a live array slot; every writer writes about the same.
        unsafe { *until = at + INTEREST_NS }
    }
}

/// A segment with data was sent again, of `len` bytes. Called by the program behind `tcp_retransmit_skb`.
#[inline(always)]
pub(crate) fn sent_again(sk: *const u8, len: u32) -> u64 {
    // SAFETY: a helper that cannot fault.
    let timeouts = unsafe { bpf_probe_read_kernel(fields::ICSK_RETRANSMITS::address(sk)).unwrap_or(0) };
    if timeouts < TIMEOUTS {
        return 0;
    }
    call!(noted(sk, u64::from(len)))
}

/// Not inlined, for the stack.
#[inline(never)]
fn noted(sk: *const u8, len: u64) -> u64 {
    let key = sk as u64;
    let at = now();
    let known = UNACKED.get_ptr_mut(&key);
    let found = match known {
        Some(known) => known,
        None => {
            if call!(wanted(sk)) == 0 {
                return opaque(0);
            }
            let Some(made) = made(key) else { return opaque(0) };
            call!(begin(sk, made, at));
            made
        }
    };
    // SAFETY: a live map value.
    unsafe {
        if !same(sk, found) || (*found).una != una_of(sk) {
            call!(begin(sk, found, at));
        }
        (*found).again_ns = at;
        if len != 0 {
            (*found).segment = len as u32;
        }
    }
    call!(refresh(sk, found));
    interest(at);
    opaque(0)
}

/// A socket that a task has, found by the agent's walk when it starts: data of it is not acknowledged.
#[inline(never)]
pub(crate) fn adopt(sk: *const u8, task: *const u8) -> u64 {
    let key = sk as u64;
    // SAFETY: helpers that cannot fault.
    let timeouts = unsafe { bpf_probe_read_kernel(fields::ICSK_RETRANSMITS::address(sk)).unwrap_or(0) };
    let known = UNACKED.get_ptr_mut(&key);
    let found = match known {
        Some(known) => known,
        None => {
            if timeouts == 0 || call!(wanted(sk)) == 0 {
                return opaque(0);
            }
            let Some(made) = made(key) else { return opaque(0) };
            let at = now();
            call!(begin(sk, made, at));
            // SAFETY: a live map value.
            unsafe { (*made).flags |= unacked::ADOPTED };
            interest(at);
            call!(refresh(sk, made));
            made
        }
    };
    own(found, task)
}

/// A socket that a task has, found by a later walk: it is that task's.
#[inline(never)]
pub(crate) fn owned(sk: *const u8, task: *const u8) -> u64 {
    let key = sk as u64;
    let Some(found) = UNACKED.get_ptr_mut(&key) else { return opaque(0) };
    if !same(sk, found) {
        return opaque(0);
    }
    own(found, task)
}

#[inline(always)]
fn own(found: *mut Unacked, task: *const u8) -> u64 {
    // SAFETY: a live map value.
    unsafe {
        if (*found).owner.process == 0 {
            call!(write_of_task(task, &raw mut (*found).owner));
            judge(found);
        }
    }
    opaque(0)
}

/// Notes that its process is not wanted, where some are.
#[inline(always)]
fn judge(known: *mut Unacked) {
    // SAFETY: a live map value.
    unsafe {
        if (*known).owner.process != 0 && !filter::process(&(*known).owner) {
            (*known).flags |= unacked::UNWANTED;
        }
    }
}

/// Looks at a socket again. Called by the program that the agent runs.
#[inline(never)]
pub(crate) fn look(sk: u64) -> u64 {
    let Some(found) = UNACKED.get_ptr_mut(&sk) else { return opaque(0) };
    let sk = sk as *const u8;
    // SAFETY: a live map value.
    unsafe {
        if !same(sk, found) {
            (*found).flags |= unacked::GONE;
        } else if (*found).una == una_of(sk) {
            call!(refresh(sk, found));
        } else {
            call!(refresh(sk, found));
            (*found).flags |= unacked::ACKED;
        }
    }
    opaque(1)
}

/// A socket was closed. Called by the program behind `inet_sock_set_state`, while some connection is not acknowledged.
#[inline(never)]
pub(crate) fn closed(sk: *const u8) -> u64 {
    let key = sk as u64;
    let Some(found) = UNACKED.get_ptr_mut(&key) else { return opaque(0) };
    // SAFETY: a live map value; a helper that cannot fault.
    unsafe {
        (*found).errno = bpf_probe_read_kernel(fields::SK_ERR::address(sk)).unwrap_or(0);
        (*found).flags |= unacked::CLOSED;
    }
    opaque(0)
}

/// A connection was established. Called likewise.
#[inline(never)]
pub(crate) fn established(sk: *const u8, accepted: u64) -> u64 {
    let Some((peer, own_port, port)) = peer_of(sk) else { return opaque(0) };
    let port = if accepted != 0 { own_port } else { port };
    let fresh = Fresh { at_ns: now(), port: u32::from(port), pad: 0 };
    let _ = FRESH.insert(&peer, &fresh, 0);
    opaque(0)
}

/// A packet of a connection was dropped by this host as it left. Called by the program behind `kfree_skb`: where sending
/// fails, some kernels do not say that it was tried.
#[inline(never)]
pub(crate) fn dropped(sk: *const u8, reason: u64) -> u64 {
    // SAFETY: a helper that cannot fault.
    let timeouts = unsafe { bpf_probe_read_kernel(fields::ICSK_RETRANSMITS::address(sk)).unwrap_or(0) };
    if timeouts < TIMEOUTS || !enabled(ProbeId::CONNECT) {
        return opaque(0);
    }
    call!(noted(sk, 0));
    let key = sk as u64;
    if let Some(found) = UNACKED.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe {
            (*found).drops += 1;
            (*found).drop_reason = reason as u32;
        }
    }
    opaque(0)
}

/// Address and namespace of the peer, the own port, the peer's.
#[inline(always)]
fn peer_of(sk: *const u8) -> Option<(PeerAt, u16, u16)> {
    let tuple = tuple_at(sk)?;
    // SAFETY: a helper that cannot fault.
    let netns = unsafe { netns_at(bpf_probe_read_kernel(fields::SK_NET::address(sk)).ok()?)? };
    Some((PeerAt { address: tuple.remote, netns }, tuple.local_port, tuple.remote_port))
}

/// Whether it belongs to a process, and its peer is wanted.
#[inline(never)]
fn wanted(sk: *const u8) -> u64 {
    // SAFETY: a helper that cannot fault.
    let socket = unsafe { bpf_probe_read_kernel(fields::SK_SOCKET::address(sk)) };
    if socket.is_ok_and(<*const u8>::is_null) {
        return opaque(0);
    }
    let Some(tuple) = tuple_at(sk) else { return opaque(0) };
    let v6 = tuple.remote[..12] != V4_MAPPED;
    // Which side this host is is not known: one of the ports decides.
    let by_either = filter::peer(&tuple.remote, v6, tuple.remote_port)
        || filter::peer(&tuple.remote, v6, tuple.local_port);
    opaque(u64::from(by_either))
}

#[inline(always)]
fn made(key: u64) -> Option<*mut Unacked> {
    // SAFETY: a live array slot that is never written.
    if UNACKED.insert(&key, unsafe { &*NO_UNACKED.get_ptr(0)? }, 0).is_err() {
        count(ProbeId::CONNECT, Stat::MapFull);
        return None;
    }
    UNACKED.get_ptr_mut(&key)
}

#[inline(always)]
fn una_of(sk: *const u8) -> u32 {
    // SAFETY: a helper that cannot fault.
    unsafe { bpf_probe_read_kernel(fields::TCP_SND_UNA::address(sk)).unwrap_or(0) }
}

/// Whether the socket is still the same connection's.
#[inline(always)]
fn same(sk: *const u8, known: *const Unacked) -> bool {
    // SAFETY: a live map value; helpers that cannot fault.
    unsafe {
        let cookie = bpf_probe_read_kernel(fields::SK_COOKIE::address(sk)).unwrap_or(0);
        let port = u16::from_be(bpf_probe_read_kernel(fields::SK_DPORT::address(sk)).unwrap_or(0));
        let own_port = bpf_probe_read_kernel(fields::SK_NUM::address(sk)).unwrap_or(0);
        // One that had no cookie may have been given one.
        ((*known).cookie == 0 || (*known).cookie == cookie)
            && (*known).tuple.remote_port == port
            && (*known).tuple.local_port == own_port
    }
}

/// What is so from the beginning.
#[inline(never)]
fn begin(sk: *const u8, known: *mut Unacked, at: u64) -> u64 {
    // SAFETY: a live map value; helpers that cannot fault.
    unsafe {
        let cookie = bpf_probe_read_kernel(fields::SK_COOKIE::address(sk)).unwrap_or(0);
        let net = bpf_probe_read_kernel(fields::SK_NET::address(sk));
        (*known).cookie = cookie;
        if cookie != 0 {
            write_owner(cookie, &raw mut (*known).owner);
        }
        (*known).owner.netns = net.ok().and_then(netns_at).unwrap_or_default();
        call!(write_tuple_at(sk, &raw mut (*known).tuple));
        (*known).una = una_of(sk);
        (*known).since_ns = since(sk, at);
        (*known).flags = 0;
        (*known).drops = 0;
        (*known).segment = 0;
        (*known).fresh_ns = 0;
        (*known).errno = 0;
        let heard = ago(fields::TCP_HEARD::address(sk), at);
        let received = ago(fields::ICSK_RECEIVED::address(sk), at);
        let last = if heard < (*known).since_ns { heard } else { received };
        (*known).before_ns = if last < (*known).since_ns { last } else { 0 };
        judge(known);
    }
    opaque(0)
}

/// When what is not acknowledged was sent first: the stamp of its first retransmission (milliseconds of CLOCK_MONOTONIC),
/// and the timeout before it.
#[inline(always)]
fn since(sk: *const u8, at: u64) -> u64 {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let again_ms = bpf_probe_read_kernel(fields::TCP_RETRANS_STAMP::address(sk)).unwrap_or(0);
        let age_ms = ((bpf_ktime_get_ns() / 1_000_000) as u32).wrapping_sub(again_ms);
        let ticks = bpf_probe_read_kernel(fields::ICSK_RTO::address(sk)).unwrap_or(0);
        let doubled = bpf_probe_read_kernel(fields::ICSK_BACKOFF::address(sk)).unwrap_or(0) & 15;
        if age_ms > FORGOTTEN_MS {
            return at;
        }
        let first = u64::from(ticks >> doubled) * TICK_NS.load();
        at.saturating_sub(u64::from(age_ms) * 1_000_000 + first)
    }
}

/// A moment that the socket remembers as a tick.
#[inline(always)]
fn ago(stamp: *const u32, at: u64) -> u64 {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let stamp = bpf_probe_read_kernel(stamp).unwrap_or(0);
        let ticks = (bpf_jiffies64() as u32).wrapping_sub(stamp);
        at.saturating_sub(u64::from(ticks) * TICK_NS.load())
    }
}

/// What may change.
#[inline(never)]
fn refresh(sk: *const u8, known: *mut Unacked) -> u64 {
    // SAFETY: a live map value; helpers that cannot fault.
    unsafe {
        let at = now();
        (*known).heard_ns = ago(fields::TCP_HEARD::address(sk), at);
        (*known).acked = bpf_probe_read_kernel(fields::TCP_BYTES_ACKED::address(sk)).unwrap_or(0);
        (*known).received = bpf_probe_read_kernel(fields::TCP_BYTES_RECEIVED::address(sk)).unwrap_or(0);
        (*known).next = bpf_probe_read_kernel(fields::TCP_SND_NXT::address(sk)).unwrap_or(0);
        (*known).written = bpf_probe_read_kernel(fields::TCP_WRITE_SEQ::address(sk)).unwrap_or(0);
        let timeouts = bpf_probe_read_kernel(fields::ICSK_RETRANSMITS::address(sk)).unwrap_or(0);
        (*known).timeouts = u32::from(timeouts);
        (*known).window = bpf_probe_read_kernel(fields::TCP_SND_WND::address(sk)).unwrap_or(0);
        (*known).mss = bpf_probe_read_kernel(fields::TCP_MSS::address(sk)).unwrap_or(0);
        (*known).path_mtu = bpf_probe_read_kernel(fields::ICSK_PATH_MTU::address(sk)).unwrap_or(0);
        (*known).packets = bpf_probe_read_kernel(fields::TCP_PACKETS::address(sk)).unwrap_or(0);
        (*known).sacked = bpf_probe_read_kernel(fields::TCP_SACKED::address(sk)).unwrap_or(0);
        let now_in = bpf_probe_read_kernel(fields::SK_STATE::address(sk)).unwrap_or(0);
        (*known).state = u32::from(now_in);
        let socket = bpf_probe_read_kernel(fields::SK_SOCKET::address(sk));
        if i32::from(now_in) == state::CLOSE {
            (*known).flags |= unacked::CLOSED;
        } else if socket.is_ok_and(<*const u8>::is_null) {
            (*known).flags |= unacked::ORPHAN;
        }
        let peer = PeerAt { address: (*known).tuple.remote, netns: (*known).owner.netns };
        if let Some(fresh) = FRESH.get_ptr(&peer)
            && (*fresh).at_ns > (*known).since_ns
        {
            (*known).fresh_ns = (*fresh).at_ns;
            (*known).fresh_port = (*fresh).port;
        }
    }
    opaque(0)
}

/// Never attached: run by the agent for each connection that it asks for, by the address of its socket.
///
/// Written out, because what the attribute for such programs makes of a function returns 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/sys_enter")]
extern "C" fn look_unacked(ctx: *mut core::ffi::c_void) -> u32 {
    // SAFETY: the context holds arguments of eight bytes; the agent gives one.
    let sk = unsafe { ctx.cast::<u64>().read_volatile() };
    call!(look(sk)) as u32
}
