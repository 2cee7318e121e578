//! The ring, and the one way onto it.

use core::mem::MaybeUninit;

use aya_ebpf::{Global, macros::map, maps::RingBuf};

use super::{counters::count, time::now};
use crate::abi::{Header, Kind, ProbeId, Stat};

/// Records on their way to the agent. The agent may change its size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

/// Bytes waiting in the ring above which the agent is woken at once; below, it comes by itself.
#[unsafe(no_mangle)]
pub(crate) static WAKE_BYTES: Global<u32> = Global::new(0);

/// `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP` and `BPF_RB_AVAIL_DATA` of include/uapi/linux/bpf.h.
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;
const AVAIL_DATA: u64 = 0;

/// Reserves a record, lets `fill` write every byte of it, and settles the reservation whatever
/// happens: `None` gives the record up and counts it as unreadable.
#[inline(always)]
pub(crate) fn emit<T: 'static>(probe: ProbeId, fill: impl FnOnce(*mut T) -> Option<()>) {
    let Some(mut record) = EVENTS.reserve::<T>(0) else { return count(probe, Stat::RingFull) };
    let slot: &mut MaybeUninit<T> = &mut record;
    match fill(slot.as_mut_ptr()) {
        Some(()) => {
            let flags = if EVENTS.query(AVAIL_DATA) >= u64::from(WAKE_BYTES.load()) {
                FORCE_WAKEUP
            } else {
                NO_WAKEUP
            };
            record.submit(flags);
            count(probe, Stat::Emitted);
        }
        None => {
            record.discard(NO_WAKEUP);
            count(probe, Stat::Unreadable);
        }
    }
}

/// The header of a record of type `T`.
#[inline(always)]
pub(crate) fn header<T>(kind: Kind) -> Header {
    Header { boot_ns: now(), kind: kind.0, len: size_of::<T>() as u32 }
}
