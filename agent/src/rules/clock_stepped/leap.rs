//! A leap second: at the end of a day in UTC the kernel takes the wall clock back by a second, because a process had
//! armed that (STA_INS). Reported for the record; one at the end of a month in which none ever was is a false one.

use jiff::Timestamp;

use super::say::SUBJECT;
use crate::{
    domains::clock::{LeapSecond, Step, reading, timestamp},
    fact::LeapKind,
    pipeline::{
        View,
        incident::{
            Cause, ClockStep, ClockSteppedDetails, ClockVerdict, Confidence, Details, Kind, Parent, Severity,
            StepCause,
        },
        report::Report,
    },
    records::comm,
    rules::clocks::{self, daemons::daemon},
    text::shown,
};

/// Reports of a leap second: it is over as it happens.
pub(super) fn emit(step: &Step, second: &LeapSecond, view: &mut View<'_>) {
    let report = report(step, second, view);
    let id = view.store.open(view.now_ns, view.world, report.clone());
    view.store.over(view.now_ns, &id, report);
}

fn report(step: &Step, second: &LeapSecond, view: &View<'_>) -> Report {
    let world = view.world;
    let end = day_that_ended(step);
    // Since 1972 at these two, and the others were never used.
    let is_false = end.as_ref().is_some_and(|end| !matches!(end.as_str().get(5..), Some("06-30" | "12-31")));
    let author = second.by.as_ref();
    let name = author.map(|author| format!("{}[{}]", shown(&comm(&author.owner.comm)), author.owner.process));
    let process = author.and_then(|author| {
        let mut process = world.known.named(&author.owner)?;
        if process.exe.is_none() {
            process.exe.clone_from(&author.exe);
        }
        Some(process)
    });
    let (done, way, bit) = match second.kind {
        LeapKind::Insert => ("inserted a leap second", "back", "STA_INS"),
        LeapKind::Delete => ("left a leap second out", "forward", "STA_DEL"),
    };
    let at = end.as_ref().map_or_else(String::new, |end| format!(" at the end of {end} (UTC)"));
    let who = match &name {
        Some(name) => format!("{name} had armed it"),
        None => "it had been armed before culprit looked".to_owned(),
    };
    let mut summary =
        format!("The kernel {done}{at}: it took the wall clock {way} by 1 s, as a leap second is; {who}.");
    let mut why = vec![match author.zip(name) {
        Some((author, name)) => format!(
            "{name} set {bit} by {}: the time servers that it follows announced the leap second.",
            author.call.name()
        ),
        None => format!("{bit} was set before culprit began to watch."),
    }];
    if let Some((before, after)) = second.tai {
        why.push(format!("The kernel's TAI offset went from {before} s to {after} s with it."));
    }
    let mut remedies = vec![];
    if is_false {
        let side = if second.kind == LeapKind::Insert { "behind" } else { "ahead" };
        summary
            .push_str(&format!(" There is none on that day: if the clock was right, it is 1 s {side} now."));
        why.push(
            "Leap seconds have only ever been inserted at the end of June and of December: the servers that announced this one are wrong."
                .to_owned(),
        );
        let asks = author.and_then(|author| daemon(&comm(&author.owner.comm)));
        remedies.extend(
            asks.map(clocks::remedies_against)
                .unwrap_or_else(|| vec![clocks::compare("compare with a server you trust: ")]),
        );
    }
    let shown = ClockStep {
        before: reading(step.at_ns, step.before_ns),
        after: reading(step.at_ns, step.after_ns),
        delta_ns: step.delta_ns(),
        how: StepCause::LeapSecond,
        call: author.map(|author| author.call),
        process: process.clone(),
        parent: author
            .filter(|author| author.parent != 0)
            .map(|author| Parent { pid: author.parent, comm: author.parent_comm.clone() }),
        within_ms: step.at_ns.saturating_sub(step.looked_ns) / 1_000_000,
        suspended_ms: None,
    };
    let mut evidence = vec![(step.at_ns, format!("the wall clock went {way} by 1 s at midnight UTC"))];
    evidence.extend(second.armed_ns.map(|at_ns| (at_ns, format!("{who} ({bit})"))));
    let verdict = if is_false { ClockVerdict::Unknown } else { ClockVerdict::SetByTimeDaemon };
    Report {
        kind: Kind::ClockStepped,
        subject: format!("{SUBJECT}|leap second"),
        severity: if is_false { Severity::Warning } else { Severity::Info },
        began_ns: step.looked_ns,
        count: 1,
        process: process.clone(),
        summary,
        why,
        cause: Some(Cause { process, ..clocks::cause(Confidence::Certain) }),
        caused_by: vec![],
        remedies,
        evidence,
        details: Details::ClockStepped(ClockSteppedDetails {
            before: shown.before.clone(),
            after: shown.after.clone(),
            delta_ns: shown.delta_ns,
            steps: vec![shown],
            steps_left_out: 0,
            verdict,
            wrong_ms: None,
            reference: None,
            exposed: vec![],
            exposed_left_out: 0,
            alerts: std::collections::BTreeMap::new(),
        }),
    }
}

/// `2016-12-31`: the day at whose end it was, by the clock before it.
fn day_that_ended(step: &Step) -> Option<String> {
    let at: Timestamp = timestamp(step.at_ns, step.before_ns)?;
    // Half a day earlier it was that day for sure.
    let before = at.as_second().checked_sub(43_200)?;
    Some(Timestamp::from_second(before).ok()?.strftime("%Y-%m-%d").to_string())
}
