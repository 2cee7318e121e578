//! The store: incidents in a SQLite database that survives whatever ends the daemon. It opens after a crash
//! at any moment, sets a damaged file aside instead of dying of it, and never grows beyond its bounds. One
//! daemon writes; any process may read meanwhile.

pub mod deliveries;
pub mod read;
mod renamed;
mod retain;
mod schema;
pub mod write;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

pub use retain::{Holds, Retention};
use rusqlite::{Connection, ErrorCode, OpenFlags};
pub use write::{Writer, Written};

/// How long a statement waits for another connection's.
const BUSY: Duration = Duration::from_secs(2);
/// Damaged files kept beside the store, at most.
const ASIDE: usize = 2;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory or file cannot be had.
    #[error("{path}: {why}: give --store a place culprit may write to, or `none`", path = path.display())]
    Place {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// Another daemon writes it.
    #[error("{path}: another culprit keeps this store: give one of them a --store of its own", path = .0.display())]
    Taken(PathBuf),
    /// It may not be looked at.
    #[error("{path}: {why}: look as root, or ask the daemon with --url", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// There is none.
    #[error("{path}: there is no store: `culprit run` makes one, or name another with --store, or a running daemon with --url", path = .0.display())]
    Absent(PathBuf),
    /// It is a database, and not ours.
    #[error("{path}: this is no store of culprit's: give --store another file", path = .0.display())]
    Foreign(PathBuf),
    /// It was written by a newer culprit.
    #[error("{path}: this store has schema {found}, and this culprit knows {known}: use a newer culprit, or give --store another file", path = path.display(), known = schema::VERSION)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
    },
    /// SQLite refused.
    #[error("{path}: {why}", path = path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// What it said.
        why: rusqlite::Error,
    },
}

impl Error {
    /// Whether the file is damaged: no database any more.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Sql { why, .. } if is_damage(why))
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch)
    )
}

/// An open store, shared by writers and readers. Kept in memory when it has no file.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    /// Of its own when there is a file: reads do not wait for writes. Closed before the writer: the last one closed
    /// brings the log into the file, which one that may only read cannot.
    reader: Option<Mutex<Connection>>,
    writer: Mutex<Connection>,
    /// A reader found the file damaged.
    damaged: AtomicBool,
    /// It is of an earlier version and only looked at: what is read has that version's names.
    earlier: bool,
    /// Held as long as the store is open.
    _lock: Option<File>,
}

