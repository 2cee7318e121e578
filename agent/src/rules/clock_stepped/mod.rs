//! `clock_stepped`: the wall clock was set, or jumped. Steps that follow each other are one incident with
//! as many legs, until they have undone each other, a reference clock finds the clock right, or nothing more
//! has happened for an hour; who got credentials meanwhile stays named as long as it lives.

mod exposed;
mod leg;
mod say;
#[cfg(test)]
mod tests;

use ebpf_probes::probes::clock::ClockSuspended;
use exposed::Exposures;

use super::{Diagnose, Rule, clocks};
use crate::{
    correlate::{
        Look, View,
        incident::{ClockVerdict, Kind},
    },
    enrich::{clock::Step, context::Exposed},
    event::{Event, TlsStep, What},
    fact::ReferenceKind,
    rules::clocks::{
        Alerts, SECOND, Sessions, WARNING_NS,
        verdict::{Verdict, judge_by},
    },
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::ClockStepped,
    about: "the wall clock was set or jumped: by how much, by whom, for how long, and who may still hold credentials dated wrongly",
    opens: "CLOCK_REALTIME moved by 500 ms or more",
    make: || Box::new(ClockStepped::default()),
};

/// Smaller steps are a time daemon's daily work.
const STEP_NS: u64 = 500_000_000;
/// Legs kept whole; the last ones beyond that replace each other.
const LEGS: usize = 16;
/// A clock that is set right within this long of boot is being set for the first time.
const BOOT_NS: u64 = 600 * SECOND;
/// Nothing can tell how the clock stands, and for this long nobody has set it again.
const GIVEN_UP_NS: u64 = 3600 * SECOND;
/// That somebody exposed is gone is said at most this often, until the last one is.
const SAY_NS: u64 = 30 * SECOND;

#[derive(Default)]
struct ClockStepped {
    series: Option<Series>,
    slept: Option<ClockSuspended>,
    exposures: Exposures,
}

/// Steps that belong together.
struct Series {
    id: String,
    legs: Vec<Leg>,
    left_out: u64,
    /// REALTIME − BOOTTIME before the first of them, nanoseconds.
    base_ns: i64,
    verdict: ClockVerdict,
    /// What reference clocks say, when they can judge a step of this size.
    judged: Option<Verdict>,
    /// When it was last known to be wrong.
    wrong_ns: u64,
    /// When it was right again.
    right_ns: Option<u64>,
    alerts: Alerts,
    /// It was told to be over.
    over: bool,
    sessions: Sessions,
    /// When it was said last who is exposed, and whether that has changed.
    said_ns: u64,
    unsaid: bool,
}

#[derive(Debug, Clone)]
struct Leg {
    step: Step,
    /// Whether calls could be seen.
    seen: bool,
}

impl Diagnose for ClockStepped {
    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        if let Some(step) = view.world.step() {
            if step.delta_ns().unsigned_abs() >= STEP_NS {
                self.stepped(step.clone(), view);
            }
            return;
        }
        match &event.what {
            What::ClockSuspended(record) => self.slept = Some(*record),
            What::Tls(step, handshake) => {
                if let Some(series) = self.series.as_mut().filter(|series| !series.is_right() && !series.over)
                {
                    series.alerts.note(*step, handshake);
                    if *step == TlsStep::Phase {
                        self.exposures.session(handshake, event.boot_ns, view.world);
                    }
                }
            }
            What::Tick => self.passes(view),
            _ => {}
        }
    }

    fn exposed(&mut self, answer: &Exposed, view: &mut View<'_>) {
        let Some(series) = &mut self.series else { return };
        // Who sets the clock is not exposed by it.
        let authors: Vec<u32> =
            series.legs.iter().filter_map(|leg| Some(leg.step.by.as_ref()?.owner.process)).collect();
        let changed = self.exposures.answered(answer, &authors);
        if !series.is_right() || series.over {
            return;
        }
        series.unsaid |= changed;
        if self.exposures.is_empty() {
            series.ends(&self.exposures, view);
        } else if series.unsaid
            && (series.said_ns == 0 || view.now_ns.saturating_sub(series.said_ns) >= SAY_NS)
        {
            (series.unsaid, series.said_ns) = (false, view.now_ns);
            series.says(&self.exposures, view);
        }
    }
}

impl ClockStepped {
    fn stepped(&mut self, step: Step, view: &mut View<'_>) {
        // The suspend it was found with is told as part of it.
        self.slept.take_if(|slept| slept.looked_ns == step.looked_ns);
        let leg = Leg { step, seen: view.world.sees_setters() };
        match self.series.as_mut().filter(|series| !series.is_right() && !series.over) {
            Some(series) => series.goes_on(leg),
            None => {
                self.exposures.anew();
                self.series = Some(Series::begins(leg));
            }
        }
        let Some(series) = &mut self.series else { return };
        series.stands(view);
        if series.is_right() {
            // Who lives is asked for before anybody is named.
            self.exposures.is_right(series.windows(view.world.offset_ns()));
        }
        let report = series.report(&self.exposures, view);
        series.id = view.store.open(view.now_ns, view.world, report);
        view.looks.push(Look::References);
        series.settles(&mut self.exposures, view);
    }

