//! A change that waits to be confirmed, and takes itself back if it is not: over restarts too.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    app::{Edge, Reloaded, control::Refusal, reload::Basis},
    config::{edits::Edits, generations},
    store,
};

/// How long a change waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// Its name in the state folder: what it would go back to.
const FILE: &str = "unconfirmed";

/// A change that is in force and waits.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// The generation that it goes back to.
    before: u64,
    /// What it could cost its author.
    risk: String,
    due: Instant,
}

/// The same, for `status` and for whoever made the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What it could cost its author.
    pub risk: String,
    /// Seconds until it is taken back.
    pub left: u64,
    /// The generation that it goes back to.
    pub before: u64,
}

impl Pending {
    /// Makes a change wait; that it does is on the disk before anybody is told of it.
    pub(super) fn begin(state: &Path, before: u64, risk: String) -> io::Result<Self> {
        store::write(&path(state), format!("{before} {risk}\n").as_bytes())?;
        Ok(Self { before, risk, due: Instant::now() + PATIENCE })
    }

    /// Returns the change that waited when the last process ended; it waits anew.
    pub(super) fn resume(state: &Path) -> Option<Self> {
        let content = store::read(&path(state)).ok()?.content()?;
        let text = String::from_utf8(content).ok()?;
        let (before, risk) = text.trim_end().split_once(' ')?;
        Some(Self { before: before.parse().ok()?, risk: risk.to_owned(), due: Instant::now() + PATIENCE })
    }

    fn end(state: &Path) -> io::Result<()> {
        store::write(&path(state), b"")
    }

    pub(super) fn waiting(&self) -> Waiting {
        let left = self.due.saturating_duration_since(Instant::now()).as_secs();
        Waiting { risk: self.risk.clone(), left, before: self.before }
    }

    /// What somebody is told who wants to change something else meanwhile.
    pub(super) fn refusal(&self) -> Refusal {
        Refusal::asked(format!(
            "a change waits to be confirmed ({}): `hearthgate confirm` keeps it, `hearthgate confirm --undo` takes it back",
            self.risk
        ))
    }
}

fn path(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// Which text of the owner's file was taken back, and the generation that holds instead until the file is another one.
const TAKEN_BACK: &str = "taken-back";

fn remember_taken_back(state: &Path, file: &str, before: u64) -> io::Result<()> {
    store::write(&state.join(TAKEN_BACK), format!("{before} {}\n", digest(file)).as_bytes())
}

fn forget_taken_back(state: &Path) -> io::Result<()> {
    match store::peek(&state.join(TAKEN_BACK))?.content() {
        Some(content) if !content.is_empty() => store::write(&state.join(TAKEN_BACK), b""),
        _ => Ok(()),
    }
}

/// Returns the text that is meant instead of this one, if this one was taken back: a restart is no confirmation.
pub(super) fn instead_of(state: &Path, file: &str) -> Option<String> {
    let content = store::glance(&state.join(TAKEN_BACK)).ok()?.content()?;
    let text = String::from_utf8(content).ok()?;
    let (before, taken_back) = text.trim_end().split_once(' ')?;
    if taken_back != digest(file) {
        return None;
    }
    generations::show(state, before.parse().ok()?).ok().map(|generation| generation.file)
}

fn digest(file: &str) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Edge {
    /// Returns the change that waits, if there is one.
    pub fn waiting(&self) -> Option<Waiting> {
        self.pending().as_ref().map(Pending::waiting)
    }

    /// Keeps the change that waits.
    pub fn confirm_change(&self, author: &str) -> Result<(), Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut pending = self.pending();
        let Some(kept) = pending.as_ref() else { return Err(Refusal::missing("no change waits to be confirmed")) };
        Pending::end(&self.state).map_err(Refusal::ours)?;
        forget_taken_back(&self.state).map_err(Refusal::ours)?;
        self.audit.record(author, "confirm", &format!("kept: {}", kept.risk));
        *pending = None;
        self.confirm.forget_others();
        Ok(())
    }

    /// Takes the change back that waits.
    pub fn take_back(&self, author: &str) -> Result<Reloaded, Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(Pending { before, risk, .. }) = self.pending().clone() else {
            return Err(Refusal::missing("no change waits to be confirmed"));
        };
        let old = generations::show(&self.state, before).map_err(super::history::refusal)?;
        let mut edits = Edits::read(&self.state).map_err(Refusal::ours)?;
        let now = edits.text();
        edits.write(old.edits).map_err(Refusal::ours)?;
        tracing::warn!(risk, generation = before, "a change that was not confirmed is taken back");
        let taken_back = self.force.load().file.clone();
        let reloaded = self.load_and_commit(&format!("{author}: confirm --undo"), Basis::Text(&old.file));
        match &reloaded {
            Err(_) => edits.write(now).map_err(Refusal::ours)?,
            Ok(_) if taken_back != old.file => {
                remember_taken_back(&self.state, &taken_back, before).map_err(Refusal::ours)?;
            }
            Ok(_) => {}
        }
        // Also if it cannot be taken back, which the log says: it is not tried for ever.
        *self.pending() = None;
        Pending::end(&self.state).map_err(Refusal::ours)?;
        reloaded
    }

    /// Takes the change back if its time is over.
    pub(super) fn take_back_if_due(&self) {
        let is_due = self.pending().as_ref().is_some_and(|pending| pending.due <= Instant::now());
        if is_due && let Err(refusal) = self.take_back("hearthgate") {
            tracing::error!(error = refusal.failure().error, "a change that was not confirmed cannot be taken back");
        }
    }
}
