//! The headers of a packet that the kernel gives up: which packet of a connection it is, and of which.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf};

use super::packet;
use crate::{
    abi::{IPPROTO_TCP, Tuple},
    bpf::{
        address::mapped,
        tcp::flag::{ACK, RST, SYN},
    },
    fields,
};

/// Which packet of a connection that begins it is: one of [`packet`], by its TCP flags.
#[inline(always)]
fn kind_by(flags: u8) -> u32 {
    match (flags & SYN != 0, flags & ACK != 0, flags & RST != 0) {
        (true, false, _) => packet::SYN,
        (true, true, _) => packet::ANSWER,
        (false, _, true) => packet::RESET,
        _ => packet::UNKNOWN,
    }
}

/// The same of a packet, and where its IP and TCP headers begin. Read byte by byte: a buffer for them would be on the
/// stack.
///
/// # Safety
/// `skb` must be a BTF-typed `struct sk_buff`.
#[inline(always)]
pub(super) unsafe fn headers_of(skb: *const u8) -> (u32, *const u8, *const u8, bool) {
    // SAFETY: direct loads of checked fields; the packet through a helper that cannot fault.
    unsafe {
        let head = fields::SKB_HEAD::read(skb).wrapping_add(fields::SKB_NETWORK_HEADER::read(skb) as usize);
        let byte = |at: *const u8| bpf_probe_read_kernel(at).unwrap_or(0);
        let first = byte(head);
        let v4 = first >> 4 == 4;
        let (at, next) = if v4 {
            (usize::from(first & 15) * 4, byte(head.wrapping_add(9)))
        } else {
            (40, byte(head.wrapping_add(6)))
        };
        let tcp = head.wrapping_add(at);
        let is_tcp = next == IPPROTO_TCP as u8 && (v4 || first >> 4 == 6);
        let kind = if is_tcp { kind_by(byte(tcp.wrapping_add(13))) } else { packet::UNKNOWN };
        (kind, head, tcp, v4)
    }
}

/// The way of a SYN, of an answer to one, or of a reset, seen from the connecting side, into `way`. Which of them it is:
/// [`packet::UNKNOWN`] for none, and then nothing is written.
///
/// # Safety
/// `skb` must be a BTF-typed `struct sk_buff`.
#[inline(always)]
pub(super) unsafe fn way_of(skb: *const u8, way: &mut Tuple) -> u32 {
    // SAFETY: the packet through a helper that cannot fault.
    unsafe {
        let (kind, ip, tcp, v4) = headers_of(skb);
        if kind == packet::UNKNOWN {
            return kind;
        }
        let (source, target, length) = if v4 { (12, 16, 4) } else { (8, 24, 16) };
        let (local, remote) = if kind == packet::SYN { (source, target) } else { (target, source) };
        if length == 4 {
            way.local = mapped(bpf_probe_read_kernel(ip.wrapping_add(local).cast::<u32>()).unwrap_or(0));
            way.remote = mapped(bpf_probe_read_kernel(ip.wrapping_add(remote).cast::<u32>()).unwrap_or(0));
        } else if bpf_probe_read_kernel_buf(ip.wrapping_add(local), &mut way.local).is_err()
            || bpf_probe_read_kernel_buf(ip.wrapping_add(remote), &mut way.remote).is_err()
        {
            return packet::UNKNOWN;
        }
        let port = |at: usize| u16::from_be(bpf_probe_read_kernel(tcp.wrapping_add(at).cast()).unwrap_or(0));
        (way.local_port, way.remote_port) =
            if kind == packet::SYN { (port(0), port(2)) } else { (port(2), port(0)) };
        kind
    }
}
