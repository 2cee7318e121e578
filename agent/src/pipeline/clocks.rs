//! What incidents about the wall clock have of their own.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    domains::clock::ClockCall,
    fact::{Endpoint, Process, ReferenceKind},
    text::host::Invalid,
};

/// Of `clock_stepped`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClockSteppedDetails {
    /// The wall clock's reading before the first step, RFC 3339.
    pub before: String,
    /// Its reading after the last.
    pub after: String,
    /// All steps together, nanoseconds; forward is positive.
    pub delta_ns: i64,
    /// The steps, the first ones first.
    pub steps: Vec<ClockStep>,
    /// Steps left out of `steps`.
    pub steps_left_out: u64,
    /// How the clock stands after them.
    pub verdict: ClockVerdict,
    /// How long the clock was wrong, milliseconds: between the first step and the one that undid it. Absent
    /// while it is not known to have been right before and to be right now.
    pub wrong_ms: Option<u64>,
    /// What a reference clock says of it.
    pub reference: Option<ClockReference>,
    /// Processes that live, and began or opened TLS sessions while the clock was wrong.
    pub exposed: Vec<ExposedProcess>,
    /// Such processes left out of `exposed`.
    pub exposed_left_out: u64,
    /// TLS handshakes ended by an alert while the clock was wrong, by the alert's name as RFC 8446 has it;
    /// `encrypted` when only its presence is known.
    pub alerts: BTreeMap<String, u64>,
}

/// How the clock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockVerdict {
    /// Nothing can say whether it was right before or is now.
    Unknown,
    /// It is wrong.
    Wrong,
    /// The steps together have taken it back to where it was.
    Reverted,
    /// A reference clock says that it is right.
    Confirmed,
    /// A time daemon set it.
    SetByTimeDaemon,
}

/// One step of the wall clock.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClockStep {
    /// The wall clock's reading before it, RFC 3339.
    pub before: String,
    /// Its reading after it.
    pub after: String,
    /// By how much it moved, nanoseconds; forward is positive.
    pub delta_ns: i64,
    /// How it came about.
    pub how: StepCause,
    /// The call that set it.
    pub call: Option<ClockCall>,
    /// Who called.
    pub process: Option<Process>,
    /// Whose child that is.
    pub parent: Option<Parent>,
    /// It happened within this long before it was seen; 0 for calls.
    pub within_ms: u64,
    /// How long the machine was suspended, for `resume`.
    pub suspended_ms: Option<u64>,
}

/// Whose child a process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Parent {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// How a step came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepCause {
    /// A system call set the clock.
    Call,
    /// The machine resumed from suspend.
    Resume,
    /// The kernel says that the clock was set, and no system call was seen to: a guest service of the
    /// hypervisor, a restored VM, or a 32-bit process, whose calls cannot be seen.
    Hypervisor,
    /// Calls cannot be seen here: some hook is not attached.
    Unseen,
    /// The kernel, for a leap second that `process` had armed.
    LeapSecond,
}

/// A reference clock, and how far the wall clock is from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ClockReference {
    /// What kind of clock.
    pub kind: ReferenceKind,
    /// Which.
    pub name: String,
    /// How far the wall clock is ahead of it, nanoseconds; negative is behind.
    pub ahead_ns: i64,
    /// How far that may be wrong, nanoseconds.
    pub error_ns: u64,
}

/// A process that may hold what is dated wrongly.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ExposedProcess {
    /// The process.
    pub process: Process,
    /// When it was started, if that was while the clock was wrong: by the wrong clock, RFC 3339.
    pub started_at: Option<String>,
    /// The TLS sessions it opened as a client while the clock was wrong, the first ones first.
    pub sessions: Vec<ExposedSession>,
    /// Sessions left out of `sessions`.
    pub sessions_left_out: u64,
}

/// A TLS session opened while the clock was wrong.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ExposedSession {
    /// To whom.
    pub peer: Endpoint,
    /// Server name asked for.
    pub sni: Option<String>,
    /// That it is none that a host may have; of one that is too long, `sni` has the first 253 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni_invalid: Option<Invalid>,
    /// When, by the wrong clock, RFC 3339.
    pub at: String,
}

/// Of `clock_skewed`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClockSkewedDetails {
    /// The best reference clock, and how far the wall clock is from it.
    pub reference: ClockReference,
    /// Others that agree.
    pub agreeing: Vec<ClockReference>,
    /// Others that contradict.
    pub contradicting: Vec<ClockReference>,
    /// Hardware clocks that are kept in local time, and HTTP servers that say local time: no wrong clocks.
    pub local_time: Vec<ClockReference>,
    /// Since when, by the right clock, RFC 3339: when this machine stood still, or as far back as the drift
    /// reaches. Absent when it was so from the beginning and does not drift.
    pub since: Option<String>,
    /// How fast the clock gains on the reference, parts per million; negative is losing. Absent until it can
    /// be known from the readings' errors.
    pub drift_ppm: Option<f64>,
    /// The time this machine missed standing still, milliseconds.
    pub paused_ms: Option<u64>,
    /// This machine's time zone, which has no part in it: clocks are compared in UTC.
    pub time_zone: Option<String>,
    /// TLS handshakes ended by an alert while the clock was wrong, by the alert's name.
    pub alerts: BTreeMap<String, u64>,
}
