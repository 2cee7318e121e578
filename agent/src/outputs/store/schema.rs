//! The tables, and how each version of them became the next. Within a version columns only mean what they
//! meant; the incident itself is kept as the JSON it was emitted as, in the names of the version.

use rusqlite::{Connection, params};

use super::renamed;

/// `application_id` of a store: "culp".
pub(super) const APPLICATION: i64 = 0x6375_6c70;
/// The version this culprit writes: `user_version`.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// What leads from a version to the next.
enum Migration {
    /// Statements.
    Sql(&'static str),
    /// What statements cannot say.
    Does(fn(&Connection) -> rusqlite::Result<()>),
}

use Migration::{Does, Sql};

/// What leads from each version to the next.
const MIGRATIONS: &[Migration] = &[
    // 1: incidents, and what outlives the daemon.
    Sql("CREATE TABLE incidents (
        id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        severity INTEGER NOT NULL,      -- 0 info, 1 warning, 2 critical
        open INTEGER NOT NULL,
        began_ms INTEGER NOT NULL,      -- wall clock, milliseconds since 1970
        opened_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        ended_lived_ms INTEGER,         -- age of the store when it ended: see `retain`
        json TEXT NOT NULL,             -- culprit.incident/v1
        text TEXT NOT NULL              -- for people
     ) WITHOUT ROWID;
     CREATE INDEX incidents_open ON incidents (open) WHERE open = 1;
     CREATE INDEX incidents_ended ON incidents (ended_lived_ms) WHERE ended_lived_ms IS NOT NULL;
     CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"),
    // 2: what webhooks are still to be sent.
    Sql("CREATE TABLE deliveries (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        url TEXT NOT NULL,
        incident TEXT NOT NULL,
        body TEXT NOT NULL,
        queued_lived_ms INTEGER NOT NULL
     );
     CREATE INDEX deliveries_url ON deliveries (url, number);"),
    // 3: what an open incident's text becomes if culprit stops before it is resolved.
    Sql("ALTER TABLE incidents ADD COLUMN unwatched_text TEXT;"),
    // 4: the names of today in what is kept.
    Does(rename),
];

impl Migration {
    fn run(&self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Sql(statements) => connection.execute_batch(statements),
            Does(it) => it(connection),
        }
    }
}

/// Incidents, and what of them webhooks are still to be sent, in the names of today. One at a time: together they may
/// be as large as the store.
fn rename(connection: &Connection) -> rusqlite::Result<()> {
    let ids: Vec<String> = connection
        .prepare("SELECT id FROM incidents")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in ids {
        let json: String = connection
            .prepare_cached("SELECT json FROM incidents WHERE id = ?1")?
            .query_row([&id], |row| row.get(0))?;
        if let Some(json) = renamed::incident(&json) {
            let sql = "UPDATE incidents SET json = ?2 WHERE id = ?1";
            connection.prepare_cached(sql)?.execute(params![id, json])?;
        }
    }
    let numbers: Vec<i64> = connection
        .prepare("SELECT number FROM deliveries")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for number in numbers {
        let body: String = connection
            .prepare_cached("SELECT body FROM deliveries WHERE number = ?1")?
            .query_row([number], |row| row.get(0))?;
        if let Some(body) = renamed::incident(&body) {
            let sql = "UPDATE deliveries SET body = ?2 WHERE number = ?1";
            connection.prepare_cached(sql)?.execute(params![number, body])?;
        }
    }
    Ok(())
}

/// How the file is written; before the first table is made.
pub(super) fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // On disk, not just in the kernel's memory, before anyone is notified.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
    bound_cache(connection)
}

/// At most 256 KiB of pages in the memory of a connection, not the 2 MiB SQLite would fill as the file grows: a few
/// incidents a minute at most are written, the kernel keeps the file's pages anyway, and a daemon that is to stay
/// the same size for months should reach it within minutes.
pub(super) fn bound_cache(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -256)
}

/// Makes the tables, or brings them to this version; all of it or nothing.
pub(super) fn bring_up(connection: &mut Connection) -> rusqlite::Result<()> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = usize::try_from(found).unwrap_or(0);
    if known >= MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for migration in &MIGRATIONS[known..] {
        migration.run(&transaction)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// A store of an earlier version, as it was then.
#[cfg(test)]
pub(super) fn earlier(connection: &Connection, version: usize) -> rusqlite::Result<()> {
    MIGRATIONS[..version].iter().try_for_each(|migration| migration.run(connection))?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", version as i64)
}
