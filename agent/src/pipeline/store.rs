//! The incidents there are: identity, folding of repeats, resolution after a short hold, and what
//! explains what. Bounded; the oldest resolved one gives way first.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};
use ulid::Ulid;

use super::{
    incident::{CauseKind, Details, Evidence, Incident, Kind, SCHEMA, State},
    remedy::Remedy,
    report::Report,
};
use crate::{
    fact::Endpoint,
    known::bounded::{Bounded, Table},
    pipeline::world::World,
    text::printable,
};

/// A situation that begins again within this long of its end is the same incident.
pub(super) const FOLD_NS: u64 = 300_000_000_000;
/// A situation must be over for this long before its incident is resolved.
pub(super) const HOLD_NS: u64 = 2_000_000_000;
/// Incidents kept at most.
const INCIDENTS: usize = 512;
/// Operations known to be explained by an incident, at most.
const CLAIMS: usize = 4096;
/// Characters of one sentence at most.
const SENTENCE: usize = 2048;
/// Observations shown at most: the first ones and the last ones.
const EVIDENCE: usize = 24;

/// The incidents there are.
pub struct Store {
    entries: Vec<Entry>,
    claims: Bounded<u64, String>,
    out: Vec<Incident>,
    opened: u64,
    evicted: u64,
}

struct Entry {
    id: String,
    report: Report,
    opened_ns: u64,
    opened_at: String,
    /// Incidents that explain it, as others found out; a new report does not take them away.
    explained: Vec<String>,
    /// Occurrences before the situation last began again.
    earlier: u64,
    /// The situation is over since.
    ended_ns: Option<u64>,
    /// That was reported.
    resolved: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self { entries: Vec::new(), claims: Bounded::new(CLAIMS), out: Vec::new(), opened: 0, evicted: 0 }
    }
}

impl Store {
    /// Opens an incident, or one of the same kind and subject again; returns its id.
    pub fn open(&mut self, now_ns: u64, world: &World, mut report: Report) -> String {
        let known = self
            .entries
            .iter()
            .position(|entry| entry.report.kind == report.kind && entry.report.subject == report.subject);
        if let Some(at) = known {
            let entry = &mut self.entries[at];
            if entry.ended_ns.take().is_some() {
                entry.explained.clear();
                entry.earlier = entry.earlier.saturating_add(entry.report.count);
            }
            let state = if std::mem::take(&mut entry.resolved) { State::Open } else { State::Updated };
            if state == State::Updated {
                // It was never resolved: it has lasted since its first beginning.
                report.began_ns = report.began_ns.min(entry.report.began_ns);
            }
            entry.report = report;
            let (incident, id) = (entry.incident(now_ns, world, state), entry.id.clone());
            self.out.push(incident);
            return id;
        }
        self.make_room();
        self.opened += 1;
        let entry = Entry {
            id: id_of(now_ns, world, &report),
            report,
            opened_ns: now_ns,
            opened_at: world.wall_text(now_ns),
            explained: vec![],
            earlier: 0,
            ended_ns: None,
            resolved: false,
        };
        let id = entry.id.clone();
        self.out.push(entry.incident(now_ns, world, State::Open));
        self.entries.push(entry);
        id
    }

