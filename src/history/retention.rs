//! What is forgotten, and what is summed up before.

use jiff::Timestamp;
use rusqlite::{Connection, Error, params};

use super::{
    Config,
    row::{What, first_of, time_of},
    store::{DAY, HOUR, TENTH, kind},
};

/// Names of a day whose sums are kept.
const TOP: i64 = 500;
/// Records that are forgotten in one transaction: others may write in between.
const AT_ONCE: i64 = 50_000;
/// Those that are forgotten in one transaction where there is hardly room for its log.
const LITTLE: i64 = 1_000;
/// What is too much is forgotten in so many steps.
const PARTS: i64 = 20;
/// Pages that are given back to the file system in one go.
const PAGES: i64 = 2000;

/// Sums up the most asked names of each day that is over and was not summed yet.
pub(super) fn sum_days(connection: &Connection, summed: &mut Option<i64>, now: Timestamp) -> Result<(), Error> {
    let today = now.as_millisecond() / DAY;
    // A clock that was ahead may have summed days that are yet to come.
    let last = match summed.filter(|day| *day < today) {
        Some(day) => day,
        None => {
            connection.query_row("SELECT coalesce(max(slot), 0) FROM day WHERE slot < ?1", [today], |row| row.get(0))?
        }
    };
    let first: Option<i64> = connection.query_row("SELECT min(slot) FROM tenth", [], |row| row.get(0))?;
    let first = first.map_or(today, |slot| slot * TENTH / DAY);
    let mut sum = connection.prepare_cached(
        "INSERT OR REPLACE INTO day
         SELECT ?1, ?2, name, count(*) AS n FROM question
         WHERE id >= ?3 AND id < ?4 AND name <> coalesce((SELECT id FROM name WHERE text = ''), -1)
           AND ((what & ?5) = coalesce((SELECT id FROM word WHERE kind = ?6 AND text = 'blocked'), -1)) = ?2
         GROUP BY name ORDER BY n DESC LIMIT ?7",
    )?;
    for day in first.max(last + 1)..today {
        for blocked in [false, true] {
            let (from, to) = (first_of(day * DAY), first_of((day + 1) * DAY));
            sum.execute(params![day, blocked, from, to, What::OUTCOMES, kind::OUTCOME, TOP])?;
        }
    }
    *summed = Some(today - 1);
    Ok(())
}

/// Forgets what is older than it may be at this time, and the oldest of what is more than it may be. Says whether
/// anything was forgotten.
pub(super) fn forget(connection: &Connection, config: &Config, now: Option<Timestamp>) -> Result<bool, Error> {
    let mut forgotten = false;
    if let Some(now) = now {
        let keep = i64::try_from(config.keep.as_millis()).unwrap_or(i64::MAX);
        forgotten = forget_before(connection, first_of(now.as_millisecond().saturating_sub(keep)), AT_ONCE)?;
    }
    if forgotten {
        forget_words(connection)?;
    }
    while bytes(connection)? > config.size {
        if !forget_oldest(connection, AT_ONCE)? {
            break;
        }
        forget_words(connection)?;
        forgotten = true;
    }
    Ok(forgotten)
}

/// What happens to the oldest part of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oldest {
    /// It stays.
    Stays,
    /// It goes.
    Goes,
}

/// Makes room on a full disk: by what stands there in vain, and by the oldest part.
pub(super) fn relieve(connection: &Connection, oldest: Oldest) -> Result<(), Error> {
    shorten(connection);
    if oldest == Oldest::Goes {
        // Its pages stay with the file, for what comes next: somebody else would fill them.
        forget_oldest(connection, LITTLE)?;
    }
    Ok(())
}

/// Forgets the oldest part of the records with the sums of their time, or all sums where there is no record. Says
/// whether there was anything.
fn forget_oldest(connection: &Connection, at_once: i64) -> Result<bool, Error> {
    let count: i64 = connection.query_row("SELECT count(*) FROM question", [], |row| row.get(0))?;
    if count == 0 {
        return forget_before(connection, i64::MAX, at_once);
    }
    let last = "SELECT id FROM question ORDER BY id LIMIT 1 OFFSET ?1";
    let last: i64 = connection.query_row(last, [count / PARTS], |row| row.get(0))?;
    forget_before(connection, last + 1, at_once)
}

/// Forgets names and clients that nothing refers to any more.
fn forget_words(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(
        "DELETE FROM name WHERE id NOT IN (SELECT name FROM question UNION SELECT name FROM day);
         DELETE FROM client WHERE id NOT IN (SELECT client FROM question UNION SELECT client FROM hour);",
    )?;
    give_back(connection)
}

fn forget_before(connection: &Connection, before: i64, at_once: i64) -> Result<bool, Error> {
    let mut some = 0;
    loop {
        let gone = connection.execute(
            "DELETE FROM question WHERE id IN (SELECT id FROM question WHERE id < ?1 ORDER BY id LIMIT ?2)",
            params![before, at_once],
        )?;
        some += gone;
        if i64::try_from(gone).unwrap_or_default() < at_once {
            break;
        }
        shorten(connection);
    }
    let at = time_of(before);
    some += connection.execute("DELETE FROM tenth WHERE slot < ?1", [at / TENTH])?;
    some += connection.execute("DELETE FROM hour WHERE slot < ?1", [at / HOUR])?;
    some += connection.execute("DELETE FROM day WHERE slot < ?1", [at / DAY])?;
    Ok(some > 0)
}

/// Returns pages that hold nothing to the file system.
fn give_back(connection: &Connection) -> Result<(), Error> {
    loop {
        let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free == 0 {
            break;
        }
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        shorten(connection);
        let left: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if left >= free {
            break;
        }
    }
    shorten(connection);
    Ok(())
}

/// Empties the write-ahead log, which would keep its size. One that cannot be emptied now is so later.
fn shorten(connection: &Connection) {
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

/// Returns what the tables take.
pub(super) fn bytes(connection: &Connection) -> Result<u64, Error> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(pages * number("PRAGMA page_size")?).unwrap_or_default())
}
