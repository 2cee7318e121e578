//! Which ends of handshakes are reported where healthy ones are not: those that failed, a few a second of each client
//! and service, and the next one between them that is done. What is not reported is counted, and the count goes with the
//! next failure that is.
//!
//! Run once as a handshake ends: one look into a hash if it is done, two or three if it failed.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};

use super::{
    CLIENT, ENCRYPTED_FINISH, Handshake, SERVER, STALLED,
    capture::release,
    report::reported,
    stage,
    table::{HANDSHAKES, completed, nobodys, served},
};
use crate::{
    abi::{Kind, Netns},
    bpf::{
        filter,
        time::now,
        verifier::{call, opaque},
    },
};

/// Failures reported of one client and service within a second, at most.
const EACH: u32 = 4;
/// Ends reported on one processor within a second, at most.
const ALL: u32 = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// Who fails with whom: as a server, a client's address and the port here; as a client, the server's address and port.
#[repr(C)]
#[derive(Clone, Copy)]
struct Party {
    remote: [u8; 16],
    netns: Netns,
    port: u32,
    role: u32,
}

/// How many were reported since when.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rate {
    since_ns: u64,
    reported: u32,
    /// Of a party: failures that were not reported since the last one that was.
    unreported: u32,
    /// Of a party, 1: a failure was reported, and no success since.
    failing: u32,
    pad: u32,
}

/// Parties of which a handshake failed. The least recently used give way.
#[map]
static TLS_FAILING: LruHashMap<Party, Rate> = LruHashMap::with_max_entries(1 << 12, 0);

/// All of them together.
#[map]
static TLS_ENDS: PerCpuArray<Rate> = PerCpuArray::with_max_entries(1, 0);

/// What is to be reported: nothing is 0.
mod due {
    /// The end.
    pub(super) const END: u64 = 1;
    /// The ClientHello that was held back, before it.
    pub(super) const HELLO: u64 = 2;
}

/// A handshake is over: reports that, where it is worth a record.
#[inline(always)]
pub(super) fn ended(cookie: u64) {
    let what = call!(tls_ended(cookie));
    if what & due::HELLO != 0 {
        release(cookie);
    }
    if what != 0 {
        reported(Kind::TLS_PHASE, cookie);
    }
}

/// Counts a handshake that is over, and decides what is reported of it: see [`due`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_ended(cookie: u64) -> u64 {
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) else { return opaque(0) };
    // SAFETY: a live map value.
    let hs = unsafe { &mut *handshake };
    if hs.stage < stage::DONE {
        return opaque(0);
    }
    if hs.role == SERVER {
        if hs.stage == stage::DONE {
            completed(hs);
        } else {
            hs.served = served(hs);
        }
    }
    if hs.flags & STALLED != 0 {
        return opaque(due::END);
    }
    if nobodys(hs) {
        return opaque(0);
    }
    if !filter::quiet() {
        return opaque(due::END);
    }
    let exposed = (hs.stage == stage::ALERT || (hs.stage == stage::DONE && hs.role == CLIENT))
        && filter::exposed(hs.moved_ns);
    let news = if hs.stage == stage::DONE { recovers(hs) } else { failed(hs) && fails(hs) };
    opaque(if exposed || news { due::END | due::HELLO } else { 0 })
}

/// Whether it failed. A hello that was never whole is no handshake, and of one that the client has finished as TLS 1.3
/// does, the server may have nothing more to say.
#[inline(always)]
fn failed(hs: &Handshake) -> bool {
    hs.stage != stage::CLOSED
        || !(hs.read_stage == stage::HELLO_PARTIAL
            || (hs.read_stage == stage::CLIENT_FINISH && hs.flags & ENCRYPTED_FINISH != 0))
}

#[inline(always)]
fn party(hs: &Handshake) -> Party {
    let port = if hs.role == CLIENT { hs.tuple.remote_port } else { hs.tuple.local_port };
    Party { remote: hs.tuple.remote, netns: hs.owner.netns, port: u32::from(port), role: hs.role }
}

/// Whether a failure is reported.
#[inline(always)]
fn fails(hs: &mut Handshake) -> bool {
    let (party, at) = (party(hs), now());
    if TLS_FAILING.get_ptr(&party).is_none() {
        let none = Rate { since_ns: at, reported: 0, unreported: 0, failing: 0, pad: 0 };
        let _ = TLS_FAILING.insert(&party, &none, 0);
    }
    let Some(rate) = TLS_FAILING.get_ptr_mut(&party) else { return false };
    // SAFETY: a live map value; a race between processors costs a record more or less.
    let rate = unsafe { &mut *rate };
    if !has_room(rate, EACH, at) || !all_have_room(at) {
        rate.unreported = rate.unreported.wrapping_add(1);
        return false;
    }
    rate.failing = 1;
    hs.unreported = rate.unreported;
    rate.unreported = 0;
    true
}

/// Whether a success is reported: the first one after failures.
#[inline(always)]
fn recovers(hs: &Handshake) -> bool {
    let Some(rate) = TLS_FAILING.get_ptr_mut(&party(hs)) else { return false };
    // SAFETY: a live map value.
    let rate = unsafe { &mut *rate };
    let recovers = rate.failing != 0 && all_have_room(now());
    if recovers {
        rate.failing = 0;
    }
    recovers
}

/// Whether one more may be reported; it counts as reported then.
#[inline(always)]
fn has_room(rate: &mut Rate, most: u32, at: u64) -> bool {
    if at.wrapping_sub(rate.since_ns) >= SECOND_NS {
        rate.since_ns = at;
        rate.reported = 0;
    }
    let room = rate.reported < most;
    rate.reported += u32::from(room);
    room
}

#[inline(always)]
fn all_have_room(at: u64) -> bool {
    match TLS_ENDS.get_ptr_mut(0) {
        // SAFETY: this processor's slot of a live map.
        Some(rate) => has_room(unsafe { &mut *rate }, ALL, at),
        None => false,
    }
}
