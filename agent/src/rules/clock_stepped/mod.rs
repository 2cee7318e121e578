//! `clock_stepped`: the wall clock was set, or jumped. Steps that follow each other are one incident with
//! as many steps, until they have undone each other, a reference clock finds the clock right, or nothing more
//! has happened for an hour; who got credentials meanwhile stays named as long as it lives.

mod creep;
mod entry;
mod exposed;
mod fight;
mod hardware;
mod leap;
mod say;
#[cfg(test)]
mod tests;

use creep::Creep;
use ebpf_probes::probes::clock::ClockSuspended;
use exposed::Exposures;
use hardware::Hardware;

use crate::{
    domains::{
        Event, Record,
        clock::{self, Step},
        tls::{self, TlsStep},
    },
    known::context::Exposed,
    pipeline::{
        Diagnose, Request, Rule, View,
        incident::{ClockVerdict, Kind},
    },
    records::comm,
    rules::clocks::{
        Alerts, Sessions, WARNING_NS,
        daemons::{Daemon, daemon},
        verdict::{After, Ground, Verdict, judge_after},
    },
    time::SECOND_NS,
};

pub(super) const RULE: Rule = Rule {
    kind: Kind::ClockStepped,
    about: "the wall clock was set or jumped: by how much, by whom, for how long, and who may still hold credentials dated wrongly",
    opens: "CLOCK_REALTIME moved by 500 ms or more (--clock-step), at once or by small steps of one program within ten minutes",
    make: || Box::new(ClockStepped::default()),
};

/// Legs kept whole; the last ones beyond that replace each other.
const STEPS: usize = 16;
/// A clock that is set right within this long of boot is being set for the first time.
const BOOT_NS: u64 = 600 * SECOND_NS;
/// Nothing can say how the clock stands, and for this long it has not been set again.
const GIVEN_UP_NS: u64 = 3600 * SECOND_NS;
/// That an exposed process is gone is said at most this often, until the last one is.
const SAY_NS: u64 = 30 * SECOND_NS;

#[derive(Default)]
struct ClockStepped {
    series: Option<Series>,
    slept: Option<ClockSuspended>,
    exposures: Exposures,
    creep: Creep,
}

/// Steps that belong together.
struct Series {
    id: String,
    entries: Vec<SeriesStep>,
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
    /// It was resolved.
    over: bool,
    sessions: Sessions,
    /// When it was said last who is exposed, and whether that has changed.
    said_ns: u64,
    unsaid: bool,
    /// When a step was reported last, and whether there was one since.
    step_emitted_ns: u64,
    step_pending: bool,
    /// It was reported that two set the clock against each other.
    fight_emitted: bool,
    /// Something had vouched for the clock before the first step.
    vouched: bool,
    /// What the hardware clock has to do with it.
    hardware: Hardware,
}

#[derive(Debug, Clone)]
struct SeriesStep {
    step: Step,
    /// How many calls made it: of small ones it is all together.
    calls: u64,
    /// Whether calls could be seen.
    seen: bool,
}

impl Diagnose for ClockStepped {
    fn event(&mut self, event: &Event, view: &mut View<'_>) {
        if let Some(step) = view.world.step() {
            if let Some(second) = &step.leap_second {
                leap::emit(step, second, view);
            } else if step.delta_ns().unsigned_abs() >= view.world.known.clock().step_ns() {
                self.creep.ends();
                self.stepped(step.clone(), 1, view);
            } else if let Some((whole, calls)) = self.creep.add(step, view.world.known.clock().step_ns()) {
                self.stepped(whole, calls, view);
            }
            return;
        }
        match &event.what {
            Record::Clock(clock::Record::Suspended(record)) => self.slept = Some(*record),
            Record::Tls(tls::Record::Handshake(step, handshake)) => {
                if let Some(series) = self.series.as_mut().filter(|series| !series.is_right() && !series.over)
                {
                    series.alerts.note(*step, handshake);
                    if *step == TlsStep::Phase {
                        self.exposures.session(handshake, event.boot_ns, view.world);
                    }
                }
            }
            Record::Tick => self.passes(view),
            _ => {}
        }
    }

