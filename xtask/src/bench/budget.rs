//! Which of the budgets hold, by what was measured? A row a budget; the numbers behind it are those
//! of the design, and nothing is said of what was not measured but why.

use std::fmt;

use serde::Serialize;

use super::{
    report::{Condition, Culprit, DISTURBING, Report, Slice, Traffic, Workload},
    stats::{Spread, multiple_of_slowdown},
};

/// A budget and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) budget: String,
    /// In the unit of the budget.
    pub(crate) spread: Option<Spread>,
    pub(crate) measured: String,
    pub(crate) verdict: Verdict,
}

/// Whether a budget holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// In every sample.
    Holds,
    /// By the median, in so many samples of so many.
    HoldsInMost(usize, usize),
    /// Not by the median; in so many samples of so many.
    DoesNotHold(usize, usize),
    /// There are no samples.
    NotMeasured,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::HoldsInMost(n, of) => write!(f, "holds in most rounds ({n}/{of})"),
            Self::DoesNotHold(0, _) => f.write_str("does not hold"),
            Self::DoesNotHold(n, of) => write!(f, "does not hold (only in {n}/{of} rounds)"),
            Self::NotMeasured => f.write_str("not measured"),
        }
    }
}

/// What is allowed.
#[derive(Debug, Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    fn allows(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }

    fn judge(self, values: &[f64]) -> Verdict {
        let Some(spread) = Spread::of(values) else { return Verdict::NotMeasured };
        let (good, all) = (values.iter().filter(|&&value| self.allows(value)).count(), values.len());
        if good == all {
            Verdict::Holds
        } else if self.allows(spread.median) {
            Verdict::HoldsInMost(good, all)
        } else {
            Verdict::DoesNotHold(good, all)
        }
    }
}

