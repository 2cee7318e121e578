//! What was measured, for people, in Markdown.

use std::fmt::Write as _;

use super::{
    budget::{self, ENOUGH, Row, Verdict, text, whole},
    inside,
    report::{Condition, DISTURBING, Report, Settings, Slice, Workload},
    stats::Spread,
};

/// Of bytes a second.
pub(super) const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// The part that the README shows too: where, and how fast.
pub(crate) fn shortest(report: &Report) -> String {
    let mut text = machine(report);
    text.push('\n');
    rates(report, &mut text);
    text
}

/// Where, how fast, and which budgets hold.
pub(crate) fn short(report: &Report, rows: &[Row]) -> String {
    let mut text = shortest(report);
    text.push('\n');
    budgets(&report.settings, rows, &mut text);
    for note in notes(report) {
        let _ = write!(text, "\n{note}\n");
    }
    text
}

/// Everything, for `docs/bench.md`.
pub(crate) fn long(report: &Report, rows: &[Row]) -> String {
    let mut text = format!(
        "# What culprit costs\n\n\
         Made by `cargo xtask bench`, which measures all of it in one run, with everything on one machine: \
         load, culprit, strace.\n\n{}",
        short(report, rows)
    );
    text.push_str("\n## culprit itself\n\n");
    inside::accounts(report, &mut text);
    text.push_str("\n## Its programs in the kernel\n\n");
    inside::programs(report, &mut text);
    text.push_str(HOW);
    text
}

const HOW: &str = "
## How to read this

Every round runs every condition once per load, in an order that rotates. Shares are taken against the bare slice of the same
round; a table shows the median of the rounds, with the smallest and the largest. *Bare again* is a second slice with nothing
attached: how far it lies from 1 is what this machine's own noise looks like, and no share means more than that. *Empty hooks*
has programs of two instructions wherever `run` has its own: what the kernel takes to call them, and to enter system calls by
the slower path that tracepoints on them need. No program at these hooks can do better; the rest is culprit's own.

- **connects**: one thread connects over the loopback and closes with a reset, another, on another processor, accepts and closes.
- **handshakes**: full TLS 1.3 handshakes, no resumption, both sides of each on this machine, all processors busy.
- **bulk**: one TCP connection over the loopback, writes of 256 KiB, a processor a side.
- **a foreign packet**: 64 bytes to and fro, over UDP and over one TCP connection; the mean run time of culprit's packet program
  less that of empty ones attached before and after it, by the kernel's own statistics. The dearer direction of the two counts.
  Most of it is the first bytes of the payload, brought from the processor that wrote them: who looks first waits for them, and
  the receiver, who needs them next, no longer does.
- **slow-down by strace over that by culprit**: the extra time per connect under one, divided by the extra time under the other.
- **sustained**: connects of a UDP socket, the cheapest events there are, at a steady and rising pace; the load and culprit have a
  processor each.

Run times of programs are measured in slices of their own, because the kernel's accounting costs time itself. Budgets are those of
the design; a budget that holds by the median but not in every round is said to hold in most.
";

fn machine(report: &Report) -> String {
    let settings = &report.settings;
    format!(
        "{}. {} rounds of {} s a slice.{}\n",
        report.machine,
        settings.rounds,
        settings.seconds,
        if settings.quick { " **A smoke run: too short to conclude anything from.**" } else { "" }
    )
}

/// The conditions that were measured.
fn conditions(report: &Report) -> Vec<Condition> {
    let measured = |condition: &Condition| report.slices.iter().any(|slice| slice.condition == *condition);
    Condition::ALL.into_iter().filter(measured).collect()
}

fn rates(report: &Report, to: &mut String) {
    let conditions = conditions(report);
    to.push_str("| load |");
    for condition in &conditions {
        let code = matches!(condition, Condition::Run | Condition::Trace);
        let _ = if code { write!(to, " `{condition}` |") } else { write!(to, " {condition} |") };
    }
    let _ = writeln!(to, "\n|---|{}", "---|".repeat(conditions.len()));
    for workload in Workload::ALL {
        if !report.slices.iter().any(|slice| slice.workload == workload) {
            continue;
        }
        let (unit, number): (_, fn(f64) -> String) = match workload {
            Workload::Bulk => (", GiB/s", |rate| format!("{:.2}", rate / GIB)),
            _ => ("/s", whole),
        };
        let _ = write!(to, "| {workload}{unit} |");
        for &condition in &conditions {
            let (values, write) = if condition == Condition::Bare {
                (budget::slices(report, workload, condition).map(Slice::rate).collect(), number)
            } else {
                (budget::ratios(report, workload, condition), share as fn(f64) -> String)
            };
            let cell = Spread::of(&values).map_or_else(|| "–".to_owned(), |spread| text(&spread, write));
            let _ = write!(to, " {cell} |");
        }
        to.push('\n');
    }
}

