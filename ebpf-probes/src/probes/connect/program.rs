//! What becomes of a connect: its socket's states, its errors, its SYNs that are sent again.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use super::{
    Connect,
    calls::{self, HAVE_CONNECT_EXIT, ask},
    flag, icmp, phase,
    report::{end, failing, report},
};
use crate::{
    abi::{IPPROTO_TCP, IPPROTO_UDP, Kind, ProbeId, Stat},
    bpf::{
        address::tuple_of,
        counters::{self, count},
        filter::{self, enabled},
        netns::netns,
        owner::{PENDING, SOCKETS},
        tcp::state,
        time::now,
        verifier::opaque,
    },
    fields,
    metrics::counter,
};

/// 1: errors that SO_ERROR hands out are seen.
#[unsafe(no_mangle)]
static HAVE_SO_ERROR: Global<u32> = Global::new(0);

/// In the calling thread. Not inlined, for the stack.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(never)]
pub(crate) unsafe fn syn_sent(sk: *const u8, cookie: u64) -> u64 {
    let thread = bpf_get_current_pid_tgid();
    let Some(call) = calls::of(thread) else { return opaque(0) };
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
            count(ProbeId::CONNECT, Stat::MapFull);
            return opaque(0);
        }
        if enabled(ProbeId::CONNECT) && filter::beginnings() {
            report(Kind::CONNECT_START, &*call);
        }
    }
    opaque(0)
}

/// In whatever context: `current` means nothing unless it is the thread inside the call. Not inlined, for the stack.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(never)]
pub(crate) unsafe fn settled(sk: *const u8, cookie: u64, established: u64) -> u64 {
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
                // The error that this host's ICMP left with the socket is gone: it has been read.
                (*connect).errno = icmp::errno(&*connect);
            }
            if (*connect).errno == 0 && HAVE_CONNECT_EXIT.load() != 0 {
                let thread = bpf_get_current_pid_tgid();
                if let Some(call) = calls::of(thread)
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
        if protocol == IPPROTO_TCP && i32::from(fields::SK_STATE::read(sk)) == state::SYN_SENT {
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
            report(Kind::CONNECT_END, &connect);
        }
    }
    0
}

/// A SYN is sent again.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub(crate) unsafe fn sent_again(sk: *const u8) {
    // SAFETY: as promised by the caller; a live map value.
    unsafe {
        if let Some(connect) = PENDING.get_ptr_mut(&fields::SK_COOKIE::read(sk)) {
            (*connect).retries += 1;
            if (*connect).flags & flag::ADOPTED != 0 {
                (*connect).flags |= flag::SENT_SINCE;
            }
            if filter::quiet() && (*connect).retries == 1 {
                failing(&*connect);
            }
            if (*connect).tuple.local_port == 0 {
                (*connect).tuple.local_port = fields::SK_NUM::read(sk);
            }
            icmp::note(&mut *connect);
            if enabled(ProbeId::CONNECT) {
                counters::add(counter::SYN_RETRANSMITS);
            }
            if enabled(ProbeId::CONNECT) && filter::MIN_NS.load() == 0 && !filter::quiet() {
                report(Kind::CONNECT_RETRY, &*connect);
            }
        }
    }
}
