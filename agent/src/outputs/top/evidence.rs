//! An incident in full, in lines of a given width: what and why, what it was concluded from, what to do.

use super::words::{age, who, wrap};
use crate::{
    pipeline::incident::{Incident, Part, State},
    text::printable,
};

pub(super) fn lines(incident: &Incident, lasted_ns: u64, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let kind = incident.kind.name().replace('_', " ").to_uppercase();
    let process =
        incident.process.as_ref().map(|process| format!("  {}", who(Some(process)))).unwrap_or_default();
    wrap(&format!("{kind}{process}"), "", "  ", width, &mut lines);
    let since = incident.began_at.get(11..19).unwrap_or(&incident.began_at);
    let lasted = age(lasted_ns);
    let standing = match incident.state {
        State::Resolved => format!("resolved after {lasted}"),
        _ => format!("since {since} ({lasted}, still going)"),
    };
    let times = if incident.count > 1 { format!(", {} times", incident.count) } else { String::new() };
    let sure = incident
        .cause
        .as_ref()
        .map(|cause| format!(", {}", format!("{:?}", cause.confidence).to_lowercase()));
    let (severity, sure) = (incident.severity.name(), sure.unwrap_or_default());
    wrap(&format!("{severity}, {standing}{times}{sure}"), "", "  ", width, &mut lines);
    lines.push(String::new());
    for text in std::iter::once(&incident.summary).chain(&incident.why) {
        wrap(&printable(text), "", "", width, &mut lines);
    }
    lines.push(String::new());
    lines.push("Evidence".into());
    for seen in &incident.evidence {
        let at = seen.offset_ms as f64 / 1000.0;
        wrap(&printable(&seen.text), &format!("  {at:>+9.3} s  "), "               ", width, &mut lines);
    }
    if !incident.remedies.is_empty() {
        lines.push(String::new());
        lines.push("Try".into());
    }
    for remedy in &incident.remedies {
        // A command that is pasted by half is another command: it is broken only where it is longer than a line. No
        // text that is written has this blank in it.
        let parts = remedy.parts().iter().map(|part| match part {
            Part::Words(_) => part.to_string(),
            Part::Command(_) => part.to_string().replace(' ', "\u{a0}"),
        });
        let at = lines.len();
        wrap(&parts.collect::<String>(), "  - ", "    ", width, &mut lines);
        for line in &mut lines[at..] {
            *line = line.replace('\u{a0}', " ");
        }
    }
    lines.push(String::new());
    lines.push(format!("Incident {}", incident.id));
    lines
}
