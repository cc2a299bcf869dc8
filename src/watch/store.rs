//! The sums on disk, in a file of their own. Deleting it is harmless; one that is no such file is set aside.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, params};

use super::ledger::Sum;

/// The form of the table. A file of another form is set aside.
const VERSION: i64 = 1;
const BUSY: Duration = Duration::from_secs(2);
const TABLE: &str = "
CREATE TABLE hour (
    name TEXT NOT NULL, slot INTEGER NOT NULL, up INTEGER NOT NULL, down INTEGER NOT NULL, unknown INTEGER NOT NULL,
    looks INTEGER NOT NULL, millis INTEGER NOT NULL, slowest INTEGER NOT NULL, PRIMARY KEY (name, slot)
) WITHOUT ROWID;
";

/// What one thing came to in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) hour: i64,
    pub(super) sum: Sum,
}

/// Reads everything from an hour on.
pub(super) fn read(path: &Path, from: i64) -> Result<Vec<Row>, Error> {
    let connection = open(path)?;
    let mut select = connection.prepare(
        "SELECT name, slot, up, down, unknown, looks, millis, slowest FROM hour WHERE slot >= ?1 ORDER BY slot",
    )?;
    let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
    let rows = select.query_map([from], |row| {
        let sum = Sum {
            up: number(row, 2)?,
            down: number(row, 3)?,
            unknown: number(row, 4)?,
            looks: number(row, 5)?,
            millis: number(row, 6)?,
            slowest: number(row, 7)?,
        };
        Ok(Row { name: row.get(0)?, hour: row.get(1)?, sum })
    })?;
    rows.collect()
}

/// Adds to what is there, and forgets what is older than an hour; all of it or nothing.
pub(super) fn write(path: &Path, rows: &[Row], from: i64) -> Result<(), Error> {
    let mut connection = open(path)?;
    let transaction = connection.transaction()?;
    {
        let mut add = transaction.prepare(
            "INSERT INTO hour VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
             up = up + excluded.up, down = down + excluded.down, unknown = unknown + excluded.unknown,
             looks = looks + excluded.looks, millis = millis + excluded.millis, slowest = max(slowest, excluded.slowest)",
        )?;
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        for Row { name, hour, sum } in rows {
            let [up, down, unknown] = [sum.up, sum.down, sum.unknown].map(number);
            let [looks, millis, slowest] = [sum.looks, sum.millis, sum.slowest].map(number);
            add.execute(params![name, hour, up, down, unknown, looks, millis, slowest])?;
        }
    }
    transaction.execute("DELETE FROM hour WHERE slot < ?1", [from])?;
    transaction.commit()
}

fn open(path: &Path) -> Result<Connection, Error> {
    match try_open(path) {
        Err(error) if is_beyond_repair(&error) => {
            let aside = PathBuf::from(format!("{}.corrupt", path.display()));
            tracing::warn!(%error, file = %path.display(), aside = %aside.display(), "the sums of uptime begin anew; the old file is set aside");
            if std::fs::rename(path, &aside).is_err() {
                return Err(error);
            }
            // It belongs to the file that is gone.
            let _ = std::fs::remove_file(format!("{}-journal", path.display()));
            try_open(path)
        }
        opened => opened,
    }
}

fn try_open(path: &Path) -> Result<Connection, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut private = std::fs::OpenOptions::new();
    // It is made so that nobody else can read what the house runs.
    let _ = private.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path);
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    connection.busy_timeout(BUSY)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        VERSION => {}
        0 => connection.execute_batch(&format!("BEGIN; {TABLE} PRAGMA user_version = {VERSION}; COMMIT;"))?,
        other => return Err(corrupt(format!("the file is of form {other}, and this program knows form {VERSION}"))),
    }
    // It is small: a few thousand rows for each thing.
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(connection) } else { Err(corrupt(found)) }
}

fn corrupt(what: String) -> Error {
    Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what))
}

fn is_beyond_repair(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, hour: i64, up: u64) -> Row {
        Row { name: name.into(), hour, sum: Sum { up, looks: 1, millis: up, slowest: up, ..Sum::default() } }
    }

    #[test]
    fn what_is_written_twice_adds_up_and_what_is_old_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uptime.db");

        write(&path, &[row("nas", 7, 60), row("nas", 8, 60), row("git", 8, 5)], 0).unwrap();
        write(&path, &[row("nas", 8, 30)], 8).unwrap();

        let sum = Sum { up: 90, looks: 2, millis: 90, slowest: 60, ..Sum::default() };
        assert_eq!(read(&path, 0).unwrap(), [row("git", 8, 5), Row { sum, ..row("nas", 8, 0) }]);
    }

    #[test]
    fn what_is_no_database_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uptime.db");
        std::fs::write(&path, "not a database, but long enough to be looked at as if it were one".repeat(20)).unwrap();

        write(&path, &[row("nas", 7, 60)], 0).unwrap();

        assert_eq!(read(&path, 0).unwrap(), [row("nas", 7, 60)]);
        assert!(folder.path().join("uptime.db.corrupt").exists());
    }
}
