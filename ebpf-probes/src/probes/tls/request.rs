//! Handshakes that begin before their socket exists: the packet with the ClientHello comes while its socket is still
//! the listener. That is so where the hello completes the TCP handshake (deferred accept, SYN cookies, a lost ACK)
//! and where it lies in the SYN (TCP Fast Open). They are kept by namespace and tuple, which name one connection
//! only however many come to a listener at once, and become the socket's own as soon as it is seen: mostly in the same
//! call chain.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    bindings::__sk_buff,
    helpers::generated::bpf_get_socket_cookie,
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};

use super::{
    Early, HELD, Handshake, REQUESTED as REQUESTED_HELD, SERVER, SPEAKS_TLS,
    capture::{adopt_hello, hand_over},
    hello::without_socket,
    lifetime::{grown, insert},
    report::report,
    stage,
    state_machine::may_begin,
    table::{HANDSHAKES, gate, slot_of, speaks_tls},
};
use crate::{
    abi::{AF_INET, AF_INET6, Connection, Kind, ProbeId, Stat},
    bpf::{
        counters::count,
        filter,
        netns::netns,
        packet::{Packet, netns_of},
        time::now,
        verifier::{call, opaque},
    },
    fields,
};

/// 1: tracepoints can draw a socket's cookie (from Linux 5.12 on).
#[unsafe(no_mangle)]
static HAVE_COOKIE: Global<u32> = Global::new(0);

/// Handshakes without a socket.
#[map]
static REQUESTED: LruHashMap<Connection, Early> = LruHashMap::with_max_entries(REQUESTED_HELD, 0);

/// An empty one, to begin from: too large for the stack. Never written.
#[map]
static NO_REQUEST: Array<Early> = Array::with_max_entries(1, 0);

/// A segment with payload that arrived at a listener. `1`: [`tls_requested`] is to be called, by the caller,
/// for the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tls_arrived(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    opaque(u64::from(arrived(&SkBuffContext::new(skb.cast()), &Packet::of(ends, payload))))
}

/// Writes which connection a packet asks for to `key`, where it is wanted: one that is returned is on the stack thrice.
///
/// # Safety
/// `key` must be a place on the stack.
#[inline(always)]
unsafe fn asked_by(ctx: &SkBuffContext, packet: &Packet, key: *mut Connection) -> Option<()> {
    // SAFETY: every byte is written.
    unsafe {
        (&raw mut (*key).netns).write(netns_of(ctx)?);
        packet.write_tuple(ctx, &raw mut (*key).tuple)?;
        (&raw mut (*key).tuple.family).write(0);
        (&raw mut (*key).tuple.protocol).write(0);
    }
    Some(())
}

#[inline(always)]
fn arrived(ctx: &SkBuffContext, packet: &Packet) -> bool {
    let mut key = MaybeUninit::<Connection>::uninit();
    // SAFETY: every byte of the key is written.
    let key = unsafe {
        if asked_by(ctx, packet, key.as_mut_ptr()).is_none() {
            return false;
        }
        &*key.as_ptr()
    };
    if !filter::peer(&key.tuple.remote, !packet.v4, packet.local) {
        return false;
    }
    if REQUESTED.get_ptr(key).is_some() {
        return true;
    }
    if !packet.first(ctx.skb.skb).is_some_and(|first| may_begin(&first, packet.len)) {
        return false;
    }
    let Some(empty) = NO_REQUEST.get_ptr(0) else { return false };
    // SAFETY: a live array slot that is never written.
    if REQUESTED.insert(key, unsafe { &*empty }, 0).is_err() {
        count(ProbeId::TLS, Stat::MapFull);
        return false;
    }
    let Some(early) = REQUESTED.get_ptr_mut(key) else { return false };
    let at = now();
    // SAFETY: a live map value, just made by this packet.
    unsafe {
        let hs = &raw mut (*early).handshake;
        (*hs).tuple = key.tuple;
        (*hs).tuple.family = if packet.v4 { AF_INET } else { AF_INET6 };
        (*hs).tuple.protocol = packet.protocol;
        (*hs).owner.netns = key.netns;
        (*hs).started_ns = at;
        (*hs).moved_ns = at;
        (*hs).hello_seq = packet.seq;
        (*hs).client_next = packet.seq;
        (*hs).stage = stage::HELLO_PARTIAL;
        (*hs).role = SERVER;
        (*hs).flags = HELD;
    }
    true
}

/// A segment of a handshake whose socket is to be made.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tls_requested(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let packet = Packet::of(ends, payload);
    let mut key = MaybeUninit::<Connection>::uninit();
    // SAFETY: every byte of the key is written.
    let key = unsafe {
        if asked_by(&SkBuffContext::new(skb.cast()), &packet, key.as_mut_ptr()).is_none() {
            return opaque(0);
        }
        &*key.as_ptr()
    };
    let Some(early) = REQUESTED.get_ptr_mut(key) else { return opaque(0) };
    // SAFETY: a live map value.
    unsafe {
        let hs = &raw mut (*early).handshake;
        let partial = (*hs).stage == stage::HELLO_PARTIAL;
        if partial && without_socket(skb, hs, &packet, &raw mut (*early).hello) {
            let _ = REQUESTED.remove(key);
            return opaque(0);
        }
    }
    if let Some(slot) = slot_of(packet.local, packet.remote) {
        // SAFETY: a live array slot; a plain mark.
        unsafe { (*slot).requested = 1 };
    }
    opaque(0)
}

