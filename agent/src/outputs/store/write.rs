//! The writing end: incidents are on disk before anyone is notified of them. A batch is one transaction.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use serde_json::Value;

use super::{
    Error, Retention, Store, deliveries, is_damage,
    retain::{self, Age},
};
use crate::{
    outputs::{
        Rendered,
        queue::{Counts, Sink},
    },
    pipeline::incident::State,
};

/// How often the store's age is noted and what is too old forgotten.
const TIDY: Duration = Duration::from_secs(60);
/// Failures are logged at most this often.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What is reported once it is on disk.
pub type Written = Box<dyn Fn(&Arc<Rendered>) + Send>;

/// The sink.
pub struct Writer {
    store: Store,
    age: Age,
    /// What may change while it runs.
    options: Arc<Mutex<Options>>,
    tidied: Instant,
    complained: Option<Instant>,
    /// Called in order, for each incident, whether or not it could be written.
    written: Written,
    subscribers: deliveries::Subscribers,
    /// What becomes of deliveries.
    webhooks: Arc<Counts>,
}

/// What a reload may change.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is forgotten.
    pub retention: Retention,
    /// Who is notified.
    pub subscriptions: deliveries::Subscriptions,
}

impl Writer {
    /// Takes over a store: whatever was open when the last daemon went is closed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(
        store: Store,
        options: Arc<Mutex<Options>>,
        webhooks: Arc<Counts>,
        written: Written,
    ) -> Result<Self, Error> {
        let now = jiff::Timestamp::now().as_millisecond();
        let begin = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let (age, seen) = retain::begin(&transaction, now)?;
            close_abandoned(&transaction, seen.unwrap_or(now), age.now())?;
            transaction.commit()?;
            Ok(age)
        };
        let age = begin(&mut store.writer()).map_err(|why| store.sql(why))?;
        let mut writer = Self {
            store,
            age,
            options,
            tidied: Instant::now(),
            complained: None,
            written,
            subscribers: deliveries::Subscribers::default(),
            webhooks,
        };
        writer.tidy();
        Ok(writer)
    }

    /// `Err`: nothing of it was written.
    fn write(&mut self, rendered: &[Arc<Rendered>]) -> rusqlite::Result<()> {
        let options = self.options.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection = self.store.writer();
        let transaction = connection.transaction()?;
        let mut queued = 0;
        for rendered in rendered {
            put(&transaction, rendered, self.age.now())?;
            queued +=
                self.subscribers.queue(&transaction, rendered, &options.subscriptions, self.age.now())?;
        }
        transaction.commit()?;
        self.webhooks.received.fetch_add(queued, Relaxed);
        self.webhooks.waiting.fetch_add(queued as usize, Relaxed);
        Ok(())
    }

    fn tidy(&mut self) {
        self.tidied = Instant::now();
        let Options { retention: keep, subscriptions } =
            self.options.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.store.waiting_deliveries(&subscriptions.urls) {
            Ok((waiting, gone)) => {
                self.webhooks.waiting.store(waiting, Relaxed);
                self.webhooks.full.fetch_add(gone as u64, Relaxed);
            }
            Err(error) => tracing::error!("{error}"),
        }
        let now = jiff::Timestamp::now().as_millisecond();
        let tidied = {
            let connection = self.store.writer();
            retain::alive(&connection, self.age, now)
                .and_then(|()| retain::forget(&connection, self.age, keep))
        };
        match tidied {
            Ok(0) => {}
            Ok(gone) => tracing::info!(incidents = gone, "the store forgot incidents that were old enough"),
            Err(error) => self.failed(&error),
        }
    }

    /// What a reader found is the writer's to mend.
    fn mend(&mut self) {
        if self.store.0.damaged.load(Relaxed) {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            self.failed(&rusqlite::Error::SqliteFailure(code, Some("it could not be read".into())));
        }
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        if is_damage(error) {
            match self.store.begin_again() {
                Ok(aside) => tracing::error!(
                    file = %aside.display(),
                    "the store is damaged ({error}): it was set aside, and a new one begun"
                ),
                Err(worse) => {
                    tracing::error!("the store is damaged ({error}) and cannot be set aside: {worse}");
                }
            }
        } else if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
            self.complained = Some(Instant::now());
            let path = self.store.path().unwrap_or(std::path::Path::new(":memory:")).display();
            tracing::error!(store = %path, "incidents cannot be stored: {error}; they are emitted all the same");
        }
    }
}

