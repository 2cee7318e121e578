//! Facts as lines for people: time, process, probe, peer, what happened. One line a fact, aligned,
//! coloured only when asked to be. A terminal that is too narrow for a line has it broken at words, and
//! the rest hangs below it, so that every line that begins at the edge is a fact.

mod clock;
mod incident;
mod neigh;
mod tls;

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use anstyle::{AnsiColor, Effects, Style as Colour};
pub use incident::{Incidents, Watch};
pub use tls::owes;

use crate::text::duration::line as duration;
use crate::{
    config::Time,
    fact::{Endpoint, Fact, HostIcmp, Outcome, Protocol, What},
    terminal::{Piece, cells, lines, padded},
    text::{host::host, shown},
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

/// Addresses and names of one answer shown at most.
const ANSWERS: usize = 8;

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

/// How severe a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Plain,
    Good,
    Slow,
    Bad,
}

/// What a line says, before it is laid out.
struct Said {
    arrow: &'static str,
    peer: String,
    text: String,
    mood: Mood,
}

impl Mood {
    fn colour(self) -> Colour {
        match self {
            Self::Plain => Colour::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Slow => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
        }
    }
}

/// Writes one line; queries are left to their answers.
pub fn line(fact: &Fact, style: Style, out: &mut impl Write) -> io::Result<()> {
    let Some(said) = say(&fact.what) else { return Ok(()) };
    let paint = |colour: Colour| if style.colour { colour } else { Colour::new() };
    let (who, time) = (who(fact), time(&fact.at, style.time));
    let mut arrow = if said.arrow.is_empty() { String::new() } else { format!("{} ", said.arrow) };
    if let Some(local) = fact.what.local().filter(|_| style.ports) {
        arrow = format!(":{} {arrow}", local.port);
    }
    let first = cells(&time) + 2;
    let (head, peer, rest) = match style.width {
        Some(width) if width < WIDE => {
            let [of_who, of_probe] = NARROW_COLUMNS;
            let head = format!("{} {} ", padded(&who, of_who), padded(fact.probe, of_probe));
            (head, format!("{}  ", said.peer), first + 2)
        }
        _ => {
            let [of_who, of_probe, of_peer] = WIDE_COLUMNS;
            let head = format!("{} {} ", padded(&who, of_who), padded(fact.probe, of_probe));
            let peer = padded(&said.peer, of_peer.saturating_sub(cells(&arrow)));
            (head, format!("{peer} "), first + of_who + of_probe + of_peer + 3)
        }
    };
    let pieces = [
        Piece::words(&head),
        // An arrow stays with what it points to.
        Piece::whole(&arrow),
        Piece::words(&peer),
        Piece::prose(&said.text).style(paint(said.mood.colour())),
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

/// A peer: address, port, the name it was looked up by, and where its packets go.
pub fn peer(endpoint: &Endpoint) -> String {
    let mut at = std::net::SocketAddr::new(endpoint.ip, endpoint.port).to_string();
    if let Some(name) = &endpoint.name {
        let _ = write!(at, " ({})", host(name));
    }
    if let Some(wire) = &endpoint.wire {
        let _ = write!(at, ", {wire}");
    }
    at
}

/// What an answer holds: addresses, and names in the form of master files.
fn answers(answers: &[String]) -> String {
    let mut words: Vec<_> = answers
        .iter()
        .take(ANSWERS)
        .map(|answer| if answer.parse::<std::net::IpAddr>().is_ok() { answer.into() } else { host(answer) })
        .collect();
    if answers.len() > ANSWERS {
        words.push(format!("{} more", answers.len() - ANSWERS).into());
    }
    words.join(", ")
}

fn retries(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => ", 1 SYN retry".into(),
        count => format!(", {count} SYN retries"),
    }
}

fn drops(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => ", 1 packet dropped by this host".into(),
        count => format!(", {count} packets dropped by this host"),
    }
}

/// What this host itself has to do with it.
fn icmp(answered: &Option<HostIcmp>) -> String {
    answered.as_ref().map(|icmp| format!(": {icmp}")).unwrap_or_default()
}

