//! Words the clock's rules share: sizes, dates, what breaks at a size, what to do, who keeps time.

pub(super) mod daemons;
pub(super) mod verdict;

use std::collections::{BTreeMap, VecDeque};

use daemons::Daemon;
use ebpf_probes::{
    abi::Tuple,
    probes::tls::{ALERT_ENCRYPTED, Handshake, stage},
};

use crate::{
    domains::{
        clock::{references::Source, timestamp},
        tls::{TlsStep, alert_name},
    },
    fact::ReferenceKind,
    pipeline::world::World,
    pipeline::{
        Request, View,
        incident::{Cause, CauseKind, ClockReference, Confidence, Severity},
        remedy::Remedy,
    },
    text::{duration::span, shell::Command},
    time::SECOND_NS,
};

/// From here on one-time passwords (RFC 6238: steps of 30 s) fail.
pub(super) const WARNING_NS: u64 = 30 * SECOND_NS;
/// From here on Kerberos refuses (RFC 4120 §1.6: five minutes by default).
pub(super) const CRITICAL_NS: u64 = 300 * SECOND_NS;
/// From here on AWS refuses signatures (Signature Version 4: fifteen minutes).
const SIGNATURE_NS: u64 = 900 * SECOND_NS;
/// From here on it shows in certificates, which are dated to the day or so by those who issue them.
const CERTIFICATE_NS: u64 = 3600 * SECOND_NS;

/// How severe a clock wrong by this much is; `info` below what is a warning.
pub(super) fn severity(off_ns: u64, world: &World) -> Severity {
    let at = world.known.clock();
    match off_ns {
        off_ns if off_ns >= at.critical_ns() => Severity::Critical,
        off_ns if off_ns >= at.warning_ns() => Severity::Warning,
        _ => Severity::Info,
    }
}

/// A reading of the clock for people: `2018-12-14 00:00:03 UTC`, with milliseconds where they matter.
pub(super) fn reading(boot_ns: u64, offset_ns: i64, fine: bool) -> String {
    let Some(at) = timestamp(boot_ns, offset_ns) else { return "a date beyond the calendar".to_owned() };
    let format = if fine { "%Y-%m-%d %H:%M:%S%.3f UTC" } else { "%Y-%m-%d %H:%M:%S UTC" };
    at.strftime(format).to_string()
}

/// What a credential made at a moment of a wrong clock is dated: the month when the clock was off by days,
/// else the minute.
pub(super) fn dated(boot_ns: u64, offset_ns: i64, off_ns: u64) -> String {
    let Some(at) = timestamp(boot_ns, offset_ns) else { return "beyond the calendar".to_owned() };
    let format = if off_ns >= 86_400 * SECOND_NS { "%B %Y" } else { "%Y-%m-%d %H:%M UTC" };
    at.strftime(format).to_string()
}

/// What fails when a clock is that far ahead, in sentences; nothing below thirty seconds.
pub(super) fn breaks(ahead_ns: i64) -> Vec<String> {
    let off = ahead_ns.unsigned_abs();
    let mut sentences = Vec::new();
    if off >= SIGNATURE_NS {
        sentences.push(
            "Beyond 15 min AWS refuses requests (SigV4: RequestTimeTooSkewed, SignatureDoesNotMatch), beyond 5 min Kerberos does, beyond 30 s one-time passwords (TOTP) fail."
                .to_owned(),
        );
    } else if off >= CRITICAL_NS {
        sentences.push(
            "Beyond 5 min Kerberos refuses tickets, beyond 30 s one-time passwords (TOTP) fail; beyond 15 min AWS would refuse requests."
                .to_owned(),
        );
    } else if off >= WARNING_NS {
        sentences.push(
            "Beyond 30 s one-time passwords (TOTP) fail; beyond 5 min Kerberos would refuse tickets, beyond 15 min AWS requests."
                .to_owned(),
        );
    }
    if off >= CERTIFICATE_NS {
        let size = span(off);
        sentences.push(if ahead_ns > 0 {
            format!("Certificates and tokens that expire in less than {size} count as expired here.")
        } else {
            format!("Certificates and tokens issued less than {size} ago are not valid yet here.")
        });
    }
    sentences
}

/// How to set the clock right, for those who have a time daemon and those who have none.
pub(super) fn remedies() -> Vec<Remedy> {
    vec![
        Remedy::from(Command::new("chronyc").arg("makestep"))
            .and(" (chrony), ")
            .and(Command::new("timedatectl").words("set-ntp true"))
            .and(" (systemd-timesyncd), or ")
            .and(Command::new("sntp").words("-S SERVER")),
        Remedy::from("then see that it stays right: ").and(list_clocks()),
    ]
}

