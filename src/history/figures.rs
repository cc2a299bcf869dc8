//! Sums over a span of time: how many, when, which names, whose.

use jiff::Timestamp;
use rusqlite::{Connection, Error, params};
use serde::{Deserialize, Serialize};

use super::{
    row::{What, first_of},
    search::words,
    store::{DAY, HOUR, TENTH, kind},
};

/// Names and clients that a summary names.
const TOP: i64 = 10;
/// Bars of a timeline at most.
const BARS: i64 = 144;

/// A thing and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// A name, a client, an outcome.
    pub what: String,
    /// Questions.
    pub questions: u64,
}

/// One bar of a timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When it begins, in seconds since 1970.
    pub from: i64,
    /// All questions in it.
    pub questions: u64,
    /// Those that were blocked.
    pub blocked: u64,
}

/// The sums of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// All questions.
    pub questions: u64,
    /// Those that were blocked.
    pub blocked: u64,
    /// How they ended, the most frequent first.
    pub outcomes: Vec<Count>,
    /// In steps of ten minutes or more.
    pub timeline: Vec<Moment>,
    /// The names that were asked for most and were not blocked.
    pub names: Vec<Count>,
    /// The names that were blocked most.
    pub blocked_names: Vec<Count>,
    /// Who asked most.
    pub clients: Vec<Count>,
}

/// Sums up a span, whose ends are taken to ten minutes, those of clients to hours, and those of names of spans over
/// two days to days.
pub(super) fn summary(connection: &Connection, from: Timestamp, to: Timestamp) -> Result<Summary, Error> {
    let (from, to) = (from.as_millisecond(), to.as_millisecond());
    let words = words(connection)?;
    let blocked_word = words.iter().find(|((of, _), text)| *of == kind::OUTCOME && *text == "blocked");
    let blocked = blocked_word.map_or(-1, |((_, id), _)| *id);
    let (first, last) = (from / TENTH, to / TENTH);
    let mut summary = Summary::default();

    let mut outcomes = connection.prepare_cached(
        "SELECT outcome, sum(n) FROM tenth WHERE slot BETWEEN ?1 AND ?2 GROUP BY outcome ORDER BY 2 DESC",
    )?;
    let mut rows = outcomes.query([first, last])?;
    while let Some(row) = rows.next()? {
        let (outcome, questions): (i64, u64) = (row.get(0)?, count(row, 1)?);
        summary.questions += questions;
        if outcome == blocked {
            summary.blocked = questions;
        }
        let what = words.get(&(kind::OUTCOME, outcome)).cloned().unwrap_or_default();
        summary.outcomes.push(Count { what, questions });
    }

    let width = (last - first + 1 + BARS - 1) / BARS;
    let width = width.max(1);
    let mut timeline = connection.prepare_cached(
        "SELECT (slot - ?1) / ?3, sum(n), sum(CASE outcome WHEN ?4 THEN n ELSE 0 END)
         FROM tenth WHERE slot BETWEEN ?1 AND ?2 GROUP BY 1",
    )?;
    let bars = usize::try_from((last - first) / width + 1).unwrap_or_default();
    summary.timeline =
        (0..).take(bars).map(|at| Moment { from: (first + at * width) * TENTH / 1000, ..Moment::default() }).collect();
    let mut rows = timeline.query([first, last, width, blocked])?;
    while let Some(row) = rows.next()? {
        let at: usize = usize::try_from(row.get::<_, i64>(0)?).unwrap_or_default();
        if let Some(moment) = summary.timeline.get_mut(at) {
            (moment.questions, moment.blocked) = (count(row, 1)?, count(row, 2)?);
        }
    }

    summary.names = names(connection, from, to, false, blocked)?;
    summary.blocked_names = names(connection, from, to, true, blocked)?;
    let mut clients = connection.prepare_cached(
        "SELECT c.text, sum(h.n) FROM hour h JOIN client c ON c.id = h.client
         WHERE h.slot BETWEEN ?1 AND ?2 AND c.text <> '' GROUP BY h.client ORDER BY 2 DESC LIMIT ?3",
    )?;
    summary.clients = counts(&mut clients, params![from / HOUR, to / HOUR, TOP])?;
    Ok(summary)
}

/// Names by how often: days that are over from their sums, the rest from the records.
fn names(connection: &Connection, from: i64, to: i64, is_blocked: bool, blocked: i64) -> Result<Vec<Count>, Error> {
    let is_long = to - from > 2 * DAY;
    let summed: Option<i64> = connection.query_row("SELECT max(slot) FROM day", [], |row| row.get(0))?;
    let (first, last) = (from / DAY, summed.unwrap_or(-1).min(to / DAY));
    // Where no day was summed yet the records tell of all.
    let rest = if is_long && last >= first { ((last + 1) * DAY).max(from) } else { from };
    let days = if is_long { (first, last) } else { (0, -1) };
    let mut statement = connection.prepare_cached(
        "SELECT n.text, sum(s.n) FROM (
             SELECT name, sum(n) AS n FROM day WHERE slot BETWEEN ?1 AND ?2 AND blocked = ?3 GROUP BY name
             UNION ALL
             SELECT name, count(*) AS n FROM question
             WHERE id >= ?4 AND id < ?5 AND ((what & ?6) = ?7) = ?3 GROUP BY name
         ) s JOIN name n ON n.id = s.name WHERE n.text <> '' GROUP BY s.name ORDER BY 2 DESC LIMIT ?8",
    )?;
    let (rest, to) = (first_of(rest), first_of(to));
    counts(&mut statement, params![days.0, days.1, is_blocked, rest, to, What::OUTCOMES, blocked, TOP])
}

fn counts(statement: &mut rusqlite::CachedStatement<'_>, values: impl rusqlite::Params) -> Result<Vec<Count>, Error> {
    statement.query_map(values, |row| Ok(Count { what: row.get(0)?, questions: count(row, 1)? }))?.collect()
}

fn count(row: &rusqlite::Row<'_>, at: usize) -> Result<u64, Error> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or_default())
}
