//! What the programs that see packets and states of sockets call for `tls`: which handshakes are followed, from the first
//! segment to the last. What a segment means is in `state_machine`, what is said of it in `report` and `capture`.

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
    programs::SkBuffContext,
};

use super::{
    CLIENT, CLOSED_BY_CLIENT, CLOSED_BY_SERVER, HELLO_HELD, Handshake, SERVER, SPEAKS_TLS, ended, failing,
    hello,
    lifetime::{forget, insert},
    phase, request, stage,
    state_machine::{Step, moved, note_stall, over},
    table::{HANDSHAKES, gate, nobodys, slot_of, speaks_tls},
};
use crate::{
    abi::Tuple,
    bpf::{
        address::{mapped, v6},
        counters, filter,
        netns::netns,
        owner::{SOCKETS, sender},
        packet::{First, Packet, tcp_sock},
        tcp::state::{CLOSE_WAIT, LISTEN},
        time::now,
        verifier::{call, opaque},
    },
    fields,
    metrics::Timed,
};

pub(crate) use super::{
    request::cookies_come_with_packets,
    state_machine::may_begin,
    table::{bare, open},
};

/// An empty handshake, to begin new ones from: too large for the stack. Never written.
#[map]
pub(super) static EMPTY: Array<Handshake> = Array::with_max_entries(1, 0);

/// What is to be done about a segment next.
mod next {
    /// Nothing.
    pub(super) const NOTHING: u64 = 0;
    /// Its socket is a listener: [`super::tls_arrived`].
    pub(super) const LISTENER: u64 = 1;
    /// Its socket has no handshake: [`super::tls_unknown`].
    pub(super) const UNKNOWN: u64 = 2;
    /// It has more bytes of a ClientHello: [`super::hello::tls_hello`].
    pub(super) const HELLO: u64 = 3;
}

/// A segment of a socket that may be in a handshake or begins one here; without payload, the first that leaves a
/// socket which came of a listener. Its steps are called one after the other, not one by the other: the stack is
/// short.
#[inline(always)]
pub(crate) fn segment(skb: *mut __sk_buff, ends: u64, payload: u64) {
    let mut what = call!(tls_segment(skb, ends, payload));
    if what == next::UNKNOWN && call!(tls_unknown(skb, ends, payload)) != 0 {
        what = call!(tls_segment(skb, ends, payload));
    }
    if what == next::HELLO {
        call!(hello::tls_hello(skb, ends, payload));
    } else if what == next::LISTENER && call!(request::tls_arrived(skb, ends, payload)) != 0 {
        call!(request::tls_requested(skb, ends, payload));
    }
}

/// Moves the handshake of a segment's socket; one of [`next`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_segment(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let (ctx, packet) = (SkBuffContext::new(skb.cast()), Packet::of(ends, payload));
    opaque(segment_of(&ctx, packet))
}

#[inline(always)]
fn segment_of(ctx: &SkBuffContext, mut packet: Packet) -> u64 {
    let Some(socket) = tcp_sock(ctx) else { return next::NOTHING };
    // SAFETY: a load through the BTF-typed socket.
    if packet.ingress && unsafe { fields::SK_STATE::read(socket) } == LISTEN as u8 {
        return next::LISTENER;
    }
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) else { return next::UNKNOWN };
    if packet.len == 0 {
        return next::NOTHING;
    }
    let Some(mut first) = packet.first(ctx.skb.skb) else { return next::NOTHING };
    // SAFETY: a live map value; a socket's packets in one direction are handled one after the other,
    // and a race between the two directions costs at most a stage reported twice.
    unsafe {
        if !packet.ingress && (*handshake).role == SERVER && (*handshake).stage <= stage::HELLO {
            let (ends, payload) = packet.words();
            call!(tls_wire(ctx.skb.skb, cookie, ends, payload));
        }
        let (stage, moved_ns) = ((*handshake).stage, (*handshake).moved_ns);
        let what = moved(ctx, handshake, &mut packet, &mut first, socket);
        if (*handshake).stage != stage {
            call!(tls_advanced(cookie, stage.into(), moved_ns));
        }
        match what {
            Step::Over => {
                failing::ended(cookie);
                forget(cookie);
            }
            Step::Hello => return next::HELLO,
            Step::On => {}
        }
    }
    next::NOTHING
}

/// Finds or begins the handshake of a socket that has none under its cookie. `1`: it has one now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_unknown(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let (ctx, packet) = (SkBuffContext::new(skb.cast()), Packet::of(ends, payload));
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    if let (Some(socket), Some(first)) = (tcp_sock(&ctx), packet.first(skb)) {
        // SAFETY: the packet's own socket.
        unsafe { unknown(&ctx, cookie, &packet, &first, socket) };
    }
    opaque(u64::from(HANDSHAKES.get_ptr(&cookie).is_some()))
}

