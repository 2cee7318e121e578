//! Puts a ClientHello together, as far as needed to know when it is whole: its segments may come in any order, and
//! its handshake message may be spread over several TLS records. Half a hello obliges no server: where it cannot be known
//! that it is whole (a message header spread over records, a record header that was not kept), it counts as unfinished
//! until the server answers it. What it says is not looked at.

use core::ptr::{null, null_mut};

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes},
    programs::SkBuffContext,
};

use super::{
    CLIENT_HELLO, DeferredHello, HELD, HELLO_CAPTURED, HELLO_HELD, Handshake, UNREAD,
    capture::{capture, hand_over, held, hold, hold_in, holds_all},
    lifetime::{forget, grown},
    report::report,
    stage,
    state_machine::{HANDSHAKE, may_begin},
    table::HANDSHAKES,
};
use crate::{
    abi::Kind,
    bpf::{
        packet::{Packet, tcp_sock},
        time::now,
        verifier::{at_most, opaque},
    },
    fields,
};

/// A record holds at most this much (RFC 8446 §5.1).
const RECORD_MOST: u32 = 1 << 14;
/// The shortest ClientHello (RFC 5246 §7.4.1.2): version, random, empty session id, one cipher suite, one
/// compression method.
const SHORTEST: u32 = 41;
/// Records of one hello that are looked at with one segment.
const RECORDS: u32 = 8;

/// More bytes of a ClientHello that is not whole yet, of a socket that has a handshake: which ends here if they are
/// none after all.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn tls_hello(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let (ctx, mut packet) = (SkBuffContext::new(skb.cast()), Packet::of(ends, payload));
    let Some(socket) = tcp_sock(&ctx) else { return opaque(0) };
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) else { return opaque(0) };
    // SAFETY: a live map value, and the packet's own socket.
    unsafe {
        // What stands before a second hello is a ChangeCipherSpec.
        let before = (*handshake).hello_seq.wrapping_sub(packet.seq);
        if before < packet.len {
            packet.seq = packet.seq.wrapping_add(before);
            packet.offset += before;
            packet.len -= before;
        }
        if more::<true>(skb, handshake, &packet, socket, null_mut()) {
            forget(cookie);
        }
    }
    opaque(0)
}

/// More bytes of a ClientHello that came before its socket did: `early` holds it. `true`: it is none after all.
///
/// # Safety
/// `handshake` and `early` must be live map values.
#[inline(always)]
pub(super) unsafe fn without_socket(
    skb: *mut __sk_buff,
    handshake: *mut Handshake,
    packet: &Packet,
    early: *mut DeferredHello,
) -> bool {
    // SAFETY: passed on to the caller.
    unsafe { more::<false>(skb, handshake, packet, null(), early) }
}

/// Either of a `SOCKET`, or of what is held `early`; the other one is NULL.
///
/// # Safety
/// `handshake` and `early` must be live map values, `socket` BTF-typed.
#[inline(always)]
unsafe fn more<const SOCKET: bool>(
    skb: *mut __sk_buff,
    handshake: *mut Handshake,
    packet: &Packet,
    socket: *const u8,
    early: *mut DeferredHello,
) -> bool {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: as promised by the caller: a live map value.
    let hs = unsafe { &mut *handshake };
    let (at, before) = (packet.seq.wrapping_sub(hs.hello_seq), hs.hello_seen);
    let end = at.wrapping_add(packet.len);
    if at > HELLO_CAPTURED || end <= before {
        return false;
    }
    if at < 16 {
        // The first sixteen bytes may come in pieces.
        let want = at_most::<16>(packet.len);
        // SAFETY: at < 16 and want <= 16 stay within the 32 bytes of the prefix.
        let read = unsafe {
            let to = (&raw mut hs.prefix).cast::<u8>().add((opaque(u64::from(at)) & 15) as usize);
            bpf_skb_load_bytes(skb.cast(), packet.offset, to.cast(), want)
        };
        if read != 0 {
            return false;
        }
    }
    if at <= before {
        hs.hello_seen = end;
        if packet.ingress && SOCKET {
            // SAFETY: as promised by the caller.
            unsafe { already_here(hs, socket) };
        }
    }
    let seen = hs.hello_seen;
    let mut first = [0u8; 16];
    first.copy_from_slice(&hs.prefix[..16]);
    if seen != 0 && !may_begin(&first, seen) {
        return true;
    }
    let record = u32::from(u16::from_be_bytes([first[3], first[4]]));
    if seen >= 5 && hs.record_end == 0 {
        hs.hello_len = 5 + record;
        if record == 0 || record > RECORD_MOST {
            return true;
        }
        if seen >= 9 && record >= 4 {
            let message = u32::from(u16::from_be_bytes([first[7], first[8]]));
            if message < SHORTEST {
                return true;
            }
            hs.record_end = 5 + record;
            hs.left = (message + 4).saturating_sub(record);
        }
    }
    let at_once = at == 0 && hs.left == 0 && hs.record_end != 0 && end >= hs.record_end;
    if !SOCKET {
        hold_in(skb, early, at, packet.offset, packet.len);
    } else if holds_all(hs) {
        hold(&ctx, hs.cookie, at, packet);
    } else if at_once || end > HELLO_HELD as u32 {
        capture(&ctx, hs, CLIENT_HELLO, at, packet.offset, packet.len);
    } else {
        hs.flags |= HELD;
        hold(&ctx, hs.cookie, at, packet);
    }
    if at > before {
        // What comes before it is missing.
        return false;
    }
    hs.client_next = hs.hello_seq.wrapping_add(seen);
    hs.moved_ns = now();
    if packet.ingress {
        hs.flags |= UNREAD;
    }
    for _ in 0..RECORDS {
        let begins = hs.record_end;
        if hs.left == 0 || begins + 5 > seen {
            break;
        }
        let mut header = [0u8; 8];
        // SAFETY: five of eight bytes on the stack.
        let read = unsafe {
            if begins >= at && begins + 5 <= end {
                let from = packet.offset + (begins - at);
                bpf_skb_load_bytes(skb.cast(), from, (&raw mut header).cast(), 5) == 0
            } else {
                kept::<SOCKET>(hs.cookie, early, begins, &mut header)
            }
        };
        if !read {
            return false;
        }
        let record = u32::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE || header[1] != 3 || record == 0 || record > RECORD_MOST {
            return true;
        }
        hs.left = hs.left.saturating_sub(record);
        hs.record_end = begins + 5 + record;
    }
    if hs.record_end != 0 {
        hs.hello_len = hs.record_end + if hs.left == 0 { 0 } else { hs.left + 5 };
    }
    whole(hs, seen, SOCKET);
    false
}