impl Sink for Writer {
    fn take(&mut self, rendered: &[Arc<Rendered>], counts: &Counts) {
        self.mend();
        let mut result = self.write(rendered);
        if let Err(error) = &result {
            self.failed(error);
            // A file just begun takes what the damaged one did not.
            result = self.write(rendered);
        }
        let became = if result.is_ok() { &counts.emitted } else { &counts.failed };
        became.fetch_add(rendered.len() as u64, Relaxed);
        for rendered in rendered {
            (self.written)(rendered);
        }
    }

    fn tick(&mut self) {
        self.mend();
        if self.tidied.elapsed() >= TIDY {
            self.tidy();
        }
    }

    fn close(&mut self) {
        let now = jiff::Timestamp::now().as_millisecond();
        let connection = self.store.writer();
        let noted = retain::alive(&connection, self.age, now)
            .and_then(|()| close_abandoned(&connection, now, self.age.now()))
            .and_then(|()| connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        drop(connection);
        if let Err(error) = noted {
            self.failed(&error);
        }
    }
}

fn put(connection: &Connection, rendered: &Rendered, lived_ms: i64) -> rusqlite::Result<()> {
    let incident = &rendered.incident;
    let ended_ms = incident.resolved_at.as_deref().map(milliseconds);
    let over = incident.state == State::Resolved;
    let sql = "INSERT INTO incidents
        (id, kind, severity, open, began_ms, opened_ms, ended_ms, ended_lived_ms, json, text, unwatched_text)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
        ON CONFLICT DO UPDATE SET severity = ?3, open = ?4, began_ms = ?5, opened_ms = ?6, ended_ms = ?7,
            ended_lived_ms = ?8, json = ?9, text = ?10, unwatched_text = ?11";
    connection
        .prepare_cached(sql)?
        .execute(params![
            incident.id,
            incident.kind.name(),
            incident.severity.rank(),
            !over,
            milliseconds(&incident.began_at),
            milliseconds(&incident.opened_at),
            ended_ms,
            over.then_some(lived_ms),
            rendered.json(),
            rendered.text(),
            (!over).then(|| rendered.unwatched_text()),
        ])
        .map(drop)
}

fn milliseconds(rfc3339: &str) -> i64 {
    rfc3339.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
}

/// What is open has no one to see its end: it ends, as far as is known, with the daemon.
fn close_abandoned(connection: &Connection, last_ms: i64, lived_ms: i64) -> rusqlite::Result<()> {
    const WHY: &str = "culprit stopped watching while this went on: when it ended is not known.";
    let open: Vec<(String, String, String)> = connection
        .prepare("SELECT id, json, coalesce(unwatched_text, text) FROM incidents WHERE open = 1")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, json, text) in open {
        let mut incident: Value = serde_json::from_str(&json).unwrap_or(Value::Null);
        let opened_ms = incident["opened_at"].as_str().map_or(last_ms, milliseconds);
        let ended_ms = last_ms.max(opened_ms);
        if let Value::Object(fields) = &mut incident {
            fields.insert("state".into(), "resolved".into());
            let ended = jiff::Timestamp::from_millisecond(ended_ms).map(|at| at.to_string());
            fields.insert("resolved_at".into(), ended.map_or(Value::Null, Value::String));
            if let Some(Value::Array(why)) = fields.get_mut("why") {
                why.push(WHY.into());
            }
        }
        let sql = "UPDATE incidents SET open = 0, ended_ms = ?2, ended_lived_ms = ?3, json = ?4, text = ?5,
                       unwatched_text = NULL
                   WHERE id = ?1";
        let text = format!("{}\n    {WHY}\n", text.trim_end());
        connection.execute(sql, params![id, ended_ms, lived_ms, incident.to_string(), text])?;
    }
    Ok(())
}
