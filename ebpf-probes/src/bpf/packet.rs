//! A packet as the programs hand it to each other, and its socket.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_skc_to_tcp_sock},
    programs::SkBuffContext,
};

use super::{
    address::mapped,
    netns::netns,
    verifier::{at_most, opaque},
};
use crate::{
    abi::{AF_INET, AF_INET6, Netns, Tuple},
    fields,
};

/// What one packet carries, as far as we look.
pub(crate) struct Packet {
    /// It arrives (or it leaves).
    pub(crate) ingress: bool,
    /// It is IPv4 (or IPv6).
    pub(crate) v4: bool,
    /// IP protocol.
    pub(crate) protocol: u16,
    /// Local port, host order.
    pub(crate) local: u16,
    /// Remote port, host order.
    pub(crate) remote: u16,
    /// TCP sequence number of the payload's first byte; 0 for UDP.
    pub(crate) seq: u32,
    /// Where the payload begins in the packet.
    pub(crate) offset: u32,
    /// Its length in bytes.
    pub(crate) len: u32,
}

/// The first bytes of a packet's payload, as many as there are.
pub(crate) type First = [u8; 16];

/// A packet in two words: what functions that the verifier takes by themselves can be given. It then follows
/// each of them once, for any packet, instead of once for each way by which packets come to it.
pub(crate) type Words = (u64, u64);

const INGRESS: u64 = 1 << 48;
const V4: u64 = 1 << 49;

impl Packet {
    /// The packet that these words are of.
    #[inline(always)]
    pub(crate) fn of(ends: u64, payload: u64) -> Self {
        // Callers pass whatever is at hand for what the optimiser sees unused; the verifier wants a number.
        let (ends, payload) = (opaque(ends), opaque(payload));
        Self {
            ingress: ends & INGRESS != 0,
            v4: ends & V4 != 0,
            protocol: (ends >> 56) as u16,
            local: ends as u16,
            remote: (ends >> 16) as u16,
            offset: u32::from((ends >> 32) as u16),
            seq: (payload >> 32) as u32,
            len: payload as u32,
        }
    }

    /// Its words.
    #[inline(always)]
    pub(crate) fn words(&self) -> Words {
        let mut ends = u64::from(self.local) | u64::from(self.remote) << 16;
        ends |= u64::from(self.offset as u16) << 32 | u64::from(self.protocol) << 56;
        ends |= if self.ingress { INGRESS } else { 0 } | if self.v4 { V4 } else { 0 };
        (ends, u64::from(self.seq) << 32 | u64::from(self.len))
    }

    /// The first bytes of its payload; `None` when they cannot be read.
    #[inline(always)]
    pub(crate) fn first(&self, skb: *mut __sk_buff) -> Option<First> {
        let mut first = zeroed();
        if self.len != 0 {
            // SAFETY: at most sixteen bytes on the stack.
            let read = unsafe {
                let to = (&raw mut first).cast();
                bpf_skb_load_bytes(skb.cast(), self.offset, to, at_most::<16>(self.len))
            };
            if read != 0 {
                return None;
            }
        }
        Some(first)
    }

    /// Writes the packet's two ends, seen from this socket, to `to`. Through helpers, which reach
    /// any packet layout: not for the fast path.
    ///
    /// # Safety
    /// `to` must be writable memory the verifier knows: a map value or a reservation.
    #[inline(always)]
    pub(crate) unsafe fn write_tuple(&self, ctx: &SkBuffContext, to: *mut Tuple) -> Option<()> {
        // SAFETY: field by field below `to`, as promised by the caller.
        unsafe {
            let (local, remote) = (&raw mut (*to).local, &raw mut (*to).remote);
            let (source, target) = if self.ingress { (remote, local) } else { (local, remote) };
            if self.v4 {
                let both: [u32; 2] = ctx.load(12).ok()?;
                source.write(mapped(both[0]));
                target.write(mapped(both[1]));
            } else {
                source.write(ctx.load(8).ok()?);
                target.write(ctx.load(24).ok()?);
            }
            (&raw mut (*to).local_port).write(self.local);
            (&raw mut (*to).remote_port).write(self.remote);
            (&raw mut (*to).family).write(if self.v4 { AF_INET } else { AF_INET6 });
            (&raw mut (*to).protocol).write(self.protocol);
        }
        Some(())
    }
}

/// Sixteen zeros, in two registers: of an array's the compiler makes a call that clears byte by byte.
#[inline(always)]
fn zeroed() -> [u8; 16] {
    // SAFETY: integers become bytes.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>([opaque(0), opaque(0)]) }
}

/// The ports of the packet's socket, local and remote; those given if it has none.
///
/// # Safety
/// `skb` must be the context of a cgroup_skb program.
#[inline(always)]
pub(crate) unsafe fn socket_ports(skb: *const __sk_buff, local: u16, remote: u16) -> (u16, u16) {
    // SAFETY: context loads of the widths the verifier knows.
    unsafe {
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return (local, remote);
        }
        let own = (&raw const (*socket).src_port).read_volatile() as u16;
        (own, u16::from_be((&raw const (*socket).dst_port).read_volatile()))
    }
}

/// The packet's TCP socket, as a `struct tcp_sock` the verifier knows. A call and two compares.
#[inline(always)]
pub(crate) fn tcp_sock(ctx: &SkBuffContext) -> Option<*const u8> {
    // SAFETY: a context load, and a helper that takes any socket.
    unsafe {
        let socket = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return None;
        }
        let socket = bpf_skc_to_tcp_sock(socket.cast()).cast::<u8>();
        (!socket.is_null()).then_some(socket.cast_const())
    }
}

/// The network namespace of the packet's TCP socket. (Not by the namespace's cookie: cgroup_skb has
/// that helper from 6.18 on only.)
#[inline(always)]
pub(crate) fn netns_of(ctx: &SkBuffContext) -> Option<Netns> {
    let socket = tcp_sock(ctx)?;
    // SAFETY: loads through the BTF-typed socket the helper returned.
    unsafe {
        let net = fields::SK_NET::read(socket);
        (!net.is_null()).then(|| netns(net))
    }
}
