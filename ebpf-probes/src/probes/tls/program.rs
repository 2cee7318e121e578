//! The programs behind `tls`: a small state machine fed by record headers at segment starts.

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
        generated::{
            bpf_get_socket_cookie, bpf_probe_read_kernel as read_kernel, bpf_skb_cgroup_id,
            bpf_skb_load_bytes,
        },
    },
    macros::{btf_tracepoint, map},
    maps::{Array, HashMap, LruHashMap},
    programs::{BtfTracePointContext, SkBuffContext},
};

use super::{
    ALERT_BY_CLIENT, ALERT_ENCRYPTED, CLIENT, CLIENT_CCS, CLIENT_CERTIFICATE, CLIENT_HELLO, ENCRYPTED_FINISH,
    HELLO_CAPTURED, HELLO_HELD, HELLOS as HELLOS_HELD, Handshake, HeldHello, LARGE, RETRIED, SERVER,
    SERVER_HELLO, SMALL, STALLED, TLS_BYTES_HEAD, TlsBytes, TlsRecord, UNREAD, stage,
};
use crate::{
    abi::{Kind, Owner, ProbeId, Stat},
    call, fields, filter,
    kernel::{SOCKETS, at_most, atomic_add, count, current, emit, header, now, opaque},
    metrics::{Timed, counter, phase, program as metrics},
    packet::program::{Packet, netns_of},
};

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

/// ClientHellos of handshakes in flight, when they are not put on the ring.
#[map]
static HELLOS: LruHashMap<u64, HeldHello> = LruHashMap::with_max_entries(HELLOS_HELD, 0);

/// An empty one, to begin from. Never written.
#[map]
static NO_HELLO: Array<HeldHello> = Array::with_max_entries(1, 0);

/// Record types of RFC 8446 §5.1, and handshake types of §4.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const TYPE_CLIENT_HELLO: u8 = 1;
const TYPE_SERVER_HELLO: u8 = 2;

/// Lengths of an encrypted TLS 1.3 record that holds a Finished and nothing else (hash + 4 bytes of
/// header, 1 of type, 16 of tag), with SHA-256 and SHA-384; and of one that holds an alert.
const FINISHED_SHA256: u16 = 53;
const FINISHED_SHA384: u16 = 69;
const ENCRYPTED_ALERT: u16 = 19;
/// An EndOfEarlyData, which precedes a Finished that a certificate cannot accompany.
const END_OF_EARLY_DATA: u16 = 21;

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

/// Whether these first bytes of a segment can begin a ClientHello, as far as they go.
#[inline(always)]
pub fn may_begin(first: &[u8; 16], len: u32) -> bool {
    first[0] == HANDSHAKE
        && (len < 2 || first[1] == 3)
        && (len < 3 || first[2] <= 4)
        && (len < 6 || first[5] == TYPE_CLIENT_HELLO)
        && (len < 7 || first[6] == 0)
        && (len < 10 || first[9] == 3)
        && (len < 11 || first[10] <= 4)
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
        if filter::quiet() || filter::by_owner() {
            let _ = HELLOS.remove(&cookie);
        }
    }
}

/// A server's handshake that nobody has read, where only some processes are wanted: it is held back until it
/// is known whose it is.
#[inline(always)]
fn nobodys(hs: &Handshake) -> bool {
    filter::by_owner() && hs.role == SERVER && hs.owner.process == 0
}