/// What shows every clock there is to compare with.
pub(super) fn list_clocks() -> Command {
    Command::new("culprit").words("list clocks")
}

/// To ask a server that is believed; `why` are words before it.
pub(super) fn compare(why: &str) -> Remedy {
    Remedy::from(why).and(list_clocks().words("--ntp SERVER"))
}

/// What to do about a step that a time daemon made itself: it would only do it again.
pub(super) fn remedies_against(daemon: Daemon) -> Vec<Remedy> {
    vec![daemon.whom_it_follows(), compare("compare with a server you trust: ")]
}

/// What a reference clock is called in a sentence.
pub(super) fn called(source: &Source) -> String {
    source.0.called(&source.1)
}

/// A clock the wall clock is compared with, as it stands now.
pub(super) fn reference(source: &Source, world: &World) -> Option<ClockReference> {
    if source.0 == ReferenceKind::Built {
        return None;
    }
    let last = world.readings(source).last()?;
    Some(ClockReference {
        kind: source.0,
        name: source.1.clone(),
        ahead_ns: world.offset_ns().saturating_sub(last.utc_ns),
        error_ns: last.error_ns,
    })
}

/// The clock as a cause.
pub(super) fn cause(confidence: Confidence) -> Cause {
    Cause { kind: CauseKind::Clock, confidence, ..Cause::default() }
}

/// Clients' sessions, which are reported only while asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sessions {
    until_ns: u64,
}

impl Sessions {
    /// They are asked for this long, again and again.
    const ASKED_NS: u64 = 120 * SECOND_NS;

    /// Asks for them, when half of that is over.
    pub(super) fn go_on(&mut self, view: &mut View<'_>) {
        if self.until_ns.saturating_sub(view.now_ns) < Self::ASKED_NS / 2 {
            self.until_ns = view.now_ns.saturating_add(Self::ASKED_NS);
            view.requests.push(Request::Sessions(self.until_ns));
        }
    }
}

/// TLS handshakes refused while the clock is wrong, by alert.
#[derive(Debug, Clone, Default)]
pub(super) struct Alerts {
    pub(super) counts: BTreeMap<String, u64>,
    /// The last ones: when both ends are on this host, one handshake is seen twice.
    last: VecDeque<Tuple>,
}

/// Handshakes whose other end may still be seen, at most.
const OTHER_ENDS: usize = 32;

impl Alerts {
    pub(super) fn note(&mut self, step: TlsStep, handshake: &Handshake) {
        let tuple = &handshake.tuple;
        let is_other_end = |known: &Tuple| {
            (known.local, known.local_port, known.remote, known.remote_port)
                == (tuple.remote, tuple.remote_port, tuple.local, tuple.local_port)
        };
        if step == TlsStep::Phase && handshake.stage == stage::ALERT {
            if let Some(at) = self.last.iter().position(is_other_end) {
                self.last.remove(at);
                return;
            }
            if self.last.len() >= OTHER_ENDS {
                self.last.pop_front();
            }
            self.last.push_back(*tuple);
            let name = if handshake.flags & ALERT_ENCRYPTED != 0 {
                "encrypted".to_owned()
            } else {
                alert_name(handshake.alert as u8)
            };
            // There are as many alerts as a byte can name.
            let count = self.counts.entry(name).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// `3 TLS handshakes were refused meanwhile (certificate_expired: 3).`
    pub(super) fn sentence(&self) -> Option<String> {
        let all: u64 = self.counts.values().fold(0, |sum, count| sum.saturating_add(*count));
        let names: Vec<String> = self.counts.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        let handshakes = super::text::count(all, "TLS handshake was", "TLS handshakes were");
        (all > 0).then(|| format!("{handshakes} refused meanwhile ({}).", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_depends_on_size_and_direction() {
        let at = |seconds: i64| breaks(seconds * SECOND_NS as i64).join(" ");
        assert_eq!(at(29), "");
        assert!(at(31).starts_with("Beyond 30 s one-time passwords"));
        assert!(at(-301).starts_with("Beyond 5 min Kerberos"));
        assert!(at(935).contains("SigV4"));
        assert!(at(86_400).contains("expire in less than 1 day count as expired"));
        assert!(at(-86_400).contains("issued less than 1 day ago are not valid yet"));
    }

    #[test]
    fn dates_are_as_coarse_as_the_clock_is_wrong() {
        let december = 1_544_745_600 * SECOND_NS as i64;
        assert_eq!(dated(0, december, 86_400 * SECOND_NS), "December 2018");
        assert_eq!(dated(0, december, 60 * SECOND_NS), "2018-12-14 00:00 UTC");
        assert_eq!(dated(0, i64::MAX, 0), "2262-04-11 23:47 UTC");
    }
}
