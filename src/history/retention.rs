//! What is forgotten, and what is summed up before.

use jiff::Timestamp;
use rusqlite::{Connection, Error, params};

use super::{
    Config,
    row::{What, first_of},
    store::{DAY, HOUR, TENTH, kind},
};

/// Names of a day whose sums are kept.
const TOP: i64 = 500;
/// Records that are forgotten in one transaction: others may write in between.
const AT_ONCE: i64 = 50_000;
/// What is too much is forgotten in so many steps.
const PARTS: i64 = 20;
/// Pages that are given back to the file system in one go.
const PAGES: i64 = 2000;

/// Sums up the most asked names of each day that is over and was not summed yet.
pub(super) fn sum_days(connection: &Connection, summed: &mut Option<i64>, now: Timestamp) -> Result<(), Error> {
    let today = now.as_millisecond() / DAY;
    let last = match *summed {
        Some(day) => day,
        None => connection.query_row("SELECT coalesce(max(slot), 0) FROM day", [], |row| row.get(0))?,
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

/// Forgets what is older than it may be, and the oldest of what is more than it may be. Says whether
/// anything was forgotten.
pub(super) fn forget(connection: &Connection, config: &Config, now: Timestamp) -> Result<bool, Error> {
    let keep = i64::try_from(config.keep.as_millis()).unwrap_or(i64::MAX);
    let mut forgotten = forget_before(connection, now.as_millisecond().saturating_sub(keep))?;
    if forgotten {
        forget_words(connection)?;
    }
    while bytes(connection)? > config.size {
        let ends = "SELECT min(slot), max(slot) FROM tenth";
        let (oldest, newest): (Option<i64>, Option<i64>) =
            connection.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(oldest), Some(newest)) = (oldest, newest) else { break };
        let part = ((newest - oldest) * TENTH / PARTS).max(HOUR);
        forget_before(connection, oldest * TENTH + part)?;
        forget_words(connection)?;
        forgotten = true;
    }
    Ok(forgotten)
}

/// Forgets names and clients that nothing refers to any more.
fn forget_words(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(
        "DELETE FROM name WHERE id NOT IN (SELECT name FROM question UNION SELECT name FROM day);
         DELETE FROM client WHERE id NOT IN (SELECT client FROM question UNION SELECT client FROM hour);",
    )?;
    give_back(connection)
}

fn forget_before(connection: &Connection, at: i64) -> Result<bool, Error> {
    let before = first_of(at);
    let mut some = 0;
    loop {
        let gone = connection.execute(
            "DELETE FROM question WHERE id IN (SELECT id FROM question WHERE id < ?1 ORDER BY id LIMIT ?2)",
            params![before, AT_ONCE],
        )?;
        some += gone;
        if i64::try_from(gone).unwrap_or_default() < AT_ONCE {
            break;
        }
    }
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
        let left: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if left >= free {
            break;
        }
    }
    // The write-ahead log would keep its size.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Returns what the tables take.
pub(super) fn bytes(connection: &Connection) -> Result<u64, Error> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(pages * number("PRAGMA page_size")?).unwrap_or_default())
}
