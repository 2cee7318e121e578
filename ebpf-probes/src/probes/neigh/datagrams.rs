//! Datagrams are not acknowledged, and this host does not send again what their peer does not hear. Where an entry was set for
//! good (PERMANENT, NOARP, or by a control plane: NTF_EXT_LEARNED) and the peer's datagrams come from another MAC, a
//! question that comes again word for word, each time after it was answered, shows that the answers do not arrive.
//!
//! Cost: nothing while no such entry is known; then a look at one map for each datagram of a socket, and for those of a
//! neighbour with such an entry that it comes from elsewhere a dozen loads more.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::bpf_probe_read_kernel,
    macros::map,
    maps::{Array, LruHashMap},
    programs::SkBuffContext,
};

use super::{
    NeighKey, PeerKey,
    macs::{self, LOOPBACK, Met},
    source_mac::{COUNT_SHIFT, differs, mac_of, say},
    state,
    suspects::{PINNED, SUSPECTS, until},
    table::NEIGHBOURS,
    unheard,
};
use crate::{
    bpf::{
        address::mapped,
        filter,
        netns::netns_at,
        packet::Packet,
        time::{SECOND, now},
        verifier::{call, opaque},
    },
    fields,
};

/// Addresses of neighbours whose entries were set for good. The agent adds those that were there before it.
#[map]
static PINNED_ADDRESSES: LruHashMap<[u8; 16], u32> = LruHashMap::with_max_entries(1 << 12, 0);

/// What such neighbours asked last, by their ports.
#[map]
static QUESTIONS: LruHashMap<Asker, Question> = LruHashMap::with_max_entries(1 << 10, 0);

/// An empty one, to begin from: the stack is short. Never written.
#[map]
static NO_QUESTION: Array<Question> = Array::with_max_entries(1, 0);

/// A question comes again no earlier than this after it was asked, or it is one in many datagrams.
const PAUSE_NS: u64 = SECOND * 3 / 10;
/// Times that it comes again after an answer before that is reported.
const AGAIN: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy)]
struct Asker {
    peer: PeerKey,
    /// Local port and, above it, remote port.
    ports: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Question {
    /// Of its first bytes and its length.
    hash: u64,
    /// When it came last.
    at: u64,
    /// Something was sent back since.
    answered: u32,
    /// Times that it came again after that.
    again: u32,
}

/// An entry is set for good: its neighbour's datagrams are looked at from now on.
#[inline(never)]
pub(super) fn pin(key: &NeighKey) -> u64 {
    let _ = PINNED_ADDRESSES.insert(&key.address, &key.ifindex, 0);
    until(PINNED, u64::MAX);
    opaque(0)
}

/// Where a datagram's other end is a neighbour whose entry was set for good: who.
#[inline(always)]
fn met(skb: *mut __sk_buff, packet: &Packet) -> Option<Met> {
    let ctx = SkBuffContext::new(skb.cast());
    // SAFETY: a context load.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if ifindex == LOOPBACK {
        return None;
    }
    let address = match (packet.v4, packet.ingress) {
        (true, true) => mapped(ctx.load::<u32>(12).ok()?),
        (true, false) => mapped(ctx.load::<u32>(16).ok()?),
        (false, true) => ctx.load::<[u8; 16]>(8).ok()?,
        (false, false) => ctx.load::<[u8; 16]>(24).ok()?,
    };
    PINNED_ADDRESSES.get_ptr(&address)?;
    // A datagram's socket may be anything: its device says where it is.
    // SAFETY: helpers that cannot fault.
    let netns = unsafe {
        let device = bpf_probe_read_kernel(fields::SKB_DEV::address(skb.cast_const().cast())).ok()?;
        netns_at(bpf_probe_read_kernel(fields::DEV_NET::address(device)).ok()?)?
    };
    let ports = u32::from(packet.remote) << 16 | u32::from(packet.local);
    Some(Met {
        key: NeighKey { netns, ifindex, pad: 0, address },
        peer: PeerKey { address, netns },
        macs: macs::Seen { cached: 0, seen: 0, ports, ifindex, at: now() },
    })
}

