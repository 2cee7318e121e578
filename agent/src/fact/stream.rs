//! What frames a stream of facts: its first line, which says what is watching, and its last, which says
//! what was seen and what was lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of the JSON stream. Within v1 it only ever grows.
pub const SCHEMA: &str = "culprit.stream/v1";

/// What is watching.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Start {
    /// `culprit.stream/v1`.
    pub schema: &'static str,
    /// Version of culprit.
    pub version: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the machine.
    pub node: String,
    /// What is attached and what is not.
    pub probes: Probes,
}

/// What is attached and what is not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probes {
    /// Probes of which at least the required hooks are attached.
    #[serde(deserialize_with = "names_now")]
    pub attached: Vec<String>,
    /// What is missing, and why.
    pub degraded: Vec<Degraded>,
}

/// Hooks of a probe that are missing together, for the same reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Degraded {
    /// The probe; `-p` for the hooks that follow the processes asked for.
    #[serde(deserialize_with = "name_now")]
    pub probe: String,
    /// The hooks, as `culprit list probes` names them. Empty in recordings that are older than this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    /// Why they are missing. Absent in recordings that are older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MissingReason>,
    /// What is lost and why, for people.
    pub why: String,
}

/// The name of a probe by now: recordings of earlier versions have `neigh`.
fn renamed(name: String) -> String {
    if name == "neigh" { "neighbour".into() } else { name }
}

fn name_now<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(renamed)
}

fn names_now<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Vec::<String>::deserialize(from).map(|names| names.into_iter().map(renamed).collect())
}

/// Why a hook is not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingReason {
    /// This kernel has no such tracepoint.
    NoTracepoint,
    /// The tracepoint's arguments are others on this kernel.
    OtherArgument,
    /// A field that the program reads is not where it can be read.
    NoField,
    /// The verifier or the attachment refused the program.
    Rejected,
    /// An option left it out.
    LeftOut,
    /// This build's kernel object lacks the program.
    NotBuilt,
}

/// The end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Summary {
    /// Facts emitted.
    pub events: u64,
    /// Incidents opened.
    pub incidents: u64,
    /// Records lost, or operations not followed.
    pub lost: u64,
    /// The same, by probe and reason.
    pub lost_by: Vec<LostBy>,
    /// How long it watched, milliseconds.
    pub duration_ms: u64,
}

impl Summary {
    /// The last line of a session or a replay.
    pub fn new(
        events: u64,
        incidents: u64,
        mut lost_by: Vec<LostBy>,
        undecodable: u64,
        duration_ms: u64,
    ) -> Self {
        if undecodable > 0 {
            lost_by.push(LostBy { probe: "any".into(), reason: "undecodable".into(), count: undecodable });
        }
        let lost = lost_by.iter().fold(0, |sum: u64, loss| sum.saturating_add(loss.count));
        Self { events, incidents, lost, lost_by, duration_ms }
    }
}

/// Losses of one probe for one reason.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LostBy {
    /// The probe.
    pub probe: String,
    /// `ring_full`, `map_full`, `unreadable`, `missed` (the kernel left a run of a program out) or `undecodable`.
    pub reason: String,
    /// How many.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_earlier_recordings_have_the_names_of_today() {
        let recorded =
            r#"{"attached":["connect","neigh"],"degraded":[{"probe":"neigh","why":"no removals"}]}"#;
        let probes: Probes = serde_json::from_str(recorded).expect("as it was written");
        assert_eq!(probes.attached, ["connect", "neighbour"]);
        assert_eq!(probes.degraded[0].probe, "neighbour");
        let again: Probes =
            serde_json::from_value(serde_json::to_value(&probes).expect("JSON")).expect("as it is");
        assert_eq!(again, probes);
    }
}
