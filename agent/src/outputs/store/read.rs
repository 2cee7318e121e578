//! The reading end: which incidents, in which order, how many at once.

use rusqlite::{OptionalExtension, ToSql};

use super::{Error, Store, renamed};
use crate::severity::Severity;

/// Incidents in one answer at most.
const MOST: u32 = 10_000;
/// Incidents in one answer over HTTP at most: each may take some kilobytes.
pub const PAGE: u32 = 1000;

/// Which incidents are wanted; all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Of one of these kinds; any when empty.
    pub kinds: Vec<String>,
    /// At least this severe.
    pub severity: Severity,
    /// Going on (`true`) or over.
    pub open: Option<bool>,
    /// Going on at this moment or later, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Opened at this moment or before.
    pub until_ms: Option<i64>,
    /// Its JSON says this somewhere; case does not matter.
    pub text: Option<String>,
    /// Older than this one.
    pub before: Option<String>,
    /// So many at most.
    pub limit: u32,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            kinds: Vec::new(),
            severity: Severity::Info,
            open: None,
            since_ms: None,
            until_ms: None,
            text: None,
            before: None,
            limit: 100,
        }
    }
}

/// An incident as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// `culprit.incident/v1`.
    pub json: String,
    /// For people.
    pub text: String,
}

/// What is found by an id or the end of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// This.
    One(Kept),
    /// Several end like that.
    Several(Vec<String>),
}

fn kept(row: &rusqlite::Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept { id: row.get(0)?, json: row.get(1)?, text: row.get(2)? })
}

impl Store {
    /// The incidents, newest first, and whether there are more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn incidents(&self, query: &Query) -> Result<(Vec<Kept>, bool), Error> {
        let mut wanted = vec!["severity >= ?".to_owned()];
        let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(query.severity.rank())];
        if !query.kinds.is_empty() {
            wanted.push(format!("kind IN ({})", vec!["?"; query.kinds.len()].join(", ")));
            values.extend(query.kinds.iter().map(|kind| Box::new(kind.clone()) as Box<dyn ToSql>));
        }
        if let Some(open) = query.open {
            wanted.push("open = ?".into());
            values.push(Box::new(open));
        }
        if let Some(since) = query.since_ms {
            wanted.push("(ended_ms IS NULL OR ended_ms >= ?)".into());
            values.push(Box::new(since));
        }
        if let Some(until) = query.until_ms {
            wanted.push("opened_ms <= ?".into());
            values.push(Box::new(until));
        }
        if let Some(text) = &query.text {
            wanted.push("instr(lower(json), ?) > 0".into());
            values.push(Box::new(text.to_lowercase()));
        }
        if let Some(before) = &query.before {
            wanted.push("id < ?".into());
            values.push(Box::new(before.clone()));
        }
        let limit = query.limit.min(MOST);
        let wanted = wanted.join(" AND ");
        let sql = format!("SELECT id, json, text FROM incidents WHERE {wanted} ORDER BY id DESC LIMIT ?");
        values.push(Box::new(i64::from(limit) + 1));
        let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
        let reader = self.reader();
        let found: rusqlite::Result<Vec<Kept>> = reader
            .prepare_cached(&sql)
            .and_then(|mut statement| statement.query_map(values.as_slice(), kept)?.collect());
        let mut found = found.map_err(|why| self.sql(why))?;
        found.iter_mut().for_each(|kept| self.name(kept));
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        Ok((found, more))
    }

    /// One incident, by its id or the end of it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn incident(&self, id: &str) -> Result<Found, Error> {
        let id = id.to_uppercase();
        let reader = self.reader();
        let find = || {
            let whole = reader
                .prepare_cached("SELECT id, json, text FROM incidents WHERE id = ?1")?
                .query_row([&id], kept)
                .optional()?;
            if let Some(kept) = whole {
                return Ok(Found::One(kept));
            }
            // A short end would look through everything to find too much.
            if id.len() < 4 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Ok(Found::Nothing);
            }
            let sql = "SELECT id, json, text FROM incidents WHERE substr(id, -length(?1)) = ?1
                       ORDER BY id DESC LIMIT 5";
            let mut found: Vec<Kept> =
                reader.prepare_cached(sql)?.query_map([&id], kept)?.collect::<rusqlite::Result<_>>()?;
            Ok(match found.len() {
                0 => Found::Nothing,
                1 => Found::One(found.remove(0)),
                _ => Found::Several(found.into_iter().map(|kept| kept.id).collect()),
            })
        };
        let mut found = find().map_err(|why| self.sql(why))?;
        if let Found::One(kept) = &mut found {
            self.name(kept);
        }
        Ok(found)
    }

    /// In the names of today, whatever version wrote it.
    fn name(&self, kept: &mut Kept) {
        if self.0.earlier
            && let Some(json) = renamed::incident(&kept.json)
        {
            kept.json = json;
        }
    }
}
