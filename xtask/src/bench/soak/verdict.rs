//! Did the daemon stay what it was? A row a question, with what is allowed and what was measured. The
//! first fifth is not looked at for growth: tables and caches fill then.

use serde::Serialize;

use super::report::{Made, Sample, Soak};
use crate::bench::{budget::whole, stats::Spread};

/// Resident memory may grow by both of these at most, from the second fifth to the last.
const GROWTH_SHARE: f64 = 0.05;
/// In MiB.
const GROWTH_MIB: f64 = 2.0;
/// A fifth has a sample at least.
const FEWEST: usize = 5;

/// A question and its answer.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) allowed: String,
    pub(crate) measured: String,
    pub(crate) holds: bool,
}

/// Every question this soak answers.
pub(crate) fn rows(soak: &Soak) -> Vec<Row> {
    vec![
        memory(&soak.samples),
        lost(soak.samples.last()),
        constant("descriptors", &soak.samples, |sample| sample.descriptors),
        constant("threads", &soak.samples, |sample| sample.threads),
        incidents(&soak.incidents),
        requests(soak),
    ]
}

/// The second fifth and the last.
pub(crate) fn fifths(samples: &[Sample]) -> Option<[&[Sample]; 2]> {
    let fifth = samples.len() / FEWEST;
    let second = samples.get(fifth..2 * fifth)?;
    let last = samples.get(samples.len() - fifth..)?;
    (fifth > 0).then_some([second, last])
}

fn unknown(what: &'static str, allowed: String, measured: &str) -> Row {
    Row { what, allowed, measured: measured.to_owned(), holds: false }
}

fn memory(samples: &[Sample]) -> Row {
    let what = "resident memory, last fifth against second";
    let allowed = format!("≤ {:.0} % and ≤ {GROWTH_MIB:.1} MiB more", GROWTH_SHARE * 100.0);
    let medians = |kib: fn(&Sample) -> u64| {
        let [second, last] = fifths(samples)?.map(|fifth| {
            let mib: Vec<f64> = fifth.iter().map(|sample| kib(sample) as f64 / 1024.0).collect();
            Spread::of(&mib).map(|spread| spread.median)
        });
        Some((second?, last?))
    };
    let (Some((second, last)), Some((anon_second, anon_last))) =
        (medians(|sample| sample.rss_kib), medians(|sample| sample.anon_kib))
    else {
        return unknown(what, allowed, "too few samples");
    };
    let growth = last - second;
    Row {
        what,
        allowed,
        measured: format!(
            "{second:.2} → {last:.2} MiB ({growth:+.2} MiB, {:+.1} %); anonymous {anon_second:.2} → {anon_last:.2} MiB",
            growth / second * 100.0
        ),
        holds: growth <= GROWTH_MIB && growth <= GROWTH_SHARE * second,
    }
}

fn lost(last: Option<&Sample>) -> Row {
    let (what, allowed) = ("records lost", "0".to_owned());
    let Some(last) = last else { return unknown(what, allowed, "no samples") };
    let lost: u64 = last.lost.values().sum();
    let received: u64 = last.received.values().sum();
    let probes: Vec<String> = (last.lost.iter())
        .filter(|(_, lost)| **lost > 0)
        .map(|(probe, lost)| format!("{probe} {}", whole(*lost as f64)))
        .collect();
    let of = if probes.is_empty() { String::new() } else { format!(": {}", probes.join(", ")) };
    Row {
        what,
        allowed,
        measured: format!("{} beside {} received{of}", whole(lost as f64), whole(received as f64)),
        // A daemon that says nothing of its probes has not lost nothing.
        holds: lost == 0 && !last.lost.is_empty(),
    }
}

/// From the second fifth on it is the same number in every sample.
fn constant(what: &'static str, samples: &[Sample], number: fn(&Sample) -> u64) -> Row {
    let allowed = "constant after the first fifth".to_owned();
    if fifths(samples).is_none() {
        return unknown(what, allowed, "too few samples");
    }
    let numbers: Vec<u64> = samples.iter().skip(samples.len() / FEWEST).map(number).collect();
    let (first, last) = (numbers.first().copied(), numbers.last().copied());
    let (least, most) = (numbers.iter().min().copied(), numbers.iter().max().copied());
    let shown = |number: Option<u64>| number.unwrap_or_default();
    let measured = if least == most {
        shown(most).to_string()
    } else {
        format!("{} → {} (from {} to {})", shown(first), shown(last), shown(least), shown(most))
    };
    Row { what, allowed, measured, holds: least == most }
}

