//! What `clock_stepped` says.

use ebpf_probes::probes::clock::ClockSuspended;

use super::{Series, SeriesStep, exposed::Exposures, hardware::Hardware};
use crate::{
    domains::clock::reading,
    fact::Process,
    pipeline::world::World,
    pipeline::{
        View,
        incident::{
            Cause, ClockStep, ClockSteppedDetails, ClockVerdict, Confidence, Details, ExposedProcess, Kind,
            Severity, StepCause,
        },
        remedy::Remedy,
        report::Report,
    },
    rules::{
        clocks::{self, WARNING_NS, breaks, called, dated, severity, verdict::Ground},
        text,
    },
    text::{
        duration::{by, off, span},
        host::words,
        shell::Command,
        shown,
    },
};

/// What all incidents of this kind are about: there is one such clock.
pub(super) const SUBJECT: &str = "CLOCK_REALTIME";
/// Exposed processes named in a sentence.
const NAMED: usize = 5;

impl Series {
    pub(super) fn report(&self, exposures: &Exposures, view: &View<'_>) -> Report {
        let world = view.world;
        let (first, last) = (&self.entries[0], &self.entries[self.entries.len() - 1]);
        let right = self.is_right();
        let (exposed, exposed_left_out) = if right { exposures.shown(world) } else { (vec![], 0) };
        let wrong_ns =
            self.right_ns.filter(|_| self.was_right()).map(|at| at.saturating_sub(first.step.looked_ns));
        let evidence = self
            .entries
            .iter()
            .map(|entry| (entry.step.at_ns, format!("{}, {}", entry.short(), entry.readings())));
        Report {
            kind: Kind::ClockStepped,
            subject: SUBJECT.to_owned(),
            severity: self.severity(!exposed.is_empty(), view),
            // A moment before: by the clock as it was.
            began_ns: first.step.looked_ns.saturating_sub(1),
            count: self.left_out.saturating_add(self.entries.len() as u64),
            process: self.one_author(world),
            summary: self.summary(wrong_ns, &exposed, exposed_left_out, exposures, view),
            why: self.why(&exposed, exposed_left_out, exposures, view),
            cause: Some(Cause {
                elapsed_ms: wrong_ns.map(|ns| ns / 1_000_000),
                // Of a fight either may be the cause.
                process: first.process(world).filter(|_| self.fight().is_none()),
                ..clocks::cause(if first.step.by.is_some() {
                    Confidence::Certain
                } else {
                    Confidence::Possible
                })
            }),
            caused_by: vec![],
            remedies: self.remedies(&exposed),
            evidence: evidence.collect(),
            details: Details::ClockStepped(ClockSteppedDetails {
                before: reading(first.step.at_ns, first.step.before_ns),
                after: reading(last.step.at_ns, last.step.after_ns),
                delta_ns: last.step.after_ns.saturating_sub(self.base_ns),
                steps: self.entries.iter().map(|entry| entry.shown(world)).collect(),
                steps_left_out: self.left_out,
                verdict: self.verdict,
                wrong_ms: wrong_ns.map(|ns| ns / 1_000_000),
                reference: self.judged.as_ref().and_then(|judged| clocks::reference(&judged.source, world)),
                exposed,
                exposed_left_out,
                alerts: self.alerts.counts.clone(),
            }),
        }
    }

    /// The clock was right before the first step: it is back there, or a reference says so.
    fn was_right(&self) -> bool {
        self.is_right() && self.entries.len() > 1 && {
            let near = (self.largest_ns() / 10).min(WARNING_NS);
            self.last().after_ns.abs_diff(self.base_ns) <= near
        }
    }

    /// A step that set a wrong clock right, or is vouched for.
    fn corrects(&self) -> bool {
        self.is_right() && !self.was_right()
    }

    fn severity(&self, exposed: bool, view: &View<'_>) -> Severity {
        // A step is one at any size.
        let by_size = || severity(self.largest_ns(), view.world).max(Severity::Warning);
        let ground = self.judged.as_ref().map(|judged| judged.ground);
        let firm = matches!(ground, Some(Ground::Firm | Ground::Built));
        match self.verdict {
            ClockVerdict::Reverted | ClockVerdict::Confirmed if exposed => Severity::Warning,
            _ if self.corrects() => Severity::Info,
            ClockVerdict::Wrong if firm => by_size(),
            // The clock of a machine that had just been set right would look the same.
            ClockVerdict::Wrong | ClockVerdict::Unknown if self.may_be_a_correction() => Severity::Warning,
            _ => by_size(),
        }
    }