fn say(what: &What) -> Option<Said> {
    let out = |to: &Endpoint, text: String, mood| Said { arrow: "→", peer: peer(to), text, mood };
    Some(match what {
        What::ConnectStarted { protocol: Protocol::Tcp, destination, .. } => {
            out(destination, "SYN".into(), Mood::Plain)
        }
        What::ConnectStarted { protocol: Protocol::Udp, destination, .. } => {
            out(destination, "UDP".into(), Mood::Plain)
        }
        What::SynRetransmitted { destination, syn_retransmits, elapsed_ms, .. } => out(
            destination,
            format!("SYN again after {} (retry {syn_retransmits})", duration(*elapsed_ms)),
            Mood::Slow,
        ),
        What::ConnectDropped { destination, reason, site, elapsed_ms, .. } => out(
            destination,
            format!(
                "dropped by this host: {reason}{}, after {}",
                site.as_ref().map(|site| format!(" ({site})")).unwrap_or_default(),
                duration(*elapsed_ms)
            ),
            Mood::Bad,
        ),
        What::ConnectPending {
            destination,
            syn_retransmits,
            drops: dropped,
            answered_by_host,
            elapsed_ms,
            ..
        } => {
            let (retries, drops) = (retries(*syn_retransmits), drops(*dropped));
            let text = format!("pending {}{retries}{drops}{}", duration(*elapsed_ms), icmp(answered_by_host));
            out(destination, text, Mood::Slow)
        }
        What::ConnectEnded {
            destination,
            outcome,
            errno,
            answered_by_host,
            unread_errno,
            syn_retransmits,
            duration_ms,
            protocol,
            ..
        } => {
            let mut text = outcome_name(*outcome).to_owned();
            if let Some(errno) = errno {
                let _ = write!(text, " ({errno})");
            }
            if *protocol == Protocol::Tcp {
                let _ = write!(text, " after {}{}", duration(*duration_ms), retries(*syn_retransmits));
            }
            if let Some(errno) = unread_errno {
                let _ = write!(text, ", its error {errno} was never read");
            }
            text.push_str(&icmp(answered_by_host));
            let mood = match (outcome, syn_retransmits) {
                (Outcome::Established, 0) => Mood::Good,
                (Outcome::Established, _) => Mood::Slow,
                _ => Mood::Bad,
            };
            out(destination, text, mood)
        }
        What::DnsQuery { .. } => return None,
        What::DnsAnswer {
            server, name, query_type, rcode, answers, truncated, latency_ms, protocol, ..
        } => {
            let mut text = format!("{query_type} {}", host(name));
            if rcode != "NOERROR" {
                let _ = write!(text, " {rcode}");
            } else if answers.is_empty() {
                text.push_str(if *truncated { " truncated" } else { " no such record" });
            } else {
                let _ = write!(text, " → {}", self::answers(answers));
            }
            if *protocol == Protocol::Tcp {
                text.push_str("  over TCP");
            }
            if let Some(latency) = latency_ms {
                let _ = write!(text, "  {}", duration(*latency));
            }
            let mood = if rcode == "NOERROR" || rcode == "NXDOMAIN" { Mood::Plain } else { Mood::Bad };
            out(server, text, mood)
        }
        What::DnsPending { server, name, query_type, queries, elapsed_ms, .. } => {
            let asked = if *queries > 1 { format!(", asked {queries} times") } else { String::new() };
            let text = format!("{query_type} {} unanswered for {}{asked}", host(name), duration(*elapsed_ms));
            out(server, text, Mood::Slow)
        }
        What::DnsFailed { server, name, query_type, errno, answered_by_host, elapsed_ms, .. } => {
            let (name, after) = (host(name), duration(*elapsed_ms));
            let text =
                format!("{query_type} {name} failed ({errno}) after {after}{}", icmp(answered_by_host));
            out(server, text, Mood::Bad)
        }
        What::ClientHello { .. }
        | What::ServerHello { .. }
        | What::ServerFlightRead { .. }
        | What::ClientFinished { .. }
        | What::HandshakeDone { .. }
        | What::Alert { .. }
        | What::HandshakeClosed { .. }
        | What::NotTls { .. }
        | What::HandshakePending { .. } => return tls::say(what),
        What::NeighbourChanged(_)
        | What::NeighbourTableFull(_)
        | What::NeighbourMacMismatch(_)
        | What::NeighbourClaimed(_)
        | What::NeighbourRetransmit(_)
        | What::NeighbourRecovered(_)
        | What::NeighbourConnectionReset(_)
        | What::NeighbourPacketQueued(_) => return neigh::say(what),
        What::ClockSet { .. }
        | What::ClockSlewed { .. }
        | What::ClockMoved { .. }
        | What::LeapSecond { .. }
        | What::ClockCompared { .. }
        | What::Suspended { .. } => return clock::say(what),
    })
}

/// An outcome in words.
pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Established => "established",
        Outcome::Refused => "refused",
        Outcome::Reset => "reset",
        Outcome::TimedOut => "timed out",
        Outcome::HostUnreachable => "host unreachable",
        Outcome::NetUnreachable => "network unreachable",
        Outcome::Aborted => "aborted: closed while pending",
        Outcome::Denied => "denied by local policy",
        Outcome::Failed => "failed",
        Outcome::Unseen => "over: its end was not seen",
    }
}

#[cfg(test)]
mod tests;
