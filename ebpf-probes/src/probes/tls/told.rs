//! What crosses over to the agent of a handshake, and what is kept here in case it must.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel as read_kernel, bpf_skb_load_bytes},
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};

use super::{
    CLIENT_HELLO, HELD, HELLO_HELD, HELLOS as HELLOS_HELD, Handshake, HeldHello, SERVER, STALLED,
    TLS_BYTES_HEAD, TlsBytes, TlsRecord,
};
use crate::{
    abi::{Kind, ProbeId},
    filter,
    kernel::{at_most, emit, header, opaque},
    packet::program::Packet,
};

/// ClientHellos of handshakes in flight, when they are not put on the ring.
#[map]
static HELLOS: LruHashMap<u64, HeldHello> = LruHashMap::with_max_entries(HELLOS_HELD, 0);

/// An empty one, to begin from. Never written.
#[map]
static NO_HELLO: Array<HeldHello> = Array::with_max_entries(1, 0);

/// A server's handshake that nobody has read, where only some processes are wanted: it is held back until it
/// is known whose it is.
#[inline(always)]
pub(super) fn nobodys(hs: &Handshake) -> bool {
    filter::by_owner() && hs.role == SERVER && hs.owner.process == 0
}

/// Lets go of a ClientHello that may have been held back.
#[inline(always)]
pub(super) fn let_go(cookie: u64) {
    let _ = HELLOS.remove(&cookie);
}

/// The ClientHello that is held of a handshake.
#[inline(always)]
pub(super) fn held(cookie: u64) -> Option<*const HeldHello> {
    HELLOS.get_ptr(&cookie)
}

/// Makes a ClientHello a handshake's own that was held before its socket existed.
///
/// # Safety
/// `hello` must be a live map value.
#[inline(always)]
pub(super) unsafe fn adopt_hello(cookie: u64, hello: *const HeldHello) {
    // SAFETY: as promised by the caller.
    let _ = HELLOS.insert(&cookie, unsafe { &*hello }, 0);
}

/// Whether all of a ClientHello is held: it may never be wanted.
#[inline(always)]
pub(super) fn holds_all(hs: &Handshake) -> bool {
    filter::quiet() || nobodys(hs)
}

/// Gives the agent what was held of a ClientHello only because it was not whole.
#[inline(always)]
pub(super) fn hand_over(hs: &mut Handshake) {
    if hs.flags & HELD != 0 && !holds_all(hs) {
        hs.flags &= !HELD;
        release(hs.cookie);
        let_go(hs.cookie);
    }
}

/// Hands on a ClientHello that was held back.
#[inline(always)]
pub(super) fn release(cookie: u64) {
    let Some(held) = HELLOS.get_ptr(&cookie) else { return };
    emit::<TlsBytes<HELLO_HELD>>(ProbeId::Tls, |record| {
        // SAFETY: a fresh reservation; the head is written whole, the data by a helper from a live map
        // value. What lies beyond `len` is not looked at.
        unsafe {
            let mut head = header::<TlsBytes<HELLO_HELD>>(Kind::TlsBytes);
            head.len = TLS_BYTES_HEAD as u32 + at_most::<HELLO_HELD>((*held).len);
            (&raw mut (*record).header).write(head);
            (&raw mut (*record).cookie).write(cookie);
            (&raw mut (*record).hello).write(CLIENT_HELLO);
            (&raw mut (*record).at).write(0);
            let from = (&raw const (*held).data).cast();
            let to = (&raw mut (*record).data).cast();
            (read_kernel(to, HELLO_HELD as u32, from) == 0).then_some(())
        }
    });
}

/// Hands up to `N` bytes of the packet to the agent.
#[inline(always)]
pub(super) fn capture<const N: usize>(
    ctx: &SkBuffContext,
    hs: &Handshake,
    hello: u32,
    at: u32,
    offset: u32,
    len: u32,
) where
    TlsBytes<N>: 'static,
{
    let cookie = hs.cookie;
    if holds_all(hs) {
        return;
    }
    emit::<TlsBytes<N>>(ProbeId::Tls, |record| {
        let len = at_most::<N>(len);
        // SAFETY: a fresh reservation; the head is written whole, the data as far as `len` says.
        unsafe {
            let mut head = header::<TlsBytes<N>>(Kind::TlsBytes);
            head.len = TLS_BYTES_HEAD as u32 + len;
            (&raw mut (*record).header).write(head);
            (&raw mut (*record).cookie).write(cookie);
            (&raw mut (*record).hello).write(hello);
            (&raw mut (*record).at).write(at);
            let data = (&raw mut (*record).data).cast();
            (bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, data, len) == 0).then_some(())
        }
    });
}

/// Keeps a ClientHello's bytes where the agent finds them, should the handshake stall.
#[inline(always)]
pub(super) fn hold(ctx: &SkBuffContext, cookie: u64, at: u32, packet: &Packet) {
    if at >= HELLO_HELD as u32 {
        return;
    }
    if HELLOS.get_ptr(&cookie).is_none() {
        let Some(empty) = NO_HELLO.get_ptr(0) else { return };
        // SAFETY: a live array slot that nobody writes.
        let _ = HELLOS.insert(&cookie, unsafe { &*empty }, 0);
    }
    let Some(held) = HELLOS.get_ptr_mut(&cookie) else { return };
    hold_in(ctx, held, at, packet);
}

/// Keeps a packet's bytes of a ClientHello; `held` must be a live map value.
#[inline(always)]
pub(super) fn hold_in(ctx: &SkBuffContext, held: *mut HeldHello, at: u32, packet: &Packet) {
    if at >= HELLO_HELD as u32 {
        return;
    }
    let want = at_most::<HELLO_HELD>(packet.len);
    // SAFETY: at < HELLO_HELD and want <= HELLO_HELD stay within the data.
    unsafe {
        let at = opaque(u64::from(at)) & (HELLO_HELD as u64 - 1);
        let to = (&raw mut (*held).data).cast::<u8>().add(at as usize);
        let end = at as u32 + want;
        if bpf_skb_load_bytes(ctx.skb.skb.cast(), packet.offset, to.cast(), want) == 0 && end > (*held).len {
            (*held).len = end;
        }
    }
}

/// Tells a handshake, unless only the unhealthy is told and this one is healthy.
#[inline(always)]
pub(super) fn tell(kind: Kind, hs: &Handshake) {
    if (filter::quiet() || nobodys(hs)) && hs.flags & STALLED == 0 {
        return;
    }
    told(kind, hs);
}

/// Tells a handshake.
#[inline(always)]
pub(super) fn told(kind: Kind, hs: &Handshake) {
    emit::<TlsRecord>(ProbeId::Tls, |record| {
        // SAFETY: a fresh reservation of the record's size; every byte is written.
        unsafe {
            (&raw mut (*record).header).write(header::<TlsRecord>(kind));
            core::ptr::copy_nonoverlapping(hs, &raw mut (*record).handshake, 1);
        }
        Some(())
    });
}
