//! Do replies go where packets come from? The Ethernet source of what arrives is compared with the cached
//! MAC of its sender, and what is sent again to a neighbour of which they differ is told.
//!
//! Cost: each incoming SYN and SYN-ACK pays five loads and one map look, on loopback a compare. Segments of
//! connections that exist are looked at only while some connection to a neighbour has gone unanswered twice in
//! a row, resets while some neighbour is under suspicion; until then they pay one array slot. Retransmissions
//! pay one array slot and, unless they repeat, nothing else.

#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_probe_read_kernel, generated::bpf_skb_load_bytes_relative},
    macros::{btf_tracepoint, map},
    maps::{Array, LruHashMap},
    programs::{BtfTracePointContext, SkBuffContext},
};

use super::{
    MacRecord, NeighKey, Neighbour, PeerKey, UnheardRecord, kin,
    program::{NEIGHBOURS, SECOND},
    state, unheard, unheard_flag,
};
use crate::{
    abi::{AF_INET6, IPPROTO_TCP, Kind, Owner, ProbeId, Tuple},
    call, fields, filter,
    kernel::{emit, header, mapped, netns, now, opaque, v6},
    metrics::{NeighEvent, counter, program as metrics},
    packet::program::{Packet, netns_of},
    probes::connect::program::write_owner,
};

/// Peers whose packets come from another MAC than the cached one, or that are watched: their device's index.
#[map]
static SUSPECTS: LruHashMap<PeerKey, u32> = LruHashMap::with_max_entries(1 << 10, 0);

/// Two moments, CLOCK_BOOTTIME in nanoseconds, 0 once they are past: until when [`SUSPECTS`] holds anybody,
/// and until when segments of connections that exist are compared.
#[map]
static UNTIL: Array<u64> = Array::with_max_entries(2, 0);
const SUSPICIOUS: u32 = 0;
const WATCHING: u32 = 1;

/// How long a packet from another MAC explains what goes unanswered.
const SUSPICION_NS: u64 = 120 * SECOND;
/// How long segments are compared after something went unanswered.
const WATCH_NS: u64 = 10 * SECOND;
/// What is sent again is told at most this often, neighbour by neighbour.
const UNHEARD_EVERY_NS: u64 = SECOND / 5;
/// A SYN is answered by a host on the same link within this long.
const SETTLED_NS: u64 = SECOND / 10;
/// Timeouts in a row after which a connection's peer is watched.
const TIMEOUTS: u8 = 2;

/// `BPF_HDR_START_MAC` of include/uapi/linux/bpf.h.
const HDR_START_MAC: u32 = 0;
/// Where the source address of an Ethernet frame is, and how long it is.
const ETH_SOURCE: u32 = 6;
const ETH_ALEN: u32 = 6;
/// The loopback device's index in every namespace: `LOOPBACK_IFINDEX` of include/net/flow.h.
const LOOPBACK: u32 = 1;

/// What kind of segment arrived.
pub mod segment {
    /// It asks for a connection.
    pub const SYN: u32 = 1;
    /// It answers such a question of this host.
    pub const SYN_ACK: u32 = 2;
    /// It ends a connection at once.
    pub const RESET: u32 = 3;
    /// Any other.
    pub const OTHER: u32 = 4;
}

/// Whether some moment of [`UNTIL`] is not past, as far as anybody has noticed.
#[inline(always)]
fn pending(which: u32) -> bool {
    // SAFETY: a load from a live array slot.
    UNTIL.get_ptr(which).is_some_and(|until| unsafe { *until } != 0)
}

#[inline(always)]
fn until(which: u32, at: u64) {
    if let Some(until) = UNTIL.get_ptr_mut(which) {
        // SAFETY: a live array slot; every writer writes about the same.
        unsafe { *until = at }
    }
}

/// Clears a moment that is past.
#[inline(always)]
fn expire(which: u32, at: u64) -> bool {
    let Some(until) = UNTIL.get_ptr_mut(which) else { return true };
    // SAFETY: a live array slot.
    unsafe {
        if at > *until {
            *until = 0;
            return true;
        }
    }
    false
}

/// Whether segments of connections that exist are to be compared too.
#[inline(always)]
pub fn watching() -> bool {
    pending(WATCHING)
}

/// Whether resets are to be compared too.
#[inline(always)]
pub fn suspicious() -> bool {
    pending(SUSPICIOUS)
}

