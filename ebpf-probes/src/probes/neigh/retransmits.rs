//! What is sent again to a neighbour whose packets come from another MAC than the cached one: it does not hear this
//! host. And whether it answers after all.
//!
//! Cost: retransmissions pay one array slot and, unless they repeat, nothing else.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{
    NeighKey, Neighbour, PeerKey, UnheardRecord, hops, macs,
    suspects::{
        SUSPECTS, SUSPICIOUS, WATCH_NS, WATCHING, expire, note_hops, pending, routing, suspect, until,
    },
    table::NEIGHBOURS,
    unheard, unheard_flag,
};
use crate::{
    abi::{AF_INET6, IPPROTO_TCP, Kind, ProbeId, Tuple},
    bpf::{
        address::{mapped, v6},
        counters, filter,
        netns::netns,
        owner::write_owner,
        ring::{emit, header},
        time::{SECOND, now},
        verifier::{call, opaque},
    },
    fields,
    metrics::counter,
};

/// What is sent again is reported at most this often, neighbour by neighbour.
const UNHEARD_EVERY_NS: u64 = SECOND / 5;
/// Timeouts in a row after which a connection's peer is watched.
const TIMEOUTS: u8 = 2;

/// A segment was sent again: data, or a SYN. Called by the program behind `tcp_retransmit_skb`.
///
/// # Safety
/// `sk` must be a BTF-typed `struct sock`.
#[inline(always)]
pub(crate) unsafe fn sent_again(sk: *const u8, syn: bool) {
    // SAFETY: direct loads as promised by the caller; the rest by helpers that cannot fault.
    unsafe {
        let timeouts =
            if syn { 0 } else { bpf_probe_read_kernel(fields::ICSK_RETRANSMITS::address(sk)).unwrap_or(0) };
        if !pending(SUSPICIOUS) && timeouts < TIMEOUTS {
            return;
        }
        let mut peer = peer_of(sk);
        let at = now();
        let what = if syn { unheard::SYN } else { unheard::DATA };
        if routing() {
            call!(hops::learn(sk, &peer));
        }
        if let Some((known, ifindex)) = suspect(&mut peer, at) {
            let cookie = fields::SK_COOKIE::read(sk);
            report(known, &peer, ifindex, what, cookie, at, |to| write_tuple(sk, to));
        } else if timeouts >= TIMEOUTS {
            note_hops(at);
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
        // `peer` is the next hop, if that is known; behind a router its own address is not there.
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
        // No process's yet: a filter by owner does not want it.
        if !filter::by_owner() && filter::peer(&address, family == AF_INET6, fields::REQ_NUM::read(req)) {
            counters::add(counter::SYNACK_RETRANSMITS);
        }
        let at = now();
        note_hops(at);
        if !pending(SUSPICIOUS) {
            return 0;
        }
        let netns = netns(fields::SK_NET::read(sk));
        let mut peer = PeerKey { address, netns };
        if let Some((known, ifindex)) = suspect(&mut peer, at) {
            if peer.address != address {
                // The one that is sent again now is not counted yet.
                let sent = u32::from(fields::REQ_RETRANSMITS::read(req));
                if (*known).unanswered < sent {
                    (*known).unanswered = sent;
                }
            }
            report(known, &peer, ifindex, unheard::SYN_ACK, 0, at, |to| {
                (&raw mut (*to).remote).write(if family == AF_INET6 {
                    v6(fields::REQ_V6_DADDR::address(req))
                } else {
                    mapped(fields::REQ_DADDR::read(req))
                });
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
pub(crate) unsafe fn established(sk: *const u8) {
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
        let mut peer = peer_of(sk);
        let at = now();
        let ports =
            u32::from(u16::from_be(fields::SK_DPORT::read(sk))) << 16 | u32::from(fields::SK_NUM::read(sk));
        let suspect = suspect(&mut peer, at);
        call!(macs::established(&peer, ports));
        let Some((known, ifindex)) = suspect else { return opaque(0) };
        (*known).answered_ns = at;
        if (*known).unanswered > 0 {
            (*known).unheard_reported_ns = 0;
            let cookie = fields::SK_COOKIE::read(sk);
            report(known, &peer, ifindex, unheard::ANSWERED, cookie, at, |to| write_tuple(sk, to));
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

/// All of a socket's ends but the protocol, field by field: the stack is short.
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
        (&raw mut (*to).remote).write(if family == AF_INET6 {
            v6(fields::SK_V6_DADDR::address(sk))
        } else {
            mapped(fields::SK_DADDR::read(sk))
        });
        (&raw mut (*to).local_port).write(fields::SK_NUM::read(sk));
        (&raw mut (*to).remote_port).write(u16::from_be(fields::SK_DPORT::read(sk)));
        (&raw mut (*to).family).write(family);
    }
}

/// `peer` is the neighbour; `ends` writes all of the connection's ends but the protocol.
///
/// # Safety
/// `known` must be a live map value.
#[inline(always)]
unsafe fn report(
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
        let reported = (*known).unheard_reported_ns;
        if reported != 0 && at.wrapping_sub(reported) < UNHEARD_EVERY_NS {
            return;
        }
        (*known).unheard_reported_ns = at;
        emit::<UnheardRecord>(ProbeId::NEIGH, |record| {
            let tuple = &raw mut (*record).tuple;
            (&raw mut (*tuple).protocol).write(IPPROTO_TCP);
            ends(tuple);
            write_owner(cookie, &raw mut (*record).owner);
            let unanswered = (*known).unanswered;
            write(record, known, peer, ifindex, what, unanswered, cookie);
            Some(())
        });
    }
}

/// All of a record but its connection's ends and owner.
///
/// # Safety
/// `record` must be a reservation, `known` a live map value.
#[inline(always)]
pub(super) unsafe fn write(
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
        (&raw mut (*record).header).write(header::<UnheardRecord>(Kind::NEIGH_UNHEARD));
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
        let together = macs::together(peer, (*known).mac, (*known).other_mac);
        (&raw mut (*record).generation).write(peer.netns.generation);
        (&raw mut (*record).flags).write(if together { unheard_flag::TOGETHER } else { 0 });
        (&raw mut (*record).seen_last_ns).write((*known).other_last_ns);
        (&raw mut (*record).confirmed_ns).write((*known).confirmed_ns);
        (&raw mut (*record).neighbour).write(peer.address);
    }
}
