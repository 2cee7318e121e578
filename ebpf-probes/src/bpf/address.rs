//! Addresses and ports as records have them: of sockets, of the destination of a call.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf},
    programs::SockAddrContext,
};

use super::verifier::opaque;
use crate::{
    abi::{AF_INET6, Tuple},
    fields,
};

/// An IPv4 address, as the kernel stores it, in IPv4-mapped form.
#[inline(always)]
pub(crate) fn mapped(v4: u32) -> [u8; 16] {
    let [a, b, c, d] = v4.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The two ends of a socket. `sk` must be a BTF-typed `struct sock`.
///
/// # Safety
/// As for [`fields::SK_FAMILY::read`].
#[inline(always)]
pub(crate) unsafe fn tuple_of(sk: *const u8) -> Tuple {
    // SAFETY: passed on to the caller.
    unsafe {
        let family = fields::SK_FAMILY::read(sk);
        let (local, remote) = if family == AF_INET6 {
            // Two words at a time: the verifier checks each load against the struct.
            (v6(fields::SK_V6_RCV_SADDR::address(sk)), v6(fields::SK_V6_DADDR::address(sk)))
        } else {
            (mapped(fields::SK_RCV_SADDR::read(sk)), mapped(fields::SK_DADDR::read(sk)))
        };
        Tuple {
            local,
            remote,
            local_port: fields::SK_NUM::read(sk),
            remote_port: u16::from_be(fields::SK_DPORT::read(sk)),
            family,
            protocol: fields::SK_PROTOCOL::read(sk),
        }
    }
}

/// The two ends of a socket where the verifier knows no types; `None` when it cannot be read.
#[inline(always)]
pub(crate) fn tuple_at(sk: *const u8) -> Option<Tuple> {
    // SAFETY: helpers that cannot fault.
    unsafe {
        let family = bpf_probe_read_kernel(fields::SK_FAMILY::address(sk)).ok()?;
        let (local, remote) = if family == AF_INET6 {
            (
                bpf_probe_read_kernel(fields::SK_V6_RCV_SADDR::address(sk).cast()).ok()?,
                bpf_probe_read_kernel(fields::SK_V6_DADDR::address(sk).cast()).ok()?,
            )
        } else {
            (
                mapped(bpf_probe_read_kernel(fields::SK_RCV_SADDR::address(sk)).ok()?),
                mapped(bpf_probe_read_kernel(fields::SK_DADDR::address(sk)).ok()?),
            )
        };
        Some(Tuple {
            local,
            remote,
            local_port: bpf_probe_read_kernel(fields::SK_NUM::address(sk)).ok()?,
            remote_port: u16::from_be(bpf_probe_read_kernel(fields::SK_DPORT::address(sk)).ok()?),
            family,
            protocol: bpf_probe_read_kernel(fields::SK_PROTOCOL::address(sk)).ok()?,
        })
    }
}

/// The same into a map value: a step of its own, for the stack. `0`: it cannot be read.
#[inline(never)]
pub(crate) fn write_tuple_at(sk: *const u8, to: *mut Tuple) -> u64 {
    // SAFETY: helpers that cannot fault; a live map value, as the caller promises.
    unsafe {
        let Ok(family) = bpf_probe_read_kernel(fields::SK_FAMILY::address(sk)) else { return opaque(0) };
        (*to).family = family;
        if family == AF_INET6 {
            let (local, remote) = (fields::SK_V6_RCV_SADDR::address(sk), fields::SK_V6_DADDR::address(sk));
            let _ = bpf_probe_read_kernel_buf(local.cast(), &mut (*to).local);
            let _ = bpf_probe_read_kernel_buf(remote.cast(), &mut (*to).remote);
        } else {
            let local = bpf_probe_read_kernel(fields::SK_RCV_SADDR::address(sk)).unwrap_or(0);
            (*to).local = mapped(local);
            let remote = bpf_probe_read_kernel(fields::SK_DADDR::address(sk)).unwrap_or(0);
            (*to).remote = mapped(remote);
        }
        (*to).local_port = bpf_probe_read_kernel(fields::SK_NUM::address(sk)).unwrap_or(0);
        let port = bpf_probe_read_kernel(fields::SK_DPORT::address(sk)).unwrap_or(0);
        (*to).remote_port = u16::from_be(port);
        (*to).protocol = bpf_probe_read_kernel(fields::SK_PROTOCOL::address(sk)).unwrap_or(0);
    }
    opaque(1)
}

/// # Safety
/// `at` must lie in a BTF-typed structure.
#[inline(always)]
pub(crate) unsafe fn v6(at: *const [u64; 2]) -> [u8; 16] {
    // SAFETY: two direct loads, checked by the verifier.
    unsafe {
        let words =
            [core::ptr::read_volatile(at.cast::<u64>()), core::ptr::read_volatile(at.cast::<u64>().add(1))];
        core::mem::transmute::<[u64; 2], [u8; 16]>(words)
    }
}

/// Destination address, port (host order) and protocol of the call.
#[inline(always)]
pub(crate) fn destination(ctx: &SockAddrContext, v6: bool) -> ([u8; 16], u16, u16) {
    let addr: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: context loads of the widths the verifier asks for.
    unsafe {
        let remote = if v6 {
            let at = (&raw const (*addr).user_ip6).cast::<u32>();
            let words = [
                at.read_volatile(),
                at.add(1).read_volatile(),
                at.add(2).read_volatile(),
                at.add(3).read_volatile(),
            ];
            core::mem::transmute::<[u32; 4], [u8; 16]>(words)
        } else {
            mapped((&raw const (*addr).user_ip4).read_volatile())
        };
        let port = u16::from_be((&raw const (*addr).user_port).read_volatile() as u16);
        (remote, port, (&raw const (*addr).protocol).read_volatile() as u16)
    }
}

/// Whether two addresses are the same: two compares, not a call.
#[inline(always)]
pub(crate) fn same_address(one: &[u8; 16], two: &[u8; 16]) -> bool {
    // SAFETY: bytes become integers.
    let (one, two) = unsafe {
        (core::mem::transmute::<[u8; 16], [u64; 2]>(*one), core::mem::transmute::<[u8; 16], [u64; 2]>(*two))
    };
    one[0] == two[0] && one[1] == two[1]
}

/// `0.0.0.0` or `::`, by which the kernel understands its own loopback.
#[inline(always)]
pub(crate) fn unspecified(address: &[u8; 16]) -> bool {
    same_address(address, &[0; 16]) || same_address(address, &mapped(0))
}
