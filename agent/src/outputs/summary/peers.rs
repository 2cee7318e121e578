//! Operations by process and destination: how many there were, failed or are not over, and how long they took. A
//! program's processes share a row, so that a server that forks is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use super::{ROWS, Times, text};
use crate::{
    domains::{Fact, Operation, Step},
    terminal::{self, Column},
    text::shown,
};

/// Processes of one row distinguished at most.
const PROCESSES: usize = 1024;

const COLUMNS: &[Column<'static>] = &[
    Column { heading: "calls", least: 7, right: true, breaks: false },
    Column { heading: "failed", least: 6, right: true, breaks: false },
    Column { heading: "open", least: 4, right: true, breaks: false },
    Column { heading: "mean", least: 7, right: true, breaks: false },
    Column { heading: "max", least: 7, right: true, breaks: false },
    Column { heading: "process", least: 16, right: false, breaks: true },
    Column { heading: "destination", least: 0, right: false, breaks: true },
];

/// By program, probe and destination.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<(String, &'static str, String), Row>);

#[derive(Debug, Default)]
struct Row {
    begun: u64,
    ended: u64,
    failed: u64,
    times: Times,
    /// The longest wait of one that is not over.
    waits_ms: f64,
    processes: BTreeSet<u32>,
}

impl Peers {
    pub(super) fn add(&mut self, fact: &Fact) {
        let Some(Operation { destination: to, step }) = fact.what.described().operation() else { return };
        let who = fact.process.as_ref().map_or_else(
            || "-".to_owned(),
            |process| {
                let place = process.belongs().map(|place| format!("{place} ")).unwrap_or_default();
                format!("{place}{}", shown(&process.comm))
            },
        );
        let mut key = (who, fact.probe, to);
        if !self.0.contains_key(&key) && self.0.len() >= ROWS {
            key = ("other".into(), "", "other".into());
        }
        let row = self.0.entry(key).or_default();
        if let Some(process) = &fact.process
            && row.processes.len() < PROCESSES
        {
            row.processes.insert(process.pid);
        }
        match step {
            Step::Begun => row.begun += 1,
            Step::Waits(ms) => row.waits_ms = row.waits_ms.max(ms),
            Step::Ended { failed, ms } => {
                row.ended += 1;
                row.failed += u64::from(failed);
                if let Some(ms) = ms {
                    row.times.add(ms);
                }
            }
        }
    }

    pub(super) fn write(&self, style: text::Style, out: &mut impl Write) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<_> = self.0.iter().collect();
        // Trouble first, then what there is most of; else by name.
        rows.sort_by_key(|(_, row)| std::cmp::Reverse((row.failed + row.open(), row.calls())));
        let rows: Vec<Vec<String>> = rows.into_iter().map(|((who, _, to), row)| row.cells(who, to)).collect();
        writeln!(out)?;
        out.write_all(terminal::table(COLUMNS, &rows, 2, style.width).as_bytes())
    }
}

impl Row {
    /// The beginnings may be what filters leave out.
    fn calls(&self) -> u64 {
        self.begun.max(self.ended).max(u64::from(self.waits_ms > 0.0))
    }

    fn open(&self) -> u64 {
        self.calls() - self.ended
    }

    fn cells(&self, who: &str, to: &str) -> Vec<String> {
        let pid = match (self.processes.len(), self.processes.first()) {
            (0, _) | (_, None) => String::new(),
            (1, Some(pid)) => format!("[{pid}]"),
            (PROCESSES, _) => format!(" ({PROCESSES} processes or more)"),
            (many, _) => format!(" ({many} processes)"),
        };
        let [mean, mut max] = self.times.words();
        if self.open() > 0 && self.waits_ms > self.times.max_ms {
            max = crate::text::duration::line(self.waits_ms);
        }
        let numbers = [self.calls(), self.failed, self.open()].map(|number| number.to_string());
        numbers.into_iter().chain([mean, max, format!("{who}{pid}"), to.to_owned()]).collect()
    }
}
