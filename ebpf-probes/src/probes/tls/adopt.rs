//! Handshakes that were under way before culprit started, as far as their sockets show them: bytes of the peer's are
//! here, read or not, and not one has been sent in answer. What the bytes were is gone with them, and is concluded
//! from the port.

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_jiffies64};

use super::{
    ADOPTED, Handshake, SERVER, TLS_PORTS, UNREAD,
    lifetime::{forget, grown, insert},
    program::EMPTY,
    stage,
    table::{HANDSHAKES, gate},
};
use crate::{
    abi::V4_MAPPED,
    bpf::{
        address::{tuple_at, write_tuple_at},
        filter,
        lacking::lacks,
        netns::netns_at,
        owner::{in_other_cgroup, write_of_task},
        tcp::state::ESTABLISHED,
        time::{TICK_NS, now},
        verifier::{call, opaque},
    },
    fields,
};

/// Bytes of a ClientHello at least: its record's and its own header, version, random, and the empty session's length.
const HELLO_LEAST: u64 = 44;

/// Follows a connection that a process has, or that waits at a listener of its. Its steps are not inlined, and called one
/// after the other: the stack is short.
#[inline(never)]
pub(crate) fn adopt(sk: *const u8, task: *const u8) -> u64 {
    if !serves_tls(sk) || owed(sk).is_none() {
        return opaque(0);
    }
    // SAFETY: a helper that cannot fault.
    let cookie = unsafe { bpf_probe_read_kernel(fields::SK_COOKIE::address(sk)).unwrap_or(0) };
    if cookie == 0 {
        call!(lacking(sk));
    } else if HANDSHAKES.get_ptr(&cookie).is_none()
        && call!(begun(cookie)) != 0
        // An answer until now found no handshake; one from now on finds it.
        && (call!(filled(sk, task, cookie)) == 0 || owed(sk).is_none())
    {
        forget(cookie);
    }
    opaque(0)
}

/// It has no cookie yet.
#[inline(never)]
fn lacking(sk: *const u8) -> u64 {
    // SAFETY: a helper that cannot fault.
    let net = unsafe { bpf_probe_read_kernel(fields::SK_NET::address(sk)) };
    if let (Some(tuple), Some(netns)) = (tuple_at(sk), net.ok().and_then(netns_at)) {
        let _ = lacks(sk, &tuple, netns);
    }
    opaque(0)
}

/// Makes a handshake. `0`: there is no room.
#[inline(never)]
fn begun(cookie: u64) -> u64 {
    let Some(empty) = EMPTY.get_ptr(0) else { return opaque(0) };
    // SAFETY: a live array slot that is never written.
    if unsafe { !insert(cookie, empty) } {
        return opaque(0);
    }
    // Its hello is whole, as far as can be said.
    grown(cookie);
    opaque(1)
}

/// Fills it in. `0`: it is not wanted.
#[inline(never)]
fn filled(sk: *const u8, task: *const u8, cookie: u64) -> u64 {
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) else { return opaque(0) };
    // SAFETY: a live map value, just made here; helpers that cannot fault.
    unsafe {
        let tuple = &raw mut (*handshake).tuple;
        call!(write_tuple_at(sk, tuple));
        gate((*tuple).local_port, (*tuple).remote_port, 1);
        (*handshake).cookie = cookie;
        let net = bpf_probe_read_kernel(fields::SK_NET::address(sk));
        let Some(netns) = net.ok().and_then(netns_at) else { return opaque(0) };
        (*handshake).owner.netns = netns;
        if call!(write_of_task(task, &raw mut (*handshake).owner)) == 0 {
            return opaque(0);
        }
        fill(sk, handshake);
        let remote = &(*tuple).remote;
        let wanted = filter::peer(remote, remote[..12] != V4_MAPPED, (*tuple).local_port)
            && filter::process(&(*handshake).owner)
            && !in_other_cgroup(task, filter::CGROUP.load());
        opaque(u64::from(wanted))
    }
}

/// Whether the own port is one of a service that speaks TLS.
#[inline(always)]
fn serves_tls(sk: *const u8) -> bool {
    // SAFETY: a helper that cannot fault.
    let port = unsafe { bpf_probe_read_kernel(fields::SK_NUM::address(sk)).unwrap_or(0) };
    let mut found = false;
    for tls in TLS_PORTS {
        found |= port == tls;
    }
    found
}

/// Whether the peer has said something and was not answered by a byte.
#[inline(always)]
fn owed(sk: *const u8) -> Option<()> {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let state = bpf_probe_read_kernel(fields::SK_STATE::address(sk)).ok()?;
        let sent = bpf_probe_read_kernel(fields::TCP_DATA_SENT::address(sk)).ok()?;
        let received = bpf_probe_read_kernel(fields::TCP_BYTES_RECEIVED::address(sk)).ok()?;
        (i32::from(state) == ESTABLISHED && sent == 0 && received >= HELLO_LEAST).then_some(())
    }
}

/// # Safety
/// `handshake` must be a live map value.
#[inline(always)]
unsafe fn fill(sk: *const u8, handshake: *mut Handshake) {
    // SAFETY: as promised by the caller; helpers that cannot fault.
    unsafe {
        let received = bpf_probe_read_kernel(fields::TCP_BYTES_RECEIVED::address(sk)).unwrap_or(0) as u32;
        let next = bpf_probe_read_kernel(fields::TCP_RCV_NXT::address(sk)).unwrap_or(0);
        let read = bpf_probe_read_kernel(fields::TCP_COPIED_SEQ::address(sk)).unwrap_or(0);
        // The tick of the last segment with payload; it may have been any moment of that.
        let at = bpf_probe_read_kernel(fields::ICSK_RECEIVED::address(sk)).unwrap_or(0);
        let ticks = (bpf_jiffies64() as u32).wrapping_sub(at).wrapping_add(1);
        let since = now().saturating_sub(u64::from(ticks) * TICK_NS.load());
        (*handshake).started_ns = since;
        (*handshake).moved_ns = since;
        (*handshake).hello_seq = next.wrapping_sub(received);
        (*handshake).hello_len = received;
        (*handshake).hello_seen = received;
        (*handshake).client_next = next;
        (*handshake).stage = stage::HELLO;
        (*handshake).role = SERVER;
        if read == next {
            (*handshake).flags = ADOPTED;
            (*handshake).reader = (*handshake).owner;
            (*handshake).read_ns = since;
            (*handshake).read_stage = stage::HELLO;
        } else {
            (*handshake).flags = ADOPTED | UNREAD;
        }
    }
}
