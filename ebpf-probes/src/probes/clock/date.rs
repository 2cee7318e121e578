//! What plaintext HTTP servers take for the time: the `Date:` header of a response's first segment, kept in
//! a map for the agent. Nothing of it crosses the ring, and nothing but that header is kept.
//!
//! Cost: one comparison for each incoming segment with payload; the header is looked for in responses
//! alone, and of each server once in [`EVERY_NS`].

use aya_ebpf::{
    EbpfContext,
    bindings::__sk_buff,
    helpers::generated::bpf_skb_load_bytes,
    macros::map,
    maps::{LruHashMap, PerCpuArray},
    programs::SkBuffContext,
};

use super::{AGED, DATES as SERVERS, DateKey, HttpDate};
use crate::{
    abi::{ProbeId, Stat},
    bpf::{
        address::mapped,
        counters::count,
        packet::{Packet, netns_of},
        time::now,
        verifier::{at_most, call, opaque, same},
    },
};

/// What servers said last.
#[map]
static DATES: LruHashMap<DateKey, HttpDate> = LruHashMap::with_max_entries(SERVERS, 0);

/// Where a response is looked through; with room behind, so that what follows the last byte can be copied.
#[repr(C)]
#[derive(Clone, Copy)]
struct Response {
    /// Where the text after `Date:` begins, plus one; 0 for nowhere.
    date_at: u32,
    /// Bits of [`HttpDate::flags`].
    flags: u32,
    head: [u8; HEAD + 64],
}

#[map]
static RESPONSE: PerCpuArray<Response> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of a response that are looked through.
const HEAD: usize = 256;
/// A server is listened to this often.
const EVERY_NS: u64 = 2_000_000_000;

/// Letters as they are compared: all bytes with bit 5 set, which makes letters small, `\n` a `*` and `\r` a
/// `-`. What is found by mistake is no date.
const DATE: u64 = u64::from_be_bytes(*b"\0\0*date:");
const DATE_MASK: u64 = 0x0000_ffff_ffff_ffff;
const AGE: u64 = u64::from_be_bytes(*b"\0\0\0*age:");
const AGE_MASK: u64 = 0x0000_00ff_ffff_ffff;
const END: u64 = u64::from_be_bytes(*b"\0\0\0\0-*-*");
const END_MASK: u64 = 0xffff_ffff;

/// Whether a segment begins a response.
#[inline(always)]
pub(crate) fn begins(first: &[u8; 16]) -> bool {
    first[0] == b'H' && first[1] == b'T' && first[2] == b'T' && first[3] == b'P' && first[4] == b'/'
}

/// A response comes in.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn clock_response(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    let _ = heard(skb, &Packet::of(ends, payload));
    opaque(0)
}

#[inline(always)]
fn heard(skb: *mut __sk_buff, packet: &Packet) -> Option<()> {
    let ctx = SkBuffContext::new(skb.cast());
    let address = if packet.v4 { mapped(ctx.load::<u32>(12).ok()?) } else { ctx.load::<[u8; 16]>(8).ok()? };
    let netns = netns_of(&ctx).unwrap_or_default();
    let server = DateKey { address, netns: netns.inode, port: u32::from(packet.remote) };
    let at = now();
    if let Some(known) = DATES.get_ptr(&server) {
        // SAFETY: a live map value.
        let (said_ns, generation) = unsafe { ((*known).boot_ns, (*known).generation) };
        if generation == netns.generation && at.wrapping_sub(said_ns) < EVERY_NS {
            return None;
        }
    }
    let response = RESPONSE.get_ptr_mut(0)?;
    let want = at_most::<HEAD>(packet.len);
    // SAFETY: this CPU's slot, which no other program uses and this one uses in one context at a time; the
    // helper writes at most HEAD bytes below it.
    let found = unsafe {
        (*response).date_at = 0;
        (*response).flags = 0;
        let head = (&raw mut (*response).head).cast();
        if bpf_skb_load_bytes(ctx.as_ptr().cast(), packet.offset, head, want) != 0 {
            count(ProbeId::CLOCK, Stat::Unreadable);
            return None;
        }
        call!(look_through(want));
        (*response).date_at
    };
    if found == 0 {
        return None;
    }
    let mut date = HttpDate { boot_ns: at, generation: netns.generation, ..HttpDate::default() };
    let from = (opaque(u64::from(found)) & (HEAD as u64 - 1)) as usize;
    // SAFETY: from < HEAD, and 32 bytes behind it lie within the slot.
    unsafe {
        date.flags = (*response).flags;
        date.text = (&raw const (*response).head).cast::<u8>().add(from).cast::<[u8; 32]>().read_unaligned();
    }
    let _ = DATES.insert(&server, &date, 0);
    Some(())
}

/// Notes where the date is. To the end of the room and without branches but the loop's own: the verifier walks
/// each way through a loop and out of it again, which on a slow machine is seconds at every start.
#[inline(never)]
fn look_through(len: u32) -> u64 {
    let Some(response) = RESPONSE.get_ptr_mut(0) else { return opaque(0) };
    let (mut last, mut date_at, mut aged, mut live) = (0u64, 0u64, 0u64, 1u64);
    for at in 0..HEAD as u32 {
        // SAFETY: this CPU's slot; `at` is below HEAD. What lies beyond `len` is older, and not live.
        let byte = unsafe { (&raw const (*response).head).cast::<u8>().add(at as usize).read() };
        live &= opaque(opaque(u64::from(at).wrapping_sub(u64::from(len))) >> 63);
        last = last << 8 | u64::from(byte | 0x20);
        // Once at most: what comes after the header is not looked at.
        date_at += same(last & DATE_MASK, DATE) * live * u64::from(at + 1);
        aged |= same(last & AGE_MASK, AGE) * live;
        live &= 1 ^ same(last & END_MASK, END);
    }
    // SAFETY: this CPU's slot.
    unsafe {
        (*response).date_at = date_at as u32;
        (*response).flags = aged as u32 * AGED;
    }
    opaque(0)
}