fn share(value: f64) -> String {
    if value < 0.1 { format!("{value:.3}") } else { format!("{value:.2}") }
}

fn budgets(settings: &Settings, rows: &[Row], to: &mut String) {
    to.push_str("| budget | allowed | measured | |\n|---|---|---|---|\n");
    // Of a run of some parts only, the others are not expected.
    let shown = |row: &&Row| !settings.partial || row.verdict != Verdict::NotMeasured;
    for row in rows.iter().filter(shown) {
        let _ = writeln!(to, "| {} | {} | {} | {} |", row.what, row.budget, row.measured, row.verdict);
    }
}

/// What a reader should know, derived from the samples too.
fn notes(report: &Report) -> Vec<String> {
    let mut notes = report.notes.clone();
    if report.settings.repeated > 0 {
        notes.push(format!(
            "{} rounds of a load were measured again because others had disturbed them.",
            report.settings.repeated
        ));
    }
    let disturbed = report.slices.iter().filter(|slice| slice.disturbance() > DISTURBING).count();
    if disturbed > 0 {
        let most = report.slices.iter().map(|slice| slice.cpu.others).fold(0.0, f64::max);
        notes.push(format!(
            "In {disturbed} of {} slices others used more than {:.0} % of a processor (at most {:.0} %), or had a culprit of \
             their own attached. Shares leave such rounds out as long as {ENOUGH} remain.",
            report.slices.len(),
            DISTURBING * 100.0,
            most * 100.0,
        ));
    }
    let own: Vec<_> = Workload::ALL
        .into_iter()
        .filter_map(|workload| {
            let shares = budget::shares(report, workload, [Condition::Hooks, Condition::Run]);
            Spread::of(&shares).map(|spread| format!("{workload} {}", text(&spread, share)))
        })
        .collect();
    if !own.is_empty() {
        notes.push(format!(
            "`run` as a share of empty hooks, which is culprit's own part of the cost: {}.",
            own.join(", ")
        ));
    }
    let stalls = report.slices.iter().filter(|slice| slice.stalls > 0).count();
    if stalls > 0 {
        notes.push(format!("In {stalls} slices the load stood still for at least half a second."));
    }
    notes
}

#[cfg(test)]
mod tests {
    use crate::bench::{
        budget,
        report::Condition,
        tests::{report, slice},
    };

    #[test]
    fn a_table_has_what_was_measured_and_no_more() {
        let report = report();
        let text = super::short(&report, &budget::rows(&report));
        assert!(text.contains("| load | bare | `trace` | strace |\n|---|---|---|---|\n"), "{text}");
        assert!(
            text.contains("| connects/s | 30,000 (20,000–40,000) | 0.62 (0.50–0.75) | 0.005 (0.005–0.006) |"),
            "{text}"
        );
        assert!(!text.contains("bulk, GiB"), "{text}");
        assert!(
            text.contains("A CPU, 2 processors, 1024 MiB; Linux 6.1; culprit abc, 2026-01-02."),
            "{text}"
        );
        assert!(text.contains("| ≤ 25.0 ns | 30.0 ns | does not hold |"), "{text}");
        assert!(text.contains("In 1 slices the load stood still"), "{text}");
    }

    #[test]
    fn culprit_s_own_part_is_distinguished_from_that_of_the_hooks() {
        let mut report = report();
        let text = super::short(&report, &budget::rows(&report));
        assert!(!text.contains("own part"), "{text}");
        for (condition, done) in [(Condition::Hooks, 36_000), (Condition::Run, 34_200)] {
            report.slices.push(slice(condition, 0, done, None));
        }
        let text = super::short(&report, &budget::rows(&report));
        assert!(text.contains("| load | bare | empty hooks | `run` | `trace` | strace |"), "{text}");
        assert!(
            text.contains(
                "`run` as a share of empty hooks, which is culprit's own part of the cost: connects 0.95."
            ),
            "{text}"
        );
    }

    #[test]
    fn the_long_form_shows_what_the_programs_cost() {
        let report = report();
        let text = super::long(&report, &budget::rows(&report));
        assert!(text.contains("| connects | `trace` | packet_in | 3.00 | 100 |"), "{text}");
        assert!(text.contains("| connects | `trace` | *all together, an operation* | | 300 |"), "{text}");
    }
}
