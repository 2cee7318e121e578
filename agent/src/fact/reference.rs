//! Words for reference clocks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kinds of clocks the wall clock is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceKind {
    /// A clock the hypervisor or the cloud offers as `/dev/ptp*`.
    Ptp,
    /// An NTP server the user named.
    Ntp,
    /// The kernel's own account: a time daemon has said that the clock is right.
    Kernel,
    /// The hardware clock, `/dev/rtc*`.
    Rtc,
    /// The `Date:` header of a plaintext HTTP response.
    Http,
    /// The day the running kernel was built: no clock, but no right clock shows an earlier time.
    Built,
}

/// What a reference clock said, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// When, CLOCK_BOOTTIME in nanoseconds.
    pub boot_ns: u64,
    /// What kind of clock.
    pub kind: ReferenceKind,
    /// Which: `ptp0 (KVM virtual PTP)`, `192.0.2.1:123`, `rtc0`, the HTTP server's address.
    pub name: String,
    /// UTC − CLOCK_BOOTTIME by this clock, nanoseconds. BOOTTIME is never set, so that a reading stays good
    /// across a step of the wall clock.
    pub utc_ns: i64,
    /// How far this may be wrong, nanoseconds: resolution, delay, and what the clock says of itself.
    pub error_ns: u64,
}

/// Time zones differ from UTC by multiples of this.
const QUARTER_NS: u64 = 15 * 60 * 1_000_000_000;
/// The time zone furthest from UTC.
const FURTHEST_NS: u64 = 14 * 3600 * 1_000_000_000;
/// A clock nobody looks after is seconds off.
const NEARLY_NS: u64 = 5_000_000_000;

/// Whether clocks so far apart, give or take, may both be right: one of them in local time.
pub fn is_time_zone(apart_ns: u64, unsure_ns: u64) -> bool {
    let whole = apart_ns.saturating_add(QUARTER_NS / 2) / QUARTER_NS * QUARTER_NS;
    (QUARTER_NS..=FURTHEST_NS).contains(&whole) && apart_ns.abs_diff(whole) <= NEARLY_NS.max(unsure_ns)
}