    fn passes(&mut self, view: &mut View<'_>) {
        if let Some(slept) = self.slept.take()
            && slept.slept_ns.unsigned_abs() >= STEP_NS
        {
            // The clock went on by as much as the machine slept: nothing is wrong with it.
            let report = say::slept(&slept, view);
            let id = view.store.open(view.now_ns, view.world, report.clone());
            view.store.over(view.now_ns, &id, report);
        }
        let Some(series) = &mut self.series else { return };
        if !series.is_right() && !series.over {
            let was = (series.verdict, series.judged.as_ref().map(|judged| judged.source.clone()));
            series.stands(view);
            if series.is_right() {
                self.exposures.is_right(series.windows(view.world.offset_ns()));
            }
            if was != (series.verdict, series.judged.as_ref().map(|judged| judged.source.clone())) {
                series.says(&self.exposures, view);
            }
            series.settles(&mut self.exposures, view);
            series.sessions.go_on(view);
        }
        if series.is_right() && !series.over {
            self.exposures.asks(view);
        }
    }
}

impl Series {
    fn begins(leg: Leg) -> Self {
        Self {
            id: String::new(),
            base_ns: leg.step.before_ns,
            legs: vec![leg],
            left_out: 0,
            verdict: ClockVerdict::Unknown,
            judged: None,
            wrong_ns: 0,
            right_ns: None,
            alerts: Alerts::default(),
            over: false,
            sessions: Sessions::default(),
            said_ns: 0,
            unsaid: false,
        }
    }

    fn goes_on(&mut self, leg: Leg) {
        if self.legs.len() >= LEGS {
            self.left_out = self.left_out.saturating_add(1);
            self.legs.pop();
        }
        self.legs.push(leg);
    }

    fn is_right(&self) -> bool {
        matches!(self.verdict, ClockVerdict::Undone | ClockVerdict::Confirmed | ClockVerdict::Vouched)
    }

    fn last(&self) -> &Step {
        &self.legs[self.legs.len() - 1].step
    }

    /// How far the clock was from where it had been, at most, nanoseconds.
    fn largest_ns(&self) -> u64 {
        self.legs.iter().map(|leg| leg.step.after_ns.abs_diff(self.base_ns)).max().unwrap_or(0)
    }

    /// Judges how the clock stands.
    fn stands(&mut self, view: &View<'_>) {
        let last = self.last().clone();
        let offset_ns = view.world.offset_ns();
        let largest = self.largest_ns();
        // A tenth, at most half a minute: `date -s` is good to the second, and minutes pass between two.
        let near = (largest / 10).min(WARNING_NS);
        let size = last.delta_ns().unsigned_abs();
        // That the kernel is synchronised is a time daemon's word, which cannot speak for its own step.
        let by_daemon = self.by_time_daemon();
        let counts = |kind| !by_daemon || kind != ReferenceKind::Kernel;
        self.judged = judge_by(view.world, view.now_ns, counts).filter(|judged| judged.error_ns < size / 2);
        self.verdict = if self.legs.len() > 1 && offset_ns.abs_diff(self.base_ns) <= near {
            ClockVerdict::Undone
        } else if let Some(judged) = &self.judged {
            let right =
                judged.ahead_ns.unsigned_abs() <= judged.error_ns.saturating_mul(2).max(SECOND).min(size / 2);
            if right { ClockVerdict::Confirmed } else { ClockVerdict::Wrong }
        } else if by_daemon && (last.at_ns < BOOT_NS || size < WARNING_NS) {
            ClockVerdict::Vouched
        } else {
            ClockVerdict::Unknown
        };
        if self.verdict == ClockVerdict::Wrong {
            self.wrong_ns = view.now_ns;
        }
        if self.is_right() {
            // By the last step, unless it was slewed right since.
            self.right_ns.get_or_insert(last.at_ns.max(self.wrong_ns));
        }
    }

    fn by_time_daemon(&self) -> bool {
        let author = self.last().by.as_ref();
        author.is_some_and(|author| clocks::is_time_daemon(&crate::event::comm(&author.owner.comm)))
    }

    /// What follows from how it stands: over at once, or when nobody is exposed any more.
    fn settles(&mut self, exposures: &mut Exposures, view: &mut View<'_>) {
        if self.is_right() {
            if exposures.is_empty() {
                self.ends(exposures, view);
            } else {
                exposures.asks(view);
            }
        } else if self.verdict == ClockVerdict::Unknown
            && view.now_ns.saturating_sub(self.last().at_ns) >= GIVEN_UP_NS
        {
            self.ends(exposures, view);
        }
    }

    /// When the clock was wrong by enough to matter, and how it stood: REALTIME − BOOTTIME.
    fn windows(&self, right_ns: i64) -> Vec<(u64, u64, i64)> {
        let ends = self.legs[1..].iter().map(|leg| leg.step.at_ns).chain([self.right_ns.unwrap_or(0)]);
        self.legs
            .iter()
            .zip(ends)
            .map(|(leg, end)| (leg.step.looked_ns, end, leg.step.after_ns))
            .filter(|(from, end, offset)| {
                // Slewed right, it has the same offset still.
                let off = offset.abs_diff(right_ns).max(offset.abs_diff(self.base_ns));
                end > from && off >= WARNING_NS
            })
            .collect()
    }

    fn says(&self, exposures: &Exposures, view: &mut View<'_>) {
        let report = self.report(exposures, view);
        view.store.update(view.now_ns, view.world, &self.id, report);
    }

    fn ends(&mut self, exposures: &Exposures, view: &mut View<'_>) {
        self.over = true;
        let report = self.report(exposures, view);
        let ended_ns = self.right_ns.filter(|_| !exposures.were()).unwrap_or(view.now_ns);
        view.store.over(ended_ns, &self.id, report);
    }
}
