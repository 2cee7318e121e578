//! The programs behind `tls`: which handshakes are followed, from the first segment to the last; what a segment
//! means is in `steps`, what is said of it in `told`.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::{
        bpf_get_current_task, bpf_probe_read_kernel,
        generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_cgroup_id, bpf_skc_to_tcp_sock},
    },
    macros::{btf_tracepoint, map},
    maps::{Array, HashMap, LruHashMap},
    programs::{BtfTracePointContext, SkBuffContext},
};

use super::{
    CLIENT, HELLO_HELD, Handshake, SERVER, SPEAKS_TLS, UNREAD,
    hello::{self, received},
    listener, stage,
    steps::{Step, moved, note_stall, over},
    told::{let_go, nobodys, release, tell},
    young,
};
use crate::{
    abi::{Kind, Owner, ProbeId, Stat, Tuple},
    call, fields, filter,
    kernel::{SOCKETS, atomic_add, count, current, mapped, netns, now, opaque, v6},
    metrics::{Timed, counter, phase, program as metrics},
    packet::program::{First, Packet, tcp_sock},
};

pub(crate) use super::{listener::cookies_come_with_packets, steps::may_begin};

/// `TCP_LISTEN` of include/net/tcp_states.h.
const TCP_LISTEN: u8 = 10;

/// Handshakes in flight, by socket cookie. Gone when the handshake ends.
#[map]
pub static HANDSHAKES: HashMap<u64, Handshake> = HashMap::with_max_entries(1 << 14, 0);

/// What a hash of a socket's ports is of interest for: the one look that packets of finished handshakes and of
/// everything else pay.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Handshakes in flight.
    live: u64,
    /// 1: a connection has been accepted whose first bytes have not come yet. A mark that one of several may take from
    /// the others; nothing but a hello whose segments come out of order depends on it.
    young: u32,
    /// 1: a handshake began here before its socket existed.
    pub(super) requested: u32,
}

#[map]
static GATE: Array<Slot> = Array::with_max_entries(GATE_SLOTS, 0);
const GATE_SLOTS: u32 = 1 << 16;

/// An empty handshake, to begin new ones from: too large for the stack. Never written.
#[map]
static EMPTY: Array<Handshake> = Array::with_max_entries(1, 0);

/// Services that have answered a ClientHello with a ServerHello, by namespace and port.
#[map]
static SPOKE_TLS: LruHashMap<[u32; 3], u32> = LruHashMap::with_max_entries(1 << 12, 0);

/// The slot of a socket's ports.
#[inline(always)]
pub(super) fn slot_of(local: u16, remote: u16) -> Option<*mut Slot> {
    GATE.get_ptr_mut((u32::from(local).wrapping_mul(0x9e37) ^ u32::from(remote)) & (GATE_SLOTS - 1))
}

/// Whether packets of a socket with these ports are of interest. The ports are the socket's: netfilter may have given
/// those of packets that leave another value.
#[inline(always)]
pub fn open(local: u16, remote: u16) -> bool {
    match slot_of(local, remote) {
        // SAFETY: a live array slot, two words long.
        Some(slot) => unsafe {
            let words = slot.cast::<u64>();
            words.read_volatile() | words.add(1).read_volatile() != 0
        },
        None => false,
    }
}

#[inline(always)]
pub(super) fn gate(local: u16, remote: u16, by: u64) {
    if let Some(slot) = slot_of(local, remote) {
        // SAFETY: a live, aligned array slot, shared between CPUs.
        unsafe { atomic_add(&raw mut (*slot).live, by) };
    }
}

#[inline(always)]
fn service(hs: &Handshake) -> [u32; 3] {
    [hs.owner.netns.inode, hs.owner.netns.generation, hs.tuple.local_port.into()]
}

/// Whether the service this handshake is with has answered one before.
#[inline(always)]
pub(super) fn speaks_tls(hs: &Handshake) -> bool {
    SPOKE_TLS.get_ptr(&service(hs)).is_some()
}

/// The service answers with a ServerHello.
#[inline(always)]
pub(super) fn spoke_tls(hs: &Handshake) {
    if hs.flags & SPEAKS_TLS == 0 {
        let _ = SPOKE_TLS.insert(&service(hs), &1, 0);
    }
}

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
pub fn segment(skb: *mut __sk_buff, ends: u64, payload: u64) {
    let mut what = call!(tls_segment(skb, ends, payload));
    if what == next::UNKNOWN && call!(tls_unknown(skb, ends, payload)) != 0 {
        what = call!(tls_segment(skb, ends, payload));
    }
    if what == next::HELLO {
        call!(hello::tls_hello(skb, ends, payload));
    } else if what == next::LISTENER && call!(listener::tls_arrived(skb, ends, payload)) != 0 {
        call!(listener::tls_requested(skb, ends, payload));
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
    if packet.ingress && unsafe { fields::SK_STATE::read(socket) } == TCP_LISTEN {
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
    // and a race between the two directions costs at most a stage told twice.
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
            Step::Over => forget(cookie),
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

/// Whether a packet without payload is of interest: the first that leaves a socket is what draws its cookie, where
/// tracepoints cannot.
#[inline(always)]
pub fn bare(local: u16, remote: u16) -> bool {
    // SAFETY: a live array slot.
    slot_of(local, remote).is_some_and(|slot| unsafe { (*slot).requested != 0 })
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
            call!(listener::claimed(socket, cookie, 0));
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
            metrics::took(phase(hs.role, stage), hs.moved_ns.wrapping_sub(moved_ns));
        }
        if hs.stage >= stage::DONE {
            metrics::add(counter::tls(hs.role, hs.stage));
        }
        if hs.stage == stage::DONE {
            let timed = Timed::TlsClient as u32 + hs.role - CLIENT;
            metrics::took(timed, hs.moved_ns.wrapping_sub(hs.started_ns));
        }
    }
    opaque(0)
}

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
        young::grown(cookie);
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
        young::begins(cookie)
            && (HANDSHAKES.insert(&cookie, &*handshake, 0).is_ok()
                || (call!(young::tls_room(cookie)) != 0
                    && HANDSHAKES.insert(&cookie, &*handshake, 0).is_ok()))
    };
    if !room {
        count(ProbeId::Tls, Stat::MapFull);
        young::grown(cookie);
    }
    room
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
    // SAFETY: a live array slot that nobody writes.
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
pub unsafe fn accepted(sk: *const u8) {
    // SAFETY: passed on to the caller; a live array slot.
    unsafe {
        let Some(slot) = slot_of(fields::SK_NUM::read(sk), u16::from_be(fields::SK_DPORT::read(sk))) else {
            return;
        };
        if (*slot).requested != 0 {
            listener::established(sk);
        } else {
            (*slot).young = 1;
        }
    }
}

