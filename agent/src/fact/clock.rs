//! Words for the clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
