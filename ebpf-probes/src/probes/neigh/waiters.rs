//! Who waits for a neighbour that does not answer: the packets in its queue, with their sockets.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf},
    macros::map,
    maps::PerCpuArray,
};

use super::{NeighKey, WaiterRecord};
use crate::{
    abi::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Kind, ProbeId},
    bpf::{
        address::mapped,
        owner::write_owner,
        ring::{emit, header},
        verifier::{call, opaque},
    },
    fields,
};

/// Packets looked at, oldest first.
const PACKETS: u32 = 4;

/// Reports the packets that wait. Runs at each unanswered probe, once a second at most; packets are read by
/// helpers that cannot fault: one freed meanwhile reads as some other packet of this machine, or as none.
///
/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`.
#[inline(always)]
pub(super) unsafe fn report(neighbour: *const u8, key: &NeighKey, v4: bool) {
    let head = fields::NEIGH_QUEUE::address(neighbour);
    // SAFETY: helpers that check addresses, and a load the verifier checks.
    unsafe {
        let queued = bpf_probe_read_kernel(fields::NEIGH_QUEUED::address(neighbour)).unwrap_or(0);
        let Some(queue) = QUEUE.get_ptr_mut(0) else { return };
        queue.write(Queue {
            key: *key,
            v4: u32::from(v4),
            queued,
            probes: fields::NEIGH_PROBES::read(neighbour),
            pad: 0,
        });
        // `next` is the first member of `struct sk_buff_head` and of `struct sk_buff`.
        let mut skb = bpf_probe_read_kernel(head).unwrap_or(core::ptr::null());
        for _ in 0..PACKETS {
            if skb.is_null() || skb == head.cast() {
                return;
            }
            call!(neigh_waits(skb as u64));
            skb = bpf_probe_read_kernel(skb.cast()).unwrap_or(core::ptr::null());
        }
    }
}

/// What all packets of a queue have in common.
#[repr(C)]
#[derive(Clone, Copy)]
struct Queue {
    key: NeighKey,
    v4: u32,
    queued: u32,
    probes: u32,
    pad: u32,
}

/// The queue in hand. The neighbours' timers run in softirq context, where none interrupts another on its CPU.
#[map]
static QUEUE: PerCpuArray<Queue> = PerCpuArray::with_max_entries(1, 0);

/// Reports one packet, by its address: the verifier follows this once, not for each packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn neigh_waits(skb: u64) -> u64 {
    let Some(queue) = QUEUE.get_ptr(0) else { return opaque(0) };
    let skb = skb as *const u8;
    // SAFETY: this CPU's slot.
    let (key, v4, queued, probes) =
        unsafe { (&(*queue).key, (*queue).v4 != 0, (*queue).queued, (*queue).probes) };
    // SAFETY: helpers that check addresses.
    unsafe {
        let sk = bpf_probe_read_kernel(fields::SKB_SK::address(skb)).unwrap_or(core::ptr::null());
        let cookie =
            if sk.is_null() { 0 } else { bpf_probe_read_kernel(fields::SK_COOKIE::address(sk)).unwrap_or(0) };
        emit::<WaiterRecord>(ProbeId::NEIGH, |record| {
            (&raw mut (*record).header).write(header::<WaiterRecord>(Kind::NEIGH_WAITER));
            (&raw mut (*record).address).write(key.address);
            write_owner(cookie, &raw mut (*record).owner);
            let head = bpf_probe_read_kernel(fields::SKB_HEAD::address(skb)).ok()?;
            let at = bpf_probe_read_kernel(fields::SKB_NETWORK_HEADER::address(skb)).ok()?;
            let packet: *const u8 = head.wrapping_add(usize::from(at));
            let tuple = &raw mut (*record).tuple;
            let (protocol, transport) = if v4 {
                let first: u8 = bpf_probe_read_kernel(packet).ok()?;
                let protocol: u8 = bpf_probe_read_kernel(packet.wrapping_add(9)).ok()?;
                let both: [u32; 2] = bpf_probe_read_kernel(packet.wrapping_add(12).cast()).ok()?;
                (&raw mut (*tuple).local).write(mapped(both[0]));
                (&raw mut (*tuple).remote).write(mapped(both[1]));
                (u16::from(protocol), usize::from(first & 15) * 4)
            } else {
                let next: u8 = bpf_probe_read_kernel(packet.wrapping_add(6)).ok()?;
                (&raw mut (*tuple).local).write(bpf_probe_read_kernel(packet.wrapping_add(8).cast()).ok()?);
                (&raw mut (*tuple).remote).write(bpf_probe_read_kernel(packet.wrapping_add(24).cast()).ok()?);
                (u16::from(next), 40)
            };
            let mut ports = [0u8; 4];
            if protocol == IPPROTO_TCP || protocol == IPPROTO_UDP {
                bpf_probe_read_kernel_buf(packet.wrapping_add(transport), &mut ports).ok()?;
            }
            (&raw mut (*tuple).local_port).write(u16::from_be_bytes([ports[0], ports[1]]));
            (&raw mut (*tuple).remote_port).write(u16::from_be_bytes([ports[2], ports[3]]));
            (&raw mut (*tuple).family).write(if v4 { AF_INET } else { AF_INET6 });
            (&raw mut (*tuple).protocol).write(protocol);
            (&raw mut (*record).cookie).write(cookie);
            (&raw mut (*record).netns).write(key.netns.inode);
            (&raw mut (*record).ifindex).write(key.ifindex);
            (&raw mut (*record).queued).write(queued);
            (&raw mut (*record).probes).write(probes);
            (&raw mut (*record).forwarded).write(u32::from(sk.is_null()));
            (&raw mut (*record).generation).write(key.netns.generation);
            Some(())
        });
    }
    opaque(0)
}
