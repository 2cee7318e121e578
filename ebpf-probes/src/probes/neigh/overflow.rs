//! A neighbour table without room: the one program that sees that an entry was not made.

#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "entry points for the kernel: the attribute macros fix their shape"
)]

use aya_ebpf::{helpers::bpf_probe_read_kernel, macros::raw_tracepoint, programs::RawTracePointContext};

use super::{
    NeighRecord, cause, state,
    table::{OVERFLOW_V4, OVERFLOW_V6, happened, read_name, repeated},
};
use crate::{
    abi::{AF_INET, AF_INET6, Kind, Owner, ProbeId},
    bpf::{
        address::mapped,
        filter,
        netns::netns_at,
        ring::{emit, header},
    },
    fields,
    metrics::NeighEvent,
};

/// Runs once per new entry: one compare. A table that is full hands over a null entry, for each packet
/// to a new address until there is room. A raw tracepoint, because tp_btf declares that argument never
/// null and newer verifiers drop the compare.
#[raw_tracepoint(tracepoint = "neigh_create")]
pub fn neigh_created(ctx: RawTracePointContext) -> i32 {
    let made: *const u8 = ctx.arg(3);
    if made.is_null() {
        let _ = overflow(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    }
    0
}

#[inline(always)]
fn overflow(table: *const u8, device: *const u8, address: *const u8) -> Option<()> {
    // SAFETY: kernel structures, read by a helper that cannot fault.
    unsafe {
        let family = bpf_probe_read_kernel(fields::NEIGH_TABLE_FAMILY::address(table)).ok()? as u16;
        let v4 = family == AF_INET;
        let wanted = if v4 { filter::V4.load() != 0 } else { family == AF_INET6 && filter::V6.load() != 0 };
        if !wanted {
            return None;
        }
        happened(NeighEvent::TableFull, family);
        let count = repeated(if v4 { OVERFLOW_V4 } else { OVERFLOW_V6 })?;
        emit::<NeighRecord>(ProbeId::NEIGH, |record| {
            (&raw mut (*record).header).write(header::<NeighRecord>(Kind::NEIGH_CHANGE));
            (&raw mut (*record).owner).write(Owner::default());
            if v4 {
                (&raw mut (*record).address).write(mapped(bpf_probe_read_kernel(address.cast()).ok()?));
            } else {
                (&raw mut (*record).address).write(bpf_probe_read_kernel(address.cast()).ok()?);
            }
            read_name(device, &raw mut (*record).device)?;
            let net = bpf_probe_read_kernel(fields::DEV_NET::address(device)).ok()?;
            (&raw mut (*record).old_mac).write([0; 8]);
            (&raw mut (*record).new_mac).write([0; 8]);
            (&raw mut (*record).state_since_ns).write(0);
            (&raw mut (*record).mac_since_ns).write(0);
            let netns = netns_at(net)?;
            (&raw mut (*record).netns).write(netns.inode);
            (&raw mut (*record).ifindex)
                .write(bpf_probe_read_kernel(fields::DEV_IFINDEX::address(device)).ok()?);
            (&raw mut (*record).cause).write(cause::OVERFLOW);
            (&raw mut (*record).flags).write(0);
            (&raw mut (*record).old_state).write(state::NONE);
            (&raw mut (*record).new_state).write(state::NONE);
            (&raw mut (*record).probes).write(0);
            (&raw mut (*record).update_flags).write(0);
            (&raw mut (*record).netlink_pid).write(0);
            (&raw mut (*record).entry_flags).write(0);
            (&raw mut (*record).entries)
                .write(bpf_probe_read_kernel(fields::NEIGH_TABLE_ENTRIES::address(table)).ok()?);
            (&raw mut (*record).gc_entries)
                .write(bpf_probe_read_kernel(fields::NEIGH_TABLE_GC_ENTRIES::address(table)).ok()?);
            (&raw mut (*record).gc_thresh3)
                .write(bpf_probe_read_kernel(fields::NEIGH_TABLE_GC_THRESH3::address(table)).ok()?);
            (&raw mut (*record).count).write(count);
            (&raw mut (*record).family).write(family);
            let mac_len = bpf_probe_read_kernel(fields::DEV_ADDR_LEN::address(device)).ok()?;
            (&raw mut (*record).mac_len).write(u16::from(mac_len));
            (&raw mut (*record).generation).write(netns.generation);
            Some(())
        });
    }
    Some(())
}
