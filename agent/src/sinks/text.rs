//! Facts as lines for people: time, process, probe, peer, what happened. One line a fact, aligned,
//! coloured only when asked to be.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use crate::fact::{ClockCall, Endpoint, Fact, NeighbourCause, Outcome, Protocol, Role, Session, Stage, What};

/// How the time is written; all in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Time {
    /// Hours to milliseconds.
    #[default]
    Milliseconds,
    /// `-t`: hours to seconds.
    Seconds,
    /// `-tt`: hours to microseconds.
    Microseconds,
    /// `-ttt`: seconds since 1970, with microseconds.
    Epoch,
}

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
    let mut who = format!("{}[{}", printable(&process.comm), process.pid);
    if process.tid != process.pid {
        let _ = write!(who, "·{}", process.tid);
    }
    who.push(']');
    if let Some(netns) = &process.netns {
        let _ = write!(who, "@{netns}");
    }
    who
}

/// Names come from the network and from processes: nothing of them may steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn peer(endpoint: &Endpoint) -> String {
    let at = std::net::SocketAddr::new(endpoint.ip, endpoint.port);
    match &endpoint.name {
        Some(name) => format!("{at} ({})", printable(name)),
        None => at.to_string(),
    }
}

/// Milliseconds as people write durations.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        ms => format!("{} min {:.0} s", (ms / 60_000.0).floor(), (ms % 60_000.0) / 1000.0),
    }
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
        What::ConnectDropped { destination, reason, elapsed_ms, .. } => out(
            destination,
            format!("dropped by this host: {reason}, after {}", duration(*elapsed_ms)),
            Mood::Bad,
        ),
        What::ConnectPending { destination, syn_retransmits, drops: dropped, elapsed_ms } => out(
            destination,
            format!("pending {}{}{}", duration(*elapsed_ms), retries(*syn_retransmits), drops(*dropped)),
            Mood::Slow,
        ),
        What::ConnectEnded {
            destination, outcome, errno, syn_retransmits, duration_ms, protocol, ..
        } => {
            let mut text = outcome_name(*outcome).to_owned();
            if let Some(errno) = errno {
                let _ = write!(text, " ({errno})");
            }
            if *protocol == Protocol::Tcp {
                let _ = write!(text, " after {}{}", duration(*duration_ms), retries(*syn_retransmits));
            }
            let mood = match (outcome, syn_retransmits) {
                (Outcome::Established, 0) => Mood::Good,
                (Outcome::Established, _) => Mood::Slow,
                _ => Mood::Bad,
            };
            out(destination, text, mood)
        }
        What::DnsQuery { .. } => return None,
        What::DnsAnswer { server, name, query_type, rcode, answers, truncated, latency_ms, protocol } => {
            let mut text = format!("{query_type} {}", printable(name));
            if rcode != "NOERROR" {
                let _ = write!(text, " {rcode}");
            } else if answers.is_empty() {
                text.push_str(if *truncated { " truncated" } else { " no such record" });
            } else {
                let _ = write!(text, " → {}", printable(&answers.join(", ")));
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
            let text =
                format!("{query_type} {} unanswered for {}{asked}", printable(name), duration(*elapsed_ms));
            out(server, text, Mood::Slow)
        }
        What::DnsFailed { server, name, query_type, errno, elapsed_ms } => out(
            server,
            format!("{query_type} {} failed ({errno}) after {}", printable(name), duration(*elapsed_ms)),
            Mood::Bad,
        ),
        other => return say_tls(other).or_else(|| say_neigh(other)).or_else(|| say_clock(other)),
    })
}

