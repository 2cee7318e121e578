//! `-c`: tables of what happened, as `strace -c` prints one: by probe, kind and outcome, then by process and
//! destination, the troubled ones first; and the incidents there were.

mod incidents;
mod peers;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    domains::{Fact, What},
    outputs::text,
    pipeline::incident::Incident,
    terminal::{self, Column},
};

/// Rows kept at most; what comes after is counted under `other`.
const ROWS: usize = 256;

const COLUMNS: &[Column<'static>] = &[
    Column { heading: "count", least: 9, right: true, breaks: false },
    Column { heading: "mean", least: 11, right: true, breaks: false },
    Column { heading: "max", least: 11, right: true, breaks: false },
    Column { heading: "probe", least: 7, right: false, breaks: false },
    Column { heading: "what", least: 0, right: false, breaks: true },
];

/// Counts and times.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<(&'static str, String), Row>,
    peers: peers::Peers,
    incidents: incidents::Incidents,
}

#[derive(Debug, Default)]
struct Row {
    count: u64,
    times: Times,
}

/// How long things took.
#[derive(Debug, Default)]
struct Times {
    total_ms: f64,
    max_ms: f64,
    count: u64,
}

impl Times {
    fn add(&mut self, ms: f64) {
        self.count += 1;
        self.total_ms += ms;
        self.max_ms = self.max_ms.max(ms);
    }

    /// In words: the mean, and the longest.
    fn words(&self) -> [String; 2] {
        if self.count == 0 {
            return ["-".to_owned(), "-".to_owned()];
        }
        [
            crate::text::duration::line(self.total_ms / self.count as f64),
            crate::text::duration::line(self.max_ms),
        ]
    }
}

impl Table {
    /// Takes a fact in.
    pub fn add(&mut self, fact: &Fact) {
        let (label, ms) = label(&fact.what);
        let mut key = (fact.probe, label);
        if !self.rows.contains_key(&key) && self.rows.len() >= ROWS {
            key.1 = "other".into();
        }
        let row = self.rows.entry(key).or_default();
        row.count += 1;
        if let Some(ms) = ms {
            row.times.add(ms);
        }
        self.peers.add(fact);
    }

    /// Takes an incident in, as it stands now.
    pub fn incident(&mut self, incident: Incident) {
        self.incidents.add(incident);
    }

    /// Writes the tables: most frequent first within each probe, then what is in trouble, then the incidents.
    pub fn write(&self, style: text::Style, out: &mut impl Write) -> io::Result<()> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|((a, _), x), ((b, _), y)| a.cmp(b).then(y.count.cmp(&x.count)));
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|((probe, what), row)| {
                let [mean, max] = row.times.words();
                vec![row.count.to_string(), mean, max, (*probe).to_owned(), what.clone()]
            })
            .collect();
        out.write_all(terminal::table(COLUMNS, &rows, 2, style.width).as_bytes())?;
        self.peers.write(style, out)?;
        self.incidents.write(style, out)
    }
}

fn label(what: &What) -> (String, Option<f64>) {
    let described = what.described();
    match described.label() {
        Some(label) => (label, described.weight().ms),
        None => (kind(what), None),
    }
}

/// The JSON kind, in words.
fn kind(what: &What) -> String {
    serde_json::to_value(what)
        .ok()
        .and_then(|value| Some(value.get("kind")?.as_str()?.replace('_', " ")))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
