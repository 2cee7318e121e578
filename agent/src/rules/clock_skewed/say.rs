//! What `clock_skewed` says.

use super::{ClockSkewed, Open, drift_ppm, tick};
use crate::{
    domains::clock::{reading, references::Source},
    fact::{ReferenceKind, is_time_zone},
    pipeline::{
        View,
        incident::{Cause, ClockReference, ClockSkewedDetails, Confidence, Details, Kind},
        remedy::Remedy,
        report::Report,
    },
    rules::clocks::{
        self, WARNING_NS, breaks, called,
        verdict::{Ground, Verdict},
    },
    text::{
        duration::{by, off, span},
        shell::Command,
    },
    time::SECOND_NS,
};

/// A step this short before the clock is right made it so, nanoseconds.
const JUST_NOW_NS: u64 = 10 * SECOND_NS;
/// Errors below this are said to be as large.
const LEAST_NS: u64 = 1_000_000;

impl ClockSkewed {
    /// `right`: it is over, and the last verdict says so.
    pub(super) fn report(&self, right: bool, view: &View<'_>) -> Option<Report> {
        let open = self.open.as_ref()?;
        let (world, judged) = (view.world, &open.emitted);
        // What it last said, should nothing be known of it any more.
        let reference = clocks::reference(&judged.source, world).unwrap_or_else(|| ClockReference {
            kind: judged.source.0,
            name: judged.source.1.clone(),
            ahead_ns: judged.ahead_ns,
            error_ns: judged.error_ns,
        });
        let lost = !right && view.now_ns.saturating_sub(open.judged_ns) >= super::LOST_NS;
        let drift = drift_ppm(judged, world);
        let since = self.since(open, drift, view);
        let summary = if right {
            self.right_again(open, view)
        } else if lost {
            format!(
                "No reference clock has been able to say for {} how wrong the wall clock is.",
                span(super::LOST_NS)
            )
        } else {
            skewed(open)
        };
        let list = |sources: &[Source]| -> Vec<ClockReference> {
            sources.iter().filter_map(|source| clocks::reference(source, world)).collect()
        };
        let zones: Vec<Source> = judged.zones.iter().map(|(source, _)| source.clone()).collect();
        let (agreeing, contradicting, local_time) =
            (list(&judged.others), list(&judged.against), list(&zones));
        let seen = |clock: &ClockReference| {
            let source = (clock.kind, clock.name.clone());
            let at_ns = world.readings(&source).last().map_or(view.now_ns, |last| last.boot_ns);
            (
                at_ns,
                format!(
                    "{} says: {} (± {})",
                    called(&source),
                    off(clock.ahead_ns),
                    span(clock.error_ns.max(LEAST_NS))
                ),
            )
        };
        let mut evidence: Vec<(u64, String)> = std::iter::once(&reference)
            .chain(&agreeing)
            .chain(&contradicting)
            .chain(&local_time)
            .map(seen)
            .collect();
        if let Some(leap) = &judged.leap {
            evidence.push((
                leap.before_ns,
                format!(
                    "{} went on for {} while this machine's clocks stood still",
                    called(&leap.source),
                    span(leap.missed_ns.unsigned_abs())
                ),
            ));
        }
        evidence.extend(
            self.slept
                .map(|(at_ns, slept_ns)| (at_ns, format!("the machine had slept for {}", span(slept_ns)))),
        );
        evidence.extend(
            self.stepped.map(|(at_ns, delta_ns, _)| (at_ns, format!("the clock was set {}", by(delta_ns)))),
        );
        Some(Report {
            kind: Kind::ClockSkewed,
            subject: "CLOCK_REALTIME".to_owned(),
            severity: open.severity,
            began_ns: open.began_ns,
            count: 1,
            process: None,
            summary,
            why: if right || lost {
                vec![]
            } else {
                self.why(open, drift, &contradicting, &local_time, view)
            },
            cause: Some(Cause { process: tick::author(judged, view), ..clocks::cause(judged.confidence) }),
            caused_by: vec![],
            remedies: if right || lost { vec![] } else { self.remedies(judged, &contradicting, view) },
            evidence,
            details: Details::ClockSkewed(ClockSkewedDetails {
                reference,
                agreeing,
                contradicting,
                local_time,
                since,
                drift_ppm: drift,
                paused_ms: judged.leap.as_ref().map(|leap| leap.missed_ns.unsigned_abs() / 1_000_000),
                time_zone: world.known.time_zone().map(str::to_owned),
                alerts: open.alerts.counts.clone(),
            }),
        })
    }

