//! The JSON stream: one documented object a line. The schema is generated from these types and checked in.
//!
//! Strings keep their content, whatever it is; what a terminal would not show is written as JSON's own escapes
//! (`\u202e`), so that nothing in a name steers whatever displays the line.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{
    Serializer,
    ser::{CompactFormatter, Formatter, PrettyFormatter},
};

use crate::{
    domains::Fact,
    fact::{Start, Summary},
    pipeline::incident::Incident,
    text::hidden,
};

/// One line of the JSON stream.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line<'a> {
    /// The first line, once everything is attached: safe to begin.
    Start(&'a Start),
    /// Something happened.
    Event(&'a Fact),
    /// A situation, as culprit concludes it; emitted again when it changes and when it is over.
    Incident(&'a Incident),
    /// The last line, always.
    Summary(&'a Summary),
}

/// Writes one line.
pub fn line(line: Line<'_>, out: &mut impl Write) -> io::Result<()> {
    write(&line, &mut *out)?;
    out.write_all(b"\n")
}

/// Writes a value without spaces.
pub fn write(value: &impl Serialize, out: impl Write) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Visible(CompactFormatter))).map_err(Into::into)
}

/// Writes a value for people to read.
pub fn pretty(value: &impl Serialize, out: impl Write) -> io::Result<()> {
    let formatter = Visible(PrettyFormatter::new());
    value.serialize(&mut Serializer::with_formatter(out, formatter)).map_err(Into::into)
}

/// A value without spaces.
pub fn string(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    // Writing to memory does not fail, and what is written here has text for keys.
    let _ = write(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// A formatter that leaves nothing hidden in strings.
struct Visible<F>(F);

/// Hands methods on to the formatter within.
macro_rules! within {
    ($($method:ident($($arg:ident: $of:ty),*));* $(;)?) => {
        $(
            fn $method<W: ?Sized + Write>(&mut self, writer: &mut W, $($arg: $of),*) -> io::Result<()> {
                self.0.$method(writer, $($arg),*)
            }
        )*
    };
}

impl<F: Formatter> Formatter for Visible<F> {
    within! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut shown = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| hidden(*c)) {
            writer.write_all(&fragment.as_bytes()[shown..at])?;
            shown = at + c.len_utf8();
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        writer.write_all(&fragment.as_bytes()[shown..])
    }
}

/// The JSON Schema of the stream.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Line).into()
}

/// The JSON Schema of an incident alone.
pub fn incident_schema() -> serde_json::Value {
    schemars::schema_for!(Incident).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_hidden_is_escaped_as_json_escapes() {
        assert_eq!(string(&"a\u{202e}b\u{e0041}\u{7f}\n\"é"), r#""a\u202eb\udb40\udc41\u007f\n\"é""#);
        let mut out = Vec::new();
        pretty(&serde_json::json!({ "a": [1, "\u{200b}"] }), &mut out).expect("memory");
        assert_eq!(String::from_utf8_lossy(&out), "{\n  \"a\": [\n    1,\n    \"\\u200b\"\n  ]\n}");
    }

    proptest! {
        #[test]
        fn content_is_kept_and_nothing_is_hidden(text in "(?s).*") {
            let json = string(&text);
            prop_assert!(!json.chars().any(hidden), "{json:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }
    }
}
