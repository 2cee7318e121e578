//! `clock_skewed`: the wall clock is wrong by what reference clocks say, and no process was seen to set it so. It
//! was wrong from the beginning, drifted, or stood still with the machine while the world went on.

mod say;
#[cfg(test)]
mod tests;
mod tick;

use crate::{
    domains::{Event, Record, clock, tls},
    fact::ReferenceKind,
    pipeline::world::World,
    pipeline::{
        Diagnose, Request, Rule, View,
        incident::{ClockVerdict, Confidence, Details, Kind, Severity},
    },
    records::comm,
    rules::clocks::{
        Alerts, Sessions, WARNING_NS,
        daemons::{Daemon, daemon},
        severity,
        verdict::{Ground, Verdict, judge},
    },
    time::SECOND_NS,
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::ClockSkewed,
    about: "the wall clock is wrong by what reference clocks say: by how much, by which clock, since when, how fast it drifts, what breaks",
    opens: "off by 30 s (warning, --clock-skew-warning) or 5 min (critical, --clock-skew-critical), by PTP, NTP or the kernel's own account from 0.5 s on (info), with no step in sight that made it so",
    make: || Box::new(ClockSkewed::default()),
};

/// What an exact clock says from here on is worth knowing where machines must agree: CockroachDB stops at 0.5 s, etcd
/// complains at 1 s, tokens are refused from a second on.
const EXACT_NS: u64 = SECOND_NS / 2;
/// How often the references are weighed.
const EVERY_NS: u64 = SECOND_NS / 2;
/// An update that only says another size is reported at most this often.
const UPDATE_NS: u64 = 60 * SECOND_NS;
/// Nothing has been able to say for this long.
const LOST_NS: u64 = 3600 * SECOND_NS;

#[derive(Default)]
struct ClockSkewed {
    weighed_ns: u64,
    open: Option<Open>,
    /// The last step: when, by how much, and the time daemon that made it, if one did.
    stepped: Option<(u64, i64, Option<Daemon>)>,
    /// The last suspend: when it was over, and how long it was.
    slept: Option<(u64, u64)>,
}

struct Open {
    id: String,
    began_ns: u64,
    /// When, and what was reported last.
    emitted_ns: u64,
    emitted: Verdict,
    /// How severe that is; when it is right again, how severe it was last.
    severity: Severity,
    /// When there was a verdict last.
    judged_ns: u64,
    alerts: Alerts,
    sessions: Sessions,
}

impl Diagnose for ClockSkewed {
    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        if let Some(step) = view.world.step() {
            let by = step.by.as_ref().and_then(|author| daemon(&comm(&author.owner.comm)));
            self.stepped = Some((step.at_ns, step.delta_ns(), by));
        }
        match &event.what {
            Record::Clock(clock::Record::Suspended(record)) => {
                self.slept = Some((event.boot_ns, record.slept_ns.unsigned_abs()));
            }
            Record::Tls(tls::Record::Handshake(step, handshake)) => {
                if let Some(open) = &mut self.open {
                    open.alerts.note(*step, handshake);
                }
            }
            Record::Clock(clock::Record::HttpDate(_)) => self.weigh(view),
            Record::Tick if view.now_ns.saturating_sub(self.weighed_ns) >= EVERY_NS => {
                self.weighed_ns = view.now_ns;
                self.weigh(view);
            }
            _ => {}
        }
    }

    fn compared(&mut self, view: &mut View<'_>) {
        self.weigh(view);
    }
}

impl ClockSkewed {
    fn weigh(&mut self, view: &mut View<'_>) {
        // A hardware clock alone neither convicts nor acquits.
        let mut judged =
            judge(view.world, view.now_ns).filter(|judged| judged.ground != Ground::HardwareAlone);
        let Some(open) = &mut self.open else {
            if let Some(judged) = judged
                && judged.at_least_ns() >= matters_ns(&judged, view.world)
                && !is_emitted_as_step(&judged, view)
            {
                self.opens(judged, view);
            }
            return;
        };
        if open.emitted.ground == Ground::Built && judged.is_none() {
            // It shows a time that may be right, and no clock says otherwise.
            judged = Some(open.emitted.no_more());
        }
        let Some(mut judged) = judged else {
            if view.now_ns.saturating_sub(open.judged_ns) >= LOST_NS {
                self.ends(None, view);
            }
            return;
        };
        judged.still_by(&open.emitted.source);
        open.judged_ns = view.now_ns;
        // It is right again below half of what matters.
        if judged.ahead_ns.unsigned_abs() < (matters_ns(&judged, view.world) / 2).max(judged.error_ns) {
            self.ends(Some(judged), view);
            return;
        }
        open.sessions.go_on(view);
        if open.is_news(&judged, view) {
            open.severity = gravity(&judged, view.world);
            (open.emitted_ns, open.emitted) = (view.now_ns, judged);
            let id = open.id.clone();
            if let Some(report) = self.report(false, view) {
                view.store.update(view.now_ns, view.world, &id, report);
            }
        }
    }

