//! What to do about an incident: words for a person, and commands that may be pasted into a shell.
//!
//! They are kept apart until they are written, so that no name in a command is ever text.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use crate::text::{printable, shell::Command};

/// A remedy: words and commands in the order in which they are read. By habit the command comes last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Remedy {
    parts: Vec<Part>,
}

/// A piece of a remedy.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Words; names in them are written by [`crate::text::shown`].
    Words(String),
    /// A command, quoted when it is written.
    Command(Command),
}

impl Remedy {
    /// More, directly after what there is: words bring their own spaces.
    pub fn and(mut self, more: impl Into<Self>) -> Self {
        self.parts.extend(more.into().parts);
        self
    }

    /// Words and commands, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Its commands, in order.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.parts.iter().filter_map(|part| match part {
            Part::Command(command) => Some(command),
            Part::Words(_) => None,
        })
    }
}

impl From<Command> for Remedy {
    fn from(command: Command) -> Self {
        Self { parts: vec![Part::Command(command)] }
    }
}

impl From<String> for Remedy {
    fn from(words: String) -> Self {
        Self { parts: vec![Part::Words(words)] }
    }
}

impl From<&str> for Remedy {
    fn from(words: &str) -> Self {
        words.to_owned().into()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => out.write_str(&printable(words)),
            Self::Command(command) => command.fmt(out),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| part.fmt(out))
    }
}

/// In JSON a remedy is one string, as a person reads it.
impl Serialize for Remedy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Remedy {
    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_commands_are_read_in_order() {
        let look = Command::new("arping").words("-c 3 -I").arg("eth0; id").arg("192.0.2.1");
        let remedy = Remedy::from("see who answers: ").and(look);
        assert_eq!(remedy.to_string(), "see who answers: arping -c 3 -I 'eth0; id' 192.0.2.1");
        assert_eq!(remedy.commands().count(), 1);
    }
}