    /// Emits an open incident again.
    pub fn update(&mut self, now_ns: u64, world: &World, id: &str, report: Report) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else { return };
        entry.replace(report);
        entry.ended_ns = None;
        entry.resolved = false;
        let incident = entry.incident(now_ns, world, State::Updated);
        self.out.push(incident);
    }

    /// The situation ended; it is reported when it has stayed so for [`HOLD_NS`].
    pub fn over(&mut self, ended_ns: u64, id: &str, report: Report) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else { return };
        entry.replace(report);
        entry.ended_ns = Some(ended_ns);
    }

    /// This incident explains what becomes of an operation.
    pub fn claim(&mut self, cookie: u64, id: &str) {
        if self.claims.get(&cookie).is_none_or(|known| known != id) {
            self.claims.insert(cookie, id.to_owned());
        }
    }

    /// Incident `id` explains what became of an operation: whatever incident that is part of points to it.
    pub fn explain(&mut self, now_ns: u64, world: &World, cookie: u64, id: &str) {
        let Some(claimer) = self.claims.get(&cookie) else { return };
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == *claimer && !entry.resolved)
        else {
            return;
        };
        if entry.id == id || entry.caused_by().iter().any(|known| known == id) {
            return;
        }
        entry.explained.push(id.to_owned());
        // One that is over says so when it is resolved.
        if entry.ended_ns.is_none() {
            let incident = entry.incident(now_ns, world, State::Updated);
            self.out.push(incident);
        }
    }

    /// The incident that explains an operation.
    pub fn claimed(&self, cookie: u64) -> Option<&str> {
        self.claims.get(&cookie).map(String::as_str)
    }

    /// The incident that explains an operation and is not resolved yet: its id and kind.
    pub fn live_claim(&self, cookie: u64) -> Option<(&str, Kind)> {
        let id = self.claimed(cookie)?;
        let entry = self.entries.iter().find(|entry| entry.id == id && !entry.resolved)?;
        Some((&entry.id, entry.report.kind))
    }

    /// The id of an incident of this kind and subject that is open.
    pub fn open_id(&self, kind: Kind, subject: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|entry| {
                entry.ended_ns.is_none() && entry.report.kind == kind && entry.report.subject == subject
            })
            .map(|entry| entry.id.as_str())
    }

    /// Ids of incidents of this kind whose subjects begin so and that are not resolved yet.
    pub fn live_ids<'a>(&'a self, kind: Kind, subject: &'a str) -> impl Iterator<Item = &'a str> {
        self.entries
            .iter()
            .filter(move |entry| {
                !entry.resolved && entry.report.kind == kind && entry.report.subject.starts_with(subject)
            })
            .map(|entry| entry.id.as_str())
    }

    /// The same of those that are about this very subject, or about a part of it.
    pub fn live_about<'a>(&'a self, kind: Kind, subject: &'a str) -> impl Iterator<Item = &'a str> {
        let is_it = move |entry: &&Entry| {
            let rest = entry.report.subject.strip_prefix(subject);
            entry.report.kind == kind && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
        };
        self.entries.iter().filter(|entry| !entry.resolved).filter(is_it).map(|entry| entry.id.as_str())
    }

    /// Incidents of this kind that are not resolved yet: ids and details.
    pub fn live(&self, kind: Kind) -> impl Iterator<Item = (&str, &Details)> {
        self.entries
            .iter()
            .filter(move |entry| !entry.resolved && entry.report.kind == kind)
            .map(|entry| (entry.id.as_str(), &entry.report.details))
    }

    /// The kind of an incident that is kept, resolved or not.
    pub fn kind(&self, id: &str) -> Option<Kind> {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| entry.report.kind)
    }

    /// The first remedy of an incident that is kept, resolved or not.
    pub fn remedy(&self, id: &str) -> Option<&Remedy> {
        let entry = self.entries.iter().find(|entry| entry.id == id)?;
        entry.report.remedies.first()
    }

    /// How full what is remembered is.
    pub(super) fn tables(&self) -> [Table; 2] {
        let incidents = Table {
            name: "incidents",
            entries: self.entries.len() as u64,
            capacity: INCIDENTS as u64,
            evictions: self.evicted,
        };
        [incidents, self.claims.table("incident_claims")]
    }

    /// Incidents opened so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Time has come to here.
    pub(super) fn tick(&mut self, now_ns: u64, world: &World) {
        for entry in &mut self.entries {
            let Some(ended_ns) = entry.ended_ns else { continue };
            if !entry.resolved && now_ns.saturating_sub(ended_ns) >= HOLD_NS {
                entry.resolved = true;
                self.out.push(entry.incident(ended_ns, world, State::Resolved));
            }
        }
        let gone = |entry: &Entry| entry.ended_ns.is_some_and(|ended| now_ns.saturating_sub(ended) > FOLD_NS);
        self.entries.retain(|entry| !gone(entry));
    }

    /// What is to be reported, in order.
    pub(super) fn take(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.out)
    }

    fn make_room(&mut self) {
        if self.entries.len() < INCIDENTS {
            return;
        }
        let oldest = (0..self.entries.len()).min_by_key(|&at| {
            (!self.entries[at].resolved, self.entries[at].ended_ns.unwrap_or(self.entries[at].opened_ns))
        });
        if let Some(at) = oldest {
            self.entries.remove(at);
            self.evicted += 1;
        }
    }
}