impl Store {
    /// Opens the store for writing, makes it if there is none, and brings it up to date. A damaged file is
    /// set aside; the second part says where.
    ///
    /// # Errors
    /// When the place cannot be written, another daemon has it, or the file is not culprit's to touch.
    pub fn open(path: &Path) -> Result<(Self, Option<PathBuf>), Error> {
        let place = |why| Error::Place { path: path.to_owned(), why };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(directory);
            made.map_err(|why| Error::Place { path: directory.to_owned(), why })?;
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, ".lock"))
            .map_err(place)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Taken(path.to_owned())),
            Err(other) => return Err(place(other.into())),
        }
        // Before SQLite makes it with the umask's rights: who may read it is who may read logs.
        if !path.exists() {
            use std::os::unix::fs::OpenOptionsExt;
            File::options().create(true).truncate(false).write(true).mode(0o640).open(path).map_err(place)?;
        }
        let (connection, aside) = match writable(path) {
            Ok(connection) => (connection, None),
            Err(error) if error.is_damage() => {
                let aside = set_aside(path).map_err(place)?;
                (writable(path)?, Some(aside))
            }
            Err(error) => return Err(error),
        };
        let reader = readable(path)?;
        let inner = Inner {
            path: Some(path.to_owned()),
            writer: Mutex::new(connection),
            reader: Some(Mutex::new(reader)),
            damaged: AtomicBool::new(false),
            earlier: false,
            _lock: Some(lock),
        };
        Ok((Self(Arc::new(inner)), aside))
    }

    /// A store that is gone with the process.
    ///
    /// # Errors
    /// When SQLite cannot even do that.
    pub fn in_memory() -> Result<Self, Error> {
        let sql = |why| Error::Sql { path: ":memory:".into(), why };
        let mut connection = Connection::open_in_memory().map_err(sql)?;
        schema::bring_up(&mut connection).map_err(sql)?;
        let inner = Inner {
            path: None,
            writer: Mutex::new(connection),
            reader: None,
            damaged: AtomicBool::new(false),
            earlier: false,
            _lock: None,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Opens a store to look at; another process may be writing it.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn look(path: &Path) -> Result<Self, Error> {
        match fs::metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Absent(path.to_owned()));
            }
            Err(why) => return Err(Error::Unreadable { path: path.to_owned(), why }),
        }
        let connection = readable(path)?;
        let version = examine(&connection, path)?;
        let inner = Inner {
            path: Some(path.to_owned()),
            writer: Mutex::new(connection),
            reader: None,
            damaged: AtomicBool::new(false),
            earlier: version < schema::VERSION,
            _lock: None,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Where it is; `None` in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A panic in between has rolled its transaction back.
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        match &self.0.reader {
            Some(reader) => reader.lock().unwrap_or_else(PoisonError::into_inner),
            None => self.writer(),
        }
    }

    fn sql(&self, why: rusqlite::Error) -> Error {
        if is_damage(&why) {
            self.0.damaged.store(true, Relaxed);
        }
        Error::Sql { path: self.0.path.clone().unwrap_or_else(|| ":memory:".into()), why }
    }

    /// The file was found damaged while it was open: sets it aside and begins a new one.
    fn begin_again(&self) -> Result<PathBuf, Error> {
        let Some(path) = self.0.path.as_deref() else { return Err(self.sql(rusqlite::Error::InvalidQuery)) };
        self.0.damaged.store(false, Relaxed);
        let mut writer = self.writer();
        let aside = set_aside(path).map_err(|why| Error::Place { path: path.to_owned(), why })?;
        *writer = writable(path)?;
        if let Some(reader) = &self.0.reader {
            *reader.lock().unwrap_or_else(PoisonError::into_inner) = readable(path)?;
        }
        Ok(aside)
    }
}

/// `culprit.db` → `culprit.db.lock`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn writable(path: &Path) -> Result<Connection, Error> {
    let sql = |why| Error::Sql { path: path.to_owned(), why };
    let mut connection = Connection::open(path).map_err(sql)?;
    connection.busy_timeout(BUSY).map_err(sql)?;
    examine(&connection, path)?;
    schema::tune(&connection).map_err(sql)?;
    schema::bring_up(&mut connection).map_err(sql)?;
    Ok(connection)
}

fn readable(path: &Path) -> Result<Connection, Error> {
    let sql = |why| Error::Sql { path: path.to_owned(), why };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql)?;
    connection.busy_timeout(BUSY).map_err(sql)?;
    schema::bound_cache(&connection).map_err(sql)?;
    Ok(connection)
}

/// Whether this is a store, whole, and of a version we know: which.
fn examine(connection: &Connection, path: &Path) -> Result<i64, Error> {
    let sql = |why| Error::Sql { path: path.to_owned(), why };
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(sql)?;
    let version = pragma("user_version").map_err(sql)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    if application != schema::APPLICATION && (application != 0 || version != 0 || tables != 0) {
        return Err(Error::Foreign(path.to_owned()));
    }
    if version > schema::VERSION {
        return Err(Error::Newer { path: path.to_owned(), found: version });
    }
    let whole: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql)?;
    if whole != "ok" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(sql(rusqlite::Error::SqliteFailure(code, Some(whole))));
    }
    Ok(version)
}

/// Renames a damaged store and what belongs to it, and forgets those renamed long ago.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let stamp = jiff::Timestamp::now().as_second();
    let aside = beside(path, &format!(".damaged-{stamp}"));
    fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        let file = beside(path, suffix);
        if file.exists() {
            fs::rename(&file, beside(&aside, suffix))?;
        }
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let prefix = beside(path, ".damaged-");
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut others: Vec<PathBuf> = fs::read_dir(directory.unwrap_or(Path::new(".")))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.strip_prefix(&prefix).is_some_and(|stamp| stamp.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .collect();
    others.sort();
    for old in others.iter().rev().skip(ASIDE) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(beside(old, suffix));
        }
    }
    Ok(aside)
}

#[cfg(test)]
pub(in crate::outputs) mod tests;
