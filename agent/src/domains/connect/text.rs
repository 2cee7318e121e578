//! Connects as text.

use std::fmt::Write as _;

use super::{DataEnd, Outcome, What};
use crate::{
    fact::{BEFORE_START, HostIcmp, Phrase, Protocol, Tone, peer},
    text::duration::line as duration,
};

fn retries(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => ", 1 SYN retry".into(),
        count => format!(", {count} SYN retries"),
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

fn drops(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => ", 1 packet dropped by this host".into(),
        count => format!(", {count} packets dropped by this host"),
    }
}

/// What a line says of it.
pub(super) fn phrase(what: &What) -> Phrase {
    match what {
        What::ConnectStarted { protocol: Protocol::Tcp, destination, .. } => {
            Phrase::out(destination, "SYN".into(), Tone::Plain)
        }
        What::ConnectStarted { protocol: Protocol::Udp, destination, .. } => {
            Phrase::out(destination, "UDP".into(), Tone::Plain)
        }
        What::SynRetransmitted { destination, syn_retransmits, elapsed_ms, .. } => Phrase::out(
            destination,
            format!("SYN again after {} (retry {syn_retransmits})", duration(*elapsed_ms)),
            Tone::Slow,
        ),
        What::ConnectDropped { destination, reason, site, elapsed_ms, .. } => Phrase::out(
            destination,
            format!(
                "dropped by this host: {reason}{}, after {}",
                site.as_ref().map(|site| format!(" ({site})")).unwrap_or_default(),
                duration(*elapsed_ms)
            ),
            Tone::Bad,
        ),
        What::ConnectPending {
            destination,
            syn_retransmits,
            drops: dropped,
            answered_by_host,
            since_before_start,
            elapsed_ms,
            ..
        } => {
            let (retries, drops) = (retries(*syn_retransmits), drops(*dropped));
            let text = format!(
                "pending {}{}{retries}{drops}{}",
                duration(*elapsed_ms),
                if *since_before_start { BEFORE_START } else { "" },
                HostIcmp::after(answered_by_host.as_ref())
            );
            Phrase::out(destination, text, Tone::Slow)
        }
        What::ListenQueueFull { local, peer: from, queued, limit, ignored_syns, .. } => Phrase {
            arrow: "←",
            peer: peer(from),
            text: format!(
                "SYN to :{} ignored: its accept queue is full ({queued} wait, its limit is {limit}), {ignored_syns} so far",
                local.port
            ),
            tone: Tone::Bad,
        },
        What::DataUnacknowledged {
            peer,
            unacked_bytes,
            retransmits,
            segment_bytes,
            since_before_start,
            elapsed_ms,
            ..
        } => {
            let segment =
                segment_bytes.map(|bytes| format!(", the last time {bytes} bytes")).unwrap_or_default();
            let text = format!(
                "{} not acknowledged for {}{}: sent again {}{segment}",
                count(u64::from(*unacked_bytes), "byte", "bytes"),
                duration(*elapsed_ms),
                if *since_before_start { BEFORE_START } else { "" },
                count(u64::from(*retransmits), "time", "times"),
            );
            Phrase::out(peer, text, Tone::Slow)
        }
        What::DataSettled { peer, end, duration_ms, .. } => {
            let tone = if *end == DataEnd::Acknowledged { Tone::Good } else { Tone::Bad };
            Phrase::out(peer, format!("data {} after {}", end.words(), duration(*duration_ms)), tone)
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
            text.push_str(&HostIcmp::after(answered_by_host.as_ref()));
            let tone = match (outcome, syn_retransmits) {
                (Outcome::Established, 0) => Tone::Good,
                (Outcome::Established, _) => Tone::Slow,
                _ => Tone::Bad,
            };
            Phrase::out(destination, text, tone)
        }
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
        Outcome::Unseen => "over: its end was not seen",
    }
}