/// How numbers are written, and their unit.
type Unit = (fn(f64) -> String, &'static str);

const SHARE: Unit = (|value| format!("{value:.3}"), "");
const NANOSECONDS: Unit = (|value| format!("{value:.1}"), " ns");
const TIMES: Unit = (|value| if value.is_finite() { format!("{value:.0}") } else { "∞".to_owned() }, " ×");
const MEBIBYTES: Unit = (|value| format!("{value:.1}"), " MiB");
const SECONDS: Unit = (|value| format!("{value:.2}"), " s");
const EVENTS: Unit = (whole, "");

fn row(what: impl Into<String>, limit: Limit, values: &[f64], (write, unit): Unit) -> Row {
    let spread = Spread::of(values);
    let budget = match limit {
        Limit::AtLeast(limit) => format!("≥ {}{unit}", write(limit)),
        Limit::AtMost(0.0) => "0".to_owned(),
        Limit::AtMost(limit) => format!("≤ {}{unit}", write(limit)),
    };
    let measured = spread.map_or_else(|| "–".to_owned(), |spread| text(&spread, write) + unit);
    Row { what: what.into(), budget, spread, measured, verdict: limit.judge(values) }
}

/// `0.83 (0.79–0.86)`, or one number when there is only one.
pub(crate) fn text(spread: &Spread, write: fn(f64) -> String) -> String {
    let (median, min, max) = (write(spread.median), write(spread.min), write(spread.max));
    if min == max { median } else { format!("{median} ({min}–{max})") }
}

/// Rounds a share can be taken from, if they are all that were undisturbed.
pub(crate) const ENOUGH: usize = 3;

/// Every budget this benchmark knows.
pub(crate) fn rows(report: &Report) -> Vec<Row> {
    let attached = [Condition::Run, Condition::Trace];
    let mut rows = Vec::new();
    for (workload, condition, least) in [
        (Workload::Handshakes, Condition::Run, 0.98),
        (Workload::Connects, Condition::Run, 0.98),
        (Workload::Connects, Condition::Trace, 0.80),
        (Workload::Bulk, Condition::Run, 0.97),
        (Workload::Bulk, Condition::Trace, 0.97),
    ] {
        let what = format!("{workload} under `{condition}`, as a share of bare");
        rows.push(row(what, Limit::AtLeast(least), &ratios(report, workload, condition), SHARE));
    }
    let lost = accounts(report, Some(Workload::Connects), Condition::Trace, |culprit| culprit.lost as f64);
    rows.push(row("events lost by `trace` under connects", Limit::AtMost(0.0), &lost, EVENTS));
    let emitted = accounts(report, None, Condition::Run, |culprit| {
        culprit.emitted.unwrap_or_default().max(culprit.events) as f64
    });
    rows.push(row("events on the ring in `run`, healthy traffic", Limit::AtMost(0.0), &emitted, EVENTS));
    for condition in attached {
        for traffic in [Traffic::Udp, Traffic::Tcp] {
            let what = format!("a foreign {traffic} packet under `{condition}`, above an empty program");
            rows.push(row(what, Limit::AtMost(25.0), &foreign(report, condition, traffic), NANOSECONDS));
        }
        let what = format!("slow-down of connects by strace over that by `{condition}`");
        rows.push(row(what, Limit::AtLeast(50.0), &multiples(report, condition), TIMES));
    }
    rows.push(sustained(report));
    let replay: Vec<_> = report.replays.iter().map(|replay| replay.events as f64 / replay.seconds).collect();
    rows.push(row("replayed events a second", Limit::AtLeast(1e6), &replay, EVENTS));
    for condition in attached {
        let crowds = || report.crowds.iter().filter(move |crowd| crowd.condition == condition);
        let many = crowds().map(|crowd| crowd.connections).max().unwrap_or(100_000);
        let sockets = format!("{} connections open under `{condition}`", whole(many as f64));
        let resident: Vec<_> = crowds().map(|crowd| crowd.rss_kib as f64 / 1024.0).collect();
        rows.push(row(format!("resident memory, {sockets}"), Limit::AtMost(40.0), &resident, MEBIBYTES));
        let maps: Vec<_> = crowds().map(|crowd| crowd.maps_kib as f64 / 1024.0).collect();
        rows.push(row(format!("memory of its maps, {sockets}"), Limit::AtMost(64.0), &maps, MEBIBYTES));
        let looks: Vec<_> = crowds().map(|crowd| (crowd.late_start_ms - crowd.start_ms) / 1e3).collect();
        let what = format!("start among them, beyond one before them, {sockets}");
        rows.push(row(what, Limit::AtMost(1.0), &looks, SECONDS));
    }
    let starts: Vec<_> = report.starts.iter().map(|start| start.first_event_ms / 1e3).collect();
    rows.push(row("start of `trace` to its first event", Limit::AtMost(1.0), &starts, SECONDS));
    rows
}

/// How fast a load went under a condition.
#[derive(Debug, Serialize)]
pub(crate) struct Rate {
    workload: Workload,
    condition: Condition,
    /// Operations (for bulk: bytes) a second.
    rate: Option<Spread>,
    /// The same as a share of bare.
    share: Option<Spread>,
}

/// Every load under every condition that was measured.
pub(crate) fn rates(report: &Report) -> Vec<Rate> {
    let all =
        Workload::ALL.into_iter().flat_map(|workload| Condition::ALL.map(|condition| (workload, condition)));
    all.filter_map(|(workload, condition)| {
        let rates: Vec<_> = slices(report, workload, condition).map(Slice::rate).collect();
        let share = Spread::of(&ratios(report, workload, condition));
        (!rates.is_empty()).then(|| Rate { workload, condition, rate: Spread::of(&rates), share })
    })
    .collect()
}

/// Rates of a condition over bare ones, round by round.
pub(crate) fn ratios(report: &Report, workload: Workload, condition: Condition) -> Vec<f64> {
    shares(report, workload, [Condition::Bare, condition])
}

/// Rates of the second condition over those of the first, round by round.
pub(crate) fn shares(report: &Report, workload: Workload, of: [Condition; 2]) -> Vec<f64> {
    rounds(report, workload, of).map(|[of, with]| with / of).collect()
}

/// How much more strace slows connects down than culprit does, round by round.
fn multiples(report: &Report, condition: Condition) -> Vec<f64> {
    rounds(report, Workload::Connects, [Condition::Bare, condition, Condition::Strace])
        .map(|[bare, culprit, strace]| multiple_of_slowdown(bare, culprit, strace))
        .collect()
}

/// The rates of some conditions, for each round that has them all; rounds that others disturbed are
/// left out as long as [`ENOUGH`] remain.
fn rounds<const N: usize>(
    report: &Report,
    workload: Workload,
    conditions: [Condition; N],
) -> impl Iterator<Item = [f64; N]> {
    let of = |round: u32| -> Option<[&Slice; N]> {
        let found = conditions
            .iter()
            .map_while(|&condition| slices(report, workload, condition).find(|slice| slice.round == round));
        found.collect::<Vec<_>>().try_into().ok()
    };
    let all: Vec<_> = (0..report.settings.rounds).filter_map(of).collect();
    let is_quiet = |slices: &&[&Slice; N]| slices.iter().all(|slice| slice.disturbance() <= DISTURBING);
    let enough = all.iter().filter(is_quiet).count() >= ENOUGH;
    all.into_iter().filter(move |slices| !enough || is_quiet(&slices)).map(|slices| slices.map(Slice::rate))
}

/// The slices of a load under a condition.
pub(crate) fn slices(
    report: &Report,
    workload: Workload,
    condition: Condition,
) -> impl Iterator<Item = &Slice> {
    report.slices.iter().filter(move |slice| slice.workload == workload && slice.condition == condition)
}

/// A number of culprit's own accounts, for each slice of one load or of all.
fn accounts(
    report: &Report,
    workload: Option<Workload>,
    condition: Condition,
    of: impl Fn(&Culprit) -> f64,
) -> Vec<f64> {
    let wanted = report.slices.iter().filter(|slice| {
        slice.condition == condition && workload.is_none_or(|workload| slice.workload == workload)
    });
    wanted.filter_map(|slice| slice.culprit.as_ref()).map(of).collect()
}

/// What a packet costs above an empty program: of the two directions the dearer one, each round.
fn foreign(report: &Report, condition: Condition, traffic: Traffic) -> Vec<f64> {
    let wanted =
        report.packets.iter().filter(|packets| packets.condition == condition && packets.traffic == traffic);
    wanted
        .filter_map(|packets| {
            packets.directions.iter().map(super::report::Direction::above_empty).max_by(f64::total_cmp)
        })
        .collect()
}

/// The fastest step without loss.
fn sustained(report: &Report) -> Row {
    let best = report.sustained.iter().filter(|step| step.holds()).map(|step| step.reached);
    let best = best.max_by(f64::total_cmp);
    let values: Vec<f64> = match best {
        None if report.sustained.is_empty() => vec![],
        best => vec![best.unwrap_or(0.0)],
    };
    // The load comes only so near to what it is asked for.
    let limit = Limit::AtLeast(200e3 * 0.98);
    let mut row = row("sustained events of `trace` without loss, a second", limit, &values, EVENTS);
    row.budget = "≥ 200,000".into();
    if let Some(failed) = report.sustained.iter().find(|step| !step.holds()) {
        let why = if failed.lost > 0 {
            format!("; at {} {} of {} were lost", whole(failed.reached), whole(failed.lost as f64), {
                whole((failed.events + failed.lost) as f64)
            })
        } else {
            format!("; this load makes no more than {}", whole(failed.reached))
        };
        row.measured.push_str(&why);
    }
    row
}

/// `1,234,567`.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_judged_by_the_median_and_every_round_is_counted() {
        let limit = Limit::AtLeast(0.8);
        assert_eq!(limit.judge(&[0.9, 0.81, 0.8]), Verdict::Holds);
        assert_eq!(limit.judge(&[0.9, 0.81, 0.7]), Verdict::HoldsInMost(2, 3));
        assert_eq!(limit.judge(&[0.9, 0.71, 0.7]), Verdict::DoesNotHold(1, 3));
        assert_eq!(limit.judge(&[]), Verdict::NotMeasured);
        assert_eq!(Limit::AtMost(0.0).judge(&[0.0, 0.0]), Verdict::Holds);
    }

    #[test]
    fn verdicts_are_words() {
        assert_eq!(Verdict::HoldsInMost(5, 7).to_string(), "holds in most rounds (5/7)");
        assert_eq!(Verdict::DoesNotHold(0, 7).to_string(), "does not hold");
        assert_eq!(Verdict::DoesNotHold(2, 7).to_string(), "does not hold (only in 2/7 rounds)");
    }

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!(whole(0.4), "0");
        assert_eq!(whole(999.0), "999");
        assert_eq!(whole(1_234_567.0), "1,234,567");
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let report = crate::bench::tests::report();
        // 40,000 and 20,000 bare, 30,000 and 10,000 under trace.
        assert_eq!(ratios(&report, Workload::Connects, Condition::Trace), [0.75, 0.5]);
        assert_eq!(ratios(&report, Workload::Connects, Condition::Run), [0.0; 0]);
    }

    #[test]
    fn disturbed_rounds_are_left_out_while_enough_remain() {
        let mut report = crate::bench::tests::report();
        let mut more = crate::bench::tests::report().slices;
        for slice in &mut more {
            slice.round += 2;
        }
        report.slices.append(&mut more);
        report.settings.rounds = 4;
        let shares = |report: &Report| ratios(report, Workload::Connects, Condition::Trace);
        assert_eq!(shares(&report), [0.75, 0.5, 0.75, 0.5]);
        report.slices[1].cpu.others = 0.5;
        assert_eq!(shares(&report), [0.5, 0.75, 0.5]);
        // A bare slice with another culprit attached: two quiet rounds are not enough.
        report.slices[3].strangers = 1;
        assert_eq!(shares(&report), [0.75, 0.5, 0.75, 0.5]);
    }

    #[test]
    fn what_was_not_measured_is_said_to_be_so() {
        let rows = rows(&crate::bench::tests::report());
        let of = |what: &str| rows.iter().find(|row| row.what.starts_with(what)).unwrap();
        assert_eq!(of("connects under `run`").verdict, Verdict::NotMeasured);
        assert_eq!(of("connects under `trace`").verdict, Verdict::DoesNotHold(0, 2));
        assert_eq!(of("connects under `trace`").measured, "0.625 (0.500–0.750)");
        assert_eq!(of("events lost").verdict, Verdict::DoesNotHold(1, 2));
        assert_eq!(of("sustained").verdict, Verdict::DoesNotHold(0, 1));
        assert!(
            of("sustained").measured.contains("100,000; at 150,000 7 of"),
            "{}",
            of("sustained").measured
        );
        assert_eq!(of("a foreign TCP packet under `trace`").measured, "30.0 ns");
        assert_eq!(of("slow-down of connects by strace over that by `trace`").verdict, Verdict::Holds);
    }
}
