//! Facts as lines for people: time, process, probe, peer, what happened. One line a fact, aligned,
//! coloured only when asked to be. A terminal that is too narrow for a line has it broken at words, and
//! the rest hangs below it, so that every line that begins at the edge is a fact.

mod incident;

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use anstyle::{AnsiColor, Effects, Style as Colour};
pub use incident::{Incidents, Watch, tries};

use crate::{
    config::Time,
    domains::Fact,
    fact::Tone,
    terminal::{Piece, cells, lines, padded},
    text::shown,
};

/// What is there to be looked up, not read.
const DIM: Colour = Colour::new().effects(Effects::DIMMED);
/// From as many columns on, processes, probes and peers have columns of their own: what is left is enough to
/// say what happened.
const WIDE: usize = 122;
/// Columns of process, probe and peer there.
const WIDE_COLUMNS: [usize; 3] = [28, 9, 28];
/// Columns of process and probe where there is less room.
const NARROW_COLUMNS: [usize; 2] = [18, 9];

/// How lines look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// How the time is written.
    pub time: Time,
    /// Use terminal colours.
    pub colour: bool,
    /// Columns of the terminal it goes to; nothing: it goes elsewhere, and lines are as long as they are.
    pub width: Option<usize>,
    /// Say this host's port of each connection.
    pub ports: bool,
}

fn colour(tone: Tone) -> Colour {
    match tone {
        Tone::Plain => Colour::new(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Slow => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default(),
    }
}

/// Writes one line; queries are left to their answers.
pub fn line(fact: &Fact, style: Style, out: &mut impl Write) -> io::Result<()> {
    let Some(phrase) = fact.what.described().phrase() else { return Ok(()) };
    let paint = |colour: Colour| if style.colour { colour } else { Colour::new() };
    let (who, time) = (who(fact), time(&fact.at, style.time));
    let mut arrow = if phrase.arrow.is_empty() { String::new() } else { format!("{} ", phrase.arrow) };
    if let Some(local) = fact.what.described().local().filter(|local| style.ports && local.port != 0) {
        arrow = format!(":{} {arrow}", local.port);
    }
    let first = cells(&time) + 2;
    let (head, peer, rest) = match style.width {
        Some(width) if width < WIDE => {
            let [of_who, of_probe] = NARROW_COLUMNS;
            let head = format!("{} {} ", padded(&who, of_who), padded(fact.probe, of_probe));
            (head, format!("{}  ", phrase.peer), first + 2)
        }
        _ => {
            let [of_who, of_probe, of_peer] = WIDE_COLUMNS;
            let head = format!("{} {} ", padded(&who, of_who), padded(fact.probe, of_probe));
            let peer = padded(&phrase.peer, of_peer.saturating_sub(cells(&arrow)));
            (head, format!("{peer} "), first + of_who + of_probe + of_peer + 3)
        }
    };
    let pieces = [
        Piece::words(&head),
        // An arrow stays with what it points to.
        Piece::whole(&arrow),
        Piece::words(&peer),
        Piece::prose(&phrase.text).style(paint(colour(phrase.tone))),
    ];
    let dim = paint(DIM);
    let mut lead = format!("{}{time}{}  ", dim.render(), dim.render_reset());
    for line in lines(pieces, first, rest, style.width) {
        writeln!(out, "{lead}{line}")?;
        lead = " ".repeat(rest);
    }
    Ok(())
}

fn time(at: &str, how: Time) -> String {
    let part = match how {
        Time::Milliseconds => at.get(11..23),
        Time::Seconds => at.get(11..19),
        Time::Microseconds => at.get(11..26),
        Time::Epoch => {
            return at.parse::<jiff::Timestamp>().map_or_else(
                |_| at.to_owned(),
                |at| format!("{}.{:06}", at.as_second(), at.subsec_microsecond()),
            );
        }
    };
    part.unwrap_or(at).to_owned()
}

fn who(fact: &Fact) -> String {
    let Some(process) = &fact.process else { return "-".into() };
    let mut who = process.belongs().map(|place| format!("{place} ")).unwrap_or_default();
    let _ = write!(who, "{}[{}", shown(&process.comm), process.pid);
    if process.tid != process.pid {
        let _ = write!(who, "·{}", process.tid);
    }
    who.push(']');
    if let Some(netns) = &process.netns {
        let _ = write!(who, "@{}", shown(netns));
    }
    who
}

#[cfg(test)]
mod tests;
