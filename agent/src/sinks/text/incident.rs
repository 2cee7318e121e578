//! Incidents as paragraphs for people, to be pasted into a ticket: headline, what and why, what it was
//! concluded from, what to do. An update that changes nothing but the duration is one line.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use super::{Style, duration, time};
use crate::{
    config::Time,
    correlate::incident::{CauseKind, Confidence, Details, Incident, NeighbourPlace, Part, Severity, State},
    fact::Role,
    text::duration::{by, off},
    text::{printable, shown},
};

/// Where lines are broken, in columns.
const WIDTH: usize = 118;
/// Incidents whose last paragraph is remembered, at most.
const REMEMBERED: usize = 1024;

/// What was last written of each incident, by id.
#[derive(Debug, Default)]
pub struct Incidents {
    written: HashMap<String, Essence>,
    /// What incidents that may explain others are called, by id.
    called: HashMap<String, String>,
}

/// What makes a paragraph worth writing again: cause, confidence, whom it points to, what explains it.
/// The clock's rules speak only when there is something to say.
type Essence = (Option<CauseKind>, Option<Confidence>, String, Vec<String>);

/// Whether the situation of an incident is still watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// It is.
    Goes,
    /// culprit has stopped: unless the incident was resolved before, nobody saw its end.
    Stopped,
}

impl Incidents {
    /// Writes an incident: whole when it is new or its cause has changed, else in one line.
    pub fn write(&mut self, incident: &Incident, style: Style, out: &mut impl Write) -> io::Result<()> {
        let cause = incident.cause.as_ref();
        let to =
            cause.and_then(|cause| cause.destination.as_ref()).map(|to| format!("{} {}", to.ip, to.port));
        let now = (
            cause.map(|cause| cause.kind),
            cause.map(|cause| cause.confidence),
            match &incident.details {
                Details::ClockStepped(_) | Details::ClockSkewed(_) => incident.summary.clone(),
                _ => to.unwrap_or_default(),
            },
            incident.caused_by.clone(),
        );
        let same = self.written.get(&incident.id) == Some(&now);
        if self.written.len() >= REMEMBERED {
            self.written.clear();
            self.called.clear();
        }
        self.called.insert(incident.id.clone(), called(incident));
        self.written.insert(incident.id.clone(), now);
        match incident.state {
            State::Updated if same => headline(incident, Watch::Goes, style, out),
            State::Resolved => {
                writeln!(out)?;
                headline(incident, Watch::Goes, style, out)?;
                wrapped(&incident.summary, "    ", "    ", out)?;
                self.explained(incident, out)?;
                writeln!(out)
            }
            _ => self.paragraph(incident, Watch::Goes, style, out),
        }
    }

    /// What explains it, by the names those incidents were told by.
    fn explained(&self, incident: &Incident, out: &mut impl Write) -> io::Result<()> {
        if incident.caused_by.is_empty() {
            return Ok(());
        }
        let name = |id: &String| self.called.get(id).cloned().unwrap_or_else(|| format!("incident {id}"));
        let names: Vec<String> = incident.caused_by.iter().map(name).collect();
        wrapped(&format!("Explained by: {}.", names.join("; ")), "    ", "    ", out)
    }

    /// Writes an incident whole, whatever was written before.
    pub fn paragraph(
        &self,
        incident: &Incident,
        watch: Watch,
        style: Style,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let (dim, reset) = if style.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        writeln!(out)?;
        headline(incident, watch, style, out)?;
        wrapped(&incident.summary, "    ", "    ", out)?;
        for why in &incident.why {
            wrapped(why, "    ", "    ", out)?;
        }
        self.explained(incident, out)?;
        for seen in &incident.evidence {
            let at = seen.offset_ms as f64 / 1000.0;
            write!(out, "{dim}")?;
            wrapped(&seen.text, &format!("    {at:>+9.3} s  "), "                 ", out)?;
            write!(out, "{reset}")?;
        }
        let mut lead = "    Try:  ";
        for remedy in &incident.remedies {
            let written: Vec<(String, bool)> = remedy
                .parts()
                .iter()
                .map(|part| (part.to_string(), matches!(part, Part::Words(_))))
                .collect();
            let pieces = written.iter().map(|(text, breaks)| (text.as_str(), *breaks));
            lines(pieces, lead, "          ", out)?;
            lead = "          ";
        }
        writeln!(out)
    }
}

/// `NEIGHBOUR STALE 10.0.1.90 on eth0`, `CONNECT STALLED raven[1017] to 192.0.2.64:80`.
fn called(incident: &Incident) -> String {
    let kind = incident.kind.name().replace('_', " ").to_uppercase();
    let to = match &incident.details {
        Details::ConnectStalled(details) => Some(&details.destination),
        Details::ConnectFailing(details) => Some(&details.destination),
        _ => None,
    };
    if let Some(to) = to {
        let who = incident.process.as_ref();
        let who = who.map(|who| format!("{}[{}] ", printable(&who.comm), who.pid)).unwrap_or_default();
        return format!("{kind} {who}to {}", std::net::SocketAddr::new(to.ip, to.port));
    }
    format!("{kind} {}", place(incident).trim_end_matches(", "))
}