    fn opens(&mut self, judged: Verdict, view: &mut View<'_>) {
        let began_ns = judged.leap.as_ref().map_or(view.now_ns, |leap| leap.before_ns.min(view.now_ns));
        view.requests.push(Request::References);
        self.open = Some(Open {
            id: String::new(),
            began_ns,
            emitted_ns: view.now_ns,
            severity: gravity(&judged, view.world),
            emitted: judged,
            judged_ns: view.now_ns,
            alerts: Alerts::default(),
            sessions: Sessions::default(),
        });
        let Some(report) = self.report(false, view) else { return };
        let id = view.store.open(view.now_ns, view.world, report);
        if let Some(open) = &mut self.open {
            open.id = id;
        }
    }

    /// `judged`: by what it is right again; otherwise nothing can say any more.
    fn ends(&mut self, judged: Option<Verdict>, view: &mut View<'_>) {
        let known = judged.is_some();
        if let (Some(open), Some(judged)) = (&mut self.open, judged) {
            open.emitted = judged;
        }
        let report = self.report(known, view);
        if let (Some(open), Some(report)) = (self.open.take(), report) {
            view.store.over(view.now_ns, &open.id, report);
        }
    }
}

impl Open {
    fn is_news(&self, judged: &Verdict, view: &View<'_>) -> bool {
        let (now_ns, world) = (view.now_ns, view.world);
        let change = judged.ahead_ns.abs_diff(self.emitted.ahead_ns);
        judged.confidence > self.emitted.confidence
            || judged.ground != self.emitted.ground
            || gravity(judged, world) != self.severity
            || judged.leap != self.emitted.leap
            || (now_ns.saturating_sub(self.emitted_ns) >= UPDATE_NS
                && change
                    > judged
                        .error_ns
                        .saturating_add(self.emitted.error_ns)
                        .max(judged.ahead_ns.unsigned_abs() / 10))
    }
}

/// How severe it is: a single clock that says so may be the one that is wrong, and HTTP servers may be any host's.
fn gravity(judged: &Verdict, world: &World) -> Severity {
    let severity = severity(judged.at_least_ns(), world);
    match (judged.confidence, judged.ground) {
        (Confidence::Possible, _) | (_, Ground::HttpAlone) => severity.min(Severity::Warning),
        _ => severity,
    }
}

/// From where on it is worth an incident.
fn matters_ns(judged: &Verdict, world: &World) -> u64 {
    let exact = matches!(judged.source.0, ReferenceKind::Ptp | ReferenceKind::Ntp | ReferenceKind::Kernel);
    let warning_ns = world.known.clock().warning_ns();
    if exact && judged.ground == Ground::Firm { warning_ns.min(EXACT_NS) } else { warning_ns }
}

/// A step that is reported already made it wrong.
fn is_emitted_as_step(judged: &Verdict, view: &View<'_>) -> bool {
    view.store.live(Kind::ClockStepped).any(|(_, details)| match details {
        Details::ClockStepped(step) => match step.verdict {
            ClockVerdict::Wrong => true,
            ClockVerdict::Unknown => step.delta_ns.abs_diff(judged.ahead_ns) < WARNING_NS,
            _ => false,
        },
        _ => false,
    })
}

/// How fast the wall clock gains on a reference clock, in parts per million, if the readings show it.
fn drift_ppm(judged: &Verdict, world: &World) -> Option<f64> {
    /// The readings must be this far apart.
    const SPAN_NS: u64 = 60 * SECOND_NS;
    let first = world.readings(&judged.source).next()?;
    let last = world.readings(&judged.source).last()?;
    let span = last.boot_ns.saturating_sub(first.boot_ns);
    let lost = last.utc_ns.saturating_sub(first.utc_ns);
    let unsure = first.error_ns.saturating_add(last.error_ns);
    (span >= SPAN_NS && lost.unsigned_abs() > unsure.saturating_mul(2))
        .then(|| -(lost as f64) / span as f64 * 1e6)
}