/// A SYN or its answer arrived, or, while [`suspicious`], a reset, or, while [`watching`], any segment: is its
/// Ethernet source where a reply would go? Called by the ingress program; `what` is one of [`segment`].
///
/// Only an address in the neighbour table of the very device it came in on is compared: behind a router
/// the peer's own address is not there. A socket below a VRF sees the VRF's device and is not compared.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn neigh_came(skb: *mut __sk_buff, ends: u64, payload: u64, what: u64) -> u64 {
    came_inlined(skb, &Packet::of(ends, payload), what as u32);
    opaque(0)
}

/// A segment of a neighbour, for the functions that judge it one after the other: the stack is short.
struct Met {
    key: NeighKey,
    peer: PeerKey,
    macs: kin::Seen,
}

#[inline(always)]
fn came_inlined(skb: *mut __sk_buff, packet: &Packet, what: u32) {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: a context load.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if ifindex == LOOPBACK {
        return;
    }
    let at = now();
    let other = what == segment::OTHER;
    if other && expire(WATCHING, at) {
        return;
    }
    let Some(netns) = netns_of(&ctx) else { return };
    let address = if packet.v4 { ctx.load::<u32>(12).map(mapped) } else { ctx.load::<[u8; 16]>(8) };
    let Ok(address) = address else { return };
    let mut met = Met {
        key: NeighKey { netns, ifindex, pad: 0, address },
        peer: PeerKey { address, netns },
        macs: kin::Seen {
            cached: 0,
            seen: 0,
            ports: u32::from(packet.remote) << 16 | u32::from(packet.local),
            ifindex,
            at,
        },
    };
    if (other || what == segment::RESET) && SUSPECTS.get_ptr(&met.peer).is_none() {
        return;
    }
    let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) else { return };
    // SAFETY: six bytes into eight, by a helper that checks that the frame has them; a live map value, where
    // races between CPUs cost a record too many.
    unsafe {
        let seen = (&raw mut met.macs.seen).cast();
        if bpf_skb_load_bytes_relative(skb.cast(), ETH_SOURCE, seen, ETH_ALEN, HDR_START_MAC) != 0 {
            return;
        }
        met.macs.cached = u64::from_ne_bytes((*known).mac);
        if met.macs.seen == 0 || met.macs.cached == 0 {
            return;
        }
        if met.macs.seen == met.macs.cached {
            if what == segment::RESET {
                call!(kin::reset(&met.peer, &met.macs));
            }
            if (*known).other_mac != [0; 8] || other {
                (*known).other_mac = [0; 8];
                (*known).unanswered = 0;
                let _ = SUSPECTS.remove(&met.peer);
            }
            return;
        }
        if what == segment::RESET
            || (*known).state & (state::NOARP | state::INCOMPLETE | state::FAILED) != 0
            || !filter::peer(&met.key.address, !packet.v4, packet.local)
        {
            return;
        }
        if what == segment::SYN_ACK {
            // The SYN it answers may have gone where the entry pointed until a moment ago.
            if at.wrapping_sub((*known).mac_since_ns) > SETTLED_NS {
                call!(kin::answered(&met.peer, &met.macs));
            }
            return;
        }
    }
    metrics::add(counter::neigh(NeighEvent::MacMismatch, !packet.v4));
    let told = differs(&met, u64::from(what == segment::SYN));
    if told & TELL_RESET != 0 {
        call!(say(skb, packet, &met, unheard::RESET, told));
    } else if told & TELL_SPEAKS != 0 {
        call!(say(skb, packet, &met, unheard::SPEAKS, told));
    }
    if told & TELL_MISMATCH != 0 {
        call!(mismatch(skb, packet, &met));
    }
}

/// What [`differs`] says is to be told; a count stands above.
const TELL_MISMATCH: u64 = 1;
const TELL_SPEAKS: u64 = 2;
const TELL_RESET: u64 = 4;
const COUNT_SHIFT: u64 = 32;

