//! The tables, and how a file with them is opened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

/// The form of the tables. A file of another form is set aside.
const VERSION: i64 = 1;
/// How long a writer waits for another one: a shell that its owner left open.
const BUSY: Duration = Duration::from_secs(2);
/// Kibibytes of pages that SQLite keeps in memory.
const CACHE: i64 = 2048;

/// Bytes of its write-ahead log that stay on the disk between transactions.
const JOURNAL: i64 = 4 << 20;

/// Names, clients and words have numbers; a record's own number is its time. Sums are of ten minutes and of hours,
/// and of the most asked names of a whole day.
const TABLES: &str = "
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE client (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE word (kind INTEGER NOT NULL, id INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE question (id INTEGER PRIMARY KEY, name INTEGER NOT NULL, client INTEGER NOT NULL, what INTEGER NOT NULL);
CREATE TABLE tenth (slot INTEGER NOT NULL, outcome INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (slot, outcome)) WITHOUT ROWID;
CREATE TABLE hour (
    slot INTEGER NOT NULL, client INTEGER NOT NULL, outcome INTEGER NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (slot, client, outcome)
) WITHOUT ROWID;
CREATE TABLE day (
    slot INTEGER NOT NULL, blocked INTEGER NOT NULL, name INTEGER NOT NULL, n INTEGER NOT NULL,
    PRIMARY KEY (slot, blocked, name)
) WITHOUT ROWID;
";

/// How much of a file is looked at when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// All of it: later a torn page would be found in the middle of the work.
    Whole,
    /// Its form: the rest was looked at before.
    Head,
}

/// Opens the file, or makes it. One that is no database of this form is set aside.
pub(super) fn open(path: &Path, check: Check) -> Result<Connection, Error> {
    match try_open(path, check) {
        Err(error) if is_beyond_repair(&error) => {
            let aside = PathBuf::from(format!("{}.corrupt", path.display()));
            tracing::warn!(%error, file = %path.display(), aside = %aside.display(), "the history begins anew; the old one is set aside");
            if std::fs::rename(path, &aside).is_err() {
                return Err(error);
            }
            for tail in ["-wal", "-shm"] {
                // They belong to the file that is gone.
                let _ = std::fs::remove_file(format!("{}{tail}", path.display()));
            }
            try_open(path, check)
        }
        opened => opened,
    }
}

fn try_open(path: &Path, check: Check) -> Result<Connection, Error> {
    make_private(path);
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    prepare(&connection)?;
    if check == Check::Head {
        return Ok(connection);
    }
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    match found.as_str() {
        "ok" => Ok(connection),
        _ => Err(corrupt(found)),
    }
}

/// The file holds who asked for what: it is made so that nobody else can read it.
fn make_private(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let _ = options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path);
}

/// Opens a history that ends with the process.
pub(super) fn in_memory() -> Result<Connection, Error> {
    let connection = Connection::open_in_memory()?;
    prepare(&connection)?;
    Ok(connection)
}

/// Opens a second look at the file, which changes nothing.
pub(super) fn reader(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), Error> {
    connection.busy_timeout(BUSY)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        // It writes: a full disk, or one who writes just now, keeps nobody from opening what is there already.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    // Answers with the mode that it came to.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // What is folded leaves the spool: it must be on the disk by then, also if the power fails.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    match version {
        VERSION => Ok(()),
        0 => connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")),
        other => Err(corrupt(format!("the file is of form {other}, and this program knows form {VERSION}"))),
    }
}

fn corrupt(what: String) -> Error {
    Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what))
}

pub(super) fn is_beyond_repair(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
