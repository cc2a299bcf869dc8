//! The spool and the tables together: what is written.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, Error, ErrorCode, OptionalExtension, params};

use super::{
    Config, Storage,
    retention::{self, Oldest},
    row::{Row, What, first_of, time_of},
    schema::{self, Check},
    spool::Spool,
};

/// Milliseconds of ten minutes.
pub(super) const TENTH: i64 = 600_000;
/// Milliseconds of an hour.
pub(super) const HOUR: i64 = 3_600_000;
/// Milliseconds of a day.
pub(super) const DAY: i64 = 86_400_000;
/// Names and clients whose numbers are remembered.
const REMEMBERED: usize = 8192;

/// Kinds of words.
pub(super) mod kind {
    /// How a question ended.
    pub(in crate::history) const OUTCOME: i64 = 0;
    /// How it came.
    pub(in crate::history) const TRANSPORT: i64 = 1;
    /// Lists and groups.
    pub(in crate::history) const RULE: i64 = 2;
}

/// The history as it is kept.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    /// Nothing where it is kept in memory.
    place: Option<(PathBuf, Spool)>,
    /// What was in the spool.
    left: Vec<Row>,
    names: HashMap<String, i64>,
    clients: HashMap<String, i64>,
    words: HashMap<(i64, String), i64>,
    /// The last day whose most asked names were summed.
    summed: Option<i64>,
}

impl Store {
    /// Opens what is there; `check` reads it through before.
    pub(super) fn open(path: &Path, storage: Storage, check: Check) -> Result<Self, Error> {
        let store = |connection, place, left| Self {
            connection,
            place,
            left,
            names: HashMap::new(),
            clients: HashMap::new(),
            words: HashMap::new(),
            summed: None,
        };
        match storage {
            Storage::Memory => Ok(store(schema::in_memory()?, None, Vec::new())),
            Storage::Disk => {
                let connection = schema::open(path, check)?;
                let (spool, left) = Spool::open(&path.with_extension("spool")).map_err(|error| {
                    Error::SqliteFailure(
                        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
                        Some(format!("{}: {error}", path.with_extension("spool").display())),
                    )
                })?;
                Ok(store(connection, Some((path.to_owned(), spool)), left))
            }
        }
    }