    /// Since when, by the right clock.
    fn since(&self, open: &Open, drift: Option<f64>, view: &View<'_>) -> Option<String> {
        let (world, judged) = (view.world, &open.emitted);
        if let Some(leap) = &judged.leap {
            // Until then the wall clock was right.
            return Some(world.wall_text(leap.after_ns));
        }
        let near = |delta_ns: i64| delta_ns.abs_diff(judged.ahead_ns) < WARNING_NS;
        let right_ns = world.offset_ns().saturating_sub(judged.ahead_ns);
        if let Some((at_ns, ..)) = self.stepped.filter(|(_, delta_ns, _)| near(*delta_ns)) {
            return Some(reading(at_ns, right_ns));
        }
        let ago_ns = judged.ahead_ns as f64 / (drift? / 1e6);
        if ago_ns <= 0.0 || ago_ns > 1e18 {
            return None;
        }
        let then = i64::try_from(view.now_ns).ok()?.saturating_sub(ago_ns as i64);
        // It may have been before this machine booted.
        let (boot_ns, right_ns) = (then.max(0).unsigned_abs(), right_ns.saturating_add(then.min(0)));
        Some(reading(boot_ns, right_ns))
    }

    /// Who doubts compares first; and what a time daemon set it would only set again.
    fn remedies(&self, judged: &Verdict, contradicting: &[ClockReference], view: &View<'_>) -> Vec<Remedy> {
        let near = |delta_ns: i64| delta_ns.abs_diff(judged.ahead_ns) < WARNING_NS;
        if let Some((_, _, Some(daemon))) = self.stepped.filter(|(_, delta_ns, _)| near(*delta_ns)) {
            return clocks::remedies_against(daemon);
        }
        let doubts = judged.confidence == Confidence::Possible || judged.ground == Ground::HttpAlone;
        let compare = doubts.then(|| clocks::compare("compare with a server you trust first: "));
        let local = local_rtc(judged, contradicting).map(|_| {
            Remedy::from("and have the hardware clock hold UTC: ")
                .and(Command::new("timedatectl").words("set-local-rtc 0"))
                .and(", or ")
                .and(Command::new("hwclock").words("--systohc --utc"))
        });
        let tick = tick::remedy(judged, view);
        compare.into_iter().chain(tick).chain(clocks::remedies()).chain(local).collect()
    }

    fn right_again(&self, open: &Open, view: &View<'_>) -> String {
        let judged = &open.emitted;
        let step = self
            .stepped
            .filter(|(at_ns, ..)| view.now_ns.saturating_sub(*at_ns) < JUST_NOW_NS)
            .map(|(_, delta_ns, _)| format!(": it was set {}", by(delta_ns)));
        if judged.ground == Ground::Built {
            return format!(
                "The wall clock does not show a time before {} any more{}.",
                called(&judged.source),
                step.unwrap_or_default()
            );
        }
        format!(
            "The wall clock is right again by {} ({}){}.",
            called(&judged.source),
            off(judged.ahead_ns),
            step.unwrap_or_default()
        )
    }

