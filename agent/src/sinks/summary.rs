//! `-c`: a table of what happened, by probe, kind and outcome, as `strace -c` prints one.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    fact::{Fact, What},
    sinks::text,
    text::duration,
};

/// Rows kept at most; what comes after is counted under `other`.
const ROWS: usize = 256;

/// Counts and times by probe and kind.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<(&'static str, String), Row>,
}

#[derive(Debug, Default)]
struct Row {
    count: u64,
    total_ms: f64,
    max_ms: f64,
    timed: u64,
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
            row.timed += 1;
            row.total_ms += ms;
            row.max_ms = row.max_ms.max(ms);
        }
    }

    /// Writes the table, most frequent first within each probe.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:>9}  {:>11}  {:>11}  {:<8} what", "count", "mean", "max", "probe")?;
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|((a, _), x), ((b, _), y)| a.cmp(b).then(y.count.cmp(&x.count)));
        for ((probe, what), row) in rows {
            let (mean, max) = if row.timed == 0 {
                (String::from("-"), String::from("-"))
            } else {
                (duration::line(row.total_ms / row.timed as f64), duration::line(row.max_ms))
            };
            writeln!(out, "{:>9}  {mean:>11}  {max:>11}  {probe:<8} {what}", row.count)?;
        }
        Ok(())
    }
}

fn label(what: &What) -> (String, Option<f64>) {
    match what {
        What::ConnectEnded { outcome, errno, duration_ms, .. } => {
            let name = text::outcome_name(*outcome);
            let label = match errno {
                Some(errno) => format!("{name} ({errno})"),
                None => name.to_owned(),
            };
            (label, Some(*duration_ms))
        }
        What::DnsAnswer { rcode, latency_ms, .. } => (format!("answer {rcode}"), *latency_ms),
        What::HandshakeDone { duration_ms, version, .. } => (
            format!("handshake done {}", version.as_deref().unwrap_or("")).trim_end().to_owned(),
            Some(*duration_ms),
        ),
        What::Alert { description, duration_ms, .. } => {
            (format!("alert {}", description.as_deref().unwrap_or("encrypted")), Some(*duration_ms))
        }
        What::HandshakeClosed { duration_ms, .. } => ("handshake closed".into(), Some(*duration_ms)),
        What::NotTls { duration_ms, .. } => ("not TLS".into(), Some(*duration_ms)),
        other => (kind(other), None),
    }
}

/// The JSON kind, in words.
fn kind(what: &What) -> String {
    serde_json::to_value(what)
        .ok()
        .and_then(|value| Some(value.get("kind")?.as_str()?.replace('_', " ")))
        .unwrap_or_default()
}
