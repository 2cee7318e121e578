//! Incidents as paragraphs for people, to be pasted into a ticket: headline, what and why, what it was
//! concluded from, what to do. An update that changes nothing but the duration is one line.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use anstyle::{AnsiColor, Effects, Style as Colour};

use super::{DIM, Style, time};
use crate::{
    config::Time,
    pipeline::{
        incident::{CauseKind, Confidence, Incident, Part, Severity, State},
        remedy::Remedy,
    },
    terminal::{Piece, cells, cut, lines, padded},
    text::{duration::line as duration, printable, shown},
};

/// Where lines are broken, in columns, unless the terminal has less.
const WIDTH: usize = 118;
/// Columns of a headline before the confidence.
const HEADLINE: usize = 102;
/// Columns at least that a process has in a line of an update.
const WHO: usize = 8;
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
    /// culprit has stopped: unless the incident was resolved before, its end was not seen.
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
            if incident.details.described().summary_distinguishes() {
                incident.summary.clone()
            } else {
                to.unwrap_or_default()
            },
            incident.caused_by.clone(),
        );
        let same = self.written.get(&incident.id) == Some(&now);
        if self.written.len() >= REMEMBERED {
            self.written.clear();
            self.called.clear();
        }
        self.call(incident);
        self.written.insert(incident.id.clone(), now);
        match incident.state {
            State::Updated if same => goes_on(incident, style, out),
            State::Resolved => {
                writeln!(out)?;
                self.brief(incident, Watch::Goes, style, out)?;
                writeln!(out)
            }
            _ => self.paragraph(incident, Watch::Goes, style, out),
        }
    }

    /// Remembers what an incident is called, for those it explains.
    pub fn call(&mut self, incident: &Incident) {
        self.called.insert(incident.id.clone(), called(incident));
    }

    /// Writes an incident without why, evidence and remedies.
    pub fn brief(
        &self,
        incident: &Incident,
        watch: Watch,
        style: Style,
        out: &mut impl Write,
    ) -> io::Result<()> {
        headline(incident, watch, style, out)?;
        wrapped(&incident.summary, "    ", "    ", style, out)?;
        self.explained(incident, style, out)
    }

    /// What explains it, by the names those incidents were reported by.
    fn explained(&self, incident: &Incident, style: Style, out: &mut impl Write) -> io::Result<()> {
        if incident.caused_by.is_empty() {
            return Ok(());
        }
        let name = |id: &String| self.called.get(id).cloned().unwrap_or_else(|| format!("incident {id}"));
        let names: Vec<String> = incident.caused_by.iter().map(name).collect();
        wrapped(&format!("Explained by: {}.", names.join("; ")), "    ", "    ", style, out)
    }

    /// Writes an incident whole, whatever was written before.
    pub fn paragraph(
        &self,
        incident: &Incident,
        watch: Watch,
        style: Style,
        out: &mut impl Write,
    ) -> io::Result<()> {
        writeln!(out)?;
        headline(incident, watch, style, out)?;
        wrapped(&incident.summary, "    ", "    ", style, out)?;
        for why in &incident.why {
            wrapped(why, "    ", "    ", style, out)?;
        }
        self.explained(incident, style, out)?;
        for seen in &incident.evidence {
            let at = seen.offset_ms as f64 / 1000.0;
            let (text, first) = (printable(&seen.text), format!("    {at:>+9.3} s  "));
            let pieces = [Piece::whole(&first).style(DIM), prose(&text, style).style(DIM)];
            broken(pieces, "", "                 ", style, out)?;
        }
        tries(&incident.remedies, "    ", style, out)?;
        writeln!(out)
    }
}

/// Writes what to do, one below the other.
pub fn tries(remedies: &[Remedy], indent: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    let (mut lead, next) = (format!("{indent}Try:  "), format!("{indent}      "));
    // Where lines are short, what continues one is distinguished from the next.
    let rest = if style.width.is_some() { format!("{next}  ") } else { next.clone() };
    for remedy in remedies {
        let written: Vec<(String, bool)> =
            remedy.parts().iter().map(|part| (part.to_string(), matches!(part, Part::Words(_)))).collect();
        let pieces = written
            .iter()
            .map(|(text, breaks)| if *breaks { prose(text, style) } else { Piece::whole(text) });
        broken(pieces, &lead, &rest, style, out)?;
        lead.clone_from(&next);
    }
    Ok(())
}

/// `NEIGHBOUR STALE 10.0.1.90 on eth0`, `CONNECT STALLED raven[1017] to 192.0.2.64:80`.
fn called(incident: &Incident) -> String {
    let kind = incident.kind.name().replace('_', " ").to_uppercase();
    if let Some(to) = incident.details.described().destination() {
        let who = incident.process.as_ref();
        let who = who.map(|who| format!("{}[{}] ", printable(&who.comm), who.pid)).unwrap_or_default();
        return format!("{kind} {who}to {}", std::net::SocketAddr::new(to.ip, to.port));
    }
    format!("{kind} {}", place(incident).trim_end_matches(", "))
}

fn kind(incident: &Incident) -> String {
    incident.kind.name().replace('_', " ").to_uppercase()
}

/// `shop/cart-7d9f/cart raven[1017]@node`.
fn who(incident: &Incident) -> Option<String> {
    incident.process.as_ref().map(|process| {
        let netns = process.netns.as_ref().map(|netns| format!("@{}", shown(netns))).unwrap_or_default();
        let place = process.belongs().map(|place| format!("{place} ")).unwrap_or_default();
        format!("{place}{}[{}]{netns}", shown(&process.comm), process.pid)
    })
}

