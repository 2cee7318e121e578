//! What a soak measured, for people, in Markdown.

use std::fmt::Write as _;

use super::{
    WHOLE,
    report::{Load, Sample, Soak},
    verdict::Row,
};
use crate::bench::{budget::whole, stats::Spread};

/// Rows of the table over time.
const STEPS: usize = 10;

/// Where, under what, and what holds.
fn short(soak: &Soak, rows: &[Row]) -> String {
    let mut text = format!("{}. {} min of `culprit run`", soak.machine, soak.minutes);
    let ends = soak.samples.first().zip(soak.samples.last());
    if let Some(share) = ends.and_then(|(first, last)| processor(first, last)) {
        let _ = write!(text, ", which took {:.1} % of a processor", share * 100.0);
    }
    text.push_str(".\n\n| over the whole time | allowed | measured | |\n|---|---|---|---|\n");
    for row in rows {
        let verdict = if row.holds { "holds" } else { "does not hold" };
        let _ = writeln!(text, "| {} | {} | {} | {verdict} |", row.what, row.allowed, row.measured);
    }
    text
}

/// Everything, for `docs/bench.md`.
pub(crate) fn long(soak: &Soak, rows: &[Row]) -> String {
    let mut text = format!(
        "## The daemon over time\n\nMade by `cargo xtask bench soak`.\n\n{}\n\
         | until | resident, MiB | anonymous | descriptors | threads | of a processor | received | lost | store, KiB | /metrics, KiB |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        short(soak, rows)
    );
    let samples = &soak.samples;
    let size = samples.len().div_ceil(STEPS).max(1);
    let mut before = samples.first();
    for step in samples.chunks(size) {
        let Some(last) = step.last() else { continue };
        let share = before.and_then(|before| processor(before, last));
        before = Some(last);
        let median = |number: fn(&Sample) -> f64| {
            Spread::of(&step.iter().map(number).collect::<Vec<_>>()).map_or(0.0, |spread| spread.median)
        };
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.0} | {:.0} | {} | {} | {} | {} | {} |",
            clock(last.at_s),
            median(|sample| sample.rss_kib as f64) / 1024.0,
            median(|sample| sample.anon_kib as f64) / 1024.0,
            median(|sample| sample.descriptors as f64),
            median(|sample| sample.threads as f64),
            share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            whole(last.received.values().sum::<u64>() as f64),
            whole(last.lost.values().sum::<u64>() as f64),
            whole(last.store_bytes as f64 / 1024.0),
            whole(last.metrics_bytes as f64 / 1024.0),
        );
    }
    let loads: Vec<String> = (soak.loads.iter())
        .map(|load| format!("{} {} ({})", whole(load.done as f64), load.name, rate(load)))
        .collect();
    let events: Vec<String> = soak.streams.iter().map(|stream| whole(stream.events as f64)).collect();
    let _ = write!(
        text,
        "\nThe load, in network namespaces of its own: {}; and {} connects without an answer, one incident each. \
         Read meanwhile: {} requests, /metrics each 5 s and the page's API each 10 s, and {} readers of the live \
         stream, which were reported {}.\n\n\
         Numbers of a row are medians of its samples, one each 10 s; counts are those at its end.\n",
        loads.join(", "),
        soak.incidents.len(),
        whole(soak.requests.answered as f64),
        soak.streams.len(),
        events.join(" and "),
    );
    for note in notes(soak) {
        let _ = write!(text, "\n{note}\n");
    }
    text
}

/// What a reader should know besides.
pub(crate) fn notes(soak: &Soak) -> Vec<String> {
    let kinds = |ours: bool| -> Vec<String> {
        let others = soak.others.iter().filter(|other| other.ours == ours);
        others.map(|other| format!("{} {}", other.count, other.kind)).collect()
    };
    let stalls: u64 = soak.loads.iter().map(|load| load.stalls).sum();
    let mut notes = Vec::new();
    if soak.minutes < WHOLE {
        notes.push(format!(
            "A short soak: tables of the daemon fill in the first minutes, so its memory may look as if it grew. \
             {WHOLE} minutes and more are to conclude from."
        ));
    }
    if !kinds(true).is_empty() {
        notes.push(format!("Incidents of the load not made on purpose: {}.", kinds(true).join(", ")));
    }
    if !kinds(false).is_empty() {
        notes.push(format!("Incidents of others on this machine meanwhile: {}.", kinds(false).join(", ")));
    }
    if stalls > 0 {
        notes.push(format!("The load stood still for at least half a second {stalls} times."));
    }
    notes
}

/// What the daemon took between two samples, as a share of one processor.
fn processor(first: &Sample, last: &Sample) -> Option<f64> {
    let seconds = last.at_s - first.at_s;
    (seconds > 0.0).then(|| (last.cpu_s - first.cpu_s) / seconds)
}

/// `20.0/s`, or a minute.
fn rate(load: &Load) -> String {
    let rate = load.done as f64 / load.seconds;
    if rate < 1.0 { format!("{:.1}/min", rate * 60.0) } else { format!("{rate:.1}/s") }
}

/// `2:05`, minutes and seconds.
pub(crate) fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use crate::bench::soak::{report::Other, tests::soak, verdict};

    #[test]
    fn a_table_says_where_what_is_allowed_and_what_holds() {
        let soak = soak();
        let text = super::short(&soak, &verdict::rows(&soak));
        assert!(
            text.starts_with("A CPU, 2 processors, 1024 MiB; Linux 6.1; culprit abc, 2026-01-02. 2 min"),
            "{text}"
        );
        assert!(text.contains("which took 2.0 % of a processor."), "{text}");
        assert!(text.contains("| descriptors | constant after the first fifth | 40 | holds |"), "{text}");
    }

    #[test]
    fn the_long_form_has_rows_over_time_the_load_and_what_was_not_made_on_purpose() {
        let mut soak = soak();
        soak.others = vec![Other { kind: "connect_failing".into(), ours: false, count: 3 }];
        let text = super::long(&soak, &verdict::rows(&soak));
        assert!(text.contains("| 1:40 | 20.00 | 10.00 | 40 | 5 | 2.0 % | 5,000 | 0 | 64 | 2 |"), "{text}");
        assert!(text.contains("1,000 connects (10.0/s); and 2 connects without an answer"), "{text}");
        assert!(text.contains("others on this machine meanwhile: 3 connect_failing."), "{text}");
        assert!(text.contains("A short soak"), "{text}");
        soak.minutes = 30;
        assert!(!super::long(&soak, &[]).contains("A short soak"));
    }
}
