//! Counting, in the kernel: straight additions to this processor's own numbers. Two programs that interrupt
//! each other in the middle of one may lose it; nothing waits for anything.

use aya_ebpf::{macros::map, maps::PerCpuArray};

use super::{BUCKETS, COUNTERS as COLUMNS, Histogram, Timed, bucket};
use crate::kernel::opaque;

/// Counters; columns are those of [`super::counter`].
#[map]
static COUNTERS: PerCpuArray<[u64; COLUMNS]> = PerCpuArray::with_max_entries(1, 0);

/// Durations, one row for each [`Timed`].
#[map]
static HISTOGRAMS: PerCpuArray<Histogram> = PerCpuArray::with_max_entries(Timed::ALL.len() as u32, 0);

/// One more of `counter`, which may be known only at run time.
#[inline(always)]
pub fn add(counter: u32) {
    let Some(columns) = COUNTERS.get_ptr_mut(0) else { return };
    let at = opaque(u64::from(counter)) & (COLUMNS as u64 - 1);
    // SAFETY: this processor's slot of a live map, at a column below COLUMNS.
    unsafe { *columns.cast::<u64>().add(at as usize) += 1 }
}

/// Something took so long; `timed` is a number of [`Timed`] and may be known only at run time.
#[inline(always)]
pub fn took(timed: u32, ns: u64) {
    let Some(row) = HISTOGRAMS.get_ptr_mut(timed) else { return };
    let at = opaque(u64::from(bucket(ns))) & (BUCKETS as u64 - 1);
    // SAFETY: this processor's slot of a live map, at a bucket below BUCKETS.
    unsafe {
        (*row).sum_ns += ns;
        *(&raw mut (*row).buckets).cast::<u64>().add(at as usize) += 1;
    }
}
