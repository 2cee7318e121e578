//! Counting, in the kernel: straight additions to this processor's own numbers. Two programs that interrupt
//! each other in the middle of one may lose it; nothing waits for anything.

use aya_ebpf::{macros::map, maps::PerCpuArray};

use super::verifier::opaque;
use crate::{
    abi::{ProbeId, STATS_COLUMNS, Stat},
    metrics::{BUCKETS, COUNTERS as COLUMNS, Histogram, Timed, bucket},
};

/// Counters by probe; columns are [`Stat`].
#[map]
pub(crate) static STATS: PerCpuArray<[u64; STATS_COLUMNS]> =
    PerCpuArray::with_max_entries(ProbeId::MOST as u32, 0);

/// Counters; columns are those of [`crate::metrics::counter`].
#[map]
static COUNTERS: PerCpuArray<[u64; COLUMNS]> = PerCpuArray::with_max_entries(1, 0);

/// Durations, one row for each [`Timed`].
#[map]
static HISTOGRAMS: PerCpuArray<Histogram> = PerCpuArray::with_max_entries(Timed::ALL.len() as u32, 0);

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(probe: ProbeId, stat: Stat) {
    if let Some(columns) = STATS.get_ptr_mut(probe.0) {
        // SAFETY: this CPU's slot of a live per-CPU map; `stat` is below STATS_COLUMNS.
        unsafe { (&raw mut (*columns)[stat as usize]).write((*columns)[stat as usize] + 1) }
    }
}

/// One more of `counter`, which may be known only at run time.
#[inline(always)]
pub(crate) fn add(counter: u32) {
    let Some(columns) = COUNTERS.get_ptr_mut(0) else { return };
    let at = opaque(u64::from(counter)) & (COLUMNS as u64 - 1);
    // SAFETY: this processor's slot of a live map, at a column below COLUMNS.
    unsafe { *columns.cast::<u64>().add(at as usize) += 1 }
}

/// Something took so long; `timed` is a number of [`Timed`] and may be known only at run time.
#[inline(always)]
pub(crate) fn took(timed: u32, ns: u64) {
    let Some(row) = HISTOGRAMS.get_ptr_mut(timed) else { return };
    let at = opaque(u64::from(bucket(ns))) & (BUCKETS as u64 - 1);
    // SAFETY: this processor's slot of a live map, at a bucket below BUCKETS.
    unsafe {
        (*row).sum_ns += ns;
        *(&raw mut (*row).buckets).cast::<u64>().add(at as usize) += 1;
    }
}
