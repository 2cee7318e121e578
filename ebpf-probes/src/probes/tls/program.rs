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
        generated::{bpf_get_socket_cookie, bpf_skb_cgroup_id},
    },
    macros::{btf_tracepoint, map},
    maps::{Array, HashMap},
    programs::{BtfTracePointContext, SkBuffContext},
};

use super::{
    CLIENT, Handshake, SERVER, UNREAD, stage,
    steps::{moved, note_stall, over},
    told::{let_go, nobodys, release, tell},
};
use crate::{
    abi::{Kind, Owner, ProbeId, Stat},
    call, fields, filter,
    kernel::{SOCKETS, atomic_add, count, current, netns, now, opaque},
    metrics::{Timed, counter, phase, program as metrics},
    packet::program::{Packet, netns_of},
};

pub(crate) use super::steps::may_begin;

/// Handshakes in flight, by socket cookie. Gone when the handshake ends.
#[map]
pub static HANDSHAKES: HashMap<u64, Handshake> = HashMap::with_max_entries(1 << 14, 0);

/// Handshakes in flight by a hash of their ports: the one look that packets of finished handshakes
/// and of everything else pay.
#[map]
static GATE: Array<u64> = Array::with_max_entries(GATE_SLOTS, 0);
const GATE_SLOTS: u32 = 1 << 16;

/// An empty handshake, to begin new ones from: too large for the stack. Never written.
#[map]
static EMPTY: Array<Handshake> = Array::with_max_entries(1, 0);

#[inline(always)]
fn slot(local: u16, remote: u16) -> u32 {
    (u32::from(local).wrapping_mul(0x9e37) ^ u32::from(remote)) & (GATE_SLOTS - 1)
}

/// Whether a handshake may be in flight between these ports.
#[inline(always)]
pub fn open(local: u16, remote: u16) -> bool {
    match GATE.get_ptr(slot(local, remote)) {
        // SAFETY: a live array slot.
        Some(live) => unsafe { *live != 0 },
        None => false,
    }
}

#[inline(always)]
fn gate(local: u16, remote: u16, by: u64) {
    if let Some(live) = GATE.get_ptr_mut(slot(local, remote)) {
        // SAFETY: a live, aligned array slot, shared between CPUs.
        unsafe { atomic_add(live, by) };
    }
}

/// A segment with payload, of a socket that may be in a handshake or begins one here. Not inlined, for
/// the stack.
#[inline(never)]
pub fn segment(skb: *mut __sk_buff, packet: &Packet) -> u64 {
    segment_inlined(skb, packet);
    opaque(0)
}

#[inline(always)]
fn segment_inlined(skb: *mut __sk_buff, packet: &Packet) {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: the context of a cgroup_skb program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let handshake = match HANDSHAKES.get_ptr_mut(&cookie) {
        Some(handshake) => handshake,
        None => {
            if !may_begin(&packet.first, packet.len) {
                return;
            }
            match begin(&ctx, cookie, packet) {
                Some(handshake) => handshake,
                None => return,
            }
        }
    };
    // SAFETY: a live map value; a socket's packets in one direction are handled one after the other,
    // and a race between the two directions costs at most a stage told twice.
    let over = unsafe {
        let (stage, moved_ns) = ((*handshake).stage, (*handshake).moved_ns);
        let over = moved(&ctx, handshake, packet);
        if (*handshake).stage != stage {
            call!(advanced(handshake, stage, moved_ns));
        }
        over
    };
    if over {
        forget(cookie, packet.local, packet.remote);
    }
}

/// Counts a handshake that left `stage`, where it had last moved at `moved_ns`. Not inlined, for the stack.
///
/// # Safety
/// `handshake` must be a live map value.
#[inline(never)]
unsafe fn advanced(handshake: *const Handshake, stage: u32, moved_ns: u64) -> u64 {
    // SAFETY: as promised by the caller.
    let hs = unsafe { &*handshake };
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
fn forget(cookie: u64, local: u16, remote: u16) {
    if HANDSHAKES.remove(&cookie).is_ok() {
        gate(local, remote, u64::MAX);
        let_go(cookie);
    }
}

/// Begins to follow a handshake, if it is wanted.
#[inline(always)]
fn begin(ctx: &SkBuffContext, cookie: u64, packet: &Packet) -> Option<*mut Handshake> {
    let role = if packet.ingress { SERVER } else { CLIENT };
    let known = SOCKETS.get_ptr(&cookie);
    if role == CLIENT && known.is_none() && filter::CGROUP.load() != 0 {
        return None;
    }
    let empty = EMPTY.get_ptr(0)?;
    // SAFETY: a live array slot that nobody writes.
    if HANDSHAKES.insert(&cookie, unsafe { &*empty }, 0).is_err() {
        count(ProbeId::Tls, Stat::MapFull);
        return None;
    }
    gate(packet.local, packet.remote, 1);
    let handshake = HANDSHAKES.get_ptr_mut(&cookie)?;
    let at = now();
    // SAFETY: a live map value, just made by this packet.
    let wanted = unsafe {
        (*handshake).cookie = cookie;
        (*handshake).started_ns = at;
        (*handshake).moved_ns = at;
        (*handshake).hello_seq = packet.seq;
        (*handshake).client_next = packet.seq;
        (*handshake).stage = stage::HELLO_PARTIAL;
        (*handshake).role = role;
        if role == CLIENT {
            match known {
                Some(known) => (*handshake).owner = *known,
                None => sender(ctx, &raw mut (*handshake).owner),
            }
        }
        if !(*handshake).owner.netns.is_known() {
            (*handshake).owner.netns = netns_of(ctx).unwrap_or_default();
        }
        let service = if role == CLIENT { packet.remote } else { packet.local };
        packet.write_tuple(ctx, &raw mut (*handshake).tuple).is_some()
            && filter::peer(&(*handshake).tuple.remote, !packet.v4, service)
            && (role == SERVER || filter::process(&(*handshake).owner))
    };
    if !wanted {
        forget(cookie, packet.local, packet.remote);
        return None;
    }
    Some(handshake)
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
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub unsafe fn closed(cookie: u64) {
    let Some(handshake) = HANDSHAKES.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value.
    let hs = unsafe { &mut *handshake };
    let (local, remote) = (hs.tuple.local_port, hs.tuple.remote_port);
    note_stall(hs);
    if hs.stage != stage::HELLO_PARTIAL || hs.hello_seen >= 11 {
        let (stage, moved_ns) = (hs.stage, hs.moved_ns);
        over(hs, stage::CLOSED);
        // SAFETY: as above.
        unsafe { call!(advanced(handshake, stage, moved_ns)) };
    }
    forget(cookie, local, remote);
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
        let Some(handshake) = HANDSHAKES.get_ptr_mut(&fields::SK_COOKIE::read(sk)) else { return 0 };
        let hs = &mut *handshake;
        if hs.flags & UNREAD == 0 {
            return 0;
        }
        hs.flags &= !UNREAD;
        hs.reader = current(netns(fields::SK_NET::read(sk)));
        hs.read_ns = now();
        if hs.role == SERVER && hs.owner.process == 0 {
            if !filter::caller(&hs.reader) {
                forget(hs.cookie, local, remote);
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
