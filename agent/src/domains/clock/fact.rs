//! What happens to the wall clock, as facts.

use schemars::JsonSchema;
use serde::Serialize;

use crate::fact::{LeapKind, ReferenceKind};

/// Calls that set or slew the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockCall {
    /// `clock_settime`.
    ClockSettime,
    /// `settimeofday`.
    Settimeofday,
    /// `clock_adjtime`.
    ClockAdjtime,
    /// `adjtimex`.
    Adjtimex,
}

impl ClockCall {
    /// The call's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClockSettime => "clock_settime",
            Self::Settimeofday => "settimeofday",
            Self::ClockAdjtime => "clock_adjtime",
            Self::Adjtimex => "adjtimex",
        }
    }
}

/// What happened; `kind` names it. Durations are in milliseconds; what is absent is not known.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(rename = "ClockFact")]
pub enum What {
    /// A call set the wall clock, or was refused.
    ClockSet {
        /// Which call.
        call: ClockCall,
        /// The wall clock before.
        before: String,
        /// The wall clock after.
        after: String,
        /// By how much it moved, nanoseconds.
        delta_ns: i64,
        /// The call was refused (EPERM); nothing moved.
        refused: bool,
    },
    /// A call changed the clock's pace, or the time zone.
    ClockSlewed {
        /// Which call.
        call: ClockCall,
        /// `timex.modes`: what was asked for.
        modes: u32,
        /// The offset to be slewed away, nanoseconds.
        offset_ns: Option<i64>,
        /// The frequency set, parts per million.
        frequency_ppm: Option<f64>,
        /// The length of a tick, microseconds: 10000 is the right rate, 11000 a clock that runs 10 % fast.
        #[serde(skip_serializing_if = "Option::is_none")]
        tick_us: Option<i64>,
        /// A leap second was armed for the end of the day.
        leap_second: Option<LeapKind>,
        /// Only the kernel's time zone was set.
        zone_only: bool,
        /// The call was refused (EPERM).
        refused: bool,
    },
    /// The wall clock moved and no call explains it: suspend, hypervisor, or a 32-bit process.
    ClockMoved {
        /// The wall clock before.
        before: String,
        /// The wall clock after.
        after: String,
        /// By how much it moved beyond what calls account for, nanoseconds.
        delta_ns: i64,
        /// The kernel said that the clock was set.
        was_set: bool,
        /// It happened within this long before `at`.
        within_ms: f64,
    },
    /// A leap second: the kernel moved the wall clock by a second at the end of the day, as had been armed. The
    /// process is the one that armed it.
    LeapSecond {
        /// One more, or one less.
        leap_second: LeapKind,
        /// The wall clock before.
        before: String,
        /// The wall clock after.
        after: String,
    },
    /// A reference clock disagrees with the wall clock, or says something else than it did.
    ClockCompared {
        /// What kind of clock.
        reference: ReferenceKind,
        /// Which.
        name: String,
        /// How far the wall clock is ahead of it, nanoseconds; negative is behind.
        ahead_ns: i64,
        /// How far that may be wrong, nanoseconds.
        error_ns: u64,
    },
    /// The machine stood still while another clock went on, as a VM that is paused does; no clock of its own shows it.
    MachinePaused {
        /// What kind of clock went on.
        reference: ReferenceKind,
        /// Which.
        name: String,
        /// For how long.
        paused_ms: f64,
        /// How far that may be wrong.
        error_ms: f64,
        /// It happened within this long before `at`.
        within_ms: f64,
    },
    /// The machine was suspended: BOOTTIME moved against MONOTONIC.
    Suspended {
        /// For how long.
        suspended_ms: f64,
    },
}
