//! The log of questions: filtered, the newest first, a page at a time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Error, ErrorCode, types::Value};
use serde::{Deserialize, Serialize};

use super::{
    row::{What, first_of, time_of},
    store::kind,
};

/// A search that takes longer ends with what it has found.
const DEADLINE: Duration = Duration::from_secs(2);
/// Records of a page at most.
const MOST: usize = 1000;
/// Steps of SQLite's machine between looks at the clock.
const STEPS: i32 = 20_000;

/// Which questions are wanted; all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// A part of the name.
    pub name: Option<String>,
    /// Whose they are.
    pub client: Option<String>,
    /// How they ended.
    pub outcome: Option<String>,
    /// The list or group that decided.
    pub rule: Option<String>,
    /// The type of records, by its number.
    pub qtype: Option<u16>,
    /// Not before this, in seconds since 1970.
    pub from: Option<i64>,
    /// Before this, in seconds since 1970.
    pub to: Option<i64>,
    /// Older than this one: the `next` of the page before.
    pub before: Option<i64>,
    /// How many.
    pub limit: Option<usize>,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, by which it stands in time.
    pub id: i64,
    /// When it was answered, in milliseconds since 1970.
    pub at: i64,
    /// The name, in lower case.
    pub name: String,
    /// The type of records.
    pub qtype: u16,
    /// A device, a peer, or an address.
    pub client: String,
    /// How it ended.
    pub outcome: String,
    /// How it came.
    pub transport: String,
    /// The list or the group that decided; empty where none did.
    pub rule: String,
    /// Microseconds until there was an answer, to within a fifth.
    pub took: u32,
}

/// A page of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The newest first.
    pub entries: Vec<Entry>,
    /// From where the next page goes on, if there may be one.
    pub next: Option<i64>,
    /// The search took too long and ended here: there may be more before it.
    pub cut: bool,
}

/// Returns the questions that a filter lets through.
pub(super) fn search(connection: &mut Connection, filter: &Filter) -> Result<Found, Error> {
    let words = words(connection)?;
    let limit = filter.limit.unwrap_or(100).clamp(1, MOST);
    let mut clauses = vec!["1".to_owned()];
    let mut values: Vec<Value> = Vec::new();
    let mut clause = |text: &str, value: Value| {
        values.push(value);
        clauses.push(text.replace('?', &format!("?{}", values.len())));
    };
    let millis = |seconds: i64| first_of(seconds.saturating_mul(1000));
    if let Some(before) = filter.before {
        clause("q.id < ?", before.into());
    }
    if let Some(from) = filter.from {
        clause("q.id >= ?", millis(from).into());
    }
    if let Some(to) = filter.to {
        clause("q.id < ?", millis(to).into());
    }
    if let Some(part) = &filter.name {
        // Every character stands for itself.
        clause("instr(n.text, ?) > 0", part.to_ascii_lowercase().into());
    }
    if let Some(client) = &filter.client {
        clause("q.client = (SELECT id FROM client WHERE text = ?)", client.clone().into());
    }
    // Parts of what a record says in one number, and what they must be.
    let mut parts: Vec<(What, What)> = Vec::new();
    for (kind, wanted) in [(kind::OUTCOME, &filter.outcome), (kind::RULE, &filter.rule)] {
        let Some(wanted) = wanted else { continue };
        let found = words.iter().find(|((of, _), text)| *of == kind && *text == wanted);
        let Some(((_, id), _)) = found else { return Ok(Found::default()) };
        let (mask, value) = match kind {
            kind::OUTCOME => {
                let outcome = u8::try_from(*id).unwrap_or_default();
                (What { outcome: u8::MAX, ..What::default() }, What { outcome, ..What::default() })
            }
            _ => {
                let rule = u16::try_from(*id).unwrap_or_default();
                (What { rule: u16::MAX, ..What::default() }, What { rule, ..What::default() })
            }
        };
        parts.push((mask, value));
    }
    if let Some(qtype) = filter.qtype {
        parts.push((What { qtype: u16::MAX, ..What::default() }, What { qtype, ..What::default() }));
    }
    for (mask, value) in parts {
        clause(&format!("(q.what & {}) = ?", mask.pack()), value.pack().into());
    }
    let query = format!(
        "SELECT q.id, n.text, c.text, q.what FROM question q CROSS JOIN name n ON n.id = q.name
         CROSS JOIN client c ON c.id = q.client WHERE {} ORDER BY q.id DESC LIMIT {limit}",
        clauses.join(" AND ")
    );
    let until = Instant::now() + DEADLINE;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until))?;
    let result = page(connection, &query, values, &words, limit);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    result
}

fn page(
    connection: &Connection,
    query: &str,
    values: Vec<Value>,
    words: &HashMap<(i64, i64), String>,
    limit: usize,
) -> Result<Found, Error> {
    let word = |kind, id: i64| words.get(&(kind, id)).cloned().unwrap_or_default();
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut found = Found::default();
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                found.cut = true;
                break;
            }
            Err(error) => return Err(error),
        };
        let id: i64 = row.get(0)?;
        let what = What::unpack(row.get(3)?);
        found.entries.push(Entry {
            id,
            at: time_of(id),
            name: row.get(1)?,
            client: row.get(2)?,
            qtype: what.qtype,
            outcome: word(kind::OUTCOME, what.outcome.into()),
            transport: word(kind::TRANSPORT, what.transport.into()),
            rule: word(kind::RULE, what.rule.into()),
            took: what.took,
        });
    }
    if found.entries.len() == limit || found.cut {
        found.next = found.entries.last().map(|entry| entry.id);
    }
    Ok(found)
}

/// Returns words by kind and number.
pub(super) fn words(connection: &Connection) -> Result<HashMap<(i64, i64), String>, Error> {
    let mut statement = connection.prepare("SELECT kind, id, text FROM word")?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    rows.collect()
}
