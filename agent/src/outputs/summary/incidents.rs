//! The incidents of a summary: each as it was reported last.

use std::io::{self, Write};

use super::text;
use crate::pipeline::incident::Incident;

/// Incidents kept at most; what comes after is counted.
const KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Incidents {
    kept: Vec<Incident>,
    /// What incidents that may explain others are called.
    names: text::Incidents,
    more: std::collections::HashSet<String>,
}

impl Incidents {
    pub(super) fn add(&mut self, incident: Incident) {
        self.names.call(&incident);
        let known = self.kept.iter().position(|kept| kept.id == incident.id);
        match known {
            Some(at) => self.kept[at] = incident,
            None if self.kept.len() < KEPT => self.kept.push(incident),
            None => {
                self.more.insert(incident.id);
            }
        }
    }

    pub(super) fn write(&self, style: text::Style, out: &mut impl Write) -> io::Result<()> {
        for incident in &self.kept {
            writeln!(out)?;
            self.names.brief(incident, text::Watch::Stopped, style, out)?;
        }
        if !self.more.is_empty() {
            writeln!(out, "\n  {} more incidents: leave -c out to see them", self.more.len())?;
        }
        Ok(())
    }
}