/// A segment, by `syn` a SYN, came from another MAC than the cached one.
#[inline(never)]
fn differs(met: &Met, syn: u64) -> u64 {
    let mut told = 0;
    let at = met.macs.at;
    if let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) {
        // SAFETY: a live map value; races between CPUs cost a record too many.
        unsafe {
            let seen = met.macs.seen.to_ne_bytes();
            if (*known).other_mac != seen {
                (*known).other_mac = seen;
                (*known).other_since_ns = at;
                (*known).other_told_ns = 0;
                (*known).others = 0;
                (*known).answered_ns = 0;
                if syn != 0 {
                    (*known).unanswered = 0;
                }
            }
            (*known).other_last_ns = at;
            (*known).others += 1;
            let _ = SUSPECTS.insert(&met.peer, &met.key.ifindex, 0);
            until(SUSPICIOUS, at + SUSPICION_NS);
            let resets = if syn != 0 { kin::syn(&met.peer, &met.macs) } else { 0 };
            if resets != 0 {
                told |= TELL_RESET | resets << COUNT_SHIFT;
            } else if (*known).unanswered != 0 && kin::speaks(&met.peer, &met.macs) != 0 {
                told |= TELL_SPEAKS | u64::from((*known).unanswered) << COUNT_SHIFT;
            }
            let before = (*known).other_told_ns;
            // A difference alone is healthy: what goes unanswered as well is told by `tell`.
            if !filter::quiet() && (before == 0 || at.wrapping_sub(before) >= SECOND) {
                (*known).other_told_ns = at;
                told |= TELL_MISMATCH;
            }
        }
    }
    opaque(told)
}

/// Tells that packets come from another MAC than the cached one.
#[inline(never)]
fn mismatch(skb: *mut __sk_buff, packet: &Packet, met: &Met) -> u64 {
    if let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) {
        emit::<MacRecord>(ProbeId::Neigh, |record| {
            // SAFETY: a fresh reservation of the record's size, every byte written; a live map value.
            unsafe {
                (&raw mut (*record).header).write(header::<MacRecord>(Kind::NeighMismatch));
                packet.write_tuple(&SkBuffContext::new(skb.cast()), &raw mut (*record).tuple)?;
                (&raw mut (*record).cached_mac).write(met.macs.cached.to_ne_bytes());
                (&raw mut (*record).seen_mac).write(met.macs.seen.to_ne_bytes());
                (&raw mut (*record).state_since_ns).write((*known).state_since_ns);
                (&raw mut (*record).mac_since_ns).write((*known).mac_since_ns);
                (&raw mut (*record).netns).write(met.key.netns.inode);
                (&raw mut (*record).ifindex).write(met.key.ifindex);
                (&raw mut (*record).state).write((*known).state);
                (&raw mut (*record).count).write((*known).others as u32);
                (&raw mut (*record).generation).write(met.key.netns.generation);
                (&raw mut (*record).pad).write(0);
            }
            Some(())
        });
    }
    opaque(0)
}

/// Tells something that a packet itself says; the count stands in `told`.
#[inline(never)]
fn say(skb: *mut __sk_buff, packet: &Packet, met: &Met, what: u32, told: u64) -> u64 {
    if let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) {
        emit::<UnheardRecord>(ProbeId::Neigh, |record| {
            // SAFETY: a fresh reservation of the record's size, every byte written; a live map value.
            unsafe {
                packet.write_tuple(&SkBuffContext::new(skb.cast()), &raw mut (*record).tuple)?;
                (&raw mut (*record).owner).write(Owner::default());
                write(record, known, &met.peer, met.key.ifindex, what, (told >> COUNT_SHIFT) as u32, 0);
            }
            Some(())
        });
    }
    opaque(0)
}

/// All of a record but its connection's ends and owner.
///
/// # Safety
/// `record` must be a reservation, `known` a live map value.
#[inline(always)]
unsafe fn write(
    record: *mut UnheardRecord,
    known: *mut Neighbour,
    peer: &PeerKey,
    ifindex: u32,
    what: u32,
    count: u32,
    cookie: u64,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        (&raw mut (*record).header).write(header::<UnheardRecord>(Kind::NeighUnheard));
        (&raw mut (*record).cookie).write(cookie);
        (&raw mut (*record).cached_mac).write((*known).mac);
        (&raw mut (*record).seen_mac).write((*known).other_mac);
        (&raw mut (*record).seen_since_ns).write((*known).other_since_ns);
        (&raw mut (*record).state_since_ns).write((*known).state_since_ns);
        (&raw mut (*record).mac_since_ns).write((*known).mac_since_ns);
        (&raw mut (*record).answered_ns).write((*known).answered_ns);
        (&raw mut (*record).netns).write(peer.netns.inode);
        (&raw mut (*record).ifindex).write(ifindex);
        (&raw mut (*record).state).write((*known).state);
        (&raw mut (*record).what).write(what);
        (&raw mut (*record).unanswered).write(count);
        (&raw mut (*record).seen).write((*known).others as u32);
        let together = kin::together(peer, (*known).mac, (*known).other_mac);
        (&raw mut (*record).generation).write(peer.netns.generation);
        (&raw mut (*record).flags).write(if together { unheard_flag::TOGETHER } else { 0 });
        (&raw mut (*record).seen_last_ns).write((*known).other_last_ns);
        (&raw mut (*record).confirmed_ns).write((*known).confirmed_ns);
    }
}