    /// A time daemon set a clock that nothing had vouched for, or one that may have stood still.
    fn may_be_a_correction(&self) -> bool {
        self.daemon().is_some()
            && self.entries.len() == 1
            && (!self.vouched || matches!(self.hardware, Hardware::MovedWith(..)))
    }

    /// The process that made every step.
    fn one_author(&self, world: &World) -> Option<Process> {
        let pid = |entry: &SeriesStep| entry.step.by.as_ref().map(|author| author.owner.process);
        let first = &self.entries[0];
        (self.left_out == 0 && self.entries.iter().all(|entry| pid(entry) == pid(first)))
            .then(|| first.process(world))
            .flatten()
    }

    fn summary(
        &self,
        wrong_ns: Option<u64>,
        exposed: &[ExposedProcess],
        left_out: u64,
        exposures: &Exposures,
        view: &View<'_>,
    ) -> String {
        let (first, last) = (&self.entries[0], &self.entries[self.entries.len() - 1]);
        let entries: Vec<String> = self.entries.iter().map(SeriesStep::short).collect();
        let fight = self.fight().map(|(one, other)| self.fight_summary(one, other));
        let mut summary = match (wrong_ns, self.verdict) {
            _ if fight.is_some() => fight.unwrap_or_default(),
            (Some(wrong_ns), _) => format!(
                "The wall clock is back where it was; it was wrong for {}, in {} steps: {}",
                span(wrong_ns),
                self.entries.len(),
                entries.join(", ")
            ),
            (None, ClockVerdict::SetByTimeDaemon) => format!(
                "The wall clock was set {}, a time daemon's correction{}",
                last.short(),
                if last.step.at_ns < super::BOOT_NS { " after boot" } else { "" }
            ),
            (None, ClockVerdict::Confirmed) => {
                let by_whom = self.judged.as_ref().map(|judged| called(&judged.source)).unwrap_or_default();
                format!("The wall clock was set {}, and is right now by {by_whom}", entries.join(", then "))
            }
            _ if self.entries.len() == 1 && first.step.by.is_some() => {
                format!("The wall clock was set {}, {}", first.short(), first.readings())
            }
            _ if self.entries.len() == 1 => {
                format!(
                    "The wall clock jumped {}, {}; {}",
                    by(first.step.delta_ns()),
                    first.readings(),
                    first.author()
                )
            }
            _ => format!(
                "The wall clock was set {} times and is now {} of where it was: {}",
                self.entries.len(),
                off(last.step.after_ns.saturating_sub(self.base_ns)),
                entries.join(", ")
            ),
        };
        summary.push('.');
        if let (ClockVerdict::Wrong, Some(judged)) = (self.verdict, &self.judged) {
            let least = if judged.ground == Ground::Built { "at least " } else { "" };
            summary.push_str(&format!(
                " By {} it is {least}{} now.",
                called(&judged.source),
                off(judged.ahead_ns)
            ));
        }
        if let Some(hold) = hold(exposed, left_out, exposures, view.world) {
            summary.push_str(&format!(" {hold}"));
        }
        if self.over && self.verdict == ClockVerdict::Unknown {
            summary.push_str(" It has not been undone since.");
        }
        summary
    }

    /// `Two programs set the wall clock against each other: date[4711] (started by sh[4700]) back 1 h, …`.
    fn fight_summary(&self, one: &SeriesStep, other: &SeriesStep) -> String {
        let by_whom = |entry: &SeriesStep| {
            let parent = entry.step.by.as_ref().filter(|author| author.parent > 1);
            let parent = parent
                .map(|author| format!(" (started by {}[{}])", shown(&author.parent_comm), author.parent));
            format!("{}{} {}", entry.author(), parent.unwrap_or_default(), by(entry.step.delta_ns()))
        };
        let now_ns = self.last().after_ns.saturating_sub(self.base_ns);
        let stands = if self.verdict == ClockVerdict::Reverted {
            "it is back where it was before the first".to_owned()
        } else {
            format!("it is {} of where it was before the first", off(now_ns))
        };
        format!(
            "Two programs set the wall clock against each other: {}, {}; {} steps in {}, and {stands}",
            by_whom(one),
            by_whom(other),
            self.left_out.saturating_add(self.entries.len() as u64),
            span(self.lasted_ns())
        )
    }

