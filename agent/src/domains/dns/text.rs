//! Lookups as text; queries are left to their answers.

use std::fmt::Write as _;

use super::What;
use crate::{
    fact::{HostIcmp, Phrase, Protocol, Tone},
    text::{duration::line as duration, host::host},
};

/// Addresses and names of one answer shown at most.
const ANSWERS: usize = 8;

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

/// What a line says of it.
pub(super) fn phrase(what: &What) -> Option<Phrase> {
    Some(match what {
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
            let tone = if rcode == "NOERROR" || rcode == "NXDOMAIN" { Tone::Plain } else { Tone::Bad };
            Phrase::out(server, text, tone)
        }
        What::DnsPending { server, name, query_type, queries, elapsed_ms, .. } => {
            let asked = if *queries > 1 { format!(", asked {queries} times") } else { String::new() };
            let text = format!("{query_type} {} unanswered for {}{asked}", host(name), duration(*elapsed_ms));
            Phrase::out(server, text, Tone::Slow)
        }
        What::DnsFailed { server, name, query_type, errno, answered_by_host, elapsed_ms, .. } => {
            let (name, after) = (host(name), duration(*elapsed_ms));
            let text = format!(
                "{query_type} {name} failed ({errno}) after {after}{}",
                HostIcmp::after(answered_by_host.as_ref())
            );
            Phrase::out(server, text, Tone::Bad)
        }
    })
}
