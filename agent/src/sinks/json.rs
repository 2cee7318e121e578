//! The JSON stream: one documented object a line. The schema is generated from these types and checked in.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    correlate::incident::Incident,
    fact::{Fact, Start, Summary},
};

/// One line of the JSON stream.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly every line is an event, and none is kept")]
pub enum Line {
    /// The first line, once everything is attached: safe to begin.
    Start(Start),
    /// Something happened.
    Event(Fact),
    /// A situation, as culprit concludes it; told again when it changes and when it is over.
    Incident(Box<Incident>),
    /// The last line, always.
    Summary(Summary),
}

/// Writes one line.
pub fn line(line: &Line, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// The JSON Schema of the stream.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Line).into()
}

/// The JSON Schema of an incident alone.
pub fn incident_schema() -> serde_json::Value {
    schemars::schema_for!(Incident).into()
}