/// The hello is complete if it is.
#[inline(always)]
fn whole(hs: &mut Handshake, seen: u32, of_a_socket: bool) {
    if hs.record_end != 0 && hs.left == 0 && seen >= hs.record_end {
        hs.stage = stage::HELLO;
        if of_a_socket {
            grown(hs.cookie);
            hand_over(hs);
            report(Kind::TLS_PHASE, hs);
        }
    }
}

/// A thread reads from the socket, which has received everything before `next`.
#[inline(always)]
pub(super) fn received(hs: &mut Handshake, next: u32) {
    let seen = next.wrapping_sub(hs.hello_seq);
    if seen > hs.hello_seen && seen <= HELLO_CAPTURED {
        hs.hello_seen = seen;
        whole(hs, seen, true);
    }
}

/// Counts what has arrived ahead of this segment, and stands behind it without a gap: the socket lists it, to
/// acknowledge it selectively.
///
/// # Safety
/// `socket` must be a BTF-typed `struct tcp_sock`.
#[inline(always)]
unsafe fn already_here(hs: &mut Handshake, socket: *const u8) {
    // SAFETY: direct loads within the array, checked by the verifier.
    unsafe {
        let blocks = u32::from(fields::TCP_NUM_SACKS::read(socket));
        let from = fields::TCP_SACKS::address(socket).cast::<u32>();
        for block in 0..4u32 {
            if block >= blocks {
                break;
            }
            let starts = from.add(block as usize * 2).read_volatile().wrapping_sub(hs.hello_seq);
            let ends = from.add(block as usize * 2 + 1).read_volatile().wrapping_sub(hs.hello_seq);
            if starts <= hs.hello_seen && ends > hs.hello_seen && ends <= 2 * HELLO_CAPTURED {
                hs.hello_seen = ends;
            }
        }
    }
}

/// A record header among the bytes that are held.
///
/// # Safety
/// Without a `SOCKET`, `early` must be a live map value.
#[inline(always)]
unsafe fn kept<const SOCKET: bool>(
    cookie: u64,
    early: *const DeferredHello,
    at: u32,
    header: &mut [u8; 8],
) -> bool {
    let from = if SOCKET {
        match held(cookie) {
            Some(held) => held,
            None => return false,
        }
    } else {
        early
    };
    // SAFETY: a live map value; at + 5 stay within its data.
    unsafe {
        if at + 5 > HELLO_HELD as u32 || at + 5 > (*from).len {
            return false;
        }
        let bytes = (&raw const (*from).data).cast::<u8>().add((opaque(u64::from(at)) & 2047) as usize);
        *header = [
            bytes.read_volatile(),
            bytes.add(1).read_volatile(),
            bytes.add(2).read_volatile(),
            bytes.add(3).read_volatile(),
            bytes.add(4).read_volatile(),
            0,
            0,
            0,
        ];
    }
    true
}