    /// Returns what was left in the spool; it stays there until the next fold.
    pub(super) fn take_left(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.left)
    }

    /// Returns the last number that was given out before this moment.
    pub(super) fn last(&self, now: Timestamp) -> Result<i64, Error> {
        let last = "SELECT coalesce(max(id), 0) FROM question WHERE id < ?1";
        self.connection.query_row(last, [first_of(now.as_millisecond() + 1)], |row| row.get(0))
    }

    /// Keeps records where the end of the process does not reach them.
    pub(super) fn spool(&mut self, rows: &[Row]) -> Result<(), Error> {
        match &mut self.place {
            Some((_, spool)) if !rows.is_empty() => spool.append(rows).map_err(full),
            _ => Ok(()),
        }
    }

    /// Puts records into the tables; what stands there already is not counted twice.
    pub(super) fn fold(&mut self, rows: &[Row]) -> Result<(), Error> {
        if !rows.is_empty() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            match self.insert(rows) {
                Ok(()) => self.connection.execute_batch("COMMIT")?,
                Err(error) => {
                    // Numbers that were given out in vain.
                    self.forget_numbers();
                    let _ = self.connection.execute_batch("ROLLBACK");
                    return Err(error);
                }
            }
        }
        match &mut self.place {
            Some((_, spool)) => spool.empty().map_err(full),
            None => Ok(()),
        }
    }

    fn insert(&mut self, rows: &[Row]) -> Result<(), Error> {
        if self.names.len() > REMEMBERED || self.clients.len() > REMEMBERED || self.words.len() > REMEMBERED {
            self.forget_numbers();
        }
        let mut tenths: HashMap<(i64, u8), i64> = HashMap::new();
        let mut hours: HashMap<(i64, i64, u8), i64> = HashMap::new();
        for row in rows {
            let outcome = self.word(kind::OUTCOME, &row.outcome, What::OUTCOMES)?;
            let outcome = u8::try_from(outcome).unwrap_or_default();
            let what = What {
                qtype: row.qtype,
                outcome,
                transport: u8::try_from(self.word(kind::TRANSPORT, &row.transport, 15)?).unwrap_or_default(),
                rule: u16::try_from(self.word(kind::RULE, &row.rule, u16::MAX.into())?).unwrap_or_default(),
                took: row.took,
            };
            let name = number(&self.connection, "name", &mut self.names, &row.name)?;
            let client = number(&self.connection, "client", &mut self.clients, &row.client)?;
            if let Some(id) = place(&self.connection, row.id, [name, client, what.pack()])? {
                let at = time_of(id);
                *tenths.entry((at / TENTH, outcome)).or_default() += 1;
                *hours.entry((at / HOUR, client, outcome)).or_default() += 1;
            }
        }
        let mut add = self
            .connection
            .prepare_cached("INSERT INTO tenth VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET n = n + excluded.n")?;
        for ((slot, outcome), n) in tenths {
            add.execute(params![slot, outcome, n])?;
        }
        let mut add = self
            .connection
            .prepare_cached("INSERT INTO hour VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET n = n + excluded.n")?;
        for ((slot, client, outcome), n) in hours {
            add.execute(params![slot, client, outcome, n])?;
        }
        Ok(())
    }

    /// Returns the number of a word, 0 being the empty one. A kind that is full has one number for all others.
    fn word(&mut self, kind: i64, text: &str, most: i64) -> Result<i64, Error> {
        if text.is_empty() {
            return Ok(0);
        }
        if let Some(id) = self.words.get(&(kind, text.to_owned())) {
            return Ok(*id);
        }
        let found = self
            .connection
            .prepare_cached("SELECT id FROM word WHERE kind = ?1 AND text = ?2")?
            .query_row(params![kind, text], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                let last: i64 = self.connection.query_row(
                    "SELECT coalesce(max(id), 0) FROM word WHERE kind = ?1",
                    [kind],
                    |row| row.get(0),
                )?;
                if last < most {
                    self.connection.execute("INSERT INTO word VALUES (?1, ?2, ?3)", params![kind, last + 1, text])?;
                }
                most.min(last + 1)
            }
        };
        self.words.insert((kind, text.to_owned()), id);
        Ok(id)
    }

    fn forget_numbers(&mut self) {
        self.names.clear();
        self.clients.clear();
        self.words.clear();
    }

    /// Sums up the days that are over, and forgets what is too old or too much.
    /// Without a time nothing is too old.
    pub(super) fn forget(&mut self, config: &Config, now: Option<Timestamp>) -> Result<(), Error> {
        if let Some(now) = now {
            retention::sum_days(&self.connection, &mut self.summed, now)?;
        }
        let forgotten = retention::forget(&self.connection, config, now);
        if !matches!(forgotten, Ok(false)) {
            // Names that nobody asked for since; some may be gone where it ended midway.
            self.forget_numbers();
        }
        forgotten.map(drop)
    }

    /// Makes room on a disk that is full. What was spooled is given up: its writer has it.
    pub(super) fn relieve(&mut self, oldest: Oldest) -> Result<(), Error> {
        if let Some((_, spool)) = &mut self.place {
            spool.empty().map_err(full)?;
        }
        self.forget_numbers();
        retention::relieve(&self.connection, oldest)
    }

    /// Returns another look at the tables, or nothing where there is only this one.
    pub(super) fn reader(&self) -> Result<Option<Connection>, Error> {
        self.place.as_ref().map(|(path, _)| schema::reader(path)).transpose()
    }

    /// Returns the one look at tables in memory.
    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Returns what the tables take, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        retention::bytes(&self.connection).unwrap_or_default()
    }

    /// Returns when the oldest record was made, in seconds since 1970.
    pub(super) fn since(&self) -> Option<i64> {
        let oldest = "SELECT id FROM question ORDER BY id LIMIT 1";
        let id: i64 = self.connection.query_row(oldest, [], |row| row.get(0)).ok()?;
        Some(time_of(id) / 1000)
    }
}

/// Puts a record at its number, or at the next one that is free: where the clock was set back another stands there.
/// Returns nothing if it stands there already itself.
fn place(connection: &Connection, mut id: i64, values: [i64; 3]) -> Result<Option<i64>, Error> {
    let [name, client, what] = values;
    loop {
        let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO question VALUES (?1, ?2, ?3, ?4)")?;
        if insert.execute(params![id, name, client, what])? == 1 {
            return Ok(Some(id));
        }
        let mut same = connection
            .prepare_cached("SELECT 1 FROM question WHERE id = ?1 AND name = ?2 AND client = ?3 AND what = ?4")?;
        if same.exists(params![id, name, client, what])? {
            return Ok(None);
        }
        id += 1;
    }
}

fn number(connection: &Connection, table: &str, known: &mut HashMap<String, i64>, text: &str) -> Result<i64, Error> {
    if let Some(id) = known.get(text) {
        return Ok(*id);
    }
    let found = connection
        .prepare_cached(&format!("SELECT id FROM {table} WHERE text = ?1"))?
        .query_row([text], |row| row.get(0))
        .optional()?;
    let id = match found {
        Some(id) => id,
        None => {
            connection.prepare_cached(&format!("INSERT INTO {table} (text) VALUES (?1)"))?.execute([text])?;
            connection.last_insert_rowid()
        }
    };
    known.insert(text.to_owned(), id);
    Ok(id)
}

/// Says whether the disk is full.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn full(error: std::io::Error) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => rusqlite::ffi::SQLITE_FULL,
        _ => rusqlite::ffi::SQLITE_IOERR_WRITE,
    };
    let code = rusqlite::ffi::Error::new(code);
    Error::SqliteFailure(code, Some(format!("spool: {error}")))
}