    fn exposed(&mut self, answer: &Exposed, view: &mut View<'_>) {
        let Some(series) = &mut self.series else { return };
        // Who sets the clock is not exposed by it.
        let authors: Vec<u32> =
            series.entries.iter().filter_map(|entry| Some(entry.step.by.as_ref()?.owner.process)).collect();
        let changed = self.exposures.answered(answer, &authors);
        if !series.is_right() || series.over {
            return;
        }
        series.unsaid |= changed;
        if self.exposures.is_empty() {
            series.settles(&mut self.exposures, view);
        } else if series.unsaid
            && (series.said_ns == 0 || view.now_ns.saturating_sub(series.said_ns) >= SAY_NS)
        {
            (series.unsaid, series.said_ns) = (false, view.now_ns);
            series.says(&self.exposures, view);
        }
    }
}

impl ClockStepped {
    /// A step, made by so many calls.
    fn stepped(&mut self, step: Step, calls: u64, view: &mut View<'_>) {
        // The suspend it was found with is reported as part of it.
        self.slept.take_if(|slept| slept.looked_ns == step.looked_ns);
        let entry = SeriesStep { step, calls, seen: view.world.sees_setters() };
        match self.series.as_mut().filter(|series| series.may_go_on(view.now_ns)) {
            Some(series) => series.goes_on(entry),
            None => {
                self.exposures.restart();
                self.series = Some(Series::begins(entry, view));
            }
        }
        let Some(series) = &mut self.series else { return };
        series.stands(view);
        if series.is_right() {
            // Who lives is asked for before any process is named.
            self.exposures.is_right(series.windows(view.world.offset_ns()));
        }
        // Of two that set the clock in turns there is no end of news.
        series.step_pending = true;
        if series.emits_again(view.now_ns) {
            series.has_emitted(view.now_ns);
            let report = series.report(&self.exposures, view);
            series.id = view.store.open(view.now_ns, view.world, report);
        }
        view.requests.push(Request::References);
        series.settles(&mut self.exposures, view);
    }

    fn passes(&mut self, view: &mut View<'_>) {
        if let Some(slept) = self.slept.take()
            && slept.slept_ns.unsigned_abs() >= view.world.known.clock().step_ns()
        {
            // The clock went on by as much as the machine slept: nothing is wrong with it.
            let report = say::slept(&slept, view);
            let id = view.store.open(view.now_ns, view.world, report.clone());
            view.store.over(view.now_ns, &id, report);
        }
        let Some(series) = &mut self.series else { return };
        if series.over {
            return;
        }
        if series.step_pending && series.emits_again(view.now_ns) {
            series.has_emitted(view.now_ns);
            series.says(&self.exposures, view);
        }
        if !series.is_right() {
            let was = series.standing();
            series.stands(view);
            if series.is_right() {
                self.exposures.is_right(series.windows(view.world.offset_ns()));
            }
            if was != series.standing() {
                series.says(&self.exposures, view);
            }
            series.sessions.go_on(view);
        }
        series.settles(&mut self.exposures, view);
    }
}

