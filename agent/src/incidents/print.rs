//! Incidents that are kept, for people: a table, or one as it was reported. How long one lasts that is open is counted
//! to this moment by the wall clock, for it was reported some time ago. What is kept may be another machine's, or of
//! earlier days: nothing in it steers a terminal.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    terminal::{self, Column, Piece, cells, cut, lines},
    text::{duration::span, printable},
};

/// Characters of an id that distinguish it from others: the end, for its beginning is the time.
const SHORT: usize = 6;
/// Columns that a summary has at least beside the others: with less it stands below them.
const SUMMARY: usize = 40;
/// Where paragraphs were broken when they were reported, in columns.
const STORED_WIDTH: usize = 118;

const COLUMNS: [Column<'static>; 6] = [
    column("ID"),
    column("OPENED (UTC)"),
    column("LASTED"),
    column("SEVERITY"),
    column("KIND"),
    column("SUMMARY"),
];

const fn column(heading: &'static str) -> Column<'static> {
    Column { heading, least: 0, right: false, breaks: false }
}

/// One line for each, which says how many stand `behind` it; where that is too little room, the summary below it.
pub(super) fn table(
    incidents: &[Value],
    behind: &BTreeMap<String, usize>,
    now: Timestamp,
    width: Option<usize>,
    out: &mut impl Write,
) -> io::Result<()> {
    if incidents.is_empty() {
        return Ok(());
    }
    let summary = |incident: &Value| {
        let summary = printable(incident["summary"].as_str().unwrap_or_default()).into_owned();
        match incident["id"].as_str().and_then(|id| behind.get(id)) {
            Some(number) => format!("(+{number}) {summary}"),
            None => summary,
        }
    };
    let mut rows: Vec<Vec<String>> = incidents.iter().map(|incident| row(incident, now)).collect();
    let short = terminal::table(&COLUMNS[..5], &rows, 2, None);
    let taken = short.lines().map(cells).max().unwrap_or(0) + 2;
    if width.is_some_and(|width| width < taken + SUMMARY) {
        let mut short = short.lines();
        writeln!(out, "{}", short.next().unwrap_or_default())?;
        let below = " ".repeat(SHORT + 2);
        for (line, incident) in short.zip(incidents) {
            writeln!(out, "{line}\n{below}{}", terminal::paragraph(&below, &summary(incident), width))?;
        }
        return Ok(());
    }
    for (row, incident) in rows.iter_mut().zip(incidents) {
        let summary = summary(incident);
        row.push(width.map_or_else(|| summary.clone(), |width| cut(&summary, width - taken)));
    }
    out.write_all(terminal::table(&COLUMNS, &rows, 2, None).as_bytes())
}

fn row(incident: &Value, now: Timestamp) -> Vec<String> {
    let text = |name: &str| printable(incident[name].as_str().unwrap_or_default()).into_owned();
    let id = text("id");
    let lasted = words(lasted_ms(incident, now));
    vec![
        id.get(id.len().saturating_sub(SHORT)..).unwrap_or(&id).to_owned(),
        text("opened_at").replace('T', " ").chars().take(19).collect(),
        if is_open(incident) { format!("{lasted} so far") } else { lasted },
        text("severity"),
        text("kind"),
    ]
}

fn is_open(incident: &Value) -> bool {
    incident["state"] != "resolved"
}

fn words(ms: u64) -> String {
    // No one counts milliseconds of minutes.
    let ms = if ms < 10_000 { ms } else { ms - ms % 1000 };
    span(ms.saturating_mul(1_000_000))
}

/// How long it lasted, or has lasted by now: not less than when it was last reported, whatever became of the clock.
fn lasted_ms(incident: &Value, now: Timestamp) -> u64 {
    let emitted = incident["duration_ms"].as_u64().unwrap_or(0);
    let began = incident["began_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    match began.filter(|_| is_open(incident)) {
        Some(began) => u64::try_from((now.as_millisecond()).saturating_sub(began.as_millisecond()))
            .map_or(emitted, |lasts| lasts.max(emitted)),
        None => emitted,
    }
}

/// An incident as it was reported last, and how long it has gone on since.
pub(super) fn paragraph(
    incident: &Value,
    text: &str,
    now: Timestamp,
    width: Option<usize>,
    out: &mut impl Write,
) -> io::Result<()> {
    if is_open(incident) {
        let lasts = lasted_ms(incident, now);
        let ago = lasts.saturating_sub(incident["duration_ms"].as_u64().unwrap_or(0));
        writeln!(out, "  Open for {} so far; as it was reported {} ago:\n", words(lasts), words(ago))?;
    }
    let text = text.trim_end();
    match width.filter(|&width| width < STORED_WIDTH) {
        Some(width) => reflowed(text, width, out),
        None => text.lines().try_for_each(|line| writeln!(out, "{}", printable(line))),
    }
}

/// Lines that were broken for a wide page, for a narrow terminal. What is to be done stays as it is: there are
/// commands in it.
fn reflowed(text: &str, width: usize, out: &mut impl Write) -> io::Result<()> {
    let mut remedies = false;
    let mut whole: Vec<(String, usize)> = Vec::new();
    for line in text.lines().map(printable) {
        let indent = line.len() - line.trim_start().len();
        let begun = line.trim_start();
        remedies = begun.starts_with("Try:") || (remedies && indent > 4);
        let word = begun.split(' ').next().unwrap_or_default();
        if let Some((before, hang)) = whole.last_mut()
            && !remedies
            // A headline was one line.
            && before.starts_with("    ")
            && indent == *hang
            && last_line(before) + 1 + cells(word) > STORED_WIDTH
        {
            *before = format!("{before}\n{begun}");
            continue;
        }
        let hang = match indent {
            _ if remedies => usize::MAX,
            0..=2 => 4,
            _ if begun.starts_with(['+', '-']) => 17,
            indent => indent,
        };
        whole.push((line.into_owned(), hang));
    }
    for (line, hang) in whole {
        if hang == usize::MAX {
            writeln!(out, "{line}")?;
            continue;
        }
        let line = line.replace('\n', " ");
        let indent = line.len() - line.trim_start().len();
        let mut lead = " ".repeat(indent);
        for part in lines([Piece::prose(line.trim_start())], indent, hang, Some(width)) {
            writeln!(out, "{}", format!("{lead}{part}").trim_end())?;
            lead = " ".repeat(hang);
        }
    }
    Ok(())
}

/// Cells of the last of some lines that belong together, as it was broken: those after the first had an indent.
fn last_line(lines: &str) -> usize {
    match lines.rsplit_once('\n') {
        Some((first, last)) => {
            let indent = if first.trim_start().starts_with(['+', '-']) { 17 } else { 4 };
            indent + cells(last)
        }
        None => cells(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(state: &str) -> Value {
        serde_json::json!({
            "id": "01M7YXD271WZS0KCJEEWTSMRWB", "kind": "connect_stalled", "state": state, "severity": "warning",
            "began_at": "2026-11-21T10:00:00Z", "opened_at": "2026-11-21T10:00:03Z", "duration_ms": 3000,
            "summary": "raven[1017]'s connect to 192.0.2.64:80 is unanswered after 3.0 s: 3 SYNs, no answer from the network.",
        })
    }

    fn listed(incident: &Value, width: Option<usize>) -> String {
        let mut out = Vec::new();
        table(std::slice::from_ref(incident), &BTreeMap::new(), now(), width, &mut out).expect("a vector");
        String::from_utf8(out).expect("text")
    }

    fn now() -> Timestamp {
        "2026-11-21T10:03:12.5Z".parse().expect("a time")
    }

    #[test]
    fn an_open_incident_lasts_until_now_and_one_that_is_over_as_long_as_it_did() {
        assert!(listed(&incident("updated"), None).contains("  3 min 12 s so far  "));
        assert!(listed(&incident("resolved"), None).contains("  3 s     warning"));
        let before = "2026-11-21T09:00:00Z".parse().expect("a time");
        assert_eq!(lasted_ms(&incident("open"), before), 3000, "a clock that was set back");
    }

    #[test]
    fn the_table_fits_a_terminal_and_hides_nothing_of_a_summary() {
        assert_eq!(
            listed(&incident("open"), Some(80)),
            "\
ID      OPENED (UTC)         LASTED             SEVERITY  KIND
TSMRWB  2026-11-21 10:00:03  3 min 12 s so far  warning   connect_stalled
        raven[1017]'s connect to 192.0.2.64:80 is unanswered after 3.0 s: 3
        SYNs, no answer from the network.
"
        );
        let wide = listed(&incident("open"), Some(130));
        assert!(wide.lines().count() == 2 && wide.lines().all(|line| cells(line) <= 130), "{wide}");
        assert!(listed(&incident("open"), None).ends_with("no answer from the network.\n"));
    }

    #[test]
    fn a_row_says_how_many_stand_behind_it() {
        let (incident, mut out) = (incident("open"), Vec::new());
        let behind = [("01M7YXD271WZS0KCJEEWTSMRWB".to_owned(), 299)].into();
        table(std::slice::from_ref(&incident), &behind, now(), Some(130), &mut out).expect("a vector");
        let listed = String::from_utf8(out).expect("text");
        assert!(listed.contains("connect_stalled  (+299) raven[1017]'s connect to"), "{listed}");
    }

    #[test]
    fn a_paragraph_says_how_long_it_has_gone_on_and_is_broken_again() {
        let text = concat!(
            "  CONNECT STALLED   raven[1017]  since 10:00:00 (3.0 s, still going)                                         certain\n",
            "    raven[1017]'s connect to 192.0.2.64:80 is unanswered after 3.0 s: 3 SYNs, no answer from the network, which is the\n",
            "    end of a sentence.\n",
            "       -3.000 s  raven[1017] connects to 192.0.2.64:80\n",
            "    Try:  allow tcp/80 to 192.0.2.64 in the firewalls and security groups on the way to it from here or elsewhere\n",
            "    Incident 01M8JSK0TM89M23EFF91AKDMT6 on node: warning, opened 2026-11-21T10:00:03Z\n",
        );
        let mut out = Vec::new();
        paragraph(&incident("open"), text, now(), Some(60), &mut out).expect("a vector");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "  Open for 3 min 12 s so far; as it was reported 3 min 9 s ago:

  CONNECT STALLED   raven[1017]  since 10:00:00 (3.0 s,
    still going)
    certain
    raven[1017]'s connect to 192.0.2.64:80 is unanswered
    after 3.0 s: 3 SYNs, no answer from the network, which
    is the end of a sentence.
       -3.000 s  raven[1017] connects to 192.0.2.64:80
    Try:  allow tcp/80 to 192.0.2.64 in the firewalls and security groups on the way to it from here or elsewhere
    Incident 01M8JSK0TM89M23EFF91AKDMT6 on node: warning,
    opened 2026-11-21T10:00:03Z
"
        );
        let mut out = Vec::new();
        paragraph(&incident("resolved"), text, now(), None, &mut out).expect("a vector");
        assert_eq!(String::from_utf8(out).expect("text"), text);
    }
}
