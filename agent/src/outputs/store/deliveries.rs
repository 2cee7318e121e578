//! What webhooks are still to be sent: a queue on disk, written in the same transaction as the incident.
//! Bounded: the oldest give way.

use std::collections::{HashMap, hash_map::Entry};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, Store};
use crate::{
    outputs::{Rendered, WEBHOOK},
    pipeline::incident::{CauseKind, Confidence, State},
    severity::Severity,
};

/// Incidents whose last reported state is remembered, at most.
const REMEMBERED: usize = 4096;

/// Who is to be notified of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// Where to.
    pub urls: Vec<String>,
    /// From this severity on.
    pub severity: Severity,
}

/// A delivery that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the queue.
    pub number: i64,
    /// The incident's id.
    pub incident: String,
    /// What to POST.
    pub body: String,
    /// How long it has waited, milliseconds.
    pub age_ms: i64,
}

/// What was last queued of each incident: an update that says nothing new is not worth a call.
#[derive(Default)]
pub(super) struct Subscribers(HashMap<String, Essence>);

type Essence = (Severity, Option<(CauseKind, Confidence)>);

impl Subscribers {
    pub(super) fn queue(
        &mut self,
        connection: &Connection,
        rendered: &Rendered,
        to: &Subscriptions,
        lived_ms: i64,
    ) -> rusqlite::Result<u64> {
        let incident = &rendered.incident;
        if to.urls.is_empty() || incident.severity < to.severity {
            return Ok(0);
        }
        let essence =
            (incident.severity, incident.cause.as_ref().map(|cause| (cause.kind, cause.confidence)));
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let news = match self.0.entry(incident.id.clone()) {
            Entry::Occupied(mut known) => known.insert(essence) != essence,
            Entry::Vacant(new) => {
                new.insert(essence);
                true
            }
        };
        if incident.state == State::Resolved {
            self.0.remove(&incident.id);
        } else if incident.state == State::Updated && !news {
            return Ok(0);
        }
        for url in &to.urls {
            let sql = "INSERT INTO deliveries (url, incident, body, queued_lived_ms) VALUES (?1, ?2, ?3, ?4)";
            connection.prepare_cached(sql)?.execute(params![url, incident.id, rendered.json(), lived_ms])?;
        }
        Ok(to.urls.len() as u64)
    }
}

impl Store {
    /// The next delivery to `url`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn next_delivery(&self, url: &str) -> Result<Option<Delivery>, Error> {
        let sql = "SELECT number, incident, body,
                          (SELECT value FROM facts WHERE name = 'lived_ms') - queued_lived_ms
                   FROM deliveries WHERE url = ?1 ORDER BY number LIMIT 1";
        let row = |row: &rusqlite::Row<'_>| {
            Ok(Delivery {
                number: row.get(0)?,
                incident: row.get(1)?,
                body: row.get(2)?,
                age_ms: row.get::<_, Option<i64>>(3)?.unwrap_or(0),
            })
        };
        let found =
            self.reader().prepare_cached(sql).and_then(|mut sql| sql.query_row([url], row).optional());
        found.map_err(|why| self.sql(why))
    }

    /// A delivery is over, one way or the other.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn delivered(&self, number: i64) -> Result<(), Error> {
        let sql = "DELETE FROM deliveries WHERE number = ?1";
        let done = self.writer().prepare_cached(sql).and_then(|mut sql| sql.execute([number]));
        done.map(drop).map_err(|why| self.sql(why))
    }

    /// Deliveries that wait; the oldest beyond the bound are given up first, and counted in the second part.
    /// So are those to URLs that are no longer configured.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn waiting_deliveries(&self, urls: &[String]) -> Result<(usize, usize), Error> {
        let writer = self.writer();
        let tidy = || {
            let known: Vec<String> = writer
                .prepare_cached("SELECT DISTINCT url FROM deliveries")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut gone = 0;
            for url in known.iter().filter(|url| !urls.contains(url)) {
                gone += writer.execute("DELETE FROM deliveries WHERE url = ?1", [url])?;
            }
            let sql = "DELETE FROM deliveries WHERE number IN
                       (SELECT number FROM deliveries ORDER BY number DESC LIMIT -1 OFFSET ?1)";
            gone += writer.prepare_cached(sql)?.execute([WEBHOOK.capacity as i64])?;
            let waiting: i64 = writer.query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0))?;
            Ok((usize::try_from(waiting).unwrap_or(0), gone))
        };
        tidy().map_err(|why| self.sql(why))
    }
}