    fn why(
        &self,
        open: &Open,
        drift: Option<f64>,
        contradicting: &[ClockReference],
        local_time: &[ClockReference],
        view: &View<'_>,
    ) -> Vec<String> {
        let judged = &open.emitted;
        let mut why = vec![breaks(judged.ahead_ns).join(" ")];
        let mut also = Vec::new();
        match (&judged.leap, drift) {
            (Some(_), _) => {}
            (None, Some(ppm)) => {
                let way = if ppm > 0.0 { "gains" } else { "loses" };
                let a_day = span((ppm.abs() * 86_400.0 * 1000.0) as u64);
                let since = self.since(open, drift, view);
                let since =
                    since.map(|at| format!(", and at that rate was right at {at}")).unwrap_or_default();
                also.push(format!("It {way} {a_day} a day ({ppm:+.1} ppm){since}."));
            }
            (None, None) if self.stepped.is_none() => {
                also.push("It was so when culprit first looked, and no call has set it since.".to_owned());
            }
            _ => {}
        }
        also.extend(tick::sentence(judged, view));
        if !contradicting.is_empty() {
            let names: Vec<String> =
                contradicting.iter().map(|clock| called(&(clock.kind, clock.name.clone()))).collect();
            also.push(format!("{} cannot be right, or is out of date.", capital(&names.join(", "))));
        }
        if judged.ground == Ground::HttpAlone && judged.confidence != Confidence::Possible {
            also.push(
                "Only HTTP servers say so, and a server may put any date into a response: name an NTP server with --ntp."
                    .to_owned(),
            );
        }
        if judged.confidence == Confidence::Possible {
            let who = match judged.source.0 {
                ReferenceKind::Http => "the server".to_owned(),
                _ => called(&judged.source),
            };
            also.push(format!(
                "Nothing else says so: {who} may be the one that is wrong. Name an NTP server with --ntp."
            ));
        }
        also.extend(tai(judged));
        also.extend(local_rtc(judged, contradicting).map(|rtc| {
            format!(
                "It is off by whole hours, as a time zone is, and {} shows the same: that holds local time and is read as UTC.",
                called(&(rtc.kind, rtc.name.clone()))
            )
        }));
        if !also.is_empty() {
            why.push(also.join(" "));
        }
        let mut zone = Vec::new();
        for clock in local_time {
            zone.push(format!(
                "{} is {} of UTC as local time is: harmless.",
                capital(&called(&(clock.kind, clock.name.clone()))),
                off(clock.ahead_ns.saturating_neg())
            ));
        }
        let name = view.world.known.time_zone().map(|name| format!(" ({name})")).unwrap_or_default();
        zone.push(format!("The time zone{name} has no part in it: clocks are compared in UTC."));
        why.push(zone.join(" "));
        why.extend(open.alerts.sentence());
        why.retain(|sentence| !sentence.is_empty());
        why
    }
}

/// TAI − UTC since 2017; a program that knows no leap seconds is off by it.
const TAI_NS: u64 = 37 * SECOND_NS;

/// The clock shows TAI, or UTC was taken for TAI.
fn tai(judged: &Verdict) -> Option<String> {
    let off_ns = judged.ahead_ns.unsigned_abs();
    (judged.error_ns < SECOND_NS && off_ns.abs_diff(TAI_NS) <= SECOND_NS / 2 + judged.error_ns).then(|| {
        "37 s is the difference between TAI and UTC: a clock that keeps TAI (PTP, GPS) was taken for one that keeps UTC, or corrected twice."
            .to_owned()
    })
}

/// The hardware clock agrees with a wall clock that is off by whole hours.
fn local_rtc<'a>(judged: &Verdict, contradicting: &'a [ClockReference]) -> Option<&'a ClockReference> {
    let zone = is_time_zone(judged.ahead_ns.unsigned_abs(), judged.error_ns);
    let agrees = |clock: &&ClockReference| {
        clock.kind == ReferenceKind::Rtc && clock.ahead_ns.unsigned_abs() <= clock.error_ns + 2 * SECOND_NS
    };
    contradicting.iter().find(agrees).filter(|_| zone)
}

fn skewed(open: &Open) -> String {
    let judged = &open.emitted;
    if judged.ground == Ground::Built {
        return format!(
            "The wall clock is at least {}: it shows a time before {}.",
            off(judged.ahead_ns),
            called(&judged.source)
        );
    }
    let others = match judged.others.len() {
        0 => String::new(),
        1 => ", and another clock agrees".to_owned(),
        more => format!(", and {more} other clocks agree"),
    };
    let by_what =
        format!("by {} (± {}{others})", called(&judged.source), span(judged.error_ns.max(LEAST_NS)));
    match &judged.leap {
        Some(leap) => format!(
            "The wall clock is {} {by_what}: this machine stood still for {}, as when a VM is paused or restored from a snapshot, and no call set its clock.",
            off(judged.ahead_ns),
            span(leap.missed_ns.unsigned_abs())
        ),
        None => format!("The wall clock is {} {by_what}.", off(judged.ahead_ns)),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
