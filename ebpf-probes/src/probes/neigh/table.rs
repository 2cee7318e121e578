//! The neighbours as last reported, how an entry is named, and how often what repeats is reported.

use aya_ebpf::{
    helpers::{bpf_probe_read_kernel, generated::bpf_probe_read_kernel as read_kernel},
    macros::map,
    maps::{Array, LruHashMap},
};

use super::{NeighKey, Neighbour};
use crate::{
    abi::{AF_INET, AF_INET6, ProbeId, Stat},
    bpf::{
        address::mapped,
        counters::{self, count},
        filter,
        netns::netns,
        time::{SECOND, now},
        verifier::atomic_add,
    },
    fields,
    metrics::{NeighEvent, counter},
};

/// Every neighbour as last reported. The agent adds those that existed before it. Least recently used
/// entries give way: a neighbour that comes back is reported as seen for the first time.
#[map]
pub(super) static NEIGHBOURS: LruHashMap<NeighKey, Neighbour> = LruHashMap::with_max_entries(1 << 14, 0);

/// An empty one, to begin from: the stack is short. Never written.
#[map]
pub(super) static NO_NEIGHBOUR: Array<Neighbour> = Array::with_max_entries(1, 0);

/// What may happen for every packet, and is reported at most once a second.
#[map]
static REPEATS: Array<Repeat> = Array::with_max_entries(4, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Repeat {
    reported_ns: u64,
    count: u64,
}

pub(super) const OVERFLOW_V4: u32 = 0;
pub(super) const OVERFLOW_V6: u32 = 1;
pub(super) const DEAD: u32 = 2;

/// Counts one more, and says how many there were since the last report when it is time to report.
#[inline(always)]
pub(super) fn repeated(what: u32) -> Option<u32> {
    let repeat = REPEATS.get_ptr_mut(what)?;
    // SAFETY: a live array slot; a race between CPUs costs one record too many or a count too low.
    unsafe {
        atomic_add(&raw mut (*repeat).count, 1);
        let at = now();
        if (*repeat).reported_ns != 0 && at.wrapping_sub((*repeat).reported_ns) < SECOND {
            return None;
        }
        (*repeat).reported_ns = at;
        let count = (*repeat).count;
        (*repeat).count = 0;
        Some(count as u32)
    }
}

/// The neighbour's name and family; `None` when it is not IP, not wanted, or cannot be read.
///
/// # Safety
/// `neighbour` must be a BTF-typed `struct neighbour`.
#[inline(always)]
pub(super) unsafe fn key_of(neighbour: *const u8) -> Option<(NeighKey, u16)> {
    // SAFETY: direct loads the verifier checks. The address is behind the struct's last member, where
    // older verifiers allow none: it is read by a helper that cannot fault.
    unsafe {
        let family = fields::NEIGH_TABLE_FAMILY::read(fields::NEIGH_TBL::read(neighbour)) as u16;
        let at = fields::NEIGH_KEY::address(neighbour);
        let address = if family == AF_INET && filter::V4.load() != 0 {
            bpf_probe_read_kernel(at.cast::<u32>()).map(mapped)
        } else if family == AF_INET6 && filter::V6.load() != 0 {
            bpf_probe_read_kernel(at.cast::<[u8; 16]>())
        } else {
            return None;
        };
        let Ok(address) = address else {
            count(ProbeId::NEIGH, Stat::Unreadable);
            return None;
        };
        let device = fields::NEIGH_DEV::read(neighbour);
        let net = fields::DEV_NET::read(device);
        if net.is_null() {
            return None;
        }
        let ifindex = fields::DEV_IFINDEX::read(device);
        Some((NeighKey { netns: netns(net), ifindex, pad: 0, address }, family))
    }
}

/// Writes a device's name.
///
/// # Safety
/// `to` must be a reservation.
#[inline(always)]
pub(super) unsafe fn read_name(device: *const u8, to: *mut [u8; 16]) -> Option<()> {
    // SAFETY: 16 bytes into the reservation, by a helper that cannot fault.
    unsafe { (read_kernel(to.cast(), 16, fields::DEV_NAME::address(device).cast()) == 0).then_some(()) }
}

/// Counts it.
#[inline(always)]
pub(super) fn happened(event: NeighEvent, family: u16) {
    // AF_INET is 2, AF_INET6 10: no branch.
    counters::add(counter::neigh(event, false) + (u32::from(family) >> 3 & 1));
}