/// What is known of a peer under suspicion whose packets came from another MAC lately.
#[inline(always)]
fn suspect(peer: &PeerKey, at: u64) -> Option<(*mut Neighbour, u32)> {
    // SAFETY: a live map value.
    let ifindex = unsafe { *SUSPECTS.get_ptr(peer)? };
    let key = NeighKey { netns: peer.netns, ifindex, pad: 0, address: peer.address };
    let known = NEIGHBOURS.get_ptr_mut(&key)?;
    // SAFETY: a live map value.
    unsafe {
        let other = (*known).other_mac;
        if other == [0; 8] || other == (*known).mac || at.wrapping_sub((*known).other_last_ns) > SUSPICION_NS
        {
            return None;
        }
    }
    Some((known, ifindex))
}

/// A segment was sent again: data, or a SYN. Called by the program behind `tcp_retransmit_skb`.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub unsafe fn sent_again(sk: *const u8, syn: bool) {
    // SAFETY: direct loads as promised by the caller; the rest by helpers that cannot fault.
    unsafe {
        let timeouts =
            if syn { 0 } else { bpf_probe_read_kernel(fields::ICSK_RETRANSMITS::address(sk)).unwrap_or(0) };
        if !pending(SUSPICIOUS) && timeouts < TIMEOUTS {
            return;
        }
        let peer = peer_of(sk);
        let at = now();
        let what = if syn { unheard::SYN } else { unheard::DATA };
        if let Some((known, ifindex)) = suspect(&peer, at) {
            let cookie = fields::SK_COOKIE::read(sk);
            tell(known, &peer, ifindex, what, cookie, at, |to| write_tuple(sk, to));
        } else if timeouts >= TIMEOUTS {
            watch(sk, &peer, at);
        }
    }
}

/// A connection's neighbour does not answer: where do its own packets come from?
///
/// # Safety
/// `sk` must be a `struct sock`.
#[inline(always)]
unsafe fn watch(sk: *const u8, peer: &PeerKey, at: u64) {
    // SAFETY: helpers that cannot fault, and a live map value.
    unsafe {
        let Ok(dst) = bpf_probe_read_kernel(fields::SK_DST_CACHE::address(sk)) else { return };
        let Ok(device) = bpf_probe_read_kernel(fields::DST_DEV::address(dst)) else { return };
        let Ok(ifindex) = bpf_probe_read_kernel(fields::DEV_IFINDEX::address(device)) else { return };
        let key = NeighKey { netns: peer.netns, ifindex, pad: 0, address: peer.address };
        // Behind a router its own address is not there.
        let Some(known) = NEIGHBOURS.get_ptr_mut(&key) else { return };
        if (*known).mac == [0; 8] {
            return;
        }
        (*known).unanswered += 1;
        let _ = SUSPECTS.insert(peer, &ifindex, 0);
    }
    until(WATCHING, at + WATCH_NS);
}

/// Runs when a SYN-ACK is sent again, by its timer or because the SYN came again: a few loads and two array
/// slots, unless some neighbour is under suspicion.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn synack_again(ctx: BtfTracePointContext) -> i32 {
    let (sk, req): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: BTF-typed arguments and loads through them.
    unsafe {
        let family = fields::REQ_FAMILY::read(req);
        let address = if family == AF_INET6 {
            v6(fields::REQ_V6_DADDR::address(req))
        } else {
            mapped(fields::REQ_DADDR::read(req))
        };
        // Nobody's yet: a filter by owner does not want it.
        if !filter::by_owner() && filter::peer(&address, family == AF_INET6, fields::REQ_NUM::read(req)) {
            metrics::add(counter::SYNACK_RETRIES);
        }
        if !pending(SUSPICIOUS) {
            return 0;
        }
        let netns = netns(fields::SK_NET::read(sk));
        let peer = PeerKey { address, netns };
        let at = now();
        if let Some((known, ifindex)) = suspect(&peer, at) {
            tell(known, &peer, ifindex, unheard::SYN_ACK, 0, at, |to| {
                (&raw mut (*to).local).write(if family == AF_INET6 {
                    v6(fields::REQ_V6_RCV_SADDR::address(req))
                } else {
                    mapped(fields::REQ_RCV_SADDR::read(req))
                });
                (&raw mut (*to).local_port).write(fields::REQ_NUM::read(req));
                (&raw mut (*to).remote_port).write(u16::from_be(fields::REQ_DPORT::read(req)));
                (&raw mut (*to).family).write(family);
            });
        } else {
            expire(SUSPICIOUS, at);
        }
    }
    0
}

