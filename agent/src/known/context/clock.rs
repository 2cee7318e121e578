//! What of the wall clock is worth an incident.

use serde::{Deserialize, Serialize};

/// From where on the wall clock is wrong enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockThresholds {
    /// It is off by so much: a warning (`--clock-skew-warning`), milliseconds.
    pub warning_ms: u64,
    /// It is off by so much: critical (`--clock-skew-critical`), milliseconds.
    pub critical_ms: u64,
    /// It was set by so much at once, or little by little (`--clock-step`), milliseconds.
    pub step_ms: u64,
}

impl Default for ClockThresholds {
    /// From 30 s on one-time passwords (RFC 6238: steps of 30 s) fail; from five minutes on Kerberos refuses (RFC 4120
    /// §1.6); steps below half a second are a time daemon's daily work.
    fn default() -> Self {
        Self { warning_ms: 30_000, critical_ms: 300_000, step_ms: 500 }
    }
}

impl ClockThresholds {
    /// A warning from here on, nanoseconds.
    pub fn warning_ns(&self) -> u64 {
        self.warning_ms.saturating_mul(1_000_000)
    }

    /// Critical from here on, nanoseconds.
    pub fn critical_ns(&self) -> u64 {
        self.critical_ms.saturating_mul(1_000_000)
    }

    /// A step from here on, nanoseconds.
    pub fn step_ns(&self) -> u64 {
        self.step_ms.saturating_mul(1_000_000)
    }
}