    fn why(
        &self,
        exposed: &[ExposedProcess],
        left_out: u64,
        exposures: &Exposures,
        view: &View<'_>,
    ) -> Vec<String> {
        let mut why = Vec::new();
        why.push(self.whose(view.world));
        if !self.is_right() {
            let ahead_ns = match (&self.judged, self.verdict) {
                (Some(judged), ClockVerdict::Wrong) => judged.ahead_ns,
                _ => self.last().after_ns.saturating_sub(self.base_ns),
            };
            let breaks = breaks(ahead_ns);
            if !breaks.is_empty() {
                why.push(breaks.join(" "));
            }
            if self.verdict != ClockVerdict::Wrong || self.hardware.contradicts() {
                why.extend(self.hardware.sentence());
            }
            if self.verdict == ClockVerdict::Unknown {
                why.push("Nothing here can say whether it was right before or is now: name an NTP server with --ntp.".to_owned());
            }
            let clients = exposures.clients();
            if clients > 0 && ahead_ns.unsigned_abs() >= WARNING_NS {
                why.push(format!(
                    "{} opened TLS sessions meanwhile; who keeps credentials from then is listed when the clock is right.",
                    text::count(clients, "process has", "processes have")
                ));
            }
        }
        why.extend(self.alerts.sentence());
        let listed: Vec<String> = exposed.iter().take(NAMED).map(holder).collect();
        if !listed.is_empty() {
            let more = exposed.len() as u64 - listed.len() as u64 + left_out;
            let more = if more > 0 { format!("; {more} more in the details") } else { String::new() };
            why.push(format!("{}{more}.", listed.join("; ")));
        }
        why
    }

    /// Who it was: programs that went about it in the same manner in one sentence.
    fn whose(&self, world: &World) -> String {
        let mut groups: Vec<((String, String), Vec<String>)> = Vec::new();
        let mut sentences: Vec<String> = Vec::new();
        for entry in &self.entries {
            let Some(manner) = entry.manner(world) else {
                let without_author = entry.without_author();
                if !sentences.contains(&without_author) {
                    sentences.push(without_author);
                }
                continue;
            };
            match groups.iter_mut().find(|(known, _)| *known == manner) {
                Some((_, who)) if who.contains(&entry.author()) => {}
                Some((_, who)) => who.push(entry.author()),
                None => groups.push((manner, vec![entry.author()])),
            }
        }
        let calls =
            groups.into_iter().map(|((exe, how), who)| format!("{}{exe} called {how}.", who.join(", ")));
        calls.chain(sentences).collect::<Vec<_>>().join(" ")
    }

    fn remedies(&self, exposed: &[ExposedProcess]) -> Vec<Remedy> {
        if !self.is_right() {
            if self.fight().is_some() {
                return vec![
                    "decide which of the two keeps the time, and stop the other".into(),
                    clocks::compare("compare with a server you trust: "),
                ];
            }
            if let Some(daemon) = self.daemon() {
                return clocks::remedies_against(daemon);
            }
            let mut remedies = clocks::remedies();
            if let Some(author) = self.last().by.as_ref().filter(|author| author.parent > 1) {
                let who = format!("{}[{}]", shown(&author.parent_comm), author.parent);
                remedies.push(format!("find out why {who} has the clock set").into());
            }
            return remedies;
        }
        if exposed.is_empty() {
            return vec![];
        }
        let units: std::collections::BTreeSet<&String> = exposed
            .iter()
            .filter_map(|one| one.process.unit.as_ref().filter(|unit| unit.ends_with(".service")))
            .collect();
        let pids: Vec<String> = exposed.iter().map(|one| one.process.pid.to_string()).collect();
        let mut remedies = vec![Remedy::from(format!("restart pids {}", pids.join(", ")))];
        if !units.is_empty() {
            // A user who may make a control group chooses its name: none is taken for an option.
            remedies.push(Command::new("systemctl").words("restart --").args(units).into());
        }
        remedies
    }
}

