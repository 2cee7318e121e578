//! `culprit incidents` and `culprit show`: what a daemon has kept.

use clap::Args;

use super::run::From;
use crate::{
    config::Format, incidents::Source, outputs::store::read::Query, pipeline::incident::Kind,
    severity::Severity, units,
};

/// `culprit incidents`.
#[derive(Debug, Args)]
pub struct Incidents {
    /// Only of these kinds, comma-separated.
    #[arg(long, value_name = "KIND,…", value_delimiter = ',',
          value_parser = clap::builder::PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.name())))]
    pub kind: Vec<String>,
    /// Only of at least this severity.
    #[arg(long, value_enum, value_name = "SEVERITY", default_value = "info")]
    pub severity: Severity,
    /// Only those that go on, or are over.
    #[arg(long, value_name = "STATE", value_parser = ["open", "resolved"])]
    pub state: Option<String>,
    /// Only those that were going on after this moment: a time such as 2026-11-21T10:00:00Z, or so long ago, such as 24h.
    #[arg(long, value_name = "TIME", value_parser = units::moment)]
    pub since: Option<jiff::Timestamp>,
    /// Only those that opened before this moment.
    #[arg(long, value_name = "TIME", value_parser = units::moment)]
    pub until: Option<jiff::Timestamp>,
    /// Only those that say this somewhere: a name, an address, a process.
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
    /// List those too that another listed one explains; else the table counts them there.
    #[arg(long)]
    pub all: bool,
    /// The most recent so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// `text` is a table, `json` one incident a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: Format,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}

/// `culprit show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The incident's id, or the end of it, as the table shows it.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Form of the output.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub format: Format,
    /// Where to look.
    #[command(flatten)]
    pub from: From,
}

impl Incidents {
    /// As plain data.
    pub fn query(&self) -> Query {
        Query {
            kinds: self.kind.clone(),
            severity: self.severity,
            open: self.state.as_deref().map(|state| state == "open"),
            since_ms: self.since.map(jiff::Timestamp::as_millisecond),
            until_ms: self.until.map(jiff::Timestamp::as_millisecond),
            text: self.text.clone(),
            before: None,
            limit: self.limit,
        }
    }

    /// Where to look.
    pub fn place(&self) -> Source {
        self.from.place()
    }
}

impl Show {
    /// Where to look.
    pub fn place(&self) -> Source {
        self.from.place()
    }
}