/// A datagram arrives or leaves: how often it has come again, each time after an answer, when that is to be reported; else
/// 0. Called by the programs that see packets while some entry is known to be set for good.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn neigh_datagram(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    opaque(datagram_inlined(skb, &Packet::of(ends, payload)).unwrap_or(0))
}

#[inline(always)]
fn datagram_inlined(skb: *mut __sk_buff, packet: &Packet) -> Option<u64> {
    if packet.len == 0 || packet.len > 1 << 16 {
        return None;
    }
    let mut met = met(skb, packet)?;
    let asker = Asker { peer: met.peer, ports: met.macs.ports, pad: 0 };
    if !packet.ingress {
        let question = QUESTIONS.get_ptr_mut(&asker)?;
        // SAFETY: a live map value.
        unsafe { (*question).answered = 1 };
        return None;
    }
    if !filter::peer(&met.key.address, !packet.v4, packet.local) || call!(elsewhere(skb, &mut met)) == 0 {
        return None;
    }
    // SAFETY: bytes become integers.
    let [one, two] = unsafe { core::mem::transmute::<[u8; 16], [u64; 2]>(packet.first(skb)?) };
    let again = call!(asked(&asker, one ^ two.rotate_left(29) ^ u64::from(packet.len) << 32, met.macs.at));
    (again >= u64::from(AGAIN)).then_some(again)
}

/// Reports a datagram that came again so many times. By itself, for the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn neigh_repeats(skb: *mut __sk_buff, ends: u64, payload: u64, again: u64) -> u64 {
    let packet = Packet::of(ends, payload);
    let again = opaque(again);
    if let Some(met) = met(skb, &packet)
        && let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key)
    {
        // SAFETY: a live map value.
        unsafe { (*known).unanswered = again as u32 };
        call!(say(skb, &packet, &met, unheard::DATAGRAM, again << COUNT_SHIFT));
    }
    opaque(0)
}

/// Whether a datagram comes from another MAC than the one that its sender's entry was set to for good.
#[inline(never)]
fn elsewhere(skb: *mut __sk_buff, met: &mut Met) -> u64 {
    let Some(known) = NEIGHBOURS.get_ptr_mut(&met.key) else { return opaque(0) };
    if !mac_of(skb, &mut met.macs.seen) {
        return opaque(0);
    }
    // SAFETY: a live map value; races between CPUs cost a record too many.
    unsafe {
        met.macs.cached = u64::from_ne_bytes((*known).mac);
        if met.macs.cached == 0
            || met.macs.seen == 0
            || (*known).state & (state::INCOMPLETE | state::FAILED) != 0
        {
            return opaque(0);
        }
        if met.macs.seen == met.macs.cached {
            if (*known).other_mac != [0; 8] {
                (*known).other_mac = [0; 8];
                (*known).unanswered = 0;
                let _ = SUSPECTS.remove(&met.peer);
            }
            return opaque(0);
        }
    }
    call!(differs(met, 0));
    opaque(1)
}

/// A question was asked: how often it has come again by now, each time after an answer.
#[inline(never)]
fn asked(asker: &Asker, hash: u64, at: u64) -> u64 {
    let mut again = 0;
    if QUESTIONS.get_ptr(asker).is_none() {
        let Some(new) = NO_QUESTION.get_ptr(0) else { return opaque(0) };
        // SAFETY: a live array slot that is never written.
        let _ = QUESTIONS.insert(asker, unsafe { &*new }, 0);
    }
    if let Some(question) = QUESTIONS.get_ptr_mut(asker) {
        // SAFETY: a live map value; races between CPUs cost a count.
        unsafe {
            if (*question).hash != hash {
                (*question).hash = hash;
                (*question).again = 0;
            } else if (*question).answered != 0 && at.wrapping_sub((*question).at) >= PAUSE_NS {
                (*question).again += 1;
                again = (*question).again;
            }
            (*question).at = at;
            (*question).answered = 0;
        }
    }
    opaque(again.into())
}
