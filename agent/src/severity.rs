//! How severe an incident is: the words, their order, and the number it is stored under.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How severe an incident is, the least first. As a threshold it means this and above; [`Severity::Warning`] where
/// nothing is said.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing: nothing needs to be done.
    Info,
    /// Worth looking at.
    #[default]
    Warning,
    /// A program is refused or kept waiting now.
    Critical,
}

impl Severity {
    /// Every severity, in order.
    pub const ALL: &'static [Self] = &[Self::Info, Self::Warning, Self::Critical];

    /// The word in JSON, metrics, queries and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|severity| severity.name() == name)
    }

    /// Its place in the order, from 0: as the store has it.
    pub fn rank(self) -> i64 {
        match self {
            Self::Info => 0,
            Self::Warning => 1,
            Self::Critical => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn each_severity_has_one_name_and_one_rank_everywhere() {
        for (at, severity) in Severity::ALL.iter().enumerate() {
            assert_eq!(severity.rank(), at as i64);
            assert_eq!(serde_json::to_value(severity).unwrap(), severity.name());
            assert_eq!(severity.to_possible_value().unwrap().get_name(), severity.name());
            assert_eq!(Severity::named(severity.name()), Some(*severity));
        }
        assert!(Severity::ALL.is_sorted() && Severity::named("severe").is_none());
        assert_eq!(Severity::ALL, Severity::value_variants());
    }
}
