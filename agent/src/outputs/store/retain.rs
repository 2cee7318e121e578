//! What is forgotten: incidents that are over for long enough, and the oldest when the file is too large.
//!
//! Ages are not taken from the wall clock. A clock that jumps to December would empty the store at the moment
//! it is needed, and reporting such clocks is what it is for. Instead the store has an age of its own: the
//! time a daemon ran on it, and at most a day for each time none did.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, Store};
pub use crate::config::Retention;

/// What a time without a daemon adds at most.
const PAUSE_MS: i64 = 86_400_000;
/// Incidents forgotten at once when there is no room.
const AT_ONCE: i64 = 64;

/// The age of a store and the moment that was noted.
const LIVED: &str = "lived_ms";
/// The wall clock when it was noted last.
const SEEN: &str = "seen_wall_ms";

/// The store's own age.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    /// When the daemon opened it.
    base_ms: i64,
    /// Then.
    since: std::time::Instant,
}

impl Age {
    /// Now, in milliseconds.
    pub(super) fn now(&self) -> i64 {
        self.base_ms + i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }
}

pub(super) fn fact(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(super) fn note(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
    connection.prepare_cached(sql)?.execute(params![name, value]).map(drop)
}

/// The store's age as a daemon begins, and when one was last alive by the wall clock.
pub(super) fn begin(connection: &Connection, wall_ms: i64) -> rusqlite::Result<(Age, Option<i64>)> {
    let lived = fact(connection, LIVED)?.unwrap_or(0);
    let seen = fact(connection, SEEN)?;
    let pause = seen.map_or(0, |seen| wall_ms.saturating_sub(seen).clamp(0, PAUSE_MS));
    let age = Age { base_ms: lived.saturating_add(pause), since: std::time::Instant::now() };
    alive(connection, age, wall_ms)?;
    Ok((age, seen))
}

/// Notes that the daemon lives.
pub(super) fn alive(connection: &Connection, age: Age, wall_ms: i64) -> rusqlite::Result<()> {
    note(connection, LIVED, age.now())?;
    note(connection, SEEN, wall_ms)
}

/// Forgets what is too old or too much; how many incidents went.
pub(super) fn forget(connection: &Connection, age: Age, keep: Retention) -> rusqlite::Result<usize> {
    let oldest = age.now().saturating_sub(i64::try_from(keep.age.as_millis()).unwrap_or(i64::MAX));
    let mut gone = connection
        .prepare_cached("DELETE FROM incidents WHERE ended_lived_ms IS NOT NULL AND ended_lived_ms < ?1")?
        .execute([oldest])?;
    let mut forgot = gone > 0;
    while size(connection)? > keep.bytes {
        let sql = "DELETE FROM incidents WHERE id IN
                   (SELECT id FROM incidents ORDER BY open, id LIMIT ?1)";
        let now = connection.prepare_cached(sql)?.execute([AT_ONCE])?;
        if now == 0 {
            break;
        }
        forgot = true;
        gone += now;
    }
    if forgot {
        // Each step gives one page back.
        let mut vacuum = connection.prepare_cached("PRAGMA incremental_vacuum")?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
    }
    Ok(gone)
}

/// Bytes in use; pages that are free will be used again.
fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")? - pragma("freelist_count")?;
    Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or(0))
}

/// What metrics say of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holds {
    /// Incidents.
    pub incidents: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// When the oldest opened, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
}

impl Store {
    /// How much it holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn holds(&self) -> Result<Holds, Error> {
        let reader = self.reader();
        let holds = || {
            let incidents: i64 = reader.query_row("SELECT count(*) FROM incidents", [], |row| row.get(0))?;
            let oldest_ms = reader.query_row("SELECT min(opened_ms) FROM incidents", [], |row| row.get(0))?;
            Ok(Holds { incidents: incidents.unsigned_abs(), bytes: size(&reader)?, oldest_ms })
        };
        holds().map_err(|why| self.sql(why))
    }
}
