//! Tables as rows of text with what they are sorted by: what is in which column, and how wide it is.

use std::{cmp::Ordering, sync::Arc};

use super::{
    collect::Snapshot,
    words::{age, who},
};
use crate::{
    pipeline::incident::{CauseKind, Incident, Severity, State},
    text::printable,
};

/// A table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Incidents,
    Pending,
    Failing,
}

/// A column: its title, its width at 80 columns, and how large a part it gets of what there is beyond.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    pub(super) grows: u16,
}

const fn column(title: &'static str, width: u16, grows: u16) -> Column {
    Column { title, width, grows }
}

impl Tab {
    pub(super) const ALL: [Self; 3] = [Self::Incidents, Self::Pending, Self::Failing];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Incidents => "Incidents",
            Self::Pending => "Pending",
            Self::Failing => "Failing",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Incidents => {
                &const {
                    [
                        column("SEV", 4, 0),
                        column("KIND", 21, 0),
                        column("PROCESS", 16, 2),
                        column("DESTINATION", 18, 3),
                        column("FOR", 7, 0),
                        column("CAUSE", 9, 0),
                    ]
                }
            }
            Self::Pending => {
                &const {
                    [
                        column("WHAT", 9, 0),
                        column("PROCESS", 18, 2),
                        column("DESTINATION", 23, 3),
                        column("FOR", 7, 0),
                        column("STATE", 19, 3),
                    ]
                }
            }
            Self::Failing => {
                &const {
                    [
                        column("PROCESS", 17, 2),
                        column("DESTINATION", 20, 3),
                        column("ERROR", 20, 3),
                        column("COUNT", 6, 0),
                        column("/MIN", 5, 0),
                        column("LAST", 7, 0),
                    ]
                }
            }
        }
    }

    /// The column a table is sorted by at first, and whether the largest comes first.
    pub(super) fn order(self) -> (usize, bool) {
        match self {
            Self::Incidents => (0, true),
            Self::Pending => (3, true),
            Self::Failing => (4, true),
        }
    }
}

/// One line of a table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// What it is about, as long as it lives.
    pub(super) key: String,
    pub(super) cells: Vec<String>,
    /// What columns with numbers are sorted by.
    numbers: Vec<Option<u64>>,
    pub(super) severity: Option<Severity>,
    pub(super) incident: Option<Arc<Incident>>,
}

impl Row {
    /// How it stands to another by a column; what has the same there is in the order of its keys.
    pub(super) fn compare(&self, other: &Self, column: usize, largest_first: bool) -> Ordering {
        let order = match (self.numbers[column], other.numbers[column]) {
            (Some(one), Some(two)) => one.cmp(&two),
            _ => self.cells[column].cmp(&other.cells[column]),
        };
        let order = if largest_first { order.reverse() } else { order };
        order.then_with(|| self.key.cmp(&other.key))
    }

    /// Whether a text in lower case is somewhere in it.
    pub(super) fn has(&self, text: &str) -> bool {
        let summary = self.incident.as_ref().map(|incident| printable(&incident.summary).to_lowercase());
        self.cells.iter().any(|cell| cell.to_lowercase().contains(text))
            || summary.is_some_and(|summary| summary.contains(text))
    }
}

/// All rows of a table, in no particular order.
pub(super) fn rows(snapshot: &Snapshot, tab: Tab) -> Vec<Row> {
    let since = |then: u64| snapshot.now_ns.saturating_sub(then);
    match tab {
        Tab::Incidents => {
            let row = |(incident, emitted): &(Arc<Incident>, u64)| row(incident, since(*emitted));
            snapshot.incidents.iter().map(row).collect()
        }
        Tab::Pending => (snapshot.pending.iter())
            .map(|pending| Row {
                key: format!(
                    "{} {} {} {}",
                    pending.what, pending.process, pending.destination, pending.since_ns
                ),
                cells: vec![
                    pending.what.into(),
                    pending.process.clone(),
                    pending.destination.clone(),
                    age(since(pending.since_ns)),
                    pending.state.clone(),
                ],
                numbers: vec![None, None, None, Some(since(pending.since_ns)), None],
                severity: None,
                incident: None,
            })
            .collect(),
        Tab::Failing => (snapshot.failing.iter())
            .map(|failing| Row {
                key: format!("{} {} {}", failing.process, failing.destination, failing.error),
                cells: vec![
                    failing.process.clone(),
                    failing.destination.clone(),
                    failing.error.clone(),
                    failing.count.to_string(),
                    failing.rate.to_string(),
                    age(since(failing.last_ns)),
                ],
                numbers: vec![
                    None,
                    None,
                    None,
                    Some(failing.count),
                    Some(failing.rate),
                    Some(since(failing.last_ns)),
                ],
                severity: None,
                incident: None,
            })
            .collect(),
    }
}

/// How long an incident has lasted, so long after it was reported.
pub(super) fn lasted_ns(incident: &Incident, emitted_ago_ns: u64) -> u64 {
    let then = incident.duration_ms.saturating_mul(1_000_000);
    if incident.state == State::Resolved { then } else { then.saturating_add(emitted_ago_ns) }
}

fn row(incident: &Arc<Incident>, emitted_ago_ns: u64) -> Row {
    let over = incident.state == State::Resolved;
    let lasted = lasted_ns(incident, emitted_ago_ns);
    let (severity, rank) = match incident.severity {
        _ if over => ("over", 0),
        Severity::Info => ("info", 1),
        Severity::Warning => ("WARN", 2),
        Severity::Critical => ("CRIT", 3),
    };
    let cause = incident.cause.as_ref().map_or("-", |cause| match cause.kind {
        CauseKind::OutboundConnect => "connect",
        CauseKind::DnsLookup => "lookup",
        CauseKind::Neighbour => "neighbour",
        CauseKind::Clock => "clock",
        CauseKind::LocalService => "local service",
        CauseKind::Peer => "peer",
        CauseKind::Path => "path",
        CauseKind::Filter => "filter",
        CauseKind::Unread => "unread",
        CauseKind::ListenLimit => "listen limit",
        CauseKind::Certificate => "certificate",
        CauseKind::Parameters => "parameters",
        CauseKind::NoneSeen => "none seen",
        CauseKind::FileSystem => "file system",
        CauseKind::Pipe => "pipe",
        CauseKind::ResourceLimit => "limit",
        CauseKind::Throttled => "throttled",
        CauseKind::Frozen => "frozen",
    });
    Row {
        key: incident.id.clone(),
        cells: vec![
            severity.into(),
            incident.kind.name().replace('_', " "),
            who(incident.process.as_ref()),
            incident.details.described().place(),
            age(lasted),
            cause.into(),
        ],
        // Of the same severity, those that last longest first.
        numbers: vec![Some((rank << 60) | (lasted >> 4)), None, None, None, Some(lasted), None],
        severity: (!over).then_some(incident.severity),
        incident: Some(incident.clone()),
    }
}
