//! Changes of a state folder that no process uses: under the lock that a process would have, and written down in the
//! same log as its own.

use std::path::Path;

use anyhow::{Context, anyhow};

use crate::{
    app::{control, lock},
    audit::Audit,
    privilege, store,
};

/// Does something to the state as its owner; no process can begin to use it meanwhile.
pub(crate) fn change<T>(state: &Path, what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // Root stays the real user where it acts as the owner of the state.
    let author = control::author(nix::unistd::getuid().as_raw());
    store::folder(state).with_context(|| format!("state folder {}", state.display()))?;
    privilege::act_as_owner(state)?;
    let _lock = lock::take(state).map_err(|error| match error {
        lock::Error::Held { .. } => anyhow!("hearthgate runs on {} but does not answer", state.display()),
        lock::Error::Io { .. } => anyhow!("{error}"),
    })?;
    let done = work();
    let outcome = match &done {
        Ok(_) => "done, for the next start".to_owned(),
        Err(error) => format!("refused: {}", format!("{error:#}").lines().next().unwrap_or_default()),
    };
    Audit::new(state).record(&author, what, &outcome);
    done
}