fn confidence(incident: &Incident) -> &'static str {
    incident.cause.as_ref().map_or("", |cause| match cause.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Possible => "possible",
    })
}

fn colour(incident: &Incident, style: Style) -> Colour {
    let bold = |colour: AnsiColor| colour.on_default().effects(Effects::BOLD);
    match (style.colour, incident.state, incident.severity) {
        (false, ..) => Colour::new(),
        (true, State::Resolved, _) => bold(AnsiColor::Green),
        (true, _, Severity::Critical) => bold(AnsiColor::Red),
        (true, _, Severity::Info) => Colour::new().effects(Effects::BOLD),
        (true, _, Severity::Warning) => bold(AnsiColor::Yellow),
    }
}

/// `  TLS HANDSHAKE STALLED   raven[1017]  server on :443, since 14:02:11 (3.0 s, still going)   certain`
fn said(incident: &Incident, watch: Watch, style: Style) -> (String, String) {
    let since = time(&incident.began_at, if style.time == Time::Epoch { Time::Epoch } else { Time::Seconds });
    let (lasted, times) = lasted(incident);
    let standing = match (incident.state, watch) {
        (State::Resolved, _) => format!("resolved after {lasted}{times}"),
        (_, Watch::Goes) => format!("since {since} ({lasted}{times}, still going)"),
        (_, Watch::Stopped) => format!("since {since} ({lasted}{times}, watched until culprit stopped)"),
    };
    let who = who(incident).map(|who| who + "  ").unwrap_or_default();
    (format!("{}   {who}{}", kind(incident), place(incident)), standing)
}

fn lasted(incident: &Incident) -> (String, String) {
    let times = if incident.count > 1 { format!(", {} times", incident.count) } else { String::new() };
    (duration(incident.duration_ms as f64), times)
}

fn headline(incident: &Incident, watch: Watch, style: Style, out: &mut impl Write) -> io::Result<()> {
    let ((what, standing), confidence) = (said(incident, watch, style), confidence(incident));
    let colour = colour(incident, style);
    let width = style.width.map(|width| width.min(WIDTH));
    let mut lines = lines([Piece::words(&what), Piece::whole(&standing)], 2, 4, width);
    let last = lines.pop().unwrap_or_default();
    let mut lead = "  ";
    for line in lines {
        writeln!(out, "{lead}{}{line}{}", colour.render(), colour.render_reset())?;
        lead = "    ";
    }
    let edge = width.map_or(HEADLINE, |width| HEADLINE.min(width.saturating_sub(2 + cells(confidence))));
    let taken = cells(lead) + cells(&last);
    if width.is_some_and(|width| taken + 2 + cells(confidence) > width) {
        writeln!(out, "{lead}{}{last}{}", colour.render(), colour.render_reset())?;
        return writeln!(out, "    {confidence}");
    }
    let last = padded(&last, edge.saturating_sub(cells(lead)));
    writeln!(out, "{lead}{}{last}{}  {confidence}", colour.render(), colour.render_reset())
}

/// An update that changes nothing but the duration, in one line however narrow the terminal is.
fn goes_on(incident: &Incident, style: Style, out: &mut impl Write) -> io::Result<()> {
    let room = match style.width {
        Some(width) => width.min(WIDTH).saturating_sub(4 + cells(confidence(incident))),
        None => return headline(incident, Watch::Goes, style, out),
    };
    let (what, standing) = said(incident, Watch::Goes, style);
    if cells(&what) + cells(&standing) <= room {
        return headline(incident, Watch::Goes, style, out);
    }
    let (kind, (lasted, times)) = (kind(incident), lasted(incident));
    let standing = format!("{lasted}{times}, still going");
    let room = style.width.unwrap_or(WIDTH).saturating_sub(2 + cells(&kind) + 3 + 2 + cells(&standing));
    let who = who(incident).unwrap_or_else(|| place(incident).trim_end_matches(", ").to_owned());
    let colour = colour(incident, style);
    let line = format!("{kind}   {}  {standing}", cut(&who, room.max(WHO)));
    writeln!(out, "  {}{line}{}", colour.render(), colour.render_reset())
}

/// What distinguishes it from others of its kind, to stand before what follows.
fn place(incident: &Incident) -> String {
    let place = incident.details.described().headline();
    if place.is_empty() { place } else { format!("{place}, ") }
}

/// Words broken into lines of at most [`WIDTH`] columns, with nothing in them that steers a terminal.
fn wrapped(text: &str, first: &str, rest: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    broken([prose(&printable(text), style)], first, rest, style, out)
}

/// Sentences; pages that are no terminal are broken as they always were.
fn prose(text: &str, style: Style) -> Piece<'_> {
    if style.width.is_some() { Piece::prose(text) } else { Piece::words(text) }
}

/// Pieces broken into lines, each of them between words or not at all: a command that is pasted by half is
/// another command.
fn broken<'a>(
    pieces: impl IntoIterator<Item = Piece<'a>>,
    first: &str,
    rest: &str,
    style: Style,
    out: &mut impl Write,
) -> io::Result<()> {
    let width = style.width.map_or(WIDTH, |width| width.min(WIDTH));
    let pieces = pieces.into_iter().map(|piece| if style.colour { piece } else { piece.plain() });
    let mut lead = first;
    for line in lines(pieces, cells(first), cells(rest), Some(width)) {
        writeln!(out, "{lead}{line}")?;
        lead = rest;
    }
    Ok(())
}