impl Series {
    fn begins(entry: SeriesStep, view: &View<'_>) -> Self {
        let vouched = hardware::vouched(&entry.step, view);
        Self {
            vouched,
            hardware: Hardware::Silent,
            step_emitted_ns: 0,
            step_pending: false,
            fight_emitted: false,
            id: String::new(),
            base_ns: entry.step.before_ns,
            entries: vec![entry],
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

    fn goes_on(&mut self, entry: SeriesStep) {
        self.right_ns = None;
        self.over = false;
        // Small ones are one that grows.
        if let Some(last) = self.entries.last_mut()
            && entry.calls > 1
            && last.step.looked_ns == entry.step.looked_ns
        {
            *last = entry;
            return;
        }
        if self.entries.len() >= STEPS {
            self.left_out = self.left_out.saturating_add(1);
            self.entries.pop();
        }
        self.entries.push(entry);
    }

    fn is_right(&self) -> bool {
        matches!(
            self.verdict,
            ClockVerdict::Reverted | ClockVerdict::Confirmed | ClockVerdict::SetByTimeDaemon
        )
    }

    fn last(&self) -> &Step {
        &self.entries[self.entries.len() - 1].step
    }

    /// How far the clock was from where it had been, at most, nanoseconds.
    fn largest_ns(&self) -> u64 {
        self.entries.iter().map(|entry| entry.step.after_ns.abs_diff(self.base_ns)).max().unwrap_or(0)
    }

    /// Judges how the clock stands.
    fn stands(&mut self, view: &View<'_>) {
        let last = self.last().clone();
        let offset_ns = view.world.offset_ns();
        let largest = self.largest_ns();
        // A tenth, at most half a minute: `date -s` is good to the second, and minutes pass between two.
        let near = (largest / 10).min(WARNING_NS);
        let size = last.delta_ns().unsigned_abs();
        let by_daemon = self.daemon().is_some();
        let after = After { began_ns: self.entries[0].step.looked_ns, by_daemon };
        let before = self.judged.take();
        self.judged = judge_after(view.world, view.now_ns, after).filter(|judged| judged.error_ns < size / 2);
        if let (Some(judged), Some(before)) = (&mut self.judged, &before) {
            judged.still_by(&before.source);
        }
        self.hardware = Hardware::of(self, view);
        let right = |judged: &Verdict| {
            judged.ahead_ns.unsigned_abs() <= judged.error_ns.saturating_mul(2).max(SECOND_NS).min(size / 2)
        };
        // A hardware clock alone neither convicts nor acquits.
        let judged = self.judged.as_ref().filter(|judged| judged.ground != Ground::HardwareAlone);
        self.verdict = if self.entries.len() > 1 && offset_ns.abs_diff(self.base_ns) <= near {
            ClockVerdict::Reverted
        } else if let Some(judged) = judged {
            if judged.ground != Ground::Built && right(judged) {
                ClockVerdict::Confirmed
            } else {
                ClockVerdict::Wrong
            }
        } else if by_daemon && (size < WARNING_NS || (last.at_ns < BOOT_NS && !self.hardware.contradicts())) {
            ClockVerdict::SetByTimeDaemon
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

    /// What decides whether there is news.
    fn standing(&self) -> (ClockVerdict, Option<Ground>, Hardware) {
        (self.verdict, self.judged.as_ref().map(|judged| judged.ground), self.hardware.clone())
    }

    /// The time daemon that set the clock last, if one did.
    fn daemon(&self) -> Option<Daemon> {
        daemon(&comm(&self.last().by.as_ref()?.owner.comm))
    }

    /// What follows from how it stands: over at once, or when no process is exposed any more.
    fn settles(&mut self, exposures: &mut Exposures, view: &mut View<'_>) {
        if self.is_right() {
            if !exposures.is_empty() {
                exposures.asks(view);
            } else if view.now_ns.saturating_sub(self.last().at_ns) >= self.patience_ns() {
                self.ends(exposures, view);
            }
        } else if self.verdict == ClockVerdict::Unknown
            && view.now_ns.saturating_sub(self.last().at_ns) >= GIVEN_UP_NS
        {
            self.ends(exposures, view);
        }
    }

    /// When the clock was wrong by enough to matter, and how it stood: REALTIME − BOOTTIME.
    fn windows(&self, right_ns: i64) -> Vec<(u64, u64, i64)> {
        let ends = self.entries[1..].iter().map(|entry| entry.step.at_ns).chain([self.right_ns.unwrap_or(0)]);
        self.entries
            .iter()
            .zip(ends)
            .map(|(entry, end)| (entry.step.looked_ns, end, entry.step.after_ns))
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
