//! Changes of a state folder that no process uses: under the lock that a process would have, and written down in the
//! same log as its own.

use std::path::Path;

use anyhow::{Context, anyhow, bail};

use crate::{
    app::{control, lock, pending::Pending},
    audit::Audit,
    privilege, store,
};

/// Refuses to change a configuration while a change of before waits: what takes that one back would take this one too.
pub(crate) fn nothing_waits(state: &Path) -> anyhow::Result<()> {
    match Pending::resume(state) {
        None => Ok(()),
        Some(pending) => bail!(
            "a change waits to be confirmed ({}): start hearthgate, and `hearthgate confirm` keeps it, \
             `hearthgate confirm --undo` takes it back",
            pending.waiting().risk
        ),
    }
}

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
