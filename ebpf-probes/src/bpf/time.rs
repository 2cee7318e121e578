//! The clock of all records.

use aya_ebpf::{Global, helpers::bpf_ktime_get_boot_ns};

/// A second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// The kernel's tick, in nanoseconds.
#[unsafe(no_mangle)]
pub(crate) static TICK_NS: Global<u64> = Global::new(10_000_000);

/// CLOCK_BOOTTIME in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_boot_ns() }
}
