//! How many incidents opened and how many are open, by kind and severity. Incidents come as they are emitted:
//! several times each, with severities that change, and again after they were over.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    families::{INCIDENTS, INCIDENTS_EXPLAINED, INCIDENTS_OPEN, INCIDENTS_WORST},
    writer::Writer,
};
use crate::pipeline::incident::{Incident, Kind, Severity, State};

/// Open incidents remembered at most, as many as the correlation keeps. The oldest gives way.
const OPEN: usize = 512;
/// Characters of a summary that are exposed.
const SUMMARY: usize = 200;

/// Incidents so far.
#[derive(Debug, Default)]
pub(super) struct Incidents(Mutex<Account>);

#[derive(Debug, Default)]
struct Account {
    opened: BTreeMap<(Kind, Severity), u64>,
    /// By id, which is in order of time.
    open: BTreeMap<String, Known>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    class: (Kind, Severity),
    /// As it was when the incident got this severity: one that changes with every update would be a new series
    /// each time.
    summary: String,
    /// Incidents that explain it.
    caused_by: Vec<String>,
}

impl Account {
    fn take(&mut self, incident: &Incident) {
        let class = (incident.kind, incident.severity);
        match incident.state {
            State::Open | State::Updated => {
                let known = self.open.get(&incident.id).filter(|known| known.class == class);
                let summary =
                    known.map_or_else(|| printable(&incident.summary), |known| known.summary.clone());
                let caused_by = incident.caused_by.clone();
                let was = self.open.insert(incident.id.clone(), Known { class, summary, caused_by });
                // One that was known before us and is only updated has opened at another time.
                if was.is_none() && incident.state == State::Open {
                    *self.opened.entry(class).or_default() += 1;
                }
            }
            State::Resolved => {
                self.open.remove(&incident.id);
            }
        }
        if self.open.len() > OPEN {
            self.open.pop_first();
        }
    }

    fn open(&self, class: (Kind, Severity)) -> u64 {
        self.open.values().filter(|known| known.class == class).count() as u64
    }

    /// Another incident explains it that is open and at least as severe: that one speaks for it.
    fn is_explained(&self, known: &Known) -> bool {
        let speaks = |id: &String| self.open.get(id).is_some_and(|cause| cause.class.1 >= known.class.1);
        known.caused_by.iter().any(speaks)
    }

    fn explained(&self, class: (Kind, Severity)) -> u64 {
        self.open.values().filter(|known| known.class == class && self.is_explained(known)).count() as u64
    }

    /// Of each kind the oldest of the gravest, one that another explains only where there is none else.
    fn worst(&self) -> BTreeMap<Kind, (String, Known)> {
        let mut worst: BTreeMap<Kind, (String, Known)> = BTreeMap::new();
        let rank = |known: &Known| (!self.is_explained(known), known.class.1);
        for (id, known) in &self.open {
            let kind = known.class.0;
            if worst.get(&kind).is_none_or(|(_, other)| rank(known) > rank(other)) {
                worst.insert(kind, (id.clone(), known.clone()));
            }
        }
        worst
    }
}

/// Summaries hold what strangers have chosen: nothing of it may steer what shows it, and there is an end.
fn printable(summary: &str) -> String {
    let shown = |c: char| if c.is_control() || !(c.is_ascii() || c.is_alphanumeric()) { '?' } else { c };
    summary.chars().take(SUMMARY).map(shown).collect()
}

impl Incidents {
    pub(super) fn take(&self, incident: &Incident) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(incident);
    }

    /// Opened so far, open now, and those of them that others explain; by class, every class in order.
    fn all(&self) -> Vec<((Kind, Severity), [u64; 3])> {
        let account = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let classes =
            Kind::ALL.iter().flat_map(|kind| Severity::ALL.iter().map(|severity| (*kind, *severity)));
        classes
            .map(|class| {
                let opened = account.opened.get(&class).copied().unwrap_or(0);
                (class, [opened, account.open(class), account.explained(class)])
            })
            .collect()
    }
}

impl Collector for Incidents {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.all();
        let labels = |(kind, severity): (Kind, Severity)| [kind.name(), severity.name()];
        let mut to = Writer::new(encoder);
        for (at, family) in [&INCIDENTS, &INCIDENTS_OPEN, &INCIDENTS_EXPLAINED].into_iter().enumerate() {
            to.numbers(family, all.iter().map(|(class, numbers)| (labels(*class), numbers[at])))?;
        }
        let worst = self.0.lock().unwrap_or_else(PoisonError::into_inner).worst();
        let named = worst.values().map(|(id, Known { class: (kind, severity), summary, .. })| {
            ([kind.name(), severity.name(), id.as_str(), summary.as_str()], 1u64)
        });
        to.numbers(&INCIDENTS_WORST, named)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pipeline::incident::{ConnectFailingDetails, Details, SCHEMA};

