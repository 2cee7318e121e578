//! The JSON stream: one documented object a line. The schema is generated from these types and checked in.

use std::io::{self, Write};

use crate::fact::Line;

/// Writes one line.
pub fn line(line: &Line, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// The JSON Schema of the stream.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Line).into()
}
