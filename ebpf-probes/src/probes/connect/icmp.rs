//! ICMP errors that this host itself sends, in whichever namespace: a firewall that rejects, a route that is missing or
//! forbids. They are found where they leave, by the packet they quote, which is by then as the one it is meant for
//! sent it. It does not know whether they arrived.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::bpf_probe_read_kernel,
    macros::map,
    maps::{LruHashMap, PerCpuArray},
    programs::SkBuffContext,
};

use super::{Connect, Icmp, leaves_as_asked};
use crate::{
    abi::{IPPROTO_TCP, IPPROTO_UDP, Netns, Tuple},
    bpf::{address::mapped, netns::netns_at, packet::Packet, time::now, verifier::opaque},
    fields,
};

/// The last errors sent, by the way of the packet that they are about, as its sender knows it.
#[map]
static REFUSALS: LruHashMap<Tuple, Refusal> = LruHashMap::with_max_entries(1 << 10, 0);

/// Where a socket's address becomes a number: the verifier allows no arithmetic with such an address.
#[map]
static SENDER: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Refusal {
    boot_ns: u64,
    netns: Netns,
    word: u32,
    pad: u32,
}

const ECHO_HEADER: u32 = 8;
const V4_UNREACHABLE: u8 = 3;
const V6_UNREACHABLE: u8 = 1;
const V6_HEADER: u32 = 40;

/// Whether an ICMP message's type says that something cannot be reached.
#[inline(always)]
pub(crate) fn is_unreachable(v4: bool, kind: u8) -> bool {
    kind == if v4 { V4_UNREACHABLE } else { V6_UNREACHABLE }
}

/// Such a message leaves; its header begins at `packet.offset`. Rare: the kernel limits their rate.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn icmp_sent(skb: *mut __sk_buff, ends: u64, payload: u64) -> u64 {
    sent_inlined(skb, &Packet::of(ends, payload));
    opaque(0)
}

#[inline(always)]
fn sent_inlined(skb: *mut __sk_buff, packet: &Packet) -> Option<()> {
    let ctx = SkBuffContext::new(skb.cast());
    let at = packet.offset as usize;
    let code: u8 = ctx.load(at + 1).ok()?;
    let quoted = at + ECHO_HEADER as usize;
    let mut way = Tuple::default();
    let (protocol, ports) = if packet.v4 {
        let first: u8 = ctx.load(quoted).ok()?;
        let protocol: u8 = ctx.load(quoted + 9).ok()?;
        let both: [u32; 2] = ctx.load(quoted + 12).ok()?;
        way.local = mapped(both[0]);
        way.remote = mapped(both[1]);
        (protocol, quoted + usize::from(first & 15) * 4)
    } else {
        let protocol: u8 = ctx.load(quoted + 6).ok()?;
        way.local = ctx.load(quoted + 8).ok()?;
        way.remote = ctx.load(quoted + 24).ok()?;
        (protocol, quoted + V6_HEADER as usize)
    };
    way.protocol = u16::from(protocol);
    if way.protocol != IPPROTO_TCP && way.protocol != IPPROTO_UDP {
        return None;
    }
    let ports: [u8; 4] = ctx.load(ports).ok()?;
    way.local_port = u16::from_be_bytes([ports[0], ports[1]]);
    way.remote_port = u16::from_be_bytes([ports[2], ports[3]]);
    let word = Icmp { v6: !packet.v4, code }.word();
    let _ = REFUSALS.insert(&way, &Refusal { boot_ns: now(), netns: netns_of_sender(&ctx), word, pad: 0 }, 0);
    Some(())
}

/// The namespace of the kernel's own socket that sends an ICMP message, unknown when it cannot be read.
#[inline(always)]
fn netns_of_sender(ctx: &SkBuffContext) -> Netns {
    const UNKNOWN: Netns = Netns::numbered(0);
    let Some(slot) = SENDER.get_ptr_mut(0) else { return UNKNOWN };
    // SAFETY: a context load; this CPU's slot; kernel memory is read by a helper that cannot fault.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return UNKNOWN;
        }
        slot.write_volatile(socket as u64);
        let socket = slot.read_volatile() as *const u8;
        let Ok(net) = bpf_probe_read_kernel(fields::SK_NET::address(socket)) else { return UNKNOWN };
        netns_at(net).unwrap_or(UNKNOWN)
    }
}

/// Notes with a connect that this host itself has answered it.
#[inline(always)]
pub(crate) fn note(connect: &mut Connect) {
    let mut way = if leaves_as_asked(connect.translated) { connect.tuple } else { connect.wire };
    way.family = 0;
    if let Some((word, netns)) = since(&way, connect.started_ns) {
        connect.icmp = word;
        connect.icmp_netns = netns;
    }
}

/// The same of a datagram, of which only its error is known.
#[inline(always)]
pub(crate) fn note_datagram(connect: &mut Connect) {
    const JUST_NOW_NS: u64 = 1_000_000_000;
    let way = Tuple { family: 0, ..connect.tuple };
    if let Some((word, netns)) = since(&way, connect.started_ns.saturating_sub(JUST_NOW_NS)) {
        connect.icmp = word;
        connect.icmp_netns = netns;
    }
}

#[inline(always)]
fn since(way: &Tuple, ns: u64) -> Option<(u32, Netns)> {
    let refusal = REFUSALS.get_ptr(way)?;
    // SAFETY: a live map value.
    unsafe { ((*refusal).boot_ns >= ns).then(|| ((*refusal).word, (*refusal).netns)) }
}

/// The error that the ICMP message noted with a connect leaves with the socket, 0 without one.
#[inline(always)]
pub(crate) fn errno(connect: &Connect) -> i32 {
    match Icmp::of(connect.icmp) {
        Some(icmp) => icmp.errno(),
        None => 0,
    }
}