/// The handshake of a socket that has none under its cookie: one that began at the listener, or begins here.
///
/// # Safety
/// `socket` must be the packet's BTF-typed `struct tcp_sock`.
#[inline(always)]
unsafe fn unknown(ctx: &SkBuffContext, cookie: u64, packet: &Packet, first: &First, socket: *const u8) {
    // SAFETY: loads through a BTF-typed socket, and a live array slot.
    unsafe {
        let (local, remote) = (fields::SK_NUM::read(socket), u16::from_be(fields::SK_DPORT::read(socket)));
        let Some(slot) = slot_of(local, remote) else { return };
        if (*slot).requested != 0 {
            call!(request::claimed(socket, cookie, 0));
            if HANDSHAKES.get_ptr(&cookie).is_some() {
                return;
            }
        }
        if packet.len == 0 {
            return;
        }
        let young = (*slot).young != 0;
        (*slot).young = 0;
        let may = may_begin(first, packet.len);
        let mut begins = packet.seq;
        if packet.ingress {
            let next = fields::TCP_RCV_NXT::read(socket);
            if packet.seq != next {
                // Of something older, or the first bytes of a connection come later than these.
                if !young || packet.seq.wrapping_sub(next) > HELLO_HELD as u32 {
                    return;
                }
                (*slot).young = 1;
                begins = next;
            } else if !may {
                return;
            }
        } else if !may || (packet.seq.wrapping_sub(fields::TCP_SND_NXT::read(socket)) as i32) < 0 {
            return;
        }
        let _ = begin(ctx, cookie, packet, socket, begins);
    }
}

/// Keeps what netfilter has made of a packet's addresses and ports, if anything.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_wire(skb: *mut __sk_buff, cookie: u64, ends: u64, payload: u64) -> u64 {
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) else { return opaque(0) };
    let (ctx, packet) = (&SkBuffContext::new(skb.cast()), Packet::of(ends, payload));
    // SAFETY: a live map value.
    unsafe {
        let wire = &raw mut (*handshake).wire;
        let (own, seen) = ((&raw const (*handshake).tuple).cast::<u64>(), wire.cast::<u64>());
        let mut differs = packet.write_tuple(ctx, wire).is_none();
        for word in 0..5 {
            differs |= own.add(word).read() != seen.add(word).read();
        }
        if !differs {
            (*handshake).wire = Tuple::default();
        }
    }
    opaque(0)
}

/// Counts a handshake that left `stage`, where it had last moved at `moved_ns`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tls_advanced(cookie: u64, stage: u64, moved_ns: u64) -> u64 {
    let Some(handshake) = HANDSHAKES.get_ptr(&cookie) else { return opaque(0) };
    // SAFETY: a live map value.
    let (hs, stage) = unsafe { (&*handshake, stage as u32) };
    if !nobodys(hs) {
        if stage >= stage::HELLO && hs.stage > stage && hs.stage <= stage::DONE {
            counters::took(phase(hs.role, stage), hs.moved_ns.wrapping_sub(moved_ns));
        }
        if hs.stage >= stage::DONE {
            counters::add(ended(hs.role, hs.stage));
        }
        if hs.stage == stage::DONE {
            let timed = Timed::TlsClient as u32 + hs.role - CLIENT;
            counters::took(timed, hs.moved_ns.wrapping_sub(hs.started_ns));
        }
    }
    opaque(0)
}

/// Begins to follow a handshake, if it is wanted; its ClientHello begins with this sequence number.
///
/// # Safety
/// `socket` must be the packet's BTF-typed `struct tcp_sock`.
#[inline(always)]
unsafe fn begin(
    ctx: &SkBuffContext,
    cookie: u64,
    packet: &Packet,
    socket: *const u8,
    begins: u32,
) -> Option<()> {
    let role = if packet.ingress { SERVER } else { CLIENT };
    let known = SOCKETS.get_ptr(&cookie);
    if role == CLIENT && known.is_none() && filter::CGROUP.load() != 0 {
        return None;
    }
    let empty = EMPTY.get_ptr(0)?;
    // SAFETY: a live array slot that is never written.
    if unsafe { !insert(cookie, empty) } {
        return None;
    }
    let handshake = HANDSHAKES.get_ptr_mut(&cookie)?;
    let at = now();
    // SAFETY: a live map value, just made by this packet; the packet's own socket.
    let wanted = unsafe {
        (*handshake).cookie = cookie;
        (*handshake).started_ns = at;
        (*handshake).moved_ns = at;
        (*handshake).hello_seq = begins;
        (*handshake).client_next = begins;
        (*handshake).stage = stage::HELLO_PARTIAL;
        (*handshake).role = role;
        if role == CLIENT {
            match known {
                Some(known) => (*handshake).owner = *known,
                None => sender(ctx, &raw mut (*handshake).owner),
            }
        }
        if !(*handshake).owner.netns.is_known() {
            (*handshake).owner.netns = netns(fields::SK_NET::read(socket));
        }
        // What arrives has the socket's own addresses and ports.
        let tuple = &raw mut (*handshake).tuple;
        let read = packet.write_tuple(ctx, tuple).is_some();
        (*tuple).local_port = fields::SK_NUM::read(socket);
        (*tuple).remote_port = u16::from_be(fields::SK_DPORT::read(socket));
        gate((*tuple).local_port, (*tuple).remote_port, 1);
        if role == CLIENT {
            if packet.v4 {
                (*tuple).local = mapped(fields::SK_RCV_SADDR::read(socket));
                (*tuple).remote = mapped(fields::SK_DADDR::read(socket));
            } else {
                (*tuple).local = v6(fields::SK_V6_RCV_SADDR::address(socket));
                (*tuple).remote = v6(fields::SK_V6_DADDR::address(socket));
            }
            let (ends, payload) = packet.words();
            call!(tls_wire(ctx.skb.skb, cookie, ends, payload));
        } else {
            (*handshake).established_ns = last_active(socket, at);
            if speaks_tls(&*handshake) {
                (*handshake).flags |= SPEAKS_TLS;
            }
        }
        let service = if role == CLIENT { (*tuple).remote_port } else { (*tuple).local_port };
        read && filter::peer(&(*tuple).remote, !packet.v4, service)
            && (role == SERVER || filter::process(&(*handshake).owner))
    };
    if !wanted {
        forget(cookie);
        return None;
    }
    Some(())
}