/// `  TLS HANDSHAKE STALLED   raven[1017]  server on :443, since 14:02:11 (3.0 s, still going)   certain`
fn headline(incident: &Incident, watch: Watch, style: Style, out: &mut impl Write) -> io::Result<()> {
    let kind = incident.kind.name().replace('_', " ").to_uppercase();
    let who = incident.process.as_ref().map_or_else(String::new, |process| {
        let netns = process.netns.as_ref().map(|netns| format!("@{}", shown(netns))).unwrap_or_default();
        let place = process.belongs().map(|place| format!("{place} ")).unwrap_or_default();
        format!("{place}{}[{}]{netns}  ", shown(&process.comm), process.pid)
    });
    let since = time(&incident.began_at, if style.time == Time::Epoch { Time::Epoch } else { Time::Seconds });
    let lasted = duration(incident.duration_ms as f64);
    let times = if incident.count > 1 { format!(", {} times", incident.count) } else { String::new() };
    let standing = match (incident.state, watch) {
        (State::Resolved, _) => format!("resolved after {lasted}{times}"),
        (_, Watch::Goes) => format!("since {since} ({lasted}{times}, still going)"),
        (_, Watch::Stopped) => format!("since {since} ({lasted}{times}, watched until culprit stopped)"),
    };
    let confidence = incident.cause.as_ref().map_or("", |cause| match cause.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    });
    let (colour, reset) = match (style.colour, incident.state, incident.severity) {
        (false, ..) => ("", ""),
        (true, State::Resolved, _) => ("\x1b[1;32m", "\x1b[0m"),
        (true, _, Severity::Critical) => ("\x1b[1;31m", "\x1b[0m"),
        (true, _, Severity::Info) => ("\x1b[1m", "\x1b[0m"),
        (true, _, Severity::Warning) => ("\x1b[1;33m", "\x1b[0m"),
    };
    let text = format!("{kind}   {who}{}{standing}", place(incident));
    writeln!(out, "  {colour}{text:<100}{reset}  {confidence}")
}

fn place(incident: &Incident) -> String {
    match &incident.details {
        Details::TlsHandshakeStalled(details) => match details.role {
            Role::Server => format!("server on :{}, ", details.local.port),
            Role::Client => {
                format!("client of {}, ", std::net::SocketAddr::new(details.peer.ip, details.peer.port))
            }
        },
        Details::ConnectStalled(_) | Details::ConnectFailing(_) => String::new(),
        Details::NeighbourUnresolved(details) => neighbour(&details.neighbour),
        Details::NeighbourStale(details) => neighbour(&details.neighbour),
        Details::NeighbourConflict(details) => neighbour(&details.neighbour),
        Details::NeighbourTableFull(details) => format!("{}, ", details.family),
        Details::ClockStepped(details) if details.wrong_ms.is_some() => "back where it was, ".to_owned(),
        Details::ClockStepped(details) => format!("{}, ", by(details.delta_ns)),
        Details::ClockSkewed(details) => format!("{}, ", off(details.reference.ahead_ns)),
    }
}

/// `10.0.1.90 on eth0, `.
fn neighbour(place: &NeighbourPlace) -> String {
    let netns = place.netns.as_ref().map(|netns| format!("@{}", shown(netns))).unwrap_or_default();
    format!("{} on {}{netns}, ", place.address, shown(&place.device))
}

/// Words broken into lines of at most [`WIDTH`] columns, with nothing in them that steers a terminal.
fn wrapped(text: &str, first: &str, rest: &str, out: &mut impl Write) -> io::Result<()> {
    lines([(&*printable(text), true)], first, rest, out)
}

/// Pieces broken into lines, each of them between words or not at all: a command that is pasted by half is
/// another command.
fn lines<'a>(
    pieces: impl IntoIterator<Item = (&'a str, bool)>,
    first: &str,
    rest: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    // What stands between two spaces where a line may be broken.
    let mut chunks = vec![String::new()];
    for (text, breaks) in pieces {
        let mut words = text.split(' ').take(if breaks { usize::MAX } else { 0 });
        if let Some(last) = chunks.last_mut() {
            last.push_str(words.next().unwrap_or(text));
        }
        chunks.extend(words.map(str::to_owned));
    }
    let mut line = first.to_owned();
    let mut empty = true;
    for chunk in chunks {
        if !empty && line.chars().count() + 1 + chunk.chars().count() > WIDTH {
            writeln!(out, "{line}")?;
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(&chunk);
        empty = false;
    }
    writeln!(out, "{line}")
}
