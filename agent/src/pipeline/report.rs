//! What a rule says about a situation: an incident without what the store adds (identity, times, counts
//! of earlier occurrences).

use super::{
    incident::{Cause, Details, Kind, Severity},
    remedy::Remedy,
};
use crate::fact::Process;

/// A rule's account of a situation, complete each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What kind of situation.
    pub kind: Kind,
    /// What it is about: the same subject within [`super::store::FOLD_NS`] is the same incident.
    pub subject: String,
    /// How severe it is.
    pub severity: Severity,
    /// Its first sign, CLOCK_BOOTTIME in nanoseconds.
    pub began_ns: u64,
    /// Occurrences so far.
    pub count: u64,
    /// Who suffers.
    pub process: Option<Process>,
    /// One sentence.
    pub summary: String,
    /// Two or three sentences of why.
    pub why: Vec<String>,
    /// What is to blame.
    pub cause: Option<Cause>,
    /// Ids of incidents that explain it.
    pub caused_by: Vec<String>,
    /// What to do.
    pub remedies: Vec<Remedy>,
    /// What was seen, with CLOCK_BOOTTIME in nanoseconds, in any order.
    pub evidence: Vec<(u64, String)>,
    /// More.
    pub details: Details,
}