/// A connection was established: a neighbour under suspicion answers after all. Called by the program
/// behind `inet_sock_set_state`.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub unsafe fn established(sk: *const u8) {
    if pending(SUSPICIOUS) {
        // SAFETY: passed on to the caller.
        unsafe { call!(answers(sk)) };
    }
}

/// See [`established`]. Not inlined, for the stack.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(never)]
unsafe fn answers(sk: *const u8) -> u64 {
    // SAFETY: as promised by the caller; a live map value.
    unsafe {
        let peer = peer_of(sk);
        let at = now();
        let ports =
            u32::from(u16::from_be(fields::SK_DPORT::read(sk))) << 16 | u32::from(fields::SK_NUM::read(sk));
        call!(kin::established(&peer, ports));
        let Some((known, ifindex)) = suspect(&peer, at) else { return opaque(0) };
        (*known).answered_ns = at;
        if (*known).unanswered > 0 {
            (*known).unheard_told_ns = 0;
            let cookie = fields::SK_COOKIE::read(sk);
            tell(known, &peer, ifindex, unheard::ANSWERED, cookie, at, |to| write_tuple(sk, to));
            (*known).unanswered = 0;
        }
    }
    opaque(0)
}

/// The remote end of a socket.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
unsafe fn peer_of(sk: *const u8) -> PeerKey {
    // SAFETY: direct loads, checked by the verifier.
    unsafe {
        let netns = netns(fields::SK_NET::read(sk));
        let address = if fields::SK_FAMILY::read(sk) == AF_INET6 {
            v6(fields::SK_V6_DADDR::address(sk))
        } else {
            mapped(fields::SK_DADDR::read(sk))
        };
        PeerKey { address, netns }
    }
}

/// All of a socket's ends but the remote address and the protocol, field by field: the stack is short.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`, `to` a reservation.
#[inline(always)]
unsafe fn write_tuple(sk: *const u8, to: *mut Tuple) {
    // SAFETY: as promised by the caller.
    unsafe {
        let family = fields::SK_FAMILY::read(sk);
        (&raw mut (*to).local).write(if family == AF_INET6 {
            v6(fields::SK_V6_RCV_SADDR::address(sk))
        } else {
            mapped(fields::SK_RCV_SADDR::read(sk))
        });
        (&raw mut (*to).local_port).write(fields::SK_NUM::read(sk));
        (&raw mut (*to).remote_port).write(u16::from_be(fields::SK_DPORT::read(sk)));
        (&raw mut (*to).family).write(family);
    }
}

/// `ends` writes all of the connection's ends but the remote address and the protocol.
///
/// # Safety
/// `known` must be a live map value.
#[inline(always)]
unsafe fn tell(
    known: *mut Neighbour,
    peer: &PeerKey,
    ifindex: u32,
    what: u32,
    cookie: u64,
    at: u64,
    ends: impl FnOnce(*mut Tuple),
) {
    // SAFETY: as promised by the caller; a fresh reservation of the record's size, every byte written.
    unsafe {
        if what != unheard::ANSWERED {
            (*known).unanswered += 1;
        }
        let told = (*known).unheard_told_ns;
        if told != 0 && at.wrapping_sub(told) < UNHEARD_EVERY_NS {
            return;
        }
        (*known).unheard_told_ns = at;
        emit::<UnheardRecord>(ProbeId::Neigh, |record| {
            let tuple = &raw mut (*record).tuple;
            (&raw mut (*tuple).remote).write(peer.address);
            (&raw mut (*tuple).protocol).write(IPPROTO_TCP);
            ends(tuple);
            write_owner(cookie, &raw mut (*record).owner);
            let unanswered = (*known).unanswered;
            write(record, known, peer, ifindex, what, unanswered, cookie);
            Some(())
        });
    }
}
