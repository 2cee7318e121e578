//! How many questions, which answers, how long it took: counted apart from what is reported, in a function of its
//! own that looks at the message again, so that the verifier need not follow the two together.

use aya_ebpf::{bindings::__sk_buff, macros::map, maps::LruHashMap, programs::SkBuffContext};

use super::{
    ANY_TCP, LOOKUPS as FOLLOWED, LookupKey,
    lookups::{LOOKUPS, MESSAGE_HEADER},
};
use crate::{
    abi::IPPROTO_TCP,
    bpf::{counters, filter, packet::Packet, time::now, verifier::opaque},
    metrics::{Timed, counter},
};

/// When lookups under way were asked first, when `LOOKUPS` does not hold them.
#[map]
static ASKED: LruHashMap<LookupKey, u64> = LruHashMap::with_max_entries(FOLLOWED, 0);

/// A socket that asks under the same number after this long asks something else.
const GIVEN_UP_NS: u64 = 60_000_000_000;
/// Bytes of the length that precedes a message over TCP: RFC 1035 §4.2.2.
const LENGTH: u32 = 2;

/// Counts a message, and times it when it is an answer. Before anything else is done about it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn dns_counted(skb: *mut __sk_buff, ends: u64, payload: u64, cookie: u64) -> u64 {
    counted_inlined(skb, &Packet::of(ends, payload), cookie);
    opaque(0)
}

/// Over TCP, messages count that begin a segment, and answers only while one is awaited.
#[inline(always)]
fn counted_inlined(skb: *mut __sk_buff, packet: &Packet, cookie: u64) {
    let tcp = packet.protocol == IPPROTO_TCP;
    let before = if tcp { LENGTH } else { 0 };
    if packet.len < before + MESSAGE_HEADER {
        return;
    }
    let ctx = SkBuffContext::new(skb.cast());
    let Ok(start) = ctx.load::<[u8; 4]>((packet.offset + before) as usize) else { return };
    if (start[2] & 0x80 != 0) != packet.ingress {
        return;
    }
    let id = if tcp { ANY_TCP } else { u64::from(u16::from_be_bytes([start[0], start[1]])) };
    let key = LookupKey { cookie, id };
    let at = now();
    if !packet.ingress {
        counters::add(counter::DNS_QUERIES);
        if !filter::quiet() && asked(&key).is_none_or(|asked| at.wrapping_sub(asked) >= GIVEN_UP_NS) {
            let _ = ASKED.insert(&key, &at, 0);
        }
        return;
    }
    let asked = asked(&key);
    if tcp && asked.is_none() {
        return;
    }
    counters::add(counter::DNS_RESPONSES + u32::from(start[3] & 15));
    if let Some(asked) = asked {
        counters::took(Timed::Dns as u32, at.wrapping_sub(asked));
        if !filter::quiet() {
            let _ = ASKED.remove(&key);
        }
    }
}

/// When a lookup under way was asked first.
#[inline(always)]
fn asked(key: &LookupKey) -> Option<u64> {
    // SAFETY: loads from live map values.
    unsafe {
        if filter::quiet() {
            LOOKUPS.get_ptr(key).map(|held| (*held).boot_ns)
        } else {
            ASKED.get_ptr(key).map(|asked| *asked)
        }
    }
}
