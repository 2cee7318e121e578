//! culprit itself while it watched, in tables: what it reported and took, and what its programs in the
//! kernel cost an operation.

use std::fmt::Write as _;

use super::{
    budget::{self, text, whole},
    report::{Condition, Culprit, Report, Slice, Workload},
    stats::Spread,
};

/// Of bulk, an operation is as much as this.
const MIB: f64 = 1024.0 * 1024.0;
/// A program that ran less often than this an operation ran for another process.
const SELDOM: f64 = 0.01;

/// The slices with a culprit, by load and condition.
fn groups(report: &Report) -> impl Iterator<Item = (Workload, Condition, Vec<(&Slice, &Culprit)>)> {
    let both = |workload| [Condition::Run, Condition::Trace].map(|condition| (workload, condition));
    Workload::ALL.into_iter().flat_map(both).filter_map(|(workload, condition)| {
        let slices: Vec<_> = budget::slices(report, workload, condition)
            .filter_map(|slice| Some((slice, slice.culprit.as_ref()?)))
            .collect();
        (!slices.is_empty()).then_some((workload, condition, slices))
    })
}

fn operations(workload: Workload, done: u64) -> f64 {
    if workload == Workload::Bulk { done as f64 / MIB } else { done as f64 }
}

/// What culprit reported and took.
pub(super) fn accounts(report: &Report, to: &mut String) {
    to.push_str(
        "| load | attached | of a processor | events an operation | on the ring | lost | resident, MiB | at most | maps, MiB | start, ms |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (workload, condition, slices) in groups(report) {
        let median = |value: &dyn Fn(&Slice, &Culprit) -> f64| {
            let values: Vec<_> = slices.iter().map(|(slice, culprit)| value(slice, culprit)).collect();
            Spread::of(&values).map_or(0.0, |spread| spread.median)
        };
        let lost: u64 = slices.iter().map(|(_, culprit)| culprit.lost).sum();
        let _ = writeln!(
            to,
            "| {workload} | `{condition}` | {:.0} % | {:.2} | {} | {} | {:.1} | {:.1} | {:.1} | {:.0} |",
            median(&|slice, _| slice.cpu.watcher * 100.0),
            median(&|_, culprit| culprit.events as f64 / operations(workload, culprit.attached)),
            whole(median(&|_, culprit| culprit.emitted.unwrap_or_default() as f64)),
            whole(lost as f64),
            median(&|_, culprit| culprit.rss_kib as f64 / 1024.0),
            median(&|_, culprit| culprit.peak_kib as f64 / 1024.0),
            median(&|_, culprit| culprit.maps_kib as f64 / 1024.0),
            median(&|_, culprit| culprit.start_ms),
        );
    }
}

/// What its programs cost.
pub(super) fn programs(report: &Report, to: &mut String) {
    to.push_str("| load | attached | program | runs an operation | mean, ns |\n|---|---|---|---|---|\n");
    for (workload, condition, slices) in groups(report) {
        let mut names: Vec<_> = slices
            .iter()
            .flat_map(|(_, culprit)| culprit.programs.iter().map(|program| program.name.as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut sum = 0.0;
        for name in names {
            let (mut runs, mut means) = (Vec::new(), Vec::new());
            for (_, culprit) in &slices {
                for program in culprit.programs.iter().filter(|program| program.name == name) {
                    runs.push(program.runs as f64 / operations(workload, culprit.counted));
                    means.push(program.mean_ns);
                }
            }
            let (Some(runs), Some(mean)) = (Spread::of(&runs), Spread::of(&means)) else { continue };
            if runs.median < SELDOM {
                continue;
            }
            sum += runs.median * mean.median;
            let mean = text(&mean, |ns| format!("{ns:.0}"));
            let _ = writeln!(to, "| {workload} | `{condition}` | {name} | {:.2} | {mean} |", runs.median);
        }
        let unit = if workload == Workload::Bulk { "a MiB" } else { "an operation" };
        let _ = writeln!(to, "| {workload} | `{condition}` | *all together, {unit}* | | {} |", whole(sum));
    }
}
