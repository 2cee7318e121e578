//! Time as culprit counts it: nanoseconds, of the two clocks of this machine.
//!
//! How a duration reads is `text::duration`'s matter, how a person writes one `units`'.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds of a minute.
pub const MINUTE_NS: u64 = 60 * SECOND_NS;
/// Nanoseconds of an hour.
pub const HOUR_NS: u64 = 60 * MINUTE_NS;
/// Nanoseconds of a day.
pub const DAY_NS: u64 = 24 * HOUR_NS;

/// CLOCK_BOOTTIME: nanoseconds since this machine started, suspends included. It is never set.
pub fn boot_ns() -> u64 {
    clock_ns(ClockId::Boottime).unsigned_abs()
}

/// CLOCK_REALTIME, the wall clock: nanoseconds since 1970, negative before.
pub fn realtime_ns() -> i64 {
    clock_ns(ClockId::Realtime)
}

/// Any clock of this machine, nanoseconds.
pub fn clock_ns(id: ClockId) -> i64 {
    let now = clock_gettime(id);
    now.tv_sec.saturating_mul(SECOND_NS.cast_signed()).saturating_add(now.tv_nsec)
}
