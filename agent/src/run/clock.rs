//! The clocks of this machine, in nanoseconds.

fn clock_ns(id: rustix::time::ClockId) -> i64 {
    let now = rustix::time::clock_gettime(id);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// CLOCK_BOOTTIME.
pub(super) fn boot_ns() -> u64 {
    clock_ns(rustix::time::ClockId::Boottime).unsigned_abs()
}

/// CLOCK_REALTIME, since 1970.
pub(super) fn realtime_ns() -> i64 {
    clock_ns(rustix::time::ClockId::Realtime)
}