/// `2 processes may hold credentials dated December 2018: restart pids 4711 (worker), 4712 (uploader).`
fn hold(exposed: &[ExposedProcess], left_out: u64, exposures: &Exposures, world: &World) -> Option<String> {
    if exposed.is_empty() {
        return None;
    }
    let mut dates: Vec<String> = Vec::new();
    for (at_ns, offset_ns) in exposures.moments() {
        let date = dated(at_ns, offset_ns, offset_ns.abs_diff(world.offset_ns()));
        if !dates.contains(&date) {
            dates.push(date);
        }
    }
    let dates = match dates.len() {
        0..=2 => dates.join(" and "),
        more => format!("{} and {} other dates", dates[0], more - 1),
    };
    let pids: Vec<String> = exposed
        .iter()
        .take(NAMED)
        .map(|one| format!("{} ({})", one.process.pid, shown(&one.process.comm)))
        .collect();
    let all = exposed.len() as u64 + left_out;
    let more = if all > pids.len() as u64 { ", …" } else { "" };
    let who = text::count(all, "process that lives may", "processes that live may");
    Some(format!("{who} hold credentials dated {dates}: restart pids {}{more}.", pids.join(", ")))
}

/// `worker[4711] was started at 2018-12-14T00:00:09Z`.
fn holder(one: &ExposedProcess) -> String {
    let started = one.started_at.as_ref().map(|at| format!("was started at {}", brief(at)));
    let sessions = one.sessions.first().map(|session| {
        let to = match &session.sni {
            Some(sni) => {
                format!("{} ({})", words(sni, session.sni_invalid.as_ref()), text::address(&session.peer))
            }
            None => text::place(&session.peer),
        };
        let more = one.sessions.len() as u64 - 1 + one.sessions_left_out;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("opened a TLS session to {to} at {}{more}", brief(&session.at))
    });
    let what: Vec<String> = started.into_iter().chain(sessions).collect();
    format!("{} {}", text::process(&one.process), what.join(" and "))
}

/// RFC 3339 without its fraction.
fn brief(at: &str) -> String {
    at.split_once('.').map_or_else(|| at.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

/// The machine slept, and its clock went on: nothing is wrong, and every timer, lease and connection is old.
pub(super) fn slept(record: &ClockSuspended, view: &View<'_>) -> Report {
    let world = view.world;
    let slept_ns = record.slept_ns.unsigned_abs();
    let at_ns = record.header.boot_ns;
    let offset_ns = world.offset_ns();
    let step = ClockStep {
        before: reading(record.looked_ns, offset_ns),
        after: reading(at_ns, offset_ns),
        delta_ns: record.slept_ns,
        how: StepCause::Resume,
        call: None,
        process: None,
        parent: None,
        within_ms: at_ns.saturating_sub(record.looked_ns).saturating_sub(slept_ns) / 1_000_000,
        suspended_ms: Some(slept_ns / 1_000_000),
    };
    Report {
        kind: Kind::ClockStepped,
        subject: format!("{SUBJECT}|suspend"),
        severity: Severity::Info,
        began_ns: record.looked_ns,
        count: 1,
        process: None,
        summary: format!(
            "The machine slept for {}: its clock jumped forward over that, and no call set it (resume from suspend).",
            span(slept_ns)
        ),
        why: vec![
            "Timers and timeouts that count CLOCK_MONOTONIC stood still meanwhile, peers and leases did not: connections from before may be dead."
                .to_owned(),
        ],
        cause: Some(clocks::cause(Confidence::Certain)),
        caused_by: vec![],
        remedies: vec![Remedy::from("see that the clock is right: ").and(clocks::list_clocks())],
        evidence: vec![(at_ns, format!("BOOTTIME moved {} further than MONOTONIC", span(slept_ns)))],
        details: Details::ClockStepped(ClockSteppedDetails {
            before: step.before.clone(),
            after: step.after.clone(),
            delta_ns: record.slept_ns,
            steps: vec![step],
            steps_left_out: 0,
            verdict: ClockVerdict::Unknown,
            wrong_ms: None,
            reference: None,
            exposed: vec![],
            exposed_left_out: 0,
            alerts: std::collections::BTreeMap::new(),
        }),
    }
}
