//! Words for the clock.

use schemars::JsonSchema;
use serde::Serialize;

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