/// Writes which connection a socket is to `key`, word by word: a tuple made first would be on the stack twice.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`, `key` a place on the stack.
#[inline(always)]
unsafe fn requested_by(sk: *const u8, key: *mut Connection) {
    /// The second word of an IPv4-mapped address before the IPv4 address itself.
    const MAPPED: u64 = 0xffff_0000;
    // SAFETY: passed on to the caller; a tuple begins with its two addresses, two words each.
    unsafe {
        let words = key.cast::<u64>();
        if fields::SK_FAMILY::read(sk) == AF_INET6 {
            let (local, remote) = (
                fields::SK_V6_RCV_SADDR::address(sk).cast::<u64>(),
                fields::SK_V6_DADDR::address(sk).cast::<u64>(),
            );
            words.write_volatile(local.read_volatile());
            words.add(1).write_volatile(local.add(1).read_volatile());
            words.add(2).write_volatile(remote.read_volatile());
            words.add(3).write_volatile(remote.add(1).read_volatile());
        } else {
            words.write_volatile(0);
            words.add(1).write_volatile(MAPPED | u64::from(fields::SK_RCV_SADDR::read(sk)) << 32);
            words.add(2).write_volatile(0);
            words.add(3).write_volatile(MAPPED | u64::from(fields::SK_DADDR::read(sk)) << 32);
        }
        let remote = u16::from_be(fields::SK_DPORT::read(sk));
        words.add(4).write_volatile(u64::from(remote) << 16 | u64::from(fields::SK_NUM::read(sk)));
        let netns = netns(fields::SK_NET::read(sk));
        words.add(5).write_volatile(u64::from(netns.generation) << 32 | u64::from(netns.inode));
    }
}

/// A socket that came of a listener is established, or is read before that (TCP Fast Open): what was kept for it
/// becomes its own. Where tracepoints cannot draw a cookie, its next packet does.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub(super) unsafe fn established(sk: *const u8) {
    // SAFETY: passed on to the caller.
    unsafe {
        let cookie = if HAVE_COOKIE.load() == 0 { 0 } else { bpf_get_socket_cookie(sk.cast_mut().cast()) };
        call!(claimed(sk, cookie, now()));
    }
}

/// A socket that has no handshake yet, with ports of which one was asked for at a listener; when it was
/// established, if that was now. Not inlined, for the stack.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(never)]
pub(super) unsafe fn claimed(sk: *const u8, cookie: u64, established_ns: u64) -> u64 {
    let mut key = MaybeUninit::<Connection>::uninit();
    // SAFETY: passed on to the caller; every byte of the key is written. A live map value.
    unsafe {
        requested_by(sk, key.as_mut_ptr());
        let key = &*key.as_ptr();
        match REQUESTED.get_ptr_mut(key) {
            Some(early) => {
                if established_ns != 0 {
                    (*early).handshake.established_ns = established_ns;
                }
                if cookie != 0 {
                    own(key, early, cookie);
                }
            }
            // It has given way, or was never to become a socket.
            None => unmark(key.tuple.local_port, key.tuple.remote_port),
        }
    }
    opaque(0)
}

/// Whether a socket's cookie is drawn by its packets alone.
#[inline(always)]
pub(crate) fn cookies_come_with_packets() -> bool {
    HAVE_COOKIE.load() == 0
}

#[inline(always)]
fn unmark(local: u16, remote: u16) {
    if let Some(slot) = slot_of(local, remote) {
        // SAFETY: a live array slot; a plain mark.
        unsafe { (*slot).requested = 0 };
    }
}

/// # Safety
/// `early` must be a live map value.
#[inline(always)]
unsafe fn own(key: &Connection, early: *mut Early, cookie: u64) {
    let (local, remote) = (key.tuple.local_port, key.tuple.remote_port);
    // SAFETY: live map values.
    unsafe {
        if HANDSHAKES.get_ptr(&cookie).is_none() {
            (*early).handshake.cookie = cookie;
            if !insert(cookie, &raw const (*early).handshake) {
                return;
            }
            gate(local, remote, 1);
            adopt_hello(cookie, &raw const (*early).hello);
            if let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) {
                whole(&mut *handshake);
            }
        }
    }
    let _ = REQUESTED.remove(key);
    unmark(local, remote);
}

/// Hands on what is known of a hello that was whole before its socket existed.
#[inline(always)]
fn whole(hs: &mut Handshake) {
    if speaks_tls(hs) {
        hs.flags |= SPEAKS_TLS;
    }
    if hs.stage == stage::HELLO {
        grown(hs.cookie);
        hand_over(hs);
        report(Kind::TLS_PHASE, hs);
    }
}