fn incidents(made: &[Made]) -> Row {
    let what = "incidents that were made, in the store once and resolved";
    let good = |made: &&Made| made.kept == 1 && made.resolved == 1;
    let right = made.iter().filter(good).count();
    let mut measured = format!("{right} of {}", made.len());
    for wrong in made.iter().filter(|made| !good(made)) {
        let fate = match (wrong.kept, wrong.resolved) {
            (0, _) => "missing".to_owned(),
            (1, _) => "still open".to_owned(),
            (kept, resolved) => format!("{kept} times, {resolved} of them resolved"),
        };
        measured += &format!("; the one at {:.0} s is {fate}", wrong.at_s);
    }
    Row { what, allowed: "all".to_owned(), measured, holds: right == made.len() && !made.is_empty() }
}

fn requests(soak: &Soak) -> Row {
    let (requests, streams) = (&soak.requests, &soak.streams);
    let ended: Vec<&str> = streams.iter().filter_map(|stream| stream.ended.as_deref()).collect();
    let why: Vec<&str> = requests.why.as_deref().into_iter().chain(ended.iter().copied()).collect();
    let failed = requests.failed + ended.len() as u64;
    let all = requests.answered + requests.failed + streams.len() as u64;
    let because = if why.is_empty() { String::new() } else { format!(": {}", why.join("; ")) };
    Row {
        what: "requests and streams that failed",
        allowed: "0".to_owned(),
        measured: format!("{failed} of {}{because}", whole(all as f64)),
        holds: failed == 0 && all > 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::soak::{
        report::{Sample, Soak},
        tests::soak,
    };

    fn failing(soak: &Soak) -> Vec<(&'static str, String)> {
        let rows = super::rows(soak).into_iter().filter(|row| !row.holds);
        rows.map(|row| (row.what, row.measured)).collect()
    }

    #[test]
    fn a_daemon_that_stays_what_it_was_holds() {
        assert_eq!(failing(&soak()), []);
    }

    #[test]
    fn memory_may_grow_by_neither_too_many_percent_nor_too_many_bytes() {
        let grown = |base: u64, kib: u64| {
            let mut soak = soak();
            for (i, sample) in soak.samples.iter_mut().enumerate() {
                sample.rss_kib = base + if i >= 8 { kib } else { 0 };
            }
            failing(&soak)
        };
        assert_eq!(grown(20_480, 1000), []);
        assert!(grown(20_480, 1100)[0].1.starts_with("20.00 → 21.07 MiB (+1.07 MiB, +5.4 %)"));
        assert!(grown(102_400, 2100)[0].1.contains("+2.05 MiB, +2.1 %"));
    }

    #[test]
    fn what_is_lost_is_reported_by_probe() {
        let mut soak = soak();
        soak.samples[9].lost.insert("dns".into(), 1200);
        assert_eq!(failing(&soak), [("records lost", "1,200 beside 5,000 received: dns 1,200".to_owned())]);
        soak.samples[9].lost.clear();
        assert_eq!(failing(&soak)[0].0, "records lost");
    }

    #[test]
    fn descriptors_and_threads_may_change_in_the_first_fifth_only() {
        let mut soak = soak();
        (soak.samples[1].descriptors, soak.samples[1].threads) = (99, 99);
        assert_eq!(failing(&soak), []);
        soak.samples[5].descriptors = 42;
        soak.samples[9].threads = 7;
        let wanted = [("descriptors", "40 → 40 (from 40 to 42)"), ("threads", "5 → 7 (from 5 to 7)")];
        assert_eq!(failing(&soak), wanted.map(|(what, measured)| (what, measured.to_owned())));
    }

    #[test]
    fn every_incident_is_kept_once_and_resolved() {
        let mut soak = soak();
        soak.incidents[0].kept = 0;
        (soak.incidents[1].kept, soak.incidents[1].resolved) = (2, 1);
        let measured = "0 of 2; the one at 15 s is missing; the one at 75 s is 2 times, 1 of them resolved";
        assert_eq!(failing(&soak)[0].1, measured);
        soak.incidents.clear();
        assert_eq!(failing(&soak)[0].1, "0 of 0");
    }

    #[test]
    fn requests_that_fail_and_streams_that_end_count() {
        let mut soak = soak();
        soak.requests.failed = 1;
        soak.requests.why = Some("/metrics: timed out".into());
        soak.streams[1].ended = Some("lagged".into());
        assert_eq!(failing(&soak)[0].1, "2 of 103: /metrics: timed out; lagged");
    }

    #[test]
    fn nothing_holds_of_what_was_not_measured() {
        assert_eq!(failing(&Soak::default()).len(), super::rows(&Soak::default()).len());
        let mut short = soak();
        short.samples.truncate(4);
        assert_eq!(failing(&short).len(), 3);
        assert!(super::fifths(&vec![Sample::default(); 5]).is_some());
    }
}