fn say_tls(what: &What) -> Option<Said> {
    let (session, text, mood) = match what {
        What::ClientHello { session, alpn, versions, read_after_ms, retried, .. } => {
            let mut text = String::from(if *retried { "ClientHello again" } else { "ClientHello" });
            if let Some(sni) = &session.sni {
                let _ = write!(text, "  sni {}", printable(sni));
            }
            if !alpn.is_empty() {
                let _ = write!(text, "  alpn {}", printable(&alpn.join(",")));
            }
            if let Some(highest) = versions.first() {
                let _ = write!(text, "  up to {highest}");
            }
            if let Some(ms) = read_after_ms {
                let _ = write!(text, "  (read after {})", duration(*ms));
            }
            (session, text, Mood::Plain)
        }
        What::ServerHello { session, version, retry_request, elapsed_ms, .. } => {
            let name = if *retry_request { "HelloRetryRequest" } else { "ServerHello" };
            let version = version.as_deref().unwrap_or("unreadable");
            (session, format!("{name}  {version}  {}", duration(*elapsed_ms)), Mood::Plain)
        }
        What::ServerFlightRead { session, read_after_ms } => {
            (session, format!("ServerHello read after {}", duration(*read_after_ms)), Mood::Plain)
        }
        What::ClientFinished { session, client_certificate, elapsed_ms } => {
            let with = if *client_certificate { " with a certificate" } else { "" };
            (session, format!("client finished{with}  {}", duration(*elapsed_ms)), Mood::Plain)
        }
        What::HandshakeDone { session, duration_ms, .. } => {
            (session, format!("handshake done  {}", duration(*duration_ms)), Mood::Good)
        }
        What::Alert { session, sent_by, level, description, duration_ms } => {
            let by = if *sent_by == session.role { "sent" } else { "received" };
            let level = level.as_deref().unwrap_or("encrypted");
            let description = description.as_deref().unwrap_or("");
            let text = format!("alert {by}: {level} {description}").trim_end().to_owned();
            (session, format!("{text}  {}", duration(*duration_ms)), Mood::Bad)
        }
        What::HandshakeClosed { session, stage, duration_ms } => {
            let text =
                format!("closed before done, {}  {}", owes(*stage, session.role), duration(*duration_ms));
            (session, text, Mood::Bad)
        }
        What::NotTls { session, duration_ms } => (
            session,
            format!("answered with something that is not TLS  {}", duration(*duration_ms)),
            Mood::Bad,
        ),
        What::HandshakePending { session, stage, stall_ms, .. } => {
            let text = format!("no progress for {}: {}", duration(*stall_ms), owes(*stage, session.role));
            (session, text, Mood::Slow)
        }
        _ => return None,
    };
    Some(Said { arrow: arrow(session), peer: peer(&session.peer), text, mood })
}

fn on(device: &str, netns: Option<&str>) -> String {
    match netns {
        Some(netns) => format!("{}@{}", printable(device), printable(netns)),
        None => printable(device),
    }
}

fn say_neigh(what: &What) -> Option<Said> {
    let about = |address: &std::net::IpAddr, device: &str, netns: &Option<String>, text, mood| Said {
        arrow: "",
        peer: format!("{address} {}", on(device, netns.as_deref())),
        text,
        mood,
    };
    Some(match what {
        What::NeighbourChanged {
            address,
            device,
            netns,
            cause,
            old_state,
            new_state,
            old_mac,
            new_mac,
            failed,
            probes,
            ..
        } => {
            let mut text = match (cause, old_state) {
                (NeighbourCause::Removed, _) => "removed".to_owned(),
                (_, Some(old)) if old != new_state => format!("{old} → {new_state}"),
                _ => new_state.clone(),
            };
            match (old_mac, new_mac) {
                (Some(old), Some(new)) if old != new => {
                    let _ = write!(text, "  MAC changed {old} → {new}");
                }
                (_, Some(mac)) if !matches!(new_state.as_str(), "INCOMPLETE" | "FAILED") => {
                    let _ = write!(text, "  {mac}");
                }
                _ => {}
            }
            if *failed {
                text.push_str("  nobody answered");
            } else if matches!(new_state.as_str(), "INCOMPLETE" | "PROBE") {
                let _ = write!(text, "  probe {probes}");
            }
            text.push_str(match cause {
                NeighbourCause::Netlink => "  set by hand",
                NeighbourCause::SentToRemoved => "  packet for a removed entry dropped",
                _ => "",
            });
            let changed = old_mac.is_some() && new_mac.is_some() && old_mac != new_mac;
            let mood = if *failed {
                Mood::Bad
            } else if changed {
                Mood::Slow
            } else {
                Mood::Plain
            };
            about(address, device, netns, text, mood)
        }
        What::NeighbourTableFull {
            address, device, netns, family, gc_entries, gc_thresh3, count, ..
        } => {
            let text = format!(
                "{family} neighbour table full: {gc_entries} entries of {gc_thresh3} (gc_thresh3), {count} refused"
            );
            about(address, device, netns, text, Mood::Bad)
        }
        What::NeighbourMacMismatch { address, device, netns, cached_mac, seen_mac, state, syns, .. } => {
            let text =
                format!("SYN from {seen_mac}, but replies go to {cached_mac} ({state}), {syns} so far");
            about(address, device.as_deref().unwrap_or("?"), netns, text, Mood::Bad)
        }
        _ => return None,
    })
}