impl Entry {
    /// The same situation, emitted again: it began when it began, and as long as the cause is the same, what has
    /// explained it still does.
    fn replace(&mut self, mut report: Report) {
        report.began_ns = report.began_ns.min(self.report.began_ns);
        // A neighbour that answers again leaves the connect that had waited for it.
        let kind = |kind: CauseKind| match kind {
            CauseKind::Neighbour => CauseKind::OutboundConnect,
            other => other,
        };
        let at = |end: &Endpoint| (end.ip, end.port);
        let cause = |of: &Report| {
            of.cause.as_ref().map(|cause| (kind(cause.kind), cause.destination.as_ref().map(at)))
        };
        if cause(&report) == cause(&self.report) {
            for id in &self.report.caused_by {
                if !report.caused_by.contains(id) {
                    report.caused_by.push(id.clone());
                }
            }
        }
        self.report = report;
    }

    /// As it is at `now_ns`; once it is over, that is when it ended.
    fn incident(&self, now_ns: u64, world: &World, state: State) -> Incident {
        let (report, caused_by) = (self.report.clone(), self.caused_by());
        let resolved = (state == State::Resolved).then(|| world.wall_text(now_ns));
        Incident {
            schema: SCHEMA,
            id: self.id.clone(),
            kind: report.kind,
            state,
            severity: report.severity,
            began_at: world.wall_text(report.began_ns),
            opened_at: self.opened_at.clone(),
            resolved_at: resolved,
            duration_ms: now_ns.saturating_sub(report.began_ns) / 1_000_000,
            count: self.earlier.saturating_add(report.count),
            node: world.known.node().to_owned(),
            process: report.process,
            summary: sentence(&report.summary),
            why: report.why.iter().map(|why| sentence(why)).collect(),
            cause: report.cause,
            caused_by,
            remedies: report.remedies,
            evidence: self.evidence(report.evidence),
            details: report.details,
        }
    }

    fn caused_by(&self) -> Vec<String> {
        let mut ids = self.report.caused_by.clone();
        ids.extend(self.explained.iter().filter(|id| !self.report.caused_by.contains(id)).cloned());
        ids
    }

    fn evidence(&self, mut seen: Vec<(u64, String)>) -> Vec<Evidence> {
        seen.sort_by_key(|(at, _)| *at);
        if seen.len() > EVIDENCE {
            seen.drain(EVIDENCE / 2..seen.len() - EVIDENCE / 2);
        }
        let offset = |at: u64| (at as i64).wrapping_sub(self.opened_ns as i64) / 1_000_000;
        seen.into_iter().map(|(at, text)| Evidence { offset_ms: offset(at), text: sentence(&text) }).collect()
    }
}

/// A sentence as it is reported: with nothing hidden in it, and bounded, whatever names it holds.
fn sentence(text: &str) -> String {
    let shown = printable(text);
    match shown.char_indices().nth(SENTENCE) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.into_owned(),
    }
}

/// A ULID whose time is that of opening, by the clock as it stood when culprit began, so that ids stay in
/// order when it is set. Its random part is none: a hash of what the incident is about, so that a replay
/// makes the same.
fn id_of(now_ns: u64, world: &World, report: &Report) -> String {
    let mut hasher = SipHasher13::new();
    for part in [world.known.node(), report.kind.name(), &report.subject] {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.write_u64(now_ns);
    Ulid::from_parts(world.steady_ms(now_ns), hasher.finish128().as_u128()).to_string()
}