/// A connection that came of a listener is established: two loads, and a mark that its first bytes are to come. Called
/// for each.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub(crate) unsafe fn accepted(sk: *const u8) {
    // SAFETY: passed on to the caller; a live array slot.
    unsafe {
        let Some(slot) = slot_of(fields::SK_NUM::read(sk), u16::from_be(fields::SK_DPORT::read(sk))) else {
            return;
        };
        if (*slot).requested != 0 {
            request::established(sk);
        } else {
            (*slot).young = 1;
        }
    }
}

/// Which end closed or reset a connection first.
mod closed {
    /// It is not known, or the network did.
    pub(super) const UNKNOWN: u64 = 0;
    /// This one.
    pub(super) const HERE: u64 = 1;
    /// The other one.
    pub(super) const THERE: u64 = 2;
}

/// A socket has sent all it will ever send: it was shut down, or closed by the last process that had it. It owes
/// nothing any more, though it may stay long. `answers`: the peer had done so before.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub(crate) unsafe fn finishing(sk: *const u8, cookie: u64, answers: bool) {
    // SAFETY: passed on to the caller.
    if unsafe { open(fields::SK_NUM::read(sk), u16::from_be(fields::SK_DPORT::read(sk))) } {
        call!(tls_closed(cookie, if answers { closed::THERE } else { closed::HERE }));
    }
}

/// Who ended a connection that goes from this state to none.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub(crate) unsafe fn closed_by(sk: *const u8, old: i32) -> u64 {
    if old == CLOSE_WAIT {
        return closed::THERE;
    }
    // A reset that arrives leaves ECONNRESET, or EPIPE (include/uapi/asm-generic/errno-base.h).
    // SAFETY: passed on to the caller.
    match unsafe { fields::SK_ERR::read(sk) } {
        32 | 104 => closed::THERE,
        0 => closed::HERE,
        _ => closed::UNKNOWN,
    }
}

/// When a socket last sent or received anything, before the packet in hand: for one that has carried nothing yet,
/// when it was established. (The kernel keeps CLOCK_MONOTONIC microseconds.)
///
/// # Safety
/// `socket` must be a BTF-typed `struct tcp_sock`.
#[inline(always)]
unsafe fn last_active(socket: *const u8, at: u64) -> u64 {
    // SAFETY: a load through a BTF-typed socket, and a helper that takes nothing.
    unsafe { at.saturating_sub(bpf_ktime_get_ns().wrapping_sub(fields::TCP_MSTAMP::read(socket) * 1000)) }
}

/// The socket closed: a handshake still in flight ends here. Called at each TCP socket's close; `by` is one of
/// [`closed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tls_closed(cookie: u64, by: u64) -> u64 {
    if let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) {
        // SAFETY: a live map value.
        let hs = unsafe { &mut *handshake };
        note_stall(hs);
        if hs.stage != stage::HELLO_PARTIAL || hs.hello_seen >= 11 {
            let (stage, moved_ns) = (hs.stage, hs.moved_ns);
            if by != closed::UNKNOWN {
                let by_client = (by == closed::HERE) == (hs.role == CLIENT);
                hs.flags |= if by_client { CLOSED_BY_CLIENT } else { CLOSED_BY_SERVER };
            }
            over(hs, stage::CLOSED);
            call!(tls_advanced(cookie, stage.into(), moved_ns));
            failing::ended(cookie);
        }
        forget(cookie);
    }
    opaque(0)
}
