//! The bytes of hellos: those that are handed to the agent at once, and ClientHellos that are held in case they must be.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_probe_read_kernel as read_kernel, bpf_skb_load_bytes},
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};

use super::{
    CLIENT_HELLO, DeferredHello, HELD, HELLO_HELD, HELLOS as HELLOS_HELD, Handshake, LARGE, SERVER_HELLO,
    SMALL, TLS_BYTES_HEAD, TlsBytes, table::nobodys,
};
use crate::{
    abi::{Kind, ProbeId},
    bpf::{
        filter,
        packet::Packet,
        ring::{emit, header},
        verifier::{at_most, call, opaque},
    },
};

/// ClientHellos of handshakes in flight, when they are not put on the ring.
#[map]
static HELLOS: LruHashMap<u64, DeferredHello> = LruHashMap::with_max_entries(HELLOS_HELD, 0);

/// An empty one, to begin from. Never written.
#[map]
static NO_HELLO: Array<DeferredHello> = Array::with_max_entries(1, 0);

/// Lets go of a ClientHello that may have been held back.
#[inline(always)]
pub(super) fn let_go(cookie: u64) {
    let _ = HELLOS.remove(&cookie);
}

/// The ClientHello that is held of a handshake.
#[inline(always)]
pub(super) fn held(cookie: u64) -> Option<*const DeferredHello> {
    HELLOS.get_ptr(&cookie)
}

/// Makes a ClientHello a handshake's own that was held before its socket existed.
///
/// # Safety
/// `hello` must be a live map value.
#[inline(always)]
pub(super) unsafe fn adopt_hello(cookie: u64, hello: *const DeferredHello) {
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
    call!(tls_release(cookie));
}

/// See [`release`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_release(cookie: u64) -> u64 {
    let Some(held) = HELLOS.get_ptr(&cookie) else { return opaque(0) };
    emit::<TlsBytes<HELLO_HELD>>(ProbeId::TLS, |record| {
        // SAFETY: a fresh reservation; the head is written whole, the data by a helper from a live map
        // value. What lies beyond `len` is not looked at.
        unsafe {
            let mut head = header::<TlsBytes<HELLO_HELD>>(Kind::TLS_BYTES);
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
    opaque(0)
}

/// Hands the bytes of a hello that a packet carries to the agent, as many as it takes of them: `at` is where in the
/// hello they begin, `offset` where in the packet, `len` how many they are.
#[inline(always)]
pub(super) fn capture(ctx: &SkBuffContext, hs: &Handshake, hello: u32, at: u32, offset: u32, len: u32) {
    if !holds_all(hs) {
        let (what, of) = (u64::from(hello) << 32 | u64::from(at), u64::from(offset) << 32 | u64::from(len));
        call!(tls_capture(ctx.skb.skb, hs.cookie, what, of));
    }
}

/// See [`capture`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_capture(skb: *mut __sk_buff, cookie: u64, what: u64, of: u64) -> u64 {
    let (hello, at) = ((what >> 32) as u32, what as u32);
    let (offset, len) = ((of >> 32) as u32, of as u32);
    if hello == SERVER_HELLO || len <= SMALL as u32 {
        copy::<SMALL>(skb, cookie, hello, at, offset, len);
        return opaque(0);
    }
    let mut done = 0;
    for _ in 0..4 {
        if done >= len {
            break;
        }
        copy::<LARGE>(skb, cookie, hello, at + done, offset + done, len - done);
        done += LARGE as u32;
    }
    opaque(0)
}

/// Hands up to `N` bytes of the packet to the agent.
#[inline(always)]
fn copy<const N: usize>(skb: *mut __sk_buff, cookie: u64, hello: u32, at: u32, offset: u32, len: u32)
where
    TlsBytes<N>: 'static,
{
    emit::<TlsBytes<N>>(ProbeId::TLS, |record| {
        let len = at_most::<N>(len);
        // SAFETY: a fresh reservation; the head is written whole, the data as far as `len` says.
        unsafe {
            let mut head = header::<TlsBytes<N>>(Kind::TLS_BYTES);
            head.len = TLS_BYTES_HEAD as u32 + len;
            (&raw mut (*record).header).write(head);
            (&raw mut (*record).cookie).write(cookie);
            (&raw mut (*record).hello).write(hello);
            (&raw mut (*record).at).write(at);
            let data = (&raw mut (*record).data).cast();
            (bpf_skb_load_bytes(skb.cast(), offset, data, len) == 0).then_some(())
        }
    });
}

/// Keeps a ClientHello's bytes where the agent finds them, should the handshake stall.
#[inline(always)]
pub(super) fn hold(ctx: &SkBuffContext, cookie: u64, at: u32, packet: &Packet) {
    if at >= HELLO_HELD as u32 {
        return;
    }
    let of = u64::from(packet.offset) << 32 | u64::from(packet.len);
    call!(tls_hold(ctx.skb.skb, cookie, at.into(), of));
}

/// See [`hold`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_hold(skb: *mut __sk_buff, cookie: u64, at: u64, of: u64) -> u64 {
    if HELLOS.get_ptr(&cookie).is_none() {
        let Some(empty) = NO_HELLO.get_ptr(0) else { return opaque(0) };
        // SAFETY: a live array slot that is never written.
        let _ = HELLOS.insert(&cookie, unsafe { &*empty }, 0);
    }
    if let Some(held) = HELLOS.get_ptr_mut(&cookie) {
        hold_in(skb, held, at as u32, (of >> 32) as u32, of as u32);
    }
    opaque(0)
}

/// Keeps `len` bytes of a ClientHello, which begin at `offset` in the packet; `held` must be a live map value.
#[inline(always)]
pub(super) fn hold_in(skb: *mut __sk_buff, held: *mut DeferredHello, at: u32, offset: u32, len: u32) {
    if at >= HELLO_HELD as u32 {
        return;
    }
    let want = at_most::<HELLO_HELD>(len);
    // SAFETY: at < HELLO_HELD and want <= HELLO_HELD stay within the data.
    unsafe {
        let at = opaque(u64::from(at)) & (HELLO_HELD as u64 - 1);
        let to = (&raw mut (*held).data).cast::<u8>().add(at as usize);
        let end = at as u32 + want;
        if bpf_skb_load_bytes(skb.cast(), offset, to.cast(), want) == 0 && end > (*held).len {
            (*held).len = end;
        }
    }
}