/// Hands on a ClientHello that was held back.
#[inline(always)]
fn release(cookie: u64) {
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

/// Marks a handshake that has made no progress for too long: from now on it is told.
#[inline(always)]
fn note_stall(hs: &mut Handshake) {
    if (filter::quiet() || nobodys(hs)) && now().wrapping_sub(hs.moved_ns) >= filter::STALL_NS.load() {
        hs.flags |= STALLED;
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
        if (*handshake).owner.netns == 0 {
            (*handshake).owner.netns = netns_of(ctx).unwrap_or(0);
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

/// Moves the state machine. `true`: the handshake is over, one way or another.
#[inline(always)]
unsafe fn moved(ctx: &SkBuffContext, handshake: *mut Handshake, packet: &Packet) -> bool {
    // SAFETY: as promised by the caller: a live map value.
    let hs = unsafe { &mut *handshake };
    note_stall(hs);
    let from_client = (hs.role == CLIENT) != packet.ingress;
    let next = packet.seq.wrapping_add(packet.len);
    if hs.stage == stage::HELLO_PARTIAL && from_client {
        return hello_bytes(ctx, hs, packet, 0);
    }
    // A segment seen before says nothing new.
    let known = if from_client { hs.client_next } else { hs.server_next };
    if (from_client || known != 0) && (next.wrapping_sub(known) as i32) <= 0 {
        return false;
    }
    if from_client {
        hs.client_next = next;
    } else {
        hs.server_next = next;
    }
    if packet.ingress {
        hs.flags |= UNREAD;
    }
    hs.moved_ns = now();
    let first = &packet.first;
    let record = first[0];
    if record == ALERT && first[1] == 3 && u16::from_be_bytes([first[3], first[4]]) == 2 && packet.len >= 7 {
        hs.alert = u32::from(first[5]) << 8 | u32::from(first[6]) | 1 << 16;
        if from_client {
            hs.flags |= ALERT_BY_CLIENT;
        }
        return over(hs, stage::ALERT);
    }
    if from_client { client(ctx, hs, packet) } else { server(ctx, hs, packet) }
}

#[inline(always)]
fn server(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet) -> bool {
    let first = &packet.first;
    match hs.stage {
        stage::HELLO | stage::HELLO_PARTIAL => {
            if first[0] != HANDSHAKE || first[1] != 3 || (packet.len >= 6 && first[5] != TYPE_SERVER_HELLO) {
                if hs.stage == stage::HELLO_PARTIAL {
                    return true;
                }
                return over(hs, stage::NOT_TLS);
            }
            if hs.stage == stage::HELLO_PARTIAL {
                hs.stage = stage::HELLO;
                tell(Kind::TlsPhase, hs);
            }
            capture::<SMALL>(ctx, hs, SERVER_HELLO, 0, packet.offset, packet.len);
            hs.stage = stage::SERVER_FLIGHT;
            tell(Kind::TlsPhase, hs);
            false
        }
        stage::CLIENT_FINISH => over(hs, stage::DONE),
        _ => false,
    }
}

#[inline(always)]
fn client(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet) -> bool {
    if hs.stage != stage::SERVER_FLIGHT {
        return false;
    }
    let first = &packet.first;
    let mut kind = first[0];
    let mut len = u16::from_be_bytes([first[3], first[4]]);
    let mut hello = u16::from_be_bytes([first[7], first[8]]);
    let mut message = first[5];
    let mut skip = 0;
    if kind == CHANGE_CIPHER_SPEC {
        hs.flags |= CLIENT_CCS;
        if packet.len < 11 {
            return false;
        }
        kind = first[6];
        len = u16::from_be_bytes([first[9], first[10]]);
        message = first[11];
        hello = u16::from_be_bytes([first[13], first[14]]);
        skip = 6;
    }
    if kind == HANDSHAKE {
        if message == TYPE_CLIENT_HELLO && hello.wrapping_add(4) == len {
            return retried(ctx, hs, packet, skip);
        }
        if hs.flags & CLIENT_CCS != 0 {
            // Nothing clear came before: a resumed TLS 1.2 session ends with the client's Finished.
            return over(hs, stage::DONE);
        }
        return waits(hs);
    }
    if kind != APPLICATION_DATA {
        return false;
    }
    hs.flags |= ENCRYPTED_FINISH;
    match len {
        FINISHED_SHA256 | FINISHED_SHA384 | END_OF_EARLY_DATA => over(hs, stage::DONE),
        ENCRYPTED_ALERT => {
            hs.flags |= ALERT_BY_CLIENT | ALERT_ENCRYPTED;
            over(hs, stage::ALERT)
        }
        _ => {
            hs.flags |= CLIENT_CERTIFICATE;
            waits(hs)
        }
    }
}

#[inline(always)]
fn waits(hs: &mut Handshake) -> bool {
    hs.stage = stage::CLIENT_FINISH;
    tell(Kind::TlsPhase, hs);
    false
}

/// The server asked for another ClientHello and here it is: the same handshake goes on.
#[inline(always)]
fn retried(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet, skip: u32) -> bool {
    hs.flags |= RETRIED;
    hs.flags &= !CLIENT_CCS;
    hs.hello_seq = packet.seq.wrapping_add(skip);
    hs.hello_len = 0;
    hs.hello_seen = 0;
    hs.read_stage = 0;
    hs.stage = stage::HELLO_PARTIAL;
    hello_bytes(ctx, hs, packet, skip)
}

/// More bytes of a ClientHello that is not whole yet. `true`: it is none after all.
#[inline(always)]
fn hello_bytes(ctx: &SkBuffContext, hs: &mut Handshake, packet: &Packet, skip: u32) -> bool {
    let (seq, offset, len) = (packet.seq.wrapping_add(skip), packet.offset + skip, packet.len - skip);
    let at = seq.wrapping_sub(hs.hello_seq);
    let end = at.wrapping_add(len);
    if at > HELLO_CAPTURED || end <= hs.hello_seen {
        return false;
    }
    if at == hs.hello_seen && at < 16 {
        // The first sixteen bytes may come in pieces.
        let want = at_most::<16>(len);
        // SAFETY: at < 16 and want <= 16 stay within the 32 bytes of the prefix.
        let read = unsafe {
            let to = (&raw mut hs.prefix).cast::<u8>().add((opaque(u64::from(at)) & 15) as usize);
            bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, to.cast(), want)
        };
        if read != 0 {
            return false;
        }
    }
    if at <= hs.hello_seen {
        hs.hello_seen = end;
    }
    let seen = hs.hello_seen;
    let mut first = [0u8; 16];
    first.copy_from_slice(&hs.prefix[..16]);
    if !may_begin(&first, seen) {
        return true;
    }
    hs.client_next = seq.wrapping_add(len);
    hs.moved_ns = now();
    if packet.ingress {
        hs.flags |= UNREAD;
    }
    if seen >= 5 {
        hs.hello_len = 5 + u32::from(u16::from_be_bytes([first[3], first[4]]));
    }
    if len <= SMALL as u32 {
        capture::<SMALL>(ctx, hs, CLIENT_HELLO, at, offset, len);
    } else {
        let mut done = 0;
        for _ in 0..4 {
            if done >= len {
                break;
            }
            capture::<LARGE>(ctx, hs, CLIENT_HELLO, at + done, offset + done, len - done);
            done += LARGE as u32;
        }
    }
    if seen >= 11 && hs.hello_len != 0 && seen >= hs.hello_len {
        hs.stage = stage::HELLO;
        tell(Kind::TlsPhase, hs);
    }
    false
}

/// Hands up to `N` bytes of the packet to the agent.
#[inline(always)]
fn capture<const N: usize>(ctx: &SkBuffContext, hs: &Handshake, hello: u32, at: u32, offset: u32, len: u32)
where
    TlsBytes<N>: 'static,
{
    let cookie = hs.cookie;
    if filter::quiet() || nobodys(hs) {
        if hello == CLIENT_HELLO {
            hold(ctx, cookie, at, offset, len);
        }
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
fn hold(ctx: &SkBuffContext, cookie: u64, at: u32, offset: u32, len: u32) {
    if at >= HELLO_HELD as u32 {
        return;
    }
    if at == 0 {
        let Some(empty) = NO_HELLO.get_ptr(0) else { return };
        // SAFETY: a live array slot that nobody writes.
        let _ = HELLOS.insert(&cookie, unsafe { &*empty }, 0);
    }
    let Some(held) = HELLOS.get_ptr_mut(&cookie) else { return };
    let want = at_most::<HELLO_HELD>(len);
    // SAFETY: at < HELLO_HELD and want <= HELLO_HELD stay within the data.
    unsafe {
        let at = opaque(u64::from(at)) & (HELLO_HELD as u64 - 1);
        let to = (&raw mut (*held).data).cast::<u8>().add(at as usize);
        if bpf_skb_load_bytes(ctx.skb.skb.cast(), offset, to.cast(), want) == 0 {
            (*held).len = at as u32 + want;
        }
    }
}

#[inline(always)]
fn over(hs: &mut Handshake, how: u32) -> bool {
    hs.read_stage = hs.stage;
    hs.stage = how;
    let exposed = filter::quiet()
        && hs.flags & STALLED == 0
        && (how == stage::ALERT || (how == stage::DONE && hs.role == CLIENT))
        && filter::exposed(hs.moved_ns);
    if exposed && !nobodys(hs) {
        release(hs.cookie);
        told(Kind::TlsPhase, hs);
    } else {
        tell(Kind::TlsPhase, hs);
    }
    true
}

#[inline(always)]
fn tell(kind: Kind, hs: &Handshake) {
    if (filter::quiet() || nobodys(hs)) && hs.flags & STALLED == 0 {
        return;
    }
    told(kind, hs);
}

#[inline(always)]
fn told(kind: Kind, hs: &Handshake) {
    emit::<TlsRecord>(ProbeId::Tls, |record| {
        // SAFETY: a fresh reservation of the record's size; every byte is written.
        unsafe {
            (&raw mut (*record).header).write(header::<TlsRecord>(kind));
            core::ptr::copy_nonoverlapping(hs, &raw mut (*record).handshake, 1);
        }
        Some(())
    });
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
        hs.reader = current(fields::NET_INUM::read(fields::SK_NET::read(sk)));
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