    pub(in crate::metrics) fn incident(id: &str, state: State, severity: Severity) -> Incident {
        Incident {
            schema: SCHEMA,
            id: id.into(),
            kind: Kind::ConnectFailing,
            state,
            severity,
            began_at: String::new(),
            opened_at: String::new(),
            resolved_at: None,
            duration_ms: 0,
            count: 1,
            node: String::new(),
            process: None,
            summary: String::new(),
            why: vec![],
            cause: None,
            caused_by: vec![],
            remedies: vec![],
            evidence: vec![],
            details: Details::ConnectFailing(ConnectFailingDetails {
                destination: crate::fact::Endpoint {
                    ip: std::net::Ipv4Addr::LOCALHOST.into(),
                    port: 1,
                    name: None,
                    wire: None,
                },
                outcomes: BTreeMap::new(),
                errno: None,
                answered_by_host: None,
                last_attempt_ms: 0,
                destinations: 1,
                worst: vec![],
            }),
        }
    }

    fn counts_of(states: &[(&str, State, Severity)]) -> [(u64, u64); 2] {
        let incidents = Incidents::default();
        for (id, state, severity) in states {
            incidents.take(&incident(id, *state, *severity));
        }
        let all = incidents.all();
        [Severity::Warning, Severity::Critical].map(|severity| {
            let class = (Kind::ConnectFailing, severity);
            all.iter()
                .find(|(known, _)| *known == class)
                .map_or((0, 0), |(_, [opened, open, _])| (*opened, *open))
        })
    }

    use Severity::{Critical, Warning};
    use State::{Open, Resolved, Updated};

    #[test]
    fn an_incident_opens_once_however_often_it_is_emitted() {
        let counted = counts_of(&[("a", Open, Warning), ("a", Updated, Warning), ("a", Open, Warning)]);
        assert_eq!(counted, [(1, 1), (0, 0)]);
    }

    #[test]
    fn a_severity_that_changes_moves_the_open_one_and_opens_none() {
        assert_eq!(counts_of(&[("a", Open, Warning), ("a", Updated, Critical)]), [(1, 0), (0, 1)]);
        let over = counts_of(&[("a", Open, Warning), ("a", Updated, Critical), ("a", Resolved, Warning)]);
        assert_eq!(over, [(1, 0), (0, 0)]);
    }

    #[test]
    fn one_that_begins_again_opens_again() {
        let again = counts_of(&[("a", Open, Warning), ("a", Resolved, Warning), ("a", Open, Critical)]);
        assert_eq!(again, [(1, 0), (1, 1)]);
    }

    #[test]
    fn one_that_was_never_emitted_as_open_is_open_and_one_that_was_never_open_can_be_resolved() {
        assert_eq!(counts_of(&[("a", Updated, Warning), ("b", Resolved, Warning)]), [(0, 1), (0, 0)]);
    }

    #[test]
    fn the_worst_of_a_kind_is_the_oldest_of_the_gravest_with_its_summary_of_then() {
        let incidents = Incidents::default();
        let worst_after = |id: &str, state, severity, summary: &str| {
            incidents.take(&Incident { summary: summary.into(), ..incident(id, state, severity) });
            let worst = incidents.0.lock().expect("no panic").worst();
            worst.get(&Kind::ConnectFailing).map(|(id, known)| format!("{id} {}", known.summary))
        };
        assert_eq!(worst_after("a", Open, Warning, "first").as_deref(), Some("a first"));
        assert_eq!(worst_after("a", Updated, Warning, "longer").as_deref(), Some("a first"));
        assert_eq!(worst_after("b", Open, Critical, "evil\n\u{202e}").as_deref(), Some("b evil??"));
        assert_eq!(worst_after("c", Open, Critical, "third").as_deref(), Some("b evil??"));
        assert_eq!(worst_after("b", Resolved, Critical, "").as_deref(), Some("c third"));
        assert_eq!(worst_after("a", Updated, Critical, "severe").as_deref(), Some("a severe"));
        worst_after("c", Resolved, Critical, "");
        assert_eq!(worst_after("a", Resolved, Critical, ""), None);
    }

    #[test]
    fn one_that_another_explains_is_counted_as_such_while_that_is_open_and_no_less_severe() {
        let incidents = Incidents::default();
        let explained = |incidents: &Incidents| {
            let class = (Kind::ConnectFailing, Warning);
            let all = incidents.all();
            all.iter().find(|(known, _)| *known == class).map(|(_, [_, open, explained])| (*open, *explained))
        };
        incidents.take(&Incident { caused_by: vec!["r".into()], ..incident("a", Open, Warning) });
        assert_eq!(explained(&incidents), Some((1, 0)), "its cause is not known");
        incidents.take(&incident("r", Open, Severity::Info));
        assert_eq!(explained(&incidents), Some((1, 0)), "its cause is only information");
        incidents.take(&incident("r", Updated, Warning));
        assert_eq!(explained(&incidents), Some((2, 1)));
        let worst = incidents.0.lock().expect("no panic").worst();
        assert_eq!(
            worst.get(&Kind::ConnectFailing).map(|(id, _)| id.as_str()),
            Some("r"),
            "though it came later"
        );
        incidents.take(&incident("r", Resolved, Warning));
        assert_eq!(explained(&incidents), Some((1, 0)));
    }

    #[test]
    fn a_bounded_number_is_remembered() {
        let incidents = Incidents::default();
        for number in 0..2 * OPEN {
            incidents.take(&incident(&format!("{number:08}"), Open, Warning));
        }
        let (opened, open) =
            incidents.all().iter().fold((0, 0), |(a, b), (_, [opened, open, _])| (a + opened, b + open));
        assert_eq!((opened, open), (2 * OPEN as u64, OPEN as u64));
    }
}
