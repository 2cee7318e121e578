//! Words for reference clocks and leap seconds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    text::{printable, shown},
    time::{HOUR_NS, MINUTE_NS, SECOND_NS},
};

macro_rules! references {
    ($($(#[$doc:meta])* $kind:ident = $name:literal, $about:literal, weight $weight:literal, for $lifetime:expr, called $called:expr;)+) => {
        /// Kinds of clocks the wall clock is compared with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ReferenceKind {
            $($(#[$doc])* $kind,)+
        }

        impl ReferenceKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The word in JSON, text, and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// What it is, as a table's note.
            pub fn about(self) -> &'static str {
                match self { $(Self::$kind => $about,)+ }
            }

            /// What one of them is called in a sentence, by its name.
            pub fn called(self, name: &str) -> String {
                let called: fn(&str) -> String = match self { $(Self::$kind => $called,)+ };
                called(name)
            }

            /// How much one clock of this kind counts in a vote on the wall clock; see `rules::clocks::verdict` for
            /// what raises or voids it.
            pub fn weight(self) -> u32 {
                match self { $(Self::$kind => $weight,)+ }
            }

            /// How long a reading counts, nanoseconds.
            pub fn lifetime_ns(self) -> u64 {
                match self { $(Self::$kind => $lifetime,)+ }
            }
        }
    };
}

references! {
    /// A clock the hypervisor or the cloud offers as `/dev/ptp*`.
    Ptp = "ptp", "the hypervisor's or cloud's", weight 8, for 2 * MINUTE_NS,
        called |name| format!("the host's clock {}", shown(name));
    /// An NTP server the user named.
    Ntp = "ntp", "time server", weight 8, for 2 * HOUR_NS,
        called |name| format!("NTP server {}", shown(name));
    /// The kernel's own account: a time daemon has said that the clock is right.
    Kernel = "kernel", "the kernel's own", weight 4, for HOUR_NS,
        called |_| "the kernel's synchronised time".into();
    /// The hardware clock, `/dev/rtc*`.
    Rtc = "rtc", "hardware clock", weight 3, for 2 * MINUTE_NS,
        called |name| format!("the hardware clock {}", shown(name));
    /// The `Date:` header of a plaintext HTTP response.
    Http = "http", "a web server's", weight 2, for HOUR_NS,
        called |name| format!("HTTP server {}", shown(name));
    /// The day the running kernel was built: no clock, but no right clock shows an earlier time.
    Built = "built", "the kernel's build date", weight 0, for HOUR_NS,
        called |name| format!("the build date of this kernel, {}", printable(name));
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
