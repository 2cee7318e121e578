//! Facts as lines for people: time, process, probe, peer, what happened. One line a fact, aligned,
//! coloured only when asked to be.

mod clock;
mod incident;
mod neigh;
mod tls;

use crate::config::Time;
use std::{
    fmt::Write as _,
    io::{self, Write},
};

pub use incident::{Incidents, Watch};
pub use tls::owes;

use crate::{
    fact::{Endpoint, Fact, HostIcmp, Outcome, Protocol, What},
    text::{host::host, shown},
};

/// Addresses and names of one answer shown at most.
const ANSWERS: usize = 8;

/// How lines look.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// How the time is written.
    pub time: Time,
    /// Use terminal colours.
    pub colour: bool,
}

/// How grave a line is.
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

/// Writes one line; queries are left to their answers.
pub fn line(fact: &Fact, style: Style, out: &mut impl Write) -> io::Result<()> {
    let Some(said) = say(&fact.what) else { return Ok(()) };
    let who = who(fact);
    let time = time(&fact.at, style.time);
    let (dim, colour, reset) = if style.colour {
        let colour = match said.mood {
            Mood::Plain => "",
            Mood::Good => "\x1b[32m",
            Mood::Slow => "\x1b[33m",
            Mood::Bad => "\x1b[31m",
        };
        ("\x1b[2m", colour, "\x1b[0m")
    } else {
        ("", "", "")
    };
    let at = if said.arrow.is_empty() { said.peer } else { format!("{} {}", said.arrow, said.peer) };
    let probe = fact.probe;
    writeln!(out, "{dim}{time}{reset}  {who:<29} {probe:<8} {at:<28} {colour}{}{reset}", said.text)
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

/// Milliseconds as people write durations.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        ms => crate::fact::span((ms * 1e6) as u64),
    }
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
        What::ConnectStarted { protocol: Protocol::Tcp, destination } => {
            out(destination, "SYN".into(), Mood::Plain)
        }
        What::ConnectStarted { protocol: Protocol::Udp, destination } => {
            out(destination, "UDP".into(), Mood::Plain)
        }
        What::SynRetried { destination, syn_retransmits, elapsed_ms } => out(
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
                let _ = write!(text, ", nobody asked for its error {errno}");
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
        | What::NeighbourUnheard(_)
        | What::NeighbourHeard(_)
        | What::NeighbourReset(_)
        | What::NeighbourWaited(_) => return neigh::say(what),
        What::ClockSet { .. }
        | What::ClockSlewed { .. }
        | What::ClockMoved { .. }
        | What::LeapSecond { .. }
        | What::ClockCompared { .. }
        | What::MachineSlept { .. } => return clock::say(what),
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::Process;

    fn fact(what: What) -> Fact {
        Fact {
            at: "2026-11-20T14:02:11.204567Z".into(),
            boot_ns: 1,
            probe: "connect",
            process: Some(Process { pid: 1017, tid: 1043, comm: "raven".into(), ..Process::default() }),
            what,
        }
    }

    fn text(fact: &Fact, time: Time) -> String {
        let mut out = Vec::new();
        line(fact, Style { time, colour: false }, &mut out).expect("a vector");
        String::from_utf8(out).expect("text")
    }

    fn pending() -> What {
        What::ConnectPending {
            destination: Endpoint {
                ip: "192.35.177.64".parse().expect("an address"),
                port: 80,
                name: Some("apps.identrust.com".into()),
                wire: None,
            },
            syn_retransmits: 2,
            drops: 0,
            answered_by_host: None,
            elapsed_ms: 3000.4,
        }
    }

    #[test]
    fn a_pending_connect_says_who_where_how_long_and_how_often() {
        assert_eq!(
            text(&fact(pending()), Time::Milliseconds),
            "14:02:11.204  raven[1017·1043]              connect  → 192.35.177.64:80 (apps.identrust.com) pending 3.0 s, 2 SYN retries\n"
        );
    }

    #[test]
    fn times_are_written_as_strace_does() {
        assert!(text(&fact(pending()), Time::Seconds).starts_with("14:02:11  "));
        assert!(text(&fact(pending()), Time::Microseconds).starts_with("14:02:11.204567  "));
        assert!(text(&fact(pending()), Time::Epoch).starts_with("1795183331.204567  "));
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let mut fact = fact(pending());
        fact.process.as_mut().expect("set").comm = "\x1b[31mx".into();
        assert!(!text(&fact, Time::Milliseconds).contains('\x1b'));
    }
}
