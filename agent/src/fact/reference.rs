//! Words for reference clocks and leap seconds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::{HOUR_NS, MINUTE_NS, SECOND_NS};

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

impl ReferenceKind {
    /// Every kind.
    pub const ALL: &'static [Self] =
        &[Self::Ptp, Self::Ntp, Self::Kernel, Self::Rtc, Self::Http, Self::Built];

    /// The word in JSON, text, and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ptp => "ptp",
            Self::Ntp => "ntp",
            Self::Kernel => "kernel",
            Self::Rtc => "rtc",
            Self::Http => "http",
            Self::Built => "built",
        }
    }

    /// What it is, as a table's note.
    pub fn about(self) -> &'static str {
        match self {
            Self::Ptp => "the hypervisor's or cloud's",
            Self::Ntp => "time server",
            Self::Kernel => "the kernel's own",
            Self::Rtc => "hardware clock",
            Self::Http => "a web server's",
            Self::Built => "the kernel's build date",
        }
    }

    /// How much one clock of this kind counts in a vote on the wall clock; see `rules::clocks::verdict` for what
    /// raises or voids it.
    pub fn weight(self) -> u32 {
        match self {
            Self::Ptp | Self::Ntp => 8,
            Self::Kernel => 4,
            Self::Rtc => 3,
            Self::Http => 2,
            Self::Built => 0,
        }
    }

    /// How long a reading counts, nanoseconds.
    pub fn lifetime_ns(self) -> u64 {
        match self {
            Self::Ptp | Self::Rtc => 2 * MINUTE_NS,
            Self::Ntp => 2 * HOUR_NS,
            Self::Kernel | Self::Http | Self::Built => HOUR_NS,
        }
    }
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

/// What a time daemon arms for the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeapKind {
    /// A second more (STA_INS): the wall clock goes back by one.
    Insert,
    /// A second less (STA_DEL): it goes forward by one.
    Delete,
}

impl LeapKind {
    /// By how much the wall clock moves, nanoseconds.
    pub fn moves_ns(self) -> i64 {
        match self {
            Self::Insert => -1_000_000_000,
            Self::Delete => 1_000_000_000,
        }
    }
}

/// Time zones differ from UTC by multiples of this.
const QUARTER_NS: u64 = 15 * MINUTE_NS;
/// The time zone furthest from UTC.
const FURTHEST_NS: u64 = 14 * HOUR_NS;
/// A clock without a time daemon is seconds off.
const NEARLY_NS: u64 = 5 * SECOND_NS;

/// Whether clocks so far apart, give or take, may both be right: one of them in local time.
pub fn is_time_zone(apart_ns: u64, unsure_ns: u64) -> bool {
    let whole = apart_ns.saturating_add(QUARTER_NS / 2) / QUARTER_NS * QUARTER_NS;
    (QUARTER_NS..=FURTHEST_NS).contains(&whole) && apart_ns.abs_diff(whole) <= NEARLY_NS.max(unsure_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_everywhere() {
        for kind in ReferenceKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
