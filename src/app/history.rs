//! The generations of the configuration, as commands see them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    app::{Edge, control::Refusal},
    config::{
        generations::{self, GenerationError},
        hidden::Hider,
    },
};

/// A generation as `config log` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// When it was accepted, in seconds since 1970.
    pub time: i64,
    /// Who brought it.
    pub author: String,
    /// SHA-256 of file and edits.
    pub digest: String,
}

/// A generation as `config show` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Text {
    /// Its number.
    pub number: u64,
    /// The owner's file as it was.
    pub file: String,
    /// The edits as they were.
    pub edits: String,
}

/// Returns what is kept, the oldest first.
pub fn log(state: &Path) -> Result<Vec<Entry>, Refusal> {
    let kept = generations::list(state).map_err(refusal)?;
    let entry = |kept: generations::Generation| Entry {
        number: kept.number,
        time: kept.time.as_second(),
        author: kept.author,
        digest: kept.digest,
    };
    Ok(kept.into_iter().map(entry).collect())
}

/// Returns a generation without its secrets; the last one without a number.
pub fn show(state: &Path, number: Option<u64>) -> Result<Text, Refusal> {
    let number = number.map_or_else(|| last(state, 0), Ok)?;
    let kept = generations::show(state, number).map_err(refusal)?;
    let hider = Hider::new();
    Ok(Text { number, file: hider.hide(&kept.file), edits: hider.hide(&kept.edits) })
}

/// Returns what changed since a generation; since the one before the last without a number.
pub fn diff(state: &Path, number: Option<u64>) -> Result<String, Refusal> {
    let to = last(state, 0)?;
    let from = number.map_or_else(|| last(state, 1), Ok)?;
    generations::diff(state, from, to).map_err(refusal)
}

fn last(state: &Path, before: usize) -> Result<u64, Refusal> {
    let kept = generations::list(state).map_err(refusal)?;
    let found = kept.iter().rev().nth(before).map(|kept| kept.number);
    found.ok_or_else(|| Refusal::missing("there are not so many generations yet"))
}

pub(super) fn refusal(error: GenerationError) -> Refusal {
    match error {
        GenerationError::Unknown(_) => Refusal::missing(error),
        GenerationError::Edits(_) | GenerationError::Io(_) => Refusal::ours(error),
    }
}

impl Edge {
    /// Returns what is kept, the oldest first.
    pub fn generations(&self) -> Result<Vec<Entry>, Refusal> {
        log(&self.state)
    }

    /// Returns a generation.
    pub fn show(&self, number: Option<u64>) -> Result<Text, Refusal> {
        show(&self.state, number)
    }

    /// Returns what changed since a generation.
    pub fn diff(&self, number: Option<u64>) -> Result<String, Refusal> {
        diff(&self.state, number)
    }
}