/// A signed duration in nanoseconds, in words: `forward 15 min 35 s`.
fn by(delta_ns: i64) -> String {
    let way = if delta_ns < 0 { "back" } else { "forward" };
    let ms = delta_ns.unsigned_abs() as f64 / 1e6;
    let size = if ms < 86_400_000.0 {
        duration(ms)
    } else {
        let hours = ms / 3_600_000.0;
        format!("{} days {:.0} h", (hours / 24.0).floor(), hours % 24.0)
    };
    format!("{way} {size}")
}

fn call_name(call: ClockCall) -> &'static str {
    match call {
        ClockCall::ClockSettime => "clock_settime",
        ClockCall::Settimeofday => "settimeofday",
        ClockCall::ClockAdjtime => "clock_adjtime",
        ClockCall::Adjtimex => "adjtimex",
    }
}

fn say_clock(what: &What) -> Option<Said> {
    let (peer, text, mood) = match what {
        What::ClockSet { call, before, after, delta_ns, refused } => {
            let text = if *refused {
                "refused (EPERM)".into()
            } else {
                format!("clock set {}: {before} → {after}", by(*delta_ns))
            };
            (call_name(*call), text, if *refused { Mood::Slow } else { Mood::Bad })
        }
        What::ClockSlewed { call, modes, offset_ns, frequency_ppm, zone_only, refused } => {
            let mut text = String::from("clock slewed");
            if *zone_only {
                text = "kernel time zone set".into();
            }
            if let Some(offset) = offset_ns {
                let _ = write!(text, "  {}", by(*offset));
            }
            if let Some(ppm) = frequency_ppm {
                let _ = write!(text, "  frequency {ppm:+.3} ppm");
            }
            if *refused {
                text.push_str("  refused (EPERM)");
            } else if offset_ns.is_none() && frequency_ppm.is_none() && !*zone_only {
                let _ = write!(text, "  modes {modes:#x}");
            }
            (call_name(*call), text, Mood::Plain)
        }
        What::ClockMoved { before, after, delta_ns, was_set, .. } => {
            let why = if *was_set {
                "set by no call that was seen"
            } else {
                "nobody set it: it ran at another rate"
            };
            ("no call seen", format!("clock moved {}: {before} → {after} ({why})", by(*delta_ns)), Mood::Bad)
        }
        What::MachineSlept { slept_ms } => {
            ("no call seen", format!("the machine slept for {}", duration(*slept_ms)), Mood::Slow)
        }
        _ => return None,
    };
    Some(Said { arrow: "", peer: peer.into(), text, mood })
}

fn arrow(session: &Session) -> &'static str {
    if session.role == Role::Client { "→" } else { "←" }
}

fn owes(stage: Stage, role: Role) -> &'static str {
    match (stage, role) {
        (Stage::ClientHelloIncomplete, _) => "the ClientHello is not complete",
        (Stage::ClientHelloUnread, _) => "no thread has read the ClientHello",
        (Stage::AwaitingServerHello, Role::Server) => "this server owes its ServerHello",
        (Stage::AwaitingServerHello, Role::Client) => "the peer owes its ServerHello",
        (Stage::AwaitingClientFinish, Role::Server) => "the peer owes its finishing flight",
        (Stage::AwaitingClientFinish, Role::Client) => "this client owes its finishing flight",
        (Stage::AwaitingServerFinish, Role::Server) => "this server owes its last message",
        (Stage::AwaitingServerFinish, Role::Client) => "the peer owes its last message",
    }
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
            },
            syn_retransmits: 2,
            drops: 0,
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
