//! How handshakes come into their table and leave it. A client that begins a ClientHello and never ends it has a place there
//! for a while only: when the table is full, the oldest beginnings give way, and what cannot be made room for is
//! counted. It does not know what a hello is.

use aya_ebpf::{macros::map, maps::Array};

use super::{
    Handshake,
    capture::let_go,
    stage,
    table::{HANDSHAKES, gate},
};
use crate::{
    abi::{ProbeId, Stat},
    bpf::{
        counters::count,
        time::now,
        verifier::{call, opaque},
    },
};

/// Cookies of handshakes whose ClientHello is not whole, each at a slot that follows from the cookie. Cookies are
/// given out one after the other, so that one slot comes round every [`SLOTS`] sockets; those of about the same time
/// lie apart, so that some are found wherever one looks.
#[map]
static YOUNG: Array<u64> = Array::with_max_entries(SLOTS, 0);
/// Twice as many as there are handshakes at most.
const SLOTS: u32 = 1 << 15;
/// How long a ClientHello may take to come.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Slots that are looked at for one to free.
const LOOKED_AT: u32 = 16;

#[inline(always)]
fn index(cookie: u64) -> u32 {
    (cookie as u32).wrapping_mul(0x9e37)
}

#[inline(always)]
fn slot(index: u32) -> Option<*mut u64> {
    YOUNG.get_ptr_mut(index & (SLOTS - 1))
}

/// A handshake begins: notes it. `false`: its slot is another young one's, which alone may be found there.
#[inline(always)]
fn begins(cookie: u64) -> bool {
    let Some(slot) = slot(index(cookie)) else { return false };
    // SAFETY: a live array slot, one word long.
    unsafe {
        if *slot != 0 && call!(tls_aged(*slot)) == 0 {
            return false;
        }
        *slot = cookie;
    }
    true
}

/// Its ClientHello is whole, or it is over.
#[inline(always)]
pub(super) fn grown(cookie: u64) {
    if let Some(slot) = slot(index(cookie)) {
        // SAFETY: a live array slot, one word long.
        unsafe {
            if *slot == cookie {
                *slot = 0;
            }
        }
    }
}

/// Forgets a handshake that began too long ago. `1`: there is none that is young under this cookie.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_aged(cookie: u64) -> u64 {
    if let Some(handshake) = HANDSHAKES.get_ptr(&cookie) {
        // SAFETY: a live map value.
        let (stage, moved_ns) = unsafe { ((*handshake).stage, (*handshake).moved_ns) };
        if stage == stage::HELLO_PARTIAL {
            if now().wrapping_sub(moved_ns) < PATIENCE_NS {
                return opaque(0);
            }
            forget(cookie);
        }
    }
    opaque(1)
}

/// The table is full: makes room, if there is one to give way. `0`: there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_room(cookie: u64) -> u64 {
    let mut freed = 0;
    for next in 1..=LOOKED_AT {
        let Some(slot) = slot(index(cookie).wrapping_add(next)) else { break };
        // Without branches: older verifiers walk each way through all that follow.
        // SAFETY: a live array slot, one word long.
        unsafe {
            let occupant = *slot;
            let gone = call!(tls_aged(occupant));
            *slot = occupant * (gone ^ 1);
            freed |= gone;
        }
    }
    opaque(freed)
}

/// Forgets a handshake, and all that is kept of it.
#[inline(always)]
pub(super) fn forget(cookie: u64) {
    call!(tls_forget(cookie));
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_forget(cookie: u64) -> u64 {
    let Some(handshake) = HANDSHAKES.get_ptr(&cookie) else { return opaque(0) };
    // SAFETY: a live map value.
    let (local, remote) = unsafe { ((*handshake).tuple.local_port, (*handshake).tuple.remote_port) };
    if HANDSHAKES.remove(&cookie).is_ok() {
        gate(local, remote, u64::MAX);
        let_go(cookie);
        grown(cookie);
    }
    opaque(0)
}

/// Puts a handshake into the table; `false`: there is no room, which is counted.
///
/// # Safety
/// `handshake` must be a live map value.
#[inline(always)]
pub(super) unsafe fn insert(cookie: u64, handshake: *const Handshake) -> bool {
    // SAFETY: as promised by the caller.
    let room = unsafe {
        begins(cookie)
            && (HANDSHAKES.insert(&cookie, &*handshake, 0).is_ok()
                || (call!(tls_room(cookie)) != 0 && HANDSHAKES.insert(&cookie, &*handshake, 0).is_ok()))
    };
    if !room {
        count(ProbeId::TLS, Stat::MapFull);
        grown(cookie);
    }
    room
}