/// A socket has sent all it will ever send: it was shut down, or closed by the last process that had it. It owes
/// nothing any more, though it may stay long.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub unsafe fn finishing(sk: *const u8, cookie: u64) {
    // SAFETY: passed on to the caller.
    if unsafe { open(fields::SK_NUM::read(sk), u16::from_be(fields::SK_DPORT::read(sk))) } {
        call!(tls_closed(cookie));
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

/// The thread that sends, when the socket's owner is not known: connected before culprit started.
///
/// # Safety
/// `owner` must be a live map value.
#[inline(always)]
pub unsafe fn sender(ctx: &SkBuffContext, owner: *mut Owner) {
    // SAFETY: the running task, read by a helper that cannot fault; the packet's own context.
    unsafe {
        let task = bpf_get_current_task() as *const u8;
        let process = bpf_probe_read_kernel(fields::TASK_TGID::address(task)).unwrap_or(0);
        if process == 0 {
            return;
        }
        (*owner).process = process;
        (*owner).thread = bpf_probe_read_kernel(fields::TASK_PID::address(task)).unwrap_or(0);
        (*owner).comm = bpf_probe_read_kernel(fields::TASK_COMM::address(task)).unwrap_or_default();
        (*owner).cgroup = bpf_skb_cgroup_id(ctx.skb.skb);
    }
}

/// The socket closed: a handshake still in flight ends here. Called at each TCP socket's close.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_closed(cookie: u64) -> u64 {
    if let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) {
        // SAFETY: a live map value.
        let hs = unsafe { &mut *handshake };
        note_stall(hs);
        if hs.stage != stage::HELLO_PARTIAL || hs.hello_seen >= 11 {
            let (stage, moved_ns) = (hs.stage, hs.moved_ns);
            over(hs, stage::CLOSED);
            call!(tls_advanced(cookie, stage.into(), moved_ns));
        }
        forget(cookie);
    }
    opaque(0)
}

/// Runs at each read from a TCP socket, in the thread that reads: two loads and one array slot
/// unless a handshake is in flight between these ports.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn socket_read(ctx: BtfTracePointContext) -> i32 {
    let sk: *const u8 = ctx.arg(0);
    // SAFETY: `sk` is a BTF-typed argument; the map value is live.
    unsafe {
        let local = fields::SK_NUM::read(sk);
        let remote = u16::from_be(fields::SK_DPORT::read(sk));
        if !open(local, remote) {
            return 0;
        }
        let handshake = match HANDSHAKES.get_ptr_mut(&fields::SK_COOKIE::read(sk)) {
            Some(handshake) => handshake,
            None => {
                // Read before its connection is established (TCP Fast Open).
                if slot_of(local, remote).is_none_or(|slot| (*slot).requested == 0) {
                    return 0;
                }
                listener::established(sk);
                let Some(handshake) = HANDSHAKES.get_ptr_mut(&fields::SK_COOKIE::read(sk)) else { return 0 };
                handshake
            }
        };
        let hs = &mut *handshake;
        if hs.flags & UNREAD == 0 {
            return 0;
        }
        if hs.stage == stage::HELLO_PARTIAL && hs.role == SERVER {
            let socket = bpf_skc_to_tcp_sock(sk.cast_mut().cast()).cast::<u8>();
            if !socket.is_null() {
                received(hs, fields::TCP_RCV_NXT::read(socket));
            }
        }
        hs.flags &= !UNREAD;
        hs.reader = current(netns(fields::SK_NET::read(sk)));
        hs.read_ns = now();
        if hs.role == SERVER && hs.owner.process == 0 {
            if !filter::caller(&hs.reader) {
                forget(hs.cookie);
                return 0;
            }
            let was_held = nobodys(hs);
            hs.owner = hs.reader;
            if was_held && !filter::quiet() {
                release(hs.cookie);
            }
        }
        if hs.stage >= stage::HELLO && hs.read_stage != hs.stage {
            note_stall(hs);
            hs.read_stage = hs.stage;
            // The peer's hello, not what follows it.
            if hs.stage == stage::HELLO + SERVER - hs.role {
                let timed = Timed::ReadClient as u32 + hs.role - CLIENT;
                metrics::took(timed, hs.read_ns.wrapping_sub(hs.moved_ns));
            }
            tell(Kind::TlsRead, hs);
        }
    }
    0
}
